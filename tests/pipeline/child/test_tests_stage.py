"""The project's own tests are run by pytest, apart from the engine's, and their report is the evidence."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ActionFailed, OpsdeckError, UsageError
from engine.pipeline.child import environments
from engine.pipeline.stages import tests as stage
from engine.pipeline.stages.contract import Done
from tests.pipeline.child import small_project
from tests.pipeline.child.stage_work import Heard, work

SKIPPED = "import pytest\n@pytest.mark.skip\ndef test_later():\n    pass\n"
GOOD = "def test_right():\n    assert True\n"


def run(root: Path, code: str | None, files: dict[str, str] | None = None, heard: Heard | None = None,
        **changes: Any) -> Done:
    given = {**({"tests/test_small.py": code} if code is not None else {}), **(files or {})}
    project = small_project.project(root / "project", given, **changes)
    return stage.run(work(project, root, "tests", heard))


def test_passing_tests_pass_with_their_report(tmp_path: Path) -> None:
    heard = Heard()
    done = run(tmp_path, GOOD + SKIPPED, heard=heard)
    assert done.passed and done.says.startswith("1 test passed, 1 skipped, in ")
    assert done.result["tests"] == 2 and done.result["failing"] == []
    output = next((tmp_path / "home").glob("**/output"))
    assert {one.name for one in output.iterdir()} == {"junit.xml", "log.txt"} == set(done.evidence)
    assert any("1 passed" in line for line in heard.lines)
    assert not list(output.parent.glob(".scratch*"))
    assert not list((tmp_path / "project").glob("**/__pycache__"))


def test_failing_tests_are_named_with_their_reason(tmp_path: Path) -> None:
    bad = "".join(f"def test_{name}():\n    assert 1 == {at}, 'a wrong {name}'\n"
                  for at, name in enumerate(("zero", "one", "two", "three", "four")))
    done = run(tmp_path, bad)
    assert not done.passed
    assert done.says.startswith(
        "4 of 5 tests failed: tests/test_small.py::test_zero: AssertionError: a wrong zero")
    assert done.says.endswith("; and 1 more") and "test_one" not in done.says
    assert [one["name"] for one in done.result["failing"]] == [
        f"tests/test_small.py::test_{name}" for name in ("zero", "two", "three", "four")]


@pytest.mark.parametrize(("tests", "says"), [
    ("# none yet\n", "No tests were found in tests, so nothing was tested"),
    (SKIPPED, "Every test was skipped, so nothing was tested"),
    ("import no_such_package\n", "1 of 1 test failed: tests/test_small.py: ModuleNotFoundError: No module "
                                 "named 'no_such_package'"),
    ("def test_x(:\n", "tests/test_small.py: SyntaxError"),
])
def test_tests_that_do_not_test_anything_do_not_pass(tmp_path: Path, tests: str, says: str) -> None:
    done = run(tmp_path, tests)
    assert not done.passed and says in done.says


def test_a_folder_of_tests_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="The project has no tests, where its tests should be"):
        run(tmp_path, None)


def test_an_environment_without_pytest_is_said_to_be_one(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "has", lambda python, package: False)
    with pytest.raises(UsageError, match="has no pytest") as caught:
        run(tmp_path, GOOD)
    assert "lock anew" in str(caught.value.hint)


def test_a_configuration_above_the_project_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    (tmp_path / "conftest.py").write_text("raise RuntimeError('not mine')\n")
    assert run(tmp_path, GOOD).passed


def test_the_projects_own_configuration_is_followed(tmp_path: Path) -> None:
    ini = {"pyproject.toml": "[tool.pytest.ini_options]\npython_functions = ['check_*']\n"}
    done = run(tmp_path, "def check_this():\n    assert True\ndef test_not_this():\n    assert False\n", ini)
    assert done.passed and done.result["tests"] == 1


@pytest.mark.parametrize(("tests", "changes", "message"), [
    (GOOD, {"tests": {"args": ["--no-such-option"]}}, "pytest could not run the tests"),
    ("def test_slow():\n    import time; time.sleep(60)\n", {"tests": {"limits": {"timeout": 1.0}}},
     "The run of the tests was ended at its limit of 1 s"),
    ("import os\ndef test_dies():\n    os._exit(7)\n", {}, "pytest could not run the tests"),
])
def test_a_run_that_cannot_be_finished_is_no_verdict(tmp_path: Path, tests: str, changes: dict[str, Any],
                                                     message: str) -> None:
    with pytest.raises(ActionFailed, match=message):
        run(tmp_path, tests, **changes)


@pytest.mark.parametrize("content", [
    "not xml", '<!DOCTYPE x [<!ENTITY a "b">]><testsuites><testcase name="&a;"/></testsuites>'])
def test_a_report_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "junit.xml").write_text(content)
    with pytest.raises(OpsdeckError, match=r"The JUnit report of the tests cannot be read"):
        stage.read(tmp_path / "junit.xml")


def test_the_interpreter_of_this_engine_has_pytest() -> None:
    assert environments.has(Path(sys.executable), "pytest")
