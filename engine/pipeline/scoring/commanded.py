"""A model that is asked by a command of the project: rows.parquet in, predictions.parquet out.

The command runs anew for every call, so that its latencies hold an interpreter's start and an import of
libraries. It suits models that score in bulk; one that answers requests wants a function.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from engine.errors import OpsdeckError
from engine.pipeline.child import entries
from engine.pipeline.child.views import View
from engine.pipeline.project.model import Entry, Limits
from engine.pipeline.scoring.scores import ModelFailed

if TYPE_CHECKING:
    from engine.pipeline.statistics.labelled import Floats

ROWS, MODEL, PREDICTIONS = "rows.parquet", "model", "predictions.parquet"


class ModelCommand:
    """Asked as `ModelProcess` is, and raises as it does. `columns` is None: the command gets every feature.
    `room` is a folder of its own."""

    columns: tuple[str, ...] | None = None
    idle_mb = 0.0

    def __init__(self, entry: Entry, python: Path, model: Path, view: View, seed: int, limits: Limits,
                 room: Path, log: Path, where: str) -> None:
        self._room, self._model, self._log, self.where = room, model, log, where
        self._inputs, self._output = room / "inputs", room / "output"
        self._call = entries.Call(entry, "The scoring", "evaluate", python, view.folder, self._inputs,
                                  self._output, room, {}, seed, limits, room / "log.txt", view=view)
        self._held: Any = None
        self._peak_mb = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def scores(self, rows: Any) -> Floats:
        """Of a table: (n, columns of scores), unchecked."""
        return self._run(rows)[0]

    def hold(self, rows: Any) -> None:
        """Keep the rows that `measure` cuts its batches from."""
        self._held = rows

    def measure(self, batch: int, calls: int, start: int, seconds: float) -> Floats:
        """Milliseconds of whole runs of the command, from its start to its end: at most `calls`, those that
        fit into `seconds`, at least one."""
        import numpy as np

        places, until = self._held.num_rows - batch + 1, time.monotonic() + seconds
        found: list[float] = []
        for at in range(calls):
            found.append(self._run(self._held.slice((start + at * batch) % places, batch))[1])
            if time.monotonic() > until:
                break
        return np.asarray(found)

    def peak_mb(self) -> float:
        """The most that one process of the command has had resident, in MB (10^6 bytes)."""
        return self._peak_mb

    def close(self) -> None:
        for folder in (self._inputs, self._output):
            shutil.rmtree(folder, ignore_errors=True)

    def _run(self, rows: Any) -> tuple[Floats, float]:
        """The scores, and the milliseconds of the command."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.close()
        for folder in (self._inputs, self._output):
            folder.mkdir(parents=True)
        pq.write_table(rows, self._inputs / ROWS)
        (self._inputs / MODEL).symlink_to(self._model.absolute())
        try:
            ended = entries.run(self._call, lambda line: None)
        except OpsdeckError as error:
            raise ModelFailed(error.message, where=self.where, hint=error.hint or error.where) from error
        finally:
            self._keep_log()
        self._peak_mb = max(self._peak_mb, ended.peak_mb)
        try:
            table = pq.read_table(self._output / PREDICTIONS)
            columns = [column.cast(pa.float64()).to_numpy() for column in table.columns]
        except FileNotFoundError:
            raise ModelFailed(f"the command wrote no {PREDICTIONS}", where=self.where,
                              hint="it must write it into the folder that $OPSDECK_OUTPUT names") from None
        except (pa.ArrowException, OSError) as error:
            raise ModelFailed(f"{PREDICTIONS} cannot be read as numbers: {str(error).splitlines()[0]}",
                              where=self.where) from error
        if not columns:
            raise ModelFailed(f"{PREDICTIONS} has no column", where=self.where)
        return np.column_stack(columns), 1000 * ended.seconds

    def _keep_log(self) -> None:
        """What the command printed, behind what it printed before."""
        if self._call.log.exists():
            with self._log.open("ab") as log:
                log.write(self._call.log.read_bytes())
