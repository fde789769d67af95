"""The README names only commands, verbs and options of rollouts that exist."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest
import yaml

from engine.cli import judge, rollout
from engine.cli.main import VERBS
from engine.procedures.rollouts import Rollout

README = (Path(__file__).parents[2] / "README.md").read_text()
INLINE = [code.replace("\n", " ") for code in re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", README)]
CODE = "\n".join([*re.findall(r"```sh\n(.*?)```", README, re.DOTALL), *INLINE])


def subverbs(module: object) -> dict[str, argparse.ArgumentParser]:
    parser = argparse.ArgumentParser()
    module.configure(parser)  # type: ignore[attr-defined]
    found = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return dict(found.choices)


def test_every_command_of_the_readme_exists() -> None:
    named = set(re.findall(r"\bopsdeck ([a-z][a-z-]*)", CODE))
    assert named, "the README shows commands"
    assert named <= set(VERBS)


@pytest.mark.parametrize(("module", "verb"), [(rollout, "rollout"), (judge, "judge")])
def test_every_verb_below_a_command_exists(module: object, verb: str) -> None:
    known = set(subverbs(module)) | ({"flights"} if verb == "rollout" else set())
    assert set(re.findall(rf"\bopsdeck {verb} ([a-z][a-z-]*)", CODE)) <= known


def test_the_chapter_on_rollouts_names_every_verb_and_only_options_that_exist() -> None:
    chapter = README.split("\n## Rollouts\n")[1].split("\n## ")[0]
    verbs = subverbs(rollout)
    for verb in verbs:
        assert re.search(rf"`{verb}`|rollout {verb} ", chapter) or verb == "status", verb
    options = {option for parser in verbs.values() for option in parser._option_string_actions}
    assert set(re.findall(r"--[a-z-]+", chapter)) <= options


def test_the_plan_of_the_readme_is_a_plan() -> None:
    chapter = README.split("\n## Rollouts\n")[1].split("\n## ")[0]
    text = re.findall(r"```yaml\n(.*?)```", chapter, re.DOTALL)[0]
    plan = Rollout.model_validate(yaml.safe_load(text)["rollout"])
    assert [step.weight for step in plan.canary_steps()] == [1, 5, 25, 50, 100]
    assert plan.budget.bad == 200
