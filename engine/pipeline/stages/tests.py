"""The project's own tests, by pytest in the project's environment; the JUnit report is the evidence."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from engine.errors import ActionFailed, UsageError
from engine.pipeline.building import seen
from engine.pipeline.child import entries, environments, process, views
from engine.pipeline.stages.contract import Done, Work
from engine.procedures.output import harmless
from engine.reproduce import seeds
from engine.words import span

JUNIT, LOG = "junit.xml", "log.txt"
LARGEST = 64 << 20  # bytes of a report that is read
NAMED = 3  # failing tests in the sentence
LISTED = 50  # failing tests in the result
# pytest's exit codes.
PASSED, FAILED, NONE = 0, 1, 5


@dataclass(frozen=True)
class Case:
    """One test of a report. `outcome`: passed, failed, error or skipped; `says`: its last line of why not."""

    name: str
    outcome: str
    says: str
    seconds: float


def run(work: Work) -> Done:
    """Run pytest on `tests.paths`. Result: tests, passed, failed, errors, skipped, seconds, failing.

    Passes where at least one test passed and none failed. Raises UsageError for a path that is not there and
    an environment without pytest, ActionFailed when pytest itself could not do its work.
    """
    given = work.project.tests
    for path in given.paths:
        if not (work.folder / path).exists():
            raise UsageError(f"The project has no {path}, where its tests should be.", where="tests.paths",
                             hint="Write at least one test there, or name the folder that has them.")
    python = environments.of(work)
    if not environments.has(python, "pytest"):
        raise UsageError("The project's environment has no pytest, which runs its tests.",
                         where=f"environment.lock: {work.project.environment.lock}",
                         hint="Add pytest to the development dependencies and lock anew.")
    report = work.output / JUNIT
    with process.stoppable(), entries.scratch(work.output) as scratch, \
            views.of(work, "code", "tests") as view:
        for path in given.paths:  # one that holds nothing yet
            if (work.folder / path).is_dir():
                (view.folder / path).mkdir(parents=True, exist_ok=True)
        command = [str(python), "-m", "pytest", *given.paths, *configured(view.folder, scratch),
                   f"--junit-xml={report}", "-p", "no:cacheprovider", "--color=no", "-ra", *given.args]
        variables = process.variables(python, scratch, seeds.environment(work.project.seed))
        ended = process.run(command, folder=view.folder, variables=variables, limits=given.limits,
                            log=work.output / LOG, say=work.say, told=view.told)
        view.retell(report, escape)
    if ended.cause and (problem := process.failure(ended, "The run of the tests", "tests", given.limits)):
        raise problem
    cases = read(report) if report.exists() else []
    if ended.code not in (PASSED, NONE) and not any(one.outcome in ("failed", "error") for one in cases):
        last = ended.tail[-1] if ended.tail else "it printed nothing"
        if ended.code != FAILED:
            problem = ActionFailed(f"pytest could not run the tests: {last}", where="tests",
                                   hint=f"{LOG} has all that it printed.")
            view.explain(problem, *ended.tail)
            raise problem
        return _done(work, cases, ended.seconds, f"pytest says that the tests failed: {last}")
    wrong = [one.says for one in cases if one.outcome in ("failed", "error")]
    missed = view.unlisted("\n".join([*ended.tail, *reversed(wrong)])) if wrong else None
    return _done(work, cases, ended.seconds, None, "" if missed is None else
                 f". {view.missed(missed)} {view.remedy(missed)}")


def read(report: Path) -> list[Case]:
    """The tests of a JUnit report. Raises ActionFailed for what is none; what the project's own code could
    have written there is not trusted, so a document that defines entities is refused."""
    problem = ActionFailed("The JUnit report of the tests cannot be read.", where=str(report),
                           hint="Do the project's tests end the process, or write to this file?")
    try:
        if report.is_symlink() or report.stat().st_size > LARGEST:
            raise problem
        text = report.read_text("utf-8")
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise problem
        return [_case(one) for one in ElementTree.fromstring(text).iter("testcase")]
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise problem from error


def configured(folder: Path, scratch: Path) -> list[str]:
    """Arguments that keep pytest to the project's folder: a configuration or a conftest further up is no part
    of the project, nor of the stage's key."""
    found = seen.config(folder)
    own = scratch / "pytest.ini" if found is None else folder / found
    if found is None:
        own.write_text("[pytest]\n", encoding="utf-8")
    return ["-c", str(own), f"--rootdir={folder}", f"--confcutdir={folder}"]


def _case(found: ElementTree.Element) -> Case:
    module, name = found.get("classname") or "", found.get("name") or ""
    outcome, says = "passed", ""
    for one in found:
        if one.tag in ("failure", "error", "skipped"):
            outcome = {"failure": "failed"}.get(one.tag, one.tag)
            says = _reason(one)
            break
    # A module that cannot be collected has no class, only its own name.
    shown = f"{module.replace('.', '/')}.py::{name}" if module else f"{name.replace('.', '/')}.py"
    try:
        seconds = float(found.get("time") or 0.0)
    except ValueError:
        seconds = 0.0
    return Case(harmless(shown), outcome, harmless(says), seconds)


def _reason(found: ElementTree.Element) -> str:
    """The line that pytest marks with E, the last of them: an exception's own words."""
    marked = re.findall(r"^E\s+(.+)$", found.text or "", re.MULTILINE)
    message = (found.get("message") or "").strip().splitlines()
    if found.get("message") == "collection failure" and marked:
        return str(marked[-1]).strip()
    return message[0] if message else (str(marked[0]) if marked else "")


def _done(work: Work, cases: Sequence[Case], seconds: float, instead: str | None, why: str = "") -> Done:
    count = Counter(one.outcome for one in cases)
    wrong = [one for one in cases if one.outcome in ("failed", "error")]
    result = {"tests": len(cases), "passed": count["passed"], "failed": count["failed"],
              "errors": count["error"], "skipped": count["skipped"], "seconds": round(seconds, 3),
              "failing": [{"name": one.name, "says": one.says[:300]} for one in wrong[:LISTED]]}
    skipped = f", {count['skipped']} skipped" if count["skipped"] else ""
    evidence = tuple(name for name in (JUNIT, LOG) if (work.output / name).exists())
    if instead is None and wrong:
        named = "; ".join(f"{one.name}: {one.says[:160]}" for one in wrong[:NAMED])
        more = f"; and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        instead = f"{len(wrong)} of {_tests(len(cases))} failed: {named}{more}{why}"
    elif instead is None and not cases:
        instead = f"No tests were found in {', '.join(work.project.tests.paths)}, so nothing was tested"
    elif instead is None and not count["passed"]:
        instead = "Every test was skipped, so nothing was tested"
    if instead is not None:
        return Done(False, instead, result, evidence)
    return Done(True, f"{_tests(count['passed'])} passed{skipped}, in {span(seconds)}", result, evidence)


def _tests(count: int) -> str:
    return f"{count} test" if count == 1 else f"{count} tests"
