"""What people may do to a run: each verb checks who, and that the run is still what they saw."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from engine.api import wire
from engine.api.backend import Caller, Verb
from engine.errors import Conflict, NotFound, NotPermitted, UsageError
from engine.journal.events import Actor, NewEvent
from engine.procedures.approvals import confirmed, counting, objection, ways
from engine.procedures.authors import commits, named
from engine.procedures.decide import asks, waiting_steps
from engine.procedures.executor import Executor, Live
from engine.procedures.run import StepRun
from engine.procedures.stopping import Stopper
from engine.procedures.views import preview_state

OPERATES = frozenset({"operator", "admin"})
APPROVES = frozenset({"approver", "admin"})
Handler = Callable[["Verbs", Caller, Live, wire.Act], Awaitable[list[NewEvent]]]


def actor_of(caller: Caller) -> Actor:
    return Actor(caller.user, caller.uid, caller.origin)


class Verbs:
    """Carries out verbs. `page` is called with a sentence when somebody breaks the glass."""

    def __init__(self, executor: Executor, stopper: Stopper, page: Callable[[str, Live], None]
                 ) -> None:
        self._executor = executor
        self._stopper = stopper
        self._page = page

    async def act(self, caller: Caller, live: Live, verb: Verb, act: wire.Act) -> None:
        """Raises NotPermitted, NotFound, UsageError, Conflict or JournalError; then nothing was done."""
        if verb == "abort":
            await self._abort(caller, live, act)
            return
        async with live.lock:
            if live.progress.finished:
                raise Conflict(f"run {live.progress.id} has ended: {live.progress.state}",
                               hint=f"opsdeck show {live.progress.id} tells how it went")
            events = await _HANDLERS[verb](self, caller, live, act)
            await self._executor.advance(live, events)

    def _event(self, caller: Caller, live: Live, kind: str, step: StepRun | None = None,
               **data: Any) -> NewEvent:
        return self._executor.planner.event(
            live.progress.id, kind, actor_of(caller), step=step.id if step else None,
            attempt=step.attempt if step else None, **{k: v for k, v in data.items() if v is not None})

    async def _confirm(self, caller: Caller, live: Live, act: wire.Act) -> list[NewEvent]:
        _need(caller, OPERATES, "confirm")
        step = _step(live, act, lambda s: s.state == "waiting" and s.wanted.confirm != "none",
                     "waits for a confirmation")
        _same(step, act)
        if step.wanted.confirm == "typed" and act.text != step.wanted.expected:
            raise UsageError(f"the text typed is not {step.wanted.expected!r}",
                             where=f"step {step.id}", hint=f"type {step.wanted.expected} to go on")
        await self._world_unchanged(live, step, act)
        return [self._event(caller, live, "gate.confirmed", step, digest=step.digest, text=act.text)]

    async def _world_unchanged(self, live: Live, step: StepRun, act: wire.Act) -> None:
        """Read the state again just before acting: it must be what the dialog stated."""
        if act.seen_state is None:
            return
        now = await preview_state(self._executor, live.progress, step)
        if now is not None and now.state != act.seen_state:
            raise Conflict(f"the state has changed since you looked: {now.now}",
                           where=f"step {step.id}", hint="look again and decide anew")

    async def _approve(self, caller: Caller, live: Live, act: wire.Act) -> list[NewEvent]:
        step = _step(live, act, lambda s: s.state == "waiting" and s.wanted.approvals is not None,
                     "waits for an approval")
        rule = step.wanted.approvals
        assert rule is not None
        if step.expires is not None and self._executor.clock() >= step.expires:
            raise Conflict("this gate has closed: nobody approved it in time",
                           where=f"step {step.id}")
        if act.break_glass:
            return self._break_glass(caller, live, step, act)
        against = objection(step.wanted, user=caller.user, uid=caller.uid, roles=caller.roles,
                            initiator_uid=live.progress.initiator.uid)
        if against is not None:
            raise NotPermitted(against, where=f"step {step.id}",
                               hint=ways(step.wanted, self._executor.config.policy.break_glass))
        _same(step, act)
        await self._world_unchanged(live, step, act)
        now = self._executor.clock()
        have = counting(step.approvals, wanted=step.wanted, initiator_uid=live.progress.initiator.uid,
                        digest=step.digest, now=now)
        if any(a.uid == caller.uid for a in have):
            raise Conflict(f"{caller.user} has approved this already; the same person counts once",
                           where=f"step {step.id}",
                           hint=f"{rule.min - len(have)} more approval(s) by others are wanted")
        return [self._event(caller, live, "gate.approved", step, digest=step.digest)]

    def _break_glass(self, caller: Caller, live: Live, step: StepRun,
                     act: wire.Act) -> list[NewEvent]:
        allowed = set(self._executor.config.policy.break_glass)
        if not caller.roles & allowed:
            raise NotPermitted(f"{caller.user} may not break the glass", where=f"step {step.id}",
                               hint="policy.break_glass in opsdeck.yaml names the roles that may")
        if not act.reason:
            raise UsageError("breaking the glass wants a reason", where=f"step {step.id}",
                             hint="approve --break-glass 'why'")
        _same(step, act)
        author = step.wanted.authors.of(caller.user) if step.wanted.authors is not None else None
        wrote = None if author is None else f"{commits(author)}, by {named(author)}"
        own = f", who wrote what it puts into production ({wrote})," if wrote is not None else ""
        self._page(f"{caller.user}{own} opened the gate of step {step.id} alone: {act.reason}", live)
        return [self._event(caller, live, "gate.approved", step, digest=step.digest,
                            break_glass=act.reason, review="due", wrote=wrote)]

    async def _reject(self, caller: Caller, live: Live, act: wire.Act) -> list[NewEvent]:
        step = _step(live, act, lambda s: s.state == "waiting" and (
            s.kind == "manual" or not s.wanted.nothing), "waits for an answer that could be rejected")
        _need(caller, APPROVES | (set(step.wanted.approvals.roles) if step.wanted.approvals else OPERATES),
              "reject")
        return [self._event(caller, live, "gate.rejected", step, reason=act.reason)]

    async def _answer(self, caller: Caller, live: Live, act: wire.Act) -> list[NewEvent]:
        _need(caller, OPERATES, "answer")
        step = _step(live, act, lambda s: s.state == "waiting" and s.kind == "manual",
                     "waits for an answer")
        _gate_open(live, step, self._executor.clock())
        if not (act.text or "").strip():
            raise UsageError("an answer cannot be empty", where=f"step {step.id}")
        if act.digest is not None:
            _same(step, act)
        outcome = self._executor.answered(live.progress, step, (act.text or "").strip())
        return [self._event(caller, live, "step.outcome", step, **outcome.data(), answered=True)]

    async def _settle(self, caller: Caller, live: Live, act: wire.Act) -> list[NewEvent]:
        _need(caller, OPERATES, "settle")
        step = _step(live, act, lambda s: s.state == "unknown", "has an unknown outcome")
        if act.digest is not None:
            _same(step, act)
        if act.text not in ("done", "not-done"):
            raise UsageError("settle takes done or not-done", where=f"step {step.id}",
                             hint="done: the effect is there; not-done: it is not, so the step is "
                                  "tried again behind its gates")
        return [self._event(caller, live, "step.settled", step, verdict=act.text, how="person",
                            note=act.reason)]

    async def _retry(self, caller: Caller, live: Live, act: wire.Act) -> list[NewEvent]:
        _need(caller, OPERATES, "retry")
        step = _step(live, act, lambda s: asks(live.progress, s), "failed and waits to be retried")
        if act.digest is not None:
            _same(step, act)
        return [self._event(caller, live, "step.retry", step)]

    async def _skip(self, caller: Caller, live: Live, act: wire.Act) -> list[NewEvent]:
        _need(caller, OPERATES, "skip")
        step = _step(live, act, lambda s: s.state in ("planned", "waiting")
                     or asks(live.progress, s), "can be skipped now")
        if not (step.spec.skippable or step.undo_of):
            raise NotPermitted(f"step {step.id} may not be skipped",
                               hint="only steps that say skippable: true may be")
        if not act.reason:
            raise UsageError("skipping wants a reason", where=f"step {step.id}",
                             hint="skip RUN STEP --reason 'why'")
        return [self._event(caller, live, "step.skipped", step, reason=act.reason)]

    async def _pause(self, caller: Caller, live: Live, act: wire.Act) -> list[NewEvent]:
        _need(caller, OPERATES, "pause")
        if live.progress.paused:
            raise Conflict(f"run {live.progress.id} is paused already")
        return [self._event(caller, live, "run.paused", reason=act.reason)]

    async def _resume(self, caller: Caller, live: Live, act: wire.Act) -> list[NewEvent]:
        """Nothing to do for a run that is not paused: it goes on by itself."""
        _need(caller, OPERATES, "resume")
        return [self._event(caller, live, "run.resumed")] if live.progress.paused else []

    async def _abort(self, caller: Caller, live: Live, act: wire.Act) -> None:
        _need(caller, OPERATES | APPROVES, "abort")
        if live.progress.finished:
            raise Conflict(f"run {live.progress.id} has ended: {live.progress.state}")
        # to stop a rollout without its safe weights would leave weights that nobody chose
        rollback = act.rollback or live.progress.document.rollout is not None
        await self._stopper.stop(live, self._event(
            caller, live, "run.abort", rollback=rollback or None, reason=act.reason))


def _need(caller: Caller, roles: frozenset[str] | set[str], verb: str) -> None:
    if not caller.roles & roles:
        raise NotPermitted(f"{caller.user} may not {verb}",
                           hint=f"wanted: {' or '.join(sorted(roles))}; roles are set in opsdeck.yaml")


def _step(live: Live, act: wire.Act, fits: Callable[[StepRun], bool], what: str) -> StepRun:
    """The step meant: the one named, or the only one that fits."""
    run = live.progress
    if act.step is not None:
        step = run.steps.get(act.step)
        if step is not None and run.going_back and step.undo_of is None:
            raise Conflict(f"run {run.id} is going back; step {step.id} takes no answer any more",
                           hint=_waiting_hint(live))
        if step is None:
            raise NotFound(f"run {run.id} has no step {act.step}",
                           hint="its steps: " + ", ".join(run.steps))
        if not fits(step):
            state = "running" if step.state == "intent" else step.state
            raise Conflict(f"step {step.id} is {state}; it is not one that {what}",
                           where=f"run {run.id}", hint=_waiting_hint(live))
        return step
    fitting = [s for s in run.steps.values()
               if fits(s) and (s.undo_of is not None or not run.going_back)]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise Conflict(f"no step of run {run.id} {what}", hint=_waiting_hint(live))
    raise UsageError(f"{len(fitting)} steps fit; name one",
                     hint="one of " + ", ".join(s.id for s in fitting))


def _waiting_hint(live: Live) -> str:
    waiting = waiting_steps(live.progress)
    return "it waits at " + ", ".join(s.id for s in waiting) if waiting else "nothing waits now"


def _same(step: StepRun, act: wire.Act) -> None:
    """The answer must be to what is asked now: document, parameters, command, step and attempt."""
    if act.digest != step.digest:
        raise Conflict("what was shown is not what would run now" if act.digest else
                       "the answer does not say what was shown", where=f"step {step.id}",
                       hint=f"now: {step.command}; look again and decide anew")


def _gate_open(live: Live, step: StepRun, now: float) -> None:
    wanted = step.wanted
    if not confirmed(wanted, step.confirmation, step.digest, now):
        raise Conflict("this step wants its confirmation first", where=f"step {step.id}")
    if wanted.approvals is not None:
        have = counting(step.approvals, wanted=wanted, now=now, digest=step.digest,
                        initiator_uid=live.progress.initiator.uid)
        if len(have) < wanted.approvals.min and not any(a.break_glass for a in have):
            raise Conflict("this step wants its approvals first", where=f"step {step.id}")


_HANDLERS: dict[str, Handler] = {
    "confirm": Verbs._confirm, "approve": Verbs._approve, "reject": Verbs._reject,
    "answer": Verbs._answer, "settle": Verbs._settle, "retry": Verbs._retry, "skip": Verbs._skip,
    "pause": Verbs._pause, "resume": Verbs._resume}
