"""What runs were and are, read from the journal of a home in which no engine runs. Nothing is changed.

Behind the calls of the client that only read, so that `opsdeck show` works after `run --embedded` too. A run
that had not ended goes on when an engine is started; until then it is shown as it was left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.api import wire
from engine.api.backend import OutputChunk
from engine.config import Config
from engine.config_file import load
from engine.errors import DocumentError, NotFound, OpsdeckError
from engine.home import Home
from engine.journal.events import Event
from engine.journal.sqlite import SqliteJournal
from engine.procedures import following
from engine.procedures.actions import Context, Registry
from engine.procedures.attempts import Performer
from engine.procedures.recovery import fold
from engine.procedures.run import RunProgress
from engine.procedures.views import recorded_view, summary
from engine.timeline import wire_event

PIECE = 65536  # bytes of output in one answer


@dataclass(frozen=True)
class _Known:
    home: Path
    config: Config
    registry: Registry = field(default_factory=Registry)
    clock: Callable[[], float] = time.time


class Past:
    """Raises NotFound where there is no journal or no such run, JournalError for one that cannot be read."""

    def __init__(self, home: Home) -> None:
        from engine import actions

        self._journal = SqliteJournal.open_readonly(home.journal)
        self._known = _Known(home.path, _config(home))
        actions.register(self._known.registry)
        self._performer = Performer(home.path, self._known.config, self._known.registry, _nothing_runs,
                                    system=home.mode == "system")

    def runs(self, states: Sequence[str] | None = None, limit: int = 50) -> list[wire.RunSummary]:
        rows = self._journal.runs(None, max(limit, 1))
        found = [summary(fold(self._journal.read(row.id))) for row in rows]
        return [one for one in found if states is None or one.state in states][:limit]

    def run(self, id: str) -> wire.RunView:
        return recorded_view(self._known, self._progress(id))

    def timeline(self, id: str) -> list[wire.Event]:
        return [wire_event(event) for event in self._events(id)]

    def output(self, id: str, step: str, attempt: int | None = None, offset: int = 0,
               limit: int = PIECE) -> OutputChunk:
        progress = self._progress(id)
        if step not in progress.steps:
            raise NotFound(f"run {id} has no step {step}", hint="its steps: " + ", ".join(progress.steps))
        wanted = attempt or progress.steps[step].attempt
        return following.chunk(self._performer, progress, step, wanted, max(0, offset), limit)

    def _events(self, id: str) -> list[Event]:
        if not id.isdigit() or self._journal.run(id) is None:
            raise NotFound(f"there is no run {id}", hint="opsdeck runs lists them")
        return self._journal.read(id)

    def _progress(self, id: str) -> RunProgress:
        return fold(self._events(id))


def _config(home: Home) -> Config:
    """The engine's; what of it is broken may be why no engine runs, and does not matter here."""
    try:
        return load(home.config)
    except DocumentError:
        return Config()


def _nothing_runs(*_: object) -> Context:
    raise OpsdeckError("nothing runs without an engine", hint="opsdeck engine start")
