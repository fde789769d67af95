"""`opsdeck pipeline init` writes a project that is good as it is, and never over anything."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from engine.cli.main import main
from engine.errors import UsageError
from engine.pipeline.project import reading, starter


def test_the_starter_passes_its_check_and_has_the_folders_name(tmp_path: Path,
                                                               capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pipeline", "init", str(tmp_path / "My Flights")]) == 0
    assert "opsdeck.pipeline.yaml" in capsys.readouterr().out
    assert reading.problems(tmp_path / "My Flights") == []
    assert reading.read(tmp_path / "My Flights").project == "my-flights"
    assert main(["check", str(tmp_path / "My Flights")]) == 0
    assert "no problems" in capsys.readouterr().out


MADE = ("    command: [python, data.py]", "    sources: [data.py]")


@pytest.mark.parametrize(("offered", "instead_of"), [
    ("    # path: data/", MADE), ("    # uri: s3://", MADE), ("  # lock: uv.lock", ("  inherit: true",)),
    ("  # window: ", ()), ("  # credentials: ", ()), ("  # - {kind: improvement", ()), ("# release: ", ()),
    ("  # group: customer", ()), ("# triggers:", ())])
def test_what_its_comments_offer_is_good_too(tmp_path: Path, offered: str,
                                             instead_of: tuple[str, ...]) -> None:
    starter.write(tmp_path)
    (tmp_path / "uv.lock").write_text("version = 1\n")
    path = tmp_path / reading.FILE
    lines, taken = [], False
    for line in path.read_text().splitlines():
        taken = line.startswith(offered) or (taken and offered == "# triggers:")
        if not line.startswith(instead_of or ("nothing",)):
            lines.append(re.sub("# ?", "", line, count=1) if taken else line)
    assert lines != path.read_text().splitlines()
    path.write_text("\n".join(lines) + "\n")
    assert [one for one in reading.problems(tmp_path) if one.level == "error"] == []


def test_its_own_tests_pass(tmp_path: Path) -> None:
    starter.write(tmp_path)
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=tmp_path,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout + done.stderr


def test_nothing_is_overwritten_and_then_nothing_is_written(tmp_path: Path,
                                                            capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.py").write_text("mine\n")
    assert main(["pipeline", "init", str(tmp_path)]) == 1
    assert "train.py" in capsys.readouterr().err
    assert [one.name for one in tmp_path.iterdir()] == ["train.py"]
    assert (tmp_path / "train.py").read_text() == "mine\n"


def test_a_file_is_no_folder_for_a_project(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(UsageError):
        starter.write(tmp_path / "x")


def test_a_folder_whose_name_no_project_may_have_gets_another(tmp_path: Path) -> None:
    starter.write(tmp_path / "数据")
    assert reading.read(tmp_path / "数据").project == "my-model"


def test_it_tells_what_it_wrote_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pipeline", "init", str(tmp_path / "p"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"][0] == "opsdeck.pipeline.yaml"
