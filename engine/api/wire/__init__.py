"""The messages between the engine and its clients: JSON over HTTP on a Unix socket, protocol 1.

Every time is UTC in seconds since the epoch (float); every latency is in milliseconds, every rate
per second. `None` means *not known*, never zero. msgspec rather than pydantic, because the console
and the short commands pay for every import at 3 am.
"""

from engine.api.wire.live import (
    Alert,
    EngineInfo,
    Event,
    Level,
    Problem,
    Reloaded,
    Series,
    Service,
    Snapshot,
    Status,
    Variant,
)
from engine.api.wire.pipelines import (
    Clean,
    Cleaned,
    Cleaning,
    Page,
    Piece,
    Staying,
    Trigger,
    TriggerCause,
    TriggerNow,
    TriggerProblem,
)
from engine.api.wire.procedures import (
    Definition,
    Definitions,
    DefinitionText,
    Param,
    Procedure,
    Restored,
    RestoreDefinition,
    StepOutline,
)
from engine.api.wire.rollouts import Rollout, RolloutMetric, RolloutStep
from engine.api.wire.runs import (
    Act,
    Gate,
    GateKind,
    Preview,
    Review,
    RunState,
    RunSummary,
    RunView,
    StartRun,
    StepState,
    StepView,
    Waiting,
)

PROTOCOL = 1

__all__ = [
    "PROTOCOL", "Act", "Alert", "Clean", "Cleaned", "Cleaning", "Definition", "DefinitionText", "Definitions",
    "EngineInfo", "Event", "Gate", "GateKind", "Level", "Page", "Param", "Piece", "Preview", "Problem",
    "Procedure", "Reloaded", "RestoreDefinition", "Restored", "Review", "Rollout", "RolloutMetric",
    "RolloutStep", "RunState", "RunSummary", "RunView", "Series", "Service", "Snapshot", "StartRun",
    "Status", "Staying", "StepOutline", "StepState", "StepView", "Trigger", "TriggerCause", "TriggerNow",
    "TriggerProblem", "Variant", "Waiting",
]
