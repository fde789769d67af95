"""The shares of a column's values against what is expected of them. Pure."""

from __future__ import annotations

from engine.pipeline.expectations import effects
from engine.pipeline.expectations.findings import finding, percent, short
from engine.pipeline.expectations.measuring import CategoryTally
from engine.pipeline.expectations.model import Categories, Finding, Margins

FEWEST_LISTED = 20  # rows of a value that stands for itself when shares are compared
MOST_LISTED = 50


def judge(name: str, expected: Categories, tally: CategoryTally, m: int, margins: Margins,
                level: float) -> Finding | None:
    """Shifted shares, or values that were not there: one finding, for both would change the same
    expectation."""
    import numpy as np

    if not m:
        return None
    listed = np.array([share for _, share in expected.shares])
    counts = np.zeros(len(listed)) if tally.counts is None else tally.counts
    # Values are listed because they were common in the history, by chance too: the rarest of them count with
    # the others, where no such choice was made.
    own = listed * expected.rows >= FEWEST_LISTED - 0.5
    rest = 1 - float(listed[own].sum())
    old = np.append(listed[own], rest if rest > 1e-9 else 0.0)
    counts = np.append(counts[own], m - float(counts[own].sum()))
    names = [value for (value, _), alone in zip(expected.shares, own, strict=True) if alone]
    v = effects.cramers_v(old, counts / m)
    chance = effects.homogeneity_chance(np.rint(old * expected.rows), counts)
    shifted = v > margins.categories and chance < level
    strange = _unknown(expected, tally, m, margins, level)
    if not shifted and strange is None:
        return None
    after = _seen(expected, tally, m)
    others = [value for value, _ in tally.examples.most_common(3)] if expected.complete else []
    new = f" Not seen before: {', '.join(short(value) for value in others)}" if others else ""
    if new:
        new += f" and {len(tally.examples) - 3} more." if len(tally.examples) > 3 else "."
    if not shifted:
        return finding(name, "categories", "unknown category", expected, after,
                       f"In {name} {tally.others:,} of {m:,} rows have a value that was never there.{new}",
                       f"{len(expected.shares)} known values", f"{len(tally.examples)} unknown ones",
                       measure="share of rows", effect=tally.others / m,
                       margin=None if expected.closed else margins.outside, chance=strange or None, rows=m,
                       severity="hard" if expected.closed else expected.severity)
    change = counts / m - old
    most = int(np.argmax(np.abs(change)))
    value = short(names[most]) if most < len(names) else "the other values"
    return finding(name, "categories", "categories", expected, after,
                   f"The shares in {name} have shifted: {value} went from {percent(float(old[most]))} to "
                   f"{percent(float(counts[most] / m))}.{new}",
                   f"{value} {percent(float(old[most]))}", f"{value} {percent(float(counts[most] / m))}",
                   measure="Cramér's V", effect=v, margin=margins.categories, chance=chance,
                   more={"population stability index": effects.stability_index(old, counts / m)}, rows=m,
                   severity="hard" if expected.closed and tally.others else expected.severity)


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
    counts |= {value: n for value, n in tally.examples.items() if len(value) <= 200}
    whole = expected.complete and sum(counts.values()) == m
    chosen = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST_LISTED]
    return Categories(severity=expected.severity, rows=m, closed=expected.closed,
                      distinct=len(counts) if whole else None,
                      once=sum(n == 1 for n in counts.values()) if whole else None,
                      shares=[(value, n / m) for value, n in chosen])
