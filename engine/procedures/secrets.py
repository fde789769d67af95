"""Secrets: references in place of values, and masking of values in what a step prints. Pure.

A secret parameter's value is a reference (`env:NAME`, `file:PATH`, `command:ARGV`). Only the
reference is journaled, hashed and shown; the value exists from the start of an attempt to its end.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MASK = "•••"
_LEAST_LINE = 4  # shorter lines of a secret of many lines are too common to mask


@dataclass(frozen=True)
class SecretRef:
    """A secret by its reference. `str()` of it is for people: where it comes from, masked."""

    reference: str

    def __str__(self) -> str:
        source = self.reference.partition(":")[0]
        return f"{MASK} (from {self.reference if source == 'env' else source})"


class Masker:
    """Masks secrets in a stream of bytes, also where a chunk ends within one.

    Every occurrence is found, overlapping ones too, and becomes one mask; of a secret of several
    lines each line of at least four characters is masked as well. What is held back between two
    chunks is shorter than the longest secret.
    """

    def __init__(self, secrets: Iterable[str], mask: str = MASK) -> None:
        words: set[bytes] = set()
        for secret in secrets:
            words.add(secret.encode("utf-8", "surrogateescape"))
            lines = [line.strip() for line in secret.splitlines()]
            words.update(line.encode("utf-8", "surrogateescape") for line in lines
                         if len(lines) > 1 and len(line) >= _LEAST_LINE)
        words.discard(b"")
        self._words = sorted(words, key=len, reverse=True)
        self._mask = mask.encode()
        self._held = b""
        self._covered = 0  # bytes at the start of what is held that a mask already stands for

    def feed(self, data: bytes) -> bytes:
        """The masked bytes that are certain after `data`."""
        buffer = self._held + data
        return self._emit(buffer, len(buffer) - self._doubtful(buffer))

    def flush(self) -> bytes:
        """The rest, when the stream has ended."""
        out = self._emit(self._held, len(self._held))
        self._held, self._covered = b"", 0
        return out

    def _emit(self, buffer: bytes, end: int) -> bytes:
        """Everything before `end`, masked; keeps the rest and how much of it is masked already."""
        out: list[bytes] = []
        at = min(self._covered, end)
        covered = self._covered
        for start, stop in self._spans(buffer):
            if start < covered:
                covered = max(covered, stop)
            elif start < end:
                out += (buffer[at:start], self._mask)
                covered = stop
            at = max(at, min(covered, end))
        out.append(buffer[at:end])
        self._held, self._covered = buffer[end:], max(0, covered - end)
        return b"".join(out)

    def _spans(self, buffer: bytes) -> list[tuple[int, int]]:
        found = []
        for word in self._words:
            at = buffer.find(word)
            while at >= 0:
                found.append((at, at + len(word)))
                at = buffer.find(word, at + 1)
        return sorted(found, key=lambda span: (span[0], -span[1]))

    def _doubtful(self, buffer: bytes) -> int:
        """The length of the longest end of `buffer` that may be the beginning of a secret."""
        longest = 0
        for word in self._words:
            for size in range(min(len(word) - 1, len(buffer)), longest, -1):
                if buffer.endswith(word[:size]):
                    longest = size
                    break
        return longest


def mask(text: str, secrets: Iterable[str]) -> str:
    """The text with every secret masked."""
    masker = Masker(secrets)
    data = text.encode("utf-8", "surrogateescape")
    return (masker.feed(data) + masker.flush()).decode("utf-8", "surrogateescape")
