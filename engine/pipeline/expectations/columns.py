"""One column's counts against what is expected of it. Pure."""

from __future__ import annotations

import math
from typing import Any

from engine.pipeline.expectations import distributions, effects
from engine.pipeline.expectations.measuring import CategoryTally, Measured, NumberTally
from engine.pipeline.expectations.model import (
    Categories,
    Column,
    Distribution,
    Expected,
    Finding,
    Kind,
    Margins,
    Missing,
    Range,
)

# None missing in so many rows says that at most 1 % are (the rule of three; Hanley and Lippman-Hand 1983,
# JAMA 249): from there on a first missing value is no accident of a small history.
ENOUGH_WITHOUT = 300
MOST_LISTED = 50


def judge(name: str, column: Column, margins: Margins, measured: Measured, level: float) -> list[Finding]:
    """The findings on a column whose kind is as expected; `level` is the chance that a test may take."""
    found: list[Finding | None] = []
    numbers, words = measured.numbers.get(name), measured.categories.get(name)
    missing = (numbers.missing if numbers else words.missing if words else measured.missing.get(name, 0))
    if column.missing is not None:
        found.append(_missing(name, column.missing, missing, measured.rows, margins, level))
    if numbers is not None:
        found += [_infinite(name, column, numbers), _allowed(name, column, numbers)]
        if column.range is not None and numbers.finite:
            found.append(_range(name, column.range, column.distribution, numbers, margins, level))
        if column.distribution is not None and numbers.finite:
            found.append(_distribution(name, column.distribution, measured, margins, level))
    if words is not None and column.categories is not None:
        found.append(_categories(name, column.categories, words, measured.rows - missing, margins, level))
    return [one for one in found if one is not None]


def percent(share: float) -> str:
    """`12.3 %`, with as many digits as a small share needs; never 0 % for what is there."""
    if share == 0 or share >= 0.001:
        return f"{100 * share:.3g} %" if share < 0.9995 or share == 1 else "nearly 100 %"
    return f"{100 * share:.1g} %"


def finding(name: str, part: str, kind: Kind, expected: Expected, after: Expected | None, sentence: str, old: str,
            new: str, **more: Any) -> Finding:
    """A finding about `part` of a column, with what stands in the file and what would make the data
    expected."""
    severity = more.pop("severity", expected.severity)
    return Finding(column=name, kind=kind, severity=severity, sentence=sentence, expected=old, seen=new,
                   place=["columns", name, part], before=expected.model_dump(mode="json"),
                   after=after.model_dump(mode="json") if after else None, **more)


def _missing(name: str, expected: Missing, count: int, rows: int, margins: Margins,
             level: float) -> Finding | None:
    share = count / rows
    h = effects.cohens_h(expected.share, share)
    after = Missing(severity="suspicious" if count else expected.severity, share=share, rows=rows)
    seen = f"{percent(share)} of {rows:,} rows"
    if expected.share == 0:
        if not count:
            return None
        sure = expected.rows >= ENOUGH_WITHOUT
        chance = None if sure else effects.exceedance_chance(count, expected.rows, rows)
        if chance is not None and chance >= level:
            return None
        noun = "1 row has" if count == 1 else f"{count:,} rows have"
        return finding(name, "missing", "missing values", expected, after,
                       f"In {name} {noun} no value, where all {expected.rows:,} had one.",
                       "a value in every row", seen, measure="share of rows", effect=share, chance=chance, rows=rows)
    chance = effects.h_chance(h, max(expected.rows, 1), rows)
    if abs(h) <= margins.missing or chance >= level:
        return None
    return finding(name, "missing", "missing values", expected, after,
                   f"In {name} {percent(share)} of the rows have no value, where {percent(expected.share)} had none.",
                   f"{percent(expected.share)} of {expected.rows:,} rows", seen, measure="Cohen's h", effect=h,
                   margin=margins.missing, chance=chance, rows=rows)


def _infinite(name: str, column: Column, tally: NumberTally) -> Finding | None:
    expected = column.infinite
    if expected is None or not tally.infinite or expected.share > 0:
        return None
    share = tally.infinite / tally.rows
    after = expected.model_copy(update={"share": share, "severity": "suspicious", "accepted": None})
    return finding(name, "infinite", "infinite", expected, after,
                   f"In {name} {tally.infinite:,} values are infinite, where none was.", "finite values",
                   f"{percent(share)} of {tally.rows:,} rows", measure="share of rows", effect=share, rows=tally.rows)


def _allowed(name: str, column: Column, tally: NumberTally) -> Finding | None:
    expected = column.allowed
    if expected is None or not tally.forbidden:
        return None
    low = expected.min if expected.min is None else min(expected.min, tally.min)
    high = expected.max if expected.max is None else max(expected.max, tally.max)
    after = expected.model_copy(update={"min": low, "max": high, "accepted": None})
    noun = "1 value lies" if tally.forbidden == 1 else f"{tally.forbidden:,} values lie"
    return finding(name, "allowed", "allowed", expected, after,
                   f"In {name} {noun} outside what is allowed, {bounds(expected.min, expected.max)}.",
                   bounds(expected.min, expected.max), bounds(tally.min, tally.max), measure="share of rows",
                   effect=tally.forbidden / tally.finite, rows=tally.finite)


def bounds(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return f"at least {low:g}" if low is not None else f"at most {high:g}"
    return f"{low:g} to {high:g}"


def _range(name: str, expected: Range, distribution: Distribution | None, tally: NumberTally, margins: Margins,
           level: float) -> Finding | None:
    """Too many rows outside (Rosenbaum's test), or one that is too far out to be the tail's next (see
    `effects.far_chance`)."""
    n, m = distribution.rows if distribution else 1, tally.finite
    many = min(effects.exceedance_chance(tally.below, n, m), effects.exceedance_chance(tally.above, n, m))
    outside = tally.below + tally.above
    far = 1.0
    share = max(0.01, 10 / n)  # the tail that the scale is taken from holds ten rows or more
    if distribution is not None and share < 0.5:
        span = expected.max - expected.min
        far = min(
            effects.far_chance(-tally.min, -expected.min, -distributions.quantile(distribution, share), share, n, m,
                               span=span),
            effects.far_chance(tally.max, expected.max, distributions.quantile(distribution, 1 - share), share, n, m,
                               span=span))
    if not (many < level and outside / m > margins.outside) and far >= level:
        return None
    after = expected.model_copy(update={"min": min(expected.min, tally.min), "max": max(expected.max, tally.max),
                                        "accepted": None})
    noun = "1 value lies" if outside == 1 else f"{outside:,} values lie"
    return finding(name, "range", "range", expected, after,
                   f"In {name} {noun} outside {bounds(expected.min, expected.max)}, the range seen before: "
                   f"from {tally.min:g} to {tally.max:g}.",
                   bounds(expected.min, expected.max), bounds(tally.min, tally.max), measure="share of rows outside",
                   effect=outside / m, margin=margins.outside if far >= level else None, chance=min(many, far),
                   rows=m)


def _distribution(name: str, expected: Distribution, measured: Measured, margins: Margins,
                  level: float) -> Finding | None:
    import numpy as np

    tally = measured.numbers[name]
    seen = np.asarray(distributions.shares(tally.bins))
    distance = effects.ks_distance(np.asarray(expected.share), seen)
    chance = effects.ks_chance(distance, expected.rows, tally.finite)
    if distance <= margins.distribution or chance >= level:
        return None
    after = distributions.of_sample(measured.sample.values(name), expected.severity, tally.mean, tally.deviation)
    more = {}
    if expected.mean is not None and expected.deviation is not None:
        more["standardized mean difference"] = effects.standardized_difference(
            expected.mean, expected.deviation, tally.mean, tally.deviation)
    old = np.diff(np.concatenate([[0.0], expected.share, [1.0]]))
    more["population stability index"] = effects.stability_index(old, tally.bins / tally.finite)
    more = {key: value for key, value in more.items() if math.isfinite(value)}
    middle = distributions.quantile(expected, 0.5)
    middle2 = distributions.quantile(after, 0.5) if after else tally.mean
    return finding(name, "distribution", "distribution", expected, after,
                   f"The values of {name} have shifted: the median is {middle2:g}, where it was {middle:g}.",
                   f"median {middle:g}", f"median {middle2:g}", measure="Kolmogorov-Smirnov distance",
                   effect=distance, margin=margins.distribution, chance=chance, more=more,
                   shares=[float(one) for one in seen], rows=tally.finite)


def _categories(name: str, expected: Categories, tally: CategoryTally, m: int, margins: Margins,
                level: float) -> Finding | None:
    """Shifted shares, or values that were not there: one finding, for both would change the same
    expectation."""
    import numpy as np

    if not m:
        return None
    listed = np.array([share for _, share in expected.shares])
    old = np.append(listed, max(0.0, 1 - float(listed.sum())) if not expected.complete else 0.0)
    counts = np.append(np.zeros(len(listed)) if tally.counts is None else tally.counts, tally.others)
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
    value = short(expected.shares[most][0]) if most < len(listed) else "the other values"
    return finding(name, "categories", "categories", expected, after,
                   f"The shares in {name} have shifted: {value} went from {percent(float(old[most]))} to "
                   f"{percent(float(counts[most] / m))}.{new}",
                   f"{value} {percent(float(old[most]))}", f"{value} {percent(float(counts[most] / m))}",
                   measure="Cramér's V", effect=v, margin=margins.categories, chance=chance,
                   more={"population stability index": effects.stability_index(old, counts / m)}, rows=m,
                   severity="hard" if expected.closed and tally.others else expected.severity)


def _unknown(expected: Categories, tally: CategoryTally, m: int, margins: Margins, level: float) -> float | None:
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


def short(value: str) -> str:
    text = value if value.isprintable() and value else repr(value)
    return text if len(text) <= 30 else text[:29] + "…"
