"""Asking the engine for what only needs reading, and its journal where no engine answers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from engine.api import wire
from engine.api.backend import OutputChunk
from engine.api.light import connect
from engine.errors import EngineUnreachable
from engine.home import Home

T = TypeVar("T")


class Reader(Protocol):
    """What an engine and its journal both tell."""

    def runs(self, states: Sequence[str] | None = None, limit: int = 50) -> list[wire.RunSummary]: ...
    def run(self, id: str) -> wire.RunView: ...
    def timeline(self, id: str) -> list[wire.Event]: ...
    def output(self, id: str, step: str, attempt: int | None = None, offset: int = 0) -> OutputChunk: ...


def ask(home: Home, question: Callable[[Reader], T]) -> T:
    """The engine's answer; the journal's where no engine answers and one may read it, which is said on
    standard error. Raises EngineUnreachable where neither is there."""
    try:
        return question(connect(home))
    except EngineUnreachable:
        if not _readable(home):
            raise
    from engine.past import Past

    found = question(Past(home))
    print("no engine runs here; this is read from its journal", file=sys.stderr)
    return found


def _readable(home: Home) -> bool:
    import os

    return os.access(home.journal, os.R_OK)
