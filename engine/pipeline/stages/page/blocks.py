"""What a page is made of, before it is Markdown or HTML. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Tone = Literal["good", "bad", "doubt", "plain"]


@dataclass(frozen=True)
class Text:
    text: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class Items:
    """A list, a sentence each."""

    items: Sequence[str]
    tone: Tone = "plain"


@dataclass(frozen=True)
class Table:
    """`numbers`: how many of the last columns are aligned to the right. `whole`: columns of a word or two,
    such as a verdict, that are never broken, as numbers are not."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: int = 0
    whole: Sequence[int] = ()


@dataclass(frozen=True)
class Lines:
    """Text as it is, in a fixed width."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Plot:
    """A picture, and what it shows in a sentence for whoever does not see it. `draw` makes the SVG: only
    HTML needs it."""

    draw: Callable[[], str]
    says: str


Block = Text | Items | Table | Lines | Plot


@dataclass(frozen=True)
class Section:
    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)


@dataclass(frozen=True)
class Page:
    """`verdict` is one sentence; `against` what speaks against a release, `known` what should be known."""

    title: str
    owner: str
    verdict: str
    tone: Tone
    against: Sequence[str]
    known: Sequence[str]
    sections: Sequence[Section]


def number(value: Any, digits: int = 4) -> str:
    """`0.8312`, `12,345`, or `–` where there is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–"
    if isinstance(value, int) or (float(value).is_integer() and abs(value) >= 1000):
        return f"{int(value):,}"
    return f"{value:.{digits}g}"


def interval(low: Any, high: Any) -> str:
    return f"{number(low)} to {number(high)}" if low is not None and high is not None else "–"


def short(digest: Any) -> str:
    return str(digest).removeprefix("sha256:")[:12] if digest else "–"


def missing(stage: str, what: str) -> Text:
    return Text(f"Missing: {what}. The stage {stage} has not left it.", "doubt")
