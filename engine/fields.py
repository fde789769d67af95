"""The field types that the procedure language and `opsdeck.yaml` share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def seconds(value: Any) -> float:
    """A duration such as `90s`, `5m`, `1.5h`, `90d`, or a number of seconds; raises ValueError."""
    if isinstance(value, bool):
        raise ValueError("a duration is a number with a unit, such as 90s or 5m")
    if isinstance(value, int | float):
        number, unit = float(value), "s"
    else:
        text = str(value).strip()
        digits = text.rstrip("abcdefghijklmnopqrstuvwxyz")
        unit = text[len(digits):] or "s"
        try:
            number = float(digits)
        except ValueError:
            raise ValueError(f"{text!r} is not a duration; write it like 90s, 5m, 2h or 90d") from None
    if unit not in UNITS:
        raise ValueError(f"unknown unit {unit!r} in {value!r}; use ms, s, m, h, d or w")
    if not 0 <= number < 1e12:
        raise ValueError(f"{value!r} is not a duration of zero or more")
    return number * UNITS[unit]


_DURATION_SCHEMA = {
    "description": "A duration: seconds, or a number with a unit such as 90s, 5m, 2h, 90d.",
    "anyOf": [{"type": "number", "minimum": 0},
              {"type": "string", "pattern": r"^[0-9.]+ *(ms|s|m|h|d|w)?$"}],
}
Duration = Annotated[float, BeforeValidator(seconds), WithJsonSchema(_DURATION_SCHEMA)]
Positive = Annotated[float, BeforeValidator(seconds), Field(gt=0), WithJsonSchema(_DURATION_SCHEMA)]
Text = Annotated[str, Field(min_length=1)]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Typed(Model):
    typed: Text


class Approvals(Model):
    """`min` different people of `roles`; `expires` closes an unanswered gate, `max_age` voids an old yes."""

    min: int = Field(default=1, ge=1, le=20)
    roles: list[str] = ["approver"]
    not_initiator: bool = True
    expires: Positive = 1800.0
    max_age: Positive = 300.0
