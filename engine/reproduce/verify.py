"""Two runs beside each other: whether they gave the same, and if not, which field explains it. Pure.

Checksums are compared byte for byte (a model's by its canonical payload), the final loss and the metrics
with tolerances. Reports are not compared: their figures are, and they hold how long things took.

    |a - b| <= max(absolute, relative * max(|a|, |b|))          (PEP 485, symmetric)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from engine.reproduce import canonical
from engine.reproduce.explaining import RESULTS, Reach, rule
from engine.reproduce.manifest import Manifest
from engine.reproduce.parts import Artifact

Status = Literal["equal", "within", "differs", "missing"]
Verdict = Literal["identical", "within tolerance", "different", "nothing to compare"]


@dataclass(frozen=True)
class Tolerance:
    """How far two numbers may be apart. Both 0: not at all."""

    absolute: float = 0.0
    relative: float = 0.0

    def holds(self, a: float, b: float) -> bool:
        """Symmetric. NaN equals NaN, and an infinity itself."""
        if a == b or (math.isnan(a) and math.isnan(b)):
            return True
        if not (math.isfinite(a) and math.isfinite(b)):
            return False
        return abs(a - b) <= max(self.absolute, self.relative * max(abs(a), abs(b)))


@dataclass(frozen=True)
class Tolerances:
    """`loss` and `metrics` by name fall back on `default`. Checksums of `artifacts` must be equal unless
    `checksums` is false; then the numbers alone decide. `rounding`: how far apart, relatively, numbers can be
    that the order of additions alone explains. Not a law: an unstable training enlarges rounding at will."""

    default: Tolerance = Tolerance()
    loss: Tolerance | None = None
    metrics: Mapping[str, Tolerance] = field(default_factory=dict)
    checksums: bool = True
    rounding: float = 1e-3

    def of(self, name: str) -> Tolerance:
        return self.metrics.get(name, self.default)


@dataclass(frozen=True)
class Result:
    """One thing compared: `kind` is checksum, loss or metric; `apart` the relative distance of numbers."""

    kind: Literal["checksum", "loss", "metric"]
    name: str
    a: str | float | None
    b: str | float | None
    status: Status
    apart: float | None = None

    @property
    def key(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True)
class Difference:
    """A recorded field that differs, None where it is missing. `explains`: the keys of
    the results it can explain."""

    path: str
    a: Any
    b: Any
    topic: str
    reach: Reach
    why: str
    explains: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """`first` is the first difference that matters, by the order of `explaining.RULES`. `explained`: whether
    the recorded differences can explain every result that differs; None when an unknown field makes it
    impossible to say, or nothing differs."""

    verdict: Verdict
    results: tuple[Result, ...]
    differences: tuple[Difference, ...]
    first: Difference | None
    explained: bool | None
    sentence: str

    @property
    def reproduced(self) -> bool:
        return self.verdict in ("identical", "within tolerance")


def verify(a: Manifest, b: Manifest, tolerances: Tolerances | None = None) -> Comparison:
    """Compare what two runs gave and what they were made from."""
    given = tolerances or Tolerances()
    results = tuple(_results(a, b, given))
    bad = [one for one in results if one.status in ("differs", "missing")
           and (given.checksums or one.kind != "checksum")]
    unlike = tuple(_explained(one, bad, given) for one in differences(a.content, b.content))
    first = next((one for one in unlike if one.reach != "nothing"), None)
    verdict: Verdict = ("nothing to compare" if not results else "different" if bad else
                        "identical" if all(one.status == "equal" for one in results) else "within tolerance")
    explained = _whether(bad, unlike)
    return Comparison(verdict, results, unlike, first, explained,
                      _sentence(verdict, results, bad, first, unlike, explained))


def _results(a: Manifest, b: Manifest, tolerances: Tolerances) -> Iterator[Result]:
    old, new = a.known, b.known
    for name in sorted(old.artifacts.keys() | new.artifacts.keys()):
        if any(name in each.artifacts and each.artifacts[name].kind == "report" for each in (old, new)):
            continue
        one, other = _checksums(old.artifacts.get(name), new.artifacts.get(name))
        status: Status = "missing" if one is None or other is None else "equal" if one == other else "differs"
        yield Result("checksum", name, one, other, status)
    if old.loss is not None or new.loss is not None:
        yield _number("loss", "loss", old.loss, new.loss, tolerances.loss or tolerances.default)
    for name in sorted(old.metrics.keys() | new.metrics.keys()):
        yield _number("metric", name, old.metrics.get(name), new.metrics.get(name), tolerances.of(name))


def _checksums(a: Artifact | None, b: Artifact | None) -> tuple[str | None, str | None]:
    if a is not None and b is not None and a.payload and b.payload:
        return a.payload, b.payload
    return a.sha256 if a else None, b.sha256 if b else None


def _number(kind: Literal["loss", "metric"], name: str, a: float | str | None, b: float | str | None,
            tolerance: Tolerance) -> Result:
    if a is None or b is None:
        return Result(kind, name, a, b, "missing")
    one, other = canonical.as_number(a), canonical.as_number(b)
    if Tolerance().holds(one, other):
        return Result(kind, name, one, other, "equal", 0.0)
    return Result(kind, name, one, other, "within" if tolerance.holds(one, other) else "differs",
                  _apart(one, other))


def _apart(a: float, b: float) -> float:
    if not (math.isfinite(a) and math.isfinite(b)):
        return math.inf
    # Divided first, so that neither the largest nor the smallest numbers leave what floats can hold.
    largest = max(abs(a), abs(b))
    return abs(a / largest - b / largest)


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[Difference]:
    """Every input that differs between two manifests' contents, sorted by rank of its rule and path."""
    found = []
    for path, one, other in _apart_at((), a, b):
        if path[0] == "data" and path[2:3] in (("derived",), ("version",)) and _same_bytes(path[1], a, b):
            continue  # however they were made or are called, the bytes are the same
        rank, covering = rule(path)
        found.append((rank, Difference(".".join(path), one, other, covering.topic, covering.reach,
                                       covering.why)))
    return [one for _, one in sorted(found, key=lambda each: (each[0], each[1].path))]


def _same_bytes(name: str, a: dict[str, Any], b: dict[str, Any]) -> bool:
    made = [each["data"][name].get("sha256") for each in (a, b)]
    return made[0] is not None and made[0] == made[1]


def _apart_at(path: tuple[str, ...], a: Any, b: Any) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    if len(path) == 1 and path[0] in RESULTS:
        return
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(a.keys() | b.keys()):
            yield from _apart_at((*path, key), a.get(key), b.get(key))
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for at, (one, other) in enumerate(zip(a, b, strict=True)):
            yield from _apart_at((*path, str(at)), one, other)
    elif type(a) is not type(b) or a != b:
        yield path, a, b


def _explained(one: Difference, bad: list[Result], tolerances: Tolerances) -> Difference:
    def reaches(result: Result) -> bool:
        if one.reach != "rounding":
            return one.reach == "everything"
        if result.kind == "checksum":
            return result.status == "differs"
        return result.apart is not None and result.apart <= tolerances.rounding

    can = tuple(result.key for result in bad if reaches(result))
    return Difference(one.path, one.a, one.b, one.topic, one.reach, one.why, can)


def _whether(bad: list[Result], differences: tuple[Difference, ...]) -> bool | None:
    if not bad:
        return None
    if all(any(result.key in one.explains for one in differences) for result in bad):
        return True
    return None if any(one.reach == "unknown" for one in differences) else False


def _sentence(verdict: Verdict, results: tuple[Result, ...], bad: list[Result], first: Difference | None,
              differences: tuple[Difference, ...], explained: bool | None) -> str:
    if verdict == "nothing to compare":
        return "Neither run recorded an artifact, a loss or a metric, so there is nothing to compare."
    if not bad:
        same = (f"All {len(results)} results are the same" if verdict == "identical" else
                "The results are the same within the tolerances")
        return f"{same}." if first is None else f"{same}, though {first.path} differs ({_pair(first)})."
    worst = _words(bad[0])
    more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
    if first is None:
        return (f"{worst}{more}, and nothing that was recorded explains it: the training depends on "
                "something else, such as a clock, unseeded randomness or undeclared data.")
    named = f"The first field that differs is {first.path} ({_pair(first)}): {first.why}"
    if explained:
        reason = next(one for one in differences if one.explains)
        what = "which explains it" if reason == first else f"and {reason.path} explains the rest" \
            if first.explains else f"but {reason.path} explains it"
        return f"{worst}{more}. {named}, {what}."
    if explained is None:
        return f"{worst}{more}. {named}; whether a field of a later version explains it cannot be said."
    return (f"{worst}{more}. {named}, which does not explain it all: that changes the last digits, and this "
            "is more. The training depends on something that is not recorded as well.")


def _words(result: Result) -> str:
    what = {"checksum": f"The checksum of {result.name}", "loss": "The final loss",
            "metric": f"The metric {result.name}"}[result.kind]
    if result.status == "missing":
        return f"{what} is missing from {'the first' if result.a is None else 'the second'} run"
    if result.kind == "checksum":
        return f"{what} differs"
    return f"{what} differs: {result.a!r} and {result.b!r}"


def _pair(one: Difference) -> str:
    return f"{_short(one.a)} and {_short(one.b)}"


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    if len(text) in (40, 64) and set(text) <= set("0123456789abcdef"):
        return text[:12]
    return text if len(text) <= 60 else text[:57] + "…"
