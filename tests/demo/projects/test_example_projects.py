"""The shipped projects are whole: their files are valid, their cases readable, and their own tests pass."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from engine.pipeline.expectations import writing
from engine.pipeline.project import reading
from engine.pipeline.robustness import case_files
from engine.reproduce import lint

ROOT = Path(__file__).parents[3]
PROJECTS = ROOT / "engine" / "demo" / "projects"
NAMES = ("flights", "ranking")
PIN = re.compile(r"^([a-z0-9.-]+)==(\S+)", re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
def test_the_project_file_has_no_problem(name: str) -> None:
    assert reading.problems(PROJECTS / name) == []


@pytest.mark.parametrize("name", NAMES)
def test_nothing_in_it_keeps_a_run_from_being_done_again(name: str) -> None:
    assert lint.lint(PROJECTS / name) == []


@pytest.mark.parametrize("name", NAMES)
def test_its_hard_cases_are_whole_and_some_pass_and_some_are_known_to_fail(name: str) -> None:
    library = case_files.read(PROJECTS / name / "cases")
    assert {case.standing for case in library.cases} == {"passed before", "known to fail"}
    hidden = set() if name == "ranking" else {"late", "airport_hour"}
    for case in library.cases:
        assert set(reading.read(PROJECTS / name).data.features) <= set(library.rows[case.id].column_names)
        assert not hidden & set(library.rows[case.id].column_names)


def test_the_expectations_of_the_flights_are_for_the_columns_that_the_project_names() -> None:
    project = reading.read(PROJECTS / "flights")
    expected = writing.loads(PROJECTS / "flights" / project.data.expectations)
    data = project.data
    assert set(expected.columns) == {data.label, data.time, data.group, *data.key, *data.features}
    assert expected.keys[0].columns == data.key
    assert expected.columns["origin"].categories is not None and expected.columns["origin"].categories.closed


@pytest.mark.parametrize("name", NAMES)
def test_what_a_project_pins_is_what_the_product_pins(name: str) -> None:
    text = (ROOT / "pyproject.toml").read_text() + (ROOT / "requirements.lock").read_text()
    ours = dict(re.findall(r'^[ "]*([a-z0-9.-]+)==([^\s";]+)', text, re.MULTILINE))
    lock = (PROJECTS / name / "requirements.lock").read_text()
    pins = dict(PIN.findall(lock))
    assert {one: ours[one] for one in pins} == pins
    assert dict(PIN.findall((PROJECTS / name / "requirements.in").read_text())).items() <= pins.items()
    assert lock.count("--hash=sha256:") >= len(pins) and "://" not in lock


@pytest.mark.parametrize("name", NAMES)
def test_its_own_tests_pass(name: str) -> None:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    done = subprocess.run([sys.executable, "-B", "-m", "pytest", "-q", "-W", "ignore::DeprecationWarning"],
                          cwd=PROJECTS / name, env={**kept, "OMP_NUM_THREADS": "1"},
                          capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d\d passed", done.stdout)
