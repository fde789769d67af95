"""Rollouts: those that run, then those that have ended, with what each waits for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from textual.widget import Widget

from console import acting, format, rollout_asks, rollout_text
from console.commands import bindings
from console.filter import matches
from console.glyphs import Glyphs
from console.screens.view import View
from console.widgets.lines import Line, Lines, line
from console.widgets.table import Column, Row, Table
from engine.api import wire
from engine.errors import OpsdeckError

AGAIN_S = 5.0  # what changed without the fleet's knowing is seen after so long
COLUMNS = (
    Column("service", "SERVICE", 11, 5, grow=18),
    Column("version", "VERSION", 8, 3, grow=12),
    Column("state", "STATE", 12, 2),
    Column("weight", "CANARY", 6, 2, right=True),
    Column("step", "STEP", 5, 4, right=True),
    Column("verdict", "VERDICT", 9, 3),
    Column("since", "SINCE", 6, 5, right=True),
    Column("waits", "WAITS FOR", 13, 1, grow=60),
    Column("run", "RUN", 5, 7, right=True),
    Column("by", "BY", 8, 8, grow=12),
)


def order(rollouts: Iterable[wire.Rollout]) -> list[wire.Rollout]:
    """What waits for a person, what runs, what has ended; the newest first in each."""
    def rank(one: wire.Rollout) -> tuple[int, float]:
        return (2 if one.ended is not None else 0 if one.gate is not None else 1), -one.started

    return sorted(rollouts, key=rank)


def waits(rollout: wire.Rollout) -> tuple[str, str]:
    """What keeps it from going on, or how it ended, and the role."""
    if rollout.ended is not None:
        return rollout.reason or "", "dim"
    if not rollout.watching:
        return "somebody to watch it", "warn"
    if rollout.next:
        return rollout.next, "ask"
    return (rollout.missing, "warn") if rollout.missing else ("", "dim")


def row(rollout: wire.Rollout, glyphs: Glyphs, now: float, *, back: bool = False) -> Row:
    mark, word, role = rollout_text.state_of(rollout, glyphs, back=back)
    plain = "dim" if rollout.ended is not None else "text"
    at = rollout_text.number(rollout)
    step = f"{at}/{len(rollout.steps)}" if at and rollout.ended is None else format.UNKNOWN
    verdict = {"bad": f"{glyphs.steps['failed']} bad", "good": f"{glyphs.steps['done']} good"}
    weight = format.UNKNOWN if rollout.weight is None and rollout.ended is not None else \
        rollout_text.share(rollout.weight)
    since = rollout.ended if rollout.ended is not None else rollout.started
    return Row(rollout.run, (mark, role), {
        "service": (rollout.service, plain),
        "version": (rollout_asks.versions(rollout, glyphs.arrow), plain), "state": (word, role),
        "weight": (weight, plain), "step": (step, plain),
        "verdict": (verdict.get(rollout.verdict, rollout.verdict),
                    rollout_text.VERDICTS[rollout.verdict] if rollout.ended is None else "dim"),
        "since": (format.age(max(0.0, now - since)), plain), "waits": waits(rollout),
        "run": (rollout.run, plain), "by": (rollout.by, plain)})


class RolloutsView(View):
    """Read anew when the fleet says that a rollout has moved, at most once a second."""

    place: ClassVar[str] = "rollouts"
    BINDINGS = bindings("rollouts")

    def __init__(self, argument: str = "") -> None:
        super().__init__(argument)
        self.found: list[wire.Rollout] | None = None
        self._seen: Any = None
        self._read_at: float | None = None
        self._reading = False

    def crumbs(self) -> list[str]:
        return ["Rollouts"]

    def body(self) -> Iterable[Widget]:
        yield Table(COLUMNS, empty="reading the rollouts")
        yield Lines(id="detail")

    def table(self) -> Table:
        return self.query_one(Table)

    def on_mount(self) -> None:
        self._read(settle=True)  # keys that were typed ahead wait for it

    def update(self) -> None:
        deck = self.deck
        self._read_if_due()
        rollouts = order(self.found or [])
        if self.found is not None:  # else the selection that was kept here would be lost
            self.table().empty = "no rollouts"
            self.table().set_rows([
                row(r, deck.glyphs, deck.state.now, back=rollout_text.going_back(r, deck.state))
                for r in rollouts
                if matches(self.filter, r.run, r.service, r.state, r.verdict, r.by, r.next)])
        detail, lines = self.query_one("#detail", Lines), self._detail(rollouts)
        detail.styles.height = len(lines)
        detail.show(lines)

    def _read_if_due(self) -> None:
        state, clock = self.deck.state, self.deck.source.clock()
        since = None if self._read_at is None else clock - self._read_at
        seen = [s.rollout for s in state.services]
        due = since is None or (since >= 1.0 and seen != self._seen) or since >= AGAIN_S
        if due and not self._reading and not (state.stale and self.found is not None):
            self._read()

    def _read(self, *, settle: bool = False) -> None:
        self._reading, self._read_at = True, self.deck.source.clock()
        self._seen = [s.rollout for s in self.deck.state.services]
        self.deck.begin(self._fetch(), settle=settle)

    async def _fetch(self) -> None:
        try:
            self.found = await self.deck.source.rollouts()
        except OpsdeckError as error:
            if self.found is None:
                self.deck.complain(error)
            return
        finally:
            self._reading = False
        if self.is_attached:
            self.renew()

    def selected(self) -> wire.Rollout | None:
        key = self.table().selected
        return next((r for r in self.found or [] if r.run == key), None)

    def _detail(self, rollouts: Sequence[wire.Rollout]) -> list[Line]:
        rollout = self.selected()
        if rollout is None:
            text = " No rollout matches." if rollouts else " Nothing has been rolled out yet."
            return [line((text if self.found is not None else " ", "dim"))]
        text, role = rollout_text.next_action(rollout, self.deck.state)
        rows = format.wrap(f"{rollout.service}: {text}", self.size.width - 2)
        return [line((f" {piece}", role)) for piece in rows]

    def hints(self) -> list[tuple[str, str]]:
        rollout = self.selected() if self.is_mounted else None
        idle = {"enter", "A", "x", "/"} if not self.found else set()
        state = self.deck.state
        if rollout is None or rollout.gate is None or state.stale or not state.may_answer(rollout):
            idle.add("A")
        if rollout is not None and rollout.ended is not None:
            idle.add("x")
        return [pair for pair in super().hints() if pair[0] not in idle]

    def copyable(self) -> str:
        rollout = self.selected()
        return f"opsdeck rollout watch {rollout.service}" if rollout else ""

    def action_open(self) -> None:
        if selected := self.table().selected:
            self.deck.go("rollout", selected)

    def action_approve(self) -> None:
        rollout = self.selected()
        if rollout is None or rollout.gate is None or rollout.gate_step is None:
            self.deck.say("The selected rollout waits for nobody.", passing=True)
        else:
            acting.gate(self.deck, rollout.run, rollout.gate_step)

    def action_abort(self) -> None:
        rollout = self.selected()
        if rollout is None or rollout.ended is not None:
            self.deck.say("There is no open rollout here to abort.", passing=True)
        else:
            acting.abort_rollout(self.deck, rollout)
