"""Carrying out what a person decided: checked once more just before, refused with a sentence.

Abort is exempt from every check but `--read-only`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from console import asks, entitled, format, rollout_asks, safety
from console.asks import Ask, Choice
from console.screens.dialog import Dialog
from engine.api import wire
from engine.api.backend import Verb
from engine.errors import EngineUnreachable, NotFound, OpsdeckError

if TYPE_CHECKING:
    from console.app import OpsdeckApp

SLOW_S = 0.5
SENDS_FOR_S = 60.0   # how long an abort waits for an engine that answers
SENDS_AGAIN_S = 1.0  # between two tries where no tick tells that it is back
BY_ITSELF = "The router goes back by itself when its lease ends."


def sentence(error: OpsdeckError, user: str = "") -> str:
    """An error as one or two sentences. `user` reads "you" where it is said what they may not do."""
    message = error.message
    if user and message.startswith(f"{user} may "):
        message = f"you{message.removeprefix(user)}"
    parts = [f"{error.where}: {message}" if error.where else message, error.hint or ""]
    return " ".join(format.sentence(part) for part in parts if part)


def gate(app: OpsdeckApp, run: str, step: str) -> None:
    """Put the question of a waiting step, as it is now."""
    app.begin(_gate(app, run, step), settle=True)


async def _gate(app: OpsdeckApp, run_id: str, step_id: str) -> None:
    """Read the run first: what the dialog states of the world must not be minutes old."""
    if refused := safety.hindered("confirm", app.state):
        app.say(refused, "warn")
        return
    try:
        run = await app.source.run(run_id)
    except OpsdeckError as error:
        app.complain(error)
        return
    app.take_run(run)
    step = next((s for s in run.steps if s.id == step_id and s.gate is not None), None)
    if step is None:
        app.say(f"Step {step_id} of run {run_id} waits no more.", "warn")
        return
    if not asks.is_rollout(run):
        _ask_gate(app, asks.gate(run, step, app.state.now), run)
        return
    try:
        rollout = await app.source.rollout(run_id)
    except OpsdeckError as error:
        app.complain(error)
        return
    if refused := safety.unwatched("approve", rollout):
        app.say(refused, "warn")
        return
    _ask_gate(app, rollout_asks.gate(rollout, run, step, app.state.now), run)


def _ask_gate(app: OpsdeckApp, ask: Ask, run: wire.RunView) -> None:
    """Put the question with the answers that would count, or say why none of this person's would."""
    state = app.state
    gate = next((s.gate for s in run.steps if s.id == ask.step and s.gate is not None), None)
    approval = gate is not None and gate.kind == "approval"
    against = entitled.against(ask.run, ask.step, state) if approval else None

    def counts(choice: Choice) -> bool:
        if choice.break_glass:
            return gate is not None and entitled.breaks_glass(gate, state)
        wanted = "approve" if approval else choice.verb  # who may reject an approval may give it
        return safety.unentitled(wanted, state) is None and not (against and choice.verb == "approve")

    if offered := tuple(filter(counts, ask.choices)):
        yours = (("You", against),) if against else ()
        _ask(app, msgspec.structs.replace(ask, choices=offered, facts=(*ask.facts, *yours)), run)
        return
    why = safety.unentitled(ask.choices[0].verb, state) or against or "Yours does not count."
    app.say(f"{why} {entitled.alone(gate, state)}" if gate is not None and approval else why, "warn")


def of_rollout(app: OpsdeckApp, verb: Verb, run: str) -> None:
    """Put the question of promote, promote-full, pause or resume, on the rollout as it is now."""
    app.begin(_of_rollout(app, verb, run), settle=True)


async def _of_rollout(app: OpsdeckApp, verb: Verb, id: str) -> None:
    if refused := safety.refusal(verb, app.state):
        app.say(refused, "warn")
        return
    try:
        run, rollout = await app.source.run(id), await app.source.rollout(id)
    except OpsdeckError as error:
        app.complain(error)
        return
    if refused := safety.unwatched(verb, rollout):
        app.say(refused, "warn")
        return
    _ask(app, rollout_asks.about(verb, rollout, run), run)


def abort_rollout(app: OpsdeckApp, rollout: wire.Rollout) -> None:
    """Ask about the abort with what is known: reading it again could stand in the way."""
    if refused := safety.refusal("abort", app.state):
        app.say(refused, "warn")
        return
    _ask_abort(app, rollout_asks.abort(rollout))


def _ask_abort(app: OpsdeckApp, ask: Ask) -> None:
    """Put the question, and what y comes to while no engine answers."""
    if app.state.away:
        waits = ("Engine", "none answers now; the abort is sent as soon as one does")
        ask = msgspec.structs.replace(ask, facts=(*ask.facts, waits))
    app.open(Dialog(ask, lambda *answer: app.begin(perform(app, *answer))))


def pause(app: OpsdeckApp, run: wire.RunView) -> None:
    ask = asks.pause(run)
    if refused := safety.refusal(ask.choices[0].verb, app.state):
        app.say(refused, "warn")
        return
    _ask(app, ask, run)


def _ask(app: OpsdeckApp, ask: Ask, run: wire.RunView) -> None:
    """Put a question about a run; from any of them x leads to its abort."""
    app.open(Dialog(ask, lambda *answer: app.begin(perform(app, *answer)),
                    abort=lambda: abort_run(app, run)))


def abort_run(app: OpsdeckApp, run: wire.RunView) -> None:
    if refused := safety.refusal("abort", app.state):
        app.say(refused, "warn")
        return
    _ask_abort(app, asks.abort(run, rolls_back=app.state.rolls_out(run.id)))


def abort(app: OpsdeckApp, runs: list[str], where: str) -> None:
    """Abort the one run that `where` has; with none or several, say so."""
    if not runs:
        app.say(f"Nothing to abort: no run of {where} is open.", passing=True)
    elif len(runs) > 1:
        app.say(f"{where} has runs {', '.join(runs)} open; open the one to abort with :run.", "warn")
    else:
        app.begin(_abort_after_reading(app, runs[0]), settle=True)


async def _abort_after_reading(app: OpsdeckApp, run: str) -> None:
    """The dialog names what was done so far, but an engine that cannot say stops no abort."""
    try:
        view = await app.source.run(run)
    except NotFound as error:
        app.say(sentence(error, app.state.user), "warn")
        return
    except OpsdeckError:
        known = next((r for r in app.state.runs if r.id == run), None)
        view = wire.RunView(
            id=run, procedure=known.procedure if known else "of an unknown procedure",
            state=known.state if known else "running", steps=[], title=known.title if known else "",
            by=known.by if known else "somebody", started=app.state.now, ended=None,
            at=app.state.now, params={}, service=known.service if known else None, revision=0,
            unisolated=False, review=None, next=None, document_sha256="",
            safe="the engine could not say what was done so far")
    abort_run(app, view)


async def perform(app: OpsdeckApp, ask: Ask, choice: Choice, text: str) -> None:
    """Read the run again, refuse if what was stated changed, act, and show what came of it."""
    assert choice.verb != "start"
    if refused := safety.refusal(choice.verb, app.state):
        app.say(refused, "warn")
        return
    if choice.verb == "abort" and ask.run in app.unsent:
        return  # it is sent already, as soon as there is an engine to take it
    slow = asyncio.get_running_loop().call_later(
        SLOW_S, app.say, "Asked the engine; it has not answered yet.", "dim")
    try:
        if choice.verb != "abort" and ask.stated is not None:
            fresh = await app.source.run(ask.run)
            difference = await _moved(app, ask, choice) if ask.rolling is not None else None
            if difference := difference or safety.changed(ask.stated, fresh):
                app.take_run(fresh)
                app.say(f"Not done: {difference} Look at it again.", "warn")
                return
        verb = choice.verb
        view = await app.source.act(ask.run, verb, body(ask, choice, text))
    except EngineUnreachable as error:
        slow.cancel()
        if choice.verb == "abort":
            await _abort_later(app, ask, choice)
        else:
            app.complain(error)
        return
    except OpsdeckError as error:
        app.say(sentence(error, app.state.user), "bad")
        return
    finally:
        slow.cancel()
    if verb == "abort":
        app.state.aborted.add(ask.run)
    if verb in ("promote", "promote-full") and ask.rolling is not None:
        app.state.skipped = (ask.run, ask.rolling.step if verb == "promote" else None)
    app.take_run(view)
    step = f", step {ask.step}" if ask.step else ""
    app.say(f"{DONE.get(verb, verb)}: run {ask.run}{step}.", "text", passing=True)


async def _abort_later(app: OpsdeckApp, ask: Ask, choice: Choice) -> None:
    """Send an abort as soon as an engine answers, and say until then that it is not done.

    The first try may have had its effect though its answer was lost: then the run has gone back.
    """
    by_itself = f" {BY_ITSELF}" if choice.rollback and len(ask.choices) == 1 else ""
    until = app.source.clock() + SENDS_FOR_S
    app.say("")
    app.owe(ask.run, "Not aborted yet: no engine answers; it is sent as soon as one does." + by_itself)
    try:
        while app.source.clock() < until:
            await app.next_tick(SENDS_AGAIN_S)
            try:
                view = await _abort_once(app, ask, choice)
            except EngineUnreachable:
                continue
            app.owe(ask.run, None)
            app.state.aborted.add(ask.run)
            app.take_run(view)
            app.say(f"{DONE['abort']}: run {ask.run}.", "text", passing=True)
            return
    except OpsdeckError as error:
        app.owe(ask.run, None)
        app.say(f"Not aborted. {sentence(error, app.state.user)}", "bad")
        return
    app.owe(ask.run, None)
    app.say(f"Not aborted: no engine answered for {SENDS_FOR_S:.0f} s. x, then y tries again.{by_itself}",
            "bad")


async def _abort_once(app: OpsdeckApp, ask: Ask, choice: Choice) -> wire.RunView:
    try:
        return await app.source.act(ask.run, "abort", body(ask, choice, ""))
    except EngineUnreachable:
        raise
    except OpsdeckError:
        run = await app.source.run(ask.run)
        if run.state not in ("aborted", "rolled_back"):
            raise
        return run


async def _moved(app: OpsdeckApp, ask: Ask, choice: Choice) -> str | None:
    """What of a rollout has changed since the question was put."""
    assert ask.rolling is not None
    rollout = await app.source.rollout(ask.run)
    return safety.moved(ask.rolling, rollout) or safety.unwatched(choice.verb, rollout)


def body(ask: Ask, choice: Choice, text: str) -> wire.Act:
    """What is sent: only the fields that the verb has a use for.

    That the name was typed to promote in full is the console's own care: the engine wants no text.
    """
    act = wire.Act(step=ask.step, digest=ask.digest, rollback=choice.rollback,
                   break_glass=choice.break_glass)
    if choice.verb in ("confirm", "approve"):
        act.seen_state = ask.world
    if choice.verb in ("reject", "skip") or choice.break_glass:
        act.reason = text
    elif choice.verb != "promote-full" and (choice.wants != "nothing" or choice.text):
        act.text = choice.text or text
    return act


DONE = {"confirm": "Confirmed", "approve": "Approved", "reject": "Rejected", "answer": "Answered",
        "settle": "Settled", "retry": "Runs again", "skip": "Skipped", "pause": "Paused",
        "resume": "Resumed", "abort": "Aborted", "promote": "The watching is skipped",
        "promote-full": "All further watching is skipped"}


async def start(app: OpsdeckApp, procedure: wire.Procedure, params: Mapping[str, Any],
                dry_run: bool) -> None:
    """Start a procedure if the library still holds the document that was shown."""
    if refused := safety.refusal("start", app.state):
        app.say(refused, "warn")
        return
    try:
        now = next((p for p in await app.source.library() if p.id == procedure.id), None)
        if now is None or now.sha256 != procedure.sha256:
            app.say(f"Not started: {procedure.id} was changed in the library since it was shown. "
                    "Open it again.", "warn")
            return
        view = await app.source.start(wire.StartRun(procedure.id, dict(params), dry_run=dry_run))
    except OpsdeckError as error:
        app.say(sentence(error, app.state.user), "bad")
        return
    app.go("run", view.id)
