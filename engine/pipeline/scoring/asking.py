"""One callable for a model, whichever way the project has it asked: from a table to checked scores."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import UsageError
from engine.pipeline.child import environments, process, views
from engine.pipeline.child.views import View
from engine.pipeline.project.model import Entry, Limits
from engine.pipeline.robustness.changes import Table
from engine.pipeline.scoring.commanded import ModelCommand
from engine.pipeline.scoring.process import ModelProcess
from engine.pipeline.scoring.scores import ModelFailed, checked
from engine.pipeline.stages.contract import Work
from engine.pipeline.statistics.labelled import Task
from engine.reproduce import seeds
from engine.words import nearest

if TYPE_CHECKING:
    from engine.pipeline.statistics.labelled import Floats

ONNX = "engine.pipeline.scoring.onnx_model:load"
ENGINE = Path(__file__).parents[3]
CHUNK = 65_536  # rows that are sent at once
LOG = "scoring.log"


@dataclass(frozen=True)
class Shown:
    """What a model is shown of a table: the columns of `schema`, in its order and types."""

    schema: Any
    task: Task
    classes: tuple[str, ...]


class Scorer:
    """A model that answers. Call it with a table that has at least its columns; `name` is it in a sentence,
    such as "the champion". Raises ModelFailed, which names the column or row at fault."""

    def __init__(self, raw: ModelProcess | ModelCommand, shown: Shown, name: str) -> None:
        self.raw, self.name, self._task, self._classes = raw, name, shown.task, shown.classes
        whole = shown.schema
        self.schema = whole if raw.columns is None else _restricted(whole, raw.columns, raw.where)

    def __call__(self, rows: Table) -> Floats:
        """Scores (n,), of a multiclass task (n, classes)."""
        import numpy as np

        seen = self.conformed(rows)
        parts = [self.raw.scores(seen.slice(at, CHUNK)) for at in range(0, max(seen.num_rows, 1), CHUNK)]
        return checked(np.concatenate(parts), rows.num_rows, self._task, self._classes, self.raw.where)

    def conformed(self, rows: Table) -> Table:
        """The model's columns of a table, in its order and types."""
        import pyarrow as pa

        columns = []
        for field in self.schema:
            if field.name not in rows.column_names:
                raise ModelFailed(f"the rows have no column {field.name}, which {self.name} wants",
                                  where=self.raw.where, hint=nearest(field.name, rows.column_names))
            column = rows.column(field.name)
            if column.type != field.type:
                try:
                    column = column.cast(field.type)
                except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                    raise ModelFailed(
                        f"the column {field.name} is {column.type}, and {self.name} is shown {field.type}: "
                        f"{str(error).splitlines()[0]}", where=self.raw.where) from error
            columns.append(column)
        return pa.table(columns, schema=self.schema)

    def hold(self, rows: Table, least: int) -> None:
        """Keep rows for `raw.measure`: at least so many, repeated where there are fewer."""
        import numpy as np

        seen = self.conformed(rows)
        if seen.num_rows < least:
            seen = seen.take(np.arange(least) % seen.num_rows)
        self.raw.hold(seen)


@contextlib.contextmanager
def opened(work: Work, stage: str, model: Path, shown: Shown, name: str = "the model") -> Iterator[Scorer]:
    """The model as this project has it asked, ready to answer, in a process of its own that ends with the
    block. `model` is a file or folder. Raises ModelFailed when it cannot be loaded, UsageError when there is
    no way to ask it."""
    entry, limits = work.project.evaluate.entry, work.project.evaluate.limits
    where, log = f"{stage}: {model.name}", work.output / LOG
    with tempfile.TemporaryDirectory(prefix=".scoring-", dir=work.output.parent) as aside:
        room = Path(aside)
        if entry is None:
            with ModelProcess(Path(sys.executable), ONNX, onnx_file(model, stage), ENGINE,
                              _variables(Path(sys.executable), room, work.project.seed), limits, log, where
                              ) as raw:
                yield Scorer(raw, shown, name)
            return
        python = environments.of(work)
        with views.of(work, "code") as view, _in_its_words(view, log), \
                _own(entry, python, model, view, work.project.seed, limits, room, log, where) as own:
            yield Scorer(own, shown, name)


def _own(entry: Entry, python: Path, model: Path, view: View, seed: int, limits: Limits, room: Path,
         log: Path, where: str) -> ModelProcess | ModelCommand:
    if entry.function is None:
        return ModelCommand(entry, python, model, view, seed, limits, room, log, where)
    return ModelProcess(python, entry.function, model, view.folder, _variables(python, room, seed), limits,
                        log, where)


@contextlib.contextmanager
def _in_its_words(view: View, log: Path) -> Iterator[None]:
    """What the project's code says names the project's files."""
    try:
        yield
    except ModelFailed as error:
        view.explain(error)
        raise
    finally:
        view.retell(log)


def onnx_file(model: Path, stage: str) -> Path:
    """The ONNX file that is meant. Raises UsageError where there is none, or several."""
    if model.is_file() and model.suffix == ".onnx":
        return model
    found = sorted(model.glob("*.onnx")) if model.is_dir() else []
    if len(found) != 1:
        held = ", ".join(one.name for one in found) or "none"
        raise UsageError(f"without `evaluate.entry` a model is one ONNX file, and {model.name} has {held}",
                         where=stage, hint="write model.onnx in training, or give `evaluate.entry.function`, "
                                           "which loads what training writes")
    return found[0]


def _variables(python: Path, room: Path, seed: int) -> dict[str, str]:
    return process.variables(python, room, seeds.environment(seed))


def _restricted(schema: Any, columns: Sequence[str], where: str) -> Any:
    """The part of a schema that a model names. Raises ModelFailed for a column that is not there."""
    import pyarrow as pa

    names = list(schema.names)
    missing = [name for name in columns if name not in names]
    if missing:
        many = len(missing) > 1
        raise ModelFailed(f"the model wants the column{'s' if many else ''} {', '.join(missing)}, which the "
                          f"data {'do' if many else 'does'} not have among its features: {', '.join(names)}",
                          where=where, hint=nearest(missing[0], names))
    return pa.schema([schema.field(name) for name in columns])
