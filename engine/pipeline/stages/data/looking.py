"""The order in which the data stage looks at things, and what it comes to."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from engine.pipeline import expectations as expected
from engine.pipeline.child import entries
from engine.pipeline.expectations.model import Column, Expectations, Finding
from engine.pipeline.expectations.source import Source, open_source
from engine.pipeline.project import columns as by_project
from engine.pipeline.project.model import Data, Project
from engine.pipeline.stages.contract import Done, Work
from engine.pipeline.stages.data import clock, labels, leaks, overlap, parts, scanning, writing
from engine.pipeline.stages.data.fetching import Fetched, fetch
from engine.pipeline.stages.data.naming import STAGE, counted, found, open_ones
from engine.pipeline.stages.data.opening import opened
from engine.pipeline.stages.data.scanning import Scan
from engine.pipeline.stages.data.writing import TEST, TRAIN, Split, Written

if TYPE_CHECKING:
    import numpy as np

LEARNED = "expectations.yaml"
MOST_TOLD = 20  # findings whose sentences go into the step's result


def look(work: Work, now: dt.datetime) -> Done:
    """See the package. `now` (UTC) is what times yet to come are told by."""
    with entries.scratch(work.output) as aside:  # what is kept of the rows are the two parts
        return _fetched(work, fetch(work, aside), now)


def _fetched(work: Work, fetched: Fetched, now: dt.datetime) -> Done:
    project = work.project
    (work.output / "dataset.json").write_bytes(msgspec.json.encode(fetched.dataset, order="sorted"))
    source = opened(fetched)
    name = fetched.name
    findings = scanning.columns(project, source, name)
    if findings:
        return _done(work, name, findings, None)
    work.say(f"reading {name}: {len(source.schema.names)} columns")
    made = scanning.scan(project, source)
    if not made.rows:
        return _done(work, name, [found("rows", "", f"{name} has columns and no rows.", hard=True,
                                        expected="rows", seen="none")], made)
    findings = labels.problems(made.label, made.labels, name, project.evaluate.classes)
    findings += scanning.of_rows(project, made, name, now)
    if any(one.kind == "time" and one.severity == "hard" for one in findings):
        return _done(work, name, findings, made)
    split, problems = parts.split(project, made, name)
    if split is None:
        return _done(work, name, findings + problems, made)
    return _looked(work, fetched, source, made, split, findings + problems)


def _looked(work: Work, fetched: Fetched, source: Source, made: Scan, split: Split,
            findings: list[Finding]) -> Done:
    """With both parts at hand."""
    import numpy as np

    project, name = work.project, fetched.name
    data = project.data
    if not any(one.kind == "label" and one.severity == "hard" for one in findings):
        findings += labels.of_parts(made.label, made.labels, split.train, split.held, name)
    if made.keys is not None:
        findings += overlap.of_keys(made.keys, split.train, split.held, data.key, name)
    if made.groups is not None and data.group is not None:
        findings += overlap.of_groups(made.groups, split.train, split.held, data.group, name, project.task,
                                      data.holdout.column is not None)
    features = by_project.features(data, source.schema.names)
    kept = by_project.kept(data, source.schema.names)
    compared = [*features, data.label]
    rng = np.random.default_rng(project.seed)
    work.say(f"writing {counted(int(split.train.sum()), 'row')} to train on and "
             f"{counted(int(split.held.sum()), 'row')} held out")
    sampled = _sampled(split, rng)
    written = writing.write(source, kept, compared, split, made.clock, sampled, work.output)
    findings += _of_values(project, written, features, made, sampled, name, rng)
    if not any(one.kind == "overlap" for one in findings):
        findings += overlap.of_rows(written.train, written.held, compared,
                                    lambda column: writing.column_hashes(work.output, column),
                                    written.sample, name)
    return _expected(work, source, made, split, features, kept, findings, name)


def _sampled(split: Split, rng: np.random.Generator) -> Any:
    import numpy as np

    rows = np.flatnonzero(split.train)
    if len(rows) > leaks.SAMPLE:
        rows = np.sort(rng.choice(rows, leaks.SAMPLE, replace=False))
    return rows


def _of_values(project: Project, written: Written, features: list[str], made: Scan, sampled: Any, name: str,
               rng: np.random.Generator) -> list[Finding]:
    label = project.data.label
    problems = leaks.leaks(written.sample, features, made.labels[sampled], project.task, label, name, rng)
    used = [one for one in written.clocks if one.column in features or one.column == project.data.time]
    return problems + clock.across(used, name) + [
        found("infinite", column, f"The column {column} of {name} is infinite in {counted(number, 'row')}.",
              hard=True, expected="finite numbers", seen=counted(number, "row"), measure="share of rows",
              effect=number / made.rows, rows=made.rows)
        for column, number in sorted(written.infinite.items()) if column != label]


def _expected(work: Work, source: Source, made: Scan, split: Split, features: list[str], kept: list[str],
              findings: list[Finding], name: str) -> Done:
    """Against what is expected; learned from the rows to train on where nothing is yet."""
    data = work.project.data
    path = work.folder / data.expectations
    learned = not path.exists()
    train = open_source(work.output / TRAIN).select(kept, typed=source.typed)
    if learned:
        work.say(f"learning what to expect from {counted(int(split.train.sum()), 'row')}")
        time = data.time if made.clock is not None and made.times is not None else None
        expectations = _of_names(expected.learn(train, keys=[data.key] if data.key else (),
                                                time_column=time), data, features)
        (work.output / LEARNED).write_text(expected.dumps(expectations), encoding="utf-8")
    else:
        expectations = expected.loads(path)
    work.say(f"checking {counted(made.rows, 'row')} against {'what was learned' if learned else path.name}")
    held = open_source(work.output / TEST).select(kept, typed=source.typed)
    against = expected.check(expectations, train.joined([held], train.schema), now=None)
    own = open_ones(_not_known(findings, expectations, learned), expectations)
    return _done(work, name, _together(own, _meant(against, work.project, source)), made, split, features,
                 learned=learned)


def _of_names(expectations: Expectations, data: Data, features: list[str]) -> Expectations:
    """Without ranges and shares of what only names a row or a group: new ones are no shift."""
    names = {*data.key, *([data.group] if data.group else [])} - {*features, data.label, *data.segments}
    columns = {name: Column(type=one.type, missing=one.missing) if name in names else one
               for name, one in expectations.columns.items()}
    return expectations.model_copy(update={"columns": columns, "correlations": [
        one for one in expectations.correlations if not names & set(one.columns)]})


def _not_known(findings: list[Finding], expectations: Expectations, learned: bool) -> list[Finding]:
    """Without infinities that the file on record expects."""
    if learned:
        return findings
    def on_record(one: Finding) -> bool:
        column = expectations.columns.get(one.column)
        return one.kind == "infinite" and column is not None and column.infinite is not None and (
            column.infinite.share > 0)

    return [one for one in findings if not on_record(one)]


def _meant(against: list[Finding], project: Project, source: Source) -> list[Finding]:
    """A column that the project file no longer uses is no finding; one that it names and that is new waits
    for a person, who has named it, rather than stops everything."""
    named = {name for name, _ in by_project.roles(project.data)}
    meant = []
    for one in against:
        if one.kind == "missing column" and one.column in source.schema.names:
            continue
        if one.kind == "new column" and one.column in named and one.severity == "hard":
            one = one.model_copy(update={"severity": "suspicious"})
        meant.append(one)
    return meant


def _together(own: list[Finding], against: list[Finding]) -> list[Finding]:
    """All findings, the hard ones first, and what both found once."""
    mine = {(one.kind, one.column) for one in own}
    mine |= {("key", one.column) for one in own if one.kind == "overlap"}
    missing = {one.column for one in own if one.kind in ("label", "group", "time") and one.severity == "hard"}
    rest = [one for one in against if (one.kind, one.column) not in mine
            and not (one.kind in ("missing values", "infinite") and one.column in missing)]
    return sorted([*own, *rest], key=lambda one: one.severity != "hard")


def _done(work: Work, name: str, findings: Sequence[Finding], made: Scan | None, split: Split | None = None,
          features: Sequence[str] = (), *, learned: bool = False) -> Done:
    """Write the findings, and say what it comes to."""
    told = [{**one.model_dump(mode="json"), "beside": expected.beside(one), "file": name} for one in findings]
    (work.output / "findings.json").write_text(json.dumps(told, indent=1, sort_keys=True, allow_nan=False))
    hard = [one for one in findings if one.severity == "hard"]
    suspicious = [one for one in findings if one.severity != "hard"]
    result: dict[str, Any] = {
        "rows": made.rows if made else 0, "train": int(split.train.sum()) if split else 0,
        "test": int(split.held.sum()) if split else 0, "hard": len(hard), "suspicious": len(suspicious),
        "learned": learned and not hard, "features": list(features),
        "beside": "\n\n".join("\n".join(expected.beside(one)) for one in suspicious),
        "expectations": work.project.data.expectations,
        "findings": [str(one) for one in findings[:MOST_TOLD]],
        "compared": [{"column": one.column, "what": one.kind, "expected": one.expected, "seen": one.seen,
                      "hard": one.severity == "hard"} for one in findings[:MOST_TOLD]]}
    evidence = ["findings.json", "dataset.json"]
    if learned:
        evidence.append(LEARNED)
    return Done(not hard, _says(name, made, split, hard, suspicious, learned), result, tuple(evidence))


def _says(name: str, made: Scan | None, split: Split | None, hard: list[Finding], suspicious: list[Finding],
          learned: bool) -> str:
    if hard:
        more = f" And {counted(len(hard) - 1, 'more problem')}: see findings.json." if len(hard) > 1 else ""
        return f"{name}, {STAGE}: {hard[0].sentence}{more}"
    assert made is not None and split is not None
    said = (f"{counted(made.rows, 'row')} of {name}: {int(split.train.sum()):,} to train on, "
            f"{int(split.held.sum()):,} held out")
    if suspicious:
        waits = "waits" if len(suspicious) == 1 else "wait"
        return f"{said}; {counted(len(suspicious), 'finding')} {waits} for a person: {suspicious[0].sentence}"
    return f"{said}; {'what to expect was learned from the first' if learned else 'all as expected'}."
