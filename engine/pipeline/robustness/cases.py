"""Hard cases: rows that a model got wrong once, what is expected of it there, and what became of it. Pure.

A case is kept with the model (`case_files`), and every candidate runs all of them. One that has ever been
passed must never fail again, above all one that failed and was fixed: then the candidate is refused. One
that has not been passed yet is a known weakness, which is reported and refuses nobody unless it says
`must: true`.

`failed_at` is when it last failed, `fixed_at` when it passed after that, `passed_at` when it first passed.
Times are set by `after`, which whoever runs the cases of a model that is *kept* calls: a candidate that is
refused for something else leaves no trace.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from engine.errors import UsageError
from engine.fields import Model, Text
from engine.pipeline.robustness.behaviour import Expectation, Finding, Predict, check
from engine.pipeline.robustness.changes import Table

if TYPE_CHECKING:
    import numpy as np

Moment = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
NAME = r"^[a-z0-9][a-z0-9-]*$"
Standing = Literal["new", "known to fail", "passed before", "fixed"]
Status = Literal["passed", "fixed now", "fails, and is new", "known to fail", "must pass", "broke",
                 "came back"]


class Case(Model):
    """`rows` is the Parquet file beside, and `sha256` its digest. `source` says where the rows come from,
    such as a request's correlation id; `why` what makes them hard, for whoever sees it fail in a year."""

    case: Literal[1]
    id: Annotated[str, Field(pattern=NAME)]
    title: Text
    why: Text
    source: Text
    added_by: Text
    added_at: Moment
    rows: Text
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    expect: list[Expectation] = Field(min_length=1)
    must: bool = False
    passed_at: Moment | None = None
    failed_at: Moment | None = None
    fixed_at: Moment | None = None

    @property
    def standing(self) -> Standing:
        """What it has been so far."""
        if self.fixed_at is not None:
            return "fixed"
        if self.passed_at is not None:
            return "passed before"
        return "new" if self.failed_at is None else "known to fail"


@dataclass(frozen=True)
class CaseResult:
    """One case of one model. `status`: passed; `fixed now`, for the first time since it failed; `known to
    fail` and `fails, and is new` (no model that was kept has been tried on it) refuse nobody; `must pass`,
    `broke` (it passed before) and `came back` (it was fixed before) refuse the model. `says` is one sentence,
    with the rows that are wrong."""

    id: str
    title: str
    status: Status
    says: str
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        return self.status in ("passed", "fixed now")

    @property
    def refuses(self) -> bool:
        return self.status in ("must pass", "broke", "came back")


@dataclass(frozen=True)
class CasesVerdict:
    """`passed` when no case refuses the model; `says` is one sentence."""

    passed: bool
    says: str
    results: tuple[CaseResult, ...]


def run(cases: Sequence[Case], rows: Mapping[str, Table], predict: Predict,
        rng: np.random.Generator) -> CasesVerdict:
    """Run all: `rows` by a case's id. Each case has draws of its own, so that one more changes no other. A
    case that cannot be run at all (a column that the model wants is gone, say) is one that fails."""
    results = [_run(case, rows[case.id], predict, stream)
               for case, stream in zip(cases, rng.spawn(len(cases)), strict=True)]
    return CasesVerdict(not any(one.refuses for one in results), _sentence(results), tuple(results))


def after(case: Case, passed: bool, now: datetime) -> Case:
    """The case once a model that is kept has run it at `now` (UTC). Nothing that was passed ever becomes
    unguarded: a case that fails again keeps its `passed_at` and `fixed_at`."""
    moment = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if not passed:
        return case.model_copy(update={"failed_at": moment})
    if case.failed_at is not None and (case.fixed_at is None or case.fixed_at < case.failed_at):
        return case.model_copy(update={"fixed_at": moment, "passed_at": case.passed_at or moment})
    return case if case.passed_at is not None else case.model_copy(update={"passed_at": moment})


def _run(case: Case, rows: Table, predict: Predict, rng: np.random.Generator) -> CaseResult:
    findings = []
    for expected in case.expect:
        try:
            findings.append(check(expected, rows, predict, rng))
        except UsageError as error:
            findings.append(Finding(False, f"{error.message[0].upper()}{error.message[1:]}.", rows.num_rows))
    wrong = next((one.says for one in findings if not one.passed), None)
    if wrong is None:
        fixed = case.standing == "known to fail" or (
            case.failed_at is not None and case.fixed_at is not None and case.fixed_at < case.failed_at)
        return CaseResult(case.id, case.title, "fixed now" if fixed else "passed",
                          f"Failed at {case.failed_at}, and passes now." if fixed else "Passes.",
                          tuple(findings))
    status, said = _failing(case)
    return CaseResult(case.id, case.title, status, f"{said} {wrong}", tuple(findings))


def _failing(case: Case) -> tuple[Status, str]:
    if case.standing == "fixed":
        return "came back", f"Fixed at {case.fixed_at}, and must never fail again."
    if case.standing == "passed before":
        return "broke", f"Passed since {case.passed_at}, and must not fail."
    if case.must:
        return "must pass", "Must pass."
    if case.failed_at is None:
        return "fails, and is new", "No registered model has been tried on it before."
    return "known to fail", f"Failed before, last at {case.failed_at}."


def _sentence(results: Sequence[CaseResult]) -> str:
    stopped = [one for one in results if one.refuses]
    known = [one for one in results if one.status == "known to fail"]
    new = [one for one in results if one.status == "fails, and is new"]
    fixed = sum(one.status == "fixed now" for one in results)
    passed = sum(one.passed for one in results)
    if not results:
        return "There are no hard cases yet."
    tail = "".join(f"; {len(some)} {what}: {', '.join(one.id for one in some[:3])}" for some, what in (
        (known, "known to fail"), (new, "new and failing")) if some)
    tail += f"; {fixed} of them fixed now" if fixed else ""
    if stopped:
        rest = f" (and {len(stopped) - 1} more)" if len(stopped) > 1 else ""
        first = stopped[0]
        what = "fails" if first.status == "must pass" else first.status
        return f"The case {first.id} {what}{rest}. {first.says}"
    return f"{passed} of {len(results)} hard cases pass{tail}."
