"""A challenger against the champion on the same rows: what differs, how sure that is, and whether it may
replace it. Pure.

Everything is paired: a resample takes the same rows of both models, so that what makes a row hard for both
cancels. A gain is positive when the challenger is better. Its interval is a BCa interval of the paired
bootstrap (`bootstrap`), and of accuracy on independent rows Tango's score interval. A gate looks at one end
of the two-sided interval: at 95 % a challenger that is exactly at the threshold passes with a chance of
2.5 %. Gates are all required, so more of them never make a wrong pass more likely.

McNemar's, DeLong's, Student's and Wilcoxon's tests of "no difference" stand beside the interval for whoever
knows them, and a note says where one disagrees; they decide nothing, since none of them knows a margin.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.errors import UsageError
from engine.pipeline.statistics import metrics as metrics_
from engine.pipeline.statistics.deciding import GateResult, of_resources, of_segments, of_whole
from engine.pipeline.statistics.evaluation import masked
from engine.pipeline.statistics.evidence import Comparison, Pair, Weighed, compared
from engine.pipeline.statistics.gates import Improvement, Latency, Memory, NonInferiority, Segments
from engine.pipeline.statistics.resources import Measured

if TYPE_CHECKING:
    import numpy as np

    from engine.pipeline.statistics.labelled import Bools

AnyGate = Improvement | NonInferiority | Segments | Latency | Memory
BEYOND = 5  # resamples beyond a bound, at the least level that Holm asks for


@dataclass(frozen=True)
class Verdict:
    """`passed` when every gate is. `says` is one sentence of what was compared and what came of it; each gate
    says its own why. `comparisons`: each metric on all rows, then on each segment."""

    passed: bool
    says: str
    gates: tuple[GateResult, ...]
    comparisons: tuple[Comparison, ...]
    rows: int
    units: int
    confidence: float
    resamples: int
    notes: tuple[str, ...]


def compare(pair: Pair, gates: Sequence[AnyGate], *, rng: np.random.Generator,
            segments: Mapping[str, Bools] | None = None, metrics: Sequence[str] = (),
            champion: Measured | None = None, challenger: Measured | None = None,
            confidence: float = 0.95, resamples: int = 2000, one_model: bool = False) -> Verdict:
    """Decide every gate. `metrics` are compared too where no gate names them. `champion` and `challenger`
    hold what latency and memory gates look at. `one_model`: both are the same one, by the digest of what they
    are made of, so that scores alike are no coincidence of these rows. Raises UsageError without a gate, for
    an unknown metric, an empty segment, or a gate on what was not measured."""
    if not gates:
        raise UsageError("no gate is given, so that anything would pass", hint="name at least one gate")
    if not 0.5 <= confidence < 1 or resamples < 100:
        raise UsageError(f"a confidence of {confidence:g} with {resamples} resamples cannot be used",
                         hint="take 0.95 and 2000")
    alpha = (1 - confidence) / 2
    task = pair.champion.task
    named = dict.fromkeys([*(g.metric for g in gates if not isinstance(g, Latency | Memory)), *metrics])
    chosen = [metrics_.find(name, task) for name in named]
    masks = {name: masked(name, mask, pair.champion) for name, mask in (segments or {}).items()}
    least = math.ceil(BEYOND * max(len(masks), 1) / alpha)  # so that Holm's smallest level can be reached
    resamples = max(resamples, least if any(isinstance(g, Segments) for g in gates) else 0)
    found: list[Weighed] = []
    for name, part in [(None, pair), *((name, pair.only(mask)) for name, mask in masks.items())]:
        found += compared(part, chosen, name, rng, resamples, confidence, one_model=one_model)
    results = tuple(_decided(gate, found, champion, challenger, alpha, rng) for gate in gates)
    passed = all(result.passed for result in results)
    shown = tuple(one.shown for one in found)
    return Verdict(passed, _sentence(pair, results), results, shown, len(pair.champion), pair.champion.units,
                   confidence, resamples, tuple(_notes(pair, gates, shown, alpha)))


def _decided(gate: AnyGate, found: Sequence[Weighed], champion: Measured | None,
             challenger: Measured | None, alpha: float, rng: np.random.Generator) -> GateResult:
    if isinstance(gate, Latency | Memory):
        return of_resources(gate, champion, challenger, alpha, rng)
    own = [one for one in found if one.shown.metric == gate.metric]
    if isinstance(gate, Segments):
        return of_segments(gate, [one for one in own if one.shown.segment is not None], alpha)
    return of_whole(gate, own[0], alpha)


def _sentence(pair: Pair, results: Sequence[GateResult]) -> str:
    on = f"on the same {len(pair.champion):,} rows"
    stopped = [result for result in results if not result.passed]
    if not stopped:
        count = "its gate" if len(results) == 1 else f"all {len(results)} gates"
        return f"The challenger passes {count} against the champion {on}."
    rest = f" (and {len(stopped) - 1} more)" if len(stopped) > 1 else ""
    return f"The challenger does not pass {on}: {stopped[0].name}{rest}. {stopped[0].says}"


def _notes(pair: Pair, gates: Sequence[AnyGate], found: Sequence[Comparison],
           alpha: float) -> Iterator[str]:
    if pair.same:
        yield "Both models score every row alike: is it the same model twice?"
    if pair.champion.groups is None:
        yield "Rows are taken as independent; name the column of a customer or day if they are not."
    if any(isinstance(gate, Latency) for gate in gates):
        yield "Requests are taken as independent; a machine busy for a while makes bounds too narrow."
    for one in found:
        if one.segment is not None or one.low is None or one.high is None:
            continue
        differs = one.low > 0 or one.high < 0
        for test in one.tests:
            if differs != (test.p <= 2 * alpha):
                yield (f"{one.metric}: the interval {'excludes' if differs else 'includes'} no difference, "
                       f"and the test {test.name} has p {test.p:.2g}; the interval decides.")
