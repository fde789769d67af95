"""What a person accepts becomes what is expected. Pure."""

from __future__ import annotations

import copy
from typing import Any

from pydantic import ValidationError

from engine.errors import Conflict, UsageError
from engine.pipeline.expectations.model import Accepted, Expectations, Finding


def accept(expectations: Expectations, finding: Finding, by: str, reason: str, at: str) -> Expectations:
    """The expectations under which what was found is expected; `by`, `reason` and `at` (UTC) are kept with
    it.

    Raises UsageError without a name or a reason, and for a hard finding, which is not for a run's approver
    to wave through but for a reviewed change of the file; Conflict if the expectation is no longer the one
    that the finding was made against.
    """
    for what, text in (("a name", by), ("a reason", reason), ("a time", at)):
        if not text.strip():
            raise UsageError(f"A finding is accepted with {what}.", hint="Say who accepts it, and why.")
    if finding.severity == "hard":
        raise UsageError(
            f"This finding is hard and cannot be accepted: {finding.sentence}",
            hint="If the data is right, change expectations.yaml (its severity or its bounds) and have the "
            "change reviewed.",
        )
    data = expectations.model_dump(mode="json")
    *parents, last = finding.place
    holder: Any = data
    current: Any
    try:
        for part in parents:
            holder = holder[part]
        current = holder.get(last) if isinstance(holder, dict) else holder[last]
    except (KeyError, IndexError, TypeError):
        current = None
    if current != finding.before:
        raise Conflict(
            f"The expectation on {finding.column or 'the table'} was changed since this was found.",
            hint="Check the data again, and look at what is found now.",
        )
    accepted = Accepted(by=by.strip(), at=at.strip(), reason=reason.strip()).model_dump()
    if finding.after is None:
        del holder[last]
    else:
        after = copy.deepcopy(finding.after)
        (after["type"] if finding.kind == "new column" else after)["accepted"] = accepted
        holder[last] = after
    if finding.kind == "missing column":
        _forget(data, str(last))
    try:
        return Expectations.model_validate(data)
    except ValidationError as error:
        raise UsageError(f"This cannot be accepted alone: {error.errors()[0]['msg']}.",
                         hint="Learn the expectations again from data that is right.") from error


def _forget(data: dict[str, Any], column: str) -> None:
    """Leave out what names a column that is gone."""
    data["keys"] = [key for key in data["keys"] if column not in key["columns"]]
    data["correlations"] = [one for one in data["correlations"] if column not in one["columns"]]
    for part in ("freshness", "period"):
        if data[part] is not None and data[part]["column"] == column:
            data[part] = None
