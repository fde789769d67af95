"""Asking people for approvals by webhook, once for each gate, also across restarts.

A question is recorded before it is sent (`gate.asking`) and when it was taken (`gate.asked`) or given up
(`gate.unasked`), in the engine's own chain. After a restart a question without an end is asked once more,
and says so: an approval that nobody hears of is worse than one that is asked for twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from engine import webhooks
from engine.actions.web import place
from engine.config import Asking, Config
from engine.errors import JournalError
from engine.journal.events import ENGINE, SYSTEM, NewEvent
from engine.procedures.approvals import counting
from engine.procedures.authors import words
from engine.procedures.decide import waiting_steps
from engine.procedures.executor import Live
from engine.procedures.recorder import Recorder
from engine.procedures.run import StepRun
from engine.questions import Question, render
from engine.waiting import gate_kind

log = logging.getLogger("opsdeck")
PAGE = 1000
MOST_TIMES = 2  # that one question is begun
KINDS = ("gate.asking", "gate.asked", "gate.unasked")


class Gate(NamedTuple):
    """What is asked about: the same step asks for something else when its digest is another."""

    run: str
    step: str
    digest: str


class Asker:
    """Sends a question for every approval gate that opens, to `alerts.approvals` of the config.

    `host` and `home` say where the command is to be pasted: `home` None where it is found by itself.
    `evidence` gives what speaks for a step, in a sentence or two, or None.
    """

    def __init__(self, config: Config, recorder: Recorder, *, clock: Callable[[], float], host: str,
                 home: Path | None = None,
                 evidence: Callable[[Live, str], str | None] = lambda live, step: None) -> None:
        self._config = config
        self._recorder = recorder
        self._clock = clock
        self._host = host
        self._home = home
        self._evidence = evidence
        self._begun: dict[Gate, int] | None = None  # None: what was asked before is not known yet
        self._ended: set[Gate] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def use_config(self, config: Config) -> None:
        """Ask by another config from now on."""
        self._config = config

    async def open(self, lives: Iterable[Live]) -> None:
        """Learn from the journal what was asked before, then ask what is left of these runs' gates.

        Until then nothing is asked. Raises JournalError.
        """
        found = list(lives)
        since = min((step.ready_at or 0.0 for live in found for step in _open(live)), default=None)
        begun: dict[Gate, int] = {}
        if since is not None:
            await self._learn(since, begun)
        self._begun = begun
        for live in found:
            self.gate_opened(live)

    def gate_opened(self, live: Live) -> None:
        """Ask about every approval gate of a run that is open and was not asked about.

        To be called after each change of a run; it costs a look at its steps, does not wait, and does
        not fail.
        """
        if self._begun is None or self._config.alerts.approvals is None:
            return
        for step in _open(live):
            gate = Gate(live.progress.id, step.id, step.digest)
            if gate in self._ended:
                continue
            times = self._begun.get(gate, 0)
            self._ended.add(gate)
            if times < MOST_TIMES:
                self._spawn(self._ask(live, step, gate, self._config.alerts.approvals, again=times > 0))

    async def close(self) -> None:
        """Give what is under way a moment, then let go: the next engine asks what was not asked."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=1.0)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _learn(self, since: float, begun: dict[Gate, int]) -> None:
        before: int | None = None
        while True:
            page = await self._recorder.call(self._recorder.journal.tail, PAGE, before, ENGINE)
            for event in page:
                if event.kind in KINDS:
                    gate = Gate(event.data["run"], event.data["step"], event.data["digest"])
                    if event.kind == "gate.asking":
                        begun[gate] = begun.get(gate, 0) + 1
                    else:
                        self._ended.add(gate)
            if len(page) < PAGE or page[-1].at < since:
                return
            before = page[-1].seq

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, live: Live, step: StepRun, gate: Gate, to: Asking, *, again: bool) -> None:
        question = self._question(live, step, again)
        where = place(to.url)
        try:
            await self._record("gate.asking", gate, f"asks for the approval of run {gate.run}, {gate.step}, "
                               f"at {where}")
        except JournalError as error:
            # Unrecorded it could be asked again after a restart: the next change of the run tries again.
            self._ended.discard(gate)
            log.error("not in the journal, so nobody was asked: run %s, %s (%s)", gate.run, gate.step, error)
            return
        problem = await webhooks.post(
            to.url, render(to.format, question), id=question.id,
            wanted=lambda: any(open.digest == gate.digest for open in _open(live)))
        kind, text = "gate.asked", f"asked for the approval of run {gate.run}, {gate.step}, at {where}"
        if problem is not None:
            kind = "gate.unasked"
            text = f"nobody was asked to approve run {gate.run}, {gate.step}: {where} {problem}"
        try:
            await self._record(kind, gate, text)
        except JournalError as error:
            log.error("not in the journal: %s (%s)", text, error)

    def _question(self, live: Live, step: StepRun, again: bool) -> Question:
        run, rule = live.progress, step.wanted.approvals
        assert rule is not None
        given = counting(step.approvals, wanted=step.wanted, initiator_uid=run.initiator.uid,
                         digest=step.digest, now=self._clock())
        return Question(
            run=run.id, procedure=run.document.id, title=run.document.title, step=step.id,
            step_title=step.spec.title, service=run.service, command=step.command or "",
            evidence=self._evidence(live, step.id), starter=run.initiator.user, roles=tuple(rule.roles),
            not_initiator=rule.not_initiator, wanted=rule.min, given=tuple(a.user for a in given),
            expires=step.expires, digest=step.digest, host=self._host,
            home=None if self._home is None else str(self._home), again=again,
            written="" if step.wanted.authors is None else words(step.wanted.authors))

    async def _record(self, kind: str, gate: Gate, text: str) -> None:
        await self._recorder.append([NewEvent(run=ENGINE, kind=kind, at=self._clock(), actor=SYSTEM,
                                              data={**gate._asdict(), "text": text})])


def _open(live: Live) -> list[StepRun]:
    """The steps that wait for an approval now, and for nothing before it."""
    run = live.progress
    return [step for step in waiting_steps(run)
            if step.wanted.approvals is not None and gate_kind(run, step) == "approval"]
