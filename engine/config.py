"""The typed model of `opsdeck.yaml`. Reading a file, with lines and hints, is `engine.config_file`.

Durations are seconds; see `engine.fields.seconds` for how they may be written.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from engine.config_pipelines import Pipelines
from engine.config_routers import Router
from engine.fields import Approvals, Duration, Model, Text, Typed

Role = Literal["viewer", "operator", "approver", "admin"]
SIGNALS = ("p50_ms", "p95_ms", "p99_ms", "error_ratio", "rps", "in_flight", "age_s")
Signal = Literal["p50_ms", "p95_ms", "p99_ms", "error_ratio", "rps", "in_flight", "age_s"]


Email = Annotated[str, Field(min_length=1, pattern=r"^[^<>\x00-\x1f]+$")]


class Engine(Model):
    """How the engine runs. `group` owns the socket; `steps_user` runs a system engine's steps.

    `secret_env` names (globs) the variables of the engine's environment that an operator may give as
    a secret, `env:NAME`; see `operators_variables`.
    """

    group: str | None = None
    steps_user: str | None = None
    secret_env: list[str] | None = None
    library: list[Path] = []
    scrape_interval: Duration = 1.0
    window: Duration = 60.0
    stale_after: Duration = 5.0
    history: Duration = 7 * 86400.0
    output_cap: int = Field(default=65536, ge=1024, description="bytes of a step's output the journal keeps")


    def operators_variables(self, mode: Literal["single-user", "system"]) -> Sequence[str]:
        """The globs that hold: unless it says so, a system engine's environment is not for operators,
        while a single user's engine has nothing that its one operator could not read anyway."""
        if self.secret_env is not None:
            return self.secret_env
        return ("*",) if mode == "single-user" else ()


class Members(Model):
    users: list[str] = []
    groups: list[str] = []


class Rule(Model):
    """The least confirmation and approvals for an action (glob) on a service (glob)."""

    action: str = "*"
    service: str = "*"
    confirm: Literal["none", "yes"] | Typed = "none"
    approvals: Approvals | None = None


class Policy(Model):
    rules: list[Rule] = []
    break_glass: list[Role] = []


class Limit(Model):
    """A signal is over its limit when it stays above (or below) for `hold`."""

    above: float | None = None
    below: float | None = None
    hold: Duration = Field(default=60.0, alias="for")
    level: Literal["page", "ticket"] = "ticket"
    runbooks: list[str] = []


class Process(Model):
    """A long-lived process the supervisor may start. `ready` is a URL that answers 200 when it is."""

    command: list[str] = Field(min_length=1)
    cwd: Path | None = None
    env: dict[str, str] = {}
    ready: str | None = None
    ready_within: Duration = 30.0


class Gateway(Model):
    """The embedded gateway: its admin socket, which only the engine's uid may use, and its public URL."""

    admin: Path
    url: str | None = None


class Outcomes(Model):
    """Where predictions and the labels that come later are: JSON lines that are joined by `correlation`.

    A labelled prediction is wrong where `label` and `prediction` differ (by more than `tolerance` where
    both are numbers). A label waits for its prediction, and a prediction for its label, for `within`; at
    most `waiting` of each are kept. `label` is the field of a label's line that holds the truth, `output`
    the one that is meant where a model has several outputs.
    """

    predictions: Path
    labels: Path
    label: str = "label"
    output: str | None = None
    tolerance: float = Field(default=0.0, ge=0)
    within: Duration = 86400.0
    waiting: int = Field(default=250_000, ge=1)


class Service(Model):
    """One service of the fleet: where its metrics are, how its traffic is split, what is too much.

    Its traffic is split by our `gateway` or by another `router`. `manifests` are JSON files by variant
    that say what each version is: a rollout shows how they differ, and holds on to them.
    """

    title: str = ""
    owner: str = ""
    scrape: list[str] = []
    gateway: Gateway | None = None
    router: Router | None = None
    outcomes: Outcomes | None = None
    processes: dict[str, Process] = {}
    champion: str = "champion"
    versions: dict[str, str] = {}
    manifests: dict[str, Path] = {}
    limits: dict[Signal, Limit] = {}


class Asking(Model):
    """The webhook that asks for approvals, and what it understands. It only asks: nothing it gets or
    answers opens a gate."""

    url: str
    format: Literal["slack", "teams", "json"] = "json"


class Alerts(Model):
    """Where alerts are sent: webhooks by level. `repeat` is the least time between two of the same.

    `approvals` is told of every gate that waits for an approval.
    """

    webhooks: dict[Literal["page", "ticket"], str] = {}
    repeat: Duration = 3600.0
    approvals: Asking | None = None


class Reserved(Model):
    """A key of the language whose chapter this version does not have yet: it must be empty."""


class Config(Model):
    """The whole of `opsdeck.yaml`. `people`: the e-mails in Git of each user, so that nobody approves what
    they wrote."""

    engine: Engine = Engine()
    roles: dict[Role, Members] = {}
    people: dict[Text, list[Email]] = {}
    policy: Policy = Policy()
    services: dict[str, Service] = {}
    alerts: Alerts = Alerts()
    pipelines: Pipelines = Pipelines()
    drift: Reserved = Reserved()
    triggers: Reserved = Reserved()
    audiences: Reserved = Reserved()


def as_dict(config: Config) -> dict[str, Any]:
    """The config as plain JSON-able values, with the keys as written in the file."""
    return config.model_dump(mode="json", by_alias=True)
