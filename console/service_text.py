"""What the Service screen shows: variants beside each other, over time and now. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from console import format
from console.glyphs import Glyphs
from console.order import over
from console.widgets.lines import BLANK, Line, Span, line
from console.widgets.plot import GUTTER, Curve, ceiling, plot
from engine.api import wire

LEAST_BLOCK = 38
PERCENTILES = (("p50_ms", "p50", "."), ("p95_ms", "p95", "+"), ("p99_ms", "p99", "*"))


class SpanOf(msgspec.Struct, frozen=True):
    """A stretch of time to look at: `again` is how often it is read anew, both in seconds."""

    name: str
    seconds: float
    again: float


SPANS = (SpanOf("5 min", 300.0, 5.0), SpanOf("1 h", 3600.0, 30.0), SpanOf("24 h", 86400.0, 300.0))


def variants(service: wire.Service) -> list[wire.Variant]:
    """The champion first, then by weight, heaviest first."""
    return sorted(service.variants, key=lambda v: (v.name != "champion", -(v.weight or 0.0), v.name))


def column(series: wire.Series | None, variant: str, signal: str) -> list[float | None]:
    return series.values.get(f"{variant}/{signal}", []) if series else []


def curves(series: wire.Series | None, variant: str) -> list[Curve]:
    return [Curve(role, column(series, variant, signal), letter)
            for signal, role, letter in PERCENTILES]


def error_types(service: wire.Service, series: wire.Series | None) -> list[str]:
    """Every type that occurs now or in the stretch shown, the most frequent first."""
    total: dict[str, float] = {}
    for variant in service.variants:
        for kind, count in variant.errors.items():
            total[kind] = total.get(kind, 0.0) + count
    for key, values in (series.values if series else {}).items():
        signal = key.partition("/")[2]
        if signal.startswith("errors."):
            kind = signal.removeprefix("errors.")
            total[kind] = total.get(kind, 0.0) + max((v for v in values if v is not None), default=0)
    return [kind for kind in sorted(total, key=lambda k: (-total[k], k)) if total[kind] > 0]


def squeeze(values: Sequence[float | None], count: int) -> list[float | None]:
    """At most `count` values, each the largest of the ones it stands for."""
    if len(values) <= count:
        return list(values)
    result: list[float | None] = []
    for index in range(count):
        part = [v for v in values[index * len(values) // count:(index + 1) * len(values) // count]
                if v is not None]
        result.append(max(part) if part else None)
    return result


def _numbers(variant: wire.Variant, limits: dict[str, float]) -> Line:
    """The three percentiles now, the largest first, each marked when over its limit."""
    spans: list[Span] = [(" " * 2, "text")]
    for signal, role, _ in reversed(PERCENTILES):
        value = getattr(variant, signal)
        hot = over(value, limits.get(signal))
        spans += [(role, role), (f" {format.ms(value)}{'!' if hot else ''}   ",
                                 "over" if hot else "text")]
    return (*spans, ("ms", "dim"))


def _title(variant: wire.Variant, glyphs: Glyphs) -> Line:
    was = "was " if variant.stale else ""
    share = f", {was}{format.plain(variant.weight)} % of traffic" if variant.weight is not None else ""
    stale = f"  {glyphs.stale} stale {format.age(variant.age_s)}" if variant.stale else ""
    return line((f" {variant.name}", "strong"),
                (f"  version {variant.version or 'unknown'}{share}", "text"), (stale, "warn"))


def _history(label: str, now: float | None, values: Sequence[float | None], width: int,
             glyphs: Glyphs, role: str, top: float) -> Line:
    """A label, the value now, and the stretch as a spark; `top` is shared by the variants."""
    room = max(4, width - 27)
    text = format.spark(squeeze(values, room), glyphs.spark, top)
    return line((f" {format.left(label, 15)}", "dim"), (format.right(format.rate(now), 7), role),
                ("  ", "text"), (text, "spark" if role == "text" else role))


def block(variant: wire.Variant, service: wire.Service, series: wire.Series | None, *, width: int,
          plot_height: int, top: float, kinds: Sequence[str], tops: dict[str, float],
          glyphs: Glyphs) -> list[Line]:
    """One variant: its percentiles now and over time, then traffic and errors by type."""
    lines = [_title(variant, glyphs), _numbers(variant, service.limits)]
    lines += plot(curves(series, variant.name), width - 1, plot_height, top, braille=glyphs.braille,
                  limit=service.limits.get("p99_ms"), axis=glyphs.axis)
    lines.append(_times(series, width - 1))
    for label, signal, now in (("requests/s", "rps", variant.rps),
                               ("in flight", "in_flight", variant.in_flight)):
        lines.append(_history(label, now, column(series, variant.name, signal), width, glyphs,
                              "text", tops[signal]))
    for kind in kinds:
        now = variant.errors.get(kind, 0.0) if not variant.stale else None
        lines.append(_history(f"{kind}/s", now, column(series, variant.name, f"errors.{kind}"), width,
                              glyphs, "over" if now else "text", tops[f"errors.{kind}"]))
    return lines


def _times(series: wire.Series | None, width: int) -> Line:
    if series is None:
        return BLANK
    left, right = format.minute(series.start), format.minute(series.at)
    gap = width - GUTTER - 1 - len(left) - len(right)
    return line((" " * (GUTTER + 1) + left + " " * max(1, gap) + right, "dim"))


def beside(blocks: Sequence[list[Line]], width: int) -> list[Line]:
    """Blocks next to each other, each padded to its width."""
    from rich.cells import cell_len
    each = width // max(1, len(blocks))
    lines: list[Line] = []
    for y in range(max((len(b) for b in blocks), default=0)):
        spans: list[Span] = []
        for number, one in enumerate(blocks):
            here = one[y] if y < len(one) else BLANK
            spans += here
            used = sum(cell_len(text) for text, _ in here)
            if number < len(blocks) - 1 and used < each:
                spans.append((" " * (each - used), "text"))
        lines.append(tuple(spans))
    return lines


def screen(service: wire.Service, series: wire.Series | None, width: int, height: int,
           glyphs: Glyphs) -> list[Line]:
    """All of it in `height` lines: as many variants as fit beside each other, on one scale."""
    shown = variants(service)[:max(1, width // LEAST_BLOCK)]
    each = width // max(1, len(shown))
    kinds = error_types(service, series)
    fixed = 2 + 1 + 2
    kinds = kinds[:max(1, min(6, height - fixed - 4))]
    plot_height = max(3, height - fixed - len(kinds) - 1)
    every = [c for v in shown for c in curves(series, v.name)]
    top = ceiling(every, service.limits.get("p99_ms"))
    tops = {}
    for signal in ("rps", "in_flight", *(f"errors.{kind}" for kind in kinds)):
        values = [v for s in shown for v in column(series, s.name, signal) if v is not None]
        tops[signal] = format.nice_ceiling(max(values, default=1.0)) if signal != "rps" else 0.0
    blocks = [block(v, service, series, width=each, plot_height=plot_height, top=top, kinds=kinds,
                    tops=tops, glyphs=glyphs) for v in shown]
    if not kinds:
        blocks = [[*b, line((" errors/s        none of any type", "dim"))] for b in blocks]
    return beside(blocks, width)
