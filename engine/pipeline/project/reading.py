"""Reading `opsdeck.pipeline.yaml`: every problem at once, each with its line and what to write instead."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import replace
from pathlib import Path

from engine.errors import DocumentError, OpsdeckError
from engine.located import MAX_BYTES, Located, Problem, load, load_bytes, validate
from engine.pipeline.project import places, rules, unlisted
from engine.pipeline.project.layout import FILE, file_of, is_project
from engine.pipeline.project.model import NAME, Project

__all__ = ["FILE", "SCHEMA", "file_of", "is_project", "look", "parse", "problems", "read", "refusal",
           "schema", "shown"]

SCHEMA = Path(__file__).with_name("schema.json")

# What to write for a key that is missing, by the key and the section it is missing in.
_WRITE = {
    ("opsdeck", ""): "opsdeck: 1",
    ("project", ""): "project: flight-delays",
    ("model", ""): "model: flight-delays",
    ("task", ""): "task: binary   (or multiclass, regression, ranking)",
    ("owner", ""): "owner: ml-platform",
    ("environment", ""): "environment: {lock: uv.lock}",
    ("data", ""): "data: {source: {path: data/rows.parquet}, label: late, holdout: {share: 0.2}}",
    ("train", ""): "train: {entry: {function: \"train:main\"}}",
    ("gates", ""): "gates: [{kind: non_inferiority, metric: log_loss, margin: 0.005}]",
    ("source", "data"): "source: {path: data/rows.parquet}   (or uri: s3://…, or command: […])",
    ("label", "data"): "label: the column that is to be predicted",
    ("holdout", "data"): "holdout: {last: 30d}   (or {share: 0.2}, or {column: split, is: test})",
    ("entry", "train"): "entry: {function: \"train:main\"}   (or {command: [python, train.py]})",
}
# How patterns are told to people.
_WORDS = {
    NAME: "lower-case letters, digits and dashes",
    r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$": "a module and a function, such as train:main",
    r"^3\.\d+(\.\d+)?$": "a version of Python in quotes, such as \"3.11\"",
    r"^\S+@sha256:[0-9a-f]{64}$": "an image by its digest, such as registry/name@sha256:… (64 hex digits)",
    r"^s3://[^/]+/.+$": "an address such as s3://bucket/key",
    r"^s3://[^/]+/?.*$": "an address such as s3://bucket/prefix",
    r"^(env|file):.+$": "where the secret is, such as env:NAME or file:/path, never the secret itself",
}


def read(folder: Path) -> Project:
    """The project of a folder (or of its file). Raises DocumentError with every problem, each as
    `file:line:column: what is wrong` and what to write instead."""
    project, found = look(folder)
    errors = [one for one in found if one.level == "error"]
    if project is None or errors:
        raise refusal(file_of(folder), errors)
    return project


def problems(folder: Path) -> list[Problem]:
    """Every problem of the project of a folder (or of its file), warnings too, in the file's order; and which
    files its code names that no stage will have."""
    path = file_of(folder)
    project, found = look(path)
    if project is not None:
        with contextlib.suppress(OSError, OpsdeckError):  # what cannot be looked at is told of already
            found += unlisted.problems(project, _load(path), path.parent)
    return _ordered(found)


def look(folder: Path) -> tuple[Project | None, list[Problem]]:
    """The project where its types hold, and every problem: of the types, of what they cannot say, and of
    paths that lead nowhere."""
    path = file_of(folder)
    project, found, located = _typed(_load(path))
    if project is not None:
        found += rules.problems(project, located)
        found += _of_places(project, located, path.parent)
    return project, _ordered(found)


def _load(path: Path) -> Located:
    """The file, but not one that a link would have read from elsewhere: what is wrong in it is told to people
    who may not read what the link leads to."""
    if path.is_file():
        with contextlib.suppress(OSError), path.open("rb") as file:
            real = Path(f"/proc/self/fd/{file.fileno()}").readlink()
            if real.is_relative_to(path.parent.resolve()):
                return load_bytes(file.read(MAX_BYTES + 1), str(path))
            return Located(str(path), "", problems=[Problem(
                str(path), 0, 0, "this is a link that leads out of the project's folder",
                "put the file itself here")])
    return load(path)


def _of_places(project: Project, located: Located, folder: Path) -> list[Problem]:
    """What a path leads to may be anything, and looking at it may be refused."""
    try:
        return list(places.problems(project, located, folder))
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        return [located.problem((), f"{error.filename or folder} cannot be looked at: {why}",
                                "look at its permissions, or correct the path")]
    except OpsdeckError as error:
        return [located.problem(("code",), error.message, error.hint)]


def parse(data: bytes | str, name: str = FILE) -> Project:
    """The project of a text, without a look at the folder. Raises DocumentError with every problem."""
    project, found, located = _typed(load_bytes(data.encode() if isinstance(data, str) else data, name))
    if project is not None:
        found += rules.problems(project, located)
    errors = [one for one in _ordered(found) if one.level == "error"]
    if project is None or errors:
        raise refusal(Path(name), errors)
    return project


def refusal(path: Path, errors: list[Problem]) -> DocumentError:
    """All problems of a project file as one error."""
    count = "1 problem" if len(errors) == 1 else f"{len(errors)} problems"
    nothing = [one for one in errors if not one.line and one.message == "there is no such file"]
    hint = "`opsdeck pipeline init` writes one to begin with" if nothing else None
    return DocumentError(f"the project file has {count}", [shown(one) for one in errors], where=str(path),
                         hint=hint)


def shown(problem: Problem) -> str:
    """`file:line:column: what is wrong`, with the hint on a line of its own."""
    place = f"{problem.file}:{problem.line}:{problem.column}" if problem.line else problem.file
    warning = "warning: " if problem.level == "warning" else ""
    text = f"{place}: {warning}{problem.message}"
    return f"{text}\n  {problem.hint}" if problem.hint else text


def schema() -> str:
    """The JSON Schema of `opsdeck.pipeline.yaml`, as shipped in `schema.json`."""
    made = Project.model_json_schema(by_alias=True)
    made["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    made["title"] = FILE
    return json.dumps(made, indent=2, sort_keys=True) + "\n"


def _typed(located: Located) -> tuple[Project | None, list[Problem], Located]:
    if located.value is None:
        return None, list(located.problems), located
    project, found = validate(Project, located)
    return project, [*located.problems, *(_said(one) for one in found)], located


def _ordered(found: list[Problem]) -> list[Problem]:
    return sorted(dict.fromkeys(found), key=lambda one: (one.file, one.line, one.column, one.message))


def _said(problem: Problem) -> Problem:
    """With what to write for a missing key, and a pattern in words."""
    missing = re.fullmatch(r"`(\w+)` is missing(?: in `(\w+)`)?", problem.message)
    if missing and problem.hint is None:
        hint = _WRITE.get((missing[1], missing[2] or ""))
        return replace(problem, hint=f"write {hint}" if hint else None)
    for pattern, words in _WORDS.items():
        if (told := f"text that matches {pattern}") in problem.message:
            return replace(problem, message=problem.message.replace(told, words))
    return problem
