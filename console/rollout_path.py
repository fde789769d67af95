"""The path of a rollout: the weights of its plan in one line, with the live one marked. Pure."""

from __future__ import annotations

from rich.cells import cell_len

from console import evidence
from console.glyphs import Glyphs
from console.widgets.lines import BLANK, Line, Span
from engine.api import wire

WITHIN = 0.05  # percent between what was asked and what the router says


def _reached(rollout: wire.Rollout, plan: list[wire.RolloutStep]) -> int:
    """The index in `plan` of the last weight that was set, -1 before the first."""
    tried = ("done", "intent", "failed", "unknown", "undone")
    return max((n for n, s in enumerate(plan) if s.state in tried), default=-1)


def path(rollout: wire.Rollout, glyphs: Glyphs, width: int, *, back: bool = False,
         fresh: bool = True) -> Line:
    """The weights of the plan, each with its mark; the live one says so, and what waits for a person.
    Of what is not `fresh`, or not watched, nothing is said to be live.

    The last step sets the last weight for good: that is the promotion.
    """
    plan = [s for s in rollout.steps if s.weight is not None]
    at = _reached(rollout, plan)
    stopped = rollout.ended is not None and rollout.state != "done"
    stops: list[list[Span]] = []
    for n, step in enumerate(plan):
        done = step.state == "done"
        text = ("promoted" if done else "promote") if step.id.startswith("promote") else f"{step.weight:g}"
        if n == at and stopped:
            stops.append([(f"{glyphs.steps['failed']} {text} stopped here", "bad")])
        elif n == at and back:
            stops.append([(f"{glyphs.steps['undone']} {text} going back", "bad")])
        elif n == at and rollout.ended is None:
            stops.append([_live(rollout, step, text, glyphs, fresh)])
        elif n <= at:
            stops.append([(f"{glyphs.steps['done']} {text}", "text")])
        elif step.id == rollout.gate_step:
            stops.append([(f"{glyphs.wait} {text} waits", "ask")])
        else:
            stops.append([(f"{glyphs.dot} {text}", "dim")])
    return _joined(stops, max(0, at), glyphs, width) if stops else BLANK


def _live(rollout: wire.Rollout, step: wire.RolloutStep, text: str, glyphs: Glyphs,
          fresh: bool) -> Span:
    """The weight that was set last: live, or what the router says instead."""
    here = f"{glyphs.here} {text}"
    if not fresh:
        return f"{here}{' %' * text[0].isdigit()} when last heard", "warn"
    if rollout.weight is None:
        return f"{here} router: no answer", "warn"
    if abs(rollout.weight - (step.weight or 0.0)) <= WITHIN:
        return f"{here} % live" if text[0].isdigit() else f"{here} live", "now"
    if step.state == "intent":
        return f"{here} being set, {rollout.weight:g} % live", "now"
    return f"{here} router: {rollout.weight:g} %", "warn"


def _joined(stops: list[list[Span]], at: int, glyphs: Glyphs, width: int) -> Line:
    """The stops with rules between them; where they do not fit, those far from `at` give way to `…`."""
    first, end = 0, len(stops)

    def length(rule: int) -> int:
        texts = sum(cell_len(text) for stop in stops[first:end] for text, _ in stop)
        return 1 + texts + (end - first - 1) * (rule + 2) + 4 * (first > 0) + 4 * (end < len(stops))

    rule = 4 if width >= evidence.WIDE else 2
    if length(rule) > width:
        rule = 1
    while length(rule) > width and end - first > 2:
        if end - 2 > at and (end - at > at - first or first >= at):
            end -= 1
        else:
            first += 1
    spans: list[Span] = [(" ", "text")]
    if first:
        spans.append((f"{glyphs.more} {glyphs.rule} ", "dim"))
    for n, stop in enumerate(stops[first:end]):
        if n:
            spans.append((f" {glyphs.rule * rule} ", "dim"))
        spans += stop
    if end < len(stops):
        spans.append((f" {glyphs.rule} {glyphs.more}", "dim"))
    return tuple(spans)
