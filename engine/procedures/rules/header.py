"""The head of the file: its name, its review, its parameters."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from pathlib import PurePath

from engine.api.params import compiled, is_reference, parse_value
from engine.config import SIGNALS
from engine.located import Problem, nearest
from engine.procedures.document import Document, Param
from engine.procedures.draft import Draft
from engine.procedures.parameters import wire_param

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\Z")
DAY = 86400.0


def problems(draft: Draft) -> Iterator[Problem]:
    yield from _name(draft)
    yield from _reviewed(draft)
    yield from _alerts(draft)
    for name, param in draft.params.items():
        yield from _param(draft, name, param)


def overdue(document: Document, today: dt.date) -> str | None:
    """The sentence that says how long a review is overdue; None while it is not."""
    days = (today - document.reviewed).days
    allowed = document.review_every / DAY
    if days <= allowed:
        return None
    return f"reviewed {document.reviewed}, {days} days ago: past its {allowed:g} days"


def _name(draft: Draft) -> Iterator[Problem]:
    path = PurePath(draft.located.name)
    id = draft.located.at(("id",))
    if path.suffix in (".yaml", ".yml") and isinstance(id, str) and id != path.stem:
        yield draft.located.problem(("id",), f"the id `{id}` is not the file's name `{path.stem}`",
                                    "rename one of them")


def _reviewed(draft: Draft) -> Iterator[Problem]:
    if draft.document is None:
        return
    said = overdue(draft.document, draft.today)
    if said:
        yield draft.located.problem(("reviewed",), said,
                                    "read it again, try it, and set `reviewed` to that day",
                                    "warning")
    if draft.document.reviewed > draft.today + dt.timedelta(days=1):
        yield draft.located.problem(("reviewed",),
                                    f"it was reviewed on {draft.document.reviewed}, which is yet "
                                    "to come", None, "warning")


def _alerts(draft: Draft) -> Iterator[Problem]:
    alerts = draft.located.at(("for_alerts",))
    for index, signal in enumerate(alerts if isinstance(alerts, list) else []):
        close = nearest(signal, SIGNALS) if isinstance(signal, str) else None
        if signal not in SIGNALS and close:
            yield draft.located.problem(("for_alerts", index), f"no signal is called `{signal}`",
                                        f"did you mean `{close}`?", "warning")


def _param(draft: Draft, name: str, param: Param) -> Iterator[Problem]:
    located, at = draft.located, ("params", name)
    if not _NAME.match(name):
        yield located.problem(at, f"`{name}` cannot be the name of a parameter",
                              "use letters, digits, `_` and `-`, a letter first")
    if param.required and param.default is not None:
        yield located.problem((*at, "default"), f"`{name}` is required, so its default is never used",
                              "say one of `required` and `default`")
    numeric = param.type in ("integer", "number")
    for key in ("min", "max"):
        if getattr(param, key) is not None and not numeric:
            yield located.problem((*at, key), f"`{key}` is for numbers, and `{name}` is a "
                                  f"{param.type}")
    if param.min is not None and param.max is not None and param.min > param.max:
        yield located.problem((*at, "max"), f"no number is from {param.min:g} to {param.max:g}")
    yield from _text_limits(draft, name, param)
    yield from _default(draft, name, param)


def _text_limits(draft: Draft, name: str, param: Param) -> Iterator[Problem]:
    located, at = draft.located, ("params", name)
    if param.pattern is not None:
        if param.type != "string":
            yield located.problem((*at, "pattern"), f"`pattern` is for strings, and `{name}` is a "
                                  f"{param.type}")
        try:
            compiled(param.pattern)
        except ValueError as error:
            yield located.problem((*at, "pattern"), str(error))
    if param.choices is None:
        return
    if not param.choices:
        yield located.problem((*at, "choices"), "there is no choice in it")
    if param.type == "secret":
        yield located.problem((*at, "choices"), "a secret has no choices")
        return
    plain = wire_param(name, param)
    plain.choices = None
    for index, choice in enumerate(param.choices):
        try:
            parse_value(plain, choice)
        except ValueError as error:
            yield located.problem((*at, "choices", index),
                                  f"this choice of `{name}` must be {error}")


def _default(draft: Draft, name: str, param: Param) -> Iterator[Problem]:
    if param.default is None:
        return
    at = ("params", name, "default")
    if param.type == "secret":
        if not is_reference(param.default):
            yield draft.located.problem(
                at, f"the default of the secret `{name}` must be a reference, never the secret "
                "itself", "write env:NAME, file:/path or command:PROGRAM")
        return
    try:
        parse_value(wire_param(name, param), param.default)
    except ValueError as error:
        yield draft.located.problem(at, f"the default of `{name}` must be {error}")
