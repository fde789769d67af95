"""The output of one attempt of a step, put together from chunks. Pure."""

from __future__ import annotations

from console import format
from engine.api.backend import OutputChunk

KEPT_LINES = 5000


class Transcript:
    """Lines of output, the newest `KEPT_LINES` of them, stdout and stderr as they came.

    `next` is for each stream the byte its next chunk starts at.
    """

    def __init__(self) -> None:
        self.next: dict[str, int] = {}
        self.version = 0
        self.lines: list[str] = [""]
        self.final = False
        self._wrapped: list[str] = []
        self._wrapped_for = (0, 0)

    def feed(self, chunk: OutputChunk) -> bool:
        """Add a chunk. What was seen already is left out, what is missing is said. True if news."""
        self.final = self.final or chunk.final
        here = self.next.get(chunk.stream, 0)
        if chunk.next <= here:
            return False
        text = chunk.text
        if chunk.offset > here:
            text = f"\n[{format.size(chunk.offset - here)} of output are not shown]\n{text}"
        elif chunk.offset < here:
            text = text.encode()[here - chunk.offset:].decode("utf-8", "replace")
        self.next[chunk.stream] = chunk.next
        self._add(text)
        return True

    def _add(self, text: str) -> None:
        first, *rest = text.split("\n")
        self.lines[-1] += first
        self.lines.extend(rest)
        if len(self.lines) > KEPT_LINES:
            del self.lines[:len(self.lines) - KEPT_LINES]
        self.version += 1

    @property
    def empty(self) -> bool:
        return self.lines == [""]

    def wrapped(self, width: int) -> list[str]:
        """The lines folded at `width` cells, without the empty one after the last line end."""
        key = (width, self.version)
        if self._wrapped_for != key:
            whole = self.lines[:-1] if self.lines[-1] == "" else self.lines
            self._wrapped = [piece for text in whole
                             for piece in format.fold(text.expandtabs(8), width)]
            self._wrapped_for = key
        return self._wrapped

    def text(self) -> str:
        return "\n".join(self.lines)
