"""The held-out rows as the stages of scoring need them: what the model sees, the labels, groups, segments."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import OpsdeckError, UsageError
from engine.pipeline.project.model import Project
from engine.pipeline.releasing.served import features
from engine.pipeline.robustness.changes import Table, is_text
from engine.pipeline.scoring.asking import Shown
from engine.pipeline.statistics.evaluation import segments_of
from engine.pipeline.statistics.labelled import Labelled, labelled

if TYPE_CHECKING:
    from engine.pipeline.statistics.labelled import Bools, Floats

TEST, TRAIN = "test.parquet", "train.parquet"


@dataclass(frozen=True, eq=False)
class HeldOut:
    """`rows` of test.parquet. `segments`: masks by name, of every value that the columns have there;
    `absent`: values that only training has, which nothing can be said of."""

    project: Project
    rows: Table
    shown: Shown
    segments: Mapping[str, Bools]
    absent: tuple[str, ...]
    labels: Any
    groups: Any
    stage: str

    def labelled(self, scores: Floats) -> Labelled:
        """The rows with a model's scores. Raises UsageError for labels that are wrong or all the same."""
        data, where = self.project.data, f"{self.stage}: column {self.project.data.label}"
        with located(where):
            found = labelled(self.project.task, self.labels, scores, classes=self.shown.classes,
                             groups=self.groups)
        _several(found, where, data.label)
        return found


@contextlib.contextmanager
def located(where: str) -> Iterator[None]:
    """Errors of pure parts get a place: the stage, and the column it is about."""
    try:
        yield
    except OpsdeckError as error:
        error.where = error.where or where
        raise


def read(project: Project, data: Path, stage: str) -> HeldOut:
    """From the output of the stage `data`. Raises UsageError for an empty file or a column that is missing,
    naming the stage and the column."""
    rows = _table(data / TEST, stage)
    columns = project.data
    for name in (columns.label, columns.group, *columns.segments, *columns.features):
        if name is not None and name not in rows.column_names:
            raise UsageError(f"{TEST} has no column {name}", where=f"{stage}: {TEST}",
                             hint=f"it has {', '.join(rows.column_names)}")
    if not rows.num_rows:
        raise UsageError("there are no held-out rows to score", where=f"{stage}: {TEST}",
                         hint="look at `data.holdout`: it may leave none")
    names = features(project, rows.column_names)
    if not names:
        raise UsageError("no column is left that the model could see", where=f"{stage}: {TEST}",
                         hint="name them: `data.features`")
    others = _columns(data / TRAIN, [columns.label, *columns.segments])
    labels, classes = _labels(project, rows, others, stage)
    segments: dict[str, Any] = {}
    absent: list[str] = []
    for name in columns.segments:
        with located(f"{stage}: column {name}"):
            segments |= segments_of(name, plain(rows, name))
        if name in others:
            learned = {f"{name}={'' if one is None else one}" for one in others[name]}
            absent += sorted(learned - segments.keys())[:20]
    import pyarrow as pa

    shown = Shown(pa.schema([_undictionaried(rows.schema.field(name)) for name in names]), project.task,
                  classes)
    groups = None if columns.group is None else plain(rows, columns.group)
    return HeldOut(project, rows, shown, segments, tuple(absent), labels, groups, stage)


def plain(rows: Table, name: str) -> Any:
    """A column as an array of numbers or objects, null as NaN or None."""
    column = rows.column(name)
    if _is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.to_numpy()


def _labels(project: Project, rows: Table, others: Mapping[str, list[Any]], stage: str
            ) -> tuple[Any, tuple[str, ...]]:
    """The labels, and the classes of a task that has some: those the project names, else what occurs."""
    import numpy as np

    name = project.data.label
    labels = plain(rows, name)
    missing = int(rows.column(name).null_count)
    if missing:
        raise UsageError(f"{missing:,} of {rows.num_rows:,} held-out rows have no label",
                         where=f"{stage}: column {name}",
                         hint="rows without a label say nothing about a model: leave them out of the data")
    if project.task not in ("binary", "multiclass"):
        return labels, ()
    if project.evaluate.classes:
        return labels, tuple(project.evaluate.classes)
    seen = {one for one in [*others.get(name, []), *np.unique(labels).tolist()] if one is not None}
    if is_text(rows.schema.field(name).type):
        return labels, tuple(sorted(str(one) for one in seen))
    if project.task == "binary":
        return np.asarray(labels, dtype=np.float64), ("0", "1")
    return labels, tuple(str(at) for at in range(int(max(seen, default=0)) + 1))


def _several(found: Labelled, where: str, column: str) -> None:
    import numpy as np

    if found.task in ("binary", "multiclass") and len(np.unique(found.labels)) < 2:
        only = found.classes[int(found.labels[0])]
        raise UsageError(f"every one of the {len(found):,} held-out rows is of the class {only}, so that "
                         "nothing tells a good model from a bad one", where=where,
                         hint=f"hold out more rows, or look at how {column} is made")


def _table(path: Path, stage: str) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path)
    except FileNotFoundError:
        raise UsageError(f"the stage data has left no {path.name}", where=f"{stage}: {path}",
                         hint="run it again") from None
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path.name} cannot be read: {str(error).splitlines()[0]}",
                         where=f"{stage}: {path}") from error


def _columns(path: Path, names: list[str]) -> dict[str, list[Any]]:
    """The different values of columns of the training rows; none where they are not there."""
    import pyarrow.parquet as pq

    if not path.is_file():
        return {}
    there = [name for name in dict.fromkeys(names) if name in pq.read_schema(path).names]
    table = pq.read_table(path, columns=there)
    return {name: table.column(name).unique().to_pylist() for name in there}


def _is_dictionary(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_dictionary(kind))


def _undictionaried(field: Any) -> Any:
    return field.with_type(field.type.value_type) if _is_dictionary(field.type) else field
