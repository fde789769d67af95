"""Made-up rollouts for engines without a controller, and how they are found by name."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from engine.api import wire
from engine.errors import NotFound

STARTED = 1_795_490_047.0  # 2026-11-24 03:14:07Z
PLANS = ("start-rollout", "rollback-after-promotion")
WEIGHTS = (1.0, 5.0, 25.0, 50.0, 100.0)


def metric(name: str = "errors", title: str = "errors", *, ln_e: float = 0.4, line: float | None = 6.2,
           canary: tuple[int, int] = (1_480, 15), baseline: tuple[int, int] = (28_120, 281),
           **more: Any) -> wire.RolloutMetric:
    more.setdefault("critical", True)
    return wire.RolloutMetric(name, title, ln_e=ln_e, line=line, canary=canary, baseline=baseline, **more)


def steps(at: str | None = "watch-5") -> list[wire.RolloutStep]:
    """The steps of a canary: those before `at` are done, `at` runs, the rest are planned; None: all done."""
    found = [wire.RolloutStep("warm-up", "Warm the challenger up", "done")]
    for weight in WEIGHTS:
        found += [wire.RolloutStep(f"weight-{weight:g}", f"Send {weight:g} %", "done", weight),
                  wire.RolloutStep(f"watch-{weight:g}", f"Watch at {weight:g} %", "done")]
    names = [one.id for one in found]
    if at is not None:
        for one in found[names.index(at):]:
            one.state = "planned"
        found[names.index(at)].state = "intent"
    return found


def rollout(run: str = "41", service: str = "flights", **given: Any) -> wire.Rollout:
    """A rollout of `challenger` that is well at 5 % of traffic, but for what is given."""
    fields: dict[str, Any] = {
        "procedure": "start-rollout", "state": "running", "by": "oncall1", "started": STARTED, "ended": None,
        "at": STARTED + 300.0, "champion": "champion", "challenger": "challenger", "champion_version": "7",
        "challenger_version": "8", "weight": 5.0, "safe": {"champion": 100.0, "challenger": 0.0},
        "steps": steps(), "step": "watch-5", "step_since": STARTED + 180.0, "step_requests": 1_200,
        "metrics": [metric(), metric("p99", "p99 over 150 ms", ln_e=-0.8, ln_good=2.1, good_line=4.6)],
        "ln_e_all": 0.1, "threshold": 4.6, "verdict": "undecided",
        "sentence": "undecided: neither worse nor shown to be as good yet", "concurrent": True,
        "watching": True, "bad": 15, "bad_limit": 200, "exposed": 1_480, "exposed_limit": 20_000,
        "after": "25 % of traffic", "undo": "champion 100 %"}
    return wire.Rollout(run=run, service=service, **(fields | given))


def newest_first(rollouts: Iterable[wire.Rollout]) -> list[wire.Rollout]:
    """Those that run, then those that ended, each newest first."""
    return sorted(rollouts, key=lambda r: (r.ended is not None, -r.started))


def by_name(rollouts: Iterable[wire.Rollout], name: str) -> wire.Rollout:
    """By the run's id, or by the service: the one that runs there, else the last. Raises NotFound."""
    for one in newest_first(rollouts):
        if name in (one.run, one.service):
            return one
    raise NotFound(f"there is no rollout {name}", hint="`opsdeck rollout list` lists the rollouts")


def begun(run: str, by: str, request: wire.StartRun) -> tuple[wire.RunView, wire.Rollout]:
    """A rollout that has just been started with these parameters, and its run; a dry one runs nothing."""
    now, service, to = time.time(), request.params["service"], request.params["to"]
    other = "champion" if to == "challenger" else "challenger"
    step = wire.StepView("watch-5", "Watch at 5 %", "planned" if request.dry_run else "intent", 1, None, "",
                         None, None, None, None, kind="action", command="rollout.watch", reason="would run")
    view = wire.RunView(run, request.procedure, "running", [step], f"Roll {to} out", by, now, None, now,
                        request.params, service, 1, False, None, None, "0" * 64, dry_run=request.dry_run)
    return view, rollout(run, service, procedure=request.procedure, by=by, started=now, at=now,
                         challenger=to, champion=other, step_since=now)
