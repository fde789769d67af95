"""`?`: the keys that work here and the places `:` knows, from the one table."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.screen import ModalScreen

from console import commands, format
from console.screens.dialog import Sheet
from console.widgets.lines import Line, line


def help_lines(view: str, width: int, height: int) -> list[Line]:
    """Two columns: what works in this view, then everywhere; the `:` places below."""
    entries: list[tuple[str, str]] = []
    for command in commands.here(view):
        if (command.show, command.help) not in entries:
            entries.append((command.show, command.help))
    half = (len(entries) + 1) // 2
    column = width // 2 - 1
    lines: list[Line] = []
    for at in range(half):
        spans = []
        for key, text in (entries[at], entries[at + half] if at + half < len(entries) else ("", "")):
            spans += [(f" {format.left(key, 6)}", "accent"),
                      (format.left(text, column - 8), "text")]
        lines.append(line(*spans))
    places = "  ".join(f":{usage}" for usage, _ in commands.PROMPT)
    lines += [line(" "), *(line((" " + row, "dim")) for row in format.wrap(places, width - 2))]
    return lines[:height]


class HelpDialog(ModalScreen[None], inherit_bindings=False):
    """Any key puts it away."""

    AUTO_FOCUS = ""
    BINDINGS = []
    DEFAULT_CLASSES = "sheet"

    def __init__(self, view: str) -> None:
        super().__init__()
        self.about = view

    def compose(self) -> ComposeResult:
        yield Sheet()

    def on_mount(self) -> None:
        self.draw()

    def on_resize(self) -> None:
        self.call_after_refresh(self.draw)

    def draw(self) -> None:
        width, height = self.app.size
        sheet = self.query_one(Sheet)
        rule = line((sheet.deck.glyphs.rule * width, "dim"))
        title = line((f" Keys in {self.about.capitalize()}", "strong"), ("   any key closes this", "dim"))
        lines = [rule, title, line(" "), *help_lines(self.about, width, height - 5)]
        sheet.styles.height = len(lines)
        sheet.show(lines)

    async def press(self, _key: str, _character: str | None) -> None:
        self.dismiss()

    def paste(self, _text: str) -> None:
        """Nothing to paste into."""
