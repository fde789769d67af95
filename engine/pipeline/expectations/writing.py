"""`expectations.yaml`: written for people to review, read back with every problem at its line.

What is written is sorted (columns and correlations by name, categories by share), numbers are the shortest
that read back the same, and the same expectations always give the same bytes. Comments that people add are
not kept: a reason has its place under `accepted`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from engine.errors import DocumentError
from engine.located import Located, Problem, load, load_bytes, validate
from engine.pipeline.expectations.kinds import NUMBERS, WORDS, family
from engine.pipeline.expectations.model import Expectations

WIDTH = 100
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*\Z")
_CONSTANTS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}

_HEAD = """\
# What data must look like before a model is trained on it: learned, then reviewed.
# hard stops the run; suspicious waits for a person; ignore is not looked at.
# `accepted` says who took an expectation as it is, when and why.
"""
_COMMENTS = {
    "chance": "how often a whole check of data without any change may find a shift",
    "margins": "the least effects that count",
    "margins.categories": "Cramér's V",
    "margins.correlation": "Cohen's q: the difference of the Fisher z",
    "margins.count": "rows of a period: so many times as few or as many",
    "margins.distribution": "Kolmogorov-Smirnov distance",
    "margins.missing": "Cohen's h",
    "margins.outside": "share of rows beyond the range, or in unknown categories",
    "new_columns": "columns that are not listed below",
    "correlations": "the strongest ones; r is of ranks",
    "known": "found beside these expectations, and accepted up to `effect`",
}
_NOTES = {"distribution": "of the rows, `share` are at most `at`", "categories": "[value, share of rows]"}


def dumps(expectations: Expectations) -> str:
    """The text of `expectations.yaml`; `loads` of it gives the same expectations."""
    lines = [_HEAD.rstrip("\n")]
    for key in type(expectations).model_fields:
        value = getattr(expectations, key)
        if value is None or value == [] or value == {}:
            continue
        if key in ("columns", "known"):
            value = dict(sorted(value.items()))
        _entry(lines, key, value, 0, key)
    return "\n".join(lines) + "\n"


def loads(source: Path | str | bytes, name: str = "expectations.yaml") -> Expectations:
    """Expectations from a file (a Path), or from a text called `name`. Raises DocumentError with all
    problems."""
    located = load_bytes(source, name) if isinstance(source, bytes) else (
        load(source) if isinstance(source, Path) else load(source, name))
    problems = list(located.problems)
    expectations = None
    if located.value is not None:
        expectations, found = validate(Expectations, located)
        problems += found
        if expectations is not None:
            problems += _beyond_the_types(expectations, located)
    if expectations is None or problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        ordered = sorted(dict.fromkeys(problems), key=lambda one: (one.line, one.column))
        raise DocumentError(
            f"the expectations have {count}",
            [str(one) for one in ordered],
            where=located.name,
            hint="Correct the lines that are named, or learn them again.",
        )
    return expectations


def _beyond_the_types(expectations: Expectations, located: Located) -> list[Problem]:
    """Parts that do not fit a column's kind, and names of columns that are not there."""
    problems = []
    for name, column in expectations.columns.items():
        kind = family(column.type.name)
        for part, kinds in (("allowed", NUMBERS), ("range", NUMBERS), ("distribution", NUMBERS),
                            ("infinite", NUMBERS), ("categories", WORDS)):
            if getattr(column, part) is not None and kind not in kinds:
                problems.append(located.problem(
                    ("columns", name, part), f"`{part}` does not fit the column {name}, which holds {kind}",
                    "correct the type, or remove it"))
    named: list[tuple[tuple[str | int, ...], str]] = []
    for at, key in enumerate(expectations.keys):
        named += [(("keys", at, "columns"), name) for name in key.columns]
    for at, pair in enumerate(expectations.correlations):
        named += [(("correlations", at, "columns"), name) for name in pair.columns]
        for name in pair.columns:
            known = expectations.columns.get(name)
            if known is not None and known.distribution is None:
                problems.append(
                    located.problem(
                        ("correlations", at),
                        f"the column {name} has no distribution, which its correlations are measured in",
                        "remove the correlation",
                    )
                )
    for part in ("freshness", "period"):
        if (one := getattr(expectations, part)) is not None:
            named.append(((part, "column"), one.column))
    for path, name in named:
        if name not in expectations.columns:
            problems.append(located.problem(path, f"there is no column {name} under `columns`"))
    return problems


def _entry(lines: list[str], key: str, value: Any, indent: int, path: str) -> None:
    """`key: value`, on a line of its own if it fits and as a block if not."""
    pad = " " * indent
    comment = _COMMENTS.get(path) or (_NOTES.get(key, "") if path.startswith("columns.") else "")
    comment = f"  # {comment}" if comment else ""
    head = f"{pad}{scalar(key)}:"
    if isinstance(value, BaseModel):
        value = {name: one for name in type(value).model_fields if (one := getattr(value, name)) is not None}
        flow = _flow(value)
        if path not in ("margins",) and flow is not None and len(head) + len(flow) < WIDTH:
            lines.append(f"{head} {flow}{comment}")
            return
    if isinstance(value, dict):
        lines.append(f"{head}{comment}")
        for name, one in value.items():
            _entry(lines, name, one, indent + 2, f"{path}.{name}")
    elif isinstance(value, list | tuple):
        _sequence(lines, head, comment, value, indent)
    else:
        lines.append(f"{head} {scalar(value)}{comment}")


def _sequence(lines: list[str], head: str, comment: str, value: Any, indent: int) -> None:
    pad = " " * indent
    if not value or all(isinstance(one, str | float | int) for one in value):
        words, row = [scalar(one) for one in value], f"{head} ["
        if len(row) + len(", ".join(words)) < WIDTH:
            lines.append(f"{row}{', '.join(words)}]{comment}")
            return
        lines.append(f"{head} [{comment}")
        row = f"{pad}   "
        for word in words:
            if len(row) + len(word) > WIDTH:
                lines.append(row)
                row = f"{pad}   "
            row += f" {word},"
        lines.append(f"{row.rstrip(',')}]")
        return
    lines.append(f"{head}{comment}")
    for one in value:
        if isinstance(one, BaseModel):
            fields = [
                (name, got) for name in type(one).model_fields if (got := getattr(one, name)) is not None
            ]
            inner: list[str] = []
            for name, got in fields:
                _entry(inner, name, got, indent + 4, "")
            lines.append(f"{pad}  - {inner[0].strip()}")
            lines.extend(inner[1:])
        else:
            lines.append(f"{pad}  - [{', '.join(scalar(part) for part in one)}]")


def _flow(value: dict[str, Any]) -> str | None:
    """A map of plain values in braces; None where it holds more."""
    if not all(isinstance(one, str | int | float) for one in value.values()):
        return None
    return "{" + ", ".join(f"{scalar(name)}: {scalar(one)}" for name, one in value.items()) + "}"


def scalar(value: Any) -> str:
    """A plain value as YAML that reads back the same: floats by repr, texts quoted where they must be."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    text = str(value)
    if _PLAIN.match(text) and text.lower() not in _CONSTANTS:
        return text
    return _quoted(text)


def _quoted(text: str) -> str:
    """In double quotes, with an escape for every character that cannot be seen."""
    parts = []
    for character in text:
        if character in '"\\':
            parts.append("\\" + character)
        elif character.isprintable():
            parts.append(character)
        else:
            code = ord(character)
            parts.append(
                {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(
                    character,
                    f"\\x{code:02X}"
                    if code < 256
                    else f"\\u{code:04X}"
                    if code < 65536
                    else f"\\U{code:08X}",
                )
            )
    return '"' + "".join(parts) + '"'


def as_json(expectations: Expectations) -> dict[str, Any]:
    """The same as plain values, for a machine."""
    found: dict[str, Any] = json.loads(expectations.model_dump_json())
    return found
