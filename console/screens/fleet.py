"""Fleet: a row a service, worst first; one look says what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from textual.widget import Widget

from console import format
from console.commands import bindings
from console.filter import matches
from console.glyphs import Glyphs
from console.order import PAGE, STALE, TICKET, WELL, Order, over, severity
from console.screens.view import View
from console.state import State
from console.widgets.lines import Line, Lines, line
from console.widgets.table import Cell, Column, Row, Table
from engine.api import wire

TREND_S = 300.0
FOLDED = 12  # cells of STATE, which names the rollout too where there is no column for it
COLUMNS = (
    Column("name", "SERVICE", 11, 13, grow=24),
    Column("version", "VERSION", 7, 5, grow=11),
    Column("split", "SPLIT", 5, 6, grow=8, right=True),
    Column("rps", "REQ/s", 6, 3, right=True),
    Column("p50", "P50ms", 5, 7, grow=7, right=True),
    Column("p95", "P95ms", 5, 8, grow=7, right=True),
    Column("p99", "P99ms", 6, 2, grow=7, right=True),
    Column("spark", "5 min", 8, 4, grow=12),
    Column("errors", "ERR% ", 5, 2, right=True),
    Column("state", "STATE", FOLDED, 3),
    Column("rollout", "ROLLOUT", 12, 9),
    Column("drift", "DRIFT", 6, 11),
    Column("run", "OPEN RUN", 16, 12),
    Column("types", "ERRORS/s BY TYPE", 18, 10, grow=40),
)


def rolls(rollout: dict[str, Any] | None) -> tuple[str, str, str]:
    """The canary's weight, what its rollout does, and the role: ("5%", "wait", "ask"); "" without one."""
    if not rollout:
        return "", "", "dim"
    share = rollout.get("weight")
    weight = f"{share:g}%" if isinstance(share, int | float) else "?%"
    if rollout.get("verdict") == "bad" or rollout.get("state") == "rolling_back":
        return "", "rolling back", "bad"
    if rollout.get("waits"):
        return weight, "wait", "ask"
    if rollout.get("state") == "paused":
        return weight, "paused", "warn"
    return weight, f"{rollout.get('step', 0)}/{rollout.get('steps', 0)}", "text"


def folded(word: Cell, rollout: dict[str, Any] | None) -> Cell:
    """State and rollout in one cell: what is wrong comes first, `well` gives way to the rollout."""
    weight, does, role = rolls(rollout)
    if not does:
        return word
    whole = f"{weight} {does}".strip()
    if word[0] == "well" or word[0].endswith(("waits", "wait")):
        return whole, role
    texts = [f"{word[0]} {whole}", f"{word[0]} {does}", f"{word[0]} {weight}"]
    return next((text for text in texts if len(text) <= FOLDED and text.strip() == text), word[0]), word[1]


def short(state: dict[str, Any] | None) -> str:
    """The word for a drift: its `short` or `state`, "-" without one."""
    return str((state or {}).get("short") or (state or {}).get("state") or format.UNKNOWN)


def serving(service: wire.Service) -> list[wire.Variant]:
    """The variants that get traffic, the champion first; all where no weight is known."""
    weighted = [v for v in service.variants if v.weight] or service.variants
    return sorted(weighted, key=lambda v: v.name != "champion")


def errors_by_type(service: wire.Service) -> list[tuple[str, float]]:
    """(type, per second) summed over variants, most first, without zeros."""
    total: dict[str, float] = {}
    for variant in service.variants:
        for kind, count in variant.errors.items():
            total[kind] = total.get(kind, 0.0) + count
    return sorted(((k, v) for k, v in total.items() if v > 0), key=lambda item: (-item[1], item[0]))


def _limited(text: str, value: float | None, limit: float | None, role: str) -> Cell:
    return (f"{text}!", "over") if over(value, limit) else (f"{text} ", role)


def mark(service: wire.Service, glyphs: Glyphs) -> tuple[Cell, Cell]:
    """The glyph and the word for the state of a service."""
    kind = severity(service)
    if kind == PAGE:
        return (glyphs.page, "bad"), ("page", "bad")
    if kind == STALE:
        return (glyphs.stale, "stale"), (f"stale {format.age(service.age_s)}", "stale")
    if kind == TICKET:
        return (glyphs.ticket, "warn"), ("ticket", "warn")
    word = "over limit" if kind < 4 else "well"
    return (glyphs.well, "warn" if kind < 4 else "ok"), (word, "warn" if kind < 4 else "dim")


def open_run(runs: Iterable[wire.RunSummary], service: str) -> str:
    """The run under way on a service, and its state: `184 waiting`; how many more."""
    found = [run for run in runs if run.service == service and run.ended is None]
    if not found:
        return format.UNKNOWN
    more = f" +{len(found) - 1}" if len(found) > 1 else ""
    return f"{found[0].id} {found[0].state}{more}"


def row(service: wire.Service, glyphs: Glyphs, at: float, spark_width: int, run: str, *,
        apart: bool = True, back: bool = False) -> Row:
    """One line of the table. Numbers that are not known are "-", and a limit exceeded is marked `!`.

    `apart`: whether the rollout has a column of its own; `back`: its last one was just rolled back.
    """
    glyph, word = mark(service, glyphs)
    stale = severity(service) == STALE
    if back and severity(service) == WELL:
        word = "rolled back", "warn"
    role = "stale" if stale else "text"
    limits = service.limits
    variants = serving(service)
    trend = service.trend_p99_ms
    buckets = format.buckets(trend, at, TREND_S / max(1, len(trend)), spark_width,
                             phase=(sum(map(ord, service.name)) % 8) / 8)
    spark = format.spark(buckets, glyphs.spark, limits.get("p99_ms"))
    hot = over(service.p99_ms, limits.get("p99_ms"))
    if service.waiting and not service.alerts and not stale:
        word = (f"{service.waiting} waits" if service.waiting == 1 else f"{service.waiting} wait", "ask")
    weight, does, rollout_role = rolls(service.rollout)
    types = "  ".join(f"{kind} {format.rate(count)}" for kind, count in errors_by_type(service))
    return Row(service.name, glyph, {
        "name": (service.name, role),
        "version": (f" {glyphs.arrow} ".join(v.version or "?" for v in variants), role),
        "split": (format.UNKNOWN if all(v.stale for v in variants) else
                  "/".join(format.plain(v.weight) for v in variants), role),
        "rps": (format.rate(service.rps), role),
        "p50": _limited(format.ms(service.p50_ms), service.p50_ms, limits.get("p50_ms"), role),
        "p95": _limited(format.ms(service.p95_ms), service.p95_ms, limits.get("p95_ms"), role),
        "p99": _limited(format.ms(service.p99_ms), service.p99_ms, limits.get("p99_ms"), role),
        "spark": (spark, "over" if hot else "spark"),
        "errors": _limited(format.percent(service.error_ratio), service.error_ratio,
                           limits.get("error_ratio"), role),
        "state": word if apart else folded(word, service.rollout),
        "drift": (short(service.drift), role if service.drift else "dim"),
        "rollout": (f"{weight} {does}".strip() or format.UNKNOWN, rollout_role),
        "run": (run, "dim" if run == format.UNKNOWN else "text"),
        "types": (types or format.UNKNOWN, "text" if types else "dim"),
    })


def _with(text: str, role: str, key: str, width: int, look: str = "accent") -> list[Line]:
    """A sentence on as many lines as it wants, and the key that helps behind it or below it."""
    rows: list[Line] = [line((f" {row}", role)) for row in format.wrap(text, width - 2)]
    if key and sum(len(part) for part, _ in rows[-1]) + len(key) + 2 <= width:
        rows[-1] = (*rows[-1], (f"  {key}", look))
    elif key:
        rows.append(line((f" {key}", look)))
    return rows


def _alert(service: wire.Service, width: int) -> list[Line]:
    """What is wrong, where and since when: never cut."""
    alert = min(service.alerts, key=lambda a: (a.level != "page", a.since))
    more = f" (and {len(service.alerts) - 1} more)" if len(service.alerts) > 1 else ""
    return _with(f"{service.name}: {alert.title}{more}", "bad" if alert.level == "page" else "warn",
                 f"r: try {alert.runbooks[0]}" if alert.runbooks else "", width, "ask")


def _ended(one: wire.Rollout, now: float, width: int) -> list[Line]:
    """How the last rollout ended, when, and why."""
    ago = f"{format.age(max(0.0, now - (one.ended or now)))} ago"
    version = f"version {one.challenger_version}" if one.challenger_version else one.challenger
    if one.state == "done":
        return _with(f"{one.service}: {version} was promoted {ago}.", "dim", "o shows it", width)
    words = {"rolled_back": "was rolled back", "failed": "failed", "aborted": "was aborted"}
    did = words.get(one.state, "ended")
    why = (one.sentence if one.verdict == "bad" else one.reason or one.sentence).rstrip(".")
    return _with(f"{one.service}: {version} {did} {ago}: {why}", "warn", "o shows why", width)


def advice(service: wire.Service, state: State, width: int) -> list[Line]:
    """On the selected service: what is wrong, since when, what to do, and how its last rollout ended."""
    ended = state.just_ended(service)
    told = _ended(ended, state.now, width) if ended is not None else []
    if service.alerts:
        return [*_alert(service, width), *told]
    plain = severity(service) == WELL and not state.stale
    if told and plain and not any(w.service == service.name for w in state.waiting):
        return told
    return [*_standing(service, state, width), *told]


def _standing(service: wire.Service, state: State, width: int) -> list[Line]:
    """On a service without an alert."""
    name = service.name
    if state.stale:
        doing = "the console is reconnecting" if state.away else "the engine sends nothing new"
        return _with(f"What is shown of {name} is {format.age(state.age)} old; {doing}.", "warn", "", width)
    if severity(service) == STALE:
        return _with(f"{name}: no data for {format.duration(service.age_s)}; what it serves is not known. "
                     "Look whether its server is up.", "warn", "", width)
    mine = [w for w in state.waiting if w.service == name]
    weight, does, role = rolls(service.rollout)
    if does == "rolling back" or (does == "paused" and not mine):
        return _with(f"{name}: its rollout is {does}", role, "o shows why", width)
    if mine:
        return [line((f" {format.clip(f'{name}: run {mine[0].run} waits, {mine[0].prompt}', width - 6)}",
                      "ask"), (" (a)", "accent"))]
    if does and severity(service) == WELL:
        return _with(f"{name} is well; the canary gets {weight}, step {does} of its rollout", "dim",
                     "o shows it", width)
    if severity(service) < WELL:
        return _with(f"{name}: over a limit, but not for long enough to alert.", "warn", "", width)
    return _with(f"{name} is well.", "dim", "", width)


class FleetView(View):
    """All services. `enter` opens one, `r` its suggested runbook."""

    place: ClassVar[str] = "fleet"
    BINDINGS = bindings("fleet")

    def __init__(self, argument: str = "") -> None:
        super().__init__(argument)
        self.order = Order()

    def crumbs(self) -> list[str]:
        return ["Fleet"]

    def body(self) -> Iterable[Widget]:
        yield Table(COLUMNS, empty="waiting for the engine's first numbers", id="services")
        yield Lines(id="advice")

    def table(self) -> Table:
        return self.query_one(Table)

    def update(self) -> None:
        deck, table = self.deck, self.table()
        state = deck.state
        services = self.order.sort(state.services, idle_s=deck.idle_s)
        at = state.snapshot.at if state.snapshot else 0.0
        width, apart = table.width_of("spark"), table.width_of("rollout") > 0
        back = {s.name for s in services if (one := state.just_ended(s)) and one.state == "rolled_back"}
        table.set_rows([row(s, deck.glyphs, at, width, open_run(state.runs, s.name), apart=apart,
                            back=s.name in back)
                        for s in services
                        if matches(self.filter, s.name, mark(s, deck.glyphs)[1][0],
                                   *(a.title for a in s.alerts))])
        lines, shown = self._advice(), self.query_one("#advice", Lines)
        shown.styles.height = len(lines)
        shown.show(lines)

    def _advice(self) -> list[Line]:
        service = self.deck.state.service(self.table().selected or "")
        if service is None:
            reason = None if self.deck.state.snapshot else self.deck.state.link.reason
            return [line((f" {reason}", "warn")) if reason else line(" ")]
        return advice(service, self.deck.state, self.size.width)

    def copyable(self) -> str:
        return " ".join("".join(text for text, _ in row).strip() for row in self._advice())

    def action_open(self) -> None:
        if selected := self.table().selected:
            self.deck.go("service", selected)

    def hints(self) -> list[tuple[str, str]]:
        selected = self.table().selected or "" if self.is_mounted else ""
        return [pair for pair in super().hints() if pair[0] != "o" or self.rolled(selected)]

    def action_rollout(self) -> None:
        self.show_rollout(self.table().selected or "")

    def action_suggest(self) -> None:
        self.deck.suggest(self.table().selected or "")

    def action_abort(self) -> None:
        selected = self.table().selected
        self.deck.abort_of([r.id for r in self.deck.state.runs if r.service == selected
                            and r.ended is None], f"service {selected}")
