"""What a rollout has seen and what follows from it, folded from the `rollout.*` events of its run. Pure.

    rollout.began      service, to, champion, safe, versions, setup, recorded, made_by
    rollout.frozen     edges: seconds by latency metric
    rollout.tick       see `Tick.as_data`
    rollout.promoted   step, or full
    rollout.halted     kind, text (None when it goes on)
    rollout.verdict    verdict, text

Only these bring the numbers forward, in their order, so that whoever folds the same events has the
same evidence to the bit: an engine after a crash, and `opsdeck judge replay` years later.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from engine.rollout.evidence import BinTick, Counts
from engine.rollout.evidence import Tick as Sides
from engine.rollout.judge import Judge, Verdict
from engine.rollout.setup import QUANTILES, Setup

RECENT_S = 60.0
SILENT_S = 10.0
LATE_S = 5.0  # how long after a weight was set its failures may still be to come
BURST = 3.0
BORNE = 1.5  # times the baseline's share of failures that are not held against a budget
POINTS = 120
MISSED = 10.0  # a baseline that lives has none of so many by chance once in 20,000 times
Mark = Literal["", "incident", "recorded"]


class Happened(Protocol):
    """An event of a run, as the journal has it."""

    @property
    def kind(self) -> str: ...
    @property
    def data(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Tick:
    """One stretch of watching. `stage` is the weight step in force, `weight` what it gives (percent).

    `counts` by metric: (n, y) of the canary, then of the baseline; `bins` by metric: counts by bin of
    both. `strata` are further (n, y) of both sides by metric, each of what happened at another time:
    predictions whose labels came now are compared with those made in the same second. `requests` and
    `failed`: what each side really served. `mark`: "incident" when the baseline
    fails, so that nothing can be learnt by comparing; "recorded" when the baseline is one from before.
    """

    span_s: float
    stage: str
    weight: float
    requests: tuple[int, int]
    failed: tuple[int, int]
    counts: Mapping[str, tuple[int, int, int, int]]
    bins: Mapping[str, tuple[Mapping[str, int], Mapping[str, int]]] = field(default_factory=dict)
    memory: tuple[int, int] = (0, 0)  # out-of-memory failures of both sides
    mark: Mark = ""
    strata: Mapping[str, Sequence[tuple[int, int, int, int]]] = field(default_factory=dict)

    def as_data(self) -> dict[str, Any]:
        """As the event holds it; `from_data` is the inverse."""
        data: dict[str, Any] = {
            "span": round(self.span_s, 3), "stage": self.stage, "weight": self.weight,
            "requests": list(self.requests), "failed": list(self.failed),
            "counts": {name: list(four) for name, four in self.counts.items()}}
        if self.bins:
            data["bins"] = {name: [dict(side) for side in sides] for name, sides in self.bins.items()}
        if self.strata:
            data["strata"] = {name: [list(four) for four in some] for name, some in self.strata.items()}
        if any(self.memory):
            data["memory"] = list(self.memory)
        if self.mark:
            data["mark"] = self.mark
        return data

    @staticmethod
    def from_data(data: Mapping[str, Any]) -> Tick:
        return Tick(data["span"], data["stage"], data["weight"], tuple(data["requests"]),
                    tuple(data["failed"]), {k: tuple(v) for k, v in data["counts"].items()},
                    {k: (v[0], v[1]) for k, v in data.get("bins", {}).items()},
                    tuple(data.get("memory", (0, 0))), data.get("mark", ""),
                    {k: [tuple(four) for four in v] for k, v in data.get("strata", {}).items()})


@dataclass
class Totals:
    """(n, y) of both sides so far, and ln E over the ticks, thinned to at most `POINTS`; `good_history` is
    that of being no worse, empty where it is not asked.

    `expected`: (n, y) of the canary's requests had they failed as the baseline's did in the same beats
    (direct standardization). Totals of both sides mix beats in which the canary had little with such in
    which it had much, and so cannot be compared where the load or the risk moved meanwhile.
    """

    canary: tuple[int, int] = (0, 0)
    baseline: tuple[int, int] = (0, 0)
    expected: tuple[int, float] = (0, 0.0)
    history: list[float] = field(default_factory=list)
    good_history: list[float] = field(default_factory=list)


class Analysis:
    """The fold. Before `rollout.began` there is no `setup` and no verdict."""

    def __init__(self) -> None:
        self.began: dict[str, Any] = {}
        self.setup: Setup | None = None
        self.edges: dict[str, float] = {}
        self.verdict: Verdict | None = None
        self.totals: dict[str, Totals] = {}
        self.ticks = 0
        self.stage: str | None = None
        self.stage_s = 0.0
        self.stage_requests = 0
        self.watched_s = 0.0
        self.silent_s = 0.0  # since the last request of either version
        self.exposed = 0
        self.shown_good = False  # whether it was ever shown to be no worse
        self._excess = 0.0
        self._base = (0, 0)  # requests and failures of the baseline so far
        self.concurrent = True
        self.promoted: dict[str, str] = {}  # step → who skipped its watching
        self.full: str | None = None  # who skipped all that was left
        self.halted: tuple[str, str] | None = None
        self.told: str | None = None  # the verdict that was recorded last
        self.recent: deque[Tick] = deque()
        self._recent_s = 0.0
        self._judge: Judge | None = None
        self._slow: dict[str, float] = {}  # the canary's share of slow requests in the beat before
        self._stride, self._since_point = 1, 0

    def fold(self, kind: str, data: Mapping[str, Any]) -> None:
        """Take in one event; those of other kinds change nothing."""
        match kind:
            case "rollout.began":
                self._begin(data)
            case "rollout.frozen":
                self.edges = dict(data["edges"])
            case "rollout.tick":
                self._tick(Tick.from_data(data))
            case "rollout.promoted":
                if data.get("full"):
                    self.full = data.get("by", "somebody")
                else:
                    self.promoted[data["step"]] = data.get("by", "somebody")
            case "rollout.halted":
                self.halted = (data["kind"], data["text"]) if data.get("kind") else None
            case "rollout.verdict":
                self.told = data["verdict"]

    def _begin(self, data: Mapping[str, Any]) -> None:
        self.began = dict(data)
        self.setup = Setup.from_data(data["setup"])
        self._judge = Judge(self.setup.alpha, self.setup.metrics)
        self.verdict = self._judge.add({})
        self.totals = {metric.name: Totals() for metric in self.setup.metrics}

    def _tick(self, tick: Tick) -> None:
        assert self._judge is not None, "a tick before rollout.began"
        self.ticks += 1
        if tick.stage != self.stage:
            self.stage, self.stage_s, self.stage_requests = tick.stage, 0.0, 0
        self._remember(tick)
        self.silent_s = 0.0 if any(tick.requests) else self.silent_s + tick.span_s
        if self.silent_s >= SILENT_S:
            return  # nobody asks anything: time that passes so shows nothing
        if tick.mark == "incident":
            return  # it is no evidence, and going back to what fails would hurt more than it spares
        self.stage_s += tick.span_s
        self.watched_s += tick.span_s
        self.stage_requests += tick.requests[0]
        if tick.weight > 0:  # nobody is exposed to what is mirrored
            self.exposed += 0 if self.shown_good else tick.requests[0]
            self._excess += tick.failed[0] - BORNE * self._usual_share() * tick.requests[0]
            self._base = (self._base[0] + tick.requests[1], self._base[1] + tick.failed[1])
        self.concurrent = tick.mark != "recorded"
        self._judge_tick(tick)

    def _judge_tick(self, tick: Tick) -> None:
        assert self._judge is not None
        # what is answered well is answered at once, and what times out only later: right after a weight was
        # set a bad version looks good
        settled = self.stage_s > LATE_S
        found: dict[str, Sides | BinTick] = {
            name: Sides(Counts(nc, self._capped(name, nc, yc)), Counts(nb, yb))
            for name, (nc, yc, nb, yb) in tick.counts.items()}
        found |= {name: BinTick(*sides) for name, sides in tick.bins.items()}
        for name, some in tick.strata.items():
            for nc, yc, nb, yb in some:
                self._judge.count(name, Sides(Counts(nc, yc), Counts(nb, yb)), good=settled)
                self._total(name, nc, yc, nb, yb)
        self.verdict = self._judge.add(found, good=settled)
        for name, four in tick.counts.items():
            self._total(name, *four)
        for name, (here, there) in tick.bins.items():
            total = self.totals[name]
            total.canary = (total.canary[0] + sum(here.values()), 0)
            total.baseline = (total.baseline[0] + sum(there.values()), 0)
        self.shown_good = self.shown_good or self.verdict.verdict == "good"
        self._point(self.verdict)

    def _capped(self, name: str, n: int, y: int) -> int:
        """The canary's slow requests of one beat, those of a single pause not all counted.

        Requests that wait for one collection of garbage are slow together, and no evidence each. So more
        than `BURST` times what the baseline's share so far makes likely counts only if the beat before was
        as slow. The cap depends on the past alone and lowers what counts, so that the guarantee stays.
        """
        if name not in QUANTILES:
            return y
        before, self._slow[name] = self._slow.get(name, 0.0), y / n if n else 0.0
        there = self.totals[name].baseline
        usual = there[1] / there[0] if there[0] else 0.0
        return min(y, max(math.ceil(BURST * usual * n) + 1, math.ceil(before * n)))

    def _total(self, name: str, nc: int, yc: int, nb: int, yb: int) -> None:
        total = self.totals[name]
        total.canary = (total.canary[0] + nc, total.canary[1] + yc)
        total.baseline = (total.baseline[0] + nb, total.baseline[1] + yb)
        if nb:
            total.expected = (total.expected[0] + nc, total.expected[1] + nc * yb / nb)

    def _point(self, verdict: Verdict) -> None:
        self._since_point += 1
        if self._since_point < self._stride:
            return
        self._since_point = 0
        for name, ln_e in verdict.ln_e.items():
            self.totals[name].history.append(ln_e)
        for name, ln_good in verdict.ln_good.items():
            self.totals[name].good_history.append(ln_good)
        if any(len(total.history) > POINTS for total in self.totals.values()):
            self._stride *= 2
            for total in self.totals.values():
                del total.history[::2]
                del total.good_history[::2]

    def _remember(self, tick: Tick) -> None:
        self.recent.append(tick)
        self._recent_s += tick.span_s
        while len(self.recent) > 1 and self._recent_s - self.recent[0].span_s >= RECENT_S:
            self._recent_s -= self.recent.popleft().span_s

    @property
    def bad(self) -> int:
        """Requests that failed at the canary beyond `BORNE` times the baseline's share: about so many the
        rollout has cost."""
        return max(0, round(self._excess))

    def _usual_share(self) -> float:
        """The baseline's share of failures, over all so far or over the last minute, whichever is more: few
        requests of it tell little, and an incident of both is not the canary's doing."""
        lately = (sum(tick.requests[1] for tick in self.recent), sum(tick.failed[1] for tick in self.recent))
        return max((y / n for n, y in (self._base, lately) if n), default=0.0)

    def rate(self) -> float | None:
        """Requests a second of the canary over the last minute of this stage, None before any."""
        here = [tick for tick in self.recent if tick.stage == self.stage]
        span = sum(tick.span_s for tick in here)
        return sum(tick.requests[0] for tick in here) / span if span else None

    def without_baseline(self) -> bool:
        """Whether the canary had so many requests since the last one of the baseline that the baseline
        should have had `MISSED` by the weights."""
        safe = self.began.get("safe", {})
        rest = sum(safe.values())
        champion = safe.get(self.began.get("champion"), 0.0) / rest if rest else 1.0
        missed = 0.0
        for tick in reversed(self.recent):
            if tick.requests[1] or tick.mark:
                break
            missed += tick.requests[0] * (champion * (100 - tick.weight) / tick.weight if tick.weight else 1)
        return missed >= MISSED

    @property
    def judge(self) -> Judge:
        """The judge as it stands. Raises AssertionError before `rollout.began`."""
        assert self._judge is not None
        return self._judge


def folded(events: Iterable[Happened]) -> Analysis:
    """What the events of one rollout's run come to."""
    analysis = Analysis()
    for event in events:
        analysis.fold(event.kind, event.data)
    return analysis
