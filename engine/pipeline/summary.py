"""A run in a page of Markdown for a pull request, and its steps and gates as JUnit for CI. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from engine.api import wire
from engine.pipeline.reports import escaped, junit
from engine.words import span

MARKS = {"done": "✔", "failed": "✘", "rolled_back": "↶", "aborted": "■", "waiting": "◆", "paused": "‖",
         "running": "▶", "skipped": "–", "planned": "·", "unknown": "?", "undone": "↶", "intent": "▶"}


def markdown(run: wire.RunView) -> str:
    """The verdict first, then what is not as expected in the data, gates, figures, and every step with what
    it came to."""
    state = run.state.replace("_", " ")
    lines = [f"## {MARKS.get(run.state, '?')} {escaped(run.title)}: {state}", ""]
    told = run.reason or (run.next if run.ended is None else None)
    beside = list(_beside(run))
    if told and beside and run.ended is None:
        told = told.strip().partition("\n")[0]  # the question goes on with what the table shows
    if told:
        lines += [escaped(told), ""]
    given = ", ".join(f"{name} {value}" for name, value in run.params.items()
                      if value not in ("", None, False))
    by = f"Run {run.id} of {run.procedure} by {run.by}" + (f": {given}" if given else "")
    lines += [escaped(by), ""]
    if beside:
        lines += ["| Data | Finding | Expected | Found |", "|---|---|---|---|",
                  *(f"| {' | '.join(escaped(one) or ' ' for one in row)} |" for row in beside), ""]
    gates = list(_gates(run))
    if gates:
        lines += ["| Gate | Verdict | Why |", "|---|---|---|",
                  *(f"| {escaped(name)} | {'✔ passed' if passed else '✘ not passed'} | {escaped(why)} |"
                    for _, name, passed, why in gates), ""]
    figures = list(_figures(run))
    if figures:
        lines += ["| Metric | Value | Interval |", "|---|---:|---:|",
                  *(f"| {escaped(name)} | {value} | {ends} |" for name, value, ends in figures), ""]
    lines += ["| Step | Outcome | What it came to | Took |", "|---|---|---|---:|"]
    for step in run.steps:
        took = span(step.ended - step.started) if step.started and step.ended else " "
        word = "running" if step.state == "intent" else step.state
        lines.append(f"| {escaped(step.title)} | {MARKS.get(step.state, '?')} {word} | "
                     f"{escaped(_said(step)) or ' '} | {took} |")
    return "\n".join(lines) + "\n"


def gates_junit(run: wire.RunView) -> bytes:
    """A test case for every step that began, for one that waits for a person's answer (that it waits for the
    approval at its end is no failure of a run in CI), and for every gate that a step has decided."""
    cases: list[tuple[str, str, str | None]] = []
    for step in run.steps:
        if step.state in ("done", "failed", "unknown"):
            cases.append(("steps", step.title, None if step.state == "done" else
                          step.error or f"it is {step.state}"))
        elif step.gate is not None and step.gate.kind != "approval":
            why = step.gate.prompt or step.gate.kind
            cases.append(("steps", step.title, f"it waits for a person: {why}"))
    cases += [(f"gates.{step}", name, None if passed else why) for step, name, passed, why in _gates(run)]
    return junit(run.procedure, cases)


def _gates(run: wire.RunView) -> Iterator[tuple[str, str, bool, str]]:
    """(step, name, passed, why) of each gate in the steps' results."""
    for step in run.steps:
        found = _mapping(step.result).get("gates")
        for gate in found if isinstance(found, list) else []:
            if isinstance(gate, Mapping):
                yield (step.id, str(gate.get("name", "a gate")), bool(gate.get("passed")),
                       str(gate.get("says", "")))


def _figures(run: wire.RunView) -> Iterator[tuple[str, str, str]]:
    """Metrics that have an interval beside them, as the evaluation gives them."""
    for step in run.steps:
        for name, one in _mapping(_mapping(step.result).get("metrics")).items():
            if isinstance(one, Mapping) and isinstance(one.get("value"), int | float):
                low, high = one.get("low"), one.get("high")
                ends = f"{_number(low)} to {_number(high)}" if isinstance(low, int | float) and isinstance(
                    high, int | float) else " "
                yield str(name), _number(one["value"]), ends


def _number(value: float) -> str:
    """Four digits, without an exponent where a person reads on: 15,620 rather than 1.562e+04."""
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e12 else f"{value:.4g}"


def _beside(run: wire.RunView) -> Iterator[tuple[str, str, str, str]]:
    """(column, what, expected, found) of each finding in the data, as its stage gives them."""
    for step in run.steps:
        found = _mapping(step.result).get("compared")
        for one in found if isinstance(found, list) else []:
            if isinstance(one, Mapping):
                hard = ", hard" if one.get("hard") else ""
                yield (str(one.get("column", "")), f"{one.get('what', '')}{hard}",
                       str(one.get("expected", "")), str(one.get("seen", "")))


def _said(step: wire.StepView) -> str:
    """Why it failed, or the sentence of its result; else why nothing happened."""
    says = _mapping(step.result).get("says")
    return step.error or (says if isinstance(says, str) else "") or step.reason or ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
