"""What of a rollout is worth a line when it changes. Pure: rollouts in, changes out."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from engine.api import wire
from engine.cli.rollout_text import answer, budget, missing, percent, place, sides, verdict, word
from engine.cli.show import wants
from engine.cli.text import plain

QUARTERS = 4
SLACK = 0.1  # of the way to a line: evidence has to fall so far below a quarter before that is told
Kind = Literal["watching", "state", "step", "weight", "verdict", "missing", "gate", "budget", "evidence",
               "baseline", "heartbeat", "reconnecting", "connected", "ended"]


class Change(msgspec.Struct, frozen=True):
    """One line: what changed, at the engine's time `at`, and how the rollout stands with it.

    `weight` is in percent, None where the router does not say; `ln_e` is the evidence of all metrics
    together that the canary is worse.
    """

    at: float
    kind: Kind
    text: str
    run: str
    service: str
    state: wire.RunState
    step: str | None
    weight: float | None
    verdict: str
    ln_e: float
    bad: int
    exposed: int


def change(rollout: wire.Rollout, kind: Kind, text: str, at: float | None = None) -> Change:
    return Change(at=rollout.at if at is None else at, kind=kind, text=plain(text), run=rollout.run,
                  service=rollout.service, state=rollout.state, step=rollout.step, weight=rollout.weight,
                  verdict=rollout.verdict, ln_e=rollout.ln_e_all, bad=rollout.bad, exposed=rollout.exposed)


class Changes:
    """Remembers what was told of one rollout, so that each thing that matters is told once."""

    def __init__(self) -> None:
        self._last: wire.Rollout | None = None
        self._quarters: dict[str, int] = {}

    def see(self, now: wire.Rollout) -> list[Change]:
        """What has changed since the rollout was seen last; how it stands, the first time."""
        last, self._last = self._last, now
        found = self._of_plan(last, now) if last is not None else [change(now, "watching", _standing(now))]
        if last is None and now.gate is not None:
            found.append(_gate(now))
        found += self._of_budget(now, tell=last is not None)
        found += self._of_evidence(now, tell=last is not None)
        if now.ended is not None:  # what is only seen now was so before the end
            found = [msgspec.structs.replace(one, at=min(one.at, now.ended)) for one in found]
        if now.ended is not None and (last is None or last.ended is None):
            why = f": {now.reason}" if now.reason else ""
            found.append(change(now, "ended", f"ended: {now.state.replace('_', ' ')}{why}", now.ended))
        return found

    def _of_plan(self, last: wire.Rollout, now: wire.Rollout) -> list[Change]:
        found = []
        if word(now) != word(last) and now.ended is None:
            found.append(change(now, "state", word(now)))
        if now.step != last.step and now.step is not None:
            found.append(change(now, "step", place(now, now.step)))
        if now.weight != last.weight and now.ended is None:
            found.append(change(now, "weight", _weight(last.weight, now.weight)))
        if now.verdict != last.verdict:
            found.append(change(now, "verdict", f"{last.verdict} → {verdict(now)}"))
        if now.ended is not None:
            return found  # that it lacks nothing and waits for nobody goes without saying
        # Its numbers change with every tick, so that only its coming and going is told.
        if (now.missing is None) != (last.missing is None):
            found.append(change(now, "missing", missing(now) or "nothing is missing any more"))
        if (now.gate.digest if now.gate else None) != (last.gate.digest if last.gate else None):
            found.append(_gate(now))
        if (now.concurrent, now.watching) != (last.concurrent, last.watching):
            found.append(change(now, "baseline", _baseline(now)))
        return found

    def _of_budget(self, now: wire.Rollout, *, tell: bool) -> list[Change]:
        found = []
        for name, used, limit in (("bad requests", now.bad, now.bad_limit),
                                  ("exposed requests", now.exposed, now.exposed_limit)):
            quarter = self._moved(name, used / limit) if limit else None
            if quarter and tell:
                found.append(change(now, "budget", f"{25 * quarter} % of the budget of {name} is spent: "
                                                   f"{budget(now)}"))
        return found

    def _of_evidence(self, now: wire.Rollout, *, tell: bool) -> list[Change]:
        found = []
        for name, title, side, ln_e, line in _lines(now):
            quarter = self._moved(f"{side} {name}", ln_e / line)
            if quarter is not None and tell:
                way = f"{25 * quarter} %" if quarter else "below 25 %"
                found.append(change(now, "evidence", f"{title}: ln E {ln_e:.2f}, {way} of the way to {side} "
                                                     f"at {line:.2f}"))
        return found

    def _moved(self, name: str, part: float) -> int | None:
        """The quarter (0 to 4) that a part of a whole has come to, if that is to be told."""
        known = self._quarters.get(name, 0)
        if math.isnan(part):
            return None
        quarter = math.floor(QUARTERS * min(max(part, 0.0), 1.0))
        if quarter < known and part > known / QUARTERS - SLACK:
            return None
        self._quarters[name] = quarter
        return quarter if quarter != known else None


def _lines(rollout: wire.Rollout) -> list[tuple[str, str, str, float, float]]:
    """Name, title, side, evidence and line of all that has a line to come to."""
    found = []
    for metric in rollout.metrics:
        if metric.line is not None and metric.line > 0:
            found.append((metric.name, metric.title, "bad", metric.ln_e, metric.line))
        if metric.ln_good is not None and metric.good_line is not None and metric.good_line > 0:
            found.append((metric.name, metric.title, "good", metric.ln_good, metric.good_line))
    if rollout.threshold > 0:
        found.append(("", "all together", "bad", rollout.ln_e_all, rollout.threshold))
    return found


def heartbeat(rollout: wire.Rollout, at: float | None = None) -> Change:
    """How it stands, for a reader who would otherwise not know whether anything still runs."""
    text = (f"{_where(rollout)}, {rollout.verdict}, ln E {rollout.ln_e_all:.2f} of {rollout.threshold:.2f}, "
            f"{budget(rollout)}")
    return change(rollout, "heartbeat", text, at)


def _standing(rollout: wire.Rollout) -> str:
    if rollout.ended is not None:
        return f"{sides(rollout)}: has ended, {verdict(rollout)}"
    return f"{sides(rollout)}: {_where(rollout)}, {verdict(rollout)}"


def _where(rollout: wire.Rollout) -> str:
    return f"{word(rollout)} at {percent(rollout.weight)}, {place(rollout, rollout.step)}"


def _weight(before: float | None, now: float | None) -> str:
    if now is None:
        return f"{percent(before)} → unknown: the router does not say"
    return f"{percent(before)} → {percent(now)}"


def _gate(rollout: wire.Rollout) -> Change:
    if rollout.gate is None:
        return change(rollout, "gate", "waits for nobody any more")
    return change(rollout, "gate", f"waits for {wants(rollout.gate, rollout.at)}: {answer(rollout)}")


def _baseline(rollout: wire.Rollout) -> str:
    if not rollout.watching:
        return "nothing is analysed now"
    return ("the baseline is concurrent" if rollout.concurrent
            else "the baseline is not concurrent: no error guarantee is claimed")
