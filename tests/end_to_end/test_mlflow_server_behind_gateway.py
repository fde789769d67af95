"""A model of another flavour, served by MLflow's own server as a variant beside an ONNX one of ours."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.supervision import ProcessSupervisor
from tests.end_to_end.live import WINDOW, Demo
from tests.procedures.kit import running
from tests.serving.harness import JSON, Answer, Gateway, call
from tests.supervisor.conftest import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

VENV = Path(sys.executable).parent
# As the README has them; `shut` lacks the line that lets MLflow unpickle.
SHUT = {"PATH": f"{VENV}:/usr/bin:/bin", "UVICORN_LOG_LEVEL": "warning"}
OPEN = SHUT | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "true"}
ROW = {"distance": 1.0, "temp": 2.0, "hour": 3.0}
SCORE = 15.0
FORMS: list[dict[str, Any]] = [
    {"dataframe_split": {"columns": list(ROW), "data": [list(ROW.values())]}},
    {"dataframe_records": [ROW]}, {"instances": [ROW]},
    {"inputs": {name: [value] for name, value in ROW.items()}}]


@dataclass(frozen=True)
class Served:
    """A service of two flavours: `gateway` before it, `keys` that belong to each variant."""

    engine: Demo
    gateway: Gateway
    keys: dict[str, str]

    def ask(self, variant: str, body: Any, headers: dict[str, str] = JSON) -> Answer:
        answer = call(self.gateway.port, "POST", "/invocations", body,
                      headers | {"x-request-key": self.keys[variant]})
        assert answer.headers["x-opsdeck-variant"] == variant
        return answer

    def server(self) -> psutil.Process:
        """MLflow's server: the process that listens, below the command that was started."""
        pid = self.engine.pid("challenger")
        assert pid is not None
        [child] = psutil.Process(pid).children()
        return child


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with tempfile.TemporaryDirectory(prefix="gw") as folder:
        home = Path(folder)
        trained = subprocess.run([sys.executable, "-m", "tests.end_to_end.mlflow_twins", folder],
                                 capture_output=True, text=True, check=False)
        assert trained.returncode == 0, trained.stderr
        engine, gateway = describe(home, trained.stdout.strip())
        try:
            assert engine("engine", "start").returncode == 0
            engine.procedure("serve", starting("champion", "challenger", "gateway"))
            assert engine.json("run", "serve")["state"] == "done"
            yield Served(engine, gateway, keys(gateway))
        finally:
            engine("engine", "stop")
            asyncio.run(ProcessSupervisor(home, {}).stop_all(grace_s=2.0))


def describe(home: Path, pickled: str) -> tuple[Demo, Gateway]:
    """opsdeck.yaml and gateway.json, as an operator would write them."""
    ports = {name: free_port() for name in ("champion", "challenger", "shut")}
    gateway = Gateway(home, {name: {"url": f"http://127.0.0.1:{ports[name]}", "version": version}
                             for name, version in (("champion", "7"), ("challenger", "8"))}, start=False,
                      initial_weights={"champion": 50, "challenger": 50},
                      prediction_log={"path": str(home / "log" / "predictions.jsonl")})
    (home / "gateway.json").write_text(json.dumps(gateway.config))

    def mlflow(name: str, env: dict[str, str]) -> dict[str, Any]:
        return {"command": [str(VENV / "mlflow"), "models", "serve", "-m", pickled, "--env-manager", "local",
                            "--host", "127.0.0.1", "--port", str(ports[name])],
                "env": env, "ready": f"http://127.0.0.1:{ports[name]}/ping", "ready_within": "90s"}

    def ours(module: str, port: int, *arguments: str) -> dict[str, Any]:
        return {"command": [sys.executable, "-m", f"engine.serving.{module}", *arguments],
                "ready": f"http://127.0.0.1:{port}/ping"}

    url = f"http://127.0.0.1:{gateway.port}"
    (home / "opsdeck.yaml").write_text(WINDOW + json.dumps({"flights": {
        "scrape": [f"{url}/metrics"], "gateway": {"admin": str(gateway.admin), "url": url},
        "processes": {
            "champion": ours("model_server", ports["champion"], "--model", str(home / "onnx"),
                             "--port", str(ports["champion"])),
            "challenger": mlflow("challenger", OPEN), "shut": mlflow("shut", SHUT),
            "gateway": ours("gateway", gateway.port, "--config", str(home / "gateway.json"))}}},
        indent=1).join(["services: ", "\n"]))
    return Demo(home), gateway


def starting(*processes: str) -> str:
    """Steps that start processes, side by side."""
    return "\n".join(
        f"- {{id: {name}, title: Start it, use: service.start, needs: [], effect: idempotent,\n"
        f"   with: {{service: flights, process: {name}}}, irreversible: it runs, timeout: 2m}}"
        for name in processes)


def keys(gateway: Gateway) -> dict[str, str]:
    """A request key of each variant."""
    found: dict[str, str] = {}
    for number in range(40):
        answer = gateway.post(FORMS[0], x_request_key=f"k{number}")
        found.setdefault(answer.headers["x-opsdeck-variant"], f"k{number}")
    assert set(found) == {"champion", "challenger"}
    return found


def scores(answer: Answer) -> list[float]:
    """An array's predictions are plain values, an ONNX model's are named by its output."""
    return [round(p["variable"] if isinstance(p, dict) else p, 4) for p in answer.json["predictions"]]


def test_nothing_is_unpickled_until_an_operator_says_so(served: Served) -> None:
    served.engine.procedure("refused", starting("shut"))
    shown = served.engine.json("run", "refused", code=1)
    [step] = shown["steps"]
    assert "set 'MLFLOW_ALLOW_PICKLE_DESERIALIZATION' to 'true' to allow loading" in json.dumps(step)
    assert "Traceback" not in json.dumps(step)
    assert served.engine.pid("shut") is None


def test_both_flavours_answer_the_same_requests_and_share_the_traffic(served: Served) -> None:
    before = {name: served.gateway.count(name) for name in served.keys}
    seen: Counter[str] = Counter()
    for number in range(200):
        answer = served.gateway.post(FORMS[number % len(FORMS)], x_request_key=f"customer-{number}")
        assert answer.status == 200 and scores(answer) == [SCORE], answer
        seen[answer.headers["x-opsdeck-variant"]] += 1
    assert min(seen.values()) > 70
    assert {name: served.gateway.count(name) - before[name] for name in seen} == seen
    csv = {"content-type": "text/csv"}
    for name, version in (("champion", "7"), ("challenger", "8")):
        answer = served.ask(name, b"distance,temp,hour\n1,2,3\n4,5,6\n", csv)
        assert scores(answer) == [15.0, 33.0]
        assert answer.headers["x-opsdeck-model-version"] == version
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-correlation-id"])


def test_the_log_and_the_status_know_both_variants(served: Served) -> None:
    asked = {f"{variant}-{number}": variant for variant in served.keys for number in range(len(FORMS))}
    for identity, variant in asked.items():
        answer = served.ask(variant, FORMS[int(identity[-1])], JSON | {"x-correlation-id": identity})
        assert answer.headers["x-correlation-id"] == identity
    log: dict[str, Any] = {}

    def logged() -> bool:
        log.update({record["correlation_id"]: record for record in served.gateway.records()})
        return set(asked) <= set(log)

    served.engine.until("all are logged", logged)
    for identity, variant in asked.items():
        record = log[identity]
        assert (record["variant"], record["status"], record["error_type"]) == (variant, 200, "")
        assert record["features"] == {column: [value] for column, value in ROW.items()}
        assert len(record["predictions"]) == 1
    served.engine.until("both are seen", lambda: all(
        v["rps"] and v["p99_ms"] and not v["stale"] for v in served.engine.service()["variants"]))
    shown = {v["name"]: v for v in served.engine.service()["variants"]}
    assert {(name, v["version"], v["weight"]) for name, v in shown.items()} == {
        ("champion", "7", 50.0), ("challenger", "8", 50.0)}


@pytest.mark.parametrize("variant", ["champion", "challenger"])
def test_a_bad_request_is_the_callers_fault_whoever_serves_it(served: Served, variant: str) -> None:
    bad: list[tuple[Any, dict[str, str]]] = [
        ({"inputs": {"distance": [1.0]}}, JSON), ({"instances": [{"distance": 1.0}]}, JSON),
        ({"dataframe_split": {"columns": list(ROW), "data": [["far", 2.0, 3.0]]}}, JSON),
        ({"inputs": {"distance": [1.0, 2.0], "temp": [2.0], "hour": [3.0]}}, JSON),
        ({"inputs": [[1.0, 2.0, 3.0]]}, JSON), (b"nonsense", JSON), (b"", JSON), ({"rows": []}, JSON),
        (b"<a/>", {"content-type": "application/xml"}), (json.dumps(FORMS[0]).encode(), {})]
    before = served.gateway.count(variant, "invalid_input")
    for body, headers in bad:
        answer = served.ask(variant, body, headers)
        assert (answer.status, answer.json["error_type"]) == (400, "invalid_input"), (body, answer)
        assert answer.json["variant"] == variant and answer.json["message"]
    assert served.gateway.count(variant, "invalid_input") == before + len(bad)


def test_a_value_the_model_refuses_is_told_from_a_model_that_fails(served: Served) -> None:
    refused = served.ask("challenger", {"instances": [ROW | {"temp": None}]})
    assert (refused.status, refused.json["error_type"]) == (400, "invalid_input")
    failed = served.ask("challenger", {"instances": [ROW | {"distance": -1.0}]})
    assert (failed.status, failed.json["error_type"]) == (502, "model_error")
    assert failed.json["message"] == "The model failed with RuntimeError."
    assert served.ask("champion", {"instances": [ROW | {"distance": -1.0}]}).status == 200


def test_a_killed_mlflow_server_is_unavailable_alone_and_its_runbook_brings_it_back(
        served: Served) -> None:
    with Callers(served.gateway) as callers:
        server = served.server()
        server.send_signal(signal.SIGKILL)
        served.engine.until("unavailable", lambda: callers.seen["challenger", 503, "unavailable"] > 20)
        served.engine.until("it is shown", lambda: served.engine.variant("challenger")["errors"][
            "unavailable"] > 0)
        assert served.engine.variant("champion")["errors"]["unavailable"] == 0
        shown = served.engine.go("restart-server", "-p", "service=flights", "-p", "hold_s=1")
        assert shown["state"] == "done"
        back = callers.seen["challenger", 200, ""]
        served.engine.until("it serves again", lambda: callers.seen["challenger", 200, ""] > back + 20)
    assert callers.seen["champion", 200, ""] > 20
    assert set(callers.seen) == {("champion", 200, ""), ("challenger", 200, ""),
                                 ("challenger", 503, "unavailable")}
    assert served.server().pid != server.pid


def test_stop_ends_the_server_and_the_command_that_started_it(served: Served) -> None:
    pids = [served.server().pid, served.engine.pid("challenger") or 0]
    assert all(running(pid) for pid in pids)
    asyncio.run(ProcessSupervisor(served.engine.home, {}).stop("flights/challenger"))
    assert not any(running(pid) for pid in pids)
    answer = served.gateway.post(FORMS[0], x_request_key=served.keys["challenger"])
    assert (answer.status, answer.json["error_type"]) == (503, "unavailable")


class Callers:
    """Callers of all keys for as long as it is entered; `seen` counts (variant, status, error type)."""

    def __init__(self, gateway: Gateway) -> None:
        self.seen: Counter[tuple[str, int, str]] = Counter()
        self._gateway = gateway
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._call)

    def __enter__(self) -> Callers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _call(self) -> None:
        number = 0
        while not self._stop.wait(0.01):
            number += 1
            answer = self._gateway.post(FORMS[number % len(FORMS)], x_request_key=f"customer-{number}")
            self.seen[answer.headers["x-opsdeck-variant"], answer.status,
                      answer.headers.get("x-opsdeck-error-type", "")] += 1
