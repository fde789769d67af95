"""The ordinary steps that the short form of a rollout stands for. Pure."""

from __future__ import annotations

from typing import Any

from engine.fields import Approvals
from engine.procedures.rollouts import BlueGreen, Mirror, PlanStep, Rollout

BEGIN = "begin"
RETRY = {"times": 3, "backoff": 1}
WARM_TIMEOUT_S = 300.0
SHIFT_TIMEOUT_S = 120.0


def expanded(plan: Rollout) -> list[dict[str, Any]]:
    """The steps as they would be written out."""
    return _Writer(plan).steps()


class _Writer:
    def __init__(self, plan: Rollout) -> None:
        self._plan = plan

    def steps(self) -> list[dict[str, Any]]:
        if self._plan.canary is not None:
            return self._canary()
        if self._plan.blue_green is not None:
            return self._blue_green(self._plan.blue_green)
        return self._explicit(self._plan.steps or [])

    def _canary(self) -> list[dict[str, Any]]:
        steps = [self._begin(), self._warm_up()]
        weights = self._plan.canary_steps()
        for at, one in enumerate(weights, start=2):
            steps.append(self._weight(one.weight, one.approvals))
            if one.weight < 100:
                # beside nearly all traffic the old version has too little to compare with: be shown before
                last = at == len(weights)
                steps.append(self._watch(
                    f"watch-{one.weight:g}", f"Watch it at {one.weight:g} %",
                    requests=self._plan.requests if one.requests is None else one.requests,
                    hold=self._plan.hold if one.hold is None else one.hold,
                    good=last and self._plan.judge.good))
        return [*steps, self._bake(self._plan.bake), self._promote()]

    def _blue_green(self, plan: BlueGreen) -> list[dict[str, Any]]:
        steps = [self._begin(), self._warm_up()]
        if plan.mirror is not None:
            steps.append(self._mirror("mirror", plan.mirror))
        return [*steps, self._weight(100.0, plan.approvals), self._bake(plan.bake), self._promote()]

    def _explicit(self, plan: list[PlanStep]) -> list[dict[str, Any]]:
        steps = [self._begin()]
        for number, one in enumerate(plan, start=1):
            if one.warm_up:
                step = self._warm_up()
            elif one.mirror is not None:
                step = self._mirror("mirror", one.mirror)
            elif one.weight is not None:
                step = self._weight(one.weight)
            elif one.wait is not None:
                step = self._watch("wait", f"Watch it for {one.wait:g} s", hold=one.wait)
            elif one.evidence is not None:
                step = self._watch("evidence", f"Watch {one.evidence} requests", requests=one.evidence)
            elif one.analysis is not None:
                title = ("Wait for evidence that it is not worse" if one.analysis == "good"
                         else "See that nothing speaks against it")
                step = self._watch("analysis", title, good=one.analysis == "good")
            elif one.approval is not None:
                step = self._step("approval", "Let somebody decide", "rollout.look",
                                  approvals=one.approval.model_dump())
            else:
                step = self._promote()
            if one.within is not None:
                step["timeout"] = one.within
            if any(other["id"] == step["id"] for other in steps):
                step["id"] = f"{step['id']}-{number}"
            steps.append(step)
        return steps

    def _step(self, id: str, title: str, use: str, given: dict[str, Any] | None = None,
              **more: Any) -> dict[str, Any]:
        return {"id": id, "title": title, "use": use,
                "with": {"service": self._plan.service, "to": self._plan.to, **(given or {})},
                "on_failure": "rollback", **more}

    def _begin(self) -> dict[str, Any]:
        return self._step(
            BEGIN, "Take note of the weights from before", "rollout.begin", timeout=SHIFT_TIMEOUT_S,
            undo={"use": "rollout.restore", "timeout": WARM_TIMEOUT_S, "with": {
                "service": self._plan.service, "to": self._plan.to,
                "weights": "${{ steps.begin.result.safe }}",
                "champion": "${{ steps.begin.result.champion }}"}},
            undo_on=["done"])

    def _warm_up(self) -> dict[str, Any]:
        return self._step("warm-up", "Have the new version's server run and answer", "rollout.warm-up",
                          timeout=WARM_TIMEOUT_S)

    def _mirror(self, id: str, plan: Mirror) -> dict[str, Any]:
        return self._step(id, f"Mirror {plan.percent:g} % of the requests to it", "rollout.mirror",
                          {"percent": plan.percent, "hold": plan.hold}, timeout=self._plan.patience)

    def _weight(self, weight: float, approvals: Approvals | None = None) -> dict[str, Any]:
        kept = weight - self._plan.holdback if weight == 100 else weight
        title = f"Give it {kept:g} % of the traffic"
        step = self._step(f"weight-{weight:g}".replace(".", "-"), title, "rollout.weight",
                          {"weight": kept, "lease_s": self._plan.lease},
                          timeout=self._plan.patience + SHIFT_TIMEOUT_S, retry=RETRY)
        if approvals is not None:
            step["approvals"] = approvals.model_dump()
        return step

    def _watch(self, id: str, title: str, *, requests: int = 0, hold: float = 0.0,
               good: bool = False) -> dict[str, Any]:
        return self._step(id.replace(".", "-"), title, "rollout.watch",
                          {"requests": requests, "hold": hold, "good": good}, timeout=self._plan.patience)

    def _bake(self, hold: float) -> dict[str, Any]:
        return self._watch("bake", "Watch it with nearly all traffic", requests=self._plan.requests,
                           hold=hold, good=self._plan.judge.good)

    def _promote(self) -> dict[str, Any]:
        return self._step("promote", "Make it the champion: all traffic, without a lease",
                          "rollout.promote", timeout=self._plan.patience + SHIFT_TIMEOUT_S, retry=RETRY)
