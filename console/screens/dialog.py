"""The sheet that asks before anything is done. It rises from the bottom, so the state above stays visible."""

from __future__ import annotations

from collections.abc import Callable

from textual.app import ComposeResult
from textual.screen import ModalScreen

from console import format
from console.asks import Ask, Choice
from console.edit import Edit
from console.widgets.lines import Line, Lines, Span, line

LABEL = 11
Answered = Callable[[Ask, Choice, str], object]


def fact_lines(facts: tuple[tuple[str, str], ...], width: int) -> list[Line]:
    """Labels on the left, texts wrapped on the right."""
    lines: list[Line] = []
    for label, text in facts:
        for number, piece in enumerate(format.wrap(text, max(20, width - LABEL - 3))):
            shown = format.left(label if number == 0 else "", LABEL)
            lines.append(line((f" {shown} ", "dim"), (piece, "text")))
    return lines


class Sheet(Lines):
    """The lines of a dialog."""


class Dialog(ModalScreen[None], inherit_bindings=False):
    """Puts an `Ask`. Calls `answered` with the choice and what was typed; leaving calls nothing.

    `abort` is what x does, and ctrl-x where x is a letter of what is typed: every ask that concerns
    a run has it, so that a question never stands in the way of an abort.
    """

    AUTO_FOCUS = ""
    BINDINGS = []

    def __init__(self, ask: Ask, answered: Answered,
                 abort: Callable[[], None] | None = None) -> None:
        super().__init__()
        self.put = ask
        self.answered = answered
        self.abort = abort
        self.choice: Choice | None = None
        self.edit = Edit(limit=500)
        self.problem = ""
        self.scrolled = 0
        if len(ask.choices) == 1 and ask.choices[0].wants != "nothing":
            self.choice = ask.choices[0]

    def compose(self) -> ComposeResult:
        yield Sheet()

    def on_mount(self) -> None:
        self.draw()

    def on_unmount(self) -> None:
        self._styles_cache.clear()  # see widgets.lines.Drawn

    def on_resize(self) -> None:
        self.call_after_refresh(self.draw)

    def draw(self) -> None:
        if not self.is_mounted:
            return
        width, height = self.app.size
        sheet = self.query_one(Sheet)
        glyphs = sheet.deck.glyphs
        facts = fact_lines(self.put.facts, width)
        below = self._question(width)
        title = [line((" " + row, "strong")) for row in format.wrap(self.put.title, width - 2)]
        room = max(3, height - len(below) - len(title) - 4)
        self.scrolled = max(0, min(self.scrolled, len(facts) - room))
        more = len(facts) - room - self.scrolled
        shown = facts[self.scrolled:self.scrolled + room]
        if more > 0:
            shown[-1] = line((f" {format.plural(more + 1, 'more line')}, PgDn shows them", "ask"))
        lines = [line((glyphs.rule * width, "dim")), *title, *shown, line(" "), *below]
        sheet.styles.height = len(lines)
        sheet.show(lines)

    def _question(self, width: int) -> list[Line]:
        if self.choice is None:
            spans: list[Span] = []
            rows: list[Line] = []
            used = 1
            aborts = [("x", "abort")] if self.abort is not None else []
            offered = [*((c.key, c.label) for c in self.put.choices), *aborts]
            long = sum(len(key) + len(label) + 4 for key, label in offered) + 22 > width
            for key, label in [*offered, ("esc", "leave it" if long else "leave it as it is")]:
                if used + len(key) + len(label) + 1 > width and spans:
                    rows.append(line(" ", *spans))
                    spans, used = [], 1
                spans += [(key, "ask"), (f" {label}   ", "text")]
                used += len(key) + len(label) + 4
            return [*rows, line(" ", *spans), *self._problem(width)]
        keys = "   esc leaves it as it is" + ("   ^X aborts" if self.abort is not None else "")
        first = [line((f" {self.choice.prompt}", "ask"), (keys, "dim"))]
        if len(self.choice.prompt) + len(keys) + 1 > width:
            first = [line((f" {self.choice.prompt}", "ask")), line((keys[2:], "dim"))]
        return [*first, line((" > ", "accent"), *self.edit.spans(width - 6)), *self._problem(width)]

    def _problem(self, width: int) -> list[Line]:
        return [line((" " + row, "warn")) for row in format.wrap(self.problem, width - 2)] \
            if self.problem else []

    async def press(self, key: str, character: str | None) -> None:
        if key == "escape" or (self.choice is None and key in ("n", "q")):
            self.dismiss()
        elif key == "ctrl+x" or (key == "x" and self.choice is None):
            self._abort()
        elif key in ("pageup", "pagedown"):
            self.scrolled += 5 if key == "pagedown" else -5
            self.draw()
        elif self.choice is None:
            self._choose(character or key)
        elif key == "enter":
            self._enter(self.choice)
        elif self.edit.press(key, character):
            self.problem = ""
            self.draw()

    def paste(self, text: str) -> None:
        if self.choice is not None:
            self.edit.insert(text)
            self.draw()

    def _choose(self, key: str) -> None:
        for choice in self.put.choices:
            if choice.key == key:
                if choice.wants == "nothing":
                    self._finish(choice, "")
                else:
                    self.choice = choice
                    self.draw()
                return

    def _abort(self) -> None:
        if self.abort is not None:
            self.dismiss()
            self.abort()
            return
        asked = any(choice.verb == "abort" for choice in self.put.choices)
        self.problem = "This is the question about the abort: y aborts." if asked else \
            "There is no run yet, so there is nothing to abort."
        self.draw()

    def _enter(self, choice: Choice) -> None:
        text = self.edit.text.strip()
        if choice.wants == "typed" and text != choice.expected:
            self.problem = f"That is not {choice.expected}. Nothing was done."
        elif choice.wants == "text" and not text:
            self.problem = "Please write something; nothing was done."
        else:
            self._finish(choice, text)
            return
        self.draw()

    def _finish(self, choice: Choice, text: str) -> None:
        self.dismiss()
        self.answered(self.put, choice, text)
