"""The rollouts of an engine: one watch beside each run of kind rollout, from its start to its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from engine.api.backend import Caller
from engine.errors import ActionFailed, Conflict, JournalError, NotPermitted, OpsdeckError, UsageError
from engine.journal.events import ENGINE, SYSTEM, NewEvent
from engine.monitoring.windows import Increment
from engine.procedures.executor import Live
from engine.procedures.run import StepRun
from engine.procedures.verbs import actor_of
from engine.rollout.analysis import Analysis, folded
from engine.rollout.facts import Facts, facts, holds, stage, watched_step, went_back
from engine.rollout.maker import made_by
from engine.rollout.means import Means
from engine.rollout.progress import Progress, Wanted, verdict_sentence
from engine.rollout.succession import Succession, ending, replaced
from engine.rollout.watch import Watch, wanted_by
from engine.words import percents

log = logging.getLogger("opsdeck")
PROMOTES = frozenset({"approver", "admin"})
POLL_S = 0.1
JOURNAL_S = 1.0  # between two tries to read the journal
ROUTER_S = 10.0  # how long a router may take to send traffic back
TOLD = 1000  # of the engine's own last events, where pages are looked for
BLIND_BEAT_S = 5.0  # without a collector's beat, leases are renewed all the same


class Rollouts:
    """Watches rollouts. `adopt(live)` is to be called for every run that is driven, `heard` for what
    the collector saw, and `beat` after each of its beats."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self.succession = Succession(means.executor, means.router, means.stop, self.version)
        self._watches: dict[str, Watch] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._beats: dict[str, asyncio.Event] = {}

    # what the engine tells

    def adopt(self, live: Live) -> None:
        """Watch a run that starts, or goes on after a restart, if it is a rollout."""
        run = live.progress
        if run.document.rollout is None or run.id in self._tasks:
            return
        self._beats[run.id] = asyncio.Event()
        task = asyncio.create_task(self._watch(live), name=f"the watch of run {run.id}")
        self._tasks[run.id] = task
        task.add_done_callback(lambda ended: self._ended(live, ended))

    def heard(self, service: str, increments: Sequence[Increment], now: float, stamp: float) -> None:
        """What the collector saw of a service in one beat; goes before `beat`."""
        for watch in self._watches.values():
            found = facts(watch.live.progress)
            if found is not None and found.service == service:
                watch.hear(increments)

    def beat(self) -> None:
        for event in self._beats.values():
            event.set()

    def recorded(self, live: Live, events: Sequence[NewEvent]) -> None:
        """What people decided on a rollout, and that it goes back, once it is on the disk."""
        watch = self._watches.get(live.progress.id)
        for event in events:
            if watch is not None and event.kind == "run.rollback" and (why := went_back(live.progress)):
                self._means.page(why, live)
            if watch is not None and event.kind == "rollout.promoted":
                watch.analysis.fold(event.kind, event.data)

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # what the actions ask

    def facts(self, run: str) -> Facts:
        """Of a live rollout whose first step is done. Raises ActionFailed."""
        live = self._means.executor.live.get(run)
        found = facts(live.progress) if live else None
        if found is None:
            raise ActionFailed("this step belongs to a rollout, after its first step")
        return found

    def going_on(self, run: str) -> Facts:
        """As `facts`, for what raises the new version's share. Raises ActionFailed once it goes back."""
        found = self.facts(run)
        if ending(self._means.executor.live[run]):
            raise ActionFailed("this rollout goes back; its weight is not raised any more")
        return found

    def blind(self, run: str) -> str | None:
        """Why no weight should be raised now: what is measured is stale, makes no sense or cannot be
        compared. None while all is well, and for a plan that asks no evidence (one with a `window`)."""
        watch = self._watches.get(run)
        live = self._means.executor.live.get(run)
        plan = live.progress.document.rollout if live is not None else None
        if plan is None or plan.window:
            return None
        if watch is None or watch.analysis.setup is None:
            return "the old version is not measured yet"
        now = watch.progress(Wanted())
        return now.text if now.kind in ("stale", "incident", "baseline") else None

    def foreseen(self, run: str, step: str, seen: Mapping[str, float], wanted: Mapping[str, float]) -> None:
        """Raises ActionFailed where a service's weights (percent) are not those that this rollout left there,
        and so must not be raised: its lease ran out, or somebody else has set them.

        When a step is tried again, they may be half of what it has set.
        """
        found = self.facts(run)
        progress = self._means.executor.live[run].progress
        at = stage(progress, found)
        left = found.split(at.weight) if at is not None and at.weight else found.before
        if holds(seen, left) or holds(seen, wanted):
            return
        went_back = at is not None and at.leased and holds(seen, found.safe)
        if went_back or progress.steps[step].tries <= 1:
            raise ActionFailed(f"{found.service} has {percents(seen)}, and not {percents(left)} as this "
                               "rollout left it; its weight is not raised from there")

    def tell(self, run: str, text: str) -> None:
        """Page the owner of a rollout's service, unless that was done before; nobody waits for it."""
        live = self._means.executor.live.get(run)
        if live is not None:
            name = f"page of run {run}: {text}"
            self._tasks[name] = asyncio.create_task(self._tell(live, text), name=name)
            self._tasks[name].add_done_callback(lambda _: self._tasks.pop(name, None))

    async def _tell(self, live: Live, text: str) -> None:
        try:
            told = await self._was_told(live, text)
        except JournalError:
            told = False
        if not told:
            self._means.page(text, live)

    async def _was_told(self, live: Live, text: str) -> bool:
        """Whether a page with these words was recorded. Raises JournalError."""
        recorder = self._means.executor.recorder
        events = await recorder.call(recorder.journal.tail, TOLD, None, ENGINE)
        return any(event.kind == "rollout.told" and event.data.get("run") == live.progress.id
                   and text in event.data.get("text", "") for event in events)

    def version(self, service: str, variant: str) -> str | None:
        """Which version a variant is now, None where nobody says."""
        try:
            said = self._means.measured.read(service, variant).get("version")
        except OpsdeckError:
            return None
        return None if said is None else str(said)

    def same_version(self, run: str) -> None:
        """Raises ActionFailed where the new version is another by now than the one that was watched. Of one
        that has had no traffic yet, and whose manifest names it, a router knows what was there before."""
        found, analysis = self.facts(run), self.analysis(run)
        if found.to in found.named and stage(self._means.executor.live[run].progress, found) is None:
            return
        then = analysis.began.get("versions", {}).get(found.to) if analysis is not None else None
        now = self.version(found.service, found.to)
        if replaced(then, now):
            raise ActionFailed(f"{found.to} is version {now} now, and this rollout began with version {then}",
                               hint="Start another rollout for what is there now.")

    def under_way(self, service: str, variant: str) -> float:
        """Requests that a variant has not answered yet, as far as is known."""
        try:
            return float(self._means.measured.read(service, variant).get("in_flight") or 0.0)
        except OpsdeckError:
            return 0.0

    def analysis(self, run: str) -> Analysis | None:
        watch = self._watches.get(run)
        return watch.analysis if watch else None

    def latencies(self, run: str) -> dict[str, tuple[str, str]]:
        """What is known of both versions' latencies by metric, in words; see `Latencies.words`."""
        watch = self._watches.get(run)
        found = facts(watch.live.progress) if watch else None
        if watch is None or found is None:
            return {}
        return watch.latencies.words(found.to, found.champion)

    def evidence(self, live: Live) -> str | None:
        """What the judge says, for a rollout whose gate waits; None for other runs."""
        analysis = self.analysis(live.progress.id)
        return verdict_sentence(analysis) if analysis is not None else None

    def lease_s(self, run: str) -> float | None:
        watch = self._watches.get(run)
        return watch.lease_s if watch else None

    def stale(self, run: str) -> bool:
        watch = self._watches.get(run)
        return watch is None or watch.stale

    def standing(self, run: str) -> Progress | None:
        """Where the watching that is under way stands, None where there is none."""
        watch = self._watches.get(run)
        if watch is None or watch.analysis.setup is None:
            return None
        step = watched_step(watch.live.progress)
        return watch.progress(wanted_by(step.spec.with_) if step is not None else Wanted())

    def passed(self, run: str, step: str) -> tuple[bool, Progress]:
        """Whether a watching step may end: its evidence is there and on the disk, or somebody promoted it."""
        watch = self._watches.get(run)
        if watch is None:
            return False, Progress("stale", "the watch of this rollout has not begun")
        now = watch.progress(self._wanted(watch, step))
        if not watch.recorded or not watch.confirmed:
            unsure = "its evidence is being recorded" if not watch.recorded else "its weights are being read"
            return False, replace(now, kind="watching", text=unsure) if now.kind == "done" else now
        skipped = watch.analysis.full is not None or step in watch.analysis.promoted
        return now.kind == "done" or (skipped and now.kind not in ("bad", "stale")), now

    @staticmethod
    def _wanted(watch: Watch, step: str) -> Any:
        return wanted_by(watch.live.progress.steps[step].spec.with_)

    def running(self, service: str) -> tuple[str, Analysis]:
        """The newest rollout of a service that runs, and what it has seen. Raises ActionFailed."""
        lives = self.succession.of(service)
        if not lives:
            raise ActionFailed(f"no rollout of {service} runs", hint="opsdeck rollout list")
        newest = max(lives, key=lambda live: int(live.progress.id)).progress.id
        return newest, self.analysis(newest) or Analysis()

    # what people do

    async def promote(self, caller: Caller, live: Live, *, full: bool, shown: str | None,
                      reason: str | None) -> None:
        """Skip the watching of the present step, or all that is left; approvals stay wanted. `shown` is
        the step that somebody saw when they decided, if they say so.

        Raises NotPermitted, UsageError or Conflict; then nothing was done.
        """
        run = live.progress
        if run.document.rollout is None:
            raise UsageError(f"run {run.id} is no rollout", hint="promote is for rollouts")
        if not caller.roles & PROMOTES:
            raise NotPermitted(f"{caller.user} may not promote", hint="wanted: approver or admin")
        async with live.lock:
            run = live.progress
            if run.finished or ending(live):
                raise Conflict(f"run {run.id} is going back or has ended: {run.reason or run.state}")
            watch = self._watches.get(run.id)
            step = watched_step(run)
            if watch is None or watch.stale:
                raise Conflict("what is known is stale, so nobody can promote on it",
                               hint="see whether the metrics come: opsdeck status")
            if step is None and not full:
                raise Conflict(f"run {run.id} is not watching now", hint=_instead(run.steps.values()))
            if shown is not None and (step is None or step.id != shown):
                raise Conflict(f"run {run.id} has gone on since you looked: it is at "
                               f"{step.id if step else 'another step'}, not at {shown}",
                               hint="look again and decide anew")
            data: dict[str, Any] = {"full": True} if full else {"step": step.id if step else None}
            data["verdict"] = watch.analysis.verdict.verdict if watch.analysis.verdict else None
            data["by"] = caller.user
            if reason:
                data["reason"] = reason
            await self._means.executor.advance(live, [NewEvent(
                run.id, "rollout.promoted", self._means.executor.clock(), actor_of(caller), data=data)])

    def safe_now(self, live: Live) -> None:
        """The journal does not take the stop of a rollout: send its traffic back beside it, at once."""
        found = facts(live.progress)
        if found is not None:
            task = asyncio.create_task(self._safe_now(live, found), name=f"safe weights of {found.service}")
            self._tasks[f"safe {live.progress.id}"] = task

    async def _safe_now(self, live: Live, found: Facts) -> None:
        """Until that, or its own way back, has done it: what comes after may be another rollout's."""
        wait = POLL_S
        while not live.progress.finished:
            try:
                await asyncio.wait_for(self._means.router().shift(found.service, found.safe), ROUTER_S)
            except (OpsdeckError, TimeoutError) as error:
                log.error("%s cannot be sent back to its safe weights: %s", found.service, error)
                await asyncio.sleep(wait)
                wait = min(2 * wait, 5.0)
            else:
                log.warning("%s has its safe weights; the journal does not know it yet", found.service)
                return

    # the watch itself

    async def _watch(self, live: Live) -> None:
        run = live.progress.id
        watch = Watch(live, await self._folded(live), self._means, await asyncio.to_thread(made_by))
        self._watches[run] = watch
        if watch.analysis.began:
            self._means.outcomes.begin(watch.analysis.began["service"], live.progress.started)
        beat = self._beats[run]
        try:
            while not live.progress.finished:
                try:
                    async with asyncio.timeout(BLIND_BEAT_S):
                        await beat.wait()
                except TimeoutError:
                    log.debug("run %s: no beat of the collector", run)
                beat.clear()
                await watch.beat()
        finally:
            await watch.close()

    async def _folded(self, live: Live) -> Analysis:
        """What is recorded of a run, however long the journal cannot be read. Pages what an engine that
        died had no time to."""
        recorder = self._means.executor.recorder
        while True:
            try:
                events = await recorder.call(recorder.journal.read, live.progress.id)
            except JournalError as error:
                log.warning("run %s: its evidence cannot be read yet: %s", live.progress.id, error)
                await asyncio.sleep(JOURNAL_S)
                continue
            analysis = await asyncio.to_thread(folded, events)  # half a second for an hour of ticks
            run = live.progress
            ended = [event.data["text"] for event in events
                     if event.kind == "rollout.verdict" and event.data["verdict"] == "bad"]
            why = ended[-1] if run.going_back and ended else went_back(run)
            if why is not None:
                self.tell(run.id, why)
            return analysis

    def _ended(self, live: Live, task: asyncio.Task[None]) -> None:
        run = live.progress.id
        self._tasks.pop(run, None)
        self._beats.pop(run, None)
        self._watches.pop(run, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the watch of run %s broke", run, exc_info=error)
            if live.progress.finished:
                return
            live.problem = f"its watch broke inside the engine: {error}; its traffic is sent back"
            self._means.page(live.problem, live)
            blind = self._means.stop(live, self._means.executor.planner.event(
                run, "run.abort", SYSTEM, rollback=True, reason=live.problem))
            self._tasks[f"stop {run}"] = asyncio.ensure_future(blind)


def _instead(steps: Any) -> str:
    waiting: list[StepRun] = [step for step in steps if step.state == "waiting"]
    if waiting:
        return f"step {waiting[0].id} waits for a person: approve it"
    return "its next step is under way"
