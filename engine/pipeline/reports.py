"""Reports that other programs read: texts in Markdown that stay texts, and JUnit. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from xml.etree import ElementTree

LONGEST = 500  # characters of a failure's message
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~!&$])")


def escaped(text: str) -> str:
    """A text on one line of Markdown, in which nothing is markup."""
    flat = " ".join(visible(str(text)).split())
    return re.sub(r"^([-+]|\d+[.)])(?=\s)", r"\\\1", _SPECIAL.sub(r"\\\1", flat))


def visible(text: str) -> str:
    """Without control characters, and without those that turn the direction of writing."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co") else "\ufffd"
                   for c in text)


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
