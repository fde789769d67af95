"""The registry of actions: what a step may `use:`, with typed parameters and a declared effect.

An action is an async function registered with `@action`. Third parties add theirs through the
entry-point group `opsdeck.actions`: each entry point names a module whose import registers.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

Effect = Literal["none", "idempotent", "once"]
STRICTNESS: dict[Effect, int] = {"none": 0, "idempotent": 1, "once": 2}


class Params(BaseModel):
    """Base of every action's parameters: unknown keys are errors, values are not coerced loosely."""

    model_config = ConfigDict(extra="forbid", frozen=True)


P = TypeVar("P", bound=Params)


@dataclass(frozen=True)
class Preview:
    """The world now and after the action, in words, and the `state` compared again before acting."""

    now: str
    after: str
    state: dict[str, Any] = field(default_factory=dict)


class Router(Protocol):
    """How a service's traffic is read and set. Adapters live under `engine.rollout.traffic`."""

    async def read(self, service: str) -> dict[str, float]:
        """Weights by variant, in percent, adding up to 100."""
        ...

    async def shift(self, service: str, weights: Mapping[str, float],
                    lease_s: float | None = None) -> dict[str, float]:
        """Set the weights (percent, adding up to 100) atomically; returns those now in force."""
        ...


@dataclass(frozen=True)
class ProcessStatus:
    """A supervised process: `state` is running, stopped or dead; `ready` is what its check says."""

    name: str
    state: Literal["running", "stopped", "dead"]
    pid: int | None
    started: float | None
    ready: bool | None


class Supervisor(Protocol):
    """Long-lived processes, started in sessions of their own, that survive the engine."""

    async def status(self, name: str) -> ProcessStatus: ...
    async def start(self, name: str) -> ProcessStatus:
        """Start it unless it runs, wait until ready. Raises ActionFailed with the log's last lines."""
        ...

    async def stop(self, name: str, grace_s: float = 10.0) -> ProcessStatus: ...


class Signals(Protocol):
    """The live signals of services, as the collector sees them now."""

    def read(self, service: str, variant: str | None = None) -> Mapping[str, Any]:
        """rps, p50_ms, p95_ms, p99_ms, error_ratio, errors, in_flight, weight, stale, age_s; values None
        where unknown. Raises NotFound for an unknown service or variant."""
        ...


@dataclass
class Context:
    """What an action may reach. Everything comes from the composition root, nothing is global."""

    run: str
    step: str
    attempt: int
    router: Router
    supervisor: Supervisor
    signals: Signals
    secrets: Mapping[str, str]
    log: Callable[[str], None]
    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Command:
    """A process that carries an action, so that it outlives the engine and is found again as a shell step is.

    It sees a scrubbed environment, `env`, OPSDECK_RUN, OPSDECK_STEP and OPSDECK_ATTEMPT; and two files of
    its attempt: into OPSDECK_RESULT it writes one JSON object, {"result": …} or {"error": a sentence,
    "hint": …, "result": …}; to OPSDECK_PROGRESS it appends lines of JSON {"name", "step", "value"}, the
    points of a curve. It ends with 0 when it did its work. `secrets` are references by the name of the
    variable that is to hold the value, which is masked in all that the process prints. `unseen`: they come as
    one JSON object on standard input instead, so that no other process of the same user finds them in the
    environment of this one. `user`: steps is the second user of a system engine, engine is the engine's own.
    """

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    user: Literal["steps", "engine"] = "steps"
    secrets: Mapping[str, str] = field(default_factory=dict)
    unseen: bool = False


Run = Callable[[Context, P], Awaitable[dict[str, Any]]]
CommandFn = Callable[[Context, P], Awaitable[Command | dict[str, Any]]]
PreviewFn = Callable[[Context, P], Awaitable[Preview]]
ReadyFn = Callable[[Context, P], Awaitable[None]]
ForeseeFn = Callable[[Context, P], Awaitable[str]]


@dataclass(frozen=True)
class Action(Generic[P]):
    """A registered action. `run` returns the step's `result`; or `command` says which process brings it,
    or the result where it is known already, and nothing is started. Exactly one of the two is given.

    `run` raises ActionFailed when the effect is known not to have happened, OutcomeUnknown when it
    may have (a lost connection after the request was sent). `command` has no effect of its own: it may
    be asked again. `describe` renders the exact thing that will be done in one line; `service` names the
    parameter that holds the service, for the policy; `foresee` tells a dry run what the step would come
    to, in a sentence; `ready` raises an OpsdeckError for parameters that cannot lead anywhere, before there
    is a run: the run is refused then.
    """

    name: str
    effect: Effect
    summary: str
    params: type[P]
    run: Run[P] | None
    describe: Callable[[P], str]
    preview: PreviewFn[P] | None = None
    service: str | None = None
    command: CommandFn[P] | None = None
    foresee: ForeseeFn[P] | None = None
    ready: ReadyFn[P] | None = None

    def __post_init__(self) -> None:
        if (self.run is None) == (self.command is None):
            raise ValueError(f"action {self.name} has either run or command")


class Registry:
    """Actions by name. One per engine; `load` adds the built-in ones and the entry points'."""

    def __init__(self) -> None:
        self._actions: dict[str, Action[Any]] = {}

    def add(self, action: Action[Any]) -> None:
        if action.name in self._actions and self._actions[action.name] is not action:
            raise ValueError(f"action {action.name} is registered twice")
        self._actions[action.name] = action

    def get(self, name: str) -> Action[Any] | None:
        return self._actions.get(name)

    def names(self) -> list[str]:
        return sorted(self._actions)

    def load_entry_points(self) -> None:
        """Third parties' actions: each entry point is a callable that takes the registry."""
        for entry in importlib.metadata.entry_points(group="opsdeck.actions"):
            entry.load()(self)
