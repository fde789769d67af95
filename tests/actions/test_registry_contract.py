"""What every action promises, those of third parties too."""

from typing import Any

import pytest
from pydantic import ValidationError

from engine.actions import register
from engine.pipeline.stages.table import STAGES
from engine.procedures.actions import STRICTNESS, Registry

EXAMPLES: dict[str, dict[str, Any]] = {
    "http.check": {"url": "http://127.0.0.1:1/ping"},
    "metrics.check": {"service": "flights", "condition": "p99_ms < 150", "for": "30s"},
    "metrics.read": {"service": "flights"},
    "notify": {"url": "https://hooks.example/x", "text": "the challenger was drained"},
    **{f"pipeline.{stage}": {"project": "delays"} for stage in (*STAGES, "accept")},
    "pipeline.release": {"project": "delays", "service": "flights", "version": "7", "manifest": "1" * 64,
                         "model_manifest": "2" * 64},
    "rollout.abort": {"service": "flights", "reason": "an incident"},
    "rollout.begin": {"service": "flights", "to": "challenger"},
    "rollout.look": {"service": "flights", "to": "challenger"},
    "rollout.mirror": {"service": "flights", "to": "challenger", "percent": 50, "hold": "1m"},
    "rollout.promote": {"service": "flights", "to": "challenger"},
    "rollout.restore": {"service": "flights", "to": "challenger", "champion": "champion",
                        "weights": {"champion": 100, "challenger": 0}},
    "rollout.verdict": {"service": "flights"},
    "rollout.warm-up": {"service": "flights", "to": "challenger"},
    "rollout.watch": {"service": "flights", "to": "challenger", "requests": 200, "hold": "30s", "good": True},
    "rollout.weight": {"service": "flights", "to": "challenger", "weight": 5, "lease_s": "30s"},
    "sagemaker.deploy": {"service": "flights", "endpoint_config": "flights-8", "alarms": ["flights-errors"]},
    "service.read": {"service": "flights", "process": "gateway"},
    "service.restart": {"service": "flights", "process": "gateway"},
    "service.start": {"service": "flights", "process": "gateway"},
    "service.stop": {"service": "flights", "process": "gateway", "grace": "5s"},
    "traffic.read": {"service": "flights"},
    "traffic.shift": {"service": "flights", "weights": {"champion": 95, "challenger": 5}},
}
EFFECTS = {
    "http.check": "none", "metrics.check": "none", "metrics.read": "none", "notify": "once",
    **{f"pipeline.{stage}": "idempotent" for stage in (*STAGES, "accept", "release")},
    "rollout.abort": "idempotent", "rollout.begin": "idempotent", "rollout.look": "idempotent",
    "rollout.mirror": "idempotent",
    "rollout.promote": "idempotent", "rollout.restore": "idempotent", "rollout.verdict": "none",
    "rollout.warm-up": "idempotent", "rollout.watch": "idempotent", "rollout.weight": "idempotent",
    "sagemaker.deploy": "idempotent", "service.read": "none", "service.restart": "once",
    "service.start": "idempotent", "service.stop": "idempotent", "traffic.read": "none",
    "traffic.shift": "idempotent",
}
REGISTRY = Registry()
register(REGISTRY)
every_action = pytest.mark.parametrize("name", REGISTRY.names())


def test_the_shipped_actions_are_the_known_ones_with_their_effects() -> None:
    found = {name: REGISTRY.get(name) for name in REGISTRY.names()}
    assert {name: action.effect for name, action in found.items() if action} == EFFECTS


@every_action
def test_it_says_what_it_is_in_one_line(name: str) -> None:
    action = REGISTRY.get(name)
    assert action is not None
    assert action.name == name
    assert action.effect in STRICTNESS
    assert 10 < len(action.summary) < 80
    assert "\n" not in action.summary
    assert action.params.__doc__
    works = action.run or action.command
    assert works is not None and works.__doc__ and "ffect" in works.__doc__


@every_action
def test_its_parameters_refuse_unknown_keys_and_cannot_be_changed(name: str) -> None:
    action = REGISTRY.get(name)
    assert action is not None
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        action.params.model_validate({**EXAMPLES[name], "colour": "red"})
    params = action.params.model_validate(EXAMPLES[name])
    with pytest.raises(ValidationError, match="frozen"):
        setattr(params, next(iter(type(params).model_fields)), "other")


@every_action
def test_it_describes_the_exact_act_in_one_line_that_begins_with_its_name(name: str) -> None:
    action = REGISTRY.get(name)
    assert action is not None
    line = action.describe(action.params.model_validate(EXAMPLES[name]))
    assert line.startswith(name + " ")
    assert "\n" not in line


@every_action
def test_the_parameter_that_the_policy_reads_is_one_of_its_own(name: str) -> None:
    action = REGISTRY.get(name)
    assert action is not None
    assert action.service in {*action.params.model_fields, None}
    if "service" in action.params.model_fields:
        assert action.service == "service"


@every_action
def test_one_that_acts_on_a_service_shows_the_world_before_and_after(name: str) -> None:
    action = REGISTRY.get(name)
    assert action is not None
    if action.effect == "none":
        assert action.preview is None
    elif action.service is not None:
        assert action.preview is not None


def test_registering_twice_is_refused_and_importing_loads_nothing_heavy() -> None:
    import subprocess
    import sys

    again = Registry()
    register(again)
    register(again)
    assert again.names() == REGISTRY.names()
    code = ("import sys; from engine.actions import register; "
            "from engine.procedures.actions import Registry; register(Registry()); "
            "print({'httpx', 'cel', 'cel.cel', 'mlflow', 'numpy'} & set(sys.modules))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
