"""Runbooks: the library, what fits the firing alert first, with what each one is for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from textual.widget import Widget

from console import asks, format, safety
from console.commands import bindings
from console.filter import matches
from console.glyphs import Glyphs
from console.screens.view import View
from console.widgets.lines import BLANK, Box, Line, Lines, line
from console.widgets.table import Column, Row, Table
from engine.api import wire
from engine.errors import OpsdeckError

WIDE = 140
COLUMNS = (
    Column("id", "PROCEDURE", 16, 1, grow=18),
    Column("title", "TITLE", 22, 3, grow=46),
    Column("fits", "FITS NOW", 17, 2, grow=17),
    Column("owner", "OWNER", 11, 5, grow=16),
    Column("reviewed", "REVIEWED", 11, 4, right=True),
)


def suggestions(services: Iterable[wire.Service], procedures: Sequence[wire.Procedure],
                only: str = "") -> dict[str, str]:
    """Procedure id → why it fits now ("flights p99_ms"), most apt first, for what fires.

    What an alert names comes before what only says that it is for such a signal. `only` limits this
    to one service.
    """
    found: dict[str, str] = {}
    alerts = [a for s in services if not only or s.name == only for a in s.alerts]
    alerts.sort(key=lambda a: (a.level != "page", a.since))
    known = {p.id for p in procedures}
    for alert in alerts:
        for id in alert.runbooks:
            if id in known:
                found.setdefault(id, f"{alert.service} {alert.signal}")
    for alert in alerts:
        for procedure in procedures:
            if alert.signal in procedure.for_alerts:
                found.setdefault(procedure.id, f"{alert.service} {alert.signal}")
    return found


def order(procedures: Iterable[wire.Procedure], fits: Mapping[str, str]) -> list[wire.Procedure]:
    """What fits now first, then runbooks before the rest, then by id."""
    rank = {id: number for number, id in enumerate(fits)}
    return sorted(procedures, key=lambda p: (rank.get(p.id, len(rank)), p.kind != "runbook", p.id))


def row(procedure: wire.Procedure, why: str | None, glyphs: Glyphs) -> Row:
    broken = procedure.problem is not None
    mark = (glyphs.runs["failed"], "bad") if broken else (glyphs.here, "ask") if why else (" ", "dim")
    late = procedure.review is not None
    fits = ("cannot be run", "bad") if broken else (why or "", "ask")
    return Row(procedure.id, mark, {
        "id": (procedure.id, "text"), "title": (procedure.title, "text"), "fits": fits,
        "owner": (procedure.owner, "dim"),
        "reviewed": (f"{procedure.reviewed}{'!' if late else ' '}", "warn" if late else "dim")})


def about(procedure: wire.Procedure | None, width: int) -> list[Line]:
    """When to use it, whom to call, what good looks like after it, and its steps."""
    if procedure is None:
        return [line((" The library is empty, or nothing matches the filter.", "dim"))]
    calls = "; ".join(f"{c.get('name', '')} ({c.get('via', '')})" for c in procedure.contacts)
    facts = [("Problem", procedure.problem), ("Use when", procedure.use_when), ("Call", calls),
             ("Good after", procedure.good_after), ("Review", procedure.review)]
    lines = [line((f" {procedure.title}", "strong"))]
    for label, text in facts:
        role = {"Problem": "bad", "Review": "warn"}.get(label, "text")
        for number, piece in enumerate(format.wrap(text, width - 14) if text else []):
            lines.append(line((f" {format.left(label if not number else '', 10)} ", "dim"),
                              (piece, role)))
    lines.append(BLANK)
    for number, step in enumerate(procedure.steps, 1):
        wants = {"none": "", "yes": ", wants a yes", "typed": ", wants a name typed"}[step.confirm]
        wants += f", wants {format.plural(step.approvals, 'approval')}" if step.approvals else ""
        text = f"{number} {step.title}"
        note = f"{asks.EFFECTS[step.effect]}{wants}"
        lines.append(line((f" {format.left(text, max(20, width - 44))} ", "text"), (note, "dim")))
    return lines


class RunbooksView(View):
    """The argument is a filter, or `for:SERVICE` to suggest for one service's alerts."""

    place: ClassVar[str] = "runbooks"
    BINDINGS = bindings("runbooks")

    def __init__(self, argument: str = "") -> None:
        super().__init__(argument)
        self.procedures: list[wire.Procedure] = []
        self.service = argument.removeprefix("for:") if argument.startswith("for:") else ""
        self.filter = "" if self.service else argument

    def crumbs(self) -> list[str]:
        return ["Runbooks", f"for {self.service}"] if self.service else ["Runbooks"]

    def body(self) -> Iterable[Widget]:
        with Box(id="split"):
            yield Table(COLUMNS, empty="no procedures")
            yield Lines(id="about")

    def table(self) -> Table:
        return self.query_one(Table)

    def on_mount(self) -> None:
        self.deck.begin(self._fetch(), settle=True)

    async def _fetch(self) -> None:
        try:
            self.procedures = await self.deck.source.library()
        except OpsdeckError as error:
            self.deck.complain(error)
            return
        self.deck.procedures = tuple(p.id for p in self.procedures)
        if self.is_attached:
            self.renew()

    def fits(self) -> dict[str, str]:
        return suggestions(self.deck.state.services, self.procedures, self.service)

    def update(self) -> None:
        deck, fits = self.deck, self.fits()
        wide = self.size.width >= WIDE
        split = self.query_one("#split")
        split.set_class(wide, "-wide")
        self.table().set_rows([
            row(p, fits.get(p.id), deck.glyphs) for p in order(self.procedures, fits)
            if matches(self.filter, p.id, p.title, p.owner, p.use_when, fits.get(p.id))])
        panel = self.query_one("#about", Lines)
        width = self.size.width // 2 if wide else self.size.width
        if not self.procedures:
            panel.show([line((" Reading the library.", "dim"))])
            return
        lines = about(self.selected(), width - 2 if wide else width)
        rule = line((deck.glyphs.rule * width, "dim"))
        panel.styles.height = split.size.height if wide else \
            min(len(lines) + 1, max(4, split.size.height - 7))
        edge = (f"{deck.glyphs.axis} ", "dim")
        panel.show([(edge, *(lines[y] if y < len(lines) else BLANK))
                    for y in range(split.size.height)] if wide else [rule, *lines])

    def hints(self) -> list[tuple[str, str]]:
        starts = safety.unentitled("start", self.deck.state) is None
        return [pair for pair in super().hints() if starts or pair != ("enter", "start")]

    def selected(self) -> wire.Procedure | None:
        key = self.table().selected
        return next((p for p in self.procedures if p.id == key), None)

    def copyable(self) -> str:
        procedure = self.selected()
        return f"opsdeck run {procedure.id}" if procedure else ""

    def action_open(self) -> None:
        procedure = self.selected()
        if procedure is None:
            return
        if procedure.problem:
            self.deck.say(f"{procedure.id} cannot be run: {procedure.problem}", "warn")
            return
        why = self.fits().get(procedure.id, "")
        service = self.service or why.partition(" ")[0]
        self.deck.go("start", f"{procedure.id} {service}".strip())
