"""The page says first whether a model may be released, says what is missing, and cannot do harm."""

from __future__ import annotations

import html
import html.parser
import json
import shutil
from pathlib import Path
from typing import Any

import markdown_it
import numpy as np
import pytest

from engine.journal.events import SYSTEM
from engine.pipeline.building.places import Places
from engine.pipeline.project.model import Project
from engine.pipeline.stages import page as stage
from engine.pipeline.stages.page import rendering
from engine.pipeline.stages.page.content import page
from engine.pipeline.stages.page.found import ORDER, gather
from engine.procedures.authors import resolve
from tests.pipeline.releasing.built import settings

HOSTILE = ("<script>alert(1)</script>|`x` [a](javascript:b)\n# no\u202e\x1b[31m **b** ![i](http://x/y.png)"
           " $x^2$ ~~~")
RELEASE = {"service": "flights", "folder": "models/challenger", "process": "challenger"}
METRIC = {"metric": "rmse", "better": "lower", "value": 4.2, "low": 3.9, "high": 4.6}
MANIFEST = {"format": 1, "code": {"commit": "c" * 40, "dirty": None, "changed": []},
            "lock": {"sha256": "1" * 64}, "data": {"data": {"uri": "data", "sha256": "2" * 64}},
            "config": {"train": {"params": {"rate": 0.1}}}}


class Tags(html.parser.HTMLParser):
    """Every tag of a page, with its attributes, and all that is text."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def write(folder: Path, name: str, result: dict[str, Any], *, passed: bool = True, says: str = "It passed.",
          files: dict[str, Any] | None = None) -> Path:
    """One stage of run 7, as the engine writes it down."""
    output = folder / "stages" / name / "key" / "output"
    output.mkdir(parents=True, exist_ok=True)
    for file, value in (files or {}).items():
        (output / file).write_text(value if isinstance(value, str) else json.dumps(value))
    (folder / "runs" / "7").mkdir(parents=True, exist_ok=True)
    (folder / "runs" / "7" / f"{name}.json").write_text(json.dumps({
        "stage": name, "key": "key", "cached": False, "passed": passed, "says": says, "result": result,
        "output": str(output)}))
    return output


def whole(folder: Path, text: str = "north") -> Project:
    """A run with everything; `text` wherever a project's own words go."""
    write(folder, "tests", {"tests": 3})
    write(folder, "data", {"rows": 100, "train": 80, "test": 20, "suspicious": 1}, says=text, files={
        "findings.json": [{"sentence": text, "beside": [f"expected {text}", "seen 3"]}]})
    write(folder, "train", {"loss": 0.4, "seconds": 3.0}, files={
        "metrics.jsonl": '{"step": 1, "loss": 0.9}\nnot json\n{"step": 2, "loss": 0.4}\n'})
    figures = {"metrics": {"rmse": METRIC}, "p99_ms": 1.5, "model_bytes": 2_000_000}
    output = write(folder, "evaluate", figures, files={
        "evaluation.json": {
            "metrics": [METRIC], "latency": [{"batch": 1, "p50_ms": 1.0, "p95_ms": 1.2, "p99_ms": 1.5}],
            "segments": [{"name": text, "rows": 40, "small": False, "metrics": [METRIC]}],
            "calibration": {"says": "It says what happens.", "bins": [
                {"low": 0.0, "high": 0.5, "rows": 40, "said": 0.2, "seen": 0.25, "interval": [0.1, 0.4]}]}}})
    np.savez(output / "latencies.npz", b1=np.linspace(1, 2, 50), b16=np.linspace(3, 5, 50))
    write(folder, "robustness", {"cases": [{"id": "storm", "status": "passed", "says": text, "passed": True,
                                            "refuses": False}]})
    write(folder, "compare", {"champion": {"version": "3"}, "gates": [
        {"name": text, "passed": True, "status": "passed", "says": "no worse"}]}, files={
        "comparison.json": {"verdict": {"comparisons": [
            {"metric": "rmse", "segment": None, "champion": 4.4, "gain": 0.2, "low": 0.1, "high": 0.3},
            {"metric": "rmse", "segment": text, "champion": 4.7, "gain": 0.5, "low": 0.1, "high": 0.9},
            {"metric": "mae", "segment": text, "champion": 99.0, "gain": 0.1, "low": 0.0, "high": 0.2}]}}})
    write(folder, "register", {"version": "4", "manifest_sha256": "3" * 64, "payload": "4" * 64}, files={
        "manifest.json": MANIFEST,
        "champion.json": {**MANIFEST, "config": {"train": {"params": {"rate": 0.2}}}}})
    write(folder, "staging", {"checks": 2, "failed": 0}, files={"checks.json": [
        {"name": "latency", "expected": "p99 at most 100 ms", "seen": "p99 3 ms", "passed": True}]})
    return Project.model_validate(settings(title=text, release=RELEASE))


def test_everything_is_on_the_page_with_the_verdict_first(tmp_path: Path) -> None:
    made = page(gather(Places(tmp_path), "7", whole(tmp_path)))
    assert made.verdict == "late version 4 may be released: every check that was made has passed."
    text = rendering.markdown(made)
    lines = [line for line in text.splitlines() if line]
    assert lines[1] == "**✔ late version 4 may be released: every check that was made has passed.**"
    for part in ("config.train.params.rate | 0.2 | 0.1", "c" * 40, "expected north", "4.2", "3.9 to 4.6",
                 "4.4", "+0.2", "storm", "p99 3 ms", "1 suspicious finding", "release/late-4",
                 "opsdeck rollout undo flights", "333333333333", "It says what happens.",
                 "loss by step: from 0.9 to 0.4 over 2 points"):
        assert part in text.replace("\\", ""), part
    shown = Tags()
    shown.feed(rendering.html(made))
    assert sum(tag == "svg" for tag, _ in shown.found) == 5
    assert "late version 4 may be released" in shown.text.split("To be known")[0]


def test_the_page_says_who_wrote_it_and_whom_nobody_here_knows(tmp_path: Path) -> None:
    project = whole(tmp_path)
    told = {"commit": "c" * 40, "commits": 2, "uncommitted": 1, "missing": "it is shallow", "people": [
        {"name": "Alice", "email": "a@example.org", "commits": 2, "last": "d" * 40},
        {"name": f"X {HOSTILE}", "email": "x@example.net", "commits": 1, "last": "e" * 40}]}
    authors = resolve([told], people={"alice": ["a@example.org"]}, known=["alice", "bob"], initiator=SYSTEM)
    made = page(gather(Places(tmp_path), "7", project, authors))
    text = rendering.markdown(made).replace("\\", "")
    assert "| Alice <a@example.org> | alice | 2 | dddddddddddd |" in html.unescape(text)
    assert any(one.startswith("It was written by X <script>") and one.endswith(
        "<x@example.net>, who is no user of this engine as far as its config tells.") for one in made.known)
    assert not any("Alice" in one for one in made.known) and "It is shallow." in made.known
    assert "1 uncommitted change, which nobody knows whose it is." in text
    assert made.verdict.endswith("every check that was made has passed."), "a stranger is no objection"
    shown = Tags()
    shown.feed(rendering.html(made))
    assert "script" not in {tag for tag, _ in shown.found}
    write(tmp_path, "register", {"version": "4", "written_by": told})
    untold = rendering.markdown(page(gather(Places(tmp_path), "7", project))).replace("\\", "")
    assert "| Alice <a@example.org> | – | 2 |" in html.unescape(untold) and "no user of this" not in untold


def test_the_same_run_gives_the_same_bytes_without_a_date_or_an_address_to_fetch(tmp_path: Path) -> None:
    project = whole(tmp_path)
    one, other = (rendering.html(page(gather(Places(tmp_path), "7", project))) for _ in range(2))
    assert one == other
    shown = Tags()
    shown.feed(one)
    assert {tag for tag, _ in shown.found} & {"script", "link", "img", "iframe", "image", "object"} == set()
    addresses = [value for _, attributes in shown.found for name, value in attributes.items()
                 if name in ("src", "href", "xlink:href") and not str(value).startswith("#")]
    assert addresses == [] and "default-src 'none'" in one and "@import" not in one and "url(h" not in one
    assert "<dc:date>" not in one and "matplotlib.org" not in one


def test_markup_in_a_projects_words_is_text_in_both(tmp_path: Path) -> None:
    made = page(gather(Places(tmp_path), "7", whole(tmp_path, HOSTILE)))
    shown = Tags()
    shown.feed(rendering.html(made))
    assert {tag for tag, _ in shown.found} & {"script", "a", "img", "b"} == set()
    assert "<script>alert(1)</script>" in shown.text
    assert not {"\u202e", "\x1b"} & {*shown.text, *rendering.markdown(made)}
    read = Tags()
    read.feed(markdown_it.MarkdownIt("commonmark", {"html": True}).enable("table").render(
        rendering.markdown(made)))
    tags = [tag for tag, _ in read.found]
    assert set(tags) <= {"h1", "h2", "p", "strong", "em", "ul", "li", "table", "thead", "tbody",
                         "tr", "th", "td", "pre", "code"}
    assert tags.count("h1") == 1 and tags.count("h2") == len(made.sections) and tags.count("strong") == 1
    assert tags.count("code") == 1 and "[a](javascript:b)" in read.text


@pytest.mark.parametrize("stage_name", ORDER)
def test_what_a_stage_has_not_left_is_said_to_be_missing_and_speaks_against_it(
        tmp_path: Path, stage_name: str) -> None:
    project = whole(tmp_path)
    (tmp_path / "runs" / "7" / f"{stage_name}.json").unlink()
    made = page(gather(Places(tmp_path), "7", project))
    assert "should not be released" in made.verdict and made.tone == "bad"
    assert any("is missing" in one for one in made.against)
    assert "is missing" in rendering.markdown(made)


def test_a_stage_that_failed_is_found_with_what_it_says_and_damaged_files_are_no_reason_to_break(
        tmp_path: Path) -> None:
    project = whole(tmp_path)
    (tmp_path / "runs" / "7" / "compare.json").unlink()
    for attempt in (1, 2, 10):
        failed = tmp_path / "failed" / f"7.compare.{attempt}"
        (failed / "output").mkdir(parents=True)
        (failed / "record.json").write_text(json.dumps({"says": f"attempt {attempt} is worse", "result": {}}))
    evaluate = tmp_path / "stages" / "evaluate" / "key" / "output"
    (evaluate / "latencies.npz").write_bytes(b"PK damaged")
    (evaluate / "evaluation.json").write_text('{"metrics": [{"metric": null}, 3, {"value": "x"}]')
    shutil.rmtree(tmp_path / "stages" / "staging")
    made = page(gather(Places(tmp_path), "7", project))
    assert made.against[0] == "The comparison did not pass: attempt 10 is worse"
    text = rendering.markdown(made)
    assert "Missing: the list of its checks" in text and rendering.html(made)


def test_the_stage_writes_both_and_tells_where(tmp_path: Path) -> None:
    from tests.pipeline.releasing.built import Built

    home = tmp_path / "home"
    project = whole(home / "pipelines" / "late-flights")
    (tmp_path / "stages").mkdir()
    done = stage.run(Built(tmp_path, project, {}).work("page"))
    assert done.passed and done.evidence == ("evidence.md", "evidence.html") and done.result["against"] == []
    assert Path(done.result["page"]).read_text().startswith("# Evidence for north, run 7")
    assert "<svg" in Path(done.result["html"]).read_text()


def test_the_champion_of_a_segment_is_shown_by_the_metric_that_ranks_it(tmp_path: Path) -> None:
    project = whole(tmp_path)
    shown = rendering.markdown(page(gather(Places(tmp_path), "7", project)))
    row = next(line for line in shown.splitlines() if line.startswith("| north | 40 |"))
    assert row.endswith("| 4.7 |")


def test_the_verdict_says_what_fails_although_it_refuses_nobody(tmp_path: Path) -> None:
    project = whole(tmp_path)
    failing = {"passed": False, "refuses": False, "says": "Scores are low."}
    write(tmp_path, "robustness", {"cases": [
        {**failing, "id": "gale", "status": "known to fail"},
        {**failing, "id": "fog", "status": "known to fail"},
        {**failing, "id": "ice", "status": "fails, and is new"}]})
    made = page(gather(Places(tmp_path), "7", project))
    assert made.verdict == ("late version 4 may be released; 2 hard cases fail as before, "
                            "and 1 new hard case fails.")
    assert made.known[:3] == ["The hard case gale fails as before: Scores are low.",
                              "The hard case fog fails as before: Scores are low.",
                              "The hard case ice is new, and fails: Scores are low."]
    write(tmp_path, "compare", {"champion": None, "gates": []})
    made = page(gather(Places(tmp_path), "7", project))
    assert made.verdict.endswith("and there is no model in production to compare it with.")


def test_a_verdict_and_a_number_are_never_broken_and_a_wide_table_moves_in_a_box_of_its_own(
        tmp_path: Path) -> None:
    shown = rendering.html(page(gather(Places(tmp_path), "7", whole(tmp_path))))
    assert "anywhere" not in shown and '<td class="w">passed</td>' in shown
    assert shown.count("<table>") == shown.count('<div class="table"') > 5


def test_intervals_that_no_bin_has_are_no_column(tmp_path: Path) -> None:
    project = whole(tmp_path)
    assert "| Scores | Rows | Predicted | Seen | Interval |" in rendering.markdown(
        page(gather(Places(tmp_path), "7", project)))
    path = tmp_path / "stages" / "evaluate" / "key" / "output" / "evaluation.json"
    told = json.loads(path.read_text())
    told["calibration"]["bins"][0]["interval"] = None
    path.write_text(json.dumps(told))
    text = rendering.markdown(page(gather(Places(tmp_path), "7", project)))
    assert "| Scores | Rows | Predicted | Seen |\n" in text
