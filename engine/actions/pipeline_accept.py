"""What a person accepts of a run's data goes into the project's expectations, with name and reason."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import json
from pathlib import Path
from typing import Any

from engine import durable
from engine.actions.pipeline import Staged, folder_of, home_of
from engine.errors import ActionFailed, Conflict, DocumentError, NotFound, UsageError
from engine.pipeline.building import places
from engine.pipeline.expectations.accepting import accept
from engine.pipeline.expectations.model import Expectations, Finding
from engine.pipeline.expectations.writing import dumps, loads
from engine.pipeline.project.model import Project
from engine.pipeline.project.reading import read
from engine.procedures.actions import Action, Context, Params, Preview

LARGEST = 16 << 20  # bytes of a file of findings


class Acceptance(Params):
    """`project` and `folder` as of the data stage. `by` and `reason`: who accepts what is suspicious, and
    why; where there is nothing of the kind they may be empty."""

    project: str
    folder: str = ""
    by: str = ""
    reason: str = ""


async def _accept(context: Context, params: Acceptance) -> dict[str, Any]:
    """Effect idempotent: what is accepted already is left as it is. What a first run has learned is put in
    place as it is, whoever runs it, for nothing was expected before. Raises UsageError without a name or a
    reason, Conflict when the expectations changed since the data was checked, ActionFailed when the file
    cannot be written: then it is as it was."""
    return await asyncio.to_thread(_accepted, context, params)


def _accepted(context: Context, params: Acceptance) -> dict[str, Any]:
    path, text, found = _look(context, params)
    findings = [one for one in found.findings if one.severity == "suspicious"]
    told = {"expectations": str(path), "accepted": len(findings), "learned": found.learned,
            "by": params.by.strip(), "reason": params.reason.strip(),
            "findings": [one.sentence for one in findings]}
    if findings and not (params.by.strip() and params.reason.strip()):
        raise UsageError(f"{len(findings)} findings wait to be accepted, and who accepts them is not said."
                         if not params.by.strip() else "Findings are accepted with a reason.",
                         hint="The step gives `by` and `reason`, of the person who looked at them.")
    if not findings and not found.learned:
        return {**told, "changed": False}
    in_place = text == found.base if not findings else text is not None and _holds(
        text, findings, params, path)
    if in_place:
        return {**told, "changed": False}
    if _digest(text) != found.checked:
        raise Conflict(f"{path.name} changed since the data was checked.", where=str(path),
                       hint="Run the data stage again, and look at what it finds now.")
    expectations = loads(found.base, path.name)
    at = dt.datetime.fromtimestamp(context.clock(), dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    # A column that goes takes its keys along, which moves the places of others.
    for one in sorted(findings, key=lambda one: one.kind == "missing column"):
        expectations = accept(expectations, one, params.by, params.reason, at)
    _write(path, dumps(expectations) if findings else found.base.decode("utf-8"))
    context.log(f"{len(findings)} findings accepted into {path}" if findings else f"{path} is as learned")
    return {**told, "changed": True}


class _Found:
    """What the data stage of a run left: `checked` is the digest of the expectations that it checked
    against, None where there were none; `base` the text to accept into."""

    def __init__(self, findings: list[Finding], checked: str | None, base: bytes, learned: bool) -> None:
        self.findings, self.checked, self.base, self.learned = findings, checked, base, learned


def _look(context: Context, params: Acceptance) -> tuple[Path, bytes | None, _Found]:
    """The project's expectations file, its text (None: there is none), and what the run has found."""
    home = home_of(context)
    project = read(folder_of(context, Staged(project=params.project, folder=params.folder)))
    # Another state of the files is for one run: what is accepted goes where the project is kept.
    folder = folder_of(context, Staged(project=params.project))
    path = folder / project.data.expectations
    text = path.read_bytes() if path.exists() else None
    at = places.of(home.path, project.project)
    noted = at.result(context.run, "data")
    if noted is None:
        raise NotFound(f"the data stage of run {context.run} has come to nothing yet",
                       hint="pipeline.accept comes after pipeline.data")
    return path, text, _left(at, project, noted, text)


def _left(at: places.Places, project: Project, noted: dict[str, Any], text: bytes | None) -> _Found:
    output = at.output_of(noted)
    findings = [Finding.model_validate({key: one[key] for key in Finding.model_fields})
                for one in json.loads(_bytes(output / "findings.json", at.root))]
    learned = bool(dict(noted.get("result") or {}).get("learned"))
    record = places.read_json(output.parent / "record.json") or {}
    expected = dict(dict(record.get("fields") or {}).get("expectations") or {})
    checked = expected.get(project.data.expectations)
    base = _bytes(output / "expectations.yaml", at.root) if learned else text if text is not None else b""
    return _Found(findings, None if checked is None else str(checked), base, learned)


def _bytes(path: Path, root: Path) -> bytes:
    """A stage's file, which another user may have written: no link, no pipe, and not too large."""
    try:
        data = places.read_plain(path, root, LARGEST + 1)
    except OSError as error:
        raise ActionFailed(f"what the data stage left cannot be read: {error.strerror}", where=str(path),
                           hint="Run the data stage again.") from error
    if len(data) > LARGEST:
        raise ActionFailed(f"{path.name} is larger than {LARGEST >> 20} MiB", where=str(path))
    return data


def _holds(text: bytes, findings: list[Finding], params: Acceptance, path: Path) -> bool:
    """Whether a file has all of it already, as after an attempt that wrote it and was cut off."""
    try:
        held: Expectations = loads(text, path.name)
    except DocumentError:
        return False
    data = held.model_dump(mode="json")
    for one in findings:
        place: Any = data
        for part in one.place:
            try:
                place = place[part]
            except (KeyError, IndexError, TypeError):
                place = None
        if one.after is None:
            if place is not None:
                return False
            continue
        said = (place or {}).get("type", place) if one.kind == "new column" else place
        taken = (said or {}).get("accepted") or {}
        if taken.get("by") != params.by.strip() or taken.get("reason") != params.reason.strip():
            return False
    return True


def _digest(text: bytes | None) -> str | None:
    return None if text is None else hashlib.sha256(text).hexdigest()


def _write(path: Path, text: str) -> None:
    """With the mode that the file had."""
    try:
        durable.put(path, text.encode("utf-8"))
    except OSError as error:
        raise ActionFailed(f"{path.name} cannot be written: {error.strerror}", where=str(path),
                           hint="The engine's user needs to write the project's folder; or put what was "
                                "accepted there yourself.") from error


async def _preview(context: Context, params: Acceptance) -> Preview:
    path, text, found = await asyncio.to_thread(_look, context, params)
    number = sum(one.severity == "suspicious" for one in found.findings)
    now = f"{path.name} is not there yet" if text is None else f"{path.name} expects what it did"
    after = (f"{number} findings are accepted by {params.by or 'nobody'}" if number else
             "what was learned is in place" if found.learned else "nothing changes")
    return Preview(now, after, {"expectations": _digest(text)})


ACTIONS = [Action(
    name="pipeline.accept", effect="idempotent", params=Acceptance, run=_accept, preview=_preview,
    summary="Pipeline: accept what the data stage found suspicious, or keep what it learned",
    describe=lambda p: f"pipeline.accept {p.project}" + (f" by {p.by}: {p.reason}" if p.by else ""))]
