"""One rollout being watched: beat by beat its evidence is taken in, recorded, and acted on.

The order is fixed: what was measured is folded in memory at once and recorded as soon as the journal
takes it. Going on wants all of it on the disk; going back does not wait.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from engine.errors import FenceLost, JournalError, OpsdeckError
from engine.journal.events import SYSTEM, NewEvent
from engine.monitoring.windows import Increment
from engine.procedures.executor import Live
from engine.rollout import danger, intake
from engine.rollout.analysis import Analysis, Mark
from engine.rollout.facts import Facts, Stage, facts, shifting, stage, watched_step
from engine.rollout.keeping import Keeper
from engine.rollout.latencies import Latencies
from engine.rollout.means import Means
from engine.rollout.progress import Progress, Wanted, progress, verdict_sentence
from engine.rollout.replay import Cause, numbers
from engine.rollout.setup import ERRORS, setup
from engine.rollout.succession import ending

log = logging.getLogger("opsdeck")
COMMIT_PATIENCE_S = 0.5
NEARLY_ALL = 90.0  # percent, from which the service's own limits serve beside the judge


class Watch:
    """Watches one run. `beat` is to be awaited after each beat of the collector."""

    def __init__(self, live: Live, analysis: Analysis, means: Means, made_by: Mapping[str, str]) -> None:
        """`made_by`: what the numbers are computed with, see `engine.rollout.maker`."""
        self.live = live
        self._made_by = dict(made_by)
        self.analysis = analysis
        self._means = means
        self._queue: list[Increment] = []
        self._unrecorded: list[NewEvent] = []
        self._recording: asyncio.Task[None] | None = None
        self._stopped = False
        self._blind: str | None = None
        self._void: str | None = None  # why approvals are to be given anew
        self._keeper = Keeper(live, means, self.end)
        self.latencies = Latencies()

    def hear(self, increments: Sequence[Increment]) -> None:
        """Take what the collector saw of this rollout's service in its last beat."""
        self._queue += increments

    @property
    def recorded(self) -> bool:
        """Whether all that was measured is on the disk."""
        return not self._unrecorded and not self.live.pending and (
            self._recording is None or self._recording.done())

    @property
    def confirmed(self) -> bool:
        """Whether the router was seen to have the weights of the present stage, and under its lease."""
        found = facts(self.live.progress)
        at = stage(self.live.progress, found) if found else None
        return at is None or not at.leased or self._keeper.confirmed == at.step

    @property
    def lease_s(self) -> float | None:
        """What was left of the router's lease when it was renewed last, in seconds."""
        return self._keeper.lease_s

    def progress(self, wanted: Wanted) -> Progress:
        """Where the watching of the present stage stands."""
        found = facts(self.live.progress)
        at = stage(self.live.progress, found) if found else None
        return progress(self.analysis, wanted, stage=at.step if at else "", stale_s=self._stale_s(found),
                        blind=self._blind)

    def _stale_s(self, found: Facts | None) -> float | None:
        if found is None:
            return None
        try:
            age = self._means.measured.heard(found.service)
        except OpsdeckError:
            age = None
        if age is None:
            return math.inf
        return age if age > self._means.stale_after_s() else None

    @property
    def stale(self) -> bool:
        return self._blind is not None or self._stale_s(facts(self.live.progress)) is not None

    async def beat(self) -> None:
        """One beat: measure, record, renew the lease, and end the rollout where that must be."""
        run = self.live.progress
        found = facts(run)
        increments, self._queue = self._queue, []
        if found is None or run.finished or ending(self.live) or self._stopped:
            return
        if self._means.executor.problem is not None:  # a newer engine has the journal, and this rollout
            return
        at = stage(run, found)
        self._begin(found)
        if at is None:
            self._tell_halts(found)
            await self._record()
            return
        if self.analysis.setup is not None:
            self._freeze(found)
            self._take(found, at, increments)
        self.latencies.add(increments)
        for cause, why in self._reasons(found, at, increments):
            if why is not None:
                await self.end(why, cause)
                return
        if at.leased and not shifting(run):
            self._keeper.keep(found, at)
        self._keeper.keep_warm(found)
        self._tell_halts(found)
        self._tell_verdict()
        await self._record()

    def _begin(self, found: Facts) -> None:
        """Note what is judged; where the service is not measured yet, at a later beat."""
        if self.analysis.setup is not None:
            return
        try:
            began = self._began(found)
        except OpsdeckError as error:
            self._blind = f"the old version is not measured: {error.message}"
            return
        self._blind = None
        self._add("rollout.began", began)

    def _began(self, found: Facts) -> dict[str, Any]:
        measured = self._means.measured
        signals = measured.read(found.service, found.champion)
        histogram = measured.latency(found.service, found.champion)
        n = round(histogram.total) if histogram is not None else 0
        ratio = signals.get("error_ratio")
        recorded = [n, round(n * ratio)] if n and ratio is not None else None
        plan = setup(found.plan, bins=self._means.bins(found.service),
                     quality=self._means.labelled(found.service), recorded=recorded)
        self._means.outcomes.begin(found.service, self._means.executor.clock())
        return {"service": found.service, "to": found.to, "champion": found.champion, "safe": found.safe,
                "setup": plan.as_data(),
                "recorded": recorded,
                # A router knows of one without traffic what was there before.
                "versions": {found.champion: self._version(found.service, found.champion),
                             found.to: found.named.get(found.to) or self._version(found.service, found.to)},
                "made_by": self._made_by}

    def _version(self, service: str, variant: str) -> str | None:
        try:
            version = self._means.measured.read(service, variant).get("version")
        except OpsdeckError:
            return None
        return None if version is None else str(version)

    def _freeze(self, found: Facts) -> None:
        assert self.analysis.setup is not None
        if self.analysis.edges:
            return
        try:
            histogram = self._means.measured.latency(found.service, found.champion)
        except OpsdeckError:
            return
        edges = intake.edges(histogram, self.analysis.setup.slack, self.analysis.setup.least_s)
        if edges:
            self._add("rollout.frozen", {"edges": edges, "requests": histogram.total if histogram else 0})

    def _take(self, found: Facts, at: Stage, increments: Sequence[Increment]) -> None:
        assert self.analysis.setup is not None
        quality = self._means.outcomes.take(found.service)
        try:
            tick = intake.tick(self.analysis.setup, increments, canary=at.canary, baseline=found.champion,
                               stage=at.step, weight=at.weight, edges=self.analysis.edges, quality=quality)
        except intake.NotNumbers as error:
            self._blind = f"what is measured makes no sense: {error}"
            return
        if tick is None:
            return
        self._blind = None
        mark: Mark = ""
        if danger.incident(self.analysis.recent):
            mark = "incident"
        tick = intake.marked(tick, mark)
        if not found.split(at.weight).get(found.champion):
            floor = next(one.floor for one in self.analysis.setup.metrics if one.name == ERRORS)
            tick = intake.recorded(tick, self.analysis.began.get("recorded"), floor)
        self._add("rollout.tick", tick.as_data())

    def _reasons(self, found: Facts, at: Stage, increments: Sequence[Increment]
                 ) -> Iterator[tuple[Cause, str | None]]:
        """What could end it now, the gravest first, by its cause."""
        yield "catastrophe", danger.catastrophe(self.analysis.recent)
        yield "budget", danger.overspent(self.analysis)
        yield "judge", self._bad()
        yield "limits", self._over(found, at)
        if self._blind is None:
            yield "router", self._keeper.lied(found, at, increments)

    def _over(self, found: Facts, at: Stage) -> str | None:
        """The sentence for a version that is over its service's limits, where the baseline beside it is none
        or too small to tell: from `NEARLY_ALL` on a few requests of the old version would have to."""
        if self.analysis.concurrent and at.weight < NEARLY_ALL:
            return None
        if self.analysis.stage_s <= self._means.window_s():
            return None  # what is measured may be of before
        over = self._means.measured.over(found.service, found.to)
        if over is None or (self.analysis.concurrent and self._shared(found, over[0])):
            return None
        beside = "" if self.analysis.concurrent else " (not concurrent)"
        return f"it is over the limits of {found.service}: {over[1]}{beside}"

    def _shared(self, found: Facts, signal: str) -> bool:
        """Whether the old version suffers too, by what little is measured of it."""
        read = self._means.measured.read
        here, there = (read(found.service, name).get(signal) for name in (found.to, found.champion))
        return (there or 0.0) >= (here or 0.0) / 2

    def _bad(self) -> str | None:
        verdict = self.analysis.verdict
        if verdict is None or verdict.verdict != "bad":
            return None
        return f"the new version is {verdict_sentence(self.analysis)}"

    async def end(self, why: str, cause: Cause = "router") -> None:
        """Send the traffic back and end the rollout, whatever the journal does; once."""
        if self._stopped:
            return
        self._stopped = True
        executor, run = self._means.executor, self.live.progress.id
        verdict = self.analysis.verdict
        self._add("rollout.verdict", {"verdict": "bad", "text": why,
                                      "by": verdict.by if verdict else None, "cause": cause,
                                      **numbers(self.analysis)})
        self.live.pending += self._unrecorded
        self._unrecorded = []
        await self._means.stop(self.live, executor.planner.event(run, "run.abort", SYSTEM, rollback=True,
                                                                 reason=why))
        self._means.page(why, self.live)  # an engine that dies before this pages when it is back

    def _tell_halts(self, found: Facts) -> None:
        """Record when the rollout stands for want of evidence, and when it goes on."""
        if shifting(self.live.progress):
            return
        step = watched_step(self.live.progress)
        wanted = wanted_by(step.spec.with_) if step is not None else Wanted()
        now = self.progress(wanted)
        kind = now.kind if now.halts else None
        if (self.analysis.halted[0] if self.analysis.halted else None) != kind:
            self._add("rollout.halted", {"kind": kind, "text": now.text if kind else "it goes on"})

    def _tell_verdict(self) -> None:
        """Record a verdict of another class, and void the approvals that were given to the one before."""
        verdict = self.analysis.verdict
        if verdict is None or verdict.verdict == (self.analysis.told or "undecided"):
            return
        text = verdict_sentence(self.analysis)
        self._add("rollout.verdict", {"verdict": verdict.verdict, "by": verdict.by, "text": text,
                                      "cause": "judge", **numbers(self.analysis)})
        self._void = f"the verdict is: {text}"

    def _add(self, kind: str, data: dict[str, Any]) -> None:
        """Fold an event of this rollout's own, and have it recorded."""
        self.analysis.fold(kind, data)
        self._unrecorded.append(NewEvent(self.live.progress.id, kind, self._means.executor.clock(), SYSTEM,
                                         data=data))

    async def _record(self) -> None:
        """Commit what is not on the disk yet, waiting only a moment for a journal that is slow."""
        if self._recording is None or self._recording.done():
            if not self._unrecorded and not self.live.pending:
                return
            self._recording = asyncio.create_task(self._commit())
        await asyncio.wait({self._recording}, timeout=COMMIT_PATIENCE_S)

    async def _commit(self) -> None:
        """Whatever is recorded next, by whomever, has what is pending before it: the order stays."""
        async with self.live.lock:
            batch, self._unrecorded = self._unrecorded, []
            self.live.pending += batch + self._voids()
            try:
                await self._means.executor.advance(self.live, [])
            except FenceLost as error:
                self._means.executor.lost(str(error))
            except JournalError as error:
                log.warning("run %s: evidence waits for the journal: %s", self.live.progress.id, error)

    def _voids(self) -> list[NewEvent]:
        """Gates that wait are asked anew when the verdict is another: a yes was to the one before.

        Under the run's lock, since a gate may have opened meanwhile.
        """
        why, self._void = self._void, None
        run = self.live.progress
        if why is None or run.finished or run.going_back:
            return []
        gates = [step for step in run.plain_steps()
                 if step.state == "waiting" and step.wanted.approvals is not None]
        event = self._means.executor.planner.event
        return [event(run.id, "step.retry", step=step.id, attempt=step.attempt, reason=why) for step in gates]

    async def close(self) -> None:
        await self._keeper.close()
        if self._recording is not None and not self._recording.done():
            self._recording.cancel()
            await asyncio.gather(self._recording, return_exceptions=True)


def wanted_by(given: Mapping[str, Any]) -> Wanted:
    """What a watching step asks for, from its `with`."""
    return Wanted(int(given.get("requests", 0)), float(given.get("hold", 0.0)),
                  bool(given.get("good", False)))
