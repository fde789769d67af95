"""The definitions that runs of a project have used: the project file and the procedure's document.

    pipelines/<project>/definitions/objects/<sha256>    a text, by its content
    pipelines/<project>/definitions/log.jsonl           a line for each run, and for what a person put back

A definition's version is the place of its first line among those of others. Lines are only ever added; a last
one that was cut off is not read. Blocking; all of it is the engine's own.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from engine.durable import put
from engine.errors import ActionFailed, Conflict, NotFound
from engine.pipeline.project import reading
from engine.pipeline.project.layout import file_of

How = Literal["run", "saved", "rollback"]


@dataclass(frozen=True)
class Line:
    """`file` and `procedure_sha256` are digests. `how`: a run used it; a rollback saved it before it took its
    place; a rollback put it back, for `reason`. `folder`: where the run's project was."""

    file: str
    procedure: str
    procedure_sha256: str
    run: str
    at: float
    by: str
    how: How = "run"
    reason: str = ""
    folder: str = ""

    @property
    def of(self) -> tuple[str, str]:
        return self.file, self.procedure_sha256


@dataclass
class Definition:
    """`lines` are its own, oldest first."""

    number: int
    lines: list[Line] = field(default_factory=list)

    @property
    def file(self) -> str:
        return self.lines[0].file

    @property
    def runs(self) -> list[Line]:
        return [line for line in self.lines if line.how == "run"]


@dataclass(frozen=True)
class Plan:
    """A rollback that may be done: `wanted` the text that is put in place of `present` (None: there is no
    file), `save` whether that must be kept first. `wanted` is None where it is in place already."""

    number: int
    path: Path
    wanted: bytes | None
    present: bytes | None
    save: bool
    line: Line


def keep(root: Path, file: bytes, procedure: str, text: str, *, run: str, by: str, at: float,
         how: How = "run", folder: Path | None = None) -> None:
    """Keep what a run uses, once. `root`: the project's place in the home; `procedure`: its id, `text` its
    document, both empty where there is none. Raises ActionFailed when it cannot be written."""
    line = Line(digest(file), procedure, digest(text.encode()) if text else "", run, at, by, how,
                folder=str(folder or ""))
    try:
        with _locked(root) as log:
            if how == "run" and _has(log, line):
                return
            for one in (file, text.encode() if text else b""):
                if one:
                    _object(root, one)
            _append(log, line)
    except OSError as error:
        raise ActionFailed(f"the definition that this run uses cannot be kept: {error.strerror}",
                           where=str(_folder(root)), hint="look at the disk, then run it again") from error


def definitions(root: Path) -> list[Definition]:
    """Every definition, by its number."""
    found: dict[tuple[str, str], Definition] = {}
    for line in _lines(_folder(root) / "log.jsonl"):
        found.setdefault(line.of, Definition(len(found) + 1)).lines.append(line)
    return list(found.values())


def folder_of(root: Path, run: str) -> Path | None:
    """Where the project was that a run used, as far as that was recorded."""
    found = [line.folder for line in _lines(_folder(root) / "log.jsonl") if line.run == run and line.folder]
    return Path(found[-1]) if found else None


def one(root: Path, number: int) -> Definition:
    """Raises NotFound for a version that there is not."""
    every = definitions(root)
    if not 1 <= number <= len(every):
        known = (f"they are 1 to {len(every)}" if every[1:] else "there is only version 1" if every else
                 "no run has used one yet")
        raise NotFound(f"there is no version {number} of this definition", hint=known)
    return every[number - 1]


def content(root: Path, sha256: str) -> bytes:
    """What is kept under a digest. Raises ActionFailed where it is not there as it was."""
    path = _folder(root) / "objects" / sha256
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ActionFailed(f"what was kept is not to be had: {error.strerror}", where=str(path)) from error
    if digest(data) != sha256:
        raise ActionFailed("what was kept is not what it was", where=str(path),
                           hint="the disk, or somebody, has changed it")
    return data


def plan(root: Path, folder: Path, number: int, *, force: bool = False) -> Plan:
    """What a rollback to a version would do. Raises NotFound for a version that there is not, Conflict where
    the present file was never used, so that it would be lost (`force` saves it first), DocumentError where
    the version is no project file to this Opsdeck."""
    wanted = one(root, number)
    data = content(root, wanted.file)
    path = file_of(folder)
    reading.parse(data, f"version {number}")
    present = path.read_bytes() if path.is_file() else None
    known = {definition.file for definition in definitions(root)}
    unknown = present is not None and digest(present) not in known
    if unknown and not force:
        raise Conflict(f"{path.name} has changes that no run has used, and they would be lost",
                       where=str(path), hint="commit them or run them first; --force keeps them as a version "
                                             "of their own, and goes on")
    same = present is not None and digest(present) == wanted.file
    return Plan(number, path, None if same else data, present, unknown, wanted.lines[-1])


def restore(root: Path, planned: Plan, *, by: str, reason: str, at: float) -> None:
    """Do it: the file is in place whole, or as it was. Raises Conflict when it changed since the plan was
    made, ActionFailed when it cannot be written."""
    if planned.wanted is None:
        return
    path = planned.path
    try:
        now = path.read_bytes() if path.is_file() else None
        if now != planned.present:
            raise Conflict(f"{path.name} was changed meanwhile", where=str(path),
                           hint="look at it, then try again")
        if planned.save and planned.present is not None:
            keep(root, planned.present, "", "", run="", by=by, at=at, how="saved")
        put(path, planned.wanted)
        with _locked(root) as log:
            was = planned.line
            _append(log, Line(was.file, was.procedure, was.procedure_sha256, "", at, by, "rollback", reason))
    except OSError as error:
        raise ActionFailed(f"{path.name} cannot be put back: {error.strerror}", where=str(path),
                           hint="the engine's user needs to write the project's folder") from error


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _folder(root: Path) -> Path:
    return root / "definitions"


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[Path]:
    """The log, held against other writers."""
    folder = _folder(root)
    for one in (root.parent, root, folder, folder / "objects"):
        one.mkdir(mode=0o700, exist_ok=True)
    log = folder / "log.jsonl"
    handle = os.open(log, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield log
    finally:
        os.close(handle)


def _object(root: Path, data: bytes) -> None:
    path = _folder(root) / "objects" / digest(data)
    if not path.exists():
        put(path, data, 0o600)


def _append(log: Path, line: Line) -> None:
    text = json.dumps(line.__dict__, sort_keys=True, ensure_ascii=False).encode() + b"\n"
    with log.open("r+b") as file:
        whole = file.read()
        if whole and not whole.endswith(b"\n"):  # of one who was cut off; what he wrote is not a line
            file.seek(whole.rfind(b"\n") + 1)
            file.truncate()
        file.seek(0, os.SEEK_END)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _has(log: Path, line: Line) -> bool:
    """Whether the run has this definition already: asked by each of its stages."""
    if f'"run": {json.dumps(line.run)}'.encode() not in log.read_bytes():
        return False
    return any(one.run == line.run and one.of == line.of for one in _lines(log))


def _lines(log: Path) -> Iterator[Line]:
    try:
        data = log.read_bytes()
    except FileNotFoundError:
        return
    for text in data[:data.rfind(b"\n") + 1].splitlines():
        try:
            found: dict[str, Any] = json.loads(text)
            yield Line(**found)
        except (ValueError, TypeError) as error:
            raise ActionFailed(f"a line of what runs have used cannot be read: {error}", where=str(log),
                               hint="remove that line") from error
