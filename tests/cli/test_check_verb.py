"""`opsdeck check PATH…` prints every problem of every file and says with its exit whether to go on."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from engine.cli import check

GOOD = '''\
opsdeck: 1
id: {id}
title: Say hello
kind: runbook
owner: ml-platform
reviewed: {reviewed}
steps:
  - {{id: hello, title: Say hello, shell: ["echo", "hello"], effect: none}}
'''


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    check.configure(parser)
    return check.run(parser.parse_args(list(words)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for id, reviewed in (("one", "2999-01-01"), ("two", "2020-01-01")):
        (tmp_path / f"{id}.yaml").write_text(GOOD.format(id=id, reviewed=reviewed))
    return tmp_path


def test_warnings_alone_end_with_zero(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(folder)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "2 procedures checked: 2 warnings"
    assert any(line.startswith(f"{folder}/two.yaml:6: warning: reviewed 2020-01-01") for line in lines)


def test_errors_end_with_two_and_name_file_line_and_hint(
        folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "two.yaml").write_text(GOOD.format(id="two", reviewed="2999-01-01").replace(
        "effect: none", "efect: none"))
    (folder / "three.yaml").write_text("opsdeck: [")
    assert run(str(folder)) == 2
    out = capsys.readouterr().out
    assert f"{folder}/two.yaml:8: unknown key `efect`\n  did you mean `effect`?" in out
    assert f"{folder}/three.yaml:1: " in out
    assert out.splitlines()[-1].startswith("3 procedures checked: 2 errors")


def test_a_path_that_is_not_there_is_an_error_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("/nowhere/at/all.yaml") == 2
    assert "/nowhere/at/all.yaml: there is no such file" in capsys.readouterr().out


def test_json_carries_the_same_problems(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(folder / "two.yaml"), "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["procedures"], said["errors"], said["warnings"]) == (1, 0, 1 + 0)
    assert said["problems"][0]["level"] == "warning" and said["problems"][0]["line"] == 6


def test_the_shipped_procedures_have_no_errors(capsys: pytest.CaptureFixture[str]) -> None:
    from engine.procedures.library import shipped

    assert run(str(shipped())) == 0, capsys.readouterr().out
