"""A procedure's parameters being filled in: checked at every key, parsed at the end. Pure."""

from __future__ import annotations

from typing import Any

from console.edit import Edit
from engine.api.params import check_value, parse_value
from engine.api.wire import Param


def shown(value: Any) -> str:
    """A default as text: what the field starts with."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def wanted(param: Param) -> str:
    """What may be typed, in a few words."""
    parts = [param.help] if param.help else []
    if param.choices:
        parts.append("one of " + ", ".join(shown(c) for c in param.choices))
    elif param.type == "boolean":
        parts.append("true or false")
    elif param.type == "secret":
        parts.append("a reference such as env:NAME, never the secret itself")
    elif param.type in ("integer", "number"):
        low = "" if param.min is None else f" from {param.min:g}"
        high = "" if param.max is None else f" to {param.max:g}"
        parts.append(f"{'a whole number' if param.type == 'integer' else 'a number'}{low}{high}")
    if not param.required:
        parts.append("may be left empty")
    return "; ".join(parts)


class Form:
    """Fields in the order of the document, one of them active."""

    def __init__(self, params: list[Param], given: dict[str, str] | None = None) -> None:
        given = given or {}
        self.params = params
        self.edits = [Edit(given.get(p.name, shown(p.default))) for p in params]
        self.at = next((i for i, p in enumerate(params) if p.required and not self.edits[i].text), 0)

    def problem(self, index: int) -> str | None:
        return check_value(self.params[index], self.edits[index].text)

    @property
    def problems(self) -> list[tuple[int, str]]:
        found = ((i, self.problem(i)) for i in range(len(self.params)))
        return [(i, problem) for i, problem in found if problem]

    def press(self, key: str, character: str | None) -> bool:
        """One key into the active field, or to another field. False if it means nothing here."""
        if not self.params:
            return False
        if key in ("down", "tab"):
            self.at = (self.at + 1) % len(self.params)
        elif key in ("up", "shift+tab"):
            self.at = (self.at - 1) % len(self.params)
        elif key == "space" and self.params[self.at].choices and not self.edits[self.at].text:
            self._cycle()
        else:
            return self.edits[self.at].press(key, character)
        return True

    def _cycle(self) -> None:
        choices = [shown(c) for c in self.params[self.at].choices or []]
        self.edits[self.at] = Edit(choices[0])

    def values(self) -> dict[str, Any]:
        """The typed values; an empty field is a parameter that is not given. Raises ValueError."""
        return {p.name: parse_value(p, edit.text)
                for p, edit in zip(self.params, self.edits, strict=True) if edit.text.strip()}
