"""How long a model takes to answer, and how much memory it needs, one model or two in turn.

Each batch size has a warm-up and then calls for a while: at least so many as the bound of a quantile needs,
unless that takes too long. Two models are measured in turns of a few calls, first one, then the other, then
the other way round: a machine that is busy for a while slows both alike. Clocks are read in the model's own
process, around the call alone (see `child`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.pipeline.robustness.changes import Table
from engine.pipeline.scoring.asking import Scorer
from engine.pipeline.statistics.resources import least_for

if TYPE_CHECKING:
    from engine.pipeline.statistics.labelled import Floats

QUANTILES = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}
TURN = 50  # calls before it is the other's turn
WARM_UP = 50  # calls, or WARM_UP_S
WARM_UP_S = 0.5
MARGIN = 1.5  # times the calls that the bound of a quantile needs at least
MOST = 2000  # calls
SECONDS = 3.0  # of calls of one batch size of one model, once it has had enough
LONGEST = 10.0  # seconds, enough or not
LONGEST_GATED = 60.0  # where a gate looks at the latency
HELD = 4096  # rows that batches are cut from


@dataclass(frozen=True, eq=False)
class Speed:
    """Of one model at one batch size. `ms` (calls,). `enough`: whether so many calls bound the quantile that
    was asked for."""

    batch: int
    ms: Floats
    enough: bool

    def as_json(self) -> dict[str, Any]:
        import numpy as np

        found = {name: float(np.quantile(self.ms, level)) for name, level in QUANTILES.items()}
        return {"batch": self.batch, "calls": len(self.ms), "enough": self.enough, **found,
                "mean_ms": float(self.ms.mean()), "rows_per_s": self.rows_per_s}

    @property
    def rows_per_s(self) -> float:
        return float(self.batch * len(self.ms) / max(self.ms.sum() / 1000, 1e-9))


def calls_for(quantile: float, confidence: float) -> int:
    """How many calls a bound of this quantile wants, with some over."""
    return math.ceil(MARGIN * least_for(quantile, (1 - confidence) / 2))


def measure(models: Mapping[str, Scorer], rows: Table, batches: Sequence[int], *, quantile: float = 0.99,
            confidence: float = 0.95, longest: float = LONGEST) -> dict[str, list[Speed]]:
    """Each model at each batch size, in the order given, for at most `longest` seconds each. Raises
    ModelFailed when one does not answer."""
    largest = max(batches)
    for one in models.values():
        one.hold(rows.slice(0, max(HELD, largest)), largest)
    calls = calls_for(quantile, confidence)
    found: dict[str, list[Speed]] = {name: [] for name in models}
    for batch in batches:
        taken = _in_turns(models, batch, calls, longest)
        for name, ms in taken.items():
            found[name].append(Speed(batch, ms, len(ms) >= least_for(quantile, (1 - confidence) / 2)))
    return found


def _in_turns(models: Mapping[str, Scorer], batch: int, calls: int, longest: float) -> dict[str, Floats]:
    import numpy as np

    taken: dict[str, list[Floats]] = {}
    for name, one in models.items():
        one.raw.measure(batch, WARM_UP, 0, WARM_UP_S)
        taken[name] = []
    order, done, spent = list(models), 0, dict.fromkeys(models, 0.0)
    while done < max(calls, MOST):
        longer = max(spent.values())
        if longer > longest or (longer > SECONDS and done >= calls):
            break
        got = []
        for name in order:
            ms = models[name].raw.measure(batch, TURN, done * batch, longest / 4)
            taken[name].append(ms)
            spent[name] += float(ms.sum()) / 1000
            got.append(len(ms))
        done += min(got)
        order.reverse()
    return {name: np.concatenate(parts) for name, parts in taken.items()}


def save(path: Path, speeds: Mapping[str, Speed]) -> None:
    """The milliseconds of every call, as .npz by name."""
    import numpy as np

    arrays: dict[str, Any] = {name: one.ms for name, one in speeds.items()}
    np.savez_compressed(path, **arrays)
