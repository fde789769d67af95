"""The page of a run: whether its model may be released, what speaks against it, and all that it rests on.

Written for a person who is tired and answers for the release: the verdict first, then what it rests on. What
a stage has not left is said to be missing, and stands among what speaks against a release.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from engine.pipeline.stages.page import figures, operations, plots, writers
from engine.pipeline.stages.page.blocks import (
    Block,
    Lines,
    Page,
    Plot,
    Section,
    Table,
    Text,
    Tone,
    missing,
    number,
    short,
)
from engine.pipeline.stages.page.found import ORDER, RunFound
from engine.reproduce.verify import differences

TITLES = {"tests": "The project's tests", "data": "The check of the data", "train": "Training",
          "evaluate": "The evaluation", "robustness": "Robustness", "compare": "The comparison",
          "register": "Registration", "staging": "Staging"}
NEW = "fails, and is new"  # the standing of a hard case that no registered model was tried on
MOST = 40  # lines of the data's findings, and rows of a table of differences


def page(found: RunFound) -> Page:
    """Everything, in the order in which it is asked for."""
    against, known = objections(found), knowledge(found)
    version = found.result("register").get("version")
    name = f"{found.project.model} version {version}" if version else f"{found.project.model}, not registered"
    if not against:
        verdict, tone = f"{name} may be released{_but(found)}.", "good"
    else:
        verdict, tone = f"{name} should not be released as it is: {_count(len(against), 'objection')}.", "bad"
    sections = [changed(found), writers.section(found), tested(found), data(found), training(found),
                *figures.sections(found), *operations.sections(found)]
    return Page(f"Evidence for {found.project.title or found.project.model}, run {found.run}",
                found.project.owner, verdict, _tone(tone), against, known, sections)


def _but(found: RunFound) -> str:
    """What a verdict must not pass over although it refuses nobody, else that everything passed."""
    failing = _failing(found)
    new = sum(bool(one.get("status") == NEW) for one in failing)
    known = len(failing) - new
    said = [f"{_count(known, 'hard case')} {'fails' if known == 1 else 'fail'} as before"] if known else []
    said += [f"{_count(new, 'new hard case')} {'fails' if new == 1 else 'fail'}"] if new else []
    if _unrivalled(found):
        said.append("there is no model in production to compare it with")
    return f"; {', and '.join(said)}" if said else ": every check that was made has passed"


def _failing(found: RunFound) -> list[Mapping[str, Any]]:
    """The hard cases that fail and refuse nobody."""
    return [case for case in _list(found.result("robustness").get("cases"))
            if not case.get("passed", True) and not case.get("refuses", True)]


def _unrivalled(found: RunFound) -> bool:
    return found.get("compare") is not None and not found.result("compare").get("champion")


def objections(found: RunFound) -> list[str]:
    """What speaks against a release, worst first: what failed, what is missing, what is pinned nowhere."""
    said = []
    for name in ORDER:
        stage = found.get(name)
        if stage is not None and not stage.passed:
            said.append(f"{TITLES[name]} did not pass: {stage.says or 'it does not say why'}")
    said += [f"{TITLES[name]} is missing: it has not run, or has left nothing." for name in ORDER
             if found.get(name) is None]
    compared = found.get("compare")
    if compared is not None and compared.passed:
        said += [f"The gate {gate.get('name')} did not pass: {gate.get('says')}"
                 for gate in _list(compared.result.get("gates")) if gate.get("passed") is False]
    return said


def knowledge(found: RunFound) -> list[str]:
    """What is no objection, and should be known before one approves: first what the verdict names."""
    said = [f"The hard case {case.get('id')} "
            f"{'is new, and fails' if case.get('status') == NEW else 'fails as before'}: {case.get('says')}"
            for case in _failing(found)]
    if _unrivalled(found):
        said.append("There is no model in production to compare with.")
    code = _mapping(_manifest(found).get("code"))
    if code.get("dirty"):
        said.append(f"The code has {_count(len(_plain_list(code.get('changed'))), 'uncommitted change')}; "
                    "the patch is kept with the run.")
    said += writers.knowledge(found)
    if found.project.environment.inherit:
        said.append("No lock pins the packages that it was trained with (environment.inherit).")
    suspicious = found.result("data").get("suspicious")
    if isinstance(suspicious, int) and suspicious:
        said.append(f"The data had {_count(suspicious, 'suspicious finding')}, which stand below.")
    if found.result("data").get("learned"):
        said.append("There were no expectations of the data yet: they were learned from this data, so it was "
                    "compared with nothing.")
    said += [str(note) for note in _plain_list(found.result("evaluate").get("notes"))]
    if found.project.release is None:
        said.append("The project says nothing of a release, so none can follow.")
    if found.result("register").get("already"):
        said.append("This very build was registered before; nothing was registered twice.")
    return said


def changed(found: RunFound) -> Section:
    """What this model was made of, and what of it is not as the champion's."""
    manifest = _manifest(found)
    if not manifest:
        return Section("What changed", [missing("register", "the manifest of this run")])
    code, lock = _mapping(manifest.get("code")), _mapping(manifest.get("lock"))
    source = _mapping(_mapping(manifest.get("data")).get("data"))
    rows = [["Commit", str(code.get("commit") or f"no repository; sources {short(code.get('sources'))}")],
            ["Uncommitted", ", ".join(map(str, _plain_list(code.get("changed")))) or "nothing"],
            ["Data", f"{source.get('uri', '–')}, {short(source.get('sha256') or source.get('version'))}"],
            ["Lock", short(lock.get("sha256"))], ["Seed", str(found.project.seed)]]
    blocks: list[Block] = [Table(["What", "Which"], rows)]
    params = sorted(found.project.train.params.items())
    if params:
        blocks.append(Table(["Parameter", "Value"], [[name, str(value)] for name, value in params]))
    return Section("What changed", [*blocks, *_since(found, manifest)])


def _since(found: RunFound, manifest: Mapping[str, Any]) -> list[Block]:
    register = found.get("register")
    champion = register.mapping("champion.json") if register is not None else {}
    if not champion:
        return [Text("What the champion was made of is not recorded, so nothing is set against it.")]
    unlike = [one for one in differences(dict(champion), dict(manifest)) if not one.path.startswith("run.")]
    if not unlike:
        return [Text("It was made of the same as the champion.")]
    rows = [[one.path, _cell(one.a), _cell(one.b)] for one in unlike[:MOST]]
    more = [Text(f"{len(unlike) - MOST} more fields differ.")] if len(unlike) > MOST else []
    return [Text("Against the model in production:"), Table(["Field", "Champion", "This one"], rows), *more]


def tested(found: RunFound) -> Section:
    stage = found.get("tests")
    if stage is None:
        return Section("Tests", [missing("tests", "the report of the project's tests")])
    return Section("Tests", [_said(stage.passed, stage.says)])


def data(found: RunFound) -> Section:
    """The rows, and each finding with what was expected and seen side by side."""
    stage = found.get("data")
    if stage is None:
        return Section("Data", [missing("data", "the check of the data")])
    blocks: list[Block] = [_said(stage.passed, stage.says)]
    counts = [[name, number(stage.result.get(key))] for name, key in
              (("Rows", "rows"), ("To learn from", "train"), ("Held out", "test"))]
    blocks.append(Table(["What", "Rows"], counts, 1))
    findings = [one for one in _plain_list(stage.read("findings.json")) if isinstance(one, dict)]
    lines: list[str] = []
    for one in findings:
        beside = [str(line) for line in _plain_list(one.get("beside"))]
        lines += [*(beside or [str(one.get("sentence", ""))]), ""]
    if lines:
        blocks.append(Lines(lines[:MOST * 4]))
    elif stage.read("findings.json") is None:
        blocks.append(missing("data", "the list of findings"))
    else:
        blocks.append(Text("Nothing in it was unexpected."))
    return Section("Data", blocks)


def training(found: RunFound) -> Section:
    """The last loss, how long it took, and the curve."""
    stage = found.get("train")
    if stage is None:
        return Section("Training", [missing("train", "everything of the training")])
    rows = [["Final loss", number(stage.result.get("loss"))],
            ["Seconds", number(stage.result.get("seconds"))],
            ["Peak memory, MB", number(stage.result.get("peak_mb"))]]
    blocks: list[Block] = [_said(stage.passed, stage.says), Table(["What", "Value"], rows, 1)]
    points, name = _curve(stage.lines("metrics.jsonl"))
    if len(points) > 1:
        said = (f"{name} by step: from {number(points[0][1])} to {number(points[-1][1])} over "
                f"{len(points):,} points.")
        blocks.append(Plot(partial(plots.curve, points, name), said))
    else:
        blocks.append(Text("Training left no curve."))
    return Section("Training", blocks)


def _curve(lines: list[Mapping[str, Any]]) -> tuple[list[tuple[float, float]], str]:
    """The loss by step, or the first other figure that is written by step."""
    names = {name for line in lines for name, value in line.items() if name != "step" and _number(value)}
    chosen = "loss" if "loss" in names else min(names, default="")
    points = [(float(line.get("step", at)), float(line[chosen])) for at, line in enumerate(lines)
              if _number(line.get(chosen)) and _number(line.get("step", at))]
    return points, chosen


def _said(passed: bool, says: str) -> Text:
    return Text(says or ("It passed." if passed else "It did not pass."), "good" if passed else "bad")


def _manifest(found: RunFound) -> Mapping[str, Any]:
    register = found.get("register")
    return register.mapping("manifest.json") if register is not None else {}


def _cell(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _tone(tone: str) -> Tone:
    return "good" if tone == "good" else "bad"


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _plain_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _list(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in _plain_list(value) if isinstance(one, dict)]
