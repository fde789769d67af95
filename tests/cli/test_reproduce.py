"""`opsdeck reproduce`: what a person and a machine get of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.cli.main import main
from tests.reproduce.manifests import made


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["reproduce", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_finding_says_where_what_and_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.py").write_text("import numpy as np\nx = np.random.rand(3)\n")
    code, out, _ = call(capsys, "lint", str(tmp_path / "train.py"))
    assert code == 1 and "train.py:2: randomness:" in out and out.endswith("1 finding in 1 file\n")
    code, out, _ = call(capsys, "lint", str(tmp_path / "train.py"), "--json")
    [finding] = json.loads(out)["findings"]
    assert code == 1 and (finding["file"], finding["line"], finding["rule"]) == ("train.py", 2, "randomness")


def test_a_clean_file_is_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.py").write_text("print(1)\n")
    assert call(capsys, "lint", str(tmp_path / "train.py"))[:2] == (
        0, "nothing found that would keep it from being done again\n")


def test_what_is_not_there_or_no_manifest_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]
                                                        ) -> None:
    code, _, err = call(capsys, "lint", str(tmp_path / "nowhere"))
    assert code == 2 and "There is no such project" in err
    (tmp_path / "a.json").write_text("no")
    code, _, err = call(capsys, "verify", str(tmp_path / "a.json"), str(tmp_path / "b.json"))
    assert code == 2 and "not JSON" in err
    (tmp_path / "a.json").write_bytes(made().encode())
    code, _, err = call(capsys, "verify", str(tmp_path / "a.json"), str(tmp_path / "b.json"))
    assert code == 2 and "cannot be read" in err


def test_two_manifests_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_bytes(made().encode())
    code, out, _ = call(capsys, "verify", str(tmp_path / "a.json"), str(tmp_path / "b.json"))
    assert code == 0 and "equal" in out
    code, out, _ = call(capsys, "verify", str(tmp_path / "a.json"), str(tmp_path / "b.json"), "--json")
    assert code == 0 and json.loads(out)["reproduced"] is True
