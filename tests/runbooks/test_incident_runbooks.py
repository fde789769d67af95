"""The six incident runbooks: what each must have, and which steps run in which situation.

Each is rendered as a run would render it, on the demo's service and with the results that its steps
would have left behind.
"""

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from engine.actions import register, signals
from engine.config import SIGNALS
from engine.fields import Typed
from engine.procedures import expressions
from engine.procedures.actions import Registry
from engine.procedures.check import checked
from engine.procedures.document import Document, Operation, Step
from engine.procedures.parameters import parameters
from engine.procedures.rendering import effect_of, parse_args

FOLDER = Path(__file__).parents[2] / "runbooks/incidents"
IDS = ["drain-variant", "error-spike", "gateway-down", "high-latency", "restart-server",
       "rollback-model"]
REGISTRY = Registry()
register(REGISTRY)

GOOD = signals.settled({"rps": 47.5, "p50_ms": 11.0, "p95_ms": 38.0, "p99_ms": 60.0,
                        "error_ratio": 0.001, "errors": {}, "in_flight": 1.0, "weight": 95.0,
                        "stale": False, "age_s": 0.5})
SPLIT = {"weights": {"champion": 95.0, "challenger": 5.0}, "champion": "champion", "lease_s": None}


def document(id: str) -> Document:
    report = checked((FOLDER / f"{id}.yaml").read_text(), f"{id}.yaml", REGISTRY,
                     today=dt.date(2026, 11, 24))
    assert report.document is not None
    return report.document


def reading(champion: dict[str, Any] | None = None, challenger: dict[str, Any] | None = None,
            kind: str = "", at: str = "") -> dict[str, Any]:
    """A result of metrics.read with these differences from a good one."""
    variants = {"champion": {**GOOD, **(champion or {})},
                "challenger": {**GOOD, "rps": 2.5, "weight": 5.0, **(challenger or {})}}
    whole = {**GOOD, **(champion or {})}
    return {"service": whole, "variants": variants,
            "slowest": signals.worst(variants, "p99_ms"),
            "most_errors": signals.worst(variants, "error_ratio"), "main_error": kind, "main_error_at": at}


SLOW = {"p99_ms": 412.0}
FAILING = {"error_ratio": 0.4}
SERVER = {"state": "running", "pid": 4711, "ready": True, "running_s": 60.0}


class Walk:
    """A run through a document in which every step that is wanted is done.

    `left` are the results that steps leave behind; `failed` steps fail; `until` is the last one.
    """

    def __init__(self, id: str, left: dict[str, Any] | None = None, failed: tuple[str, ...] = (),
                 until: str = "", **given: Any) -> None:
        self.document = document(id)
        self.names: dict[str, Any] = {
            "params": parameters(self.document, {"service": "flights", **given}),
            "steps": {}, "run": {"id": "r-1", "by": "oncall", "procedure": id, "home": "/h",
                                 "python": "/p"}}
        defaults = {"traffic.read": SPLIT, "metrics.read": reading(), "service.read": SERVER}
        self.ran: list[str] = []
        self.lines: dict[str, str] = {}
        for step in self.document.steps:
            result = {**defaults.get(step.use or "", {}), **(left or {}).get(step.id, {})}
            state = "failed" if step.id in failed else "done"
            if step.when is not None and not expressions.truth(step.when, self.names):
                state = "skipped"
            else:
                self.ran.append(step.id)
                self.lines[step.id] = self.render(step)
            self.names["steps"][step.id] = {
                "state": state, "result": result if state == "done" else None, "exit_code": None,
                "stdout": "", "json": None}
            if step.expect is not None and state == "done":
                inside = {**self.names, "result": result}
                self.lines[f"{step.id} expects"] = str(expressions.truth(step.expect, inside))
            if step.id == until:
                break

    def render(self, spec: Step | Operation) -> str:
        if isinstance(spec, Step) and spec.manual is not None:
            return expressions.render(spec.manual, self.names)
        action = REGISTRY.get(spec.use or "")
        assert action is not None
        args = expressions.render_value(spec.with_, self.names)
        return action.describe(parse_args(action, args, "here"))

    def undo(self, id: str) -> str:
        undo = self.document.step(id).undo
        assert undo is not None
        return self.render(undo)


def test_the_six_are_there_each_under_its_own_id() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.yaml")) == IDS
    assert [document(id).id for id in IDS] == IDS


every = pytest.mark.parametrize("id", IDS)


@every
def test_it_says_when_to_use_it_whom_to_call_and_what_good_looks_like(id: str) -> None:
    found = document(id)
    assert found.kind == "runbook"
    assert len(found.title) <= 50
    assert len(found.use_when) > 40
    assert len(found.good_after) > 40
    assert any(contact.via.startswith("pagerduty:") for contact in found.contacts)
    assert found.for_alerts
    assert set(found.for_alerts) <= set(SIGNALS)


@every
def test_only_the_service_must_be_given_and_every_parameter_explains_itself(id: str) -> None:
    found = document(id)
    assert [name for name, param in found.params.items() if param.required] == ["service"]
    assert all(param.help for param in found.params.values())


@every
def test_its_last_step_verifies_that_all_is_well(id: str) -> None:
    last = document(id).steps[-1]
    assert last.use in ("metrics.check", "http.check")
    assert last.when is None


@every
def test_each_step_that_acts_asks_first_and_can_be_undone_or_says_why_not(id: str) -> None:
    acting = [step for step in document(id).steps
              if step.kind == "action" and effect_of(step, REGISTRY) != "none"]
    for step in acting:
        assert step.undo or step.irreversible, step.id
        if step.use == "traffic.shift":
            assert isinstance(step.confirm, Typed), step.id
        elif step.use != "notify" and step.id != "start":
            assert step.confirm != "none", step.id


@every
def test_its_steps_have_short_titles_and_those_that_ask_or_wait_help(id: str) -> None:
    for step in document(id).steps:
        assert len(step.title) <= 40, step.id
        if step.confirm != "none" or step.manual or step.on_failure == "ask":
            assert step.help, step.id


@every
def test_it_runs_as_it_is_on_the_demo_and_every_act_renders(id: str) -> None:
    rolled_back = {"read": {"weights": {"champion": 100.0, "challenger": 0.0}}}
    walk = Walk(id, rolled_back if id == "rollback-model" else None)
    assert walk.ran[-1] == "verify"
    assert "flights" in walk.lines["verify"]
    assert "False" not in [walk.lines.get(f"{step} expects") for step in walk.ran]


# high-latency

def test_a_slow_challenger_is_drained_and_can_have_its_traffic_back() -> None:
    walk = Walk("high-latency", {"signals": reading(challenger=SLOW)})
    assert walk.ran == ["weights", "signals", "drain", "verify"]
    assert walk.lines["drain"] == "traffic.shift flights drain challenger to champion"
    assert walk.undo("drain") == "traffic.shift flights champion=95 challenger=5"
    assert walk.lines["verify"] == (
        "metrics.check flights p99_ms < 150 for 30 s within 3 min 30 s")


@pytest.mark.parametrize("challenger", [{}, {"p99_ms": 500.0}])
def test_a_slow_champion_is_a_persons_matter_even_if_the_challenger_is_slower(
        challenger: dict[str, Any]) -> None:
    walk = Walk("high-latency", {"signals": reading(champion=SLOW, challenger=challenger)})
    assert walk.ran == ["weights", "signals", "look", "verify"]
    assert "or not alone" in walk.lines["look"]


@pytest.mark.parametrize(("left", "given"), [
    ({}, {}),
    ({"signals": reading(challenger=SLOW)}, {"p99_limit_ms": 500}),
    ({"signals": reading(champion=signals.settled({}), challenger=signals.settled({}))}, {}),
])
def test_nothing_is_touched_where_nothing_known_is_over_the_limit(
        left: dict[str, Any], given: dict[str, Any]) -> None:
    assert Walk("high-latency", left, **given).ran == ["weights", "signals", "verify"]


def test_a_slow_challenger_without_traffic_is_left_alone() -> None:
    none = {"weights": {"champion": 100.0, "challenger": 0.0}}
    walk = Walk("high-latency", {"weights": none, "signals": reading(challenger=SLOW)})
    assert "drain" not in walk.ran


def test_undo_restores_the_lease_too() -> None:
    walk = Walk("high-latency", {"weights": {"lease_s": 41.5},
                                 "signals": reading(challenger=SLOW)})
    assert walk.undo("drain") == "traffic.shift flights champion=95 challenger=5 lease 41.5 s"


# error-spike

@pytest.mark.parametrize(("kind", "challenger_fails", "steps"), [
    ("timeout", True, ["drain"]),
    ("model_error", True, ["drain"]),
    ("unavailable", True, ["drain", "start"]),
    ("out_of_memory", True, ["drain", "restart"]),
    ("invalid_input", True, ["callers"]),
    ("timeout", False, ["champion"]),
    ("model_error", False, ["champion"]),
    ("unavailable", False, ["start"]),
    ("out_of_memory", False, ["restart"]),
    ("invalid_input", False, ["callers"]),
    ("", None, []),
])
def test_what_is_done_about_errors_follows_their_type_and_who_has_them(
        kind: str, challenger_fails: bool | None, steps: list[str]) -> None:
    found = reading()
    if challenger_fails is not None:
        who = "challenger" if challenger_fails else "champion"
        found = reading(**{who: FAILING}, kind=kind, at=who)
    walk = Walk("error-spike", {"signals": found})
    assert walk.ran == ["weights", "signals", *steps, "verify"]
    if "start" in steps:
        assert walk.lines["start"] == f"service.start flights/{found['main_error_at']}"
    if "champion" in steps:
        assert kind in walk.lines["champion"]


def test_a_champion_that_is_down_gets_no_more_traffic_from_a_failing_challenger() -> None:
    found = reading(champion=FAILING, challenger={"error_ratio": 0.8}, kind="unavailable",
                    at="champion")
    walk = Walk("error-spike", {"signals": found})
    assert walk.ran == ["weights", "signals", "start", "verify"]
    assert walk.lines["start"] == "service.start flights/champion"


# rollback-model

def test_a_rollback_gives_the_champion_everything_and_leaves_the_challenger_running() -> None:
    walk = Walk("rollback-model", {"read": {"weights": {"champion": 100.0, "challenger": 0.0}}})
    assert walk.ran == ["weights", "shift", "read", "verify"]
    assert walk.lines["shift"] == "traffic.shift flights champion=100"
    assert walk.lines["read expects"] == "True"
    assert walk.undo("shift") == "traffic.shift flights champion=95 challenger=5"
    assert walk.lines["verify"].startswith(
        "metrics.check flights champion error_ratio < 0.02 && p99_ms < 150 for 30 s")


def test_the_challenger_is_stopped_and_others_are_told_where_that_is_asked_for() -> None:
    walk = Walk("rollback-model", stop_challenger=True, tell="page",
                reason="it predicts nonsense")
    assert walk.ran == ["weights", "shift", "read", "stop", "tell", "verify"]
    assert walk.undo("stop") == "service.start flights/challenger"
    assert walk.lines["tell"] == (
        "notify the page webhook: flights: all traffic was sent back to champion by oncall: "
        "it predicts nonsense")
    assert walk.lines["read expects"] == "False"


# restart-server

def test_a_server_is_drained_restarted_and_gets_exactly_its_traffic_back() -> None:
    walk = Walk("restart-server")
    assert walk.ran == ["weights", "server", "drain", "quiet", "stop", "start", "back", "verify"]
    assert walk.lines["drain"] == "traffic.shift flights drain challenger to champion"
    assert walk.lines["back"] == "traffic.shift flights champion=95 challenger=5"
    assert walk.lines["stop"] == "service.stop flights/challenger grace 10 s"
    assert walk.undo("stop") == walk.lines["start"] == "service.start flights/challenger"


def test_the_champion_can_be_restarted_behind_the_challenger() -> None:
    walk = Walk("restart-server", process="champion", takes_over="challenger")
    assert walk.lines["drain"] == "traffic.shift flights drain champion to challenger"


def test_a_dead_server_without_traffic_is_only_started() -> None:
    walk = Walk("restart-server", {
        "weights": {"weights": {"champion": 100.0, "challenger": 0.0}},
        "server": {"state": "dead", "ready": False}})
    assert walk.ran == ["weights", "server", "stop", "start", "verify"]


def test_a_process_that_is_no_variant_is_refused_at_the_first_step() -> None:
    walk = Walk("restart-server", process="gateway", until="weights")
    assert walk.lines["weights expects"] == "False"


# drain-variant

def test_a_drained_variants_share_goes_to_the_one_that_takes_over() -> None:
    walk = Walk("drain-variant", variant="champion", takes_over="challenger")
    assert walk.ran == ["weights", "server", "drain", "quiet", "verify"]
    assert walk.lines["server"] == "service.read flights/challenger"
    assert walk.lines["drain"] == "traffic.shift flights drain champion to challenger"
    assert walk.lines["quiet"] == (
        "metrics.check flights champion in_flight < 1.0 for 3 s within 30 s")


# gateway-down

def test_a_gateway_that_answers_is_left_alone_unless_forced() -> None:
    quiet = ["before", "ping", "process", "weights", "answer", "verify"]
    assert Walk("gateway-down").ran == quiet
    assert Walk("gateway-down", force=True).ran == [*quiet[:3], "stop", "start", *quiet[3:]]


@pytest.mark.parametrize(("state", "steps"), [
    ("running", ["stop", "start"]), ("dead", ["start"]), ("stopped", ["start"])])
def test_one_that_does_not_answer_is_started_and_stopped_first_only_if_it_hangs(
        state: str, steps: list[str]) -> None:
    walk = Walk("gateway-down", {"process": {"state": state, "ready": False}}, failed=("ping",))
    assert walk.ran[3:-3] == steps
    assert walk.lines["start"] == "service.start flights/gateway"


@pytest.mark.parametrize(("known", "after", "survived"), [
    (5.0, 5.0, "True"), (5.0, 5.2, "True"), (5.0, 0.0, "False"), (-1.0, 0.0, "True")])
def test_the_weights_after_it_are_compared_with_the_last_known(
        known: float, after: float, survived: str) -> None:
    before = reading(challenger={"weight": known})
    before["variants"]["champion"]["weight"] = 100 - known if known >= 0 else -1.0
    walk = Walk("gateway-down", {
        "before": before,
        "weights": {"weights": {"champion": 100 - after, "challenger": after}}}, failed=("ping",))
    assert walk.lines["weights expects"] == survived


def test_without_any_last_known_weights_there_is_nothing_to_compare() -> None:
    walk = Walk("gateway-down", failed=("before", "ping"))
    assert walk.lines["weights expects"] == "True"
