"""A production request becomes a hard case, out of a prediction log that a gateway has written."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from engine.cli.main import main
from engine.errors import UsageError
from engine.pipeline.robustness.case_adding import expectation
from engine.serving.prediction_log import Entry, LogSettings, PredictionLog
from tests.pipeline.project.written import project

AT = 1_764_000_000.0  # 2025-11-24T16:00:00Z


def request(correlation: str, *, late: float = 0.2, **columns) -> Entry:
    body = json.dumps({"inputs": {"distance": [700.5, 90.0], "carrier": ["UA", "DL"], "extra": [1, 2],
                                  **columns}}).encode()
    answer = json.dumps({"predictions": [{"probability": late}, {"probability": 0.7}]}).encode()
    return Entry(AT, correlation, "t", "champion", "6", 1, 0.004, 200, "", "application/json", body, answer)


def write(path: Path, entries: list[Entry], **settings) -> None:
    async def all_of_them() -> None:
        log = PredictionLog(LogSettings(path, **settings), "delays")
        for entry in entries:
            log.append(entry)
        await log.close()
    asyncio.run(all_of_them())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return project(tmp_path / "project")


def add(folder: Path, log: Path, correlation: str, *more: str) -> int:
    return main(["cases", "add", str(folder), "--correlation", correlation, "--log", str(log), "--title",
                 "A long flight", "--why", "scored 0.2, and it was late", "--expect",
                 "{kind: between, low: 0.5}", *more])


def test_a_request_is_found_and_becomes_a_case_that_is_listed(folder, tmp_path, capsys):
    log = tmp_path / "predictions.jsonl"
    write(log, [request("first"), request("4f1c9a"), request("4f1c9a-not-this")])
    assert add(folder, log, "4f1c9a") == 0
    said = capsys.readouterr().out
    assert "a-long-flight.yaml: request 4f1c9a to delays at 2025-11-24T16:00:00Z: champion version 6" in said
    assert main(["cases", "list", str(folder), "--json"]) == 0
    [case] = json.loads(capsys.readouterr().out)
    assert (case["id"], case["standing"], case["expect"]) == (
        "a-long-flight", "new", [{"kind": "between", "low": 0.5, "high": None, "of": 0}])
    import pyarrow.parquet as pq

    rows = pq.read_table(folder / "cases" / "a-long-flight.parquet")
    assert rows.to_pydict() == {"distance": [700.5, 90.0], "carrier": ["UA", "DL"]}  # what the model sees
    assert main(["cases", "list", str(folder)]) == 0
    assert "a-long-flight  new" in capsys.readouterr().out
    assert add(folder, log, "4f1c9a") == 1
    assert "there is a case a-long-flight already" in capsys.readouterr().err


def test_one_row_of_a_request_in_a_rotated_file_is_taken(folder, tmp_path, capsys):
    log = tmp_path / "predictions.jsonl"
    write(log, [request("old-one", late=0.3)])
    log.rename(tmp_path / "predictions.jsonl.20251124T160000Z")
    write(log, [request("newer")])
    assert add(folder, log, "old-one", "--row", "1", "--id", "short", "--must") == 0
    import pyarrow.parquet as pq

    assert pq.read_table(folder / "cases" / "short.parquet").to_pydict() == {"distance": [90.0],
                                                                             "carrier": ["DL"]}
    assert "must: true" in (folder / "cases" / "short.yaml").read_text()
    assert add(folder, log, "old-one", "--row", "5", "--id", "other") == 2
    assert "the request has no row 5" in capsys.readouterr().err


def test_of_requests_with_one_id_the_newest_is_taken_and_it_is_said(folder, tmp_path, capsys):
    log = tmp_path / "predictions.jsonl"
    write(log, [request("again", late=0.1), request("again", late=0.9)])
    assert add(folder, log, "again") == 0
    assert "2 requests had this id; the newest was taken" in capsys.readouterr().out
    assert "0.9" in (folder / "cases" / "a-long-flight.yaml").read_text()


@pytest.mark.parametrize("settings, said", [
    ({"fields": False}, "the log does not hold the input of this request: features are not kept"),
    ({"redact": ("carrier",)}, "the log holds 1 of the 2 columns that the model sees; there is no carrier"),
    ({"redact": ("hash:carrier",)}, "the log holds the column carrier hashed, not as it was sent")])
def test_what_the_log_was_told_not_to_keep_is_said(folder, tmp_path, capsys, settings, said):
    log = tmp_path / "predictions.jsonl"
    write(log, [request("kept")], **settings)
    assert add(folder, log, "kept") == 2
    assert said in capsys.readouterr().err and not (folder / "cases").exists()


def test_a_request_that_is_not_there_tells_how_far_back_the_log_goes(folder, tmp_path, capsys):
    log = tmp_path / "predictions.jsonl"
    write(log, [request("first")])
    assert add(folder, log, "nowhere") == 2
    said = capsys.readouterr().err
    assert "no request with the id nowhere" in said and "2025-11-24 16:00:00Z" in said
    assert add(folder, tmp_path / "none.jsonl", "nowhere") == 2
    assert "there is no prediction log at" in capsys.readouterr().err


def test_without_a_log_named_the_one_of_the_service_in_the_config_is_read(folder, tmp_path, capsys):
    home, log = tmp_path / "home", tmp_path / "predictions.jsonl"
    home.mkdir()
    write(log, [request("first")])
    words = ["--home", str(home), "cases", "add", str(folder), "--correlation", "first", "--title", "x",
             "--why", "y", "--expect", "{kind: called, as: 1}"]
    assert main(words) == 2 and "names no prediction log of the service delays" in capsys.readouterr().err
    (home / "opsdeck.yaml").write_text(
        f"services:\n  delays:\n    outcomes: {{predictions: {log}, labels: {tmp_path}/labels.jsonl}}\n")
    assert main(words) == 0, capsys.readouterr().err


def test_a_project_may_be_named_as_the_config_names_it(folder, tmp_path, capsys):
    home, log = tmp_path / "home", tmp_path / "predictions.jsonl"
    home.mkdir()
    (home / "opsdeck.yaml").write_text(f"pipelines:\n  projects:\n    delays: {folder}\n")
    write(log, [request("first")])
    words = ["--home", str(home), "cases", "add", "delays", "--correlation", "first", "--title", "Named",
             "--why", "y", "--expect", "{kind: called, as: 1}", "--log", str(log)]
    assert main(words) == 0
    assert "warning" not in capsys.readouterr().out and (folder / "cases" / "named.yaml").exists()
    assert main(["--home", str(home), "cases", "list", "delay"]) == 2
    assert "no project 'delay'" in (said := capsys.readouterr().err) and "did you mean delays?" in said


def test_a_case_in_a_copy_that_the_engine_does_not_build_is_warned_of(folder, tmp_path, capsys):
    home, log, copy = tmp_path / "home", tmp_path / "predictions.jsonl", project(tmp_path / "copy")
    home.mkdir()
    (home / "opsdeck.yaml").write_text(f"pipelines:\n  projects:\n    delays: {copy}\n")
    write(log, [request("first")])
    assert main(["--home", str(home), "cases", "add", str(folder), "--correlation", "first", "--title", "T",
                 "--why", "y", "--expect", "{kind: called, as: 1}", "--log", str(log)]) == 0
    assert f"the engine builds delays from {copy}, another folder" in capsys.readouterr().out


def test_where_an_id_is_found_is_said_with_those_of_the_latest_requests(folder, tmp_path, capsys):
    log = tmp_path / "predictions.jsonl"
    write(log, [request(f"request-{number}") for number in range(9)])
    assert main(["cases", "add", str(folder), "--log", str(log)]) == 2
    said = capsys.readouterr().err
    assert str(log) in said and "x-correlation-id" in said and "correlation_id" in said
    assert [f"request-{number} to delays" in said for number in (3, 4, 8)] == [False, True, True]
    assert main(["cases", "add", str(folder), "--log", str(log), "--correlation", "request-1"]) == 2
    assert "write --expect" in capsys.readouterr().err


def test_an_expectation_of_no_kind_is_told_the_kinds_that_there_are():
    with pytest.raises(UsageError) as refused:
        expectation("{low: 0.7}")
    assert "its `kind` is between, near, called, invariant, directional" in str(refused.value.hint)


def test_an_expectation_that_is_none_is_refused_with_an_example(folder, tmp_path, capsys):
    log = tmp_path / "predictions.jsonl"
    write(log, [request("first")])
    assert main(["cases", "add", str(folder), "--correlation", "first", "--log", str(log), "--title", "x",
                 "--why", "y", "--expect", "above 0.5"]) == 2
    assert "kind: between" in capsys.readouterr().err
