"""The registered projects as their files are now, and the folder that a run of each would be built from."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.errors import OpsdeckError, UsageError
from engine.pipeline.building import places
from engine.pipeline.project import reading
from engine.pipeline.project.model import Git, Project, Retraining
from engine.pipeline.triggers.git import Mirror
from engine.reproduce import git

log = logging.getLogger("opsdeck")
AGAIN_AFTER = 60.0  # seconds until a file that has problems is read again though it has not changed


@dataclass(frozen=True)
class Registered:
    """A project of the config. `project` is its file as it was last valid, `problem` what is wrong now."""

    name: str
    folder: Path
    project: Project | None
    problem: str | None = None

    @property
    def model(self) -> str:
        return self.name if self.project is None else self.project.model

    @property
    def triggers(self) -> Retraining:
        """What it says begins it; nothing but a person where it says nothing."""
        return (self.project.triggers if self.project is not None else None) or Retraining()


@dataclass(frozen=True)
class World:
    """What a run would be built from: `commit` is None where no repository is watched."""

    folder: Path
    commit: str | None


class Projects:
    """Reads the files of the projects when they change."""

    def __init__(self, home: Path, steps_user: Callable[[], str | None] = lambda: None) -> None:
        """`steps_user`: a system engine's, who reads what is laid out here."""
        self.home = home / "pipelines"
        self._steps_user = steps_user
        self._seen: dict[str, tuple[tuple[object, ...], float]] = {}
        self._known: dict[str, Registered] = {}
        self._tops: dict[Path, Path | None] = {}

    async def read(self, folders: Mapping[str, Path], moment: float) -> dict[str, Registered]:
        """All projects. `moment`: of a clock that only goes forward. Never raises for a broken one."""
        return await asyncio.to_thread(self._read, dict(folders), moment)

    def _read(self, folders: dict[str, Path], moment: float) -> dict[str, Registered]:
        for name, folder in folders.items():
            key = _key(folder)
            seen = self._seen.get(name)
            before = self._known.get(name)
            waited = seen is not None and moment - seen[1] >= AGAIN_AFTER
            if seen is not None and seen[0] == key and before and not (before.problem and waited):
                continue
            self._seen[name] = (key, moment)
            last = before.project if before is not None and before.folder == folder else None
            try:
                self._known[name] = Registered(name, folder, reading.read(folder))
            except OpsdeckError as error:
                told = getattr(error, "problems", None) or [error.message]
                self._known[name] = Registered(name, folder, last, str(told[0]).splitlines()[0])
            except Exception as error:  # of one project, which must not stop the others
                log.exception("%s cannot be read", folder)
                self._known[name] = Registered(name, folder, last, "its file cannot be read: an error of the "
                                               f"engine's own, {type(error).__name__}; its log says more")
        self._known = {name: one for name, one in self._known.items() if name in folders}
        return dict(self._known)

    def places(self, name: str) -> Path:
        """The folder of a project's own in the engine's home. Raises ActionFailed."""
        return places.make(self.home.parent, name, self._steps_user()).root

    async def mirror(self, one: Registered, commits: Git) -> tuple[Mirror, str]:
        """The mirror of the repository that a project watches, and the project's folder within it.

        Raises UsageError where it names none and its folder is in none.
        """
        top = await asyncio.to_thread(self._top, one.folder)
        if commits.repository is None and top is None:
            raise UsageError(f"{one.folder} is in no Git repository",
                             hint="name the repository: triggers: {commits: {repository: …}}")
        inside = "" if top is None else one.folder.resolve().relative_to(top).as_posix()
        address = commits.repository or str(top)
        return (Mirror(self.places(one.name), address, commits.branch), "" if inside == "." else inside)

    def _top(self, folder: Path) -> Path | None:
        if folder not in self._tops:
            self._tops[folder] = git.toplevel(folder)
        return self._tops[folder]

    async def world(self, one: Registered, commit: str | None) -> World:
        """The folder to build from: the commit laid out, with links to data that is not in the repository;
        without one the project's own. Raises as `mirror` and `Mirror.folder` do."""
        commits = one.triggers.commits
        if commits is None or commit is None:
            return World(one.folder, None)
        mirror, inside = await self.mirror(one, commits)
        folder = await mirror.folder(commit) / inside
        if not (folder / reading.FILE).is_file():
            raise UsageError(f"the commit {commit[:12]} has no {Path(inside, reading.FILE)}",
                             hint="commit the project's file, or correct `commits:`")
        assert one.project is not None
        source = one.project.data.source
        for path in [*source.sources, *([source.path] if source.path is not None else [])]:
            await mirror.overlook(Path(inside, path).as_posix())
            await asyncio.to_thread(_lend, one.folder / path, folder / path, folder)
        return World(folder, commit)


def mark_of(commits: Git) -> str:
    """The name of a branch's mark: another repository or branch has another."""
    told = hashlib.sha256(f"{commits.repository}\n{commits.branch}".encode()).hexdigest()[:8]
    return f"commits {told}"


def _lend(data: Path, to: Path, inside: Path) -> None:
    """A link to data beside the project, where the commit does not bring it."""
    if os.path.lexists(to) or not data.exists():
        return
    to.parent.mkdir(parents=True, exist_ok=True)
    if to.parent.resolve().is_relative_to(inside.resolve()):
        to.symlink_to(data.resolve())


def _key(folder: Path) -> tuple[object, ...]:
    try:
        about = (folder / reading.FILE).stat()
    except OSError as error:
        return (str(folder), error.errno)
    return (str(folder), about.st_mtime_ns, about.st_size, about.st_ino)
