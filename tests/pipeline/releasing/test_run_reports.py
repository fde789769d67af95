"""What CI gets of a run: Markdown for a pull request, JUnit for its gates, and the page of evidence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from engine.api import wire
from engine.cli.main import main
from engine.pipeline import summary
from engine.pipeline.building import places
from tests.pipeline.releasing.built import settings
from tests.pipeline.releasing.test_page import HOSTILE, RELEASE, whole

DOCUMENT = """opsdeck: 1
id: judged
title: "A run | with *gates*"
kind: runbook
owner: tests
reviewed: 2026-11-20
steps:
  - id: compare
    title: Compare
    shell: |
      echo '{"says": "One gate did not pass.", "metrics": {"rmse": {"value": 4.2, "low": 3.9, "high": 4.6}},
        "gates": [{"name": "no worse", "passed": true, "says": "shown"},
                  {"name": "fast <b>", "passed": false, "says": "7 ms"}]}'
    irreversible: test
    effect: none
  - {id: fail, title: Fail, shell: "exit 3", irreversible: test, effect: none}
  - {id: never, title: Never, shell: "true", irreversible: test, effect: none}
"""


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    root = tmp_path_factory.mktemp("reported")
    (root / "judged.yaml").write_text(DOCUMENT)
    code = main(["--home", str(root / "home"), "run", str(root / "judged.yaml"), "--embedded", "--json",
                 "--summary", str(root / "summary.md"), "--junit", str(root / "junit.xml")])
    return code, root


def test_a_run_in_ci_leaves_a_summary_with_its_gates_and_the_reason(reported: tuple[int, Path]) -> None:
    code, root = reported
    text = (root / "summary.md").read_text()
    assert code == 1
    assert text.startswith("## ✘ A run \\| with \\*gates\\*: failed\n")
    assert "| no worse | ✔ passed | shown |" in text and "| fast \\<b\\> | ✘ not passed | 7 ms |" in text
    assert "| rmse | 4.2 | 3.9 to 4.6 |" in text and "| Fail | ✘ failed | it exited with 3 |" in text
    assert "One gate did not pass." in text


def test_junit_has_a_case_for_each_step_that_began_and_each_gate(reported: tuple[int, Path]) -> None:
    suite = ElementTree.parse(reported[1] / "junit.xml").getroot()
    cases = {case.attrib["name"]: case.find("failure") for case in suite}
    assert set(cases) == {"Compare", "Fail", "no worse", "fast <b>"}
    assert [name for name, failure in cases.items() if failure is not None] == ["Fail", "fast <b>"]
    assert suite.attrib["failures"] == "2"


def test_reports_that_could_not_be_written_are_said_before_anything_runs(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "judged.yaml").write_text(DOCUMENT)
    run = ["--home", str(tmp_path / "home"), "run", str(tmp_path / "judged.yaml"), "--embedded"]
    assert main([*run, "--summary", str(tmp_path / "nowhere" / "s.md")]) == 2
    assert "there is no such folder" in capsys.readouterr().err
    assert main([*run, "--dry-run", "--junit", str(tmp_path / "j.xml")]) == 2
    assert not (tmp_path / "home" / "journal.db").exists()


def test_a_hostile_result_breaks_neither_report() -> None:
    step = wire.StepView(id="a", title=HOSTILE, state="done", attempt=1, exit_code=0, stdout="", by=None,
                         result={"gates": [{"name": HOSTILE, "says": "\x00\ud800", "passed": False}, 3, None],
                                 "metrics": {"x": {"value": None}, "y": 3}, "says": 7},
                         started=1.0, ended=2.5)
    run = wire.RunView(id="1", procedure="p", state="waiting", steps=[step], title=HOSTILE, by="ann",
                       started=1.0, ended=None, at=2.0, params={"a": HOSTILE}, service=None, revision=1,
                       unisolated=True, review=None, next="run 1 waits", document_sha256="0")
    lines = summary.markdown(run).splitlines()
    assert [line for line in lines if line.startswith("#")] == [lines[0]] and "run 1 waits" in lines
    assert all(line.count("|") - line.count("\\|") in (0, 4, 5) for line in lines)
    assert len(ElementTree.fromstring(summary.gates_junit(run))) == 2


def test_what_is_suspicious_in_the_data_is_a_table_of_expected_and_found() -> None:
    told = [{"column": "price", "what": "distribution", "expected": "a median of 5", "seen": "one of 9",
             "hard": False},
            {"column": "city|town", "what": "categories", "expected": "Bern", "seen": "Rome", "hard": True}]
    data = wire.StepView(id="data", title="Data", state="done", attempt=1, exit_code=0, stdout="", by=None,
                         result={"suspicious": 2, "compared": [*told, 3]}, started=1.0, ended=2.5)
    run = wire.RunView(id="1", procedure="p", state="waiting", steps=[data], title="Train", by="ann",
                       started=1.0, ended=None, at=2.0, params={}, service=None, revision=1, unisolated=True,
                       review=None, document_sha256="0",
                       next="The data is not as expected in 2 points:\nprice moved\nexpected   seen\n5  9\n")
    text = summary.markdown(run)
    assert "| price | distribution | a median of 5 | one of 9 |" in text
    assert "| city\\|town | categories, hard | Bern | Rome |" in text
    assert "The data is not as expected in 2 points:\n" in text and "price moved" not in text


def test_the_evidence_of_a_run_is_printed_and_written_as_html(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from engine.cli import pipeline_evidence

    at = places.make(tmp_path, "late-flights")
    whole(at.root)
    handed = {"project": settings(release=RELEASE)}
    (at.root / "runs" / "7" / ".planned.page.1").write_text(json.dumps(handed))

    def evidence(run: str, **more: Any) -> int:
        from argparse import Namespace

        from engine import home as homes

        return pipeline_evidence.run(Namespace(home=homes.at(tmp_path), run=run, html=None, **more))

    assert evidence("7") == 0
    assert "late version 4 may be released" in capsys.readouterr().out
    with pytest.raises(Exception, match="no evidence of a run 8"):
        evidence("8")


def test_a_step_that_waits_for_a_person_is_not_green_for_ci() -> None:
    gate = wire.Gate("answer", "d", "Is it right?", since=1.0)
    step = wire.StepView(id="review", title="Look at it", state="waiting", attempt=0, exit_code=None,
                         stdout="", by=None, result=None, started=None, ended=None, gate=gate)
    run = wire.RunView(id="1", procedure="p", state="waiting", steps=[step], title="P", by="ann", started=1.0,
                       ended=None, at=2.0, params={}, service=None, revision=1, unisolated=True, review=None,
                       next="answer review", document_sha256="0")
    (case,) = ElementTree.fromstring(summary.gates_junit(run))
    failure = case.find("failure")
    assert failure is not None and failure.get("message") == "it waits for a person: Is it right?"
