"""Two models or runs side by side: what they were made with and from, and what they came to. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Line:
    """One parameter, metric or digest of both; None where one lacks it. `difference`: b less a, of
    numbers."""

    name: str
    a: Any
    b: Any
    difference: float | None = None

    @property
    def same(self) -> bool:
        return bool(self.a == self.b)


@dataclass(frozen=True)
class Sides:
    """`sources`: data, code, lock, image, payload, each as the digest that was recorded."""

    parameters: tuple[Line, ...]
    metrics: tuple[Line, ...]
    sources: tuple[Line, ...]
    says: str


def compare(a: Mapping[str, Any], b: Mapping[str, Any]) -> Sides:
    """Of two entries as `tracked.read` gives them."""
    parameters = _lines(a["parameters"], b["parameters"])
    metrics = _lines(a["metrics"], b["metrics"], numbers=True)
    sources = _lines(a["sources"], b["sources"])
    return Sides(parameters, metrics, sources, _says(parameters, sources))


def _lines(a: Mapping[str, Any], b: Mapping[str, Any], numbers: bool = False) -> tuple[Line, ...]:
    found = []
    for name in dict.fromkeys([*a, *b]):
        one: Any = a.get(name)
        other: Any = b.get(name)
        missing = one is None or other is None
        found.append(Line(name, one, other, None if missing or not numbers else float(other) - float(one)))
    return tuple(found)


def _says(parameters: tuple[Line, ...], sources: tuple[Line, ...]) -> str:
    """What of the making differs, in one sentence."""
    by_name = {one.name: one for one in sources}
    if (payload := by_name.get("payload")) is not None and payload.same:
        return "The two are one model: their payloads have the same digest."
    differ = [one.name for one in sources if not one.same and one.name != "payload"]
    changed = [one.name for one in parameters if not one.same]
    if not differ and not changed:
        return "Parameters, data, code and lock are the same, as far as they were recorded."
    parts = []
    if differ:
        parts.append(f"They differ in {_listed(differ)}")
    if changed:
        parts.append(f"{'and in' if differ else 'They differ in'} the parameter"
                     f"{'s' if len(changed) > 1 else ''} {_listed(changed)}")
    return f"{' '.join(parts)}."


def _listed(names: list[str]) -> str:
    shown = names[:5]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return (", ".join(shown[:-1]) + " and " + shown[-1] if len(shown) > 1 and not more
            else ", ".join(shown)) + more
