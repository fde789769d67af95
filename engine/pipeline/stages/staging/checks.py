"""One check of a staged model, and the reports of all. Pure but for the writing of two files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from engine.pipeline.reports import junit

Kind = Literal["contract", "smoke", "replicas"]


@dataclass(frozen=True)
class Check:
    """What was asked of the servers: `expected` and `seen` in words."""

    name: str
    kind: Kind
    expected: str
    seen: str
    passed: bool


def write(checks: Sequence[Check], folder: Path) -> None:
    """checks.json and junit.xml."""
    (folder / "checks.json").write_text(
        json.dumps([asdict(check) for check in checks], indent=1, sort_keys=True) + "\n", encoding="utf-8")
    (folder / "junit.xml").write_bytes(junit("staging", [
        (check.kind, check.name, None if check.passed else f"expected {check.expected}; seen {check.seen}")
        for check in checks]))
