"""Tables as batches of rows: Parquet, CSV, a folder of Parquet files, or Arrow tables in memory.

Only a batch is in memory at a time (for Parquet the pages of a row group too). Times without a zone are taken
as UTC. In CSV, an empty field, NA, NaN, null and the like are missing values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.errors import UsageError

BATCH = 65_536  # rows
BLOCK = 4_000_000  # bytes of CSV
MOST_COLUMNS = 250
LONGEST_NAME = 200
# What a column that the first block of a CSV took for one type may turn out to be.
WIDER = {"null": ("int64", "double", "string"), "int64": ("double",)}

_CONVERSION = re.compile(
    r"In CSV column #(\d+): (?:Row #(\d+): )?CSV conversion error to ([^:]+): (.*)", re.S
)


@dataclass(frozen=True)
class Source:
    """Tables of one schema that can be read several times. `typed` is False for CSV: its types are
    guessed."""

    names: list[str]
    schema: Any
    typed: bool
    _parts: list[Any] = field(repr=False)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[Any]:
        """Record batches of at most BATCH rows with `columns` (all of them if None), in the files' order."""
        for name, part in zip(self.names, self._parts, strict=True):
            yield from _batches(name, part, self.schema.names if columns is None else columns)

    def texts(self, column: str) -> Iterator[Any]:
        """A column of the CSV files as it is written there, in arrays; nothing of tables that have types."""
        from pyarrow import csv as pacsv
        from pyarrow import string

        for part in self._parts:
            if isinstance(part, _Csv):
                with pacsv.open_csv(
                        part.path, read_options=pacsv.ReadOptions(block_size=BLOCK, use_threads=False),
                        convert_options=pacsv.ConvertOptions(
                            include_columns=[column], column_types={column: string()})) as reader:
                    for batch in reader:
                        yield batch.column(0)

    def select(self, columns: Sequence[str], *, typed: bool | None = None) -> Source:
        """The same tables with `columns` alone, all of which they have. `typed`: whether their types say
        something, where that is known from elsewhere."""
        import pyarrow as pa

        schema = pa.schema([self.schema.field(name) for name in columns])
        return replace(self, schema=schema, typed=self.typed if typed is None else typed)

    def joined(self, others: Sequence[Source], schema: Any) -> Source:
        """These tables and those of others, which all have the columns of `schema`. Batches keep the types
        that each table has."""
        every = [self, *others]
        return Source([name for one in every for name in one.names], schema, all(one.typed for one in every),
                      [part for one in every for part in one._parts])

    def rows_each(self) -> list[int]:
        """How many rows each table has."""
        return [_rows(part) for part in self._parts]


@dataclass(frozen=True)
class _Csv:
    path: Path
    types: dict[str, Any]
    rows: int = 0


def open_source(data: Any) -> Source:
    """`data` is a path, a pyarrow Table, or several of one schema; a source is given back. Raises UsageError
    where one cannot be read, has nested or repeated columns, or another schema than the first."""
    if isinstance(data, Source):
        return data
    given = list(data) if isinstance(data, list | tuple) else [data]
    if not given:
        raise UsageError("No table was given.", hint="Name at least one Parquet or CSV file.")
    parts = [part for one in given for part in _opened(one)]
    first_name, _, first, _ = parts[0]
    for name, _, schema, typed in parts:
        _refuse(name, schema)
        if not schema.equals(first) and (typed or schema.names != first.names):
            raise UsageError(f"This table has other columns than {first_name}: {_difference(first, schema)}.",
                             where=name, hint="Learn from tables of one schema.")
    return Source(
        [part[0] for part in parts], first, all(part[3] for part in parts), [part[1] for part in parts]
    )


def _opened(one: Any) -> list[tuple[str, Any, Any, bool]]:
    import pyarrow as pa

    if isinstance(one, pa.Table):
        return [("table in memory", one, one.schema, True)]
    if not isinstance(one, str | Path):
        raise UsageError(f"A table is a file or an Arrow table, not a {type(one).__name__}.",
                         hint="Name a Parquet or CSV file.")
    path = Path(one)
    if path.is_dir():
        files = sorted(path.glob("*.parquet"))
        if not files:
            raise UsageError("There is no Parquet file in this folder.", where=str(path))
        return [part for file in files for part in _opened(file)]
    if not path.is_file():
        raise UsageError(
            "There is no such file.", where=str(path), hint="Look at the path, and where it begins."
        )
    if path.stat().st_size == 0:
        raise UsageError("The file is empty: not even a header.", where=str(path))
    if path.name.endswith((".csv", ".csv.gz")):
        return [_csv(path)]
    return [_parquet(path)]


def _parquet(path: Path) -> tuple[str, Any, Any, bool]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            return str(path), path, file.schema_arrow, True
    except (pa.ArrowException, OSError) as error:
        raise UsageError(
            f"This is not a Parquet file that can be read: {_first_line(error)}.",
            where=str(path),
            hint="Tables are .parquet, .csv or .csv.gz files.",
        ) from error


def _csv(path: Path) -> tuple[str, Any, Any, bool]:
    """Arrow guesses types from the first block; the whole file is read once to see that they hold."""
    import pyarrow as pa

    tried: dict[str, list[str]] = {}
    while True:
        csv = _Csv(path, {name: pa.type_for_alias(kinds[-1]) for name, kinds in tried.items()})
        names: list[str] = []
        try:
            reader = _reader(csv)
            names = reader.schema.names
            rows = sum(batch.num_rows for batch in reader)
        except pa.ArrowException as error:
            found = _CONVERSION.search(str(error))
            if found is None or not names:
                raise UsageError(f"This CSV cannot be read: {_first_line(error)}.", where=str(path),
                                 hint="Look at the line it names, and at quotes and separators.") from error
            name, kind = names[int(found.group(1))], found.group(3).strip()
            before = tried.setdefault(name, [kind])
            wider = WIDER.get(before[0], ())
            if len(before) > len(wider):
                raise _mixed(path, name, before[0], found.group(4)) from error
            before.append(wider[len(before) - 1])
            continue
        return str(path), replace(csv, rows=rows), reader.schema, False


def _mixed(path: Path, column: str, kind: str, said: str) -> UsageError:
    value = _first_line(said).removeprefix("invalid value ")
    kind = {"double": "numbers", "int64": "whole numbers", "bool": "true or false"}.get(kind, kind)
    return UsageError(f"The column {column} mixes types: it begins as {kind}, and then holds {value}.",
                      where=str(path), hint="Write one type in a column; leave what is missing empty.")


def _reader(csv: _Csv) -> Any:
    from pyarrow import csv as pacsv

    return pacsv.open_csv(
        csv.path, read_options=pacsv.ReadOptions(block_size=BLOCK, use_threads=False),
        convert_options=pacsv.ConvertOptions(column_types=csv.types, strings_can_be_null=True))


def _batches(name: str, part: Any, columns: Sequence[str] | None) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = None if columns is None else list(columns)
    try:
        if isinstance(part, _Csv):
            for batch in _reader(part):
                yield from _slices(batch if wanted is None else batch.select(wanted))
        elif isinstance(part, Path):
            with pq.ParquetFile(part, memory_map=True) as file:
                yield from file.iter_batches(batch_size=BATCH, columns=wanted, use_threads=False)
        else:
            yield from (part if wanted is None else part.select(wanted)).to_batches(max_chunksize=BATCH)
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"The table could not be read to its end: {_first_line(error)}.", where=name,
                         hint="The file may be cut short, or have changed while it was read.") from error


def _slices(batch: Any) -> Iterator[Any]:
    for begin in range(0, batch.num_rows, BATCH):
        yield batch.slice(begin, BATCH)


def _rows(part: Any) -> int:
    import pyarrow.parquet as pq

    if isinstance(part, _Csv):
        return part.rows
    if isinstance(part, Path):
        with pq.ParquetFile(part) as file:
            return int(file.metadata.num_rows)
    return int(part.num_rows)


def _refuse(name: str, schema: Any) -> None:
    import pyarrow as pa

    names = list(schema.names)
    if not names:
        raise UsageError("The table has no columns.", where=name)
    if twice := sorted({one for one in names if names.count(one) > 1}):
        raise UsageError(f"The column {twice[0]} is there twice.", where=name,
                         hint="Give every column a name of its own.")
    if bad := [one for one in names if not one or len(one) > LONGEST_NAME]:
        raise UsageError("A column has no name." if not bad[0] else
                         f"The column {bad[0][:40]}… has a name of {len(bad[0])} characters.", where=name,
                         hint=f"A name has 1 to {LONGEST_NAME} characters.")
    if len(names) > MOST_COLUMNS:
        raise UsageError(f"The table has {len(names)} columns; expectations hold for at most {MOST_COLUMNS}.",
                         where=name, hint="Leave out what is not used, or validate it in parts.")
    nested = [one.name for one in schema if pa.types.is_nested(one.type)]
    if nested:
        more = f" and {len(nested) - 1} more" if len(nested) > 1 else ""
        raise UsageError(
            f"The column {nested[0]}{more} is nested ({schema.field(nested[0]).type}); only flat "
            "columns can be validated.",
            where=name,
            hint="Write its parts as columns of their own, or leave it out.",
        )


def _difference(first: Any, other: Any) -> str:
    gone = [name for name in first.names if name not in other.names]
    new = [name for name in other.names if name not in first.names]
    if gone or new:
        return "; ".join([*([f"{', '.join(gone[:3])} missing"] if gone else []),
                          *([f"{', '.join(new[:3])} new"] if new else [])])
    changed = [name for name in first.names if first.field(name).type != other.field(name).type]
    if not changed:
        return "the same in another order or with other nullability"
    return f"{changed[0]} is {other.field(changed[0]).type}, not {first.field(changed[0]).type}"


def _first_line(error: object) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
