"""Two models or runs side by side: what they were made with and from, and what they came to. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TAG = "opsdeck.compared"  # of an MLflow run: what the comparison stage measured beside the champion
LONGEST = 4000            # characters of it, fewer than MLflow takes


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
    """`sources`: data, code, lock, image, payload, each as the digest that was recorded. `compared`: metrics
    of both on the same rows, where the comparison stage compared one with the other; `on`: which run's.
    `lacking`: that no metric was measured of both, empty where one was."""

    parameters: tuple[Line, ...]
    metrics: tuple[Line, ...]
    sources: tuple[Line, ...]
    says: str
    compared: tuple[Line, ...] = ()
    on: str = ""
    lacking: str = ""


def compare(a: Mapping[str, Any], b: Mapping[str, Any]) -> Sides:
    """Of two entries as `tracked.read` gives them."""
    parameters = _lines(a["parameters"], b["parameters"])
    metrics = _lines(a["metrics"], b["metrics"], numbers=True)
    sources = _lines(a["sources"], b["sources"])
    compared, on = _compared(a, b)
    return Sides(parameters, metrics, sources, _says(parameters, sources), compared, on,
                 _lacking(a["metrics"], b["metrics"]))


def on_the_same_rows(result: Mapping[str, Any]) -> str | None:
    """What the comparison stage's result says of both models, for TAG; None where there was no champion."""
    champion = result.get("champion")
    if not champion:
        return None
    figures = [{key: one.get(key) for key in ("metric", "champion", "challenger")}
               for one in result.get("metrics") or [] if one.get("champion") is not None]
    whole: dict[str, Any] = {"name": champion["name"], "version": champion["version"], "metrics": figures}
    while figures and len(json.dumps(whole)) > LONGEST:
        figures.pop()
    return json.dumps(whole, sort_keys=True)


def told(tag: str | None) -> dict[str, Any] | None:
    """What a tag says; None where there is none, or where it is not ours."""
    try:
        found = json.loads(tag or "")
    except ValueError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("metrics"), list) else None


def _compared(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[tuple[Line, ...], str]:
    """The comparison stage's figures of the two, whichever was the champion then."""
    for challenger, champion in ((b, a), (a, b)):
        found = challenger.get("compared")
        if found and champion["version"] is not None and (found.get("name"), found.get("version")) == (
                champion["name"], champion["version"]):
            one, other = ({str(figure["metric"]): figure.get(side) for figure in found["metrics"]}
                          for side in ("champion", "challenger"))
            sides = (one, other) if champion is a else (other, one)
            return _lines(*sides, numbers=True), challenger.get("run") or ""
    return (), ""


def _lacking(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    if a.keys() & b.keys():
        return ""
    said = [f"{name} has {_listed(sorted(one)) if one else 'none'}" for name, one in (("A", a), ("B", b))]
    return f"No metric was measured of both: {'; '.join(said)}."


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
