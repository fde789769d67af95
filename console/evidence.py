"""The evidence of a rollout as lines: each metric's ln E growing towards its line, and its plots. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len

from console import format
from console.glyphs import Glyphs
from console.service_text import beside, squeeze
from console.widgets.lines import BLANK, Line, Span, line
from console.widgets.plot import GUTTER, Curve, plot
from engine.api import wire

WIDE = 140
AIR = 4           # blank lines for which the metrics without a case give way
NEAR = 0.8        # of the way to the line from which a metric is marked
NAME = {False: 18, True: 24}
LN = 5
SIDES = {False: (9, 6, 15), True: (25, 8, 25)}   # cells for champion, what it would expect, and canary
SPARK = 16
LABEL = 9
BINNED = "predictions"  # judged by how they fall into bins: there is no y of n
BUDGETED = 12  # cells of the bar of what is not worse


def way(value: float, line: float | None) -> float:
    """How far evidence has come to its line, 0 to 1; 0 where there is no line."""
    return max(0.0, min(1.0, value / line)) if line else 0.0


def count(number: int) -> str:
    """`940`, `1840`, `35k`, `1.2M`: at most four cells below a thousand million."""
    if number < 10_000:
        return str(number)
    if number < 999_500:
        return f"{number / 1e3:.0f}k"
    return f"{number / 1e6:.1f}M" if number < 9_950_000 else f"{number / 1e6:.0f}M"


def ln(value: float) -> str:
    """`ln E` in its column: a tenth is as much as anybody reads of it."""
    text = f"{value:.1f}" if abs(value) < 999 else f"{value:.0f}"
    return format.right("0.0" if text == "-0.0" else text, LN)


def percent(share: float) -> str:
    """How far it is, rounded down: 100 % is said only of what has reached its line."""
    return f"{int(100 * share + 1e-9)} %"


def _many(number: int, wide: bool) -> str:
    return f"{number:,}" if wide else count(number)


def bar(share: float, cells: int, glyphs: Glyphs, role: str) -> list[Span]:
    """A bar of `cells` between two edges, full only when `share` has reached 1."""
    filled = cells if share >= 1 else min(cells - 1, round(share * cells))
    return [(glyphs.axis, "dim"), (glyphs.bar * filled, role), (glyphs.bar_rest * (cells - filled), "dim"),
            (glyphs.axis, "dim")]


def label(metric: wire.RolloutMetric, *, wide: bool) -> str:
    """The metric's name, with what its failures are over: `latency p99 over 12 ms`."""
    title = metric.title
    if not wide:
        title = title.replace("errors: ", "err: ").removeprefix("latency ")
    if metric.edge_ms is not None:
        title += f" over {metric.edge_ms:.0f} ms"
    return title


def sides(metric: wire.RolloutMetric, *, wide: bool) -> tuple[str, str, str]:
    """What the champion had, what share of the canary's it would be at the champion, and what the canary had.

    Counts with shares; the values themselves where each side has its own. Without what is expected the
    champion's own share stands there.
    """
    (there_n, there_y), (here_n, here_y) = metric.baseline, metric.canary
    if metric.name == BINNED:
        return f"{_many(there_n, wide)} seen", "", f"{_many(here_n, wide)} seen"
    own = there_y / there_n if there_n else None
    share = metric.expected if metric.expected is not None else own
    expected = "" if share is None else f"{format.percent(share)}{' ' if wide else ''}%"
    if metric.values is not None and wide:
        canary_is, champion_is = metric.values
        here_share = f"{format.percent(here_y / here_n)} %" if here_n else "none"
        there_share = f"{format.percent(own)} %" if own is not None else "none"
        return f"{champion_is}, {there_share}", expected, f"{canary_is}, {here_share}"
    if wide:
        champion = f"{there_y:,} of {there_n:,} = {format.percent(own)} %" if there_n else "none"
        canary = f"{here_y:,} of {here_n:,} = {format.percent(here_y / here_n)} %" if here_n else "none"
        return champion, expected, canary
    champion = f"{count(there_y)}/{count(there_n)}" if there_n else "none"
    canary = f"{count(here_y)}/{count(here_n)} {format.percent(here_y / here_n)}%" if here_n else "none"
    return champion, expected, canary


def role_of(share: float) -> str:
    return "bad" if share >= 1 else "warn" if share >= NEAR else "text"


def head(width: int) -> Line:
    wide = width >= WIDE
    champion, expected, canary = SIDES[wide]
    room = _bar_room(width)
    when = "rolled back when full" if room > 13 else "bad when full"
    parts = [f"   {format.left('IS IT WORSE?', NAME[wide])} {format.right('ln E', LN)} "
             f"{format.left(when, room + 8)} {format.right('CHAMPION', champion)} "
             f"{format.right('EXPECTED' if wide else 'EXPECT', expected)} {format.right('CANARY', canary)}"]
    if wide:
        parts.append(f"  {format.left('ln E OVER TIME', SPARK)} {format.right('NOT WORSE', 12)}")
    return line(("".join(parts), "head"))


def _bar_room(width: int) -> int:
    wide = width >= WIDE
    used = 3 + NAME[wide] + 1 + LN + 1 + 2 + 1 + 5 + 1 + sum(SIDES[wide]) + 2
    if wide:
        used += 2 + SPARK + 1 + 12
    return max(8, width - used - 1)


def row(metric: wire.RolloutMetric, width: int, glyphs: Glyphs) -> Line:
    """One metric. Its mark and its percentage say how far it is; `only shown` that it decides nothing."""
    wide = width >= WIDE
    share = way(metric.ln_e, metric.line)
    crossed, role = share >= 1, role_of(share)
    if not metric.critical or metric.line is None:
        share, crossed, role = 0.0, False, "dim"
    mark = glyphs.steps["failed"] if crossed else "!" if role == "warn" else " "
    room = _bar_room(width)
    spans: list[Span] = [(f" {mark} ", role), (format.left(label(metric, wide=wide), NAME[wide]),
                                               "strong" if role in ("bad", "warn") else "text"),
                         (f" {ln(metric.ln_e)} ", role)]
    if metric.critical and metric.line is not None:
        spans += [*bar(share, room, glyphs, role), (f" {format.right(percent(share), 5)}", role)]
    else:
        spans.append((format.left(" only shown, decides nothing" if room > 26 else " only shown",
                                  room + 8), "dim"))
    for text, cells, look in zip(sides(metric, wide=wide), SIDES[wide],
                                 ("dim", "text", role if crossed else "text"), strict=True):
        spans.append((f" {format.right(text, cells)}", look))
    if wide:
        top = metric.line or max([5.0, *metric.history])
        values = [max(0.0, v) for v in metric.history]
        spark = format.spark(squeeze(values, SPARK), glyphs.spark, top)
        good = "" if metric.ln_good is None or metric.good_line is None else \
            f"{metric.ln_good:.1f} of {metric.good_line:.1f}"
        if good and metric.ln_good is not None and metric.ln_good >= (metric.good_line or 0.0):
            good = f"{glyphs.steps['done']} {good}"
        spans += [("  " + format.left(spark, SPARK), "spark" if role == "text" else role),
                  (f" {format.right(good, 12)}", "text")]
    return tuple(spans)


def together(rollout: wire.Rollout, width: int, glyphs: Glyphs) -> Line:
    """The mean of all the evidence against its own line."""
    share = way(rollout.ln_e_all, rollout.threshold)
    role = role_of(share)
    mark = glyphs.steps["failed"] if share >= 1 else "!" if role == "warn" else " "
    return line((f" {mark} ", role), (format.left("all together", NAME[width >= WIDE]), "text"),
                (f" {ln(rollout.ln_e_all)} ", role), *bar(share, _bar_room(width), glyphs, role),
                (f" {format.right(percent(share), 5)}", role))


def nearest(rollout: wire.Rollout) -> list[wire.RolloutMetric]:
    """The metrics by how near they are to rolling it back, the nearest first."""
    return sorted(rollout.metrics, key=lambda m: (not (m.critical and m.line), -way(m.ln_e, m.line), -m.ln_e))


def quiet(metric: wire.RolloutMetric) -> bool:
    """Whether there is nothing to see: no case at the canary, no evidence to speak of, none asked for."""
    return metric.critical and metric.ln_good is None and not metric.canary[1] \
        and way(metric.ln_e, metric.line) < 0.05


def kept(rollout: wire.Rollout, room: int) -> tuple[list[wire.RolloutMetric], str]:
    """The metrics to show in `room` rows, in the engine's order, and what is said of the others.

    Where it gets tight the quiet ones go first, then those that are furthest from their line.
    """
    metrics = rollout.metrics
    if len(metrics) + AIR <= room:
        return metrics, ""
    calm = sum(quiet(m) for m in metrics)
    if calm > 1 and len(metrics) - calm < room:
        return [m for m in metrics if not quiet(m)], f"{calm} more metrics had no case at the canary"
    if len(metrics) <= room:
        return metrics, ""
    chosen = {m.name for m in nearest(rollout)[:max(0, room - 1)]}
    left = format.plural(len(metrics) - len(chosen), "metric")
    return [m for m in metrics if m.name in chosen], f"and {left} further from the line"


def not_worse(rollout: wire.Rollout, glyphs: Glyphs, width: int) -> Line:
    """How far the evidence has come that the canary is not worse: the metric that is furthest back."""
    asked = [m for m in rollout.metrics if m.good_line and m.ln_good is not None]
    label: Span = (f" {format.left('NOT WORSE', LABEL)} ", "head")
    if not asked:
        return line(label, ("this plan does not ask for evidence of it", "dim"))
    last = min(asked, key=lambda m: way(m.ln_good or 0.0, m.good_line))
    share = way(last.ln_good or 0.0, last.good_line)
    if share >= 1:
        return line(label, (f"{glyphs.steps['done']} shown for {format.plural(len(asked), 'metric')} of "
                            f"{len(asked)}", "ok"))
    there = sum((m.ln_good or 0.0) >= (m.good_line or 0.0) for m in asked)
    long = f", about {format.age(rollout.wait_s)} more" \
        if rollout.wait_s is not None and not rollout.missing and rollout.ended is None else ""
    text = f" {percent(share)}{long}"
    room = width - LABEL - 3 - BUDGETED - 2
    for more in (f": {last.title} {last.ln_good:.1f} of {last.good_line:.1f}",
                 f"; {there} of {len(asked)} metrics are there" if len(asked) > 1 else ""):
        text += more if len(text) + len(more) <= room else ""
    return line(label, *bar(share, BUDGETED, glyphs, "text"), (format.clip(text, room), "text"))


def budget(rollout: wire.Rollout, glyphs: Glyphs, width: int) -> Line:
    """What is left of the requests that may fail at the canary, and of those it may get."""
    spans: list[Span] = [(f" {format.left('BUDGET', LABEL)} ", "head")]
    cells = 16 if width >= WIDE else 6
    for number, (name, used, limit) in enumerate((("bad", rollout.bad, rollout.bad_limit),
                                                  ("exposed", rollout.exposed, rollout.exposed_limit))):
        gap = "   " if number else ""
        if limit is None:
            spans.append((f"{gap}{name} {used:,}, no limit", "text"))
            continue
        share = way(float(used), float(limit))
        role = role_of(share)
        spent = ", spent" if share >= 1 else "!" if role == "warn" else ""
        spans += [(f"{gap}{name} {used:,} of {limit:,}{spent} ", role), *bar(share, cells, glyphs, role)]
    return tuple(spans)


def picture(metric: wire.RolloutMetric, rollout: wire.Rollout, width: int, height: int,
            glyphs: Glyphs) -> list[Line]:
    """One metric over time in `height` lines: a title, the plot with its lines dotted, the times. Where it
    is asked, the evidence that the canary is not worse grows beside the evidence that it is."""
    share = way(metric.ln_e, metric.line)
    role = role_of(share) if metric.critical else "dim"
    where = f"ln E {ln(metric.ln_e).strip()} of {metric.line:.1f}, {percent(share)}" if metric.line else \
        f"ln E {ln(metric.ln_e).strip()}, only shown"
    if cell_len(metric.title) + len(where) + 6 > width:
        where = where.removeprefix("ln E ")
    if share >= 1 and metric.critical:
        where += f" {glyphs.steps['failed']}"
    good = ""
    if metric.ln_good is not None and metric.good_line:
        good = f"  not worse {metric.ln_good:.1f} of {metric.good_line:.1f}"
        good = good if cell_len(metric.title) + len(where) + len(good) + 4 <= width else ""
    title = line((f" {format.clip(metric.title, max(8, width - len(where) - len(good) - 4))}", "strong"),
                 (f"  {where}", role), (good, "ok"))
    values = [max(0.0, v) for v in metric.history]
    top = max([1.0, (metric.line or 0.0) * 1.15, *values])
    curves = [Curve("bad" if share >= 1 and metric.critical else "text", values, "*")]
    if metric.good_history and metric.good_line:
        curves.insert(0, Curve("ok", [min(max(0.0, v), top) for v in metric.good_history], "+"))
    rows = plot(curves, width - 1, max(2, height - 2), round(top, 1), limit=metric.line,
                braille=glyphs.braille, axis=glyphs.axis,
                at_limit=f"{metric.line:.1f}" if metric.line else "",
                also=metric.good_line if metric.good_history else None)
    begun, ended = format.minute(rollout.started), format.minute(rollout.ended or rollout.at)
    gap = max(1, width - 1 - GUTTER - 1 - len(begun) - len(ended))
    times = line((" " * (GUTTER + 1) + begun + " " * gap + ended, "dim"))
    return [title, *rows, times]


def pictures(metrics: Sequence[wire.RolloutMetric], rollout: wire.Rollout, width: int, height: int,
             columns: int, glyphs: Glyphs) -> list[Line]:
    """Plots of `metrics` in a grid that fills `height` lines."""
    rows = max(1, -(-len(metrics) // columns))
    each = max(5, height // rows)
    lines: list[Line] = []
    for start in range(0, len(metrics), columns):
        blocks = [picture(m, rollout, width // columns, each, glyphs)
                  for m in metrics[start:start + columns]]
        blocks += [[BLANK]] * (columns - len(blocks))
        lines += beside(blocks, width)
    return lines[:height]
