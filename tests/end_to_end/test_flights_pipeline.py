"""The shipped flights project from its data to the approval, as CI runs it: its own locked environment, real
flights of three months, a real registry and real servers. Then unchanged, and then again from its manifest.

About two minutes, most of them building the environment and training; `.ci/run` runs it after the suite.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import xml.etree.ElementTree as tree
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(600)]
OPSDECK = Path(sys.executable).with_name("opsdeck")
FLIGHTS = Path(__file__).parents[2] / "engine" / "demo" / "projects" / "flights"
CACHED = ("tests", "data", "train", "evaluate", "robustness")


class Home:
    def __init__(self, folder: Path) -> None:
        self.path, self.project = folder / "home", folder / "flights"
        shutil.copytree(FLIGHTS, self.project)

    def opsdeck(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([OPSDECK, "--home", self.path, *words], capture_output=True, text=True,
                              check=False, cwd=self.path.parent)

    def release(self) -> tuple[int, dict[str, Any]]:
        done = self.opsdeck("run", "train-and-release", "-p", f"project={self.project}", "--embedded",
                            "--json", "--summary", "summary.md", "--junit", "gates.xml")
        return done.returncode, json.loads(done.stdout)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("flights"))


@pytest.fixture(scope="module")
def first(home: Home) -> dict[str, Any]:
    code, view = home.release()
    assert code == 3, view  # it waits for an approval
    return view


def test_it_goes_from_real_flights_to_the_gate_of_its_release(home: Home, first: dict[str, Any]) -> None:
    states = {step["id"]: step["state"] for step in first["steps"]}
    assert states.pop("release") == "waiting" and set(states.values()) == {"done", "skipped"}
    results = {step["id"]: step["result"] for step in first["steps"]}
    assert (results["data"]["train"], results["data"]["test"]) == (65_075, 12_836)
    auc = results["evaluate"]["metrics"]["roc_auc"]
    # On two weeks that it has not seen, in weather of their own.
    assert 0.68 < auc["low"] < 0.73 < auc["high"]
    assert results["train"]["loss"] < 0.37 and results["staging"]["failed"] == 0
    assert "may be released" in Path(results["page"]["page"]).read_text()
    assert "<svg" in Path(results["page"]["html"]).read_text()
    assert "| log\\_loss | 0.3" in (home.path.parent / "summary.md").read_text()
    suite = tree.parse(home.path.parent / "gates.xml").getroot()
    assert suite.get("failures") == "0" and len(suite.findall("testcase")) == 14


def test_unchanged_it_is_taken_from_the_cache_and_registered_once(home: Home, first: dict[str, Any]) -> None:
    code, again = home.release()
    results = {step["id"]: step["result"] for step in again["steps"]}
    assert code == 3 and [results[name]["cached"] for name in CACHED] == [True] * 5
    assert results["register"]["already"] and results["register"]["version"] == "1"


def test_it_is_rebuilt_from_its_manifest_to_the_bit(home: Home, first: dict[str, Any]) -> None:
    done = home.opsdeck("reproduce", first["id"], "--project", str(home.project))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "results are the same" in done.stdout and "predictions.npy" in done.stdout
