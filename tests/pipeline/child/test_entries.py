"""A project's function or command is called with files, seeded, and its failure is one clear line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.errors import OpsdeckError
from engine.pipeline.child import entries
from engine.pipeline.project.model import Entry, Limits
from tests.pipeline.child import small_project


def call(root: Path, code: str, entry: dict[str, Any] | None = None, **more: Any) -> entries.Call:
    for name in ("project", "in", "out", "scratch"):
        (root / name).mkdir(exist_ok=True)
    small_project.project(root / "project", {"learn.py": code})
    given: dict[str, Any] = {"params": {"rate": 0.5}, "seed": 3, "limits": Limits(), **more}
    return entries.Call(Entry.model_validate(entry or {"function": "learn:fit"}), "The training", "train",
                        Path(sys.executable), root / "project", root / "in", root / "out", root / "scratch",
                        log=root / "log.txt", **given)


def quiet(line: str) -> None:
    pass


def test_a_function_gets_paths_and_parameters_and_the_seed(tmp_path: Path) -> None:
    code = """
        import json, random, sys
        from pathlib import Path

        def fit(inputs: Path, output: Path, params: dict):
            import numpy
            said = {"params": params, "drawn": random.random(), "numpy": numpy.random.rand(),
                    "hash": hash("a"), "path": sys.path[0], "argv": sys.argv, "inputs": str(inputs),
                    "engine": [name for name in sys.modules if name.startswith("engine")]}
            (output / "said.json").write_text(json.dumps(said))
    """
    told = []
    for _ in range(2):
        assert entries.run(call(tmp_path, code), quiet).well
        told.append(json.loads((tmp_path / "out" / "said.json").read_text()))
    assert told[0] == told[1]
    assert told[0]["params"] == {"rate": 0.5} and told[0]["inputs"] == str(tmp_path / "in")
    assert told[0]["engine"] == [] and told[0]["path"] == str(tmp_path / "project")
    assert entries.run(call(tmp_path, code, seed=4), quiet).well
    assert json.loads((tmp_path / "out" / "said.json").read_text())["drawn"] != told[0]["drawn"]


def test_a_command_finds_the_same_by_its_variables(tmp_path: Path) -> None:
    code = """
        import json, os
        from pathlib import Path
        params = json.loads(Path(os.environ["OPSDECK_PARAMS"]).read_text())
        assert Path(os.environ["OPSDECK_INPUTS"]).is_dir()
        (Path(os.environ["OPSDECK_OUTPUT"]) / "rate").write_text(str(params["rate"]))
    """
    assert entries.run(call(tmp_path, code, {"command": ["python", "learn.py"]}), quiet).well
    assert (tmp_path / "out" / "rate").read_text() == "0.5"


@pytest.mark.parametrize(("code", "message", "where"), [
    ("def fit(inputs, output, params):\n    import statistics\n    return statistics.mean([])\n",
     "The training failed: StatisticsError: mean requires at least one data point", "learn.py:3"),
    ("def other():\n    pass\n", "The training cannot begin: the module learn has no function fit.",
     "train.entry.function"),
    ("import no_such_thing\n", "No module named 'no_such_thing'", "learn.py:1"),
    ("def fit(:\n", "SyntaxError", "learn.py:1"),
    ("def fit(**_):\n    raise MemoryError\n", "The training was ended for memory", "train"),
    ("def fit(**_):\n    raise SystemExit('no rows')\n", "exited with 1: no rows", "train"),
])
def test_what_goes_wrong_is_one_line_with_the_projects_own_place(
        tmp_path: Path, code: str, message: str, where: str) -> None:
    with pytest.raises(OpsdeckError) as caught:
        entries.run(call(tmp_path, code), quiet)
    assert message in caught.value.message and "\n" not in caught.value.message
    assert caught.value.where == where and caught.value.hint
    if where.startswith("learn.py"):
        assert "Traceback" in (tmp_path / "log.txt").read_text()


def test_a_missing_module_of_the_project_is_told_apart_from_a_missing_package(tmp_path: Path) -> None:
    with pytest.raises(OpsdeckError, match="there is no module nowhere in the project's folder"):
        entries.run(call(tmp_path, "", {"function": "nowhere:fit"}), quiet)
    with pytest.raises(OpsdeckError) as caught:
        entries.run(call(tmp_path, "import lightgbm_x\n"), quiet)
    assert "Is lightgbm_x in the project's lock?" in str(caught.value.hint)


def test_a_credential_reaches_the_code_and_no_message(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE", "s3cret-value")
    small_project.project(tmp_path / "project", {"key": "from-a-file\n"})
    named = {"STORE_PASSWORD": "env:STORE", "KEY": "file:key"}
    found = entries.credentials(named, tmp_path / "project", "train")
    assert found == {"STORE_PASSWORD": "s3cret-value", "KEY": "from-a-file"}
    code = "import os\ndef fit(**_):\n    raise ValueError('no ' + os.environ['STORE_PASSWORD'])\n"
    with pytest.raises(OpsdeckError) as caught:
        entries.run(call(tmp_path, code, credentials=found), quiet)
    assert "s3cret" not in str(caught.value) + (tmp_path / "log.txt").read_text()
    assert caught.value.where == "learn.py:3"


@pytest.mark.parametrize(("given", "message"), [
    ({"PYTHONPATH": "env:STORE"}, "PYTHONPATH cannot be a variable"),
    ({"KEY": "env:NOT_THERE"}, "there is no variable NOT_THERE"),
    ({"KEY": "file:absent"}, "there is no such file"),
])
def test_a_credential_that_cannot_be_had_is_named_before_anything_runs(tmp_path: Path, given: dict[str, str],
                                                                       message: str) -> None:
    with pytest.raises(OpsdeckError, match=message) as caught:
        entries.credentials(given, tmp_path, "train")
    assert "train.credentials" in str(caught.value.where)


def test_parameters_that_json_lacks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OpsdeckError, match="cannot be written as JSON"):
        entries.run(call(tmp_path, "", params={"rate": float("nan")}), quiet)
