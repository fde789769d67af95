"""Is a signal over its limit, and has it been for long enough? Pure: numbers in, verdict out.

The rule. A limit *fires* when its signal has been over it for the limit's hold time without being
seen well in between, and *clears* when it has been well for as long again, at least 30 s. Time in
which nothing can be said counts for neither: it stops the clock and does not turn it back. So every
change of state takes a sustained crossing, and a signal that jitters about its limit makes none.

What can be said:

- Stale data says nothing, save for `age_s`, which is the limit on staleness itself.
- A percentile or an error ratio over its limit counts only with at least three requests in the
  window that were too slow, or failed: the p99 of twenty requests is the slowest of them, and one
  slow request must wake nobody. With fewer, nothing is said.
- Where no request came in the window nobody waits and nothing fails: latency and errors are well.
  (That traffic is missing is for a limit `below` on rps.)
"""

from __future__ import annotations

from typing import Literal

from engine.config import Limit, Signal
from engine.monitoring.histograms import count_above
from engine.monitoring.signals import Signals

Verdict = Literal["over", "well", "unknown"]
EVIDENCE = 3.0
LEAST_RECOVERY_S = 30.0
SLACK = 1e-9  # interpolated counts and added times miss by a rounding error


def judge(signal: Signal, limit: Limit, signals: Signals) -> Verdict:
    """Whether one scope's signal is over its limit now. For `age_s` see `judge_age`."""
    if signals.stale:
        return "unknown"
    value: float | None = getattr(signals, signal)
    about_requests = signal.endswith("_ms") or signal == "error_ratio"
    if value is None:
        return "well" if about_requests and signals.requests == 0 else "unknown"
    if limit.above is not None and value > limit.above:
        return "over" if _evidence(signal, limit.above, signals) >= EVIDENCE - SLACK else "unknown"
    if limit.below is not None and value < limit.below:
        return "over"
    return "well"


def judge_age(limit: Limit, age_s: float) -> Verdict:
    """Whether data of that age is too old (or, with `below`, too young)."""
    over = limit.above is not None and age_s > limit.above
    under = limit.below is not None and age_s < limit.below
    return "over" if over or under else "well"


def _evidence(signal: Signal, above: float, signals: Signals) -> float:
    if signal.endswith("_ms"):
        return count_above(signals.latency, above / 1000) if signals.latency is not None else 0.0
    if signal == "error_ratio":
        return (signals.error_ratio or 0.0) * (signals.requests or 0.0)
    return EVIDENCE


class Hold:
    """The state of one limit on one scope: firing or not, and since when it was over.

    `began` is when the present stretch of being over or well began, `held_s` how much of it is
    vouched for by verdicts.
    """

    def __init__(self, hold_s: float) -> None:
        self.hold_s = hold_s
        self.recovery_s = max(hold_s, LEAST_RECOVERY_S)
        self.firing = False
        self.since = 0.0
        self.held_s = 0.0
        self._stretch: Verdict = "unknown"
        self._began = 0.0
        self._last: Verdict = "unknown"
        self._at = 0.0

    @property
    def recovering(self) -> bool:
        """It fires and is well, though not yet for long enough."""
        return self.firing and self._stretch == "well"

    def step(self, now: float, verdict: Verdict) -> bool:
        """Take the verdict of `now`; true when this made it fire or clear."""
        if verdict != "unknown":
            if verdict != self._stretch:
                self._stretch, self._began, self.held_s = verdict, now, 0.0
            elif verdict == self._last:
                self.held_s += max(now - self._at, 0.0)
        self._last, self._at = verdict, now
        if verdict == "over" and not self.firing and self.held_s >= self.hold_s - SLACK:
            self.firing, self.since = True, self._began
            return True
        if verdict == "well" and self.firing and self.held_s >= self.recovery_s - SLACK:
            self.firing = False
            return True
        return False

    def restore(self, since: float) -> None:
        """Go on firing, as before a restart."""
        self.firing, self.since, self._stretch = True, since, "over"
