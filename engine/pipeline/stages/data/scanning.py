"""The first look at a table: its columns by the project file, and label, time, key and group of every row."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine.located import did_you_mean
from engine.pipeline.expectations.model import Finding
from engine.pipeline.expectations.source import Source
from engine.pipeline.project.columns import features, roles
from engine.pipeline.project.model import Data, Project
from engine.pipeline.stages.data import overlap
from engine.pipeline.stages.data.clock import Clock
from engine.pipeline.stages.data.labels import Labels
from engine.pipeline.stages.data.naming import counted, first_row, found, listed
from engine.pipeline.stages.data.opening import batches

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]
    Floats = NDArray[np.float64]
    Hashes = NDArray[np.uint64]
    Times = NDArray[np.int64]

MOST_VALUES = 1000  # of the holdout's column that are counted, for a sentence


@dataclass
class Scan:
    """Of `rows` rows: `labels` (rows,) as `Labels.done` gives them; `times`, `groups`, `keys` (rows,) where
    the project file names such columns; `marked`: whether the holdout's column has its value."""

    rows: int
    label: Labels
    labels: Floats
    clock: Clock | None = None
    times: Times | None = None
    groups: Hashes | None = None
    keys: Hashes | None = None
    marked: Bools | None = None
    values: Counter[Any] = field(default_factory=Counter)
    without: dict[str, int] = field(default_factory=dict)
    first_without: dict[str, int] = field(default_factory=dict)


def columns(project: Project, source: Source, name: str) -> list[Finding]:
    """Columns that the project file names and the table lacks, and a label that can be none."""
    there, problems, seen = source.schema.names, [], set()
    for column, key in roles(project.data):
        if column not in there and column not in seen:
            seen.add(column)
            free = [one for one in there if one not in {name for name, _ in roles(project.data)}]
            hint = did_you_mean(column, free)
            hint = hint[0].upper() + hint[1:] if hint.startswith("did you") else (
                f"It has {listed(list(there), 12)}.")
            problems.append(found("missing column", column,
                                  f"There is no column {column} in {name}, which {key} names. {hint}",
                                  hard=True, expected=column, seen=listed(list(there), 12)))
    if problems:
        return problems
    schema = source.schema
    data = project.data
    if (bad := Labels.of(data.label, project.task, schema.field(data.label).type).usable(name)) is not None:
        problems.append(bad)
    if data.time is not None and Clock.of(data.time, kind := schema.field(data.time).type) is None:
        problems.append(found("time", data.time, f"The time {data.time} of {name} holds {kind}, not times.",
                              hard=True, expected="a timestamp, a date, or text in ISO 8601", seen=str(kind)))
    if not features(data, there):
        problems.append(found("missing column", "every column", f"No feature is left in {name}: every column "
                              "has another part.", hard=True, expected="a column to learn from",
                              seen=listed(list(there), 12)))
    return problems


def scan(project: Project, source: Source) -> Scan:
    """Read the few columns that decide the split, in one pass."""
    import numpy as np

    data = project.data
    wanted = list(dict.fromkeys([data.label, *([data.time] if data.time else []), *data.key,
                                 *([data.group] if data.group else []),
                                 *([data.holdout.column] if data.holdout.column else [])]))
    label = Labels.of(data.label, project.task, source.schema.field(data.label).type)
    found_clock = Clock.of(data.time, source.schema.field(data.time).type) if data.time else None
    made = Scan(0, label, np.zeros(0), found_clock, without=dict.fromkeys(
        [*data.key, *([data.group] if data.group else [])], 0))
    parts: dict[str, list[Any]] = {"times": [], "groups": [], "keys": [], "marked": []}
    for batch in batches(source, wanted, raw=data.time):
        before, made.rows = made.rows, made.rows + batch.num_rows
        label.read(batch.column(data.label))
        if found_clock is not None:
            parts["times"].append(found_clock.read(batch.column(data.time)))
        for name in made.without:
            empty = batch.column(name)
            if empty.null_count and name not in made.first_without:
                gaps = empty.is_null().to_numpy(zero_copy_only=False)
                made.first_without[name] = before + int(gaps.argmax())
            made.without[name] += empty.null_count
        if data.group is not None:
            parts["groups"].append(overlap.hashed(batch.column(data.group)))
        if data.key:
            parts["keys"].append(overlap.together([overlap.hashed(batch.column(one)) for one in data.key]))
        if data.holdout.column is not None:
            parts["marked"].append(_marked(batch.column(data.holdout.column), data, made.values))
    if found_clock is not None and found_clock.zoned and not found_clock.text:
        found_clock.written_as(source.texts(found_clock.column))
    made.labels = label.done()
    for key, given in parts.items():
        if given:
            setattr(made, key, np.concatenate(given))
    return made


def _marked(column: Any, data: Data, values: Counter[Any]) -> Bools:
    """Whether each row has the holdout's value. A number is the same written as text: a CSV knows no more."""
    import numpy as np

    wanted = data.holdout.value
    held = np.zeros(len(column), dtype=bool)
    encoded = column if hasattr(column, "dictionary") else column.dictionary_encode()
    at = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    for index, value in enumerate(encoded.dictionary.to_pylist()):
        here = at == index
        if len(values) < MOST_VALUES or value in values:
            values[value] += int(here.sum())
        same = value == wanted and isinstance(value, bool) == isinstance(wanted, bool)
        if same or str(value) == str(wanted):
            held |= here
    return held


def of_rows(project: Project, made: Scan, name: str, now: Any) -> list[Finding]:
    """What is wrong with times, keys and groups of the rows themselves."""
    data, problems = project.data, []
    if made.clock is not None:
        from_newest = bool(data.holdout.last or data.window.last or data.window.half_life)
        problems += made.clock.problems(name, now, counted_from=from_newest)
    for column, number in made.without.items():
        if number:
            role = "group" if column == data.group else "key"
            problems.append(found(
                "group", column, f"The {role} {column} of {name} has no value in {counted(number, 'row')}"
                f"{first_row(made.first_without.get(column))}: "
                f"{'which rows belong together' if role == 'group' else 'which row it is'} cannot be told.",
                hard=True, expected="a value in every row", seen=counted(number, "row") + " without",
                effect=number / made.rows, measure="share of rows"))
    return problems
