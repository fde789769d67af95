"""A child's output as lines: harmless to a terminal, without its secrets, kept whole and shown in part."""

from __future__ import annotations

import codecs
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TextIO

from engine.procedures.output import harmless
from engine.procedures.secrets import mask

LONGEST = 16_384  # characters of a line; a longer one is cut into several
SHOWN = 40  # lines a second that are shown; the rest is only kept
KEPT = 64 << 20  # characters of the log
TAIL = 60  # lines that are remembered, to say why it ended


class Lines:
    """Takes bytes as they come. Every line goes to `log`, up to SHOWN a second to `say`; `tail` has the last.

    A carriage return ends a line, so that a progress bar is lines. `secrets` are masked in all three, and
    `told` is what becomes of a line first.
    """

    def __init__(self, log: TextIO, say: Callable[[str], None], secrets: Sequence[str] = (),
                 clock: Callable[[], float] = time.monotonic, told: Callable[[str], str] = str) -> None:
        self.tail: deque[str] = deque(maxlen=TAIL)
        self._log, self._say, self._clock, self._told = log, say, clock, told
        # A secret of several lines is printed as several.
        pieces = {piece for one in secrets for piece in (one, *one.splitlines()) if len(piece) >= 4}
        self._secrets = sorted(pieces | {one for one in secrets if one}, key=len, reverse=True)
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._rest = ""
        self._second, self._shown, self._held, self._kept = 0, 0, 0, 0

    def feed(self, data: bytes, last: bool = False) -> None:
        """`last`: nothing more comes, so what has no newline yet is a line."""
        text = self._rest + self._decode(data, last)
        end = len(text) if last else max(text.rfind("\n"), text.rfind("\r", 0, -1)) + 1
        if end == 0 and len(text) > LONGEST:
            end = len(text)
        self._rest = text[end:]
        lines = text[:end].replace("\r\n", "\n").replace("\r", "\n").split("\n")
        if self._kept > KEPT and len(lines) > TAIL:  # of the others only the number is told
            self._held += len(lines) - TAIL
            lines = lines[-TAIL:]
        for line in lines:
            for at in range(0, len(line), LONGEST):
                self._line(line[at:at + LONGEST])
        if last:
            self._tell()
        self._log.flush()

    def _line(self, line: str) -> None:
        line = mask(self._told(harmless(line)), self._secrets).rstrip()
        if not line:
            return
        self.tail.append(line)
        if self._kept <= KEPT:
            self._kept += len(line) + 1
            full = "(the log is full; what follows is not kept)"
            self._log.write(f"{line if self._kept <= KEPT else full}\n")
        second = int(self._clock())
        if second != self._second:
            self._tell()
            self._second, self._shown = second, 0
        if self._shown < SHOWN:
            self._shown += 1
            self._say(line)
        else:
            self._held += 1

    def _tell(self) -> None:
        if self._held:
            self._say(f"… {self._held} more lines in log.txt")
            self._held = 0
