"""How a rollout is written, and the ordinary steps that its short form stands for. Pure.

    rollout:
      service: "${{ params.service }}"
      to: "${{ params.to }}"                # the variant that takes the traffic over
      canary: [1, 5, {weight: 25, approvals: {min: 1}}, 50, 100]
      requests: 200                         # least evidence at each weight

or `blue-green: {bake: 15m}`, or `steps:` one by one. `service` and `to` may be templates over the
parameters; everything else is literal, so that a plan can be read and reviewed as it will run.
"""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from engine.fields import Approvals, Duration, Model, Positive, Text
from engine.located import Misplaced

Percent = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
Ratio = Annotated[float, Field(ge=1, le=100, allow_inf_nan=False)]
FORMS = ("canary", "blue-green", "steps")


class Weight(Model):
    """One weight of a canary: `requests` and `hold` are the least evidence there, before the next one;
    `approvals` are wanted before the weight is set."""

    weight: Percent
    requests: int | None = Field(default=None, ge=0)
    hold: Duration | None = None
    approvals: Approvals | None = None


def _bare(value: Any) -> Any:
    """A bare number as the weight that it stands for, so that what is wrong with it is told as such."""
    if isinstance(value, bool | str):
        raise ValueError("a weight is a percentage such as 25, or a map with `weight` in it")
    return {"weight": value} if isinstance(value, int | float) else value


class _OrNumber:
    """For the schema: it may be written as a number too."""

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        return {"anyOf": [{"type": "number", "exclusiveMinimum": 0, "maximum": 100}, handler(core)]}


class Mirror(Model):
    """Shadow traffic: `percent` of the requests are sent to the new version too, its answers unused."""

    percent: Percent = 100.0
    hold: Positive = Field(default=60.0, alias="for")


class BlueGreen(Model):
    """All at once: warm up, mirror (unless null), switch, hold `holdback` back until `bake` is over."""

    bake: Duration = 900.0
    mirror: Mirror | None = Mirror()
    approvals: Approvals | None = None


class PlanStep(Model):
    """One explicit step: exactly one of these. `evidence` waits for so many requests of the new
    version, `analysis` until the judge has evidence that it is not worse (or, `undecided`, looks once),
    each no longer than `within`."""

    warm_up: Literal[True] | None = Field(default=None, alias="warm-up")
    mirror: Mirror | None = None
    weight: Percent | None = None
    wait: Positive | None = None
    evidence: int | None = Field(default=None, ge=1)
    analysis: Literal["good", "undecided"] | None = None
    approval: Approvals | None = None
    promote: Literal[True] | None = None
    within: Positive | None = None

    @model_validator(mode="after")
    def _one(self) -> PlanStep:
        said = [name.replace("_", "-") for name, value in self if value is not None and name != "within"]
        if len(said) != 1:
            raise Misplaced(tuple(said[1:2]), "a step says exactly one of warm-up, mirror, weight, wait, "
                            "evidence, analysis, approval, promote; this one says "
                            f"{' and '.join(said) or 'none'}")
        return self


class Errors(Model):
    """`tolerated`: how many times the baseline's risk is borne; `limit`: the ratio that must be ruled out
    before it is called good, measured against at least `floor` (a version without any error cannot be
    compared by ratio alone)."""

    tolerated: Ratio = 1.0
    limit: Annotated[float, Field(gt=1, le=100)] | None = 2.0
    floor: float = Field(default=0.005, ge=0, lt=0.5)
    critical: bool = True


class Latency(Errors):
    """Requests slower than an edge frozen before: `slack` times the baseline's p95 and p99, and `least` at
    least, since nobody feels a millisecond."""

    tolerated: Ratio = 1.5
    limit: Annotated[float, Field(gt=1, le=100)] | None = 2.0
    floor: float = Field(default=0.05, ge=0, lt=0.5)
    slack: Ratio = 1.25
    least: Duration = 0.01


class Predictions(Model):
    """The distribution over fixed bins. A better model may well predict otherwise, so it is only shown
    unless `critical`."""

    tolerated: Ratio = 1.25
    critical: bool = False


class Quality(Errors):
    """Wrong predictions, by labels that come late."""

    tolerated: Ratio = 1.1
    limit: Annotated[float, Field(gt=1, le=100)] | None = None
    floor: float = Field(default=0.0, ge=0, lt=0.5)


class Judging(Model):
    """`alpha`: the share of identical versions that may be rolled back. `good` False: promotion asks only
    for the least evidence and no alarm, as the plan's author has decided."""

    alpha: float = Field(default=0.01, gt=0, le=0.2)
    errors: Errors = Errors()
    types: bool = True
    latency: Latency = Latency()
    predictions: Predictions = Predictions()
    quality: Quality = Quality()
    good: bool = True

    @model_validator(mode="after")
    def _judges(self) -> Judging:
        if not (self.errors.critical or self.latency.critical):
            raise ValueError("nothing would be judged: errors or latency must be critical")
        if self.good and not self.can_be_good:
            raise ValueError("it could never be shown to be good: errors or latency must be critical and "
                             "have a `limit`, or say `good: false`")
        return self

    @property
    def can_be_good(self) -> bool:
        """Whether anything has a limit that evidence could be brought for."""
        return any(rule.critical and rule.limit is not None for rule in (self.errors, self.latency))


class Budget(Model):
    """Hard limits on what the new version may cost: requests that failed at it beyond one and a half times
    the old version's share, and requests that it got before it was shown to be no worse."""

    bad: int | None = Field(default=200, ge=1)
    exposed: int | None = Field(default=20_000, ge=1)


class Rollout(Model):
    """The plan. `hold` and `requests` are the least evidence at each weight, `bake` how long 100 % is
    watched with `holdback` percent at the old version as baseline; `lease`: without an engine the router
    goes back by itself after so long; `patience`: how long to wait for evidence at one step;
    `window`: a variant that had all traffic so recently is gone back to without analysis."""

    service: Text
    to: Text
    canary: list[Annotated[Weight, BeforeValidator(_bare), _OrNumber()]] | None = Field(
        default=None, min_length=1, max_length=50)
    blue_green: BlueGreen | None = Field(default=None, alias="blue-green")
    steps: list[PlanStep] | None = Field(default=None, min_length=1, max_length=100)
    requests: int = Field(default=200, ge=0)
    hold: Duration = 0.0
    bake: Duration = 900.0
    holdback: float = Field(default=1.0, ge=0, lt=50)
    lease: Positive = 30.0
    patience: Positive = 6 * 3600.0
    window: Duration = 0.0
    judge: Judging = Judging()
    budget: Budget = Budget()

    @model_validator(mode="after")
    def _one_form(self) -> Rollout:
        said = [form for form in FORMS if getattr(self, form.replace("-", "_")) is not None]
        if len(said) != 1:
            raise Misplaced(tuple(said[1:2]), "a rollout says exactly one of canary, blue-green, steps; this "
                            f"one says {' and '.join(said) or 'none'}")
        if not 2 <= self.lease <= 3600:
            raise Misplaced(("lease",), "the lease lies between 2 seconds and an hour")
        self._check_weights([step.weight for step in self.canary_steps()])
        self._check_steps(self.steps or [])
        return self

    def _check_weights(self, weights: list[float]) -> None:
        for at, (one, after) in enumerate(itertools.pairwise(weights), start=1):
            if one >= after:
                raise Misplaced(("canary", at), "the weights of a canary grow from step to step, and "
                                f"{after:g} comes after {one:g}")
        last = len(weights) - 1
        if weights and weights[last] != 100:
            raise Misplaced(("canary", last), f"the last weight of a canary is 100, not {weights[last]:g}")
        if last > 0 and weights[last - 1] > 100 - self.holdback:
            raise Misplaced(("canary", last - 1), f"the last weight keeps the holdback of {self.holdback:g} "
                            f"% at the old version, so the one before it is at most {100 - self.holdback:g}")

    def _check_steps(self, steps: list[PlanStep]) -> None:
        if not steps:
            return
        wrong = next((at for at, step in enumerate(steps[:-1]) if step.promote), len(steps) - 1)
        if not steps[-1].promote or wrong < len(steps) - 1:
            raise Misplaced(("steps", wrong), "the last step of a rollout, and no other, is `promote: true`: "
                            "a weight alone goes back when nobody renews its lease any more")
        first = next((at for at, step in enumerate(steps) if step.weight is not None), len(steps))
        for at, step in enumerate(steps):
            if step.mirror is not None and at > first:
                raise Misplaced(("steps", at, "mirror"), "a mirror comes before the first weight: once a "
                                "version has traffic of its own, that is what is watched")
            if step.analysis == "good" and not self.judge.can_be_good:
                raise Misplaced(("steps", at, "analysis"), "it could never be shown to be good: errors or "
                                "latency must be critical and have a `limit`")

    def canary_steps(self) -> list[Weight]:
        return list(self.canary or ())
