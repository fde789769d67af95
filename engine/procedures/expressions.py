"""Rendering: what a step's `${{ … }}` become once their names are known. Pure.

Every function takes the names (`context`) as plain data: params, steps.<id>.{state, result,
exit_code, stdout, json, by}, run.{id, by, procedure, home, python}, and inside `expect` the same step's
result, exit_code, stdout and json. `where` is "file:line, step …", for errors. All raise
ExpressionError.

A secret is rendered only as the whole of a value that `render_value` gets by itself (an `env:` or
`stdin:` value), and then as a SecretRef; everywhere else it is an error.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from engine.procedures.evaluation import ExpressionError, evaluate, is_secret, shown, truth
from engine.procedures.quoting import ADVICE, placed, quote
from engine.procedures.scanner import Expression, TemplateError, parts, references
from engine.procedures.secret_sources import SecretError, resolve_secret
from engine.procedures.secrets import Masker, SecretRef, mask

__all__ = ["ExpressionError", "Masker", "SecretError", "SecretRef", "evaluate", "mask",
           "references", "render", "render_argv", "render_shell", "render_value",
           "resolve_secret", "truth"]


def render(template: str, context: Mapping[str, Any], where: str | None = None) -> str:
    """The template with each expression replaced by its value as text."""
    return "".join(_text(part, context, where) for part in _parts(template, where))


def render_value(value: Any, context: Mapping[str, Any], where: str | None = None) -> Any:
    """As `render`, through lists and maps; a string that is exactly one `${{ expr }}` becomes the
    expression's value with its type, and a SecretRef if that is a secret parameter."""
    if isinstance(value, str):
        return _exact(value, context, where, secret=True)
    return _deep(value, context, where)


def render_argv(argv: Sequence[str], context: Mapping[str, Any],
                where: str | None = None) -> list[str]:
    """An argument vector: each element stays exactly one argument, whatever its value holds."""
    return [_no_zero(render(arg, context, where), arg, where) for arg in argv]


def render_shell(script: str, context: Mapping[str, Any], where: str | None = None) -> str:
    """A script for `sh -c` in which every value is one quoted word.

    Raises also where a value stands inside quotes, a comment, a here-document or another place in
    which quoting would not protect it.
    """
    try:
        found = placed(script)
    except TemplateError as error:
        raise ExpressionError(str(error), "syntax", where=where, hint=ADVICE) from None
    return _no_zero("".join(
        part if isinstance(part, str) else quote(_text(part, context, where))
        for part in found), script, where)


def _text(part: str | Expression, context: Mapping[str, Any], where: str | None) -> str:
    if isinstance(part, str):
        return part
    return text(_value(part, context, where), part.source, where)


def text(value: Any, source: str, where: str | None = None) -> str:
    """A value as it is put into text: 10.0 is `10`, true is `true`, lists and maps are JSON.

    `source` is the expression it came from. Raises ExpressionError for null, infinity and NaN.
    """
    if isinstance(value, str):
        return value
    if value is None:
        raise ExpressionError(f"`{source}` is null, and null has no text", "value", where=where,
                              hint="give the parameter a default, or guard the step with `when`")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ExpressionError(f"`{source}` is not a finite number", "value", where=where)
        return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _deep(value: Any, context: Mapping[str, Any], where: str | None) -> Any:
    if isinstance(value, str):
        return _exact(value, context, where, secret=False)
    if isinstance(value, Mapping):
        return {key: _deep(item, context, where) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_deep(item, context, where) for item in value]
    return value


def _exact(template: str, context: Mapping[str, Any], where: str | None, *, secret: bool) -> Any:
    found = _parts(template, where)
    if len(found) != 1 or isinstance(found[0], str):
        return render(template, context, where)
    read = references(found[0].source)
    if secret and len(read) == 1 and is_secret(read[0], context) and (
            found[0].source == shown(read[0])):
        return _lookup(read[0], context)
    return _value(found[0], context, where)


def _lookup(path: Sequence[str | int], context: Mapping[str, Any]) -> Any:
    value: Any = context
    for part in path:
        value = value[part]
    return value


def _parts(template: str, where: str | None) -> list[str | Expression]:
    try:
        return parts(template)
    except TemplateError as error:
        raise ExpressionError(str(error), "syntax", where=where) from None


def _value(part: Expression, context: Mapping[str, Any], where: str | None) -> Any:
    for path in references(part.source):
        if is_secret(path, context):
            raise ExpressionError(
                f"{shown(path)} is a secret, and only a whole `env:` or `stdin:` value may be one",
                "secret", where=where, hint=f"env: {{NAME: \"${{{{ {shown(path)} }}}}\"}}")
    return evaluate(part.source, context, where)


def _no_zero(value: str, template: str, where: str | None) -> str:
    if "\0" in value:
        raise ExpressionError(f"`{template[:60]}` holds a zero byte, which no command can take",
                              "value", where=where)
    return value
