"""Evaluating ahead of a run what can be known ahead of it.

Two trials of an expression: with real values, where every parameter it reads has a default (or is
optional and null), and otherwise with samples of the right types, of which only errors of type
count, because no other value of these types could do better.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.api.params import parse_value
from engine.procedures.draft import Draft, DraftStep, Site
from engine.procedures.evaluation import ExpressionError, evaluate
from engine.procedures.expressions import text as as_text
from engine.procedures.parameters import wire_param
from engine.procedures.scanner import Expression, Reference, TemplateError, parts, references
from engine.procedures.secrets import SecretRef

SAMPLES: dict[str, Any] = {"string": "sample", "integer": 1, "number": 1.5, "boolean": True,
                           "secret": SecretRef("env:SAMPLE")}
RUN = {"id": "sample", "by": "sample", "procedure": "sample", "home": "/sample",
       "python": "/sample/python"}
OF_STEPS: dict[str, Any] = {"state": "done", "exit_code": 0, "stdout": ""}


@dataclass(frozen=True)
class Known:
    """A value that is known ahead of any run; `unset`: optional parameters taken as null for it."""

    value: Any
    unset: tuple[str, ...] = ()


class Trial:
    """The values of a draft's parameters as far as they are known."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self.known: dict[str, Any] = {}
        self._sample: dict[str, Any] = {}
        for name, param in draft.params.items():
            value = None
            if param.default is not None:
                try:
                    value = parse_value(wire_param(name, param), param.default)
                except ValueError:  # the rule for parameters reports it
                    self._sample[name] = SAMPLES[param.type]
                    continue
            if param.type == "secret":
                self._sample[name] = SAMPLES["secret"]
            elif value is not None or not param.required:
                self.known[name] = value
                self._sample[name] = SAMPLES[param.type] if value is None else value
            else:
                self._sample[name] = (param.choices or [SAMPLES[param.type]])[0]

    def runs(self, step: DraftStep | None) -> bool:
        """Whether a step surely runs when no parameter is given: then the defaults must suit it."""
        if step is None or step.step.when is None:
            return True
        known = self.exact(Expression(step.step.when, 0))
        return isinstance(known, Known) and known.value is True

    def exact(self, expression: Expression) -> Known | ExpressionError | None:
        """Its value or its error with real values; None where something is known only in a run."""
        read = references(expression.source)
        if any(path[0] != "params" or len(path) < 2 or path[1] not in self.known for path in read):
            return None
        unset = tuple(dict.fromkeys(
            str(path[1]) for path in read if self.known[str(path[1])] is None))
        try:
            return Known(evaluate(expression.source, {"params": self.known}), unset)
        except ExpressionError as error:
            if unset and error.kind != "syntax":
                error.hint = f"`{unset[0]}` is null when it is not given: give it a default"
            return error

    def sampled(self, expression: Expression, site: Site) -> Any | ExpressionError:
        """Its value with samples, or the error of type that no value could avoid; None otherwise."""
        read = references(expression.source)
        names: dict[str, Any] = {"params": self._sample, "run": RUN, "steps": {}}
        for path in read:
            if not self._add(path, names, site):
                return None
        try:
            return evaluate(expression.source, names)
        except ExpressionError as error:
            return error if error.kind == "type" else None

    def _add(self, path: Reference, names: dict[str, Any], site: Site) -> bool:
        """Add a sample for what a path reads; False where its type is not known."""
        if path[0] in ("params", "run"):
            return len(path) > 1
        if path[0] == "steps" and len(path) == 3 and path[2] in OF_STEPS:
            if path[2] == "exit_code" and not _is_shell(self._draft.step(str(path[1]))):
                return False
            names["steps"].setdefault(path[1], {})[path[2]] = OF_STEPS[str(path[2])]
            return True
        if len(path) == 1 and path[0] in ("exit_code", "stdout") and _is_shell(site.step):
            names[str(path[0])] = OF_STEPS[str(path[0])]
            return True
        return False

    def template(self, text: str) -> Known | None:
        """The value of a template as `render_value` would give it, if it is known ahead."""
        try:
            found = parts(text)
        except TemplateError:
            return None
        values: list[Any] = []
        unset: list[str] = []
        for part in found:
            if isinstance(part, str):
                values.append(part)
                continue
            known = self.exact(part)
            if not isinstance(known, Known):
                return None
            values.append(known.value)
            unset += known.unset
        if len(values) == 1:
            return Known(values[0], tuple(unset))
        if not all(isinstance(value, str | bool | int | float) for value in values):
            return None
        return Known("".join(as_text(value, text) for value in values), tuple(unset))


def _is_shell(step: DraftStep | None) -> bool:
    return step is not None and step.step.kind == "shell" and step.does_something
