"""What pydantic finds wrong with a located file, in plain sentences with lines.

Union branches that were not meant are left out: the branch is chosen by the kind of value that is
there. An unknown key comes with the nearest key the model has.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from engine.located.names import did_you_mean, nearest
from engine.located.places import Misplaced
from engine.located.reading import Located, Problem, Where

M = TypeVar("M", bound=BaseModel)
_QUOTE = "'"  # pydantic's, round the key that tells the branches of a union apart

_KINDS = {
    "string_type": "text", "int_type": "a whole number", "int_parsing": "a whole number",
    "int_from_float": "a whole number", "float_type": "a number", "float_parsing": "a number",
    "bool_type": "true or false", "bool_parsing": "true or false", "list_type": "a list",
    "dict_type": "a map (`key: value`)", "model_type": "a map (`key: value`)",
    "model_attributes_type": "a map (`key: value`)",
    "date_from_datetime_parsing": "a date such as 2026-11-20",
    "date_type": "a date such as 2026-11-20", "date_parsing": "a date such as 2026-11-20",
    "path_type": "a path", "url_parsing": "a URL", "url_type": "a URL",
}


_MAPS = ("model_type", "model_attributes_type")


def validate(model: type[M], located: Located,
             prefix: Where = ()) -> tuple[M | None, list[Problem]]:
    """The model of the value at `prefix`, or None with every problem of it."""
    try:
        return model.model_validate(located.at(prefix)), []
    except ValidationError as error:
        return None, problems_of(error, located, model, prefix)


def problems_of(error: ValidationError, located: Located, model: type[BaseModel] | None = None,
                prefix: Where = (), *,
                ignore: Callable[[Where, str], bool] | None = None) -> list[Problem]:
    """Every error of a validation at its line. `prefix` is the path of what was validated; with the
    `model`, an unknown key comes with the nearest known one. `ignore` gets an error's path after
    the prefix and its type, and leaves it out by saying True."""
    found = [_Found.of(located.at(prefix), detail) for detail in error.errors(include_url=False)]
    if ignore is not None:
        found = [one for one in found if not ignore(one.path, one.detail["type"])]
    problems = [_problem(path, details, located, model, prefix)
                for path, details in _chosen(found, located, prefix)]
    return sorted(dict.fromkeys(problems), key=lambda p: (p.line, p.column))


@dataclass(frozen=True)
class _Found:
    """An error's `path` into the value; `site` is the part of it before a union's `branch`."""

    path: Where
    site: Where
    branch: str | None
    detail: ErrorDetails

    @classmethod
    def of(cls, root: Any, detail: ErrorDetails) -> _Found:
        value: Any = root
        path: list[Any] = []
        site: Where = ()
        branch: str | None = None
        loc = detail["loc"]
        for at, part in enumerate(loc):
            if (isinstance(value, dict) and part in value) or (
                    isinstance(value, list) and isinstance(part, int) and part < len(value)):
                path.append(part)
                value = value[part]  # type: ignore[index]
            elif branch is None and not (at == len(loc) - 1 and (
                    detail["type"] == "missing" or part == "[key]")):
                site, branch = tuple(path), str(part)
        return cls(tuple(path), site, branch, detail)


def _chosen(found: list[_Found], located: Located,
            prefix: Where) -> list[tuple[Where, list[ErrorDetails]]]:
    """The errors that count: of a union only those of the branch that was meant, together."""
    chosen = [(one.path, [one.detail]) for one in found if one.branch is None]
    for site in dict.fromkeys(one.site for one in found if one.branch is not None):
        members = [one for one in found if one.branch is not None and one.site == site]
        value = located.at((*prefix, *site))
        meant = [one for one in members if _meant(one.branch or "", value)]
        if meant:
            chosen.extend((one.path, [one.detail]) for one in meant)
        else:
            chosen.append((site, [one.detail for one in members]))
    return chosen


def _meant(branch: str, value: Any) -> bool:
    if isinstance(value, dict):
        return branch[:1].isupper() or branch.startswith("dict") or branch == value.get("kind")
    return isinstance(value, list) and branch.startswith("list")


def _problem(path: Where, details: list[ErrorDetails], located: Located,
             model: type[BaseModel] | None, prefix: Where) -> Problem:
    full = (*prefix, *path)
    detail = details[0]
    kind = detail["type"]
    context: dict[str, Any] = detail.get("ctx") or {}
    name = _name(full)
    if kind == "missing":
        key = str(detail["loc"][-1])
        return located.problem(full, f"`{key}` is missing" + (f" in {name}" if full else ""))
    if kind == "extra_forbidden":
        keys = fields_at(model, path[:-1]) if model else []
        hint = did_you_mean(str(path[-1]), keys) if keys else None
        return located.problem(full, f"unknown key `{path[-1]}`", hint)
    if detail["loc"][-1:] == ("[key]",):
        options = _options(details)
        hint = did_you_mean(str(path[-1]), options) if options else None
        return located.problem(full, f"`{path[-1]}` cannot be a key here", hint)
    if kind in ("value_error", "assertion_error"):
        error = context.get("error", detail["msg"])
        said = str(error)
        if isinstance(error, Misplaced):
            full = (*full, *error.path)
            name = _name(full)
        return located.problem(full, f"{name}: {said}" if name else said)
    if kind == "union_tag_not_found":
        return located.problem(full, f"`{str(context['discriminator']).strip(_QUOTE)}` is missing in {name}")
    if kind == "union_tag_invalid":
        tags = [tag.strip(" '") for tag in str(context["expected_tags"]).split(",")]
        return located.problem((*full, str(context["discriminator"]).strip(_QUOTE)),
                               f"there is no `{context['tag']}`", did_you_mean(str(context["tag"]), tags))
    written = _written(located, full, detail)
    wanted, hint = _wanted(details, located, full, context)
    if kind in _MAPS and model is not None:
        keys = [f"`{key}`" for key in fields_at(model, path)]
        hint = hint or (f"its keys are {', '.join(keys)}" if keys else None)
    return located.problem(full, f"{name or 'the file'} must be {wanted}, not {written}", hint)


def _wanted(details: list[ErrorDetails], located: Located, full: Where,
            context: dict[str, Any]) -> tuple[str, str | None]:
    """What should be there instead, and a hint."""
    detail = details[0]
    kind = detail["type"]
    options = _options(details)
    value = located.at(full)
    if options:
        close = nearest(str(value), options) if isinstance(value, str) else None
        others = [_KINDS[d["type"]] for d in details if d["type"] in _KINDS]
        wanted = _either([*(f"`{o}`" for o in options), *dict.fromkeys(others)])
        return wanted, f"did you mean `{close}`?" if close else None
    kinds = list(dict.fromkeys(_KINDS[d["type"]] for d in details if d["type"] in _KINDS))
    if kinds:
        raw = located.raw(full)
        hint = None
        if "text" in kinds and raw:
            hint = f"put it in quotes: \"{raw}\""
        elif kinds == ["true or false"] and isinstance(value, str):
            hint = "write true or false, without quotes"
        return _either(kinds), hint
    limits = {"greater_than": "more than {gt}", "greater_than_equal": "at least {ge}",
              "less_than": "less than {lt}", "less_than_equal": "at most {le}",
              "string_pattern_mismatch": "text that matches {pattern}",
              "string_too_short": "at least {min_length} characters long",
              "string_too_long": "at most {max_length} characters long",
              "too_short": "at least {min_length} long", "too_long": "at most {max_length} long"}
    if kind in ("string_too_short", "too_short") and context.get("min_length") == 1:
        return "something", None
    if kind in limits:
        return limits[kind].format(**{key: _number(value) for key, value in context.items()}), None
    return detail["msg"].removeprefix("Input should be ").removeprefix("a valid "), None


def _number(value: Any) -> Any:
    """As a person writes it: 100 rather than 100.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _options(details: list[ErrorDetails]) -> list[str]:
    """The words that a Literal or an enum allows."""
    said = [str((d.get("ctx") or {}).get("expected", "")) for d in details
            if d["type"] in ("literal_error", "enum")]
    words = " or ".join(said).replace(" or ", ", ").split(", ")
    return [word.strip("'") for word in words if word]


def _written(located: Located, path: Where, detail: ErrorDetails) -> str:
    value = detail["input"] if not path else located.at(path)
    raw = located.raw(path)
    if value is None:
        return "empty"
    if isinstance(value, dict):
        return "a map" if value else "an empty map"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, str):
        short = value if len(value) <= 40 else value[:39] + "…"
        return f'"{short}"' if value else "empty"
    return str(raw or value)


def _either(words: list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _name(path: Where) -> str:
    """What a path is called: `timeout`, item 2 of `steps`."""
    if not path:
        return ""
    if isinstance(path[-1], str):
        return f"`{path[-1]}`"
    of = _name(path[:-1])
    return f"item {path[-1] + 1}" + (f" of {of}" if of else "")


def fields_at(model: type[BaseModel], path: Where) -> list[str]:
    """The keys that the model allows at a path, as they are written in a file."""
    annotations: list[Any] = [model]
    for part in path:
        annotations = [inner for one in annotations for inner in _inside(one, part)]
    return [key for one in annotations for kind in _models(one) for key in _keys(kind)]


def _inside(annotation: Any, part: str | int) -> list[Any]:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _inside(args[0], part)
    if origin in (typing.Union, types.UnionType):
        return [inner for arg in args for inner in _inside(arg, part)]
    if origin in (list, tuple, set) and isinstance(part, int):
        return [args[0]] if args else []
    if origin is dict:
        return [args[1]]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [field.annotation for name, field in annotation.model_fields.items()
                if part in (field.alias, name)]
    return []


def _models(annotation: Any) -> list[type[BaseModel]]:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated or origin in (typing.Union, types.UnionType):
        return [kind for arg in typing.get_args(annotation) for kind in _models(arg)]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return []


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]
