"""Procedures as they can be started, and the definitions that runs have used."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


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
