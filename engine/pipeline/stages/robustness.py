"""The stage that is unkind: the hard cases that are kept with the model, disturbed input, an adversarial
search, and what the project expects of the model's behaviour. It leaves robustness.json.

A case that ever passed, or was fixed, and fails now refuses the model by the case's name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from engine.pipeline.releasing.recording import trained
from engine.pipeline.robustness import case_files, case_recording, cases
from engine.pipeline.robustness.behaviour import Finding, check_all
from engine.pipeline.robustness.case_files import Library
from engine.pipeline.robustness.cases import CasesVerdict
from engine.pipeline.robustness.changes import Table
from engine.pipeline.robustness.perturbations import Outcome, perturb
from engine.pipeline.scoring import rows, writing
from engine.pipeline.scoring.asking import LOG, opened
from engine.pipeline.scoring.rows import HeldOut
from engine.pipeline.stages.contract import Done, Work

if TYPE_CHECKING:
    import numpy as np

    from engine.pipeline.statistics.labelled import Labelled

STAGE = "robustness"
STREAM = 2


def run(work: Work) -> Done:
    """Raises UsageError for an expectation or disturbance that does not fit the rows, DocumentError for
    cases with problems, ModelFailed where the unchanged rows cannot be scored."""
    import numpy as np

    project, wanted = work.project, work.project.robustness
    library = case_files.read(work.folder / wanted.cases)
    held = rows.read(project, work.inputs["data"], STAGE)
    # Streams of their own, so that one more disturbance changes no other's draws.
    picking, tried, changed, expected = np.random.default_rng([project.seed, STREAM]).spawn(4)
    picked = _picked(held, wanted.rows, picking)
    with opened(work, STAGE, trained(work.inputs["train"]), held.shown) as scorer:
        scores = scorer(held.rows)
        verdict = cases.run(library.cases, library.rows, scorer, tried)
        work.say(verdict.says)
        seen, labels = _seen(held, picked), held.labelled(scores).only(picked)
        with rows.located(f"{STAGE}: perturbations"):
            outcomes = perturb(wanted.perturbations, seen, scorer, rng=changed, labels=labels)
        for one in outcomes:
            work.say(f"{one.name}: {one.says}")
        with rows.located(f"{STAGE}: behaviours"):
            findings = check_all(wanted.behaviours, held.rows.filter(picked), scorer, expected)
        for name, finding in findings.items():
            work.say(f"{name}: {finding.says}")
    return _done(work, library, verdict, outcomes, findings, labels)


def record_cases(work: Work, now: datetime) -> list[str]:
    """Note in the cases' files what the model of this run, which is kept, made of them."""
    results = work.before.get(STAGE, {}).get("cases") or []
    return case_recording.record(work.folder / work.project.robustness.cases, results, now)


def _picked(held: HeldOut, most: int, rng: np.random.Generator) -> Any:
    """A mask of at most so many rows, at random; of a ranking whole queries."""
    import numpy as np

    count = held.rows.num_rows
    mask = np.ones(count, dtype=bool)
    if count <= most:
        return mask
    if held.project.task != "ranking" or held.groups is None:
        mask[:] = False
        mask[rng.choice(count, most, replace=False)] = True
        return mask
    names = np.asarray(held.groups).astype(str)
    _, numbers, sizes = np.unique(names, return_inverse=True, return_counts=True)
    order = rng.permutation(len(sizes))
    within = np.cumsum(sizes[order]) <= most
    within[0] = True  # one query at least, however large
    return np.isin(numbers, order[within])


def _seen(held: HeldOut, mask: Any) -> Table:
    """The rows as the model sees them: a disturbance of all columns must not touch the label."""
    return held.rows.select(held.shown.schema.names).filter(mask)


def _done(work: Work, library: Library, verdict: CasesVerdict, outcomes: Sequence[Outcome],
          findings: Mapping[str, Finding], labels: Labelled) -> Done:
    results = [{"id": one.id, "title": one.title, "status": one.status, "passed": one.passed,
                "refuses": one.refuses, "says": one.says, "digest": case_recording.digest(case)}
               for one, case in zip(verdict.results, library.cases, strict=True)]
    failed = [*(one["id"] for one in results if one["refuses"]),
              *(one.name for one in outcomes if not one.passed),
              *(name for name, one in findings.items() if not one.passed)]
    says = _sentence(verdict, outcomes, findings, len(labels))
    writing.write(work.output / "robustness.json", {
        "passed": not failed, "says": says, "rows": len(labels), "failed": failed,
        "cases": [{**one, "findings": writing.plain(result.findings), "why": case.why, "source": case.source}
                  for one, result, case in zip(results, verdict.results, library.cases, strict=True)],
        "perturbations": outcomes,
        "behaviours": [{"name": name, **writing.plain(one)} for name, one in findings.items()]})
    result = {"cases": results, "failed": failed, "rows": len(labels), "says": says,
              "perturbations": [{"name": one.name, "passed": one.passed, "says": one.says}
                                for one in outcomes],
              "behaviours": [{"name": name, "passed": one.passed, "says": one.says}
                             for name, one in findings.items()]}
    return Done(not failed, says, result, ("robustness.json", LOG))


def _sentence(verdict: CasesVerdict, outcomes: Sequence[Outcome], findings: Mapping[str, Finding],
              count: int) -> str:
    if not verdict.passed:
        return verdict.says
    wrong = [(one.name, one.says) for one in outcomes if not one.passed] + [
        (name, one.says) for name, one in findings.items() if not one.passed]
    if wrong:
        rest = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        return f"The model does not bear “{wrong[0][0]}”{rest}: {wrong[0][1]}"
    if not outcomes and not findings:
        return verdict.says
    tried = len(outcomes) + len(findings)
    return (f"{verdict.says.rstrip('.')}; the model bears all {tried} disturbances and expectations on "
            f"{count:,} rows.")
