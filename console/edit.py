"""One line of text being edited: keys in, text and caret out. Pure."""

from __future__ import annotations

from rich.cells import cell_len


class Edit:
    """`text` with a caret before character `at`. `limit` is the most characters it takes."""

    def __init__(self, text: str = "", *, limit: int = 2000) -> None:
        self.text = text
        self.at = len(text)
        self.limit = limit

    def press(self, key: str, character: str | None) -> bool:
        """Apply one key, in readline's habits. False if it is not an editing key."""
        before, after = self.text[:self.at], self.text[self.at:]
        if key in ("backspace", "ctrl+h"):
            self._set(before[:-1], after)
        elif key in ("delete", "ctrl+d"):
            self._set(before, after[1:])
        elif key in ("left", "ctrl+b"):
            self.at = max(0, self.at - 1)
        elif key in ("right", "ctrl+f"):
            self.at = min(len(self.text), self.at + 1)
        elif key in ("home", "ctrl+a"):
            self.at = 0
        elif key in ("end", "ctrl+e"):
            self.at = len(self.text)
        elif key == "ctrl+u":
            self._set("", after)
        elif key == "ctrl+k":
            self._set(before, "")
        elif key == "ctrl+w":
            kept = before.rstrip()
            self._set(kept[:kept.rfind(" ") + 1], after)
        elif character and character.isprintable():
            self.insert(character)
        else:
            return False
        return True

    def insert(self, text: str) -> None:
        """Type or paste; line ends and control characters become blanks."""
        clean = "".join(c if c.isprintable() else " " for c in text)
        clean = clean[:max(0, self.limit - len(self.text))]
        self._set(self.text[:self.at] + clean, self.text[self.at:])

    def _set(self, before: str, after: str) -> None:
        self.text, self.at = before + after, len(before)

    def spans(self, width: int, *, active: bool = True) -> tuple[tuple[str, str], ...]:
        """The text in `width` cells, scrolled so that the caret shows, the caret as a reversed cell."""
        if not active:
            return ((self.text, "text"),)
        start = 0
        while cell_len(self.text[start:self.at]) >= max(1, width):
            start += 1
        under = self.text[self.at:self.at + 1] or " "
        end = self.at + 1
        while end < len(self.text) and cell_len(self.text[start:end + 1]) <= width:
            end += 1
        return ((self.text[start:self.at], "text"), (under, "caret"),
                (self.text[self.at + 1:end], "text"))
