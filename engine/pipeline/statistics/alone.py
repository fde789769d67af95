"""Gates where there is no champion: absolute limits hold, what needs another model is passed. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.pipeline.statistics.comparison import AnyGate
from engine.pipeline.statistics.deciding import GateResult, of_resources
from engine.pipeline.statistics.gates import Latency, Memory
from engine.pipeline.statistics.resources import Measured

if TYPE_CHECKING:
    import numpy as np

NOTHING = "There is no model in production to compare with."


def decide(gates: Sequence[AnyGate], challenger: Measured, confidence: float, rng: np.random.Generator
           ) -> tuple[GateResult, ...]:
    """Every gate of a first model. Raises UsageError when what a limit looks at was not measured."""
    alpha = (1 - confidence) / 2
    found = []
    for gate in gates:
        own = _absolute(gate)
        if own is None:
            found.append(GateResult(gate.name, gate.kind, "passed", NOTHING))
        else:
            found.append(of_resources(own, None, challenger, alpha, rng))
    return tuple(found)


def _absolute(gate: AnyGate) -> Latency | Memory | None:
    """What of a gate needs no other model."""
    if isinstance(gate, Latency) and gate.at_most_ms is not None:
        return gate.model_copy(update={"at_most_ratio": None})
    if isinstance(gate, Memory) and gate.at_most_mb is not None:
        return gate.model_copy(update={"at_most_ratio": None})
    return None
