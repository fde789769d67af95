"""What a rollout's run says of itself: its versions, the weights to go back to, where it stands. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.errors import ActionFailed
from engine.procedures import expressions
from engine.procedures.expansion import BEGIN
from engine.procedures.rollouts import Rollout
from engine.procedures.run import RunProgress, StepRun
from engine.words import nearest

WEIGHT, WATCH, MIRROR, PROMOTE = "rollout.weight", "rollout.watch", "rollout.mirror", "rollout.promote"
MIRRORED = "+mirror"  # the gateway counts shadow traffic as a variant of its own
NOTHING = 0.005  # percent: what travels as a fraction comes back a little off
LEAST_STEP, MOST_STEP = 0.25, 1.0  # percent that a router of whole weights may be off
ALL = 99.99  # percent


@dataclass(frozen=True)
class Facts:
    """`safe`: the weights (percent) that an abort restores; `before` those in force when it began;
    `manifests` the sha256 of both versions' manifests, and `diff` how they differ; `named` the version that a
    variant's manifest says it is."""

    service: str
    to: str
    champion: str
    safe: dict[str, float]
    before: dict[str, float]
    plan: Rollout
    manifests: dict[str, str]
    diff: list[list[str]]
    named: dict[str, str] = field(default_factory=dict)

    def split(self, weight: float) -> dict[str, float]:
        """The whole split with `weight` percent at the new version, the rest shared as before."""
        rest = {name: share for name, share in self.safe.items() if name != self.to}
        total = sum(rest.values()) or 1.0
        return {**{name: share * (100.0 - weight) / total for name, share in rest.items()},
                self.to: float(weight)}


@dataclass(frozen=True)
class Stage:
    """The weight in force by the plan: the `step` that set it, and what it gave. `canary` is the variant
    as measured, which for shadow traffic is not the one that has a weight."""

    step: str
    weight: float
    canary: str
    leased: bool


def named(run: RunProgress) -> tuple[str, str]:
    """(service, variant) that the plan names, rendered. Raises OpsdeckError where they cannot be."""
    plan = run.document.rollout
    assert plan is not None
    names = {"params": run.params}
    where = f"{run.document.id}: rollout"
    return (expressions.render(plan.service, names, where), expressions.render(plan.to, names, where))


def facts(run: RunProgress) -> Facts | None:
    """Of a run whose first step is done, None before."""
    begin = run.steps.get(BEGIN)
    plan = run.document.rollout
    if plan is None or begin is None or not isinstance(begin.result, Mapping):
        return None
    said = begin.result
    return Facts(said["service"], said["to"], said["champion"], dict(said["safe"]),
                 dict(said["before"]), plan, dict(said.get("manifests", {})), list(said.get("diff", [])),
                 dict(said.get("named", {})))


def rollable(service: str, to: str, weights: Mapping[str, float]) -> None:
    """Raises ActionFailed where `to` cannot take the traffic of a service with these weights over."""
    if to not in weights:
        raise ActionFailed(f"{service} has no variant {to}.", hint=nearest(to, weights))
    if len(weights) < 2:
        raise ActionFailed(f"{to} is all that {service} has; none is left to go back to.")
    others = max(weight for name, weight in weights.items() if name != to)
    if ALL > weights[to] > others:
        raise ActionFailed(f"{to} is the champion of {service} already: it has {weights[to]:g} %.",
                           hint="A rollout is for a version that has less. The runbook rollback-model sends "
                                "all traffic to one.")
    if weights[to] >= ALL:
        raise ActionFailed(f"{to} has all the traffic of {service} already.")


def safe_weights(weights: Mapping[str, float], to: str) -> tuple[str, dict[str, float]]:
    """The champion (who has most besides `to`) and the weights to go back to: those now, with the share
    of `to` at the champion. All else at 0 leaves the champion everything."""
    others = {name: share for name, share in weights.items() if name != to}
    champion = max(others, key=lambda name: (others[name], name))
    safe = {**dict(weights), to: 0.0}
    safe[champion] += weights.get(to, 0.0)
    return champion, safe


def action(step: StepRun) -> str:
    return step.spec.use or ""


def stage(run: RunProgress, found: Facts) -> Stage | None:
    """The last weight that was set, or shadow traffic that runs; None before the first."""
    last: Stage | None = None
    for step in run.plain_steps():
        given = step.spec.with_
        if action(step) == MIRROR and step.state == "intent":
            last = Stage(step.id, 0.0, found.to + MIRRORED, leased=False)
        elif step.state == "done" and action(step) == WEIGHT:
            last = Stage(step.id, float(given["weight"]), found.to, leased=True)
        elif step.state == "done" and action(step) == PROMOTE:
            last = Stage(step.id, 100.0, found.to, leased=False)
    return last


def shifting(run: RunProgress) -> bool:
    """Whether a step that changes weights is under way, so that they may be anything just now."""
    return any(action(step) in (WEIGHT, PROMOTE) or step.undo_of is not None for step in run.in_flight)


def went_back(run: RunProgress) -> str | None:
    """Why a rollout that has had traffic goes back by itself, where a step failed; None otherwise. A person
    who rejects a gate knows."""
    cause = run.steps.get(run.rollback_cause or "")
    if cause is None or cause.rejected or not any(
            action(step) in (WEIGHT, PROMOTE) and step.touched for step in run.plain_steps()):
        return None
    return f"{cause.id} failed: {cause.error}"


def watched_step(run: RunProgress) -> StepRun | None:
    """The watching that is under way, if one is."""
    return next((step for step in run.in_flight if action(step) in (WATCH, MIRROR)), None)


def holds(seen: Mapping[str, float], wanted: Mapping[str, float]) -> bool:
    """Whether a router that has `seen` has what was `wanted` (percent).

    Routers of whole weights are off by up to a step, but nothing is nothing with all of them: a version
    that is to have 1 % and has none, or none and has 1 %, is not where it should be.
    """
    for name in {*seen, *wanted}:
        has, share = seen.get(name, 0.0), wanted.get(name, 0.0)
        if (has <= NOTHING) != (share <= NOTHING):
            return False
        if abs(has - share) > min(MOST_STEP, max(LEAST_STEP, share / 2)):
            return False
    return True
