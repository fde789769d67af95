"""The file of counts that `opsdeck judge run` reads: JSON into ticks, or a sentence that says where it
is wrong. Pure."""

from __future__ import annotations

import math
from typing import Annotated, NamedTuple, TypeVar

import msgspec

from engine.errors import UsageError
from engine.rollout.evidence import Counts, Tick

T = TypeVar("T")
FORMAT = "`opsdeck judge run --help` shows the format"


class CountsFile(NamedTuple):
    """`alpha` and `tolerated_ratio` as the judge wants them."""

    alpha: float
    tolerated_ratio: float
    ticks: list[Tick]


Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class _Side(msgspec.Struct, forbid_unknown_fields=True):
    n: Count
    y: Count


class _Tick(msgspec.Struct, forbid_unknown_fields=True):
    canary: _Side
    baseline: _Side


class _File(msgspec.Struct, forbid_unknown_fields=True):
    alpha: float
    ticks: list[_Tick]
    tolerated_ratio: float = 1.0


def decode(text: bytes, kind: type[T], what: str, where: str) -> T:
    """The JSON of a file of `what`. Raises UsageError with the place of what is wrong."""
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as error:
        raise UsageError(f"this is not a file of {what}: {error}", where=where, hint=FORMAT) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"this is not JSON: {error}", where=where, hint=FORMAT) from error


def read(text: bytes, where: str) -> CountsFile:
    """Raises UsageError, which names the tick and the side, for everything that is not such a file."""
    file = decode(text, _File, "counts", where)
    if not 0 < file.alpha < 1:
        raise UsageError(f"alpha is {file.alpha:g}", where=where,
                         hint="it is a probability above 0 and below 1, such as 0.01")
    if not 0 < file.tolerated_ratio < math.inf:
        raise UsageError(f"tolerated_ratio is {file.tolerated_ratio:g}", where=where,
                         hint="it is a ratio above 0; 1 tolerates no more errors than the baseline has")
    return CountsFile(file.alpha, file.tolerated_ratio,
                      [Tick(_counts(tick.canary, f"ticks[{i}].canary", where),
                            _counts(tick.baseline, f"ticks[{i}].baseline", where))
                       for i, tick in enumerate(file.ticks)])


def _counts(side: _Side, name: str, where: str) -> Counts:
    try:
        return Counts(side.n, side.y)
    except ValueError as error:
        raise UsageError(f"{name}: {error}", where=where, hint="n counts the requests of the tick, y "
                         "those of them that failed") from error
