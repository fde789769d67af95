"""Evidence that stays valid however often one looks at it: e-processes for two streams of counts.

Each tick brings, for canary and concurrent baseline, `n` requests of which `y` are of the kind that is
counted (errors, requests over a latency, predictions in a bin). Where the canary's risk p_c is exactly
ρ times the baseline's p_b, and failures are rare, a failure is the canary's with probability
θ(ρ) = n_c ρ / (n_c ρ + n_b). The process multiplies up likelihood ratios of that split, for several
alternatives r times the tolerated ratio m, each with the same weight at the start:

    E = Σ_j w_j Π_t (θ(r_j m) / θ(m))^y_c ((1 - θ(r_j m)) / (1 - θ(m)))^y_b

E starts at 1 and, as long as the null hypothesis holds, its expectation never rises, so that
P(E ever reaches 1/α) ≤ α at any number of looks (Ville's inequality; Ramdas et al., "Game-theoretic
statistics and safe anytime-valid inference", 2023). It needs no rarity: with d = n_c m + n_b and
c = d / (n_c m r + n_b), one tick's factor (r c)^y_c c^y_b has, for independent requests, the expectation
(1 + p_c (r c - 1))^n_c (1 + p_b (c - 1))^n_b ≤ exp(n_c p_c (r c - 1) + n_b p_b (c - 1)). At p_c = m p_b
the exponent is p_b (c (n_c m r + n_b) - d) = 0. For r > 1 it falls with a smaller p_c (the null is
p_c ≤ m p_b), for r < 1 with a larger one (p_c ≥ m p_b). A tick's n may depend on all that was before.

What breaks the guarantee is failures that come in bursts: count those of one retry chain or session once.
Pure: numbers in, numbers out; sums are taken in the order of the ticks, so that they repeat to the bit.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

WORSE = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0)  # how many times the tolerated risk it may really be
AS_GOOD = (1.0, 0.9, 0.75, 0.5)  # how many times the baseline's risk it may really be
USUAL = 0.05  # the share of a baseline's requests that fails where nobody knows
SURGE = 2.0  # how many times its usual share it may fail and still be a measure
RECENT = 10  # ticks
BELOW = (0.9, 0.75, 0.5, 0.25, 0.05)  # the same of a fixed rate


@dataclass(frozen=True, slots=True)
class Counts:
    """One side of one tick: `y` of `n` requests. Raises ValueError unless 0 ≤ y ≤ n."""

    n: int
    y: int

    def __post_init__(self) -> None:
        if not 0 <= self.y <= self.n:
            raise ValueError(f"{self.y} of {self.n} cannot be: y lies between 0 and n")


class Tick(NamedTuple):
    """Both sides over the same stretch of time."""

    canary: Counts
    baseline: Counts


class BinTick(NamedTuple):
    """Both sides over the same stretch of time: counts by bin."""

    canary: Mapping[str, int]
    baseline: Mapping[str, int]


class Evidence:
    """One e-process, as in the module's text. `ln_e` is 0 at the start.

    `alternatives` are the r_j: all above 1 (evidence that the canary is worse than tolerated) or all
    below 1 (evidence that it is not). Raises ValueError for a ratio that is not positive and finite.
    """

    __slots__ = ("_alternatives", "_logs", "_tolerated", "ln_e")

    def __init__(self, tolerated_ratio: float, alternatives: Sequence[float]) -> None:
        if not all(0 < ratio < math.inf for ratio in (tolerated_ratio, *alternatives)):
            raise ValueError("ratios are positive and finite")
        if not (all(r > 1 for r in alternatives) or all(r < 1 for r in alternatives)):
            raise ValueError("alternatives lie all above or all below the tolerated ratio")
        self._tolerated = tolerated_ratio
        self._alternatives = [(r, math.log(r)) for r in alternatives]
        self._logs = [0.0] * len(self._alternatives)
        self.ln_e = 0.0

    def add(self, canary: Counts, baseline: Counts) -> float:
        """One more tick; returns the new `ln_e`. A tick with only one side says nothing."""
        failures = canary.y + baseline.y
        if failures and canary.n and baseline.n:
            expected = canary.n * self._tolerated
            for j, (r, ln_r) in enumerate(self._alternatives):
                scale = math.log((expected * r + baseline.n) / (expected + baseline.n))
                self._logs[j] += canary.y * ln_r - failures * scale
            self.ln_e = _ln_mean(self._logs)
        return self.ln_e


def worse(tolerated_ratio: float = 1.0) -> Evidence:
    """Evidence against "the canary's risk is at most `tolerated_ratio` times the baseline's"."""
    return Evidence(tolerated_ratio, WORSE)


class BelowRate:
    """An e-process against "a request of the canary fails with a probability of `rate` or more".

    The mixture over q in `BELOW` times `rate` of Π (q/rate)^y ((1-q)/(1-rate))^(n-y). The expectation of
    one request's factor is 1 at `rate` and falls as the true probability rises, since q is below `rate`.
    """

    __slots__ = ("_alternatives", "_logs", "ln_e")

    def __init__(self, rate: float) -> None:
        if not 0 < rate < 1:
            raise ValueError(f"a rate lies between 0 and 1, not at {rate:g}")
        self._alternatives = [(math.log(share), math.log1p(-share * rate) - math.log1p(-rate))
                              for share in BELOW]
        self._logs = [0.0] * len(BELOW)
        self.ln_e = 0.0

    def add(self, canary: Counts, baseline: Counts) -> float:
        """One more tick; returns the new `ln_e`. The baseline has no part in it."""
        for j, (failed, well) in enumerate(self._alternatives):
            self._logs[j] += canary.y * failed + (canary.n - canary.y) * well
        self.ln_e = _ln_mean(self._logs)
        return self.ln_e


class NotWorse:
    """Evidence against "the canary's risk is `limit` times that of the baseline, or of `floor`, whichever
    is more": the mean of one e-process against each, as either being ruled out rules out the whole.

    Two versions that never fail cannot be compared by a ratio; that both stay below a rate can be shown.

    Beside a baseline that breaks down any version looks good, so no more of its failures count than
    `SURGE` times its `usual` share of its requests in the last `RECENT` ticks, and one. Each of them
    raises E, so that to leave some out never raises its expectation.
    """

    __slots__ = ("_most", "_rate", "_ratio", "_recent", "ln_e")

    def __init__(self, limit: float, floor: float, usual: float = USUAL) -> None:
        self._most = SURGE * max(usual, floor / SURGE)
        self._ratio, self._rate = _ratio_below(limit), BelowRate(limit * floor)
        self._recent: deque[Counts] = deque(maxlen=RECENT)
        self.ln_e = 0.0

    def add(self, canary: Counts, baseline: Counts) -> float:
        """One more tick; returns the new `ln_e`. A tick without a baseline says nothing."""
        if baseline.n:
            ratio = self._ratio.add(canary, self._usual(baseline))
            self.ln_e = _ln_mean([ratio, self._rate.add(canary, baseline)])
        return self.ln_e

    def _usual(self, baseline: Counts) -> Counts:
        requests = baseline.n + sum(one.n for one in self._recent)
        left = math.floor(self._most * requests) + 1 - sum(one.y for one in self._recent)
        counted = Counts(baseline.n, max(0, min(baseline.y, left)))
        self._recent.append(counted)
        return counted


def not_worse(limit: float, floor: float = 0.0, usual: float | None = None) -> Evidence | NotWorse:
    """Evidence against "the canary's risk is `limit` times the baseline's or more" (non-inferiority), or
    with a `floor` (a share of requests) against more than `limit` times the higher of both. `usual`: the
    share of the baseline's requests that failed before it began, where that is known.

    Raises ValueError unless `limit` is above 1: no traffic can show that two equal versions differ.
    """
    return NotWorse(limit, floor, USUAL if usual is None else usual) if floor else _ratio_below(limit)


def _ratio_below(limit: float) -> Evidence:
    if not 1 < limit < math.inf:
        raise ValueError("the limit of non-inferiority is a finite ratio above 1")
    return Evidence(limit, [share / limit for share in AS_GOOD])


class Distribution:
    """Evidence that the canary's classes or scores fall into fixed `bins` otherwise than the baseline's.

    The mean of two processes a bin, one against "at most `tolerated_ratio` times as often" and one
    against "at least 1/`tolerated_ratio` times as often". A mean of e-processes is one itself.
    """

    __slots__ = ("_bins", "ln_e")

    def __init__(self, bins: Sequence[str], tolerated_ratio: float = 1.0) -> None:
        if len(bins) < 2 or len(set(bins)) != len(bins):
            raise ValueError("a distribution has two or more different bins")
        rarer = [1 / r for r in WORSE]
        self._bins = {name: (Evidence(tolerated_ratio, WORSE), Evidence(1 / tolerated_ratio, rarer))
                      for name in bins}
        self.ln_e = 0.0

    def add(self, canary: Mapping[str, int], baseline: Mapping[str, int]) -> float:
        """One more tick of counts by bin (those left out are 0); returns the new `ln_e`.

        Raises ValueError for an unknown bin: bins that move with the data would void the guarantee.
        """
        if unknown := (canary.keys() | baseline.keys()) - self._bins.keys():
            raise ValueError(f"there is no bin {min(unknown)}")
        n_c, n_b = sum(canary.values()), sum(baseline.values())
        for name, sides in self._bins.items():
            here, there = Counts(n_c, canary.get(name, 0)), Counts(n_b, baseline.get(name, 0))
            for side in sides:
                side.add(here, there)
        self.ln_e = _ln_mean([side.ln_e for sides in self._bins.values() for side in sides])
        return self.ln_e


def ln_weighted(ln_es: Sequence[float], weights: Sequence[float]) -> float:
    """ln Σ w e^x for weights that are not negative; -inf when all are 0."""
    most = max((x for x, w in zip(ln_es, weights, strict=True) if w > 0), default=-math.inf)
    if most == -math.inf:
        return most
    return most + math.log(sum(w * math.exp(x - most) for x, w in zip(ln_es, weights, strict=True)
                               if w > 0))


def _ln_mean(ln_es: Sequence[float]) -> float:
    return ln_weighted(ln_es, [1.0] * len(ln_es)) - math.log(len(ln_es))
