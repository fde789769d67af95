"""The messages between the engine and its clients: JSON over HTTP on a Unix socket, protocol 1.

Every time is UTC in seconds since the epoch (float); every latency is in milliseconds, every rate
per second. `None` means *not known*, never zero. msgspec rather than pydantic, because the console
and the short commands pay for every import at 3 am.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

PROTOCOL = 1

RunState = Literal["running", "waiting", "paused", "done", "failed", "rolled_back", "aborted"]
StepState = Literal["planned", "waiting", "intent", "done", "failed", "unknown", "skipped", "undone"]
Level = Literal["page", "ticket"]
GateKind = Literal["confirm", "typed", "approval", "answer", "settle", "failed"]


class EngineInfo(msgspec.Struct, omit_defaults=False):
    """`GET /v1/engine`: who answers, and who the kernel says is asking.

    `config_problem`: why the config that was read last does not hold; `restart`: the keys of the
    config that wait for a restart.
    """

    pid: int
    socket: str
    version: str
    state: Literal["serving", "draining", "degraded"]
    protocol: int
    at: float
    home: str
    mode: Literal["single-user", "system"]
    user: str
    roles: list[str]
    problem: str | None = None
    config_problem: str | None = None
    restart: list[str] = []


class Reloaded(msgspec.Struct):
    """`POST /v1/engine/reload`: the config that was read holds now, but for `restart`.

    `changed` and `restart` are keys such as services.flights; `runs` keep the policy they began with.
    """

    at: float
    text: str
    changed: list[str]
    restart: list[str]
    runs: list[str] = []


class Variant(msgspec.Struct):
    """Live signals of one variant of a service over the collector's window."""

    name: str
    version: str | None
    weight: float | None
    rps: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    errors: dict[str, float]
    stale: bool
    in_flight: float | None = None
    age_s: float | None = None


class Alert(msgspec.Struct):
    """A limit that has been exceeded for its hold time. `runbooks` are ids, most apt first."""

    id: str
    service: str
    level: Level
    signal: str
    title: str
    since: float
    runbooks: list[str] = []


class Service(msgspec.Struct):
    """One row of the fleet. `trend_p99_ms`: the last five minutes, oldest first, None where unknown.

    `rollout` is None or {"run", "weight" (percent or None), "step", "steps" (counts), "state" (the run's),
    "verdict", "waits" (whether a person must act)} of the rollout that runs.
    """

    name: str
    age_s: float | None
    alerts: list[Alert]
    drift: dict[str, Any] | None
    rollout: dict[str, Any] | None
    waiting: int
    variants: list[Variant]
    limits: dict[str, float] = {}
    rps: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    error_ratio: float | None = None
    trend_p99_ms: list[float | None] = []
    lease_s: float | None = None


class Status(msgspec.Struct):
    """`GET /v1/status`."""

    at: float
    services: list[Service]


class RunSummary(msgspec.Struct):
    """One line of the list of runs. `next` is the sentence that says what a person must do, if any; `reason`
    why it goes back or has ended so."""

    id: str
    procedure: str
    title: str
    state: RunState
    by: str
    started: float
    ended: float | None
    service: str | None
    steps_done: int
    steps_total: int
    next: str | None = None
    step: str | None = None
    dry_run: bool = False
    reason: str | None = None


class Gate(msgspec.Struct):
    """What one step waits for. `digest` binds an answer to exactly what was shown."""

    kind: GateKind
    digest: str
    prompt: str
    expected: str | None = None
    approvals_needed: int = 0
    approvals: list[str] = []
    roles: list[str] = []
    not_initiator: bool = False
    expires: float | None = None
    since: float | None = None


class Preview(msgspec.Struct):
    """What the world is now and what it will be, read at `read_at`; `state` is compared before acting."""

    now: str
    after: str
    read_at: float
    state: dict[str, Any] = {}


class StepView(msgspec.Struct):
    """One step of a run. `command` is the exact thing that runs, rendered, secrets masked."""

    id: str
    title: str
    state: StepState
    attempt: int
    exit_code: int | None
    stdout: str
    result: Any
    by: str | None
    started: float | None
    ended: float | None
    kind: Literal["action", "shell", "manual"] = "shell"
    command: str | None = None
    effect: Literal["none", "idempotent", "once"] = "once"
    undo: str | None = None
    irreversible: str | None = None
    error: str | None = None
    gate: Gate | None = None
    preview: Preview | None = None
    skippable: bool = False
    output_bytes: int = 0
    output_file: str | None = None
    reason: str | None = None
    undo_of: str | None = None


class RunView(msgspec.Struct):
    """`GET /v1/runs/{id}`, and the JSON of `opsdeck show`."""

    id: str
    procedure: str
    state: RunState
    steps: list[StepView]
    title: str
    by: str
    started: float
    ended: float | None
    at: float
    params: dict[str, Any]
    service: str | None
    revision: int
    unisolated: bool
    review: str | None
    next: str | None
    document_sha256: str
    reason: str | None = None
    dry_run: bool = False
    safe: str | None = None


class Param(msgspec.Struct):
    name: str
    type: Literal["string", "integer", "number", "boolean", "secret"]
    required: bool
    default: Any
    help: str
    pattern: str | None = None
    min: float | None = None
    max: float | None = None
    choices: list[Any] | None = None


class StepOutline(msgspec.Struct):
    id: str
    title: str
    kind: Literal["action", "shell", "manual"]
    command: str
    effect: Literal["none", "idempotent", "once"]
    confirm: Literal["none", "yes", "typed"]
    approvals: int
    undo: str | None


class Procedure(msgspec.Struct):
    """One entry of the library, `GET /v1/library`. `review` is a sentence when the review is overdue."""

    id: str
    title: str
    kind: Literal["runbook", "pipeline", "rollout", "recovery"]
    owner: str
    contacts: list[dict[str, str]]
    reviewed: str
    review: str | None
    use_when: str
    good_after: str
    for_alerts: list[str]
    params: list[Param]
    steps: list[StepOutline]
    sha256: str
    problem: str | None = None


class Waiting(msgspec.Struct):
    """Something that waits for a person, `may` says whether for the caller."""

    run: str
    procedure: str
    step: str
    service: str | None
    kind: GateKind
    prompt: str
    since: float
    may: bool
    expires: float | None = None


class Review(msgspec.Struct):
    """A gate that one person opened alone (break glass), `by` whom, `at` which time and for what `reason`:
    somebody else is to look at it afterwards. `ended`: when the run did, None while it runs."""

    run: str
    procedure: str
    service: str | None
    step: str
    by: str
    at: float
    reason: str
    ended: float | None = None


class Event(msgspec.Struct):
    """One journal event as the Audit screen and `timeline` show it."""

    seq: int
    at: float
    kind: str
    by: str
    origin: str
    run: str | None
    step: str | None
    attempt: int | None
    text: str
    hash: str
    data: dict[str, Any] = {}


class Snapshot(msgspec.Struct):
    """What the live stream carries each tick: all a console needs to paint Fleet and the header."""

    at: float
    seq: int
    services: list[Service]
    runs: list[RunSummary]
    waiting: list[Waiting]
    engine: EngineInfo


class Series(msgspec.Struct):
    """`GET /v1/services/{name}/history`: columns of equal length, oldest first, None where unknown.

    `values` maps "variant/signal" to a column; signals are rps, p50_ms, p95_ms, p99_ms, in_flight and
    errors.<type>. `step_s` is the distance of two points.
    """

    service: str
    start: float
    step_s: float
    at: float
    values: dict[str, list[float | None]]


class RolloutMetric(msgspec.Struct):
    """One thing that the judge counts: `ln_e` is the evidence that the canary is worse, bad at `line`;
    `ln_good` that it is not worse, good at `good_line` (None where that is not asked).

    `canary` and `baseline` are [n, y] since the rollout began. `expected` is the share of the canary's
    that would be y if it were as the baseline in the same beats: compare the canary's share with that,
    not with the baseline's total. `values` are both sides' own in words, canary first, such as
    ("11–13 ms", "9.1–10 ms"): an interval that holds at every look together; `edge_ms` is the latency above
    which a request is y.
    `critical` False: shown, decides nothing. `history` is ln_e over the ticks, at most 120 points, oldest
    first, and `good_history` ln_good.
    """

    name: str
    title: str
    critical: bool
    ln_e: float
    line: float | None
    canary: tuple[int, int]
    baseline: tuple[int, int]
    ln_good: float | None = None
    good_line: float | None = None
    values: tuple[str, str] | None = None
    history: list[float] = []
    expected: float | None = None
    edge_ms: float | None = None
    good_history: list[float] = []


class RolloutStep(msgspec.Struct):
    """One step of the plan as the screen draws it; `weight` in percent for those that set one."""

    id: str
    title: str
    state: StepState
    weight: float | None = None


class Rollout(msgspec.Struct):
    """`GET /v1/rollouts/{name}`: a rollout that runs or has ended, with its evidence.

    `from_`/`to` are variants with their versions; `weight` is the percent that `to` has now, as the
    router last said, None where it does not answer; `safe` are the weights that an abort restores.
    `verdict` is the judge's; `sentence` says why, and what would change it. `missing` says what keeps it
    from going on (too little traffic, stale data …) and `wait_s` how long that takes at this rate.
    `state` is the run's; `paused_by` is None, a person's name, or "engine" for missing evidence. `diff` is
    how the versions' manifests differ: (key, champion's, challenger's).
    """

    run: str
    service: str
    procedure: str
    state: RunState
    by: str
    started: float
    ended: float | None
    at: float
    champion: str
    challenger: str
    champion_version: str | None
    challenger_version: str | None
    weight: float | None
    safe: dict[str, float]
    steps: list[RolloutStep]
    step: str | None
    step_since: float | None
    step_requests: int
    metrics: list[RolloutMetric]
    ln_e_all: float
    threshold: float
    verdict: Literal["bad", "undecided", "good"]
    sentence: str
    concurrent: bool
    watching: bool
    bad: int
    bad_limit: int | None
    exposed: int
    exposed_limit: int | None
    missing: str | None = None
    wait_s: float | None = None
    paused_by: str | None = None
    next: str | None = None
    after: str | None = None
    undo: str | None = None
    reason: str | None = None
    gate: Gate | None = None
    gate_step: str | None = None
    lease_s: float | None = None
    diff: list[tuple[str, str, str]] = []


class TriggerCause(msgspec.Struct):
    """Why something would be trained, heard at `at`: `kind` is commit, data, cron, drift, webhook or hand.
    `said`: what came of it, such as "run 12" or "nothing to do: run 11 has built exactly this"."""

    at: float
    kind: str
    text: str
    by: str
    said: str


class TriggerProblem(msgspec.Struct):
    """A source that cannot look, `since` when and why."""

    source: str
    text: str
    since: float


class Trigger(msgspec.Struct):
    """One project of `GET /v1/triggers`. `why`: what happens now, or why nothing does. `watches`: what begins
    it by itself. `waiting` is built at `due` at the earliest; `run` goes on. `asked`: heard, and not yet
    looked at. `recent`: the last ten causes of the model, newest first. `commit`: what is built from."""

    project: str
    model: str
    at: float
    why: str
    watches: list[str]
    waiting: TriggerCause | None
    due: float | None
    run: str | None
    asked: list[TriggerCause]
    recent: list[TriggerCause]
    problems: list[TriggerProblem]
    commit: str | None = None


class TriggerNow(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /v1/triggers/{project}`: a person begins it, or says that its data has drifted."""

    kind: Literal["hand", "drift"] = "hand"
    reason: str = ""


class Page(msgspec.Struct):
    """`GET /v1/runs/{id}/page`: the evidence of a pipeline's run, as Markdown; `html` is where the one
    with plots lies."""

    run: str
    at: float
    verdict: str
    text: str
    html: str | None


class Definition(msgspec.Struct):
    """A version of a project's definition: its file and the procedure's document. `by`, `how` and `last` are
    of its last line: a run used it, a rollback put it back, or one saved it before it took its place. `run`
    is the last of its `runs`, `reason` that of the last rollback to it; `present`: it is there now."""

    number: int
    sha256: str
    procedure: str
    procedure_sha256: str
    first: float
    last: float
    by: str
    how: Literal["run", "saved", "rollback"]
    runs: int
    run: str | None
    reason: str
    present: bool


class Definitions(msgspec.Struct):
    """`GET /v1/definitions?project`, the last used first. `unused`: the file in the folder is none
    of them."""

    at: float
    project: str
    path: str
    definitions: list[Definition]
    unused: bool


class DefinitionText(msgspec.Struct):
    """`GET /v1/definitions/{number}?project`; `present` is what is in the folder now."""

    at: float
    number: int
    file: str
    procedure: str
    present: str


class RestoreDefinition(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /v1/definitions/{number}`. `force`: a present file that no run has used is kept as a version
    first."""

    project: str
    reason: str
    force: bool = False


class Restored(msgspec.Struct):
    """`saved` is the version that the file which was there is kept as, `problems` what is wrong with the one
    that is there now, such as a module that is gone."""

    at: float
    project: str
    number: int
    changed: bool
    saved: int | None
    problems: list[str]
    text: str


class StartRun(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /v1/runs`. `document` carries a path's text and needs admin; otherwise an id in the library."""

    procedure: str
    params: dict[str, Any] = {}
    dry_run: bool = False
    probe: bool = False
    document: str | None = None
    yes: bool = False
    confirm: dict[str, str] = {}


class Act(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /v1/runs/{id}/{verb}`; which fields a verb wants is in `engine.daemon.routes`."""

    step: str | None = None
    text: str | None = None
    digest: str | None = None
    seen_state: dict[str, Any] | None = None
    reason: str | None = None
    rollback: bool = False
    break_glass: bool = False


class Problem(msgspec.Struct):
    """The body of every refusal: an error of `engine.errors` on the wire."""

    code: str
    message: str
    exit_code: int
    at: float
    where: str | None = None
    hint: str | None = None
    problems: list[str] = []
