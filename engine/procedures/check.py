"""Checking a procedure: every problem of the file at once, each with its line and a hint.

Pure but for `check_paths`, which reads the files. A document with an error never runs; one with
warnings does.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from engine.config import Policy
from engine.errors import DocumentError
from engine.located import Located, Problem, load, problems_of
from engine.procedures.actions import Registry
from engine.procedures.document import Document
from engine.procedures.draft import Draft, draft
from engine.procedures.rules import actions, flow, header, reading, steps, values

RULES = (header, steps, flow, actions, reading, values)


@dataclass(frozen=True)
class Report:
    """What was found: `document` only where there is no error; `located` for further lines."""

    document: Document | None
    problems: list[Problem]
    located: Located

    @property
    def errors(self) -> list[Problem]:
        return [problem for problem in self.problems if problem.level == "error"]

    @property
    def warnings(self) -> list[Problem]:
        return [problem for problem in self.problems if problem.level == "warning"]

    def where(self, step: str, key: str | None = None) -> str:
        """The place of a step's key for an error: "rollback-model.yaml:31, step drain"."""
        return where(self.located, step, key)


@dataclass
class Checked:
    """The outcome for several files. `files` counts procedures, also those that cannot be read."""

    files: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def errors(self) -> int:
        return sum(problem.level == "error" for problem in self.problems)

    @property
    def warnings(self) -> int:
        return len(self.problems) - self.errors


def check_document(text: str | Located, name: str, registry: Registry,
                   policy: Policy | None = None, *, today: dt.date) -> Report:
    """Every problem of one document's text; `name` is its file's name. Never raises.

    With the site's `policy`, a step that asks for less than it gets a warning.
    """
    located = text if isinstance(text, Located) else load(text, name)
    if located.value is None:
        return Report(None, located.problems, located)
    document, refused = _document(located)
    found = draft(located, registry, today, policy)
    found.document = document
    problems = [*located.problems, *refused, *_apply(found)]
    unique = sorted(dict.fromkeys(problems), key=lambda p: (p.line, p.column, p.message))
    if any(problem.level == "error" for problem in unique):
        document = None
    return Report(document, unique, located)


def _document(located: Located) -> tuple[Document | None, list[Problem]]:
    try:
        return Document.model_validate(located.value), []
    except ValidationError as error:
        return None, problems_of(error, located, Document)


def _apply(found: Draft) -> Iterator[Problem]:
    for rule in RULES:
        yield from rule.problems(found)


def parse(text: str, name: str, registry: Registry | None = None, *,
          today: dt.date | None = None) -> Document:
    """The document of a text. Raises DocumentError with every problem.

    Without a registry nothing is checked across steps: that is for a text that was checked before,
    such as one a run is pinned to. With one it is checked in full, as of `today` (UTC).
    """
    if registry is not None:
        report = checked(text, name, registry, today=today or dt.datetime.now(dt.UTC).date())
        assert report.document is not None
        return report.document
    located = load(text, name)
    document, problems = _document(located) if located.value is not None else (None, [])
    problems = [*located.problems, *problems]
    if document is None or problems:
        raise _error(name, problems)
    return document


def checked(text: str, name: str, registry: Registry, policy: Policy | None = None, *,
            today: dt.date) -> Report:
    """As `check_document`; raises DocumentError with every problem if there is an error."""
    report = check_document(text, name, registry, policy, today=today)
    if report.document is None:
        raise _error(name, report.errors)
    return report


def _error(name: str, problems: list[Problem]) -> DocumentError:
    count = "one problem" if len(problems) == 1 else f"{len(problems)} problems"
    return DocumentError(f"the procedure {name} has {count}", [str(p) for p in problems],
                         hint=f"`opsdeck check {name}` shows them with hints")


def where(located: Located, step: str, key: str | None = None) -> str:
    """The place of a step, or of a key of it, in a located document."""
    value = located.value if isinstance(located.value, dict) else {}
    written = value.get("steps")
    for index, item in enumerate(written if isinstance(written, list) else []):
        if isinstance(item, dict) and item.get("id") == step:
            path = ("steps", index, key or "id")
            return f"{located.name}:{located.line_of(path)}, step {step}"
    return f"{located.name}, step {step}"


def check_paths(paths: Iterable[Path], registry: Registry, policy: Policy | None = None, *,
                today: dt.date) -> Checked:
    """Every problem of every `*.yaml` and `*.yml` file named or below a directory named. Ids given
    twice are problems, and so are paths that are not there and directories without procedures."""
    result = Checked()
    ids: dict[str, Problem] = {}
    for path in paths:
        files = [path] if not path.is_dir() else procedures_in(path)
        if not files:
            result.problems.append(Problem(str(path), 0, 0, "there is no procedure in it",
                                           "procedures are files that end in .yaml"))
        for file in files:
            report = check_document(load(file), str(file), registry, policy, today=today)
            result.files += file.exists()
            result.problems.extend(report.problems)
            result.problems.extend(_given_twice(report.located, ids))
    return result


def _given_twice(located: Located, ids: dict[str, Problem]) -> Iterator[Problem]:
    id = located.at(("id",))
    if not isinstance(id, str):
        return
    here = located.problem(("id",), f"the id `{id}` is taken", None)
    first = ids.setdefault(id, here)
    if first is not here and first.file != here.file:
        yield located.problem(("id",), f"the id `{id}` is taken",
                              f"it is in {first.file}:{first.line} too")


def procedures_in(directory: Path) -> list[Path]:
    """The procedure files below a directory, hidden ones left out, sorted."""
    found = []
    for path in directory.rglob("*.y*ml"):
        inside = path.relative_to(directory).parts
        if path.suffix in (".yaml", ".yml") and not any(p.startswith(".") for p in inside):
            found.append(path)
    return sorted(found)
