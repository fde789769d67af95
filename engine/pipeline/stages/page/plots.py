"""The page's pictures as SVG: text stays text, nothing is fetched, the same numbers give the same bytes."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Sequence
from typing import Any

NEW, OLD, QUIET = "#0b6e99", "#9a6700", "#6b7280"
SETTINGS = {
    "svg.fonttype": "none", "svg.image_inline": True, "text.parse_math": False, "font.size": 9.0,
    "font.family": "sans-serif", "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": QUIET, "axes.labelcolor": "#222222", "xtick.color": QUIET, "ytick.color": QUIET,
    "figure.facecolor": "white", "axes.grid": True, "grid.color": "#e5e7eb", "grid.linewidth": 0.6}
_PROLOG = re.compile(r"^.*?(?=<svg )", re.DOTALL)
_METADATA = re.compile(r"\s*<metadata>.*?</metadata>", re.DOTALL)


def curve(points: Sequence[tuple[float, float]], name: str) -> str:
    """A loss by step."""
    def draw(axes: Any) -> None:
        axes.plot([at for at, _ in points], [value for _, value in points], color=NEW, linewidth=1.4,
                  marker="o" if len(points) < 30 else "", markersize=3)
        axes.set_xlabel("step")
        axes.set_ylabel(name)
    return _drawn("curve", draw, (6.4, 2.4))


def intervals(rows: Sequence[tuple[str, float, float | None, float | None, float | None]], label: str) -> str:
    """A row each: name, value, low, high, and the champion's value beside it where there is one."""
    def draw(axes: Any) -> None:
        for at, (_, value, low, high, champion) in enumerate(rows):
            if low is not None and high is not None:
                axes.plot([low, high], [at, at], color=NEW, linewidth=2, alpha=0.55)
            axes.plot([value], [at], "o", color=NEW, markersize=5)
            if champion is not None:
                axes.plot([champion], [at], "D", color=OLD, markersize=4.5)
        axes.set_yticks(range(len(rows)), [name[:40] for name, *_ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(label)
    return _drawn(f"intervals {label}", draw, (6.4, 0.7 + 0.3 * len(rows)))


def calibration(bins: Sequence[tuple[float, float, float | None, float | None]]) -> str:
    """Bins of (said, seen, low, high): on the diagonal what is said is what happens."""
    def draw(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8, linestyle="--")
        for said, seen, low, high in bins:
            if low is not None and high is not None:
                axes.plot([said, said], [low, high], color=NEW, linewidth=1.6, alpha=0.55)
            axes.plot([said], [seen], "o", color=NEW, markersize=4.5)
        axes.set_xlabel("predicted")
        axes.set_ylabel("seen")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
    return _drawn("calibration", draw, (3.6, 3.4))


def latencies(by_batch: Sequence[tuple[str, Any]]) -> str:
    """Distributions of milliseconds by batch size, each an array (calls,)."""
    def draw(axes: Any) -> None:
        import numpy as np

        for at, (_, ms) in enumerate(by_batch):
            low, p50, p95, p99 = (float(np.quantile(ms, level)) for level in (0.01, 0.5, 0.95, 0.99))
            axes.plot([low, p99], [at, at], color=NEW, linewidth=1.2, alpha=0.5)
            axes.plot([p50, p95], [at, at], color=NEW, linewidth=4, alpha=0.7)
            axes.plot([p99], [at], "|", color=NEW, markersize=10)
        axes.set_yticks(range(len(by_batch)), [name for name, _ in by_batch])
        axes.set_ylim(len(by_batch) - 0.5, -0.5)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
        axes.set_xlabel("ms: p1 to p99, thick from p50 to p95")
    return _drawn("latency", draw, (6.4, 0.8 + 0.35 * len(by_batch)))


def _drawn(salt: str, draw: Any, inches: tuple[float, float]) -> str:
    """An SVG element; `salt` keeps the ids of several pictures of one page apart."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # a user may have no home to cache fonts in
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context({**SETTINGS, "svg.hashsalt": salt}):
        figure = Figure(figsize=inches, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return _METADATA.sub("", _PROLOG.sub("", out.getvalue())).strip()
