"""A rollout as people and programs see it: the wire's Rollout. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.api import wire
from engine.errors import OpsdeckError
from engine.procedures.expansion import BEGIN
from engine.procedures.run import RunProgress
from engine.rollout.analysis import Analysis
from engine.rollout.facts import PROMOTE, WEIGHT, facts, named, stage
from engine.rollout.judge import Metric
from engine.rollout.progress import Progress, line, verdict_sentence
from engine.rollout.setup import ERRORS
from engine.words import percents


def rollout_view(run: RunProgress, analysis: Analysis, shown: wire.RunView, *, now: Progress | None,
                 weight: float | None, lease_s: float | None, latencies: Mapping[str, tuple[str, str]],
                 watching: bool) -> wire.Rollout:
    """`shown` is the run's own view; `now` where its watching stands, None when it has ended; `weight`
    what the new version has (percent), None where nobody knows; `latencies` both sides' in words."""
    found, began = facts(run), analysis.began
    service, to = _named(run)
    champion = found.champion if found else ""
    versions: Mapping[str, str | None] = began.get("versions", {})
    at = stage(run, found) if found else None
    setup, verdict = analysis.setup, analysis.verdict
    gated = next((step for step in shown.steps if step.gate is not None), None)
    steps = [step for step in shown.steps if step.undo_of is None and step.id != BEGIN]
    current = next((step for step in shown.steps if step.state in ("intent", "waiting", "unknown")), None)
    return wire.Rollout(
        run=run.id, service=service, procedure=run.document.id, state=shown.state, by=shown.by,
        started=run.started, ended=run.ended, at=shown.at, champion=champion, challenger=to,
        champion_version=versions.get(champion), challenger_version=versions.get(to), weight=weight,
        safe=found.safe if found else {},
        steps=[wire.RolloutStep(step.id, step.title, step.state, _weight(run, step.id)) for step in steps],
        step=current.id if current else None, step_since=_since(run, current),
        step_requests=analysis.stage_requests if at and at.step == analysis.stage else 0,
        metrics=[_metric(metric, analysis, latencies) for metric in setup.metrics] if setup else [],
        ln_e_all=_finite(verdict.ln_e_all) if verdict else 0.0,
        threshold=verdict.threshold if verdict else 0.0,
        verdict=verdict.verdict if verdict else "undecided",
        sentence=_sentence(run, analysis), concurrent=analysis.concurrent, watching=watching,
        bad=analysis.bad, bad_limit=setup.bad_limit if setup else None,
        exposed=analysis.exposed, exposed_limit=setup.exposed_limit if setup else None,
        missing=now.text if now and now.kind != "done" else None,
        wait_s=now.wait_s if now else None, paused_by=_paused(run, now), next=shown.next,
        after=_after(run, current), undo=_undo(run), reason=shown.reason,
        gate=gated.gate if gated else None, gate_step=gated.id if gated else None, lease_s=lease_s,
        diff=[(key, old, new) for key, old, new in (found.diff if found else ())])


def fleet_row(run: RunProgress, analysis: Analysis, state: str, weight: float | None, *, waits: bool
              ) -> dict[str, Any]:
    """What the fleet's row shows of a rollout that runs; see `wire.Service`."""
    steps = [step for step in run.plain_steps() if step.id != BEGIN]
    return {"run": run.id, "weight": weight, "step": sum(step.satisfied for step in steps) + 1,
            "steps": len(steps), "state": "rolling_back" if run.going_back else state,
            "verdict": analysis.verdict.verdict if analysis.verdict else "undecided", "waits": waits}


def _named(run: RunProgress) -> tuple[str, str]:
    try:
        return named(run)
    except OpsdeckError:
        return run.service or "", ""


def _weight(run: RunProgress, id: str) -> float | None:
    spec = run.steps[id].spec
    if spec.use == WEIGHT:
        return float(spec.with_["weight"])
    return 100.0 if spec.use == PROMOTE else None


def _since(run: RunProgress, current: wire.StepView | None) -> float | None:
    if current is None:
        return None
    step = run.steps[current.id]
    return step.started or step.ready_at


def _metric(metric: Metric, analysis: Analysis, latencies: Mapping[str, tuple[str, str]]
            ) -> wire.RolloutMetric:
    total, verdict = analysis.totals[metric.name], analysis.verdict
    assert verdict is not None
    edge = analysis.edges.get(metric.name)
    good = verdict.ln_good.get(metric.name)
    return wire.RolloutMetric(
        name=metric.name, title=_title(metric.name), critical=metric.alpha > 0,
        ln_e=_finite(verdict.ln_e[metric.name]), line=line(metric.alpha) if metric.alpha else None,
        canary=total.canary, baseline=total.baseline, ln_good=good,
        good_line=verdict.threshold if good is not None else None, values=latencies.get(metric.name),
        edge_ms=1000 * edge if edge is not None else None,
        expected=total.expected[1] / total.expected[0] if total.expected[0] else None,
        history=[round(value, 3) for value in total.history],
        good_history=[round(value, 3) for value in total.good_history])


def _title(name: str) -> str:
    return "errors, all" if name == ERRORS else name.replace("_", " ")


def _sentence(run: RunProgress, analysis: Analysis) -> str:
    if run.going_back or run.state in ("rolled_back", "aborted"):
        return run.reason or "it goes back"
    return verdict_sentence(analysis)


def _paused(run: RunProgress, now: Progress | None) -> str | None:
    if run.paused:
        return run.paused_by
    return "engine" if now is not None and now.halts and not run.finished else None


def _after(run: RunProgress, current: wire.StepView | None) -> str | None:
    """What comes after the step that is under way."""
    if run.finished or run.going_back:
        return None
    plain = run.plain_steps()
    ids = [step.id for step in plain]
    at = ids.index(current.id) + 1 if current is not None and current.id in ids else 0
    follows = next((step for step in plain[at:] if step.state == "planned"), None)
    if follows is None:
        return "it has ended"
    who = ", once it is approved" if follows.spec.approvals is not None else ""
    return f"{follows.spec.title[0].lower()}{follows.spec.title[1:]}{who}"


def _undo(run: RunProgress) -> str | None:
    found = facts(run)
    if found is None:
        return None
    if run.state == "done":
        return f"rollout undo: {found.champion} gets all the traffic again"
    if run.finished:
        return None
    safe = dict(sorted(found.safe.items(), key=lambda one: (-one[1], one[0])))
    return f"abort: back to {percents(safe)}"


def _finite(value: float) -> float:
    return value if value > -1e300 else 0.0
