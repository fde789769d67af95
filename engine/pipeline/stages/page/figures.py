"""The parts of the page that are figures: metrics with intervals, segments, calibration, robustness."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from engine.pipeline.stages.page import plots
from engine.pipeline.stages.page.blocks import (
    Block,
    Items,
    Plot,
    Section,
    Table,
    Text,
    interval,
    missing,
    number,
)
from engine.pipeline.stages.page.found import RunFound

WORST = 8  # segments that are shown


def sections(found: RunFound) -> list[Section]:
    return [metrics(found), gates(found), segments(found), calibration(found), robustness(found)]


def metrics(found: RunFound) -> Section:
    """Each metric with its interval, the champion's beside it."""
    stage = found.get("evaluate")
    if stage is None:
        return Section("How good it is", [missing("evaluate", "the figures on held-out rows")])
    whole = {str(one.get("metric")): one for one in _maps(stage.mapping("evaluation.json").get("metrics"))}
    if not whole:
        whole = {name: value for name, value in _map(stage.result.get("metrics")).items()
                 if isinstance(value, dict)}
    compared = {str(one.get("metric")): one for one in _comparisons(found) if one.get("segment") is None}
    rows, drawn = [], []
    for name, one in whole.items():
        other = compared.get(name, {})
        better = {"higher": "higher", "lower": "lower"}.get(str(one.get("better")), "–")
        rows.append([name, better, number(one.get("value")), interval(one.get("low"), one.get("high")),
                     number(other.get("champion")), _signed(other.get("gain")),
                     interval(other.get("low"), other.get("high"))])
        if _is(one.get("value")):
            drawn.append((name, float(one["value"]), _or_none(one.get("low")), _or_none(one.get("high")),
                          _or_none(other.get("champion"))))
    blocks: list[Block] = [Text(stage.says), Table(
        ["Metric", "Better", "This one", "Interval", "Champion", "Gain", "Interval of the gain"], rows, 5)]
    if drawn:
        said = "Each metric with its interval; the diamond is the champion's value on the same rows."
        blocks.append(Plot(partial(plots.intervals, drawn, "value"), said))
    blocks += [Items([str(note) for note in notes])] if (notes := _list(stage.result.get("notes"))) else []
    return Section("How good it is", blocks)


def gates(found: RunFound) -> Section:
    stage = found.get("compare")
    title = "Against the model in production"
    if stage is None:
        return Section(title, [missing("compare", "the comparison with the model in production")])
    champion = _map(stage.result.get("champion"))
    blocks: list[Block] = [Text(stage.says, "good" if stage.passed else "bad")]
    if champion:
        blocks.append(Text(f"The model in production is version {champion.get('version', '–')}."))
    rows = [[str(gate.get("name")), "passed" if gate.get("passed") else str(gate.get("status", "not passed")),
             str(gate.get("says", ""))] for gate in _maps(stage.result.get("gates"))]
    blocks.append(Table(["Gate", "Verdict", "Why"], rows, whole=(1,)) if rows else
                  missing("compare", "the verdict of each gate"))
    return Section(title, blocks)


def segments(found: RunFound) -> Section:
    """Those where the first metric is worst; small ones are marked, and never ranked first."""
    stage = found.get("evaluate")
    title = "Worst segments"
    if stage is None:
        return Section(title, [missing("evaluate", "the figures by segment")])
    compared = {(str(one.get("segment")), one.get("metric")): one for one in _comparisons(found)
                if one.get("segment") is not None}
    listed = []
    for part in _maps(stage.mapping("evaluation.json").get("segments")):
        first = next(iter(_maps(part.get("metrics"))), {})
        if _is(first.get("value")):
            listed.append((part, first))
    if not listed:
        return Section(title, [Text("The project names no segments, or none has enough rows.")])
    sign = 1.0 if str(listed[0][1].get("better")) == "higher" else -1.0
    listed.sort(key=lambda pair: (bool(pair[0].get("small")), sign * float(pair[1]["value"])))
    rows, drawn = [], []
    for part, first in listed[:WORST]:
        other = compared.get((str(part.get("name")), first.get("metric")), {})
        few = " (few rows)" if part.get("small") else ""
        rows.append([f"{part.get('name')}{few}", number(part.get("rows")), number(first.get("value")),
                     interval(first.get("low"), first.get("high")), number(other.get("champion"))])
        drawn.append((str(part.get("name")), float(first["value"]), _or_none(first.get("low")),
                      _or_none(first.get("high")), _or_none(other.get("champion"))))
    name = str(listed[0][1].get("metric", "value"))
    return Section(title, [
        Table(["Segment", "Rows", name, "Interval", "Champion"], rows, 4),
        Plot(partial(plots.intervals, drawn, name), f"The {len(drawn)} segments where {name} is worst.")])


def calibration(found: RunFound) -> Section:
    stage = found.get("evaluate")
    title = "Calibration"
    if stage is None:
        return Section(title, [missing("evaluate", "the calibration")])
    told = _map(stage.mapping("evaluation.json").get("calibration"))
    if not told:
        return Section(title, [Text(f"A model for {found.project.task} has no probabilities to calibrate.")])
    bins, rows = [], []
    for one in _maps(told.get("bins")):
        if not _is(one.get("said")) or not _is(one.get("seen")) or not one.get("rows"):
            continue
        ends = _list(one.get("interval"))
        low, high = (ends[0], ends[1]) if len(ends) == 2 else (None, None)
        bins.append((float(one["said"]), float(one["seen"]), _or_none(low), _or_none(high)))
        rows.append([f"{number(one.get('low'))} to {number(one.get('high'))}", number(one["rows"]),
                     number(one["said"]), number(one["seen"]), interval(low, high)])
    blocks: list[Block] = [Text(str(told.get("says", "")))]
    if bins:
        said = "Predicted against seen: on the dashed line they agree."
        head = ["Scores", "Rows", "Predicted", "Seen", "Interval"]
        if not any(low is not None for *_, low, _ in bins):  # rows that depend on each other have none
            head, rows = head[:-1], [row[:-1] for row in rows]
        blocks += [Plot(partial(plots.calibration, bins), said), Table(head, rows, len(head) - 1)]
    return Section(title, blocks)


def robustness(found: RunFound) -> Section:
    stage = found.get("robustness")
    title = "Hard cases and disturbances"
    if stage is None:
        return Section(title, [missing("robustness", "the hard cases and disturbances")])
    cases = [[str(one.get("id")), str(one.get("status", "–")), str(one.get("says", ""))]
             for one in _maps(stage.result.get("cases"))]
    tried = [[str(one.get("name")), "passed" if one.get("passed") else "not passed", str(one.get("says", ""))]
             for key in ("perturbations", "behaviours") for one in _maps(stage.result.get(key))]
    blocks: list[Block] = [Text(stage.says, "good" if stage.passed else "bad")]
    blocks.append(Table(["Case", "Standing", "What happened"], cases, whole=(1,)) if cases else
                  Text("The project keeps no hard cases yet: opsdeck cases add."))
    if tried:
        blocks.append(Table(["Disturbance or expectation", "Verdict", "What happened"], tried, whole=(1,)))
    return Section(title, blocks)


def _comparisons(found: RunFound) -> Iterator[Mapping[str, Any]]:
    stage = found.get("compare")
    if stage is not None:
        yield from _maps(_map(stage.mapping("comparison.json").get("verdict")).get("comparisons"))


def _signed(value: Any) -> str:
    return f"{value:+.4g}" if _is(value) else "–"


def _is(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _or_none(value: Any) -> float | None:
    return float(value) if _is(value) else None


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _maps(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in _list(value) if isinstance(one, dict)]
