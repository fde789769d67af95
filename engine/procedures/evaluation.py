"""Evaluating CEL (Common Expression Language) over plain data, with errors a person can act on.

Pure: an expression and its names in, a value out. Limits keep one expression from occupying the
engine: 2,000 characters, list macros nested at most two deep, and what `inputs` says.
"""

from __future__ import annotations

import datetime as dt
import functools
import importlib.machinery
import importlib.util
import sys
from collections.abc import Mapping
from typing import Any, Literal

from engine.errors import OpsdeckError
from engine.located.names import did_you_mean, nearest
from engine.procedures.inputs import TooMuch, given
from engine.procedures.scanner import Reference, nesting, references
from engine.procedures.secrets import SecretRef

LONGEST = 2000
DEEPEST = 2
FUNCTIONS = frozenset({
    "size", "contains", "startsWith", "endsWith", "matches", "int", "uint", "double", "string",
    "bytes", "type", "dyn", "timestamp", "duration", "getFullYear", "getMonth", "getDate",
    "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getHours", "getMinutes", "getSeconds",
    "getMilliseconds"})

Kind = Literal["syntax", "name", "missing", "type", "value", "secret"]


class ExpressionError(OpsdeckError):
    """An expression that cannot be read or evaluated. `kind` says which sort of mistake it is."""

    exit_code = 2
    code = "expression"

    def __init__(self, message: str, kind: Kind = "value", *, where: str | None = None,
                 hint: str | None = None) -> None:
        super().__init__(message, where=where, hint=hint)
        self.kind = kind


@functools.cache
def _cel() -> Any:
    """The CEL library's compiled part alone: its package also loads a command line, which takes
    250 ms that a command at 3 am does not have."""
    if (loaded := sys.modules.get("cel.cel")) is not None:
        return loaded
    package = importlib.util.find_spec("cel")
    spec = importlib.machinery.PathFinder.find_spec(
        "cel.cel", package.submodule_search_locations if package else None)
    if spec is None or spec.loader is None:
        raise ImportError("the package common-expression-language is not installed")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["cel.cel"] = module
    return module


@functools.lru_cache(maxsize=1024)
def _compiled(expr: str) -> Any:
    if len(expr) > LONGEST:
        raise ExpressionError(f"the expression is longer than {LONGEST:,} characters", "syntax")
    if nesting(expr) > DEEPEST:
        raise ExpressionError("more than two of map, filter, all, exists are nested", "syntax",
                              hint="compute it in a step of its own")
    try:
        return _cel().compile(expr)
    except ValueError as error:
        message, hint = _syntax(expr, str(error))
        raise ExpressionError(message, "syntax", hint=hint) from None


def compile_only(expr: str, where: str | None = None) -> Any:
    """The compiled program (`variables()`, `functions()`). Raises ExpressionError at a mistake."""
    try:
        return _compiled(expr)
    except ExpressionError as error:
        raise _at(error, where) from None


def evaluate(expr: str, context: Mapping[str, Any], where: str | None = None) -> Any:
    """The value of a CEL expression over `context`, as plain JSON-able data.

    `where` is "file:line, step …" for the error. Raises ExpressionError for a mistake in the
    expression, an unknown name, a missing field or types that do not fit.
    """
    program = compile_only(expr, where)
    known = {name: context[name] for name in program.variables() if name in context}
    try:
        return _result(program.execute(given(expr, known, context)))
    except (KeyboardInterrupt, SystemExit):
        raise
    except ExpressionError as error:
        raise _at(error, where) from None
    except TooMuch as error:
        raise ExpressionError(f"`{_short(expr)}` is more than one expression may do: {error}", "value",
                              where=where, hint="compute it in a step of its own") from None
    except BaseException as error:  # a panic in the library is no Exception
        raise _at(_explained(expr, known, list(context), error), where) from None


def truth(expr: str, context: Mapping[str, Any], where: str | None = None) -> bool:
    """As `evaluate`, for a condition: anything but true or false is an ExpressionError."""
    value = evaluate(expr, context, where)
    if not isinstance(value, bool):
        raise ExpressionError(f"`{expr}` is {describe(value)}, not true or false", "type",
                              where=where, hint="compare it with something")
    return value


def shown(path: Reference) -> str:
    """A path as one writes it: steps.look.result, steps["my-step"].result."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.isidentifier():
            text += f".{part}" if text else part
        else:
            text += f'["{part}"]'
    return text


def describe(value: Any) -> str:
    """The type of a value in plain words: "a text", "a whole number" …"""
    if isinstance(value, SecretRef):
        return "a text"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text",
             list: "a list", dict: "a map", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def _at(error: ExpressionError, where: str | None) -> ExpressionError:
    """A copy: compiled errors are cached, and each place has a name of its own."""
    return ExpressionError(error.message, error.kind, where=where or error.where, hint=error.hint)


def _result(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [_result(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _result(item) for key, item in value.items()}
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    raise ExpressionError(f"the result is {describe(value)}, which is no plain value", "type",
                          hint="turn it into text with string(…)")


def _syntax(expr: str, said: str) -> tuple[str, str | None]:
    """The library's message in one sentence: where, and what is wrong there."""
    if "recursion" in said.lower() or "too deep" in said.lower():
        return "the expression is nested too deeply", None
    line, column = 1, 1
    detail = said.partition("ERROR: <input>:")[2]
    position, _, rest = detail.partition(": ")
    if position.count(":") == 1:
        line, column = (int(n) for n in position.split(":"))
    lines = expr.splitlines() or [""]
    at = lines[min(line, len(lines)) - 1][column - 1:].strip() if line <= len(lines) else ""
    reserved = rest.partition("reserved identifier: ")[2].split("\n")[0]
    if reserved:
        return f"`{reserved}` is a reserved word", "it cannot be used as a name"
    hint = None
    if " and " in f" {expr} " or " or " in f" {expr} " or " not " in f" {expr} ":
        hint = "CEL writes && for and, || for or, ! for not"
    elif "=" in expr and not any(sign in expr for sign in ("==", "!=", "<=", ">=")):
        hint = "CEL compares with =="
    elif not expr.strip():
        return "the expression is empty", None
    where = f"at `{at[:30]}`" if at else "at its end"
    return f"`{_short(expr)}` cannot be read as CEL {where}", hint


def _short(expr: str) -> str:
    flat = " ".join(expr.split())
    return flat if len(flat) <= 80 else flat[:77] + "…"


def _explained(expr: str, names: Mapping[str, Any], known: list[str],
               error: BaseException) -> ExpressionError:
    """An error of the library as a sentence about the names that the expression reads."""
    said = str(error)
    missing = said.strip("'\"") if isinstance(error, KeyError) else None
    if isinstance(error, RuntimeError) and "Undefined variable or function" in said:
        missing = said.split("'")[1]
        if missing in FUNCTIONS:
            return ExpressionError(f"the function `{missing}` cannot take these arguments", "type")
        if missing not in names and not any(r[0] == missing for r in references(expr)):
            close = nearest(missing, FUNCTIONS)
            return ExpressionError(f"there is no function `{missing}`", "name",
                                   hint=f"did you mean `{close}`?" if close else None)
    for path in references(expr):
        found = _hole(path, names, missing, known)
        if found is not None and (missing is not None
                                  or isinstance(error, TypeError | IndexError)):
            return found
    if missing is not None:
        return ExpressionError(f"there is no `{missing}`", "missing")
    if isinstance(error, TypeError):
        kinds = [f"{shown(path)} is {describe(value)}" for path in references(expr)
                 if (value := _value(path, names)) is not _NONE]
        told = f": {', '.join(kinds)}" if kinds else ""
        return ExpressionError(f"the types in `{_short(expr)}` do not fit{told}", "type",
                               hint="CEL converts nothing by itself: use int(), double(), string()")
    if isinstance(error, ZeroDivisionError):
        return ExpressionError(f"`{_short(expr)}` divides by zero", "value")
    first = said.splitlines()[0].removesuffix(". Check function arguments and their types.")
    return ExpressionError(f"`{_short(expr)}` cannot be evaluated: {first}", "value")


_NONE = object()


def _value(path: Reference, names: Mapping[str, Any]) -> Any:
    value: Any = names
    for part in path:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return _NONE
    return value


def _hole(path: Reference, names: Mapping[str, Any], missing: str | None,
          known: list[str]) -> ExpressionError | None:
    """The first part of a path that is not there, if the path has such a hole."""
    value: Any = names
    for at, part in enumerate(path):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
            continue
        if isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
            continue
        if missing is not None and part != missing and isinstance(value, Mapping):
            return None
        if at == 0:
            return ExpressionError(f"there is no name `{part}` here", "name",
                                   hint=did_you_mean(str(part), known))
        return _no(part, path[:at], value)
    return None


def _no(part: str | int, parent: Reference, value: Any) -> ExpressionError:
    name = shown(parent)
    if isinstance(value, Mapping):
        close = nearest(str(part), list(value))
        hint = f"did you mean `{close}`?" if close else None
        if parent == ("steps",):
            hint = f"step {part} has not run" if hint is None else hint
        elif hint is None and value:
            hint = f"it has {', '.join(f'`{key}`' for key in list(value)[:8])}"
        return ExpressionError(f"there is no `{part}` in {name}", "missing", hint=hint)
    if isinstance(value, list):
        return ExpressionError(f"{name} has {len(value)} entries, none at {part}", "missing")
    hint = None
    if parent[-1] == "json" and value is None:
        hint = "the output of that step is not JSON"
    return ExpressionError(f"{name} is {describe(value)}, so it has no `{part}`", "missing",
                           hint=hint)


def is_secret(path: Reference, context: Mapping[str, Any]) -> bool:
    """Whether a path of an expression leads to a secret."""
    return isinstance(_value(path, context), SecretRef)
