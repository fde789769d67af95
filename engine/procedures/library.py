"""The library: the procedures in the configured directories, read once and again when they change.

A broken file never breaks the list: it appears with its problem, and only asking for it raises.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import shlex
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.api import wire
from engine.config import Config
from engine.errors import DocumentError, NotFound, NotPermitted
from engine.located import Located, did_you_mean, load_bytes
from engine.located.reading import MAX_BYTES
from engine.procedures.actions import Effect, Registry
from engine.procedures.check import Report, check_document, procedures_in
from engine.procedures.document import Document, Operation, Step
from engine.procedures.parameters import bind, parameters, wire_param
from engine.procedures.rules.header import overdue as review
from engine.procedures.scanner import has_template

__all__ = ["Entry", "Library", "bind", "directories", "outline", "parameters", "review", "shipped",
           "wire_param", "writable_by_others"]

MOST_FILES = 2000


def _today() -> dt.date:
    return dt.datetime.now(dt.UTC).date()


@dataclass(frozen=True)
class Entry:
    """A procedure that may run: its document, exact text and sha256 (of the text in UTF-8)."""

    document: Document
    text: str
    sha256: str
    path: Path
    report: Report


@dataclass(frozen=True)
class _File:
    """What is known of one file; `refused` is why it is not trusted, whatever is in it."""

    path: Path
    key: tuple[int, int, int, int]
    id: str
    report: Report | None
    sha256: str
    refused: str | None = None

    @property
    def problem(self) -> str | None:
        if self.refused:
            return f"{self.path}: {self.refused}"
        errors = self.report.errors if self.report else []
        if not errors:
            return None
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        return str(errors[0]).replace("\n  ", "; ") + more


def shipped() -> Path:
    """The directory of the procedures that come with Opsdeck."""
    import engine

    return Path(engine.__file__).parent.parent / "runbooks"


def directories(config: Config, home: Path) -> list[Path]:
    """The library's directories: shipped, configured, and the home's own."""
    return [shipped(), *config.engine.library, home / "runbooks"]


class Library:
    """The procedures below `directories`; those that do not exist are passed over.

    With `system` (a system engine) files and directories that anyone but root or the engine's own
    user could change are refused. `today` gives the date for reviews.
    """

    def __init__(self, directories: Sequence[Path], registry: Registry, *, system: bool = False,
                 today: Callable[[], dt.date] = _today) -> None:
        self._directories = list(directories)
        self._registry = registry
        self._system = system
        self._today = today
        self._files: dict[Path, _File] = {}

    def look_in(self, directories: Sequence[Path]) -> None:
        """Have the procedures of other directories from now on."""
        self._directories = list(directories)

    def get(self, id: str) -> Entry:
        """The procedure of that id as its file is now.

        Raises NotFound with the nearest id, DocumentError with every problem of a broken file or
        when two files claim the id, NotPermitted for one that others could have changed.
        """
        found = [file for file in self._read() if file.id == id]
        if not found:
            raise NotFound(f"there is no procedure `{id}`",
                           hint=did_you_mean(id, {file.id for file in self._read()}))
        if len(found) > 1:
            raise DocumentError(f"two files have the id `{id}`", [str(f.path) for f in found],
                                hint="rename one of them")
        file = found[0]
        if file.refused:
            raise NotPermitted(file.refused, where=str(file.path))
        report = file.report
        assert report is not None
        if report.document is None:
            raise DocumentError(f"the procedure {id} has problems", [str(p) for p in report.errors],
                                where=str(file.path))
        return Entry(report.document, report.located.text, file.sha256, file.path, report)

    def entries(self) -> list[wire.Procedure]:
        """Every procedure, by id; broken ones with `problem`."""
        files = self._read()
        taken: dict[str, list[_File]] = {}
        for file in files:
            taken.setdefault(file.id, []).append(file)
        today = self._today()
        listed = []
        for id, same in sorted(taken.items()):
            for file in same:
                others = [str(other.path) for other in same if other is not file]
                problem = (f"{file.path}: the id `{id}` is also in {', '.join(others)}"
                           if others else file.problem)
                listed.append(_entry(file, problem, today, self._registry))
        return listed

    def _read(self) -> list[_File]:
        """All files, from memory where neither time, size nor inode has changed."""
        current: dict[Path, _File] = {}
        for directory in self._directories:
            if not directory.is_dir():
                continue
            root = directory.resolve()
            refused = writable_by_others(root) if self._system else None
            for path in procedures_in(directory)[:MOST_FILES]:
                if path not in current:
                    current[path] = self._file(path, root, refused)
        self._files = current
        return list(current.values())

    def _file(self, path: Path, root: Path, refused: str | None) -> _File:
        try:
            target = path.resolve()
        except RuntimeError:
            return _refused(path, "this link leads to itself")
        if not target.is_relative_to(root):
            return _refused(path, "this link leads out of the library's directory")
        if refused is None and self._system:
            refused = _writable_below(target, root)
        try:
            descriptor = os.open(target, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            return _refused(path, f"it cannot be read: {(error.strerror or str(error)).lower()}")
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return _refused(path, "this is not a plain file")
            key = (status.st_mtime_ns, status.st_size, status.st_ino, status.st_ctime_ns)
            known = self._files.get(path)
            if known is not None and known.key == key and known.refused == refused:
                return known
            data = file.read(MAX_BYTES + 1)
        located = load_bytes(data, str(path))
        report = check_document(located, str(path), self._registry, today=self._today())
        return _File(path, key, _id(located, path), report,
                     hashlib.sha256(located.text.encode("utf-8", "replace")).hexdigest(), refused)


def _refused(path: Path, why: str) -> _File:
    return _File(path, (0, 0, 0, 0), path.stem, None, "", why)


def _id(located: Located, path: Path) -> str:
    id = located.at(("id",))
    return id if isinstance(id, str) and id else path.stem


def _entry(file: _File, problem: str | None, today: dt.date,
           registry: Registry) -> wire.Procedure:
    document = file.report.document if file.report else None
    if document is None:
        located = file.report.located if file.report else Located(str(file.path), "")
        title, owner = located.at(("title",)), located.at(("owner",))
        return wire.Procedure(
            id=file.id, title=title if isinstance(title, str) else file.id, kind="runbook",
            owner=owner if isinstance(owner, str) else "", contacts=[], reviewed="", review=None,
            use_when="", good_after="", for_alerts=[], params=[], steps=[], sha256=file.sha256,
            problem=problem or f"{file.path}: it cannot be read")
    return wire.Procedure(
        id=document.id, title=document.title, kind=document.kind, owner=document.owner,
        contacts=[{"name": c.name, "via": c.via} for c in document.contacts],
        reviewed=document.reviewed.isoformat(), review=review(document, today),
        use_when=document.use_when, good_after=document.good_after,
        for_alerts=list(document.for_alerts),
        params=[wire_param(name, param) for name, param in document.params.items()],
        steps=outline(document, registry), sha256=file.sha256, problem=problem)


def outline(document: Document, registry: Registry | None = None) -> list[wire.StepOutline]:
    """The steps as they are written, templates and all. With the registry, a step that does not say
    its effect has its action's."""
    return [wire.StepOutline(
        id=step.id, title=step.title, kind=step.kind, command=command(step),
        effect=_effect(step, registry),
        confirm=step.confirm if isinstance(step.confirm, str) else "typed",
        approvals=step.approvals.min if step.approvals else 0,
        undo=command(step.undo) if step.undo else None) for step in document.steps]


def _effect(step: Step, registry: Registry | None) -> Effect:
    if step.kind == "manual":
        return "none"
    action = registry.get(step.use) if registry is not None and step.use else None
    return step.effect if action is None or "effect" in step.model_fields_set else action.effect


def command(operation: Step | Operation) -> str:
    """What will be done, in one line, before it is rendered."""
    if isinstance(operation, Step) and operation.manual is not None:
        return operation.manual
    if operation.use is not None:
        given = " ".join(f"{key}={value}" for key, value in operation.with_.items())
        return f"{operation.use} {given}".strip()
    if isinstance(operation.shell, str):
        return operation.shell.strip()
    return " ".join(word if has_template(word) else shlex.quote(word)
                    for word in operation.shell or [])


def writable_by_others(path: Path) -> str | None:
    """Why others than root and this process's user could change what is at a path; None if not.

    Looks at the path and at every directory above it. A sticky directory, such as /tmp, is safe for
    what is in it.
    """
    path = path.resolve()
    for place in (path, *path.parents):
        try:
            status = place.stat()
        except OSError as error:
            return f"{place} cannot be looked at: {(error.strerror or str(error)).lower()}"
        said = _loose(place, status, sticky=place != path)
        if said:
            return said
    return None


def _loose(place: Path, status: os.stat_result, *, sticky: bool) -> str | None:
    if status.st_uid not in (0, os.geteuid()):
        return f"{place} belongs to another user (uid {status.st_uid})"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not (
            sticky and status.st_mode & stat.S_ISVTX):
        who = "everyone" if status.st_mode & stat.S_IWOTH else "its group"
        return f"{place} can be changed by {who}; a system engine trusts only what admins can change"
    return None


def _writable_below(path: Path, root: Path) -> str | None:
    """As `writable_by_others`, for a file and the directories between it and the library's."""
    for place in (path, *path.parents):
        if place == root:
            return None
        try:
            said = _loose(place, place.stat(), sticky=False)
        except OSError as error:
            return f"{place} cannot be looked at: {(error.strerror or str(error)).lower()}"
        if said:
            return said
    return None
