"""The part of the engine that watches the projects: it asks the sources, one task for each, and never waits
for one. What a source finds is recorded before anything comes of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec

from engine.errors import ActionFailed, Conflict, JournalError, NotFound, OpsdeckError
from engine.journal.events import SYSTEM, Actor
from engine.pipeline.triggers import cron, deciding
from engine.pipeline.triggers.beginning import Beginner, of_model
from engine.pipeline.triggers.book import Book
from engine.pipeline.triggers.deciding import Cause, Fact, Kind
from engine.pipeline.triggers.looking import SETTLE, Unsettled
from engine.pipeline.triggers.projects import Projects, Registered, World, mark_of
from engine.pipeline.triggers.state import MOST_ASKED, Asked, State, key

log = logging.getLogger("opsdeck")
BEAT = 1.0
RETRY = 30.0       # seconds after a look that failed, where the source itself says nothing shorter
TICKET_AFTER = 3600.0
PATIENCE = 20.0    # seconds that who asks waits for a start
AT_ONCE = 2        # looks that read files at the same time


PORT = "port/requests"  # the source that listens, and is of no project


class Looked(msgspec.Struct, frozen=True):
    """Digests: of what would be built, and of the data within."""

    what: str
    data: str


class Look(Protocol):
    """What would be built from a folder. Raises `Unsettled`, or OpsdeckError for what cannot be read."""

    def __call__(self, project: str, folder: Path) -> Awaitable[Looked]: ...


@dataclass
class _Turn:
    """When a source is asked next, by a clock that only goes forward."""

    next: float = 0.0
    task: asyncio.Task[None] | None = None


@dataclass
class Parts:
    """What the composition root puts together. `folders` gives the projects of the config that holds;
    `tell` is the pager's; `changed` wakes whoever watches."""

    projects: Projects
    book: Book
    beginner: Beginner
    look: Look
    folders: Callable[[], Mapping[str, Path]]
    tell: Callable[[str, dict[str, Any]], None]
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    changed: Callable[[], None] = field(default=lambda: None)


class Watcher:
    """`run` lives as long as the engine. `known` are the projects, `latest` why a source cannot look now.
    `port_problem` says why the port for requests does not listen."""

    def __init__(self, parts: Parts) -> None:
        self.known: dict[str, Registered] = {}
        self.latest: dict[str, str] = {}
        self.book = parts.book
        self.port_problem: Callable[[], str | None] = lambda: None
        self._parts = parts
        self._turns: dict[str, _Turn] = {}
        self._wake = asyncio.Event()
        self._reading = asyncio.Semaphore(AT_ONCE)
        self._opened = asyncio.Event()

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            while True:
                self._wake.clear()
                try:
                    await self._beat()
                except JournalError as error:
                    log.error("triggers wait: %s", error)
                try:
                    async with asyncio.timeout(BEAT):
                        await self._wake.wait()
                except TimeoutError:
                    continue
        finally:
            tasks = [turn.task for turn in self._turns.values() if turn.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def ask(self, project: str, kind: Kind, text: str, actor: Actor, nonce: str | None = None) -> Asked:
        """Record that somebody asks for a build; what comes of it is said in the project's recent causes.

        Raises NotFound for a project that is not there, Conflict where it does not take that, where too much
        of it waits, or for a `nonce` that was there before; JournalError.
        """
        await self._begun()
        one = self.one(project)
        if kind in ("drift", "webhook") and not getattr(one.triggers, kind):
            raise Conflict(f"{project} is not begun by {'drift' if kind == 'drift' else 'requests'}",
                           hint=f"write `{kind}: true` under `triggers:` of its opsdeck.pipeline.yaml")
        now = self._parts.clock()
        asked = Asked(secrets.token_hex(5), kind, project, now, text[:500], actor.user, actor.uid)

        def hear(state: State) -> list[Fact]:
            if nonce is not None and nonce in state.nonces:
                raise Conflict("this request was taken before")
            if len(state.asked_of(project)) >= MOST_ASKED:
                raise Conflict(f"{MOST_ASKED} causes of {project} are not looked at yet; try again later")
            return [_asked(asked, None, None if nonce is None else [nonce, now])]

        await self.book.note(hear, actor)
        self._hurry(key(project, "what"))
        return asked

    async def _begun(self) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                await self._opened.wait()
        except TimeoutError as error:
            raise ActionFailed("the engine does not watch its projects yet", hint="try again in a minute"
                               ) from error

    def pushed(self, wanted: Callable[[str], bool], ref: str) -> list[str]:
        """Have the projects that are `wanted` and watch this ref (`refs/heads/…`) look at it now."""
        found = [name for name, one in self.known.items() if wanted(name) and one.triggers.commits is not None
                 and ref == f"refs/heads/{one.triggers.commits.branch}"]
        for name in found:
            self._hurry(key(name, "commits"))
        return found

    def one(self, name: str) -> Registered:
        """Raises NotFound."""
        if name not in self.known:
            raise NotFound(f"there is no project {name}",
                           hint="projects: " + (", ".join(sorted(self.known)) or "none; see `pipelines:` of "
                                                "opsdeck.yaml"))
        return self.known[name]

    def of_model(self, model: str) -> dict[str, Registered]:
        return {name: one for name, one in self.known.items() if one.model == model}

    def busy(self, model: str) -> str | None:
        return self._parts.beginner.busy(model, frozenset(self.of_model(model)))

    async def _beat(self) -> None:
        if not self._opened.is_set():
            await self.book.open()
        self.known = await self._parts.projects.read(self._parts.folders(), self._parts.monotonic())
        self._opened.set()
        for one in list(self.known.values()):
            if one.problem is not None:
                await self._blind(key(one.name, "project"), one.problem)
            else:
                await self._sees(key(one.name, "project"))
            if one.project is not None:
                await self._schedules(one)
                self._sources(one)
        for model in {one.model for one in self.known.values() if one.project is not None}:
            where = key(model, "beginning")
            try:
                await self._parts.beginner.go_on(model, self.of_model(model))
                await self._sees(where)
            except JournalError:
                raise
            except OpsdeckError as error:
                await self._blind(where, error.message)
        problem = self.port_problem()
        await (self._sees(PORT) if problem is None else self._blind(PORT, problem))
        await self._tickets()
        self._parts.changed()

    async def _schedules(self, one: Registered) -> None:
        for schedule in one.triggers.cron:
            where = key(one.name, f"cron {schedule.at} {schedule.zone}")
            mark = self.book.state.marks.get(where)
            try:
                tick = cron.look(schedule, None if mark is None else float(mark), self._parts.clock())
            except OpsdeckError as error:
                await self._blind(where, error.message)
                continue
            if tick is None:
                continue
            at = f"{schedule.at} ({schedule.zone})"
            if tick.verdict == "run":
                asked = Asked(secrets.token_hex(5), "cron", one.name, self._parts.clock(), f"schedule {at}")
                await self.book.note(lambda _, asked=asked, where=where, tick=tick: [  # type: ignore[misc]
                    _asked(asked, [where, repr(tick.mark)])])
            else:
                text = (f"the schedule {at} was missed while no engine ran, and is skipped"
                        if tick.verdict == "missed" else f"the schedule {at} counts from now on")
                await self.book.note(lambda _, where=where, tick=tick, text=text: [  # type: ignore[misc]
                    Fact("seen", {"project": one.name, "mark": [where, repr(tick.mark)], "text": text})])

    def _sources(self, one: Registered) -> None:
        triggers = one.triggers
        if triggers.commits is not None:
            self._turn(one, "commits", triggers.commits.every, self._look_at_commits)
        if triggers.data is not None:
            self._turn(one, "data", triggers.data.every, self._look_at_data)
        if self.book.state.asked_of(one.name):
            self._turn(one, "what", 0.0, self._look_at_what)

    def _turn(self, one: Registered, source: str, every: float, look: Callable[[Registered], Awaitable[None]]
              ) -> None:
        where = key(one.name, source)
        turn = self._turns.setdefault(where, _Turn())
        moment = self._parts.monotonic()
        if turn.task is not None or moment < turn.next:
            return
        turn.next = moment + every
        turn.task = asyncio.create_task(self._looking(one, where, turn, look), name=where)

    async def _looking(self, one: Registered, where: str, turn: _Turn,
                       look: Callable[[Registered], Awaitable[None]]) -> None:
        try:
            try:
                await look(one)
                await self._sees(where)
            except Unsettled as error:
                log.info("%s waits: %s", where, error)
                moment = self._parts.monotonic()
                turn.next = min(max(turn.next, moment + BEAT), moment + SETTLE)
            except JournalError:
                raise
            except (OpsdeckError, OSError) as error:
                turn.next = max(turn.next, self._parts.monotonic() + RETRY)
                await self._blind(where, getattr(error, "message", str(error)))
        except JournalError as error:
            log.error("%s waits: %s", where, error)
        except Exception as error:
            turn.next = max(turn.next, self._parts.monotonic() + RETRY)
            log.exception("%s failed", where)
            told = f"an error of the engine's own, {type(error).__name__}; its log says more"
            with contextlib.suppress(JournalError):  # the log has it
                await self._blind(where, told)
        finally:
            turn.task = None
            self._wake.set()

    async def _look_at_commits(self, one: Registered) -> None:
        commits = one.triggers.commits
        assert commits is not None
        mirror, _ = await self._parts.projects.mirror(one, commits)
        where = key(one.name, mark_of(commits))
        head, mark = await mirror.head(), self.book.state.marks.get(where)
        if head == mark:
            return
        found = await mirror.take(head, mark, commits.paths)
        name = f"commit {head[:12]}" + (f": {found.summary}" if found.summary else "")
        if mark is not None and found.changed:
            asked = Asked(secrets.token_hex(5), "commit", one.name, self._parts.clock(), name)
            await self.book.note(lambda _: [_asked(asked, [where, head])])
        else:
            text = (f"{one.name} is watched from {name} on" if mark is None
                    else f"{name} changes nothing that {one.name} is built from")
            await self.book.note(lambda _: [Fact("seen", {"project": one.name, "mark": [where, head],
                                                          "text": text})])
        used = {cause.commit for model in self.book.state.models.values() for cause in
                [*([model.waiting.cause] if model.waiting else []),
                 *([model.building.cause] if model.building else [])] if cause.commit}
        await mirror.forget(used | {head})

    async def _look_at_data(self, one: Registered) -> None:
        world = await self._world(one)
        looked = await self._read(one, world)
        where = key(one.name, "data")
        mark = self.book.state.marks.get(where)
        if mark == looked.data:
            return
        if mark is None:
            text = f"the data of {one.name} is watched from {looked.data[:12]} on"
            await self.book.note(lambda _: [Fact("seen", {"project": one.name, "mark": [where, looked.data],
                                                          "text": text})])
            return
        asked = Asked(secrets.token_hex(5), "data", one.name, self._parts.clock(),
                      f"new data, digest {looked.data[:12]}")
        await self.book.note(lambda _: [_asked(asked, [where, looked.data])])

    async def _look_at_what(self, one: Registered) -> None:
        """Find out what every cause that was heard would build, and decide."""
        asked = self.book.state.asked_of(one.name)
        if one.triggers.commits is not None and any(cause.kind != "commit" for cause in asked):
            try:
                await self._look_at_commits(one)
                await self._sees(key(one.name, "commits"))
            except JournalError:
                raise
            except OpsdeckError as error:
                await self._blind(key(one.name, "commits"), error.message)
        asked = self.book.state.asked_of(one.name)
        world = await self._world(one)
        looked = await self._read(one, world)
        model = one.model

        def decide(state: State) -> list[Fact]:
            facts: list[Fact] = []
            known = state.model(model)
            for cause in asked:
                if cause.id not in state.asked:
                    continue
                for fact in deciding.hear(known, Cause(
                        cause.id, cause.kind, cause.project, looked.what, cause.at, cause.text, cause.by,
                        cause.uid, str(world.folder), world.commit)):
                    known = deciding.fold(known, fact)
                    facts.append(of_model(model, fact))
            return facts

        for fact in await self.book.note(decide):
            log.info("%s: %s", model, fact.data["text"])

    async def _world(self, one: Registered) -> World:
        commits = one.triggers.commits
        mark = None if commits is None else self.book.state.marks.get(key(one.name, mark_of(commits)))
        return await self._parts.projects.world(one, mark)

    async def _read(self, one: Registered, world: World) -> Looked:
        async with self._reading:
            return await self._parts.look(one.name, world.folder)

    def _hurry(self, where: str) -> None:
        self._turns.setdefault(where, _Turn()).next = 0.0
        self._wake.set()

    async def _blind(self, source: str, text: str) -> None:
        """Say once that a source cannot look, and go on."""
        self.latest[source] = text
        if source in self.book.state.blind:
            return
        log.warning("%s cannot look: %s", source, text)
        since = self._parts.clock()
        await self.book.note(lambda state: [] if source in state.blind else [Fact(
            "blind", {"source": source, "since": since, "text": f"{source} cannot look: {text}"})])

    async def _sees(self, source: str) -> None:
        self.latest.pop(source, None)
        if source in self.book.state.blind:
            await self.book.note(lambda state: [Fact("sees", {"source": source, "text": f"{source} can look "
                                                              "again"})] if source in state.blind else [])

    async def _tickets(self) -> None:
        now = self._parts.clock()
        for source, blind in self.book.state.blind.items():
            if blind.ticket or now - blind.since < TICKET_AFTER:
                continue
            name = source.partition("/")[0]
            project = self.known[name].project if name in self.known else None
            service = project.release.service if project is not None and project.release else name
            text = f"for an hour now {blind.text}"
            self._parts.tell("trigger.blind", {"level": "ticket", "service": service, "text": text})
            await self.book.note(lambda _, source=source, text=text: [  # type: ignore[misc]
                Fact("ticket", {"source": source, "text": text})])


def _asked(asked: Asked, mark: list[str] | None, nonce: list[Any] | None = None) -> Fact:
    by = "" if asked.by == SYSTEM.user else f", says {asked.by}"
    return Fact("asked", {"asked": msgspec.to_builtins(asked), "mark": mark, "nonce": nonce,
                          "text": f"{asked.project}: {asked.text}{by}"})


def looker(home: Path, environ: Mapping[str, str] = os.environ) -> Look:
    """A look by a process of its own, see `looking`. `home`: the folder of all projects in the engine's."""
    from engine.pipeline.triggers.looking_apart import apart

    async def look(project: str, folder: Path) -> Looked:
        return msgspec.convert(await apart(folder, home / project / "looked.json", environ), Looked)

    return look
