"""Runs, their steps and gates, and what people do with them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

RunState = Literal["running", "waiting", "paused", "done", "failed", "rolled_back", "aborted"]
StepState = Literal["planned", "waiting", "intent", "done", "failed", "unknown", "skipped", "undone"]
GateKind = Literal["confirm", "typed", "approval", "answer", "settle", "failed"]


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
    """What one step waits for. `digest` binds an answer to exactly what was shown.

    Where the approvals want another person than the author, `written` says who wrote what the step puts into
    production, and `authors` are the users among them. `alone`: the roles that may open it alone.
    """

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
    written: str = ""
    authors: list[str] = []
    alone: list[str] = []


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


class Waiting(msgspec.Struct):
    """Something that waits for a person, `may` says whether for the caller, and `why` why an approval of
    theirs would not count ("you started this run …")."""

    run: str
    procedure: str
    step: str
    service: str | None
    kind: GateKind
    prompt: str
    since: float
    may: bool
    expires: float | None = None
    why: str = ""


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
