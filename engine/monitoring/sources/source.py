"""The port to wherever live numbers come from. `scrape` and `prometheus` are the adapters shipped.

A target exposes, for each service and variant it carries:

    http_server_request_duration_seconds{service,variant,error_type}   histogram; "" is success
    http_server_active_requests{service,variant}                       gauge
    opsdeck_traffic_weight_percent{service,variant}                    gauge
    opsdeck_traffic_lease_seconds{service}                             gauge, absent without a lease
    opsdeck_model_info{service,variant,version}                        gauge, 1

and, where it counts them:

    opsdeck_units_total{service,variant}                               counter
    opsdeck_unit_failures_total{service,variant,error_type}            counter; also error_type="any"
    opsdeck_predictions_total{service,variant,bin}                     counter

Requests that are sent to a variant a second time, whose answers nobody gets, stand under the variant
"VARIANT+mirror": they are evidence about the variant, and no traffic of the service.

Further labels are allowed; the counts of such series are added.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from engine.monitoring.histograms import Histogram

DURATION = "http_server_request_duration_seconds"
ACTIVE = "http_server_active_requests"
WEIGHT = "opsdeck_traffic_weight_percent"
LEASE = "opsdeck_traffic_lease_seconds"
INFO = "opsdeck_model_info"
UNITS = "opsdeck_units_total"
UNIT_FAILURES = "opsdeck_unit_failures_total"
PREDICTIONS = "opsdeck_predictions_total"
MIRROR = "+mirror"
ERROR_TYPES = ("timeout", "out_of_memory", "invalid_input", "model_error", "unavailable")

Kind = Literal["gone", "slow", "redirect", "refused", "huge", "not_text", "rubbish", "empty",
               "failed"]


class Key(NamedTuple):
    """One duration series. `rest` spells its further labels, so that each restarts alone."""

    service: str
    variant: str
    error_type: str
    rest: str = ""


class Tally(NamedTuple):
    """One series of a counter. `what` is its error type or its bin, "" where the family has neither;
    `rest` as in `Key`."""

    service: str
    variant: str
    what: str
    rest: str = ""


Pair = tuple[str, str]  # service, variant


def is_mirror(variant: str) -> bool:
    """Whether this stands for what is mirrored to a variant."""
    return variant.endswith(MIRROR)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a target said: counters as they stand, never differences.

    `measures` says that it counts requests at all, so that a variant without a series has had none.
    `units`, `unit_failures` and `predictions` are empty where the target does not count them.
    `age_s` is how old the numbers were when they were read, for a source that has them from
    somebody else's scrape.
    """

    measures: bool = True
    requests: Mapping[Key, Histogram] = field(default_factory=dict)
    in_flight: Mapping[Pair, float] = field(default_factory=dict)
    weights: Mapping[Pair, float] = field(default_factory=dict)
    versions: Mapping[Pair, str] = field(default_factory=dict)
    leases: Mapping[str, float] = field(default_factory=dict)
    units: Mapping[Tally, float] = field(default_factory=dict)
    unit_failures: Mapping[Tally, float] = field(default_factory=dict)
    predictions: Mapping[Tally, float] = field(default_factory=dict)
    age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why there is no reading: `kind` for a machine, `text` as a sentence that names the target."""

    kind: Kind
    text: str


class Source(Protocol):
    """One target. `name` is its address without credentials."""

    @property
    def name(self) -> str: ...

    async def read(self) -> Reading | Trouble:
        """One reading, within the source's own deadline. Never raises for what a target does."""
        ...

    async def close(self) -> None: ...


SourceFactory = Callable[[Sequence[str], float], Awaitable[Mapping[str, Source]]]
"""From addresses and the deadline of one read in seconds to open sources, by address."""
