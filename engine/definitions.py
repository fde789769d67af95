"""The versions of a project's definition, as the API tells them, and going back to one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from engine.api import wire
from engine.config import Config
from engine.errors import NotFound, NotPermitted, OpsdeckError, UsageError
from engine.home import Home
from engine.journal.events import ENGINE, Actor, NewEvent
from engine.pipeline.building import places
from engine.pipeline.project import history, layout, reading
from engine.procedures.output import harmless
from engine.procedures.recorder import Recorder


class Definitions:
    """Of the projects that the config names; in a single-user engine a project may be its folder."""

    def __init__(self, home: Home, recorder: Recorder, config: Callable[[], Config],
                 clock: Callable[[], float]) -> None:
        self._home = home
        self._recorder = recorder
        self._config = config
        self._clock = clock

    async def told(self, project: str) -> wire.Definitions:
        """Raises NotFound for a project that is not known."""
        return await asyncio.to_thread(self._told, project)

    async def text(self, project: str, number: int) -> wire.DefinitionText:
        """Raises NotFound for a project or version that is not there."""
        return await asyncio.to_thread(self._text, project, number)

    async def restore(self, actor: Actor, number: int, wanted: wire.RestoreDefinition) -> wire.Restored:
        """Put a version back. It is in the journal before it is in the folder; if it cannot be put there
        after all, that is in the journal too. Raises as `history.plan` and `history.restore` do."""
        reason = " ".join(harmless(wanted.reason).split())
        if not reason:
            raise UsageError("a definition is put back for a reason", hint="say why; it is recorded")
        folder, root = self._places(wanted.project)
        plan = await asyncio.to_thread(history.plan, root, folder, number, force=wanted.force)
        name = root.name
        if plan.wanted is None:
            return wire.Restored(self._clock(), name, number, False, None, [],
                                 f"version {number} of {name} is in place already")
        text = f"{name} goes back to version {number} of its definition: {reason}"
        await self._record(actor, "definition.restored", text, name, number, reason)
        try:
            await asyncio.to_thread(history.restore, root, plan, by=actor.user, reason=reason,
                                    at=self._clock())
        except OpsdeckError as error:
            await self._record(actor, "definition.kept", f"{name} did not go back to version {number}: "
                               f"{error.message}", name, number, reason)
            raise
        return await asyncio.to_thread(self._restored, root, folder, plan, text)

    def _restored(self, root: Path, folder: Path, plan: history.Plan, text: str) -> wire.Restored:
        saved = None
        if plan.save and plan.present is not None:
            digest = history.digest(plan.present)
            saved = next(one.number for one in history.definitions(root) if one.file == digest)
        problems = [str(one) for one in reading.problems(folder)]
        return wire.Restored(self._clock(), root.name, plan.number, True, saved, problems, text)

    async def _record(self, actor: Actor, kind: str, text: str, project: str, number: int, reason: str
                      ) -> None:
        await self._recorder.append([NewEvent(run=ENGINE, kind=kind, at=self._clock(), actor=actor, data={
            "text": text, "project": project, "version": number, "reason": reason})])

    def _places(self, project: str) -> tuple[Path, Path]:
        """The project's folder, and its place in the home."""
        known = self._config().pipelines.projects
        if project in known:
            folder = known[project]
        elif "/" in project and self._home.mode == "single-user":
            folder = layout.file_of(Path(project).expanduser()).parent
        elif "/" in project:
            raise NotPermitted(f"{project} is a folder, and this engine knows only what its config names")
        else:
            names = ", ".join(sorted(known)) or "none yet"
            raise NotFound(f"there is no project {project}",
                           hint=f"opsdeck.yaml names them (pipelines: projects:): {names}")
        return folder, places.of(self._home.path, self._named(folder, project)).root

    @staticmethod
    def _named(folder: Path, project: str) -> str:
        """The project's own name: by its file while that can be read, else as it is called here."""
        found, _ = reading.look(folder)
        return found.project if found is not None else project.rstrip("/").rpartition("/")[2]

    def _told(self, project: str) -> wire.Definitions:
        folder, root = self._places(project)
        path = layout.file_of(folder)
        present = history.digest(path.read_bytes()) if path.is_file() else None
        every = history.definitions(root)
        newest = max((one for one in every if one.file == present), default=None,
                     key=lambda one: one.lines[-1].at)
        told = [_definition(one, one is newest) for one in every]
        return wire.Definitions(self._clock(), root.name, str(path),
                                sorted(told, key=lambda one: (-one.last, -one.number)),
                                present is not None and newest is None)

    def _text(self, project: str, number: int) -> wire.DefinitionText:
        folder, root = self._places(project)
        found = history.one(root, number)
        line = found.lines[-1]
        path = layout.file_of(folder)
        procedure = history.content(root, line.procedure_sha256).decode() if line.procedure_sha256 else ""
        file = history.content(root, found.file).decode()
        return wire.DefinitionText(self._clock(), number, file, procedure,
                                   path.read_text("utf-8", "replace") if path.is_file() else "")


def _definition(found: history.Definition, present: bool) -> wire.Definition:
    first, last = found.lines[0], found.lines[-1]
    runs = found.runs
    back = [line for line in found.lines if line.how == "rollback"]
    return wire.Definition(
        number=found.number, sha256=found.file, procedure=last.procedure,
        procedure_sha256=last.procedure_sha256, first=first.at, last=last.at, by=last.by, how=last.how,
        runs=len(runs), run=runs[-1].run if runs else None, reason=back[-1].reason if back else "",
        present=present)
