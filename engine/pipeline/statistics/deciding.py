"""Whether a gate is passed, from the evidence of a comparison, and why, in a sentence. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from engine.errors import UsageError
from engine.pipeline.statistics.bootstrap import proportion_interval
from engine.pipeline.statistics.evidence import Comparison, Weighed
from engine.pipeline.statistics.gates import Improvement, Latency, Memory, NonInferiority, Segments
from engine.pipeline.statistics.paired_tests import holm
from engine.pipeline.statistics.resources import Measured, least_for, quantile_bound, ratio_bound

if TYPE_CHECKING:
    import numpy as np

POWER_Z = 0.8416  # of a chance of 80 % to pass

Status = Literal["passed", "failed", "not shown"]


@dataclass(frozen=True)
class GateResult:
    """`failed`: the contrary is shown. `not shown`: there is too little evidence either way, which does not
    pass either. `p` is of the gate's own question, None where it has none; `says` is why, in a sentence."""

    name: str
    kind: str
    status: Status
    says: str
    p: float | None = None

    @property
    def passed(self) -> bool:
        return self.status == "passed"


def of_whole(gate: Improvement | NonInferiority, of: Weighed, alpha: float) -> GateResult:
    """One metric on all rows, at the one-sided level `alpha`."""
    on = of.shown
    wanted = f"more than {gate.threshold:+.4g} wanted"
    if on.gain is None or on.why:
        return GateResult(gate.name, gate.kind, "not shown", f"{_named(on)}: {on.why}; {wanted}.", 1.0)
    p = of.evidence.p_at_most(gate.threshold)
    begin = f"{_values(on)} on {on.rows:,} rows: {_gain(on, alpha)}; {wanted}"
    if p <= alpha:
        return GateResult(gate.name, gate.kind, "passed", f"{begin}, and shown.", p)
    if of.evidence.p_at_least(gate.threshold) <= alpha:
        return GateResult(gate.name, gate.kind, "failed", f"{begin}, and the contrary is shown.", p)
    why = f": {_few(on, gate.threshold, alpha)}" if on.remark else _needed(of, gate.threshold, alpha)
    return GateResult(gate.name, gate.kind, "not shown", f"{begin}, which these rows do not show{why}.", p)


def of_segments(gate: Segments, of: Sequence[Weighed], alpha: float) -> GateResult:
    """One metric on every segment. Raises UsageError when there is none."""
    if not of:
        raise UsageError("a gate asks for every segment, and no segment is named",
                         hint="name the segments in the project's file")
    return _shown(gate, of, alpha) if gate.require == "shown" else _no_harm(gate, of, alpha)


def _no_harm(gate: Segments, of: Sequence[Weighed], alpha: float) -> GateResult:
    on = [one.shown for one in of]
    ps = holm([one.evidence.p_at_least(-gate.margin) for one in of])
    harmed = [(one, p) for one, p in zip(on, ps, strict=True) if p <= alpha]
    among = f"among {_count(len(on), 'segment')} (Holm, {alpha:.1%} over all)"
    if harmed:
        told = "; ".join(f"{one.segment}: {_gain(one, alpha)}, p {p:.2g}" for one, p in harmed)
        return GateResult(gate.name, gate.kind, "failed",
                          f"Worse by more than {gate.margin:g}, {among}: {told}.", min(ps))
    silent = [one for one in on if one.why]
    unsaid = ""
    if silent:
        unsaid = f"Nothing can be said of {', '.join(str(one.segment) for one in silent)}: {silent[0].why}."
    if len(silent) == len(on):
        return GateResult(gate.name, gate.kind, "not shown", unsaid, min(ps))
    worst = min((one for one in on if one.gain is not None), key=lambda one: one.gain or 0, default=None)
    rest = f" The worst is {worst.segment}: {_gain(worst, alpha)}." if worst is not None else ""
    return GateResult(gate.name, gate.kind, "passed",
                      f"No segment is shown to be worse by more than {gate.margin:g}, {among}.{rest}"
                      f"{' ' if unsaid else ''}{unsaid}", min(ps))


def _shown(gate: Segments, of: Sequence[Weighed], alpha: float) -> GateResult:
    on = [one.shown for one in of]
    ps = [one.evidence.p_at_most(-gate.margin) for one in of]
    lacking = [one for one, p in zip(on, ps, strict=True) if p > alpha]
    wanted = f"More than {-gate.margin:+.4g} wanted in each of {_count(len(on), 'segment')}"
    if not lacking:
        worst = min(on, key=lambda one: one.low if one.low is not None else float("-inf"))
        return GateResult(gate.name, gate.kind, "passed",
                          f"{wanted}, and shown; closest is {worst.segment}: "
                          f"{_gain(worst, alpha)}.", max(ps))
    contrary = [one.shown for one in of if one.evidence.p_at_least(-gate.margin) <= alpha]
    told = "; ".join(f"{one.segment}: {one.why or _gain(one, alpha)}"
                     f"{f', {_few(one, -gate.margin, alpha)}' if one.remark else ''}"
                     for one in contrary or lacking)
    said = "and the contrary is shown" if contrary else "not shown"
    return GateResult(gate.name, gate.kind, "failed" if contrary else "not shown",
                      f"{wanted}, {said} for {told}.", max(ps))


def of_resources(gate: Latency | Memory, champion: Measured | None, challenger: Measured | None,
                 alpha: float, rng: np.random.Generator) -> GateResult:
    """Raises UsageError when what the gate limits was not measured."""
    if isinstance(gate, Memory):
        return _memory(gate, _mb(champion, gate.at_most_ratio is not None), _mb(challenger, True) or 0.0)
    own = None if challenger is None else challenger.latencies_ms
    other = None if champion is None else champion.latencies_ms
    if own is None or (other is None and gate.at_most_ratio is not None):
        raise UsageError(f"the gate {gate.name} wants latencies of the "
                         f"{'challenger' if own is None else 'champion'}, and there are none",
                         hint="measure both on the same machine, one after the other")
    import numpy as np

    found = float(np.quantile(own, gate.quantile))
    least = least_for(gate.quantile, alpha)
    begin = f"The challenger's p{100 * gate.quantile:g} is {found:.3g} ms over {len(own):,} requests"
    if min(len(own), len(own) if other is None else len(other)) < least:
        return GateResult(gate.name, gate.kind, "not shown", f"{begin}; a bound needs {least:,}.")
    said, holds, broken = [], True, False
    if gate.at_most_ms is not None:
        bound = quantile_bound(own, gate.quantile, alpha)
        within = bound is not None and bound <= gate.at_most_ms
        holds, broken = within, not within and found > gate.at_most_ms
        said.append(f"at most {bound:.3g} ms by its bound, and {gate.at_most_ms:g} ms are allowed")
    if gate.at_most_ratio is not None and other is not None:
        bound = ratio_bound(other, own, gate.quantile, alpha, rng)
        now = found / max(float(np.quantile(other, gate.quantile)), 1e-300)
        holds, broken = holds and bound <= gate.at_most_ratio, broken or now > gate.at_most_ratio
        said.append(f"{now:.2f} times the champion's, at most {bound:.2f} by its bound, and "
                    f"{gate.at_most_ratio:g} are allowed")
    status: Status = "passed" if holds else "failed" if broken else "not shown"
    return GateResult(gate.name, gate.kind, status, f"{begin}; {'; '.join(said)}.")


def _mb(of: Measured | None, needed: bool) -> float | None:
    found = None if of is None else of.memory_mb
    if found is None and needed:
        raise UsageError("a gate limits the memory, which was not measured of both models")
    return found


def _memory(gate: Memory, champion: float | None, challenger: float) -> GateResult:
    said, holds = [], True
    if gate.at_most_mb is not None:
        holds = challenger <= gate.at_most_mb
        said.append(f"{gate.at_most_mb:g} MB are allowed")
    if gate.at_most_ratio is not None and champion is not None:
        holds = holds and challenger <= gate.at_most_ratio * champion
        said.append(f"the champion takes {champion:.4g} MB and {gate.at_most_ratio:g} times that is allowed")
    return GateResult(gate.name, gate.kind, "passed" if holds else "failed",
                      f"The challenger takes {challenger:.4g} MB at its peak; {'; '.join(said)}.")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _named(on: Comparison) -> str:
    return on.metric if on.segment is None else f"{on.metric} of {on.segment}"


def _values(on: Comparison) -> str:
    return f"{_named(on)} {on.challenger:.4g}, the champion's {on.champion:.4g}"


def _gain(on: Comparison, alpha: float) -> str:
    gain = on.gain or 0.0
    way = "the same" if gain == 0 else f"{'better' if gain > 0 else 'worse'} by {abs(gain):.4g}"
    if on.low is None or on.high is None:
        return way
    return f"{way} ({1 - 2 * alpha:.0%} interval of the gain {on.low:+.4g} to {on.high:+.4g})"


def _few(on: Comparison, threshold: float, alpha: float) -> str:
    """What so few differing units leave open; of all units, as many as `evidence.Few` has it."""
    if threshold >= 0:
        return f"{on.remark}, too few to show which model is better"
    share = proportion_interval(on.differing or 0, on.units, 1 - 2 * alpha)[1]
    return f"{on.remark}, but of all others up to {share:.2%} may"


def _needed(of: Weighed, threshold: float, alpha: float) -> str:
    """About how many rows would show it with a chance of 80 %, if the gain stays what it is."""
    from scipy import special

    beyond = (of.shown.gain or 0.0) - threshold
    if not beyond > 0 or not of.evidence.error > 0:
        return ""
    rows = of.shown.rows * ((float(special.ndtri(1 - alpha)) + POWER_Z) * of.evidence.error / beyond) ** 2
    return f"; about {rows:,.0f} rows would, if the gain is real" if of.shown.rows < rows < 1e9 else ""
