"""The shares of a column's values against what is expected of them. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from engine.pipeline.expectations import effects
from engine.pipeline.expectations.findings import finding, percent, short
from engine.pipeline.expectations.measuring import CategoryTally
from engine.pipeline.expectations.model import Categories, Finding, Margins
from engine.pipeline.expectations.words import LONGEST_WORD

FEWEST_LISTED = 20  # rows of a value that stands for itself when shares are compared
MOST_LISTED = 50


@dataclass(frozen=True)
class _Shift:
    """The largest change of one value, with Cramér's V and its chance; the index is over all cells."""

    value: str
    old: float
    new: float
    v: float
    chance: float
    index: float


def judge(name: str, expected: Categories, tally: CategoryTally, m: int, margins: Margins,
          level: float) -> Finding | None:
    """Shifted shares, or values that were not there: one finding, for both would change one expectation."""
    if not m:
        return None
    shift = next((one for one in (_over_all(expected, tally, m), _of_a_rare_one(expected, tally, m))
                  if one is not None and one.v > margins.categories and one.chance < level), None)
    strange = _unknown(expected, tally, m, margins, level)
    if shift is None and strange is None:
        return None
    after = _seen(expected, tally, m)
    unknown = tally.strangers.counts
    others = [value for value, _ in unknown.most_common(3)] if expected.complete else []
    new = f" Not seen before: {', '.join(short(value) for value in others)}" if others else ""
    if new:
        new += f" and {len(unknown) - 3} more." if len(unknown) > 3 else "."
    if shift is None:
        return finding(name, "categories", "unknown category", expected, after,
                       f"In {name} {tally.others:,} of {m:,} rows have a value that was never there.{new}",
                       f"{len(expected.shares)} known values", f"{len(unknown)} unknown ones",
                       measure="share of rows", effect=tally.others / m,
                       margin=None if expected.closed else margins.outside, chance=strange or None, rows=m,
                       severity="hard" if expected.closed else expected.severity)
    old, now = percent(shift.old), percent(shift.new)
    return finding(name, "categories", "categories", expected, after,
                   f"The shares in {name} have shifted: {shift.value} went from {old} to {now}.{new}",
                   f"{shift.value} {old}", f"{shift.value} {now}", measure="Cramér's V", effect=shift.v,
                   margin=margins.categories, chance=shift.chance, rows=m,
                   more={"population stability index": shift.index},
                   severity="hard" if expected.closed and tally.others else expected.severity)


def _over_all(expected: Categories, tally: CategoryTally, m: int) -> _Shift:
    """All values together. They are listed because they were common in the history, by chance too: the
    rarest of them count with the others, where no such choice was made."""
    import numpy as np

    listed = np.array([share for _, share in expected.shares])
    own = listed * expected.rows >= FEWEST_LISTED - 0.5
    rest = 1 - float(listed[own].sum())
    old = np.append(listed[own], rest if rest > 1e-9 else 0.0)
    counts = np.asarray(tally.counts)[own]
    counts = np.append(counts, m - float(counts.sum()))
    names = [value for (value, _), alone in zip(expected.shares, own, strict=True) if alone]
    most = int(np.argmax(np.abs(counts / m - old)))
    return _Shift(short(names[most]) if most < len(names) else "the other values", float(old[most]),
                  float(counts[most] / m), effects.cramers_v(old, counts / m),
                  effects.homogeneity_chance(np.rint(old * expected.rows), counts),
                  effects.stability_index(old, counts / m))


def _of_a_rare_one(expected: Categories, tally: CategoryTally, m: int) -> _Shift | None:
    """The rare value that grew most, against all others; among the others together it might not show.

    One that is not listed had at most the share of the rarest that is. The chance is that of any rare value.
    """
    import numpy as np

    n = expected.rows
    both = zip(expected.shares, tally.counts, strict=True)
    grown = {value: (share, int(count)) for (value, share), count in both if share * n < FEWEST_LISTED}
    if not expected.complete:
        least = min((share for _, share in expected.shares), default=0.0)
        grown |= {value: (least, count) for value, count in tally.strangers.counts.items()}
    if not grown:
        return None
    value, (share, count) = max(grown.items(), key=lambda pair: (pair[1][1] / m - pair[1][0], pair[0]))
    old, new = np.array([share, 1 - share]), np.array([count / m, 1 - count / m])
    if count / m <= share:
        return None
    chance = effects.cell_chance(np.rint(old * n), np.array([float(count), float(m - count)])) * len(grown)
    return _Shift(short(value), share, count / m, effects.cramers_v(old, new), min(1.0, chance),
                  effects.stability_index(old, new))


def _unknown(
    expected: Categories, tally: CategoryTally, m: int, margins: Margins, level: float
) -> float | None:
    """The chance of so many rows in unknown categories, where that is a finding; 0 where none may be
    there."""
    if not tally.others:
        return None
    if expected.closed:
        return 0.0
    if not expected.complete or expected.once is None:
        return None
    chance = effects.unseen_chance(tally.others, m, expected.once, expected.rows, level)
    return chance if chance < level and tally.others / m > margins.outside else None


def _seen(expected: Categories, tally: CategoryTally, m: int) -> Categories:
    """What would have been learned from the new data, as far as its values were remembered."""
    counts = {value: int(n) for (value, _), n in zip(expected.shares, tally.counts, strict=True) if n}
    counts |= {value: n for value, n in tally.strangers.counts.items() if len(value) <= LONGEST_WORD}
    whole = expected.complete and tally.strangers.whole and sum(counts.values()) == m
    chosen = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST_LISTED]
    return Categories(severity=expected.severity, rows=m, closed=expected.closed,
                      distinct=len(counts) if whole else None,
                      once=sum(n == 1 for n in counts.values()) if whole else None,
                      shares=[(value, n / m) for value, n in chosen])
