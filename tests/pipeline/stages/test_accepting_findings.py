"""What is suspicious is accepted into the project's expectations by name and reason, and then is quiet."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.actions import pipeline_accept
from engine.actions.pipeline_accept import Acceptance
from engine.config import Config
from engine.errors import ActionFailed, Conflict, NotFound, UsageError
from engine.home import find
from engine.pipeline.building import places
from engine.pipeline.expectations import loads
from engine.pipeline.stages import main
from engine.procedures.actions import Context
from tests.pipeline.stages.working import table

PROJECT = """\
opsdeck: 1
project: p
model: p
task: binary
owner: o
environment: {inherit: true}
code: ["*.py"]
data: {source: {path: rows.parquet}, label: y, holdout: {share: 0.2}}
tests: {paths: [train.py]}
train: {entry: {function: "train:main"}}
gates: [{kind: memory, at_most_mb: 100}]
"""
COPIED = 300


class Site:
    """A project beside an engine's home, and the data stage of its runs as the engine runs it."""

    def __init__(self, tmp: Path) -> None:
        self.home, self.folder = find(tmp / "home"), tmp / "p"
        self.home.path.mkdir()
        self.folder.mkdir()
        self.path = self.folder / "expectations.yaml"
        (self.folder / "opsdeck.pipeline.yaml").write_text(PROJECT)
        (self.folder / "train.py").write_text("def main(inputs, output, params): ...\n")
        self.rows(COPIED)

    def rows(self, copied: int) -> None:
        rows = table()
        pq.write_table(pa.concat_tables([rows, rows.slice(0, copied)]), self.folder / "rows.parquet")

    def data(self, run: str) -> dict[str, Any]:
        """Run the stage; what is noted of it."""
        main.main(["data", "--project", "p", "--folder", str(self.folder), "--home", str(self.home.path),
                   "--run", run, "--step", "data", "--attempt", "1"])
        noted = places.of(self.home.path, "p").result(run, "data")
        assert noted is not None
        return noted

    def accept(self, run: str, **params: str) -> dict[str, Any]:
        config = Config.model_validate({"pipelines": {"projects": {"p": str(self.folder)}}})
        nothing: Any = None
        context = Context(run=run, step="accept", attempt=1, router=nothing, supervisor=nothing,
                          signals=nothing, secrets={}, log=lambda line: None, clock=lambda: 1_795_500_000.0,
                          sleep=nothing, extra={"home": self.home, "config": config})
        (action,) = pipeline_accept.ACTIONS
        assert action.run is not None and action.preview is not None
        asyncio.run(action.preview(context, Acceptance(project="p", **params)))
        return asyncio.run(action.run(context, Acceptance(project="p", **params)))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_what_is_accepted_is_quiet_in_the_next_run_and_trains_nothing_anew(site: Site) -> None:
    first = site.data("1")
    assert first["passed"] and first["result"]["suspicious"] == 1 and first["result"]["learned"]
    told = site.accept("1", by="anna", reason="the partner sends them twice")
    assert told["changed"] and told["accepted"] == 1
    known = loads(site.path).known["overlap: every column"]
    assert known.accepted is not None and known.accepted.by == "anna"
    assert known.accepted.reason == "the partner sends them twice"
    assert known.accepted.at.startswith("2026-11-")
    second = site.data("2")
    assert second["result"]["findings"] == [] and not second["cached"] and second["key"] != first["key"]
    from engine.pipeline.building.fields import of
    from engine.pipeline.building.memo import Memo
    from engine.pipeline.project.reading import read
    from engine.pipeline.stages.table import STAGES

    at = places.of(site.home.path, "p")
    digests = []
    for noted in (first, second):
        record = places.read_json(Path(noted["output"]).parent / "record.json")
        assert record is not None
        outputs = {name: one["sha256"] for name, one in record["outputs"].items()}
        fields, _ = of(STAGES["train"], read(site.folder), site.folder, Memo(at.memo), {"data": outputs})
        digests.append(fields["inputs"])
    assert digests[0] == digests[1]


def test_what_was_learned_and_has_nothing_suspicious_is_put_in_place_without_a_person(site: Site) -> None:
    site.rows(0)
    first = site.data("1")
    told = site.accept("1")
    assert told["changed"] and told["learned"] and told["accepted"] == 0
    assert site.path.read_bytes() == (Path(first["output"]) / "expectations.yaml").read_bytes()
    assert site.accept("1")["changed"] is False
    second = site.data("2")
    assert second["result"]["findings"] == [] and second["cached"] and second["key"] == first["key"]
    assert site.accept("2")["changed"] is False


def test_expectations_that_differ_from_what_was_learned_are_checked_anew(site: Site) -> None:
    site.rows(0)
    first = site.data("1")
    site.accept("1")
    site.path.write_bytes(site.path.read_bytes() + b"# looked at\n")
    edited = site.data("2")
    assert not edited["cached"] and edited["key"] != first["key"] and not edited["result"]["learned"]
    pq.write_table(table(seed=5), site.folder / "rows.parquet")
    assert not site.data("3")["cached"]


def test_what_was_learned_beside_a_finding_is_checked_anew_until_that_is_accepted(site: Site) -> None:
    first = site.data("1")
    site.path.write_bytes((Path(first["output"]) / "expectations.yaml").read_bytes())
    again = site.data("2")
    assert not again["cached"] and again["result"]["suspicious"] == 1
    assert site.accept("2", by="anna", reason="known")["changed"]


def test_a_second_attempt_changes_nothing(site: Site) -> None:
    site.data("1")
    site.accept("1", by="anna", reason="known")
    before = site.path.read_bytes()
    assert site.accept("1", by="anna", reason="known")["changed"] is False
    assert site.path.read_bytes() == before


def test_nothing_is_accepted_by_nobody_or_for_nothing(site: Site) -> None:
    site.data("1")
    for by, reason in (("", "known"), ("anna", " ")):
        with pytest.raises(UsageError):
            site.accept("1", by=by, reason=reason)
    assert not site.path.exists()


def test_expectations_that_changed_since_are_left_alone(site: Site) -> None:
    site.data("1")
    site.path.write_text("someone else's\n")
    with pytest.raises(Conflict, match="changed since the data was checked"):
        site.accept("1", by="anna", reason="known")
    assert site.path.read_text() == "someone else's\n"


def test_a_run_without_a_data_stage_has_nothing_to_accept(site: Site) -> None:
    site.data("1")
    with pytest.raises(NotFound):
        site.accept("7", by="anna", reason="known")


def test_a_link_in_place_of_the_findings_is_not_followed(site: Site, tmp_path: Path) -> None:
    output = Path(site.data("1")["output"])
    (output / "findings.json").rename(tmp_path / "elsewhere.json")
    (output / "findings.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(ActionFailed, match="cannot be read"):
        site.accept("1", by="anna", reason="known")


def test_refused_data_leaves_nothing_to_train_on(site: Site) -> None:
    pq.write_table(table(y=[1] * 2000), site.folder / "rows.parquet")
    noted = site.data("1")
    assert not noted["passed"] and "one class only" in noted["says"]
    assert not list((site.home.path / "pipelines" / "p" / "stages").glob("data/*"))


def test_of_two_first_runs_the_second_does_not_pass_for_what_the_first_has_learned(site: Site) -> None:
    site.rows(0)
    site.data("1")
    rows = table()
    pq.write_table(rows.slice(0, len(rows) // 2), site.folder / "rows.parquet")
    site.data("2")
    site.accept("1")
    kept = site.path.read_bytes()
    with pytest.raises(Conflict, match="changed since the data was checked"):
        site.accept("2")
    assert site.path.read_bytes() == kept
