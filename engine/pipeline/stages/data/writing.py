"""The second look at a table: train.parquet and test.parquet, and what is counted of them on the way."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.pipeline.expectations.source import Source
from engine.pipeline.project.columns import WEIGHT
from engine.pipeline.stages.data import overlap
from engine.pipeline.stages.data.clock import Clock
from engine.pipeline.stages.data.opening import batches

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]
    Floats = NDArray[np.float64]
    Hashes = NDArray[np.uint64]

GROUP = 262_144  # rows of a row group
TRAIN, TEST = "train.parquet", "test.parquet"


@dataclass(frozen=True)
class Split:
    """`train` and `held` (rows,) say where a row goes, if anywhere; `weights` (train rows,) or None."""

    train: Bools
    held: Bools
    weights: Floats | None


@dataclass
class Written:
    """`train` and `held`: `overlap.together` of features and label for each row; `sample`: an Arrow table of
    the sampled training rows; `infinite`: values by column; `clocks`: of every column of times."""

    train: Hashes
    held: Hashes
    sample: Any
    infinite: Counter[str] = field(default_factory=Counter)
    clocks: list[Clock] = field(default_factory=list)


def write(source: Source, columns: list[str], compared: list[str], split: Split, clock: Clock | None,
          sampled: Any, output: Path) -> Written:
    """Write `columns` of both parts into `output`. `compared`: the columns that rows are compared by.
    `sampled`: the numbers of the rows of the sample, rising."""
    import numpy as np
    import pyarrow as pa

    schema = pa.schema([pa.field(name, source.schema.field(name).type if clock is None or name != clock.column
                                 else clock.written(source.schema.field(name).type)) for name in columns])
    clocks = {one.name: made for one in schema
              if pa.types.is_timestamp(one.type) and (made := Clock.of(one.name, one.type)) is not None}
    train, held = _Part(output / TRAIN, schema, split.weights), _Part(
        output / TEST, schema, None if split.weights is None else np.ones(int(split.held.sum())))
    infinite: Counter[str] = Counter()
    ours: list[Hashes] = []
    theirs: list[Hashes] = []
    sample: list[Any] = []
    begin = 0
    with train, held:
        for batch in batches(source, columns, raw=clock.column if clock else None):
            end = begin + batch.num_rows
            if clock is not None and clock.column in columns:
                at = columns.index(clock.column)
                batch = batch.set_column(at, schema.field(at), clock.column_of(batch.column(at)))
            for name, one in clocks.items():
                one.read(batch.column(name))
            infinite += _infinite(batch)
            hashed = overlap.together([overlap.hashed(batch.column(name)) for name in compared])
            to_train, to_held = split.train[begin:end], split.held[begin:end]
            ours.append(hashed[to_train])
            theirs.append(hashed[to_held])
            train.add(_filtered(batch, to_train))
            held.add(_filtered(batch, to_held))
            first, last = np.searchsorted(sampled, (begin, end))
            sample.append(batch.take(pa.array(sampled[first:last] - begin)))
            begin = end
    return Written(np.concatenate(ours), np.concatenate(theirs), pa.Table.from_batches(sample, schema),
                   infinite, list(clocks.values()))


def column_hashes(output: Path, column: str) -> tuple[Hashes, Hashes]:
    """`overlap.hashed` of one column of both files, in their order."""
    import numpy as np
    import pyarrow.parquet as pq

    whole = []
    for name in (TRAIN, TEST):
        with pq.ParquetFile(output / name) as file:
            whole.append(np.concatenate([overlap.hashed(batch.column(0))
                                         for batch in file.iter_batches(columns=[column])]))
    return whole[0], whole[1]


class _Part:
    """A Parquet file that is written in row groups of GROUP rows."""

    def __init__(self, path: Path, schema: Any, weights: Floats | None) -> None:
        import pyarrow as pa

        self._path, self._weights, self._at = path, weights, 0
        self._schema = schema if weights is None else schema.append(pa.field(WEIGHT, pa.float64()))
        self._waiting: list[Any] = []
        self._rows = 0

    def __enter__(self) -> _Part:
        import pyarrow.parquet as pq

        self._writer = pq.ParquetWriter(self._path, self._schema)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._flush()
        self._writer.close()

    def add(self, batch: Any) -> None:
        if not batch.num_rows:
            return
        if self._weights is not None:
            import pyarrow as pa

            weights = self._weights[self._at:self._at + batch.num_rows]
            batch = pa.RecordBatch.from_arrays([*batch.columns, pa.array(weights)], schema=self._schema)
            self._at += batch.num_rows
        self._waiting.append(batch)
        self._rows += batch.num_rows
        if self._rows >= GROUP:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._waiting:
            self._writer.write_table(pa.Table.from_batches(self._waiting, self._schema), row_group_size=GROUP)
            self._waiting, self._rows = [], 0


def _filtered(batch: Any, mask: Bools) -> Any:
    import pyarrow as pa

    return batch if mask.all() else batch.filter(pa.array(mask))


def _infinite(batch: Any) -> Counter[str]:
    import numpy as np
    import pyarrow as pa

    found: Counter[str] = Counter()
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if pa.types.is_floating(column.type):
            number = int(np.isinf(column.to_numpy(zero_copy_only=False)).sum())
            if number:
                found[name] = number
    return found
