"""Runs: every procedure that runs, waits or has ended, newest first; what waits stands on top."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual.widget import Widget

from console import format
from console.commands import bindings
from console.filter import matches
from console.glyphs import Glyphs
from console.screens.view import View
from console.widgets.lines import Line, Lines, line
from console.widgets.table import Column, Row, Table
from engine.api import wire
from engine.errors import OpsdeckError

FETCHED = 200
COLUMNS = (
    Column("id", "RUN", 5, 1, right=True),
    Column("state", "STATE", 11, 2),
    Column("procedure", "PROCEDURE", 14, 1, grow=26),
    Column("service", "SERVICE", 11, 4, grow=16),
    Column("steps", "STEPS", 5, 5, right=True),
    Column("by", "BY", 8, 6, grow=12),
    Column("started", "STARTED", 13, 3, right=True),
    Column("took", "FOR", 9, 7, grow=12, right=True),
    Column("next", "WAITS FOR", 20, 8, grow=60),
)
WORDS = {"rolled_back": "rolled back"}
ROLES = {"running": "now", "waiting": "ask", "paused": "warn", "done": "ok", "failed": "bad",
         "rolled_back": "warn", "aborted": "dim"}


def order(runs: Iterable[wire.RunSummary]) -> list[wire.RunSummary]:
    """What waits first, then what is under way, then what ended; newest first in each."""
    rank = {"waiting": 0, "running": 1, "paused": 1}
    return sorted(runs, key=lambda r: (rank.get(r.state, 2), -r.started))


def row(run: wire.RunSummary, glyphs: Glyphs, now: float) -> Row:
    role = ROLES[run.state]
    ended = run.ended is not None
    plain = "dim" if ended and run.state == "done" else "text"
    took = (run.ended if run.ended is not None else now) - run.started
    dry = " (dry run)" if run.dry_run else ""
    return Row(run.id, (glyphs.runs[run.state], role), {
        "id": (run.id, plain), "state": (WORDS.get(run.state, run.state), role),
        "procedure": (run.procedure + dry, plain),
        "service": (run.service or format.UNKNOWN, plain),
        "steps": (f"{run.steps_done}/{run.steps_total}", plain), "by": (run.by, plain),
        "started": (format.stamp(run.started, now), plain),
        "took": (format.duration(took) if ended else format.age(took), plain),
        "next": (run.next or "", "ask" if run.next else "dim")})


def detail(run: wire.RunSummary | None, count: int) -> Line:
    """One sentence on the selected run."""
    if run is None:
        return line((" No run matches." if count else " Nothing has been run yet. r in Fleet, or "
                     ":runbooks, starts something.", "dim"))
    if run.next:
        step = f" at step {run.step}" if run.step else ""
        return line((f" Run {run.id} waits{step}: {run.next}", "ask"))
    return line((f" {run.title}", "dim"))


class RunsView(View):
    """The runs of the snapshot, with the older ones fetched once."""

    place: ClassVar[str] = "runs"
    BINDINGS = bindings("runs")

    def __init__(self, argument: str = "") -> None:
        super().__init__(argument)
        self.older: list[wire.RunSummary] = []

    def crumbs(self) -> list[str]:
        return ["Runs"]

    def body(self) -> Iterable[Widget]:
        yield Table(COLUMNS, choose="id", empty="no runs")
        yield Lines(id="advice")

    def table(self) -> Table:
        return self.query_one(Table)

    def on_mount(self) -> None:
        self.deck.begin(self._fetch())

    async def _fetch(self) -> None:
        try:
            self.older = await self.deck.source.runs(FETCHED)
        except OpsdeckError as error:
            self.deck.complain(error)
            return
        if self.is_attached:
            self.renew()

    def all(self) -> Sequence[wire.RunSummary]:
        live = {run.id: run for run in self.deck.state.runs}
        return order({**{run.id: run for run in self.older}, **live}.values())

    def update(self) -> None:
        deck = self.deck
        runs = self.all()
        self.table().set_rows([row(r, deck.glyphs, deck.state.now) for r in runs
                               if matches(self.filter, r.id, r.state, r.procedure, r.service, r.by,
                                          r.next)])
        self.query_one("#advice", Lines).show([detail(self.selected(runs), len(runs))])

    def selected(self, runs: Sequence[wire.RunSummary]) -> wire.RunSummary | None:
        key = self.table().selected
        return next((r for r in runs if r.id == key), None)

    def hints(self) -> list[tuple[str, str]]:
        idle = () if self.all() else ("enter", "A", "x", "/")
        return [pair for pair in super().hints() if pair[0] not in idle]

    def copyable(self) -> str:
        run = self.selected(self.all())
        return f"run {run.id} {run.procedure} {run.state}: {run.next or run.title}" if run else ""

    def action_open(self) -> None:
        if selected := self.table().selected:
            self.deck.go("run", selected)

    def action_abort(self) -> None:
        run = self.selected(self.all())
        if run is None:
            self.deck.say("There is no run here to abort.", passing=True)
        else:
            self.deck.abort_of([run.id] if run.ended is None else [], f"run {run.id}")
