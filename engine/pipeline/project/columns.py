"""Which columns of the data are what, by the project file. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from engine.pipeline.project.model import Data

WEIGHT = "sample_weight"


def roles(data: Data) -> Iterator[tuple[str, str]]:
    """Every column that the project file names, with the key that names it, such as `data.label`."""
    yield data.label, "data.label"
    for key in ("time", "group"):
        if (name := getattr(data, key)) is not None:
            yield name, f"data.{key}"
    for key in ("key", "features", "segments"):
        yield from ((name, f"data.{key}") for name in getattr(data, key))
    if data.holdout.column is not None:
        yield data.holdout.column, "data.holdout.column"


def features(data: Data, names: Sequence[str]) -> list[str]:
    """What the model sees, of a table with columns `names`: those that the project file lists, in its
    order; without a list all columns that it names nowhere else."""
    if data.features:
        return list(data.features)
    others = {name for name, key in roles(data)} | {WEIGHT}
    return [name for name in names if name not in others]


def kept(data: Data, names: Sequence[str]) -> list[str]:
    """The columns of train.parquet and test.parquet: features, label, key, time, group and segments."""
    every = [*features(data, names), data.label, *data.key, *([data.time] if data.time else []),
             *([data.group] if data.group else []), *data.segments]
    return list(dict.fromkeys(every))
