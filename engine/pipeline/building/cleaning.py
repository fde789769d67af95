"""Removing what nothing refers to any more, of one project. Blocking; see `keeping` for what stays.

Whoever takes a stage from the cache holds the project's `keep.lock` together with others, from the look
until it is noted that the run has taken it (`taking`); whoever cleans holds it alone, from the look at what
is noted until what goes is renamed away. So a run gets all of an output or none of it. The lock is the
engine's own: in a system engine the steps' user cannot hold anybody up by it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import ActionFailed, Conflict, OpsdeckError
from engine.pipeline.building import keeping, places, removing
from engine.pipeline.building.keeping import Held, Item, Lying, Policy, Verdict, Version
from engine.pipeline.building.places import Area, Places

LOCK = "keep.lock"
WAIT = 30.0  # seconds for those who take something from the cache
PATIENCE = 600.0  # seconds for the removal of what the steps' user owns
Ask = Callable[[str, Collection[Version]], Held]  # a project's own registry or "", and versions


@dataclass
class Kept:
    """What stays for one reason."""

    why: str
    count: int = 0
    bytes: int = 0


@dataclass
class Cleaned:
    """`gone` and its `bytes`: what went, or of a dry run what would go. `used`: what is in use now.
    `stays` by reason, with sizes where they were measured. `problem`: why it went no further."""

    project: str
    gone: list[Item] = field(default_factory=list)
    bytes: int = 0
    used: list[Item] = field(default_factory=list)
    stays: list[Kept] = field(default_factory=list)
    problem: str | None = None


@contextlib.contextmanager
def taking(at: Places) -> Iterator[None]:
    """What is kept stays in place until the block ends. Waits for one who cleans, a second at most or so."""
    with _open(at) as handle:
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield


@contextlib.contextmanager
def _alone(at: Places) -> Iterator[None]:
    """Raises Conflict while a run is at the cache for long, as one that asks S3 what its data is."""
    with _open(at) as handle:
        until = time.monotonic() + WAIT
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise Conflict("a run looks for what it can take from the cache",
                                   where=str(at.root), hint="try again in a minute") from None
                time.sleep(0.02)
        yield


@contextlib.contextmanager
def _open(at: Places) -> Iterator[int]:
    path = at.own.root / LOCK
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ActionFailed(f"what is kept cannot be held: {error.strerror}", where=str(path),
                           hint="look at the disk and its permissions") from error
    try:
        yield handle
    finally:
        os.close(handle)


def projects(home: Path) -> list[str]:
    """Those that have anything in this home."""
    return [folder.name for folder in keeping.folders(home / "pipelines") if (folder / "stages").is_dir()]


def due(home: Path, policy: Policy, now: float) -> bool:
    """Whether anything could go: a quick look, at how many runs there are and how old they are."""
    for name in projects(home):
        at = places.of(home, name)
        runs = sorted({area.root / "runs" for area in (at.own, at.steps)})
        changed = sorted(keeping.changed(one) for folder in runs for one in keeping.folders(folder))
        if len(changed) > policy.runs and now - changed[0] >= policy.seconds:
            return True
    return False


@dataclass(frozen=True)
class Cleaner:
    """`going` tells the runs that have not ended, `ask` what the registry calls versions; it raises
    OpsdeckError while that does not answer. `steps_user`: a system engine's."""

    home: Path
    policy: Policy
    going: Callable[[], Collection[str]]
    ask: Ask
    steps_user: str | None = None

    def clean(self, project: str, *, dry: bool, clock: Callable[[], float] = time.time) -> Cleaned:
        """Clean one project, or tell what would go. Raises UsageError for no project's name, ActionFailed for
        what cannot be removed, Conflict while a run is at the cache for long."""
        at, done = places.of(self.home, project), Cleaned(project)
        found = keeping.look(at)
        held = self._held(at, found, done, clock)
        if dry:
            verdicts = keeping.decide(found, self.policy, self.going(), held, clock())
            done.gone = [one.item for one in verdicts if one.why is None]
            done.bytes = sum(removing.size(one.path) for one in done.gone)
            _stay(done, verdicts, measured=True)
            return done
        with contextlib.ExitStack() as removals, _alone(at):
            verdicts = keeping.decide(keeping.look(at), self.policy, self.going(), held, clock())
            going = [one.item for one in verdicts if one.why is None]
            # Notes go first: whoever is cut off in between leaves none that refers to what is not there.
            for kinds in (("run",), ("output", "failure", "environment")):
                for area in dict.fromkeys((at.own, at.steps)):
                    items = [one for one in going if one.area == area and one.kind in kinds]
                    if items:
                        removals.callback(self._away(at, area, items, done))
        _stay(done, verdicts, measured=False)
        return done

    def _away(self, at: Places, area: Area, items: Sequence[Item], done: Cleaned) -> Callable[[], None]:
        """Rename these away; what removes them then."""
        paths = {one.within: one for one in items}
        if at.apart and area == at.steps:
            return _as_user(self.steps_user or "", area, paths, done)
        stack = contextlib.ExitStack()
        moved, folder = stack.enter_context(removing.away(area, list(paths)))
        _told(done, paths, moved.gone, moved.used)

        def drop() -> None:
            with stack:
                done.bytes += removing.drop(folder)

        return drop

    def _held(self, at: Places, found: Lying, done: Cleaned, clock: Callable[[], float]) -> Held | None:
        """What the registry calls the versions of runs that would go without it."""
        nothing: Held = {}
        verdicts = keeping.decide(found, self.policy, self.going(), nothing, clock())
        asked = {run.version for one in verdicts if one.item.kind == "run" and one.why is None
                 and (run := found.runs[one.item.name]).version is not None}
        if not asked:
            return nothing
        try:
            return self.ask(_tracking(at, found), {one for one in asked if one is not None})
        except OpsdeckError as error:
            done.problem = f"the model registry does not say which models are in use: {error.message}"
            return None


def _as_user(user: str, area: Area, paths: dict[str, Item], done: Cleaned) -> Callable[[], None]:
    """As `Cleaner._away`, by a process of the steps' user, whose files they are."""
    process = _remover(user, area.root)
    assert process.stdin is not None and process.stdout is not None
    with process.stdin:
        process.stdin.write(json.dumps(list(paths)))
    told = _line(process, area)
    _told(done, paths, told.get("away", []), told.get("used", []))

    def wait() -> None:
        assert process.stdout is not None
        with process.stdout:
            last = process.stdout.readline() or "{}"
        process.wait(PATIENCE)
        done.bytes += max(0, int(json.loads(last).get("bytes", 0)))

    return wait


def _remover(user: str, root: Path) -> subprocess.Popen[str]:
    try:
        owner = pwd.getpwnam(user)
        return subprocess.Popen(
            [sys.executable, "-I", "-m", "engine.pipeline.building.removing", str(root)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/", user=owner.pw_uid,
            group=owner.pw_gid, extra_groups=[], start_new_session=True,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": owner.pw_dir, "LANG": "C.UTF-8"})
    except (OSError, KeyError) as error:
        raise ActionFailed(f"{user or 'the steps user'}, whose files they are, cannot remove them: {error}",
                           where=str(root)) from error


def _line(process: subprocess.Popen[str], area: Area) -> dict[str, Any]:
    assert process.stdout is not None
    try:
        told = json.loads(process.stdout.readline())
    except ValueError as error:
        process.kill()
        process.wait()
        raise ActionFailed("the process that removes has ended without a word", where=str(area.root)
                           ) from error
    if "error" in told:
        process.wait()
        raise ActionFailed(str(told["error"]), where=told.get("where"))
    return dict(told)


def _told(done: Cleaned, paths: dict[str, Item], gone: Sequence[str], used: Sequence[str]) -> None:
    done.gone += [paths[one] for one in gone if one in paths]
    done.used += [paths[one] for one in used if one in paths and paths[one].path.exists()]


def _stay(done: Cleaned, verdicts: Sequence[Verdict], *, measured: bool) -> None:
    by: dict[str, Kept] = {}
    for one in verdicts:
        if one.why is not None:
            kept = by.setdefault(one.why, Kept(one.why))
            kept.count += 1
            kept.bytes += removing.size(one.item.path) if measured else 0
    done.stays = list(by.values())


def _tracking(at: Places, found: Lying) -> str:
    """The registry that the project itself names, by what the engine handed to a stage last; empty where
    none."""
    for run in keeping.newest(found):
        for note in (one for one in run.notes if one.area == at.own):
            for path in sorted(note.path.glob(".planned.*")):
                with contextlib.suppress(OpsdeckError, KeyError, TypeError):
                    named = (places.read_json(path) or {})["project"]["tracking"]
                    if named:
                        return str(named)
    return ""
