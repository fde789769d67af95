"""Whether a router does what it says: a router that says yes and does no is found out.

Given the percents said to be in force and the requests that each variant really got, `Watch` decides
*agrees*, *contradicts* or *too_few*. Its null hypothesis is that the router is honest with tolerance:
each variant's true share p of the requests lies within said / 2 ≤ p ≤ 2 · said + 1 %. So neither
rounding, nor connections that are kept alive, nor a health check that is out for a moment is a
contradiction, while a variant with the weight 0 that goes on getting requests is, and so is one with a
weight that gets none of enough.

For each variant and side there is an e-process, a mixture of likelihood ratios against the bound b,

    E = Σ_j w_j Π (q_j / b)^y ((1 - q_j) / (1 - b))^(n - y)

with y of n requests at the variant and all q_j beyond b. One request's factor has, for the true share p,
the expectation 1 + (p - b)(q_j - b) / (b (1 - b)), at most 1 while p is on the honest side of b. So P(E
ever reaches 1/α) ≤ α however often one looks (Ville's inequality), and E depends on the sums alone. α is
split evenly over the sides of all variants. An e-process starts each `window_s / 2`, and two run at a
time, so that a router which was honest all day is found out as fast as a new one: at 576 starts a day and
α = 1e-6 a false alarm on an honest router has a probability of at most 5.8e-4 a day.

Requests must be sent one by one to where the weights say, by lot or in turn. Where a router keeps clients
at a variant, few clients with many requests each can miss the shares by far; then count clients.

`Watch` and what it calls are pure; `look` reads a router.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from engine.rollout.traffic.router import ObservedRouter
from engine.rollout.traffic.weights import same

ALPHA = 1e-6
RATIO = 2.0      # how many times its said share a variant may get, or how much less
LEAK = 0.01      # share that a variant may get beyond that
WINDOW = 300.0   # seconds
SETTLE = 2.0     # seconds after a change in which what was under way may still go elsewhere
_ABOVE = (0.01, 0.03, 0.1, 0.3, 0.7)   # alternatives: this much of the way from the bound up to 1
_BELOW = (0.75, 0.5, 0.25, 0.05, 0.0)  # alternatives: this much of the bound

State = Literal["agrees", "contradicts", "too_few"]


@dataclass(frozen=True)
class Verdict:
    """`text` is a sentence; `variant` the one whose requests contradict most, None unless some do;
    `ln_e` the most evidence there is against the router; `short`: about how many requests more it
    takes until a router that does nothing of what it says would be found out."""

    state: State
    text: str
    variant: str | None = None
    ln_e: float = 0.0
    requests: int = 0
    short: int = 0


def bounds(share: float) -> tuple[float, float]:
    """The least and the most of all requests that a variant of this said share (0 to 1) may really get."""
    return share / RATIO, min(1.0, share * RATIO + LEAK)


def ln_e(said: Mapping[str, float], got: Mapping[str, int]) -> dict[str, float]:
    """The evidence against the router by variant, the greater of both sides. `said` in percent."""
    requests = sum(got.get(name, 0) for name in said)
    evidence = {}
    for name, percent in said.items():
        least, most = bounds(percent / 100.0)
        evidence[name] = max(_below(least, got.get(name, 0), requests),
                             _above(most, got.get(name, 0), requests))
    return evidence


def judge(said: Mapping[str, float], got: Mapping[str, int], alpha: float = ALPHA) -> Verdict:
    """The verdict on all requests since a moment that did not depend on them.

    `said`: percents by variant, adding up to 100; `got`: requests by variant. It may be asked for again
    and again as the numbers grow: the first *contradicts* is false with a probability of at most `alpha`.
    """
    requests = sum(got.get(name, 0) for name in said)
    threshold = math.log(2 * len(said) / alpha)
    evidence = ln_e(said, got)
    worst = max(evidence, key=lambda name: evidence[name])
    if evidence[worst] >= threshold:
        return Verdict("contradicts", _contradiction(worst, said[worst], got.get(worst, 0), requests), worst,
                       evidence[worst], requests)
    short = max(0, _needed(said, threshold) - requests)
    if short:
        return Verdict("too_few", f"{requests} requests since the last change do not show yet where they go; "
                       f"it takes about {short} more", None, evidence[worst], requests, short)
    return Verdict("agrees", f"{requests} requests went where the weights say", None, evidence[worst],
                   requests)


@dataclass
class _Stretch:
    began: float
    got: dict[str, int] = field(default_factory=dict)


class Watch:
    """Watches one service's split over time. Times are seconds of one clock that is never set back.

    settle_s: how long after a change its requests do not count yet; more than that, where the counts
    themselves are late.
    """

    def __init__(self, *, window_s: float = WINDOW, settle_s: float = SETTLE, alpha: float = ALPHA) -> None:
        self._window = window_s
        self._settle = settle_s
        self._alpha = alpha
        self._said: dict[str, float] = {}
        self._counts_from = 0.0
        self._stretches: list[_Stretch] = []

    def add(self, said: Mapping[str, float], got: Mapping[str, int], now: float) -> Verdict:
        """`got`: requests by variant since the last call, while `said` (percent) was in force. The
        verdict is over the last `window_s` / 2 to `window_s` seconds, since the last change at most."""
        if not same(said, self._said):
            self._said = dict(said)
            self._counts_from = now + self._settle
            self._stretches = []
        if now < self._counts_from or not self._stretches:
            if now >= self._counts_from:
                self._stretches = [_Stretch(now)]
            return Verdict("too_few", "the weights were changed just now", short=_needed(
                self._said, math.log(2 * len(self._said) / self._alpha)))
        for stretch in self._stretches:
            for name, count in got.items():
                stretch.got[name] = stretch.got.get(name, 0) + count
        verdicts = [judge(self._said, stretch.got, self._alpha) for stretch in self._stretches]
        if now - self._stretches[-1].began >= self._window / 2:
            self._stretches = [*self._stretches[-1:], _Stretch(now)]
        order: list[State] = ["contradicts", "agrees", "too_few"]
        return min(verdicts, key=lambda verdict: order.index(verdict.state))


class Counters:
    """Turns counters that only grow into what was new since the last reading."""

    def __init__(self) -> None:
        self._last: dict[str, float] | None = None

    def new(self, served: Mapping[str, float]) -> dict[str, int]:
        """The growth by variant; nothing at the first reading. A counter that fell began again at 0."""
        last, self._last = self._last, dict(served)
        if last is None:
            return {}
        return {name: int(count - before if (before := last.get(name, 0.0)) <= count else count)
                for name, count in served.items()}


async def look(watch: Watch, counters: Counters, router: ObservedRouter, service: str, now: float) -> Verdict:
    """Read what the router says and what it did, and judge. Raises what the router raises.

    The counts are read first, so that none of what came after a change is held against what was before.
    """
    served = await router.served(service)
    return watch.add(await router.read(service), counters.new(served), now)


def _needed(said: Mapping[str, float], threshold: float) -> int:
    """How many requests show up a router of which a variant with a weight gets nothing."""
    smallest = min(bounds(percent / 100.0)[0] for percent in said.values() if percent > 0)
    return math.ceil((threshold + math.log(len(_BELOW))) / -math.log1p(-smallest))


def _above(bound: float, y: int, n: int) -> float:
    """ln E against a share of at most `bound`."""
    return _mixture(bound, [bound + (1 - bound) * part for part in _ABOVE], y, n) if bound < 1 else 0.0


def _below(bound: float, y: int, n: int) -> float:
    """ln E against a share of at least `bound`."""
    return _mixture(bound, [bound * part for part in _BELOW], y, n) if bound > 0 else 0.0


def _mixture(bound: float, alternatives: list[float], y: int, n: int) -> float:
    logs = []
    for q in alternatives:
        if q > 0:
            logs.append(y * math.log(q / bound) + (n - y) * (math.log1p(-q) - math.log1p(-bound)))
        elif y == 0:
            logs.append(-n * math.log1p(-bound))
    top = max(logs)
    return top + math.log(math.fsum(math.exp(one - top) for one in logs) / len(alternatives))


def _contradiction(variant: str, percent: float, got: int, requests: int) -> str:
    share = 100.0 * got / requests
    if got == 0:
        return f"{variant} has {percent:.3g} % and got none of {requests} requests"
    return f"{variant} has {percent:.3g} % and got {share:.3g} % of {requests} requests"
