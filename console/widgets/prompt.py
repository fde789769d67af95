"""The line at the bottom that takes `:` (go to) and `/` (filter), with completion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from console.edit import Edit
from console.widgets.lines import Lines, Span, line

Outcome = Literal["typing", "entered", "left"]
Complete = Callable[[str], list[str]]


class Prompt(Lines):
    """`open` shows it with a sign; the view hands it every key until it is closed."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.edit = Edit()
        self.sign = ":"
        self.complete: Complete = lambda _text: []
        self._typed = ""
        self._choice = -1

    def open(self, sign: str, text: str, complete: Complete) -> None:
        self.sign, self.edit, self.complete = sign, Edit(text), complete
        self._typed, self._choice = text, -1
        self.display = True
        self.draw()

    def close(self) -> None:
        self.display = False

    def draw(self) -> None:
        width = self.size.width or 80
        spans: list[Span] = [(f" {self.sign}", "accent"), *self.edit.spans(max(20, width - 30))]
        names = [name for name in self.complete(self._typed) if name != self.edit.text]
        if names:
            spans.append(("   " + "  ".join(names[:12]), "dim"))
        elif self.sign == "/" and not self.edit.text:
            spans.append(("   words to find; ! at the front shows the others", "dim"))
        self.show([line(*spans)])

    def on_resize(self) -> None:
        self.draw()

    def press(self, key: str, character: str | None) -> Outcome:
        """One key. "left" and "entered" close the prompt; otherwise it goes on."""
        if key in ("escape", "enter") or (key == "backspace" and not self.edit.text):
            self.close()
            return "entered" if key == "enter" else "left"
        if key in ("tab", "shift+tab", "down", "up"):
            self._cycle(-1 if key in ("shift+tab", "up") else 1)
        elif self.edit.press(key, character):
            self._typed, self._choice = self.edit.text, -1
        self.draw()
        return "typing"

    def paste(self, text: str) -> None:
        self.edit.insert(text)
        self._typed, self._choice = self.edit.text, -1
        self.draw()

    def _cycle(self, by: int) -> None:
        names = self.complete(self._typed)
        if names:
            self._choice = (self._choice + by) % len(names)
            self.edit = Edit(names[self._choice])
