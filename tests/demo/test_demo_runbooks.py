"""The demo's procedures are valid documents, and each step is one that really can run."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.actions import metrics, service, traffic
from engine.demo import configs, faults
from engine.demo.layout import VARIANTS
from engine.procedures.document import Document

FOLDER = Path(__file__).parents[2] / "runbooks" / "demo"
FILES = sorted(FOLDER.glob("*.yaml"))


def document(name: str) -> Document:
    return Document.model_validate(yaml.safe_load((FOLDER / f"{name}.yaml").read_text()))


def test_there_are_three() -> None:
    assert [path.stem for path in FILES] == ["clear-faults", "fault", "setup"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_is_a_valid_document_named_as_its_file(path: Path) -> None:
    assert document(path.stem).id == path.stem


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_step_that_acts_can_be_undone_or_says_why_not(path: Path) -> None:
    for step in document(path.stem).steps:
        assert step.effect == "none" or step.undo or step.irreversible, step.id


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_its_actions_get_the_parameters_they_want(path: Path, tmp_path: Path) -> None:
    known = {action.name: action for action in [*service.ACTIONS, *metrics.ACTIONS, *traffic.ACTIONS]}
    layout = configs.prepare(tmp_path, running=False)
    processes = yaml.safe_load(layout.config.read_text())["services"]["flights"]["processes"]
    for step in document(path.stem).steps:
        for operation in filter(None, (step, step.undo, step.probe)):
            if operation.use is None:
                continue
            arguments = {name: value.replace("${{ params.variant }}", "champion")
                         if isinstance(value, str) else value
                         for name, value in operation.with_.items()}
            known[operation.use].params.model_validate(arguments)
            if operation.use.startswith("service."):
                assert arguments["process"] in processes


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_its_commands_are_modules_of_the_demo_run_by_the_engines_own_python(path: Path) -> None:
    for step in document(path.stem).steps:
        for operation in filter(None, (step, step.undo, step.probe)):
            if operation.shell is None:
                continue
            assert operation.shell[:2] == ["${{ run.python }}", "-m"]
            assert hasattr(importlib.import_module(operation.shell[2]), "main")
            at = operation.shell.index("--home")
            assert operation.shell[at + 1] == "${{ run.home }}"


def test_what_can_run_side_by_side_in_the_set_up_says_so() -> None:
    needs = {step.id: step.needs for step in document("setup").steps}
    assert needs["train-champion"] == needs["train-challenger"] == ["read"]
    assert needs["champion"] == needs["challenger"] == ["register"]
    assert needs["read"] == needs["gateway"] == []
    assert needs["traffic"] == ["champion", "challenger", "split"]


def test_the_fault_runbook_offers_every_kind_and_variant_and_its_defaults_work(
        tmp_path: Path) -> None:
    params = document("fault").params
    assert tuple(params["kind"].choices or ()) == faults.KINDS
    assert tuple(params["variant"].choices or ()) == VARIANTS
    faults.inject(tmp_path, params["variant"].default, params["kind"].default,
                  params["amount"].default)


def test_the_commands_of_the_fault_runbook_are_understood(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for step in document("fault").steps:
        for operation in filter(None, (step, step.undo, step.probe)):
            if operation.shell is None:
                continue
            values: dict[str, Any] = {
                "run.home": tmp_path, "run.python": "python", "params.variant": "challenger",
                "params.kind": "timeout", "params.amount": 12.5}
            arguments = list(operation.shell[3:])
            for name, value in values.items():
                arguments = [argument.replace(f"${{{{ {name} }}}}", str(value))
                             for argument in arguments]
            monkeypatch.setattr("sys.argv", ["faults", *arguments])
            try:
                faults.main()
            except argparse.ArgumentError as error:  # pragma: no cover
                pytest.fail(str(error))
            except faults.ActionFailed as error:
                said.append(error.message)
            else:
                said.append(capsys.readouterr().out.strip())
    assert said == ["challenger: 12.5 % timeout", "challenger: no faults",
                    "flights/challenger does not run, so it cannot be killed.",
                    "challenger does not run", "champion: no faults\nchallenger: no faults"]
