"""Made-up rollouts in every state, each with its run, and how time and acts change them."""

from __future__ import annotations

import math
from typing import Any

from console import fake_runs
from engine.api import wire

LINE, ALL = round(math.log(1600), 2), round(math.log(100), 2)
RATES = {"171": 228.0, "169": 120.0, "168": 2.0}   # canary requests a second
WEIGHTS = (1.0, 5.0, 25.0, 50.0, 99.0)


def growing(value: float, turn: float = 0.0, points: int = 120) -> list[float]:
    """A history that wobbles around nothing until `turn` of it, and then goes to `value`."""
    wobble = (0.25 * math.sin(0.7 * i) * math.cos(0.13 * i) for i in range(points))
    share = (max(0.0, (i / (points - 1) - turn) / (1 - turn)) for i in range(points))
    return [round(value * s + w * (1 - s), 3) for s, w in zip(share, wobble, strict=True)]


def metric(name: str, title: str, ln_e: float, canary: tuple[int, int], baseline: tuple[int, int],
           **more: Any) -> wire.RolloutMetric:
    fields: dict[str, Any] = {"critical": True, "line": LINE, "history": growing(ln_e, 0.5)}
    return wire.RolloutMetric(name=name, title=title, ln_e=ln_e, canary=canary, baseline=baseline,
                              **{**fields, **more})


def metrics(canary: int, baseline: int, *, timeouts: tuple[float, int] = (-0.8, 0), good: float = 0.4,
            slow: float = -0.3) -> list[wire.RolloutMetric]:
    """Ten metrics on so many requests; `timeouts` is their evidence and how many the canary had, `slow`
    the evidence of the latencies."""
    def share(n: int, part: float) -> tuple[int, int]:
        return n, int(n * part)

    def errors(name: str, ln_e: float, here: int, part: float, **more: Any) -> wire.RolloutMetric:
        return metric(name, "errors, all" if name == "errors" else name, ln_e, (canary, here),
                      share(baseline, part), expected=part * 1.02, **more)

    def over(quantile: str, edge_ms: float, ln_e: float, part: float) -> wire.RolloutMetric:
        canary_is, champion_is = ((0.8, 1.0) if ln_e < 0 else (1.8, 2.2)), (0.7, 0.8)
        words = (f"{edge_ms * canary_is[0]:.0f}–{edge_ms * canary_is[1]:.0f} ms",
                 f"{edge_ms * champion_is[0]:.0f}–{edge_ms * champion_is[1]:.0f} ms")
        many = part * (1.08 if ln_e < 0 else 3.1)
        return metric(f"latency {quantile}", f"latency {quantile}", ln_e, share(canary, many),
                      share(baseline, part), expected=part, values=words, edge_ms=edge_ms)

    evidence, count = timeouts
    whole = evidence / 2 if evidence > 0 else -0.9
    return [
        errors("errors", whole, count + int(canary * 0.002), 0.0041, ln_good=good, good_line=ALL,
               good_history=growing(good)),
        metric_with_good(over("p95", 48.0, slow / 2, 0.05), good * 1.7),
        over("p99", 118.0, slow, 0.01),
        errors("errors: timeout", evidence, count, 0.0019),
        errors("errors: out of memory", -0.2, 0, 0.0),
        errors("errors: invalid input", -0.5, int(canary * 0.0018), 0.0019),
        errors("errors: model error", -0.4, 0, 0.0002),
        errors("errors: unavailable", -0.2, 0, 0.0),
        metric("quality", "quality", 0.3, share(canary // 40, 0.21), share(baseline // 40, 0.2),
               expected=0.2),
        metric("predictions", "predictions", 1.2, (canary, 0), (baseline, 0), critical=False, line=None)]


def metric_with_good(one: wire.RolloutMetric, ln_good: float) -> wire.RolloutMetric:
    one.ln_good, one.good_line, one.good_history = ln_good, ALL, growing(ln_good, 0.5)
    return one


def steps(reached: int, weight_state: wire.StepState = "done",
          last: wire.StepState = "intent") -> list[wire.RolloutStep]:
    """The plan 1, 5, 25, 50, 99; step number `reached` is in state `last`, what was before it is done."""
    plan: list[tuple[str, str, float | None]] = [("warm-up", "See that the new version answers", None)]
    for weight in WEIGHTS:
        plan.append((f"weight-{weight:g}", f"Give it {weight:g} % of the traffic", weight))
        if weight < 99:
            plan.append((f"watch-{weight:g}", f"Watch it at {weight:g} %", None))
    plan += [("bake", "Watch it with nearly all traffic", None),
             ("promote", "Make it the champion: all traffic, without a lease", 100.0)]
    return [wire.RolloutStep(id, title, "planned" if number > reached else last if number == reached
                             else weight_state if weight is not None else "done", weight)
            for number, (id, title, weight) in enumerate(plan)]


def rollout(run: str, service: str, state: wire.RunState, at: float, *, version: int, reached: int,
            last: wire.StepState = "intent", ago: float = 1500.0, **more: Any) -> wire.Rollout:
    plan = steps(reached, last=last)
    fields: dict[str, Any] = {
        "by": "mlops3", "started": at - ago, "ended": None, "at": at, "champion": "champion",
        "challenger": "challenger", "champion_version": str(version),
        "challenger_version": str(version + 1), "safe": {"champion": 100.0, "challenger": 0.0},
        "steps": plan, "step": plan[min(reached, len(plan) - 1)].id, "step_since": at - 720,
        "step_requests": 1840, "ln_e_all": 0.6, "threshold": ALL, "verdict": "undecided",
        "concurrent": True, "watching": True, "bad_limit": 200, "exposed_limit": 20_000,
        "lease_s": 24.0, "undo": "abort: back to champion 100 %, challenger 0 %"}
    return wire.Rollout(run=run, service=service, procedure=f"rollout-{service}", state=state,
                        **{**fields, **more})


def _waiting(at: float) -> wire.Rollout:
    differs = [("model.params.depth", "8", "12"), ("model.sha256", "9f3c" * 16, "b1e0" * 16),
               ("inputs.4.name", "missing", "carrier")]
    gate = wire.Gate("approval", "5e1d09c2d3e4b5f6", "Give version 13 half of the traffic?",
                     approvals_needed=1, roles=["approver"], not_initiator=True, since=at - 240,
                     expires=at + 1560, alone=["approver"])
    return rollout(
        "171", "search-rank", "waiting", at, version=12, reached=7, last="waiting", weight=25.0,
        metrics=metrics(8420, 25_260, timeouts=(-0.8, 14), good=1.9), bad=17, exposed=8420,
        sentence="undecided; nothing speaks against it",
        step_requests=0, step_since=at - 240, gate=gate, gate_step="weight-50",
        next="1 approver, not mlops3, decides about 50 %",
        after="watch it at 50 %", diff=differs,
        undo="abort: back to champion 100 %, challenger 0 %")


def _failing(at: float) -> wire.Rollout:
    return rollout(
        "170", "flights", "rolled_back", at, version=7, reached=4, last="failed", ago=900.0,
        ended=at - 14, weight=None, metrics=metrics(1840, 34_960, timeouts=(LINE + 0.2, 38),
                                                   slow=3.2),
        ln_e_all=4.9, verdict="bad", bad=41, exposed=1840, lease_s=None, watching=False,
        sentence="worse: errors: timeout, 2.1 % of 1,840 against 0.19 % of the old version's; evidence 7.6",
        step_since=at - 734,
        reason="the new version is worse", undo=None)


def _running(at: float) -> wire.Rollout:
    return rollout("169", "recommend", "running", at, version=21, reached=4, weight=5.0,
                   metrics=metrics(1840, 34_960, timeouts=(3.1, 14), slow=2.2, good=0.1),
                   bad=35, exposed=1840, ln_e_all=1.4, wait_s=2460.0,
                   missing="evidence of 0.1 of 4.6 that it is no worse (errors)",
                   sentence="undecided; about 9 more errors (timeout) would roll it back",
                   after="give it 25 % of the traffic")


def _paused(at: float) -> wire.Rollout:
    return rollout("168", "spam", "running", at, ago=2700.0, version=4, reached=4,
                   weight=5.0, concurrent=False,
                   metrics=metrics(96, 0, good=0.0), bad=0, exposed=96, paused_by="engine", ln_e_all=0.0,
                   sentence="undecided; nothing speaks against it", step_requests=96,
                   missing="too little traffic: 96 of 200 requests at this weight", wait_s=2460.0,
                   bad_limit=None, after="give it 25 % of the traffic")


def _promoted(at: float) -> wire.Rollout:
    return rollout("167", "pricing", "done", at, version=30, reached=99, ago=9000.0, ended=at - 4100,
                   weight=None, metrics=metrics(211_000, 64_000, timeouts=(-2.1, 388), good=5.2),
                   bad=420, exposed=19_800, verdict="good", lease_s=None, watching=False, step=None,
                   step_since=None, sentence="no worse than the old version, at α = 0.01",
                   undo="rollout undo: champion gets all the traffic again")


def made(at: float) -> list[wire.Rollout]:
    """One rollout for each of: waits at a gate, rolled back, running, paused by the engine, promoted."""
    return [_waiting(at), _failing(at), _running(at), _paused(at), _promoted(at)]


def run_of(rollout: wire.Rollout) -> wire.RunView:
    """The run behind a rollout, with the same steps and the same gate."""
    def step(one: wire.RolloutStep) -> wire.StepView:
        gated = one.id == rollout.gate_step
        named = "weight" if one.weight is not None else one.id.partition("-")[0]
        share = "" if one.weight is None else f" weight={one.weight:g}"
        preview = wire.Preview(f"challenger {rollout.weight:g} %", f"challenger {one.weight:g} %",
                               rollout.at - 1, {"challenger": rollout.weight}) if gated else None
        return fake_runs.step(
            one.id, one.title, one.state, effect="none" if one.weight is None else "idempotent",
            command=f"rollout.{named} {rollout.service} challenger{share}",
            gate=rollout.gate if gated else None, preview=preview,
            started=rollout.started if one.state in ("done", "intent") else None,
            ended=rollout.started + 2 if one.state == "done" else None)

    return fake_runs.run(
        rollout.run, rollout.procedure, f"Roll out {rollout.service} {rollout.challenger_version}",
        rollout.state, [step(s) for s in rollout.steps], rollout.at, service=rollout.service,
        by=rollout.by, ended=rollout.ended, started=rollout.started, next=rollout.next,
        params={"service": rollout.service, "to": "challenger", "reason": "the spring model"},
        reason=rollout.reason, safe="all traffic goes back to where it was before the rollout")


def summary(rollouts: dict[str, wire.Rollout], service: str) -> dict[str, Any] | None:
    """What `Service.rollout` says of the rollout that runs."""
    found = next((r for r in rollouts.values() if r.service == service and r.ended is None), None)
    if found is None:
        return None
    at = next((n for n, s in enumerate(found.steps, 1) if s.id == found.step), 0)
    return {"run": found.run, "weight": found.weight, "step": at, "steps": len(found.steps),
            "state": found.state, "verdict": found.verdict, "waits": found.gate is not None}


def advance(rollouts: dict[str, wire.Rollout], at: float, seconds: float) -> None:
    """Requests come in, and evidence wanders a little."""
    for one in rollouts.values():
        if one.ended is not None:
            continue
        more = int(RATES.get(one.run, 10.0) * seconds)
        one.at, one.exposed = at, one.exposed + more
        one.step_requests += more
        one.lease_s = 30.0 - at % 6
        for number, m in enumerate(one.metrics):
            m.canary = (m.canary[0] + more, m.canary[1] + (more // 500))
            m.baseline = (m.baseline[0] + 3 * more, m.baseline[1] + more // 400)
            m.ln_e = round(m.ln_e + 0.08 * math.sin(at + number), 3)
            m.history = [*m.history[1:], m.ln_e]


def follow(rollout: wire.Rollout, view: wire.RunView) -> None:
    """Take over what an act has done to the run."""
    rollout.state, rollout.ended, rollout.next = view.state, view.ended, view.next
    rollout.reason = view.reason
    rollout.paused_by = "oncall1" if view.state == "paused" else None
    states = {s.id: s.state for s in view.steps}
    for step in rollout.steps:
        step.state = states[step.id]
        if step.weight is not None and step.state == "done":
            rollout.weight = step.weight
    gated = next((s for s in view.steps if s.gate is not None), None)
    rollout.gate, rollout.gate_step = (gated.gate, gated.id) if gated else (None, None)
    current = next((s for s in rollout.steps if s.state in ("intent", "waiting", "planned")), None)
    rollout.step = current.id if current and view.ended is None else None
    if view.state in ("aborted", "rolled_back"):
        rollout.weight, rollout.watching, rollout.lease_s = None, False, None
