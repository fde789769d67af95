"""A rollout's plan: what each form stands for, and what is refused, with its line."""

from __future__ import annotations

import datetime as dt
import textwrap
from typing import Any

import pytest

import engine.actions
from engine.procedures.actions import Registry
from engine.procedures.check import Report, check_document, parse
from engine.procedures.document import Document
from engine.procedures.rollouts import Rollout
from engine.procedures.schema import json_schema

TODAY = dt.date(2026, 11, 24)
HEAD = """\
opsdeck: 1
id: rolling
title: Roll out
kind: rollout
owner: ml-platform
contacts: [{name: on call, via: "slack:#ml"}]
reviewed: 2026-11-20
use_when: a new version is there
good_after: it has all the traffic
params:
  service: {type: string, required: true, help: "Which service"}
  to: {type: string, default: challenger, help: "Which variant"}
rollout:
"""
NAMES = 'service: "${{ params.service }}"\nto: "${{ params.to }}"\n'


def registry() -> Registry:
    found = Registry()
    engine.actions.register(found)
    return found


def written(body: str, names: str = NAMES) -> str:
    return HEAD + textwrap.indent(names + textwrap.dedent(body).strip() + "\n", "  ")


def check(body: str, names: str = NAMES) -> Report:
    return check_document(written(body, names), "rolling.yaml", registry(), today=TODAY)


def document(body: str) -> Document:
    return parse(written(body), "rolling.yaml", registry(), today=TODAY)


def steps(body: str) -> list[tuple[str, str | None, dict[str, Any]]]:
    """(id, action, what it is given beside the names) of each."""
    return [(step.id, step.use, {key: value for key, value in step.with_.items()
                                 if key not in ("service", "to")})
            for step in document(body).steps]


NONE = {"requests": 0, "hold": 0.0, "good": False}


def test_a_canary_is_weights_each_watched_and_a_bake_before_the_promotion() -> None:
    found = steps("canary: [1, {weight: 25, requests: 9, hold: 1m}, 100]\nrequests: 200\nhold: 5s\nbake: 15m")
    assert found == [
        ("begin", "rollout.begin", {}), ("warm-up", "rollout.warm-up", {}),
        ("weight-1", "rollout.weight", {"weight": 1.0, "lease_s": 30.0}),
        ("watch-1", "rollout.watch", {"requests": 200, "hold": 5.0, "good": False}),
        ("weight-25", "rollout.weight", {"weight": 25.0, "lease_s": 30.0}),
        ("watch-25", "rollout.watch", {"requests": 9, "hold": 60.0, "good": True}),
        ("weight-100", "rollout.weight", {"weight": 99.0, "lease_s": 30.0}),
        ("bake", "rollout.watch", {"requests": 200, "hold": 900.0, "good": True}),
        ("promote", "rollout.promote", {})]


def test_blue_green_mirrors_switches_once_and_bakes() -> None:
    assert steps("blue-green: {bake: 15m}\nrequests: 0") == [
        ("begin", "rollout.begin", {}), ("warm-up", "rollout.warm-up", {}),
        ("mirror", "rollout.mirror", {"percent": 100.0, "hold": 60.0}),
        ("weight-100", "rollout.weight", {"weight": 99.0, "lease_s": 30.0}),
        ("bake", "rollout.watch", {"requests": 0, "hold": 900.0, "good": True}),
        ("promote", "rollout.promote", {})]
    without = steps("blue-green: {bake: 0, mirror: null}\nholdback: 0\nrequests: 0")
    assert [id for id, _, _ in without] == ["begin", "warm-up", "weight-100", "bake", "promote"]
    assert without[2][2]["weight"] == 100.0


def test_steps_are_what_they_say_and_nothing_is_added_but_the_beginning() -> None:
    assert steps("""
        steps:
          - warm-up: true
          - mirror: {percent: 50, for: 2m}
          - weight: 5
          - wait: 5m
          - evidence: 300
            within: 1h
          - analysis: undecided
          - approval: {min: 2}
          - weight: 0.5
          - wait: 1m
          - analysis: good
          - promote: true
        """) == [
        ("begin", "rollout.begin", {}), ("warm-up", "rollout.warm-up", {}),
        ("mirror", "rollout.mirror", {"percent": 50.0, "hold": 120.0}),
        ("weight-5", "rollout.weight", {"weight": 5.0, "lease_s": 30.0}),
        ("wait", "rollout.watch", NONE | {"hold": 300.0}),
        ("evidence", "rollout.watch", NONE | {"requests": 300}),
        ("analysis", "rollout.watch", NONE), ("approval", "rollout.look", {}),
        ("weight-0-5", "rollout.weight", {"weight": 0.5, "lease_s": 30.0}),
        ("wait-9", "rollout.watch", NONE | {"hold": 60.0}),
        ("analysis-10", "rollout.watch", NONE | {"good": True}), ("promote", "rollout.promote", {})]


def test_what_a_step_may_take_and_who_opens_it_is_the_plans() -> None:
    found = document("""
        canary: [{weight: 5, approvals: {min: 2, roles: [approver, admin], expires: 4h}}, 100]
        patience: 2h
        lease: 10s
        """)
    gated, watch = found.step("weight-5"), found.step("watch-5")
    assert gated.approvals is not None and (gated.approvals.min, gated.approvals.expires) == (2, 14400)
    assert gated.approvals.not_initiator and gated.with_["lease_s"] == 10.0
    assert gated.retry is not None and gated.retry.times == 3 and watch.timeout == 7200.0
    assert all(step.on_failure == "rollback" for step in found.steps)
    begin = found.step("begin")
    assert begin.undo is not None and begin.undo.use == "rollout.restore" and begin.undo_on == ["done"]
    assert [step.id for step in found.steps if step.undo] == ["begin"]


def test_good_false_promotes_on_the_least_evidence_alone() -> None:
    bake = document("canary: [100]\njudge: {good: false}").step("bake")
    assert bake.with_["good"] is False


def test_every_form_passes_the_checks_of_ordinary_steps() -> None:
    for body in ("canary: [1, 100]", "blue-green: {}", "steps: [{weight: 5}, {promote: true}]"):
        assert check(body).problems == [], body


REFUSED = [
    ("canary: [1, 100]\nblue-green: {}", "exactly one of canary, blue-green, steps; this one says canary and "
     "blue-green", "blue-green:"),
    ("requests: 5", "this one says none", "rollout:"),
    ("canary: [5, 1, 100]", "the weights of a canary grow from step to step", "canary:"),
    ("canary: [5, 5, 100]", "the weights of a canary grow from step to step", "canary:"),
    ("canary: [5, 50]", "the last weight of a canary is 100", "canary:"),
    ("canary: [5, 99.5, 100]", "keeps the holdback of 1 % at the old version, so the one before it is at "
     "most 99", "canary:"),
    ("canary: []", "canary", "canary: []"),
    ("canary: [0, 100]", "more than 0", "canary: [0"),
    ("canary: [5, 101]", "at most 100", "canary: [5"),
    ("canary: [5, {weigth: 50}, 100]", "weigth", "canary: [5"),
    ("canary: [much, 100]", "item 1 of `canary`: a weight is a percentage such as 25, or a map",
     "canary: [much"),
    ("canary: [5, 100]\nlease: 1s", "the lease lies between 2 seconds and an hour", "lease:"),
    ("canary: [5, 100]\nlease: 2h", "the lease lies between 2 seconds and an hour", "lease:"),
    ("canary: [5, 100]\nholdback: 50", "less than 50", "holdback"),
    ("canary: [5, 100]\nbudget: {bad: 0}", "at least 1", "bad: 0"),
    ("canary: [5, 100]\njudge: {alpha: 0}", "more than 0", "alpha"),
    ("canary: [5, 100]\njudge: {alpha: 0.5}", "at most 0.2", "alpha"),
    ("canary: [5, 100]\njudge: {errors: {limit: 1}}", "more than 1", "limit"),
    ("canary: [5, 100]\njudge: {errors: {tolerated: 0.5}}", "at least 1", "tolerated"),
    ("canary: [5, 100]\njudge: {errors: {critical: false}, latency: {critical: false}}",
     "nothing would be judged: errors or latency must be critical", "judge:"),
    ("canary: [5, 100]\njudge: {errors: {limit: null}, latency: {limit: null}}",
     "it could never be shown to be good: errors or latency must be critical and have a `limit`, or say "
     "`good: false`", "judge:"),
    ("canary: [5, 100]\njudge: {errors: {limit: null}, latency: {critical: false}}",
     "it could never be shown to be good", "judge:"),
    ("steps: [{weight: 5}]", "the last step of a rollout, and no other, is `promote: true`", "steps:"),
    ("steps: [{promote: true}, {weight: 5}, {promote: true}]", "and no other, is `promote: true`",
     "steps:"),
    ("steps: [{weight: 5}, {mirror: {}}, {promote: true}]", "a mirror comes before the first weight",
     "mirror: {}"),
    ("judge: {good: false, errors: {limit: null}, latency: {limit: null}}\n"
     "steps: [{analysis: good}, {promote: true}]", "it could never be shown to be good",
     "analysis: good"),
    ("steps: [{weight: 5, wait: 5m}, {promote: true}]", "exactly one of warm-up, mirror, weight, wait, "
     "evidence, analysis, approval, promote; this one says weight and wait", "steps:"),
    ("steps: [{within: 5m}, {promote: true}]", "this one says none", "steps:"),
    ("steps:\n- weight: 5\n- mirror: 20\n- promote: true", "`mirror` must be a map", "mirror: 20"),
    ("canary:\n- 25\n- 5\n- 100", "5 comes after 25", "- 5"),
    ("canary: [1, 100]\nunknown: 1", "unknown key `unknown`", "unknown: 1"),
]


@pytest.mark.parametrize("body, said, line", REFUSED, ids=[said[:50] for _, said, _ in REFUSED])
def test_a_plan_that_makes_no_sense_is_refused_with_its_line(body: str, said: str, line: str) -> None:
    report = check(body)
    found = [problem for problem in report.errors if said in problem.message]
    assert len(found) == 1, "\n".join(str(problem) for problem in report.problems)
    lines = written(body).splitlines()
    assert line in lines[found[0].line - 1], (found[0], lines[found[0].line - 1])
    assert report.document is None


@pytest.mark.parametrize("names, said", [
    ('service: "${{ params.servise }}"\nto: challenger\n', "no parameter `servise`"),
    ('service: flights\nto: "${{ params.too }}"\n', "no parameter `too`"),
    ('service: flights\nto: "${{ steps.x.result }}"\n', "`to` is filled in before any step has run"),
    ("service: flights\n", "`to` is missing"), ("to: challenger\n", "`service` is missing"),
    ('service: ""\nto: challenger\n', "`service` must be something"),
])
def test_what_is_rolled_out_must_be_known(names: str, said: str) -> None:
    report = check("canary: [1, 100]", names)
    found = [problem for problem in report.errors if said in problem.message]
    assert found, "\n".join(str(problem) for problem in report.problems)
    assert len(found) == 1, "\n".join(str(problem) for problem in report.problems)
    at = written("canary: [1, 100]", names).splitlines()[found[0].line - 1]
    assert "rollout" in at or "service" in at or "to:" in at


def test_a_rollout_has_its_steps_in_its_plan_and_only_a_rollout_has_one() -> None:
    text = written("canary: [1, 100]")
    step = "steps: [{id: a, title: A, manual: hm}]\n"
    both = check_document(text + step, "r.yaml", registry(), today=TODAY)
    assert any("says its steps in `rollout: {steps" in problem.message for problem in both.errors)
    other = check_document(text.replace("kind: rollout", "kind: runbook") + step, "r.yaml", registry(),
                           today=TODAY)
    assert any("`rollout`: it is for procedures of kind rollout" in one.message for one in other.errors)
    alone = check_document(text.replace("kind: rollout", "kind: runbook"), "r.yaml", registry(), today=TODAY)
    at = text.splitlines().index("rollout:") + 1
    assert [problem.message for problem in alone.errors if problem.line == at] == [
        "`rollout`: it is for procedures of kind rollout, and this is a runbook"]
    assert not any("`steps` is missing" in problem.message for problem in alone.errors)
    none = check_document(HEAD.replace("rollout:\n", ""), "r.yaml", registry(), today=TODAY)
    assert any("says `rollout:`, the plan" in problem.message for problem in none.errors)


def test_the_schema_knows_the_plan_by_its_written_names() -> None:
    schema = json_schema()
    plan = schema["$defs"]["Rollout"]
    assert set(plan["properties"]) == {field.alias or name for name, field in Rollout.model_fields.items()}
    assert "blue-green" in plan["properties"] and plan["additionalProperties"] is False
    assert plan["required"] == ["service", "to"]


def test_what_must_be_a_map_comes_with_its_keys() -> None:
    [problem] = check("steps: [{weight: 5}, {mirror: 20}, {promote: true}]").errors
    assert problem.hint == "its keys are `percent`, `for`"
