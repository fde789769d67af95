"""Faults on purpose, for demonstrations and drills: only loaded with `--faults FILE`.

    {"latency_ms": 400, "latency_ratio": 0.5,
     "errors": {"timeout": 0, "out_of_memory": 0.1, "invalid_input": 0, "model_error": 0,
                "unavailable": 0}}

`latency_ratio` of the requests wait `latency_ms` longer; each error happens to its ratio of the
requests, really: a timeout never answers, unavailable drops the connection. The file is looked at
every 0.2 s, never by a request. No file is no faults; a file that is not valid changes nothing.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import sys
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Literal

Fault = Literal["timeout", "out_of_memory", "invalid_input", "model_error", "unavailable"]
FAULTS: tuple[Fault, ...] = ("timeout", "out_of_memory", "invalid_input", "model_error",
                             "unavailable")
POLL_S = 0.2
# Longer than any gateway waits; the connection ends it before.
NEVER_S = 600.0


@dataclass(frozen=True)
class Plan:
    """Which share of the requests suffers what. Ratios are 0 to 1."""

    latency_ms: float = 0.0
    latency_ratio: float = 0.0
    errors: dict[Fault, float] = field(default_factory=dict)

    def delay_s(self, rng: random.Random) -> float:
        if self.latency_ms > 0 and rng.random() < self.latency_ratio:
            return self.latency_ms / 1000
        return 0.0

    def fault(self, rng: random.Random) -> Fault | None:
        """One draw decides, so that the ratios of different errors add up."""
        if not self.errors:
            return None
        drawn = rng.random()
        for fault, edge in zip(self.errors, accumulate(self.errors.values()), strict=True):
            if drawn < edge:
                return fault
        return None


def parse(text: bytes) -> Plan:
    """The plan in a file's text. Raises ValueError with what is wrong."""
    document = json.loads(text)
    if not isinstance(document, dict):
        raise ValueError("it is not a JSON object")
    if unknown := sorted(set(document) - {"latency_ms", "latency_ratio", "errors"}):
        raise ValueError(f"{unknown[0]} is not known")
    errors = document.get("errors", {})
    if not isinstance(errors, dict):
        raise ValueError("errors is not a JSON object")
    if wrong := sorted(set(errors) - set(FAULTS)):
        raise ValueError(f"errors.{wrong[0]} is not known")
    ratios = {fault: _number(errors.get(fault, 0), f"errors.{fault}", 1.0) for fault in FAULTS}
    if math.fsum(ratios.values()) > 1 + 1e-9:
        raise ValueError("the errors add up to more than 1")
    return Plan(_number(document.get("latency_ms", 0), "latency_ms", NEVER_S * 1000),
                _number(document.get("latency_ratio", 1), "latency_ratio", 1.0),
                {fault: ratio for fault, ratio in ratios.items() if ratio > 0})


def _number(value: object, name: str, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= most:
        raise ValueError(f"{name} is not a number from 0 to {most:g}")
    return float(value)


class Faults:
    """The plan in force, kept up to date with its file."""

    def __init__(self, path: Path, rng: random.Random) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self.plan = Plan()
        self.rng = rng

    def watch(self) -> None:
        """Look at the file now, and again every 0.2 s on the running loop."""
        self.look()
        asyncio.get_running_loop().call_later(POLL_S, self.watch)

    def look(self) -> None:
        """Take up the file if it changed."""
        try:
            state = self._path.stat()
        except OSError:
            self._seen, self.plan = None, Plan()
            return
        seen = (state.st_mtime_ns, state.st_size, state.st_ino)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self.plan = parse(self._path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            print(f"The fault file {self._path} is not valid ({error}); the faults stay as they "
                  "were.", file=sys.stderr, flush=True)
