"""A run's parameters: from what a caller gives to the values the run is pinned to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from engine.api import wire
from engine.api.params import parse_value
from engine.errors import DocumentError, NotPermitted
from engine.located.names import did_you_mean
from engine.procedures.document import Document, Param
from engine.procedures.secrets import SecretRef


def wire_param(name: str, param: Param) -> wire.Param:
    """A parameter as clients see it."""
    return wire.Param(name=name, type=param.type, required=param.required, default=param.default,
                      help=param.help, pattern=param.pattern, min=param.min, max=param.max,
                      choices=param.choices)


def parameters(document: Document, given: Mapping[str, Any], *,
               trusted: bool = False, variables: Sequence[str] = ()) -> dict[str, Any]:
    """Every parameter's value, JSON-able, in the document's order; of a secret its reference.

    `given` holds texts (command line, form) or JSON values. What is not given takes its default, or
    None. A secret is read with the engine's own rights: others than `trusted` callers (embedded, or
    with the role admin) may give only `env:NAME`, and only names that `variables` (globs) has; the
    document's own defaults may be anything. Raises DocumentError with every problem at once,
    NotPermitted for such a secret.
    """
    problems = [f"there is no parameter `{name}`\n  {did_you_mean(name, document.params)}"
                for name in given if name not in document.params]
    values: dict[str, Any] = {}
    for name, param in document.params.items():
        values[name] = None
        if name in given and not _left_out(param, given[name]):
            try:
                values[name] = parse_value(wire_param(name, param), given[name])
            except ValueError as error:
                problems.append(f"`{name}` must be {error}" + _help(param))
        elif param.required:
            problems.append(f"`{name}` is needed" + _help(param))
        elif param.default is not None:
            values[name] = parse_value(wire_param(name, param), param.default)
    if problems:
        raise DocumentError(f"the parameters of {document.id} do not fit", problems)
    if not trusted:
        _refuse_engine_rights(document, given, values, variables)
    return values


def _left_out(param: Param, given: Any) -> bool:
    """Whether it counts as not given: null, or an empty text where only a string can be empty."""
    return given is None or (given == "" and (param.type != "string" or param.required))


def _help(param: Param) -> str:
    return f"\n  {param.help}" if param.help else ""


def _refuse_engine_rights(document: Document, given: Mapping[str, Any], values: Mapping[str, Any],
                          variables: Sequence[str]) -> None:
    for name, param in document.params.items():
        value = values[name]
        if param.type != "secret" or name not in given or value is None or value == param.default:
            continue
        source, _, rest = value.partition(":")
        if source != "env":
            raise NotPermitted(
                f"`{name}` may not be given as a {source}: the engine would use its own rights",
                hint="give env:NAME, or let an admin start the run")
        if not any(fnmatchcase(rest, glob) for glob in variables):
            raise NotPermitted(
                f"`{name}` may not be given as env:{rest}: that variable of the engine is not one for "
                "operators", where=f"the parameter {name} of {document.id}",
                hint=f"an admin may add {rest} to `engine: secret_env:` in the engine's opsdeck.yaml, "
                     "or start the run")


def bind(document: Document, values: Mapping[str, Any]) -> dict[str, Any]:
    """The `params` of expressions: as `parameters` returned them, secrets as SecretRef."""
    return {name: SecretRef(value) if isinstance(value, str) and name in document.params
            and document.params[name].type == "secret" else value
            for name, value in values.items()}
