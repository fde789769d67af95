"""One measured figure beside its target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Figure:
    """`value` in `unit`, `target` in the same; `better` says which way is good."""

    name: str
    value: float
    unit: str
    target: float
    better: Literal["lower", "higher"]
    note: str = ""
