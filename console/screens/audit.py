"""Audit: the journal's events, newest first, with the whole of the selected one on demand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import msgspec
from textual.widget import Widget

from console import format
from console.commands import bindings
from console.filter import matches
from console.screens.view import View
from console.widgets.lines import Line, Lines, line
from console.widgets.table import Column, Row, Table
from engine.api import wire
from engine.errors import OpsdeckError

PAGE = 200
AGAIN_S = 3.0
COLUMNS = (
    Column("seq", "SEQ", 7, 3, right=True),
    Column("at", "WHEN", 13, 1, right=True),
    Column("by", "WHO", 9, 2, grow=14),
    Column("run", "RUN", 5, 4, right=True),
    Column("step", "STEP", 9, 6, grow=14),
    Column("kind", "WHAT", 13, 5, grow=16),
    Column("text", "EVENT", 36, 1, grow=110),
)


def row(event: wire.Event, now: float) -> Row:
    acts = event.by != "engine"
    return Row(str(event.seq), (" ", "dim"), {
        "seq": (str(event.seq), "dim"), "at": (format.stamp(event.at, now), "text"),
        "by": (event.by, "text" if acts else "dim"), "run": (event.run or "-", "text"),
        "step": (event.step or "-", "text"), "kind": (event.kind, "dim"),
        "text": (event.text, "text")})


def whole(event: wire.Event, width: int) -> list[Line]:
    """Every field of an event, the data as JSON, wrapped."""
    attempt = f", attempt {event.attempt}" if event.attempt else ""
    where = f"run {event.run}, step {event.step}{attempt}" if event.step else \
        f"run {event.run}" if event.run else "no run"
    data = msgspec.json.encode(event.data, order="deterministic").decode()
    facts = (("Event", f"{event.seq}, {event.kind}"), ("When", format.full_stamp(event.at)),
             ("Who", f"{event.by}, {event.origin}"), ("Where", where), ("What", event.text),
             ("Data", data), ("Hash", event.hash))
    lines: list[Line] = []
    for label, text in facts:
        for number, piece in enumerate(format.wrap(text, width - 10)):
            name = format.left(label if not number else "", 7)
            lines.append(line((f" {name} ", "dim"), piece))
    return lines


class AuditView(View):
    """Events are read when the view opens and again while its top is in view."""

    place: ClassVar[str] = "audit"
    BINDINGS = bindings("audit")

    def __init__(self, argument: str = "") -> None:
        super().__init__(argument)
        self.events: dict[int, wire.Event] = {}
        self.details = False
        self._read_at = 0.0
        self._reading = False

    def crumbs(self) -> list[str]:
        return ["Audit"]

    def body(self) -> Iterable[Widget]:
        yield Table(COLUMNS, choose="at", empty="no events")
        yield Lines(id="detail")

    def table(self) -> Table:
        return self.query_one(Table)

    def on_mount(self) -> None:
        self._read(None)

    def _read(self, before: int | None) -> None:
        if not self._reading:
            self._reading = True
            self.deck.begin(self._fetch(before))

    async def _fetch(self, before: int | None) -> None:
        try:
            found = await self.deck.source.events(PAGE, before)
        except OpsdeckError as error:
            self.deck.complain(error)
            return
        finally:
            self._reading = False
        self.events.update((event.seq, event) for event in found)
        if not self.is_attached:
            return
        if before is not None and not found:
            self.deck.say("There are no older events.", passing=True)
        self.renew()

    def update(self) -> None:
        state = self.deck.state
        snapshot = state.snapshot
        at_top = self.table().scrolled == 0
        if snapshot is not None and at_top and snapshot.at - self._read_at >= AGAIN_S:
            self._read_at = snapshot.at
            self._read(None)
        events = [self.events[seq] for seq in sorted(self.events, reverse=True)]
        detail = self.query_one("#detail", Lines)
        event = self.selected()
        lines = whole(event, self.size.width) if self.details and event else [
            line((f" {event.text}", "dim")) if event else line(" ")]
        height = min(len(lines), max(1, self.size.height // 2))
        detail.styles.height = height
        detail.show(lines[:height])
        self.table().set_rows([
            row(e, state.now) for e in events
            if matches(self.filter, e.kind, e.by, e.run, e.step, e.text)])

    def selected(self) -> wire.Event | None:
        chosen = self.table().selected
        return self.events.get(int(chosen)) if chosen else None

    def copyable(self) -> str:
        event = self.selected()
        return msgspec.json.encode(event).decode() if event else ""

    def action_open(self) -> None:
        self.details = not self.details
        self.update()

    def action_more(self) -> None:
        if self.events:
            self._read(min(self.events))
