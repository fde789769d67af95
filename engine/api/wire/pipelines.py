"""Triggers of pipelines, and the page of evidence."""

from __future__ import annotations

from typing import Literal

import msgspec


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


class Piece(msgspec.Struct):
    """Something that went as a whole: a run's notes, a stage's output, a failure, an environment."""

    kind: Literal["run", "output", "failure", "environment"]
    name: str


class Staying(msgspec.Struct):
    """How much stays for one reason; `bytes` is None where it was not measured."""

    why: str
    pieces: int
    bytes: int | None


class Cleaned(msgspec.Struct):
    """What went of one project, or of a dry run would go: `gone`, `bytes` in all; `used` are at work now and
    stay. `problem`: why it went no further."""

    project: str
    gone: list[Piece]
    bytes: int
    used: list[Piece]
    stays: list[Staying]
    problem: str | None = None


class Cleaning(msgspec.Struct):
    """`POST /v1/pipelines/clean`: of each project."""

    at: float
    dry_run: bool
    projects: list[Cleaned]


class Clean(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/pipelines/clean`. `project`: None for all of them."""

    project: str | None = None
    dry_run: bool = False


class Page(msgspec.Struct):
    """`GET /v1/runs/{id}/page`: the evidence of a pipeline's run, as Markdown; `html` is where the one
    with plots lies, and `whole`, with `?html=1`, all of it."""

    run: str
    at: float
    verdict: str
    text: str
    html: str | None
    whole: str | None = None
