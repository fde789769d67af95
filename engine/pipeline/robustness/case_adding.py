"""A production request made into a hard case: found in the prediction log by its correlation id.

The log holds what its gateway was told to keep. A case needs every column that the model sees, as it was
sent, so that a request whose columns were left out, hashed or not kept is refused with what is missing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from engine.errors import NotFound, NotPermitted, UsageError
from engine.pipeline.project.model import Project
from engine.pipeline.robustness import case_files
from engine.pipeline.robustness.behaviour import AnyExpectation
from engine.pipeline.robustness.cases import Case
from engine.pipeline.robustness.changes import Table
from engine.serving.correlation import is_correlation_id

if TYPE_CHECKING:
    from engine.serving.records import Record

END = 65536  # bytes of a log's end that are looked through for the latest requests
HASHED = re.compile(r"[0-9a-f]{16}")  # as the log hashes a column: see engine.serving.records
KINDS: tuple[str, ...] = tuple(one.model_fields["kind"].default for one in get_args(AnyExpectation))


@dataclass(frozen=True, eq=False)
class Found:
    """`record` of a request, and the file it stands in. `times`: how many requests had this id; the record
    is of the newest."""

    record: Record
    path: Path
    times: int


def find(logs: Sequence[Path], correlation: str) -> Found:
    """In prediction logs and their rotated files, newest first. Raises NotFound saying where it was looked
    for, and how far back these go."""
    if not is_correlation_id(correlation):
        raise UsageError(f"{correlation[:80]!r} is no correlation id",
                         hint="1 to 64 letters, digits or ._-, as in the header x-correlation-id")
    looked: list[Path] = []
    for path in (one for log in logs for one in files(log)):
        looked.append(path)
        records = list(_records(path, correlation))
        if records:
            return Found(records[-1], path, len(records))
    if not looked:
        raise NotFound(f"there is no prediction log at {', '.join(str(one) for one in logs)}",
                       hint="name it: --log PATH, the `prediction_log.path` of the gateway's config")
    raise NotFound(f"no request with the id {correlation} is in the prediction log",
                   where=", ".join(str(one) for one in looked[:3]),
                   hint=f"its oldest record is of {_oldest(looked)}; what is older was deleted. A request is "
                        "written about a second after its answer. `opsdeck cases add PROJECT` without "
                        "--correlation shows the latest")


def latest(logs: Sequence[Path], most: int = 5) -> list[Record]:
    """The latest requests of prediction logs whose input was kept, newest first; of the end of each log that
    is written now. Raises NotPermitted for one that may not be read."""
    found = [record for log in logs if log.is_file() for record in _last(log) if record.features is not None]
    return sorted(found, key=lambda one: one.at)[-most:][::-1]


def files(log: Path) -> list[Path]:
    """A log and its rotated files, newest first; those that are there."""
    from engine.serving.log_file import LogFile

    rotated = LogFile(log, max_bytes=1, max_age_s=1, keep=1, keep_age_s=1).rotated()
    return [one for one in (log, *reversed(rotated)) if one.is_file()]


def add(folder: Path, project: Project, found: Found, expect: Sequence[Mapping[str, Any]], *, title: str,
        why: str, by: str, now: datetime, id_: str | None = None, rows: Sequence[int] = (),
        must: bool = False) -> Case:
    """Write the case into the project's `cases`. `rows`: which of the request's, all where none is named.
    Raises UsageError where the log does not hold the request's columns, Conflict for an id that is taken."""
    table = as_table(project, found.record)
    wrong = [row for row in rows if not 0 <= row < table.num_rows]
    if wrong:
        raise UsageError(f"the request has no row {wrong[0]}", hint=f"it has {table.num_rows}, from 0 on")
    if rows:
        table = table.take(list(rows))
    return case_files.add(folder / project.robustness.cases, id_ or slug(title), table, expect, title=title,
                          why=why, source=source(found.record), by=by, now=now, must=must)


def as_table(project: Project, record: Record) -> Table:
    """The request's rows, of the columns that the model sees. Raises UsageError saying what is missing."""
    import pyarrow as pa

    where = f"request {record.correlation_id}"
    if record.features is None:
        why = record.omitted or "no reason was given"
        raise UsageError(f"the log does not hold the input of this request: {why}", where=where,
                         hint="`prediction_log.fields` of the gateway's config says what is kept from now on")
    wanted = project.data.features or [name for name in record.features
                                       if name not in (project.data.label, "sample_weight")]
    missing = [name for name in wanted if name not in record.features]
    if missing:
        held = len(wanted) - len(missing)
        raise UsageError(f"the log holds {held} of the {len(wanted)} columns that the model sees; there is "
                         f"no {', '.join(missing)}", where=where,
                         hint="they were redacted (`prediction_log.redact` and `fields`), or the caller did "
                              "not send them; a case needs all")
    for name in wanted:
        values = record.features[name]
        if values and all(isinstance(one, str) and HASHED.fullmatch(one) for one in values):
            raise UsageError(f"the log holds the column {name} hashed, not as it was sent", where=where,
                             hint=f"`hash:{name}` in `prediction_log.redact` does so; the value cannot be "
                                  "had from it")
    lengths = {len(record.features[name]) for name in wanted}
    if len(lengths) != 1 or not max(lengths):
        raise UsageError("the request has no rows, or its columns have different numbers of them",
                         where=where)
    columns = {}
    for name in wanted:
        try:
            columns[name] = pa.array(record.features[name])
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise UsageError(f"the column {name} holds values of several kinds: {str(error).splitlines()[0]}",
                             where=where) from error
    return pa.table(columns)


def slug(title: str) -> str:
    """A case's id from its title. Raises UsageError for one without a letter or digit."""
    made = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60].strip("-")
    if not made:
        raise UsageError(f"no id can be made of the title {title!r}", hint="name one: --id late-night")
    return made


def source(record: Record) -> str:
    """Where a case comes from, for whoever reads it in a year."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.at))
    version = f" version {record.version}" if record.version else ""
    said = record.predictions
    answer = f"status {record.status}" if said is None else f"answered {said}"[:200]
    return f"request {record.correlation_id} to {record.service} at {at}: {record.variant}{version} {answer}"


def expectation(text: str) -> Mapping[str, Any]:
    """What `--expect` says, in YAML. Raises UsageError."""
    import yaml

    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        found = None
    if not isinstance(found, dict) or found.get("kind") not in KINDS:
        raise UsageError(f"{text!r} is no expectation", hint=f"its `kind` is {', '.join(KINDS)}; such as "
                         '"{kind: between, low: 0.7}" or "{kind: called, as: 1}"')
    return found


def _records(path: Path, correlation: str) -> Iterator[Record]:
    """Those with this id, in the order they were written. A line that is damaged is not one."""
    import msgspec

    from engine.serving.records import Record

    needle = f'"correlation_id":"{correlation}"'.encode()
    try:
        with path.open("rb") as lines:
            for line in lines:
                if needle in line:
                    try:
                        record = msgspec.json.decode(line, type=Record)
                    except msgspec.MsgspecError:
                        continue
                    if record.correlation_id == correlation:
                        yield record
    except OSError as error:
        raise _unreadable(path, error) from error


def _last(path: Path) -> Iterator[Record]:
    """Those of the last 64 KiB."""
    import msgspec

    from engine.serving.records import Record

    try:
        with path.open("rb") as lines:
            lines.seek(max(0, path.stat().st_size - END))
            for line in lines:
                try:
                    yield msgspec.json.decode(line, type=Record)
                except msgspec.MsgspecError:
                    continue  # the half of a line where it begins, or one that is being written
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> NotPermitted:
    return NotPermitted(f"the prediction log cannot be read: {error.strerror}", where=str(path),
                        hint="it belongs to the gateway's user alone; ask as that user")


def _oldest(looked: Sequence[Path]) -> str:
    for path in reversed(looked):
        with path.open("rb") as lines:
            found = re.match(rb'\{"at":([0-9.]+)', lines.read(64))
        if found:
            return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(float(found[1])))
    return "no time that can be told"
