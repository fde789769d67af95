"""How findings on a column are put into words. Pure."""

from __future__ import annotations

from typing import Any

from engine.pipeline.expectations.model import Expected, Finding, Kind


def percent(share: float) -> str:
    """`12.3 %`, with as many digits as a small share needs; never 0 % for what is there."""
    if share == 0 or share >= 0.001:
        return f"{100 * share:.3g} %" if share < 0.9995 or share == 1 else "nearly 100 %"
    return f"{100 * share:.1g} %"


def finding(
    name: str,
    part: str,
    kind: Kind,
    expected: Expected,
    after: Expected | None,
    sentence: str,
    old: str,
    new: str,
    **more: Any,
) -> Finding:
    """A finding about `part` of a column, with what stands in the file and what would make the data
    expected."""
    severity = more.pop("severity", expected.severity)
    return Finding(column=name, kind=kind, severity=severity, sentence=sentence, expected=old, seen=new,
                   place=["columns", name, part], before=expected.model_dump(mode="json"),
                   after=after.model_dump(mode="json") if after else None, **more)


def short(value: str) -> str:
    text = value if value.isprintable() and value else repr(value)
    return text if len(text) <= 30 else text[:29] + "…"
