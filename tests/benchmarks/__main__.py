"""Every figure beside its target: `uv run python -m tests.benchmarks [NAME …]`.

NAME is a module of this folder; without one all are measured, which takes some minutes. Figures are
never failed upon: machines are noisy, and a person reads them.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from pathlib import Path

from tests.benchmarks.figure import Figure

MODULES = ("commands", "steps", "journal", "gateway", "flavours", "collector", "console", "demo", "judge",
           "outcomes", "traffic", "rollout", "validation", "evaluation", "reproduce", "pipeline_cache")


def row(figure: Figure) -> str:
    good = (figure.value <= figure.target if figure.better == "lower" else figure.value >= figure.target)
    sign = "≤" if figure.better == "lower" else "≥"
    mark = "✔" if good else "✘"
    note = f"  ({figure.note})" if figure.note else ""
    return (f" {mark} {figure.name:<64} {number(figure.value):>10} {figure.unit:<6}"
            f" {sign} {number(figure.target):<8}{note}")


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def main(names: list[str]) -> int:
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    unknown = [name for name in names if name not in MODULES]
    if unknown:
        print(f"there is no benchmark {unknown[0]}; there are {', '.join(MODULES)}", file=sys.stderr)
        return 2
    load = Path("/proc/loadavg").read_text().split()[0]
    print(f"{os.cpu_count()} cores, load {load}, {time.strftime('%Y-%m-%d %H:%MZ', time.gmtime())}")
    for name in names or MODULES:
        print(f"\n{name}", flush=True)
        for figure in importlib.import_module(f"tests.benchmarks.{name}").figures():
            print(row(figure), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
