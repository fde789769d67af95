"""The files of a source as one table, whose types may differ in width from file to file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from engine.errors import UsageError
from engine.pipeline.expectations.kinds import NUMBERS, TIMES, family
from engine.pipeline.expectations.source import Source, open_source
from engine.pipeline.stages.data.fetching import Fetched
from engine.pipeline.stages.data.naming import STAGE


def opened(fetched: Fetched) -> Source:
    """Raises UsageError, with the file and this stage, for one that is empty, cannot be read, or has other
    columns than the first."""
    try:
        sources = [open_source(file) for file in fetched.files]
        schema = _unified([(file.name, one.schema) for file, one in zip(fetched.files, sources, strict=True)])
    except UsageError as error:
        inner = (error.where or "").rpartition("/")[2]
        inside = f" ({inner})" if inner and inner != fetched.name.rpartition("/")[2] else ""
        raise UsageError(error.message, where=f"{fetched.name}{inside}, {STAGE}", hint=error.hint) from error
    return sources[0].joined(sources[1:], schema)


def batches(source: Source, columns: Sequence[str], raw: str | None = None) -> Iterator[Any]:
    """Record batches of `columns`, each of the type in the source's schema; `raw` keeps the type that it has
    in its file."""
    import pyarrow as pa

    for batch in source.batches(columns):
        changed = {name: batch.column(name) for name in columns}
        for name, column in changed.items():
            wanted = source.schema.field(name).type
            if name != raw and column.type != wanted:
                changed[name] = column.cast(wanted)
        yield pa.RecordBatch.from_arrays(list(changed.values()), names=list(changed))


def _unified(schemas: Sequence[tuple[str, Any]]) -> Any:
    import pyarrow as pa

    first_name, first = schemas[0]
    types = {one.name: one.type for one in first}
    for name, schema in schemas[1:]:
        gone = [one for one in types if one not in schema.names]
        new = [one for one in schema.names if one not in types]
        if gone or new:
            said = f"lacks the column {gone[0]}, which {first_name} has" if gone else (
                f"has the column {new[0]}, which {first_name} lacks")
            raise UsageError(f"The file {name} {said}.", where=name,
                             hint="Keep files of one shape in a folder; name another folder for the rest.")
        for column, known in types.items():
            wider = _wider(known, schema.field(column).type)
            if wider is None:
                raise UsageError(f"The column {column} holds {family(str(known))} ({known}) in {first_name} "
                                 f"and {family(str(schema.field(column).type))} "
                                 f"({schema.field(column).type}) in {name}.", where=name,
                                 hint="Write one type in a column.")
            types[column] = wider
    return pa.schema([pa.field(name, type_) for name, type_ in types.items()])


def _wider(one: Any, other: Any) -> Any:
    """A type that holds both; None where there is none."""
    import pyarrow as pa

    if one.equals(other) or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    kinds = (family(str(one)), family(str(other)))
    if all(kind == "whole number" for kind in kinds):
        return pa.int64()
    if all(kind in NUMBERS for kind in kinds):
        return pa.float64()
    if all(kind == "text" for kind in kinds):
        return pa.large_string()
    if all(kind in TIMES for kind in kinds):
        # Which of the two kinds of time it is, and whether they mix, is the clock's to say.
        aware = "time with a zone" in kinds
        return pa.timestamp("us", "UTC") if aware else pa.timestamp("us")
    return None
