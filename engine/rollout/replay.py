"""Recomputing what a rollout decided from the events of its run, years later. Pure.

Under the platform and the versions that `rollout.began` records the numbers come out equal to the bit:
they are sums and logarithms in the order of the ticks. Elsewhere the logarithm of another C library may
differ in the last place, so that they agree within 1e-12, and the verdict is the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from engine.rollout import danger
from engine.rollout.analysis import Analysis, Happened

CLOSE = 1e-12


class Recorded(Happened, Protocol):
    """An event of the journal, as `engine.journal.events.Event` and `engine.api.wire.Event` are."""

    @property
    def at(self) -> float: ...


Cause = Literal["judge", "catastrophe", "budget", "limits", "router"]
"""What ended or judged a rollout. Limits and router are what was measured outside the ticks: they are on
record, and cannot be recomputed from them."""


@dataclass(frozen=True)
class Decision:
    """One recorded verdict beside the recomputed one. `decided` and `recomputed`: the verdict's name and ln E
    by metric, with that of all together under "all"; `text` is the recorded reason, and `cause_holds` whether
    the ticks bring that cause about too, None for one that does not come from them."""

    at: float
    ticks: int
    text: str
    decided: tuple[str, dict[str, float]]
    recomputed: tuple[str, dict[str, float]]
    cause: Cause = "judge"
    cause_holds: bool | None = None

    @property
    def bit_equal(self) -> bool:
        return self.decided == self.recomputed and self.cause_holds is not False

    @property
    def agrees(self) -> bool:
        """Whether it is the same verdict with the same numbers, to 1e-12 relative."""
        if self.cause_holds is False:
            return False
        name, values = self.decided
        other, found = self.recomputed
        return name == other and values.keys() == found.keys() and all(
            math.isclose(value, found[key], rel_tol=CLOSE, abs_tol=CLOSE) for key, value in values.items())


@dataclass(frozen=True)
class Replayed:
    """`made_by`: what made the record (opsdeck, python, machine, system); `analysis` where it ended."""

    made_by: dict[str, str]
    analysis: Analysis
    decisions: list[Decision]

    @property
    def bit_equal(self) -> bool:
        return all(decision.bit_equal for decision in self.decisions)

    @property
    def agrees(self) -> bool:
        return all(decision.agrees for decision in self.decisions)


def replay(events: Iterable[Recorded]) -> Replayed:
    """Fold a rollout's events again. Raises ValueError where they are not those of a rollout."""
    analysis = Analysis()
    decisions: list[Decision] = []
    for event in events:
        if event.kind == "rollout.verdict" and "ln_e" in event.data:
            decisions.append(_decision(event, analysis))
        analysis.fold(event.kind, event.data)
    if not analysis.began:
        raise ValueError("these are not the events of a rollout that was watched")
    return Replayed(dict(analysis.began["made_by"]), analysis, decisions)


def numbers(analysis: Analysis) -> dict[str, Any]:
    """What a verdict is recorded with: ln E by metric, of all together, and of being no worse."""
    verdict = analysis.verdict
    if verdict is None:
        return {}
    return {"ln_e": dict(verdict.ln_e), "ln_e_all": verdict.ln_e_all, "ln_good": dict(verdict.ln_good),
            "judged": verdict.verdict, "ticks": analysis.ticks}


def _decision(event: Recorded, analysis: Analysis) -> Decision:
    data = event.data
    recomputed = analysis.verdict.verdict if analysis.verdict else "undecided"
    cause: Cause = data.get("cause", "judge")
    return Decision(event.at, int(data["ticks"]), str(data.get("text", "")), (data["judged"], _flat(data)),
                    (recomputed, _flat(numbers(analysis))), cause, _holds(cause, analysis, data))


def _holds(cause: Cause, analysis: Analysis, data: Mapping[str, Any]) -> bool | None:
    if cause == "catastrophe":
        return danger.catastrophe(analysis.recent) is not None
    if cause == "budget":
        return danger.overspent(analysis) is not None
    if cause == "judge" and data.get("verdict") == "bad":
        return analysis.verdict is not None and analysis.verdict.verdict == "bad"
    return None


def _flat(data: Mapping[str, Any]) -> dict[str, float]:
    good = {f"good: {name}": value for name, value in data.get("ln_good", {}).items()}
    return {**data.get("ln_e", {}), **good, "all": data.get("ln_e_all", 0.0)}
