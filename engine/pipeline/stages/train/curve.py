"""Following metrics.jsonl while it is written: the live curve, and what tracking is yet to be sent."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

APART = 0.2  # seconds between two points of a name that are shown; the last is shown in any case
READ = 1 << 20  # bytes at once
LONGEST = 1 << 16  # bytes of a line
WAITING = 100_000  # points that wait to be sent


@dataclass(frozen=True)
class Point:
    """`at`: when it was read, in seconds since 1970."""

    name: str
    step: float
    value: float
    at: float


class Curve:
    """Reads what is new in `path` at each `poll`: lines of JSON such as {"step": 3, "loss": 0.4}.

    Without `step` a line's number counts, from 0. `take` gives the points since it was last called; it may be
    called from another thread. `broken`: by name, the first step at which a value was no finite number.
    """

    def __init__(self, path: Path, point: Callable[[str, float, float], None], say: Callable[[str], None],
                 clock: Callable[[], float] = time.time) -> None:
        self.broken: dict[str, float] = {}
        self.points = 0
        self._path, self._point, self._say, self._clock = path, point, say, clock
        self._offset, self._rest, self._line, self._told = 0, b"", 0, False
        self._new: deque[Point] = deque(maxlen=WAITING)
        self._shown: dict[str, float] = {}
        self._held: dict[str, Point] = {}

    def poll(self, last: bool = False) -> None:
        """`last`: nothing more is written, so a line without its end is one."""
        try:
            # The project's own code made it: a pipe in its place must not be waited for.
            if self._path.is_file() and not self._path.is_symlink():
                self._read(last)
        except OSError as error:
            self._tell(f"{self._path.name} cannot be read: {error.strerror}")
        if last:
            for held in self._held.values():
                self._point(held.name, held.step, held.value)
            self._held.clear()

    def take(self) -> list[Point]:
        """The points since the last call, oldest first."""
        found = []
        while self._new:
            found.append(self._new.popleft())
        return found

    def _read(self, last: bool) -> None:
        with self._path.open("rb") as file:
            if file.seek(0, 2) < self._offset:  # it was begun anew
                self._offset, self._rest, self._line = 0, b"", 0
            file.seek(self._offset)
            while piece := file.read(READ):
                self._offset += len(piece)
                *lines, self._rest = (self._rest + piece).split(b"\n")
                for line in lines:
                    self._take(line)
                if len(self._rest) > LONGEST:
                    self._tell(f"{self._path.name}:{self._line + 1} is too long to be a point")
                    self._rest = b""
        if last and self._rest:
            self._take(self._rest)
            self._rest = b""

    def _take(self, line: bytes) -> None:
        number, self._line = self._line, self._line + 1
        if not line.strip():
            return
        try:
            found: Any = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            self._tell(f"{self._path.name}:{self._line} is no line of JSON like "
                       '{"step": 3, "loss": 0.4}, and not shown')
            return
        given = found.pop("step", number)
        step = float(given) if _number(given) and math.isfinite(given) else float(number)
        for name, value in found.items():
            if _number(value):
                self._add(Point(str(name), step, float(value), self._clock()))

    def _add(self, point: Point) -> None:
        if not math.isfinite(point.value):
            if point.name not in self.broken:
                self.broken[point.name] = point.step
                self._say(f"{point.name} is {point.value} at step {point.step:g}")
            return
        self.points += 1
        self._new.append(point)
        if point.at - self._shown.get(point.name, -math.inf) >= APART:
            self._shown[point.name] = point.at
            self._held.pop(point.name, None)
            self._point(point.name, point.step, point.value)
        else:
            self._held[point.name] = point

    def _tell(self, problem: str) -> None:
        if not self._told:
            self._told = True
            self._say(problem)


def _number(value: object) -> bool:
    # An integer too large for a float is no figure of a curve.
    return isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool)
                                        and abs(value) < 2**53)
