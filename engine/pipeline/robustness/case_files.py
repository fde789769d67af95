"""The hard cases of a model in its project's folder: `cases/<id>.yaml` with `cases/<id>.parquet` beside it.

A case is written by `add` and read with every problem at its line. `record` sets its times in the lines of
the file itself, so that comments and the order of keys stay as people left them.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine.errors import Conflict, DocumentError, UsageError
from engine.located import Located, Problem, load, validate
from engine.pipeline.robustness.behaviour import AnyExpectation, Directional, Invariant, Near
from engine.pipeline.robustness.cases import NAME, Case, after
from engine.pipeline.robustness.changes import Put, Shift, Table

TIMES = ("passed_at", "failed_at", "fixed_at")


@dataclass(frozen=True, eq=False)
class Library:
    """All cases of a folder in the order of their ids, and the rows of each."""

    cases: tuple[Case, ...]
    rows: Mapping[str, Table]


def read(folder: Path) -> Library:
    """All cases; none where there is no folder. Raises DocumentError with every problem of every file."""
    problems: list[Problem] = []
    cases, rows = [], {}
    for path in sorted(folder.glob("*.yaml")):
        case, table, found = read_case(path)
        problems += found
        if case is not None and table is not None:
            cases.append(case)
            rows[case.id] = table
    stray = {p.stem for p in folder.glob("*.parquet")} - {p.stem for p in folder.glob("*.yaml")}
    problems += [Problem(str(folder / f"{name}.parquet"), 0, 0, "no case is written for these rows",
                         "remove the file, or put its case back") for name in sorted(stray)]
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise DocumentError(f"the hard cases have {count}", [str(one) for one in problems], where=str(folder))
    return Library(tuple(cases), rows)


def read_case(path: Path) -> tuple[Case | None, Table | None, list[Problem]]:
    """One case with its rows, or every problem of it."""
    located = load(path)
    if located.value is None:
        return None, None, located.problems
    case, found = validate(Case, located)
    problems = [*located.problems, *found]
    if case is None:
        return None, None, problems
    table, more = _rows(path, case, located)
    problems += [*_beyond_the_types(path, case, located, table), *more]
    return (None, None, problems) if problems else (case, table, [])


def add(folder: Path, id_: str, rows: Table, expect: Sequence[Mapping[str, Any]], *, title: str, why: str,
        source: str, by: str, now: datetime, must: bool = False) -> Case:
    """Write a case with its rows. `expect` as in a file. Raises UsageError for what is wrong with it, and
    Conflict when the id is taken; then nothing is written."""
    import pyarrow.parquet as pq

    if not re.fullmatch(NAME, id_):
        raise UsageError(f"{id_!r} cannot be a case's id",
                         hint="small letters, digits and hyphens, as in late-night")
    path, beside = folder / f"{id_}.yaml", folder / f"{id_}.parquet"
    if path.exists() or beside.exists():
        raise Conflict(f"there is a case {id_} already", where=str(path), hint="choose another id")
    if not rows.num_rows:
        raise UsageError("a case needs at least one row")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".adding-") as room:
        made, text = Path(room) / beside.name, Path(room) / path.name
        pq.write_table(rows.replace_schema_metadata(None), made)
        written = {
            "case": 1, "id": id_, "title": title, "why": why, "source": source, "added_by": by,
            "added_at": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), "rows": beside.name,
            "sha256": _digest(made), "expect": [dict(one) for one in expect]}
        if must:
            written["must"] = True
        text.write_text(_yaml(written), encoding="utf-8")
        case, _, problems = read_case(text)
        if case is None:
            raise UsageError(f"the case {id_} cannot be written: {problems[0].message}",
                             hint=problems[0].hint)
        _synced(made)
        _synced(text)
        made.rename(beside)  # the rows first: a case without its rows would be a problem for everybody
        text.rename(path)
    return case


def record(folder: Path, case: Case, passed: bool, now: datetime) -> Case:
    """Set a case's times after a model that is kept has run it. Raises Conflict when the file is no longer
    the case that was run."""
    path = folder / f"{case.id}.yaml"
    there, _, problems = read_case(path)
    if there != case:
        raise Conflict(f"the case {case.id} has changed since it was run", where=str(path),
                       hint=problems[0].message if problems else "run the cases again")
    new = after(case, passed, now)
    if new == case:
        return case
    text = path.read_text(encoding="utf-8")
    for name in TIMES:
        if (value := getattr(new, name)) != getattr(case, name):
            text = _with_time(text, name, value)
    with tempfile.NamedTemporaryFile("w", dir=folder, prefix=".recording-", suffix=".yaml", encoding="utf-8",
                                     delete=False) as file:
        file.write(text)
    made = Path(file.name)
    try:
        found, problems = validate(Case, load(made))
        if found != new:
            raise Conflict(f"the times of the case {case.id} cannot be set in its file", where=str(path),
                           hint=problems[0].message if problems else "write them as `failed_at: 2026-…Z`")
        made.chmod(path.stat().st_mode)
        _synced(made)
        made.replace(path)
    finally:
        made.unlink(missing_ok=True)
    return new


def _with_time(text: str, name: str, value: str) -> str:
    """A top-level line `name: value`, replaced or added at the end."""
    line = f"{name}: {value}"
    pattern = re.compile(rf"^{name}:[^#\n]*?(?P<rest>\s*(#.*)?)$", re.MULTILINE)
    if pattern.search(text):
        return pattern.sub(lambda match: line + match["rest"], text, count=1)
    return f"{text}{'' if text.endswith(chr(10)) else chr(10)}{line}\n"


def _rows(path: Path, case: Case, located: Located) -> tuple[Table | None, list[Problem]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if Path(case.rows).name != case.rows or not case.rows.endswith(".parquet"):
        return None, [located.problem(("rows",), "`rows` is the name of a Parquet file beside this one")]
    beside = path.with_name(case.rows)
    if not beside.is_file():
        return None, [located.problem(("rows",), f"there is no file {case.rows} beside this one")]
    if _digest(beside) != case.sha256:
        return None, [located.problem(("sha256",), f"{case.rows} is not the file this case was written for",
                                      "put it back from version control; a case's rows never change")]
    try:
        table = pq.read_table(beside)
    except (pa.ArrowException, OSError) as error:
        return None, [located.problem(("rows",), f"{case.rows} cannot be read: {str(error).splitlines()[0]}")]
    return (table, []) if table.num_rows else (None, [located.problem(("rows",), f"{case.rows} has no rows")])


def _beyond_the_types(path: Path, case: Case, located: Located, table: Table | None) -> Iterator[Problem]:
    if case.id != path.stem:
        yield located.problem(("id",), f"the id is {case.id}, and the file is called {path.name}",
                              "the two must be the same")
    if case.fixed_at is not None and case.failed_at is None:
        yield located.problem(("fixed_at",), "it was fixed and has never failed", "add `failed_at`")
    for name in TIMES:
        value = getattr(case, name)
        if value is not None and value < case.added_at:
            yield located.problem((name,), f"`{name}` is before the case was added")
    if table is None:
        return
    hidden = {one.column for one in case.expect if isinstance(one, Near)}
    shown = ", ".join(name for name in table.column_names if name not in hidden)
    for at, one in enumerate(case.expect):
        for name in _columns(one):
            if name not in table.column_names:
                yield located.problem(("expect", at), f"the rows have no column {name}", f"they have {shown}")


def _columns(expected: AnyExpectation) -> list[str]:
    """The columns that an expectation names."""
    if isinstance(expected, Near):
        return [expected.column]
    if not isinstance(expected, Invariant | Directional):
        return []
    change = expected.change
    return [change.column] if isinstance(change, Put | Shift) else change.columns


def _yaml(value: Mapping[str, Any]) -> str:
    import yaml

    return str(yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True, width=100))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _synced(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
