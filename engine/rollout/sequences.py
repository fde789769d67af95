"""Confidence sequences: intervals for a quantile or a rate that hold at every look together.

An interval at level α of the usual kind misses with probability α at *one* look; watched each second it
misses sooner or later. These miss, at any of all looks, with a probability of at most α. They are for
display: what decides is the judge's e-processes.

Both rest on the same test martingale. Of n draws that come true with probability p each, y did:

    M(n, y; p) = B(a + y, b + n - y) / (B(a, b) p^y (1 - p)^(n-y))

the likelihood of a Beta(a, b) mixture over that of p. It starts at 1 and is a martingale under p, so that
P(M ever reaches 1/α) ≤ α (Ville; Robbins, "Statistical methods related to the law of the iterated
logarithm", 1970). The sequence is the set of all p with M < 1/α.

For a quantile, p = q is known and the place is sought (Howard & Ramdas, "Sequential estimation of quantiles
with applications to A/B testing and best-arm identification", Bernoulli 28(3), 2022, Theorem 1(b): the
two-sided beta-binomial mixture). The prior has mean q. Its weight comes from their ρ for a variance
v = n q (1 - q) at which the interval is to be tightest (`TIGHTEST_AT`).

The counts begin when the sequence begins: those of a sliding window have no such guarantee. Requests are
taken as independent, with a distribution that stays; where it drifts the interval is for no moment of it.
Pure.
"""

from __future__ import annotations

import math

from engine.monitoring.histograms import Histogram

TIGHTEST_AT = 25.0  # of n q (1 - q): 100 requests for the median, 526 for p95, 2,525 for p99
PRIOR = 0.5  # Beta(½, ½) for a rate: it loses least when the rate is near 0 or 1


def quantile_sequence(histogram: Histogram, q: float, alpha: float) -> tuple[float, float]:
    """Where the q-quantile is, in seconds: above the first number and at most the second.

    Both are bucket edges, so the interval is never narrower than the data allows: 0.0 and `inf` where
    nothing is known yet. Ties need no care: the quantile is the least x with F(x) ≥ q. Raises ValueError
    unless 0 < q < 1 and 0 < alpha < 1.
    """
    if not 0 < q < 1:
        raise ValueError(f"a quantile lies between 0 and 1, not at {q}")
    threshold = _threshold(alpha)
    weight = _weight(q, alpha)
    a, b = weight * q, weight * (1 - q)
    n = histogram.total
    low, high = 0.0, math.inf
    # M is convex in y and at most 1 at y = n q: a count that it rejects lies beyond one end of the rest.
    for edge, y in zip(histogram.bounds, histogram.counts, strict=False):
        if ln_martingale(n, y, q, a, b) < threshold:
            continue
        if y > n * q:
            high = edge
            break
        low = edge
    return low, high


def rate_sequence(n: float, y: float, alpha: float) -> tuple[float, float]:
    """Between which rates `y` of `n` lie: (0.0, 1.0) before the first.

    Raises ValueError unless 0 ≤ y ≤ n and 0 < alpha < 1.
    """
    threshold = _threshold(alpha)
    if not 0 <= y <= n or n == math.inf:
        raise ValueError(f"{y} of {n} is no rate")
    if n == 0:
        return 0.0, 1.0
    middle = y / n
    low = 0.0 if y == 0 else _edge(n, y, 0.0, middle, threshold)
    high = 1.0 if y == n else _edge(n, y, 1.0, middle, threshold)
    return low, high


def ln_martingale(n: float, y: float, p: float, a: float, b: float) -> float:
    """ln M(n, y; p) of the module's text, 0 for n = 0. `p` lies strictly between 0 and 1."""
    return (_ln_beta(a + y, b + n - y) - _ln_beta(a, b)
            - y * math.log(p) - (n - y) * math.log1p(-p))


def _edge(n: float, y: float, outside: float, inside: float, threshold: float) -> float:
    """The rate where M reaches the threshold, from outside: M falls from there to the middle."""
    while True:
        between = (outside + inside) / 2
        if between in (outside, inside):
            return outside
        if ln_martingale(n, y, between, PRIOR, PRIOR) < threshold:
            inside = between
        else:
            outside = between


def _weight(q: float, alpha: float) -> float:
    """a + b of the prior: r / (q (1 - q)) with r = ρ - q (1 - q), ρ as in Howard et al., "Time-uniform,
    nonparametric, nonasymptotic confidence sequences", Annals of Statistics 49(2), 2021, Proposition 3.
    """
    variance = q * (1 - q)
    odds = 2 * math.log(1 / alpha)
    rho = TIGHTEST_AT / (odds + math.log1p(odds))
    return max(rho - variance, 1e-3 * variance) / variance


def _threshold(alpha: float) -> float:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha lies between 0 and 1, not at {alpha}")
    return -math.log(alpha)


def _ln_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
