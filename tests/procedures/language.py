"""A registry of a few real actions and a procedure that uses most of the language, for tests."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

from pydantic import field_validator

from engine.procedures.actions import Action, Context, Effect, Params, Registry
from engine.procedures.check import Report, check_document

TODAY = dt.date(2026, 11, 24)


class Read(Params):
    service: str


class Shift(Params):
    service: str
    weights: dict[str, float]
    lease_s: float | None = None

    @field_validator("weights")
    @classmethod
    def _adds_up(cls, weights: dict[str, float]) -> dict[str, float]:
        if weights and sum(weights.values()) != 100:
            raise ValueError("weights add up to 100")
        return weights


async def _run(context: Context, params: Any) -> dict[str, Any]:
    return {}


def registry() -> Registry:
    found = Registry()
    declared: list[tuple[str, Effect, type[Params]]] = [
        ("traffic.read", "none", Read), ("traffic.shift", "idempotent", Shift),
        ("page.someone", "once", Read)]
    for name, effect, params in declared:
        found.add(Action(name, effect, name, params, _run, repr, service="service"))
    return found


GOOD = '''\
opsdeck: 1
id: rollback-model
title: Roll a service back to the version before
kind: runbook
owner: ml-platform
contacts:
  - {name: ML platform on call, via: "pagerduty:ml-platform"}
reviewed: 2026-11-20
review_every: 90d
for_alerts: [p99_ms]
params:
  service: {type: string, required: true, pattern: "^[a-z0-9-]+$", help: "Service to roll back"}
  weight:  {type: integer, min: 0, max: 100, default: 10}
  ratio:   {type: number, default: 0.5}
  reason:  {type: string, default: ""}
  token:   {type: secret, required: false}
preconditions:
  - check: "params.weight <= 50"
    message: "more than half of the traffic needs the full-rollout procedure"
steps:
  - id: look
    title: Read the current weights
    use: traffic.read
    with: {service: "${{ params.service }}"}
    effect: none
    expect: "result.weights.champion >= 0"
  - id: drain
    title: Send all traffic to the champion
    shell: ["trafficctl", "set", "${{ params.service }}", "champion=100"]
    effect: idempotent
    env: {TOKEN: "${{ params.token }}"}
    confirm: {typed: "${{ params.service }}"}
    approvals: {min: 2, roles: [approver], not_initiator: true, expires: 30m}
    timeout: 60s
    retry: {times: 3, backoff: 2s}
    probe: {shell: ["trafficctl", "is", "${{ params.service }}", "champion=100"]}
    undo: {shell: ["trafficctl", "restore", "${{ params.service }}"]}
    on_failure: rollback
    when: "steps.look.result.weights.champion < 100"
    evidence: [stdout]
  - id: note
    title: Note it down
    shell: |
      set -e
      echo ${{ params.reason }} ${{ params.weight }} >> notes
    effect: idempotent
    confirm: yes
    irreversible: notes are kept
    skippable: true
  - id: watch
    title: Look at the dashboard for two minutes
    manual: "Is p99 of ${{ params.service }} back under 300 ms?"
    needs: [drain]
'''


def check(text: str, name: str = "rollback-model.yaml", **options: Any) -> Report:
    return check_document(text, name, registry(), today=TODAY, **options)


def edited(*changes: tuple[str, str]) -> str:
    """GOOD with replacements, each of which must be there once."""
    text = GOOD
    for old, new in changes:
        assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
        text = text.replace(old, new)
    return text


def line_of(text: str, part: str) -> int:
    """The number of the first line that has `part`."""
    return next(n for n, line in enumerate(text.splitlines(), 1) if part in line)


def told(report: Report, pattern: str) -> Any:
    """The one problem whose message matches; fails with all of them if there is not exactly one."""
    found = [p for p in report.problems if re.search(pattern, p.message)]
    assert len(found) == 1, "\n".join(str(p) for p in report.problems) or "no problems at all"
    return found[0]
