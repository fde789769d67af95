"""Expressions and templates: what evaluating them ahead of a run already shows to be wrong."""

from __future__ import annotations

from collections.abc import Iterator

from engine.located import Problem
from engine.procedures.draft import Draft, Site
from engine.procedures.evaluation import ExpressionError, describe
from engine.procedures.rules.flow import cycle, earlier
from engine.procedures.rules.reading import of_expression
from engine.procedures.scanner import Expression
from engine.procedures.trial import Known, Trial

_AS_TEXT = ("text", "argument", "script", "secret")


def problems(draft: Draft) -> Iterator[Problem]:
    trial = Trial(draft)
    before = None if cycle(draft) else earlier(draft)
    for site in draft.sites():
        for expression in site.expressions():
            if not any(of_expression(draft, site, expression, before)):
                yield from _expression(draft, trial, site, expression)
        yield from _empty(draft, trial, site)


def _expression(draft: Draft, trial: Trial, site: Site,
                expression: Expression) -> Iterator[Problem]:
    def problem(message: str, hint: str | None = None) -> Problem:
        return draft.located.problem(site.path, message, hint, offset=expression.at)

    guard = site.path[-1] == "when"
    found = trial.exact(expression) if guard or trial.runs(site.step) else None
    if isinstance(found, ExpressionError):
        yield problem(found.message, found.hint)
        return
    if isinstance(found, Known):
        if site.form == "condition" and not isinstance(found.value, bool):
            yield _no_condition(problem, expression, found.value)
        elif site.form in _AS_TEXT and found.value is None:
            who = f"`{found.unset[0]}`" if found.unset else f"`{expression.source}`"
            yield problem(f"{who} is null when it is not given, and null has no text",
                          "give it a default, or make it required")
        return
    sampled = trial.sampled(expression, site)
    if isinstance(sampled, ExpressionError):
        yield problem(sampled.message, sampled.hint)
    elif site.form == "condition" and sampled is not None and not isinstance(sampled, bool):
        yield _no_condition(problem, expression, sampled)


def _no_condition(problem: object, expression: Expression, value: object) -> Problem:
    assert callable(problem)
    made: Problem = problem(f"`{expression.source}` is {describe(value)}, not true or false",
                            "compare it with something")
    return made


def _empty(draft: Draft, trial: Trial, site: Site) -> Iterator[Problem]:
    if site.path[-1] != "typed" or not trial.runs(site.step):
        return
    known = trial.template(site.source)
    if known is not None and isinstance(known.value, str) and not known.value.strip():
        yield draft.located.problem(site.path, "the text to type would be empty",
                                    "a name that stands for what is at stake belongs here")
