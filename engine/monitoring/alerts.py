"""Limits of the config turned into alerts that fire and clear, each with a sentence.

Pure state machine: signals and the time in, changes out. A limit on latency or errors is watched on
the whole service and on each of its variants, so that a canary with a twentieth of the traffic is
not hidden by the rest; the other signals are watched on the whole service. One alert stands for all
of them: it fires with the first scope that fires, and clears with the last. The rule of firing and
clearing is in `limits`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from engine.api import wire
from engine.config import Limit, Service, Signal
from engine.monitoring.limits import Hold, judge, judge_age
from engine.monitoring.signals import Signals

WHOLE = ""  # the scope of the service itself; a variant's scope is its name

NAMES: dict[Signal, str] = {
    "p50_ms": "p50", "p95_ms": "p95", "p99_ms": "p99", "error_ratio": "errors", "rps": "rate",
    "in_flight": "in flight", "age_s": "no fresh data for",
}


class Change(NamedTuple):
    """An alert that fired or cleared: `kind` is alert.fired or alert.cleared, `data` JSON-able."""

    kind: str
    data: dict[str, Any]


@dataclass(slots=True)
class _Watch:
    """One limit of one service, the state of each scope, and the alert while it fires."""

    service: str
    signal: Signal
    limit: Limit
    holds: dict[str, Hold] = field(default_factory=dict)
    alert: wire.Alert | None = None

    @property
    def id(self) -> str:
        return f"{self.service}/{self.signal}"


class AlertBook:
    """All limits of the config. Call `update` for each service on every tick."""

    def __init__(self, services: Mapping[str, Service]) -> None:
        self._watches = {
            name: [_Watch(name, signal, limit) for signal, limit in service.limits.items()]
            for name, service in services.items()}

    def replace(self, services: Mapping[str, Service], now: float, wall: float) -> list[Change]:
        """Watch other limits from now on; what fires under a limit that stays or is moved goes on.

        Returns the alerts whose limit has left the config as cleared.
        """
        before = {watch.id: watch for some in self._watches.values() for watch in some}
        self._watches = {}
        for name, service in services.items():
            self._watches[name] = watches = []
            for signal, limit in service.limits.items():
                watch = before.get(f"{name}/{signal}")
                if watch is not None and watch.limit == limit:
                    watches.append(before.pop(watch.id))
                else:
                    watches.append(_Watch(name, signal, limit))
        return self.restore([watch.alert for watch in before.values() if watch.alert], now, wall)

    def restore(self, firing: Iterable[wire.Alert], now: float, wall: float) -> list[Change]:
        """Go on with alerts that fired before, without firing them again.

        Returns those whose limit has left the config as cleared.
        """
        watches = {watch.id: watch for some in self._watches.values() for watch in some}
        changes = []
        for alert in firing:
            watch = watches.get(alert.id)
            if watch is None:
                changes.append(_cleared(alert, wall, f"{alert.id} has no limit in the config now"))
                continue
            watch.alert = alert
            watch.holds[WHOLE] = hold = Hold(watch.limit.hold)
            hold.restore(now - (wall - alert.since))
        return changes

    def update(self, service: str, whole: Signals, variants: Mapping[str, Signals], *,
               silent_s: float, now: float, wall: float) -> list[Change]:
        """Judge one service at monotonic `now`, `wall` seconds since the epoch.

        `silent_s` is how long its oldest target has been silent, counted from the engine's start
        where it has never answered.
        """
        changes = []
        for watch in self._watches.get(service, ()):
            scopes = {WHOLE: whole}
            if len(variants) > 1 and watch.signal not in ("rps", "in_flight", "age_s"):
                scopes.update(variants)
            fired = self._step(watch, scopes, silent_s, now)
            if fired:
                title = _title(watch, fired, scopes, silent_s, now)
                since = wall - (now - min(watch.holds[scope].since for scope in fired))
                before, watch.alert = watch.alert, _alert(watch, title, since)
                if before is None:
                    changes.append(_fired(watch.alert, wall))
                else:
                    watch.alert.since = min(before.since, since)
            elif not fired and watch.alert is not None:
                changes.append(_cleared(watch.alert, wall, _back(watch, watch.alert, wall)))
                watch.alert = None
        return changes

    def firing(self, service: str | None = None) -> list[wire.Alert]:
        """Alerts of a service, or of all: pages first, then the oldest first."""
        alerts = [watch.alert for name, some in self._watches.items() for watch in some
                  if watch.alert is not None and service in (None, name)]
        return sorted(alerts, key=lambda alert: (alert.level != "page", alert.since))

    def over(self, service: str, variant: str) -> tuple[str, str] | None:
        """A signal on which one variant has been over its limit for its hold time, and half a sentence that
        says so (`p99_ms`, "p99 over 150 ms"); None where it keeps all."""
        for watch in self._watches.get(service, ()):
            hold = watch.holds.get(variant)
            if hold is not None and hold.firing and not hold.recovering:
                return watch.signal, f"{NAMES[watch.signal]} {_bounds(watch.limit, watch.signal, None)}"
        return None

    def _step(self, watch: _Watch, scopes: Mapping[str, Signals], silent_s: float,
              now: float) -> list[str]:
        """Move every scope on, forget variants that are gone; the scopes that fire now."""
        for gone in watch.holds.keys() - scopes.keys():
            del watch.holds[gone]
        for scope, signals in scopes.items():
            verdict = (judge_age(watch.limit, silent_s) if watch.signal == "age_s"
                       else judge(watch.signal, watch.limit, signals))
            hold = watch.holds.get(scope)
            if hold is None:
                hold = watch.holds[scope] = Hold(watch.limit.hold)
            hold.step(now, verdict)
        return [scope for scope, hold in watch.holds.items() if hold.firing]


def _alert(watch: _Watch, title: str, since: float) -> wire.Alert:
    return wire.Alert(id=watch.id, service=watch.service, level=watch.limit.level,
                      signal=watch.signal, title=title, since=since,
                      runbooks=list(watch.limit.runbooks))


def _fired(alert: wire.Alert, wall: float) -> Change:
    return Change("alert.fired", {**msgspec.to_builtins(alert), "at": wall,
                                  "text": f"{alert.service}: {alert.title}"})


def _cleared(alert: wire.Alert, wall: float, text: str) -> Change:
    return Change("alert.cleared", {**msgspec.to_builtins(alert), "at": wall, "text": text})


def _title(watch: _Watch, fired: list[str], scopes: Mapping[str, Signals], silent_s: float,
           now: float) -> str:
    """The alert as a sentence with the numbers of now; a variant is named if only it is over."""
    for_ = lasting(now - min(watch.holds[scope].since for scope in fired))
    if watch.signal == "age_s":
        return f"{NAMES['age_s']} {lasting(silent_s)}, {_bounds(watch.limit, 'age_s', silent_s)}"
    over = [scope for scope in fired if not watch.holds[scope].recovering] or fired
    variants = [scope for scope in over if scope != WHOLE]
    # where one variant is over, it is why the whole service is
    scope = variants[0] if len(variants) == 1 or WHOLE not in over else WHOLE
    where = f", {scope} only" if len(variants) == 1 else ""
    if scope != WHOLE and len(variants) > 1:
        where = ", " + " and ".join(variants)
    value: float | None = getattr(scopes[scope], watch.signal)
    name, limit = NAMES[watch.signal], _bounds(watch.limit, watch.signal, value)
    if value is None:
        why = "no fresh data" if scopes[scope].stale else "no requests now"
        return f"{name} {limit} for {for_}{where}, {why}"
    shown = _shown(watch.signal, value)
    if watch.holds[scope].recovering:
        return f"{name} {shown}, was {limit} for {for_}{where}, clears when it stays well"
    if limit.endswith(f" {shown}"):
        shown = _shown(watch.signal, value, digits=6)
    return f"{name} {shown}, {limit} for {for_}{where}"


def _back(watch: _Watch, alert: wire.Alert, wall: float) -> str:
    over = lasting(wall - alert.since)
    if watch.signal == "age_s":
        return f"{watch.service}: fresh data again, after {over} without"
    limit = _bounds(watch.limit, watch.signal, None)
    return f"{watch.service}: {NAMES[watch.signal]} is well again, after {over} {limit}"


def _bounds(limit: Limit, signal: Signal, value: float | None) -> str:
    """"over 150 ms" or "under 10/s": the bound that is crossed, or the one that could be."""
    under = limit.below is not None and (
        limit.above is None or (value is not None and value < limit.below))
    bound = limit.below if under else limit.above
    text = "its limit" if bound is None else _shown(signal, bound)
    return f"{'under' if under else 'over'} {text}"


def _shown(signal: Signal, value: float, digits: int = 3) -> str:
    if signal == "error_ratio":
        return f"{100 * value:.{digits}g} %"
    if signal == "age_s":
        return lasting(value)
    number = f"{value:.0f}" if digits == 3 and value >= 100 else f"{value:.{digits}g}"
    return {"rps": f"{number}/s", "in_flight": number}.get(signal, f"{number} ms")


def lasting(seconds: float) -> str:
    """A duration as people say it: 45 s, 3 min, 2 h 5 min, 1 d 3 h."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"
