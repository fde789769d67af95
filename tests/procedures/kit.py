"""An executor over a real SQLite journal in a temporary home, for tests of what runs do."""

from __future__ import annotations

import asyncio
import contextlib
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from engine.api import wire
from engine.api.backend import Caller
from engine.config import Config
from engine.journal.emergency import Emergency
from engine.journal.events import Actor
from engine.journal.sqlite import SqliteJournal
from engine.procedures.actions import Action, Context, Params, Preview, Registry
from engine.procedures.attempts import Performer
from engine.procedures.check import parse
from engine.procedures.executor import Executor, Live
from engine.procedures.recorder import Recorder
from engine.procedures.recovery import auto_answers, fold
from engine.procedures.run import StepRun
from engine.procedures.stopping import Stopper
from engine.procedures.verbs import Verbs
from engine.procedures.views import run_view

ANN = Caller("ann", 1001, 1, frozenset({"viewer", "operator"}), "test")
BOB = Caller("bob", 1002, 1, frozenset({"viewer", "approver"}), "test")
EVE = Caller("eve", 1003, 1, frozenset({"viewer", "approver", "operator"}), "test")
VIC = Caller("vic", 1004, 1, frozenset({"viewer"}), "test")


class Echo(Params):
    text: str = ""
    service: str = "flights"


async def _echo(context: Context, params: Echo) -> dict[str, Any]:
    context.log(params.text)
    return {"text": params.text}


class Weight(Params):
    service: str
    weight: int


class World:
    """A weight that actions read and set, so that previews can change under a dialog."""

    def __init__(self) -> None:
        self.weight = 5
        self.shifts: list[int] = []

    def registry(self) -> Registry:
        async def shift(context: Context, params: Weight) -> dict[str, Any]:
            before, self.weight = self.weight, params.weight
            self.shifts.append(params.weight)
            return {"before": before, "after": params.weight}

        async def preview(context: Context, params: Weight) -> Preview:
            return Preview(f"weight {self.weight}", f"weight {params.weight}", {"weight": self.weight})

        found = Registry()
        found.add(Action("test.echo", "none", "say it", Echo, _echo, lambda p: f"echo {p.text}",
                         service="service"))
        found.add(Action("test.shift", "idempotent", "set it", Weight, shift,
                         lambda p: f"shift {p.service} to {p.weight}", preview, "service"))
        return found


class Kit:
    """One engine's worth of parts. `close()` then `Kit.open` again is a clean restart."""

    def __init__(self, home: Path, config: Config, world: World, clock: Callable[[], float]) -> None:
        self.home = home
        self.world = world
        registry = world.registry()
        self.journal = SqliteJournal.open(home / "journal.db", engine_id=f"t{time.time_ns()}",
                                          clock=time.time, busy_timeout_s=0.5)
        self.recorder = Recorder(self.journal)
        self.performer = Performer(home, config, registry, self._context, system=False)
        self.executor = Executor(self.recorder, self.performer, registry, config, home, clock=clock,
                                 on_change=lambda run: None)
        self.emergency = Emergency.open(home / "emergency.journal")
        self.executor.on_caught_up = self.emergency.clear
        self.pages: list[str] = []
        self.stopper = Stopper(self.executor, self.emergency)
        self.verbs = Verbs(self.executor, self.stopper, lambda text, live: self.pages.append(text))

    def _context(self, run: str, step: StepRun, secrets: Any, write: Any) -> Context:
        nothing: Any = None
        return Context(run, step.id, step.attempt, nothing, nothing, nothing, secrets, write,
                       time.time, asyncio.sleep)

    async def start(self, steps: str, *, by: Caller = ANN, params: dict[str, Any] | None = None,
                    yes: bool = False, confirm: dict[str, str] | None = None,
                    head: str = "") -> Live:
        text = document_text(steps, head)
        document = parse(text, "test")
        id = self.journal.new_run_id()
        data = {"procedure": document.id, "title": document.title, "document": text,
                "document_sha256": "0" * 64, "path": "test", "params": params or {},
                "service": (params or {}).get("service"), "unisolated": True, "review": None,
                "steps": len(document.steps), "yes": yes, "confirm": confirm or {}}
        return await self.executor.create(id, document, Actor(by.user, by.uid, by.origin), data)

    async def ended(self, live: Live, within: float = 20.0) -> wire.RunView:
        return await self.until(live, lambda v: v.ended is not None, within)

    async def waiting(self, live: Live, step: str, within: float = 20.0) -> wire.RunView:
        """Until that step waits for a person."""
        return await self.until(live, lambda v: any(s.id == step and s.gate for s in v.steps), within)

    async def until(self, live: Live, holds: Callable[[wire.RunView], bool],
                    within: float = 20.0) -> wire.RunView:
        end = time.monotonic() + within
        while True:
            view = await run_view(self.executor, live.progress, live)
            if holds(view):
                return view
            if time.monotonic() > end:
                states = [(s.id, s.state, s.error) for s in view.steps]
                raise AssertionError(f"not within {within} s: run {view.state}, {states}, {view.next}")
            await asyncio.sleep(0.01)

    async def act(self, live: Live, verb: Any, by: Caller = ANN, **act: Any) -> None:
        """Do a verb, to what is asked now unless a digest is given."""
        if "digest" not in act and act.get("step"):
            act["digest"] = live.progress.steps[act["step"]].digest
        await self.verbs.act(by, live, verb, wire.Act(**act))

    async def recover(self) -> list[Live]:
        """Take up what an engine before this one left."""
        found = []
        for row in self.journal.runs(["running"]):
            events = self.journal.read(row.id)
            live = Live(fold(events), auto_answers(events[0]))
            self.executor.live[row.id] = live
            self.executor.drive(live, recovered=True)
            found.append(live)
        return found

    async def close(self) -> None:
        await self.executor.close()
        self.emergency.close()
        self.recorder.close()


@contextlib.asynccontextmanager
async def kit(home: Path, *, config: Config | None = None, world: World | None = None,
              clock: Callable[[], float] = time.time) -> AsyncIterator[Kit]:
    opened = Kit(home, config or Config(), world or World(), clock)
    try:
        yield opened
    finally:
        await opened.close()


def document_text(steps: str, head: str = "") -> str:
    """A whole document from its steps."""
    return (textwrap.dedent("""\
        opsdeck: 1
        id: test
        title: A test
        kind: runbook
        owner: tests
        reviewed: 2026-11-20
        """) + textwrap.dedent(head).strip() + "\nsteps:\n"
        + textwrap.indent(textwrap.dedent(steps).strip(), "  ") + "\n")


def states(view: wire.RunView) -> dict[str, str]:
    return {s.id: s.state for s in view.steps}


def step(view: wire.RunView, id: str) -> wire.StepView:
    return next(s for s in view.steps if s.id == id)


def running(pid: str | int) -> bool:
    """Whether a process lives; one that has ended and waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
