"""`opsdeck status`: the services worst first, what fires and what waits for a person."""

from __future__ import annotations

import argparse
import math
from typing import Any

from engine.api import wire
from engine.api.light import connect
from engine.cli.text import (
    Cell,
    Tone,
    coloured,
    columns,
    duration,
    emit,
    latency,
    number,
    plain,
    say,
    stamp,
)

NAME = "status"
HELP = "the services, their signals and what is wrong"
HEADER = ("", "SERVICE", "VERSION", "SPLIT", "REQ/S", "P50ms ", "P95ms ", "P99ms ", "ERR% ",
          "STATE")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "example:\n  opsdeck status --json | jq '.services[].alerts'"
    parser.add_argument("--json", action="store_true", help="print the engine's answer as JSON")


def run(args: argparse.Namespace) -> int:
    status = connect(args.home).status()
    if args.json:
        emit(status)
        return 0
    say(lines(status, colour=coloured()))
    return 0


def lines(status: wire.Status, *, colour: bool) -> list[str]:
    """The whole answer as text."""
    if not status.services:
        return [f"no services are watched ({stamp(status.at)})",
                "  name them in opsdeck.yaml: `opsdeck config example` shows how"]
    services = sorted(status.services, key=lambda s: (_badness(s), s.name))
    shown = columns([_row(s) for s in services], header=HEADER, right="    rrrrr", colour=colour)
    for service in services:
        for alert in service.alerts:
            tries = f"; try runbook {alert.runbooks[0]}" if alert.runbooks else ""
            shown.append(plain(f"{alert.level}  {service.name}: {alert.title}{tries}"))
        if service.rollout is not None:
            shown.append(plain(f"{service.name}: {_rollout(service.rollout)}; see `opsdeck rollout "
                               f"{service.name}`"))
        if service.waiting:
            shown.append(f"{plain(service.name)}: {service.waiting} wait for a person; see "
                         "`opsdeck handover`")
    return [*shown, f"at {stamp(status.at)}"]


def _rollout(found: dict[str, Any]) -> str:
    """The rollout that runs, in words: `rollout 41 at 5 %, step 3 of 12, undecided`."""
    weight = "an unknown weight" if found.get("weight") is None else f"{found['weight']:g} %"
    waits = ", waits for a person" if found.get("waits") else ""
    return (f"rollout {found.get('run')} at {weight}, step {found.get('step')} of {found.get('steps')}, "
            f"{found.get('verdict')}{waits}")


def _stale(service: wire.Service) -> bool:
    return not service.variants or all(v.stale for v in service.variants)


def _badness(service: wire.Service) -> int:
    levels = {a.level for a in service.alerts}
    return 0 if "page" in levels else 1 if _stale(service) else 2 if levels else 3 if _over(service) else 4


def _over(service: wire.Service) -> list[str]:
    """The signals that are over their limit now, whether or not for long enough to alert."""
    return [signal for signal in ("p50_ms", "p95_ms", "p99_ms", "error_ratio")
            if (value := getattr(service, signal)) is not None
            and value > service.limits.get(signal, math.inf)]


def _state(service: wire.Service) -> tuple[str, str, Tone]:
    levels = {a.level for a in service.alerts}
    if "page" in levels:
        return "▲", "page", "bad"
    if _stale(service):
        age = f", {duration(service.age_s)} old" if service.age_s is not None else ""
        return "○", f"stale{age}", "warn"
    if levels:
        return "△", "ticket", "warn"
    return ("●", "over limit", "warn") if _over(service) else ("●", "well", "good")


def _row(service: wire.Service) -> list[Cell]:
    glyph, word, tone = _state(service)
    serving = [v for v in service.variants if v.weight] or service.variants
    variants = sorted(serving, key=lambda v: -(v.weight or 0.0))
    versions = list(dict.fromkeys(v.version for v in variants if v.version))
    weights = [number(v.weight) for v in variants if v.weight is not None]
    ratio = service.error_ratio
    over = _over(service)

    def marked(text: str, signal: str) -> str:
        return f"{text}{'!' if signal in over else ' '}"

    return [(glyph, tone), plain(service.name), plain(" ▸ ".join(versions) or "-"),
            "/".join(weights) or "-", number(service.rps, 1), marked(latency(service.p50_ms), "p50_ms"),
            marked(latency(service.p95_ms), "p95_ms"), marked(latency(service.p99_ms), "p99_ms"),
            marked(number(None if ratio is None else 100 * ratio, 2), "error_ratio"), (word, tone)]
