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


class Page(msgspec.Struct):
    """`GET /v1/runs/{id}/page`: the evidence of a pipeline's run, as Markdown; `html` is where the one
    with plots lies, and `whole`, with `?html=1`, all of it."""

    run: str
    at: float
    verdict: str
    text: str
    html: str | None
    whole: str | None = None
