"""One column's counts against what is expected of it. Pure."""

from __future__ import annotations

import math

from engine.pipeline.expectations import categories, distributions, effects
from engine.pipeline.expectations.findings import finding, percent
from engine.pipeline.expectations.measuring import Measured, NumberTally
from engine.pipeline.expectations.model import (
    Column,
    Distribution,
    Finding,
    Margins,
    Missing,
    Range,
)

# None missing in so many rows says that at most 0.3 % are (the rule of three; Hanley and Lippman-Hand 1983,
# JAMA 249): from there on a first missing value is no accident of a small history.
ENOUGH_WITHOUT = 1_000
FEWEST_FOR_TAIL = 200  # rows, for a guess of how far the next one may lie out


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
        present = measured.rows - missing
        found.append(categories.judge(name, column.categories, words, present, margins, level))
    return [one for one in found if one is not None]


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
        return finding(
            name,
            "missing",
            "missing values",
            expected,
            after,
            f"In {name} {noun} no value, where all {expected.rows:,} had one.",
            "a value in every row",
            seen,
            measure="share of rows",
            effect=share,
            chance=chance,
            rows=rows,
        )
    chance = effects.h_chance(h, max(expected.rows, 1), rows)
    if abs(h) <= margins.missing or chance >= level:
        return None
    return finding(
        name,
        "missing",
        "missing values",
        expected,
        after,
        f"In {name} {percent(share)} of the rows have no value, where {percent(expected.share)} had none.",
        f"{percent(expected.share)} of {expected.rows:,} rows",
        seen,
        measure="Cohen's h",
        effect=h,
        margin=margins.missing,
        chance=chance,
        rows=rows,
    )


def _infinite(name: str, column: Column, tally: NumberTally) -> Finding | None:
    expected = column.infinite
    if expected is None or not tally.infinite or expected.share > 0:
        return None
    share = tally.infinite / tally.rows
    after = expected.model_copy(update={"share": share, "severity": "suspicious", "accepted": None})
    return finding(
        name,
        "infinite",
        "infinite",
        expected,
        after,
        f"In {name} {tally.infinite:,} values are infinite, where none was.",
        "finite values",
        f"{percent(share)} of {tally.rows:,} rows",
        measure="share of rows",
        effect=share,
        rows=tally.rows,
    )


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


def _range(
    name: str,
    expected: Range,
    distribution: Distribution | None,
    tally: NumberTally,
    margins: Margins,
    level: float,
) -> Finding | None:
    """Too many rows outside (Rosenbaum's test), or one that is too far out to be the tail's next (see
    `effects.far_chance`)."""
    n, m = distribution.rows if distribution else 1, tally.finite
    many = min(effects.exceedance_chance(tally.below, n, m), effects.exceedance_chance(tally.above, n, m))
    outside = tally.below + tally.above
    far = 1.0
    if distribution is not None and n >= FEWEST_FOR_TAIL:
        far = min(_far(-1, tally.min, expected.min, expected, distribution, m),
                  _far(1, tally.max, expected.max, expected, distribution, m))
    if not (many < level and outside / m > margins.outside) and far >= level:
        return None
    after = expected.model_copy(
        update={"min": min(expected.min, tally.min), "max": max(expected.max, tally.max), "accepted": None}
    )
    noun = "1 value lies" if outside == 1 else f"{outside:,} values lie"
    return finding(
        name,
        "range",
        "range",
        expected,
        after,
        f"In {name} {noun} outside {bounds(expected.min, expected.max)}, the range seen before: "
        f"from {tally.min:g} to {tally.max:g}.",
        bounds(expected.min, expected.max),
        bounds(tally.min, tally.max),
        measure="share of rows outside",
        effect=outside / m,
        margin=margins.outside if far >= level else None,
        chance=min(many, far),
        rows=m,
    )


def _far(sign: int, seen: float, end: float, expected: Range, distribution: Distribution, m: int) -> float:
    """The chance of a value as far out as `seen`, above (`sign` 1) or below (-1) the median."""
    n, middle = distribution.rows, distributions.quantile(distribution, 0.5)
    level = max(0.01, 10 / n)  # the tail that the slope is taken from holds ten rows or more
    near, nearer = (distributions.tail(distribution, one, upper=sign > 0) for one in (level, 5 * level))
    return effects.far_chance(
        sign * (seen - middle), sign * (end - middle), (sign * (near[0] - middle), near[1]),
        (sign * (nearer[0] - middle), nearer[1]), n, m, span=expected.max - expected.min)


def _distribution(name: str, expected: Distribution, measured: Measured, margins: Margins,
                  level: float) -> Finding | None:
    import numpy as np

    tally = measured.numbers[name]
    seen = np.asarray(distributions.shares(tally.bins))
    distance = effects.ks_distance(np.asarray(expected.share), seen)
    chance = effects.ks_chance(distance, expected.rows, tally.finite)
    if distance <= margins.distribution or chance >= level:
        return None
    after = distributions.of_sample(
        measured.sample.values(name), expected.severity, tally.mean, tally.deviation
    )
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
