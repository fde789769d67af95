"""The line at the bottom that takes `:` (go to) and `/` (filter), with completion."""

from __future__ import annotations

from collections.abc import Callable

from textual import events
from textual.message import Message

from console.edit import Edit
from console.widgets.lines import Lines, Span, line

Complete = Callable[[str], list[str]]


class Prompt(Lines, can_focus=True):
    """`open` shows it with a sign; it reports every change and how it ended."""

    class Changed(Message):
        def __init__(self, sign: str, text: str) -> None:
            super().__init__()
            self.sign, self.text = sign, text

    class Ended(Message):
        """`text` is None when the person left without an answer."""

        def __init__(self, sign: str, text: str | None) -> None:
            super().__init__()
            self.sign, self.text = sign, text

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
        self.focus()
        self.draw()

    def close(self) -> None:
        self.display = False
        self.screen.set_focus(None)

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

    def on_key(self, event: events.Key) -> None:
        if event.key == "ctrl+c":
            return
        event.stop()
        event.prevent_default()
        if event.key in ("escape", "enter"):
            self.close()
            text = self.edit.text if event.key == "enter" else None
            self.post_message(self.Ended(self.sign, text))
            return
        if event.key in ("tab", "shift+tab", "down", "up"):
            self._cycle(-1 if event.key in ("shift+tab", "up") else 1)
        elif event.key == "backspace" and not self.edit.text:
            self.close()
            self.post_message(self.Ended(self.sign, None))
            return
        elif self.edit.press(event.key, event.character):
            self._typed, self._choice = self.edit.text, -1
        self.draw()
        self.post_message(self.Changed(self.sign, self.edit.text))

    def on_paste(self, event: events.Paste) -> None:
        event.stop()
        self.edit.insert(event.text)
        self._typed, self._choice = self.edit.text, -1
        self.draw()
        self.post_message(self.Changed(self.sign, self.edit.text))

    def _cycle(self, by: int) -> None:
        names = self.complete(self._typed)
        if names:
            self._choice = (self._choice + by) % len(names)
            self.edit = Edit(names[self._choice])
