"""How this stage names what it found: the finding, with the file, the column and the stage. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from engine.pipeline.expectations.model import Expectations, Finding, Kind, Known, StageKind

STAGE = "stage data"
SLACK = 0.05  # by so much may an accepted effect grow before it is told again; effects here are shares and r


def found(kind: Kind | StageKind, column: str, sentence: str, *, hard: bool, expected: str = "",
          seen: str = "", measure: str = "", effect: float | None = None, margin: float | None = None,
          rows: int = 0) -> Finding:
    """A finding of this stage. A suspicious one can be accepted: it then stands under `known` in the
    expectations."""
    known = None if hard else Known(severity="ignore", effect=effect).model_dump(mode="json")
    return Finding(column=column, kind=kind, severity="hard" if hard else "suspicious", sentence=sentence,
                   expected=expected, seen=seen, measure=measure, effect=effect, margin=margin,
                   place=["known", f"{kind}: {column}"], after=known, rows=rows)


def open_ones(findings: Iterable[Finding], expectations: Expectations | None) -> list[Finding]:
    """Those that nobody has accepted yet, or that have grown since; what stands in the file is told with
    them, so that a later acceptance is one of this very state."""
    left = []
    for one in findings:
        known = None if expectations is None else expectations.known.get(str(one.place[-1]))
        if known is None or one.place[0] != "known":
            left.append(one)
        elif one.severity == "hard" or _grown(known, one):
            left.append(one.model_copy(update={"before": known.model_dump(mode="json")}))
    return left


def _grown(known: Known, one: Finding) -> bool:
    if known.severity != "ignore":
        return True
    return known.effect is not None and one.effect is not None and one.effect > known.effect + SLACK


def first_row(at: int | None) -> str:
    """`, first in row 1,200` of the row at an index, "" of none: people count from 1, all files together."""
    return "" if at is None else f", first in row {at + 1:,}"


def counted(number: int, noun: str) -> str:
    """`1 row`, `1,200 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(names: Sequence[str], most: int = 3) -> str:
    """`a, b, c and 4 more`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
