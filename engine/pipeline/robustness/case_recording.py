"""Telling the hard cases what became of them, once a model that ran them is kept."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from engine.errors import OpsdeckError
from engine.pipeline.robustness import case_files
from engine.pipeline.robustness.case_files import TIMES
from engine.pipeline.robustness.cases import Case
from engine.reproduce import canonical


def record_cases(folder: Path, robustness_json: Path, now: datetime) -> list[str]:
    """Set the times of the cases in `folder` from what a stage `robustness` left. Calling it again changes
    nothing more. What could not be noted comes back as sentences and stops nobody: the model is kept."""
    return record(folder, json.loads(robustness_json.read_text(encoding="utf-8"))["cases"], now)


def record(folder: Path, results: Iterable[Mapping[str, Any]], now: datetime) -> list[str]:
    """As `record_cases`, from the cases of a result: each with `id`, `passed` and `digest`."""
    said = []
    for one in results:
        case, _, problems = case_files.read_case(folder / f"{one['id']}.yaml")
        if case is None:
            why = problems[0].message if problems else "it is not there"
            said.append(f"The case {one['id']} cannot be read any more, so its times were not set: {why}.")
        elif digest(case) != one["digest"]:
            said.append(f"The case {one['id']} has changed since it was run, so its times were not set.")
        else:
            try:
                case_files.record(folder, case, bool(one["passed"]), now)
            except (OpsdeckError, OSError) as error:
                said.append(f"The times of the case {one['id']} could not be set: {error}")
    return said


def digest(case: Case) -> str:
    """Of a case without the times that are set on it."""
    return canonical.digest(case.model_dump(mode="json", by_alias=True, exclude=set(TIMES)))
