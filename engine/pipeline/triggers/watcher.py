"""The part of the engine that watches the projects: it asks the sources, one task for each, and never waits
for one. What a source finds is recorded before anything comes of it.
"""

from __future__ import annotations

import asyncio
import functools
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
from engine.pipeline.triggers.projects import Projects, Registered, World, mark_of
from engine.pipeline.triggers.sight import Sight
from engine.pipeline.triggers.state import MOST_ASKED, Asked, State, key
from engine.pipeline.triggers.turns import BEAT, Turns

log = logging.getLogger("opsdeck")
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
    """`run` lives as long as the engine. `known` are the projects, `sight` knows what cannot look.
    `port_problem` says why the port for requests does not listen."""

    def __init__(self, parts: Parts) -> None:
        self.known: dict[str, Registered] = {}
        self.book = parts.book
        self.sight = Sight(parts.book, parts.tell, parts.clock)
        self.port_problem: Callable[[], str | None] = lambda: None
        self._parts = parts
        self._turns = Turns(self.sight, parts.monotonic)
        self._reading = asyncio.Semaphore(AT_ONCE)
        self._opened = asyncio.Event()

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            while True:
                self._turns.woken.clear()
                try:
                    await self._beat()
                except JournalError as error:
                    log.error("triggers wait: %s", error)
                try:
                    async with asyncio.timeout(BEAT):
                        await self._turns.woken.wait()
                except TimeoutError:
                    continue
        finally:
            await self._turns.close()

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
        self._turns.hurry(key(project, "what"))
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
            self._turns.hurry(key(name, "commits"))
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
                await self.sight.lost(key(one.name, "project"), one.problem)
            else:
                await self.sight.back(key(one.name, "project"))
            if one.project is not None:
                await self._schedules(one)
                self._sources(one)
        for model in {one.model for one in self.known.values() if one.project is not None}:
            where = key(model, "beginning")
            try:
                await self._parts.beginner.go_on(model, self.of_model(model))
                await self.sight.back(where)
            except JournalError:
                raise
            except OpsdeckError as error:
                await self.sight.lost(where, error.message)
        problem = self.port_problem()
        await (self.sight.back(PORT) if problem is None else self.sight.lost(PORT, problem))
        await self.sight.tickets(self.known)
        self._parts.changed()

    async def _schedules(self, one: Registered) -> None:
        for schedule in one.triggers.cron:
            where = key(one.name, f"cron {schedule.at} {schedule.zone}")
            mark = self.book.state.marks.get(where)
            try:
                tick = cron.look(schedule, None if mark is None else float(mark), self._parts.clock())
            except OpsdeckError as error:
                await self.sight.lost(where, error.message)
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
            self._turns.take(key(one.name, "commits"), triggers.commits.every,
                             functools.partial(self._look_at_commits, one))
        if triggers.data is not None:
            self._turns.take(key(one.name, "data"), triggers.data.every,
                             functools.partial(self._look_at_data, one))
        if self.book.state.asked_of(one.name):
            self._turns.take(key(one.name, "what"), 0.0, functools.partial(self._look_at_what, one))

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
                await self.sight.back(key(one.name, "commits"))
            except JournalError:
                raise
            except OpsdeckError as error:
                await self.sight.lost(key(one.name, "commits"), error.message)
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
