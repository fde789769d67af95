"""Approvals: what waits for a person, yours first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual.widget import Widget

from console import acting, entitled, format
from console.commands import bindings
from console.filter import matches
from console.glyphs import Glyphs
from console.screens.view import View
from console.state import GATE_WORDS
from console.widgets.lines import Line, Lines, line
from console.widgets.table import Column, Row, Table
from engine.api import wire

COLUMNS = (
    Column("kind", "WAITS FOR", 15, 1),
    Column("you", "YOU", 4, 2),
    Column("run", "RUN", 5, 1, right=True),
    Column("procedure", "PROCEDURE", 14, 3, grow=24),
    Column("step", "STEP", 9, 5, grow=16),
    Column("service", "SERVICE", 11, 4, grow=16),
    Column("since", "SINCE", 7, 2, right=True),
    Column("expires", "EXPIRES", 7, 6, right=True),
    Column("prompt", "QUESTION", 30, 7, grow=90),
)


def order(waiting: Iterable[wire.Waiting]) -> list[wire.Waiting]:
    """Yours first, then what expires soonest, then what waits longest."""
    return sorted(waiting, key=lambda w: (not w.may, w.expires or float("inf"), w.since))


def key(waiting: wire.Waiting) -> str:
    return f"{waiting.run}/{waiting.step}"


def row(waiting: wire.Waiting, glyphs: Glyphs, now: float) -> Row:
    role = "ask" if waiting.may else "dim"
    plain = "text" if waiting.may else "dim"
    expires = format.age(waiting.expires - now) if waiting.expires else format.UNKNOWN
    return Row(key(waiting), (glyphs.wait if waiting.may else glyphs.dot, role), {
        "kind": (GATE_WORDS[waiting.kind][0], role), "you": ("yes" if waiting.may else "no", role),
        "run": (waiting.run, plain), "procedure": (waiting.procedure, plain),
        "step": (waiting.step, plain), "service": (waiting.service or format.UNKNOWN, plain),
        "since": (format.age(now - waiting.since), plain), "expires": (expires, plain),
        "prompt": (waiting.prompt, plain)})


def detail(waiting: wire.Waiting | None, width: int, *, opens: str = "run") -> list[Line]:
    """The whole question of the selected row, four lines at most; `opens` is what enter leads to."""
    if waiting is None:
        return [line((" Nothing waits for a person.", "dim"))]
    who = "" if waiting.may else f" {entitled.discounted(waiting)}"
    stop = "" if waiting.prompt.endswith((".", "?")) else "."
    rows = format.wrap(f"{waiting.prompt}{stop}{who} enter opens the {opens}.", width - 2)
    return [line((" " + text, "ask" if waiting.may else "text")) for text in rows[:4]]


class ApprovalsView(View):
    """Every gate that waits, from the snapshot."""

    place: ClassVar[str] = "approvals"
    BINDINGS = bindings("approvals")

    def crumbs(self) -> list[str]:
        return ["Approvals"]

    def body(self) -> Iterable[Widget]:
        yield Table(COLUMNS, choose="run", empty="nothing waits for a person")
        yield Lines(id="detail")

    def table(self) -> Table:
        return self.query_one(Table)

    def update(self) -> None:
        deck = self.deck
        waiting = [w for w in order(deck.state.waiting)
                   if matches(self.filter, w.kind, w.run, w.procedure, w.step, w.service, w.prompt)]
        self.table().set_rows([row(w, deck.glyphs, deck.state.now) for w in waiting])
        chosen = self.selected()
        opens = "rollout" if chosen is not None and deck.state.rolls_out(chosen.run) else "run"
        box, lines = self.query_one("#detail", Lines), detail(chosen, self.size.width, opens=opens)
        box.styles.height = max(2, len(lines))
        box.show(lines)

    def selected(self) -> wire.Waiting | None:
        chosen = self.table().selected
        return next((w for w in self.deck.state.waiting if key(w) == chosen), None)

    def hints(self) -> list[tuple[str, str]]:
        state = self.deck.state
        chosen = self.selected() if self.is_mounted else None
        approves = chosen is not None and chosen.kind == "approval" and chosen.may and not state.stale
        idle = ("enter", "A", "x", "/") if not state.waiting else () if approves else ("A",)
        return [pair for pair in super().hints() if pair[0] not in idle]

    def copyable(self) -> str:
        waiting = self.selected()
        return f"run {waiting.run} step {waiting.step}: {waiting.prompt}" if waiting else ""

    def action_open(self) -> None:
        if waiting := self.selected():
            self.deck.go("rollout" if self.deck.state.rolls_out(waiting.run) else "run", waiting.run)

    def action_approve(self) -> None:
        waiting = self.selected()
        if waiting is None or waiting.kind != "approval":
            self.deck.say("The selected line does not want an approval; enter opens its run.",
                          passing=True)
        else:
            acting.gate(self.deck, waiting.run, waiting.step)

    def action_abort(self) -> None:
        if waiting := self.selected():
            self.deck.abort_of([waiting.run], f"run {waiting.run}")
        else:
            self.deck.say("There is no run here to abort.", passing=True)
