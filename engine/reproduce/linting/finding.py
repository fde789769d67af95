"""What lint finds. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Rule = Literal["dependency", "randomness", "absolute-path", "unversioned-data", "clock", "order",
               "unreadable"]
MARK = "opsdeck: reproducible"


@dataclass(frozen=True)
class Finding:
    """`path` is relative to the project; `text` says what stands there, `why` what it does to a run, `hint`
    what to do. `more`: how many further lines of the file have the same. `group`: what counts as the same."""

    rule: Rule
    path: str
    line: int
    text: str
    why: str
    hint: str
    more: int = 0
    group: str = ""

    @property
    def where(self) -> str:
        return f"{self.path}:{self.line}"

    def __str__(self) -> str:
        again = f" (and {self.more} more in this file)" if self.more else ""
        return f"{self.where}: {self.rule}: {self.text}{again}\n  {self.why}\n  {self.hint}"
