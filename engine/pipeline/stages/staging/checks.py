"""One check of a staged model, and the reports of all. Pure but for the writing of two files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

Kind = Literal["contract", "smoke", "replicas"]
LONGEST = 500


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


def junit(name: str, cases: Sequence[tuple[str, str, str | None]]) -> bytes:
    """A JUnit report of (class name, name, why it failed or None)."""
    failed = sum(why is not None for _, _, why in cases)
    suite = ElementTree.Element("testsuite", name=name, tests=str(len(cases)), failures=str(failed),
                                errors="0")
    for group, title, why in cases:
        case = ElementTree.SubElement(suite, "testcase", classname=f"{name}.{group}", name=xml_text(title))
        if why is not None:
            ElementTree.SubElement(case, "failure", message=xml_text(why[:LONGEST])).text = xml_text(why)
    return bytes(ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True))


def xml_text(text: str) -> str:
    """Without the characters that XML 1.0 cannot hold."""
    return "".join(c if c in "\t\n" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c > "\uffff"
                   else "\ufffd" for c in text)
