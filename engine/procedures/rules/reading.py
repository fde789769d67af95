"""Expressions and templates: that they can be read, and that what they read is there."""

from __future__ import annotations

import re
from collections.abc import Iterator

from engine.located import Problem, did_you_mean, nearest
from engine.procedures.draft import Draft, Site
from engine.procedures.evaluation import FUNCTIONS, ExpressionError, compile_only, shown
from engine.procedures.quoting import ADVICE, misplaced, parsed_again
from engine.procedures.rules.flow import cycle, earlier
from engine.procedures.scanner import (
    OPEN,
    Expression,
    Reference,
    TemplateError,
    has_template,
    parts,
    references,
)

OF_STEP = ("state", "result", "exit_code", "stdout", "json", "by")
OF_RUN = ("id", "by", "procedure", "home", "python")
OWN = ("result", "exit_code", "stdout", "json")
_SUBTRACTION = "is read as a subtraction"
_PLAIN_TEXTS = ("title", "help", "irreversible")


def problems(draft: Draft) -> Iterator[Problem]:
    before = None if cycle(draft) else earlier(draft)
    for site in draft.sites():
        yield from _template(draft, site)
        for expression in site.expressions():
            yield from of_expression(draft, site, expression, before)
    yield from _not_rendered(draft)


def of_expression(draft: Draft, site: Site, expression: Expression,
                  before: dict[str, set[str]] | None) -> Iterator[Problem]:
    """What is wrong with one expression as far as its text tells."""
    def problem(message: str, hint: str | None = None) -> Problem:
        return draft.located.problem(site.path, message, hint, offset=expression.at)

    if site.form == "condition" and expression.source.lstrip().startswith(OPEN):
        yield problem(f"`{site.path[-1]}` is an expression already",
                      "leave the `${{` and `}}` out")
        return
    try:
        program = compile_only(expression.source)
    except ExpressionError as error:
        yield problem(error.message, error.hint)
        return
    for name in program.functions():
        if name[0].isalpha() and name not in FUNCTIONS:
            close = nearest(name, FUNCTIONS)
            yield problem(f"there is no function `{name}`",
                          f"did you mean `{close}`?" if close else None)
    found = [_reference(draft, site, expression, path, before)
             for path in references(expression.source)]
    told = [one for one in found if one is not None]
    if any(message.endswith(_SUBTRACTION) for message, _ in told):
        told = [one for one in told if not one[0].startswith("there is no name")]
    for message, hint in told:
        yield problem(message, hint)


def _template(draft: Draft, site: Site) -> Iterator[Problem]:
    if site.form == "condition":
        return
    try:
        found = parts(site.source)
    except TemplateError as error:
        yield draft.located.problem(site.path, str(error), offset=error.at)
        return
    if site.form != "script":
        return
    for wrong in misplaced(site.source):
        yield draft.located.problem(site.path, str(wrong), ADVICE, offset=wrong.at)
    again = parsed_again(site.source)
    if again and any(isinstance(part, Expression) for part in found):
        yield draft.located.problem(
            site.path, f"`{again[0]}` reads its text as a script again, and a value is quoted "
            "only once", "hand the values over in `env:`", "warning", offset=again[1])


def _reference(draft: Draft, site: Site, expression: Expression, path: Reference,
               before: dict[str, set[str]] | None) -> tuple[str, str | None] | None:
    root = path[0]
    if root == "params":
        return _param(draft, site, expression, path)
    if root == "run":
        if len(path) > 1 and path[1] not in OF_RUN:
            return f"there is no `{path[1]}` in run", did_you_mean(str(path[1]), OF_RUN)
        return None
    if root == "steps":
        return _step(draft, site, expression, path, before)
    if root in OWN:
        if site.role == "expect":
            return None
        own = f"steps.{site.step.id}.{root}" if site.step else f"steps.<id>.{root}"
        return (f"`{root}` alone is known in `expect` only",
                f"say {own}" if site.role == "undo" else "say steps.<id>." + str(root))
    known = ["params", "run", *(("steps",) if site.role != "precondition" else ()),
             *(OWN if site.role == "expect" else ())]
    if root in draft.params:
        return f"there is no name `{root}`", f"did you mean `params.{root}`?"
    if draft.step(str(root)) is not None and site.role != "precondition":
        return f"there is no name `{root}`", f"did you mean `{shown(('steps', str(root)))}`?"
    return f"there is no name `{root}`", did_you_mean(str(root), known)


def _param(draft: Draft, site: Site, expression: Expression,
           path: Reference) -> tuple[str, str | None] | None:
    if len(path) < 2:
        return None
    name = str(path[1])
    if name not in draft.params:
        raw = draft.located.at(("params", name))
        if raw is not None:  # it is there, and what is wrong with it is told elsewhere
            return None
        whole = _dashed(expression.source, "params", name, list(draft.params))
        if whole:
            return (f"`params.{whole}` {_SUBTRACTION}", f'write params["{whole}"]')
        return f"there is no parameter `{name}`", did_you_mean(name, draft.params)
    if draft.params[name].type != "secret":
        return None
    shape = shown(path)
    if site.form == "secret":
        if site.source.strip() == site.source and expression.source == shape and (
                len(site.expressions()) == 1 and site.source.endswith("}}")
                and site.source.startswith(OPEN)):
            return None
        return (f"the secret {shape} must be the whole value",
                f"write \"${{{{ {shape} }}}}\" and put it together in the command")
    if site.form == "condition" and _only_asks(expression.source, shape):
        return None
    return (f"{shape} is a secret, and this would show it",
            f"hand it over in `env: {{NAME: \"${{{{ {shape} }}}}\"}}` or in `stdin:`")


def _only_asks(source: str, shape: str) -> bool:
    """Whether an expression only asks whether a secret is given."""
    rest = re.sub(rf"has\({re.escape(shape)}\)|{re.escape(shape)}\s*[!=]=\s*null", "", source)
    return shape not in rest


def _step(draft: Draft, site: Site, expression: Expression, path: Reference,
          before: dict[str, set[str]] | None) -> tuple[str, str | None] | None:
    if site.path[0] == "rollout":
        return (f"`{site.path[-1]}` is filled in before any step has run, so it cannot read what a step gave",
                "use params alone")
    if site.role == "precondition":
        return "preconditions are checked before any step has run", "use params and run alone"
    if len(path) < 2:
        return None
    id = str(path[1])
    if draft.step(id) is None:
        whole = _dashed(expression.source, "steps", id, draft.ids())
        if whole:
            return f"`steps.{whole}` {_SUBTRACTION}", f'write steps["{whole}"]'
        return f"there is no step `{id}`", did_you_mean(id, draft.ids())
    if len(path) > 2 and path[2] not in OF_STEP:
        return (f"a step has no `{path[2]}`", did_you_mean(str(path[2]), OF_STEP))
    step = site.step
    if step is None or before is None or (site.role == "undo" and id == step.id):
        return None
    if id == step.id and site.role == "expect":
        rest = shown(path[2:]) if len(path) > 2 else "result"
        return "the step has not ended yet while `expect` is looked at", f"say `{rest}` alone"
    if id in before.get(step.id, set()):
        return None
    if id == step.id or step.id in before.get(id, set()):
        return f"step `{id}` cannot have run before step `{step.id}`", None
    return (f"step `{step.id}` does not wait for step `{id}`",
            f"add `{id}` to its `needs`")


def _dashed(source: str, root: str, name: str, known: list[str]) -> str | None:
    """The known name with a dash that was meant by `root.name-…`."""
    for candidate in sorted(known, key=len, reverse=True):
        if candidate.startswith(f"{name}-") and f"{root}.{candidate}" in source:
            return candidate
    return None


def _not_rendered(draft: Draft) -> Iterator[Problem]:
    raw = draft.located.value if isinstance(draft.located.value, dict) else {}
    paths = [(key,) for key in ("title", "use_when", "good_after") if has_template(raw.get(key))]
    for path in paths:
        yield draft.located.problem(path, "`${{ }}` is not filled in here", None, "warning")
    for step in draft.steps:
        for key in _PLAIN_TEXTS:
            if has_template(getattr(step.step, key)):
                yield draft.located.problem(step.path(key), "`${{ }}` is not filled in here", None,
                                            "warning")
