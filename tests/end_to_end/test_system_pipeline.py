"""A system engine trains, evaluates, registers and releases the flights: the engine is one Unix user, the
stages are another, who begins it a third and who approves it a fourth. What the project's own code can see of
the engine, of production and of the registry meanwhile is nothing.

About a minute, most of it building the project's environment; `.ci/run` runs it after the suite.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine import home as homes
from engine.pipeline.building import places
from tests.daemon.people import ask
from tests.end_to_end import installed
from tests.pipeline.releasing.world import QUICK
from tests.serving.harness import free_port

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(600)]
FLIGHTS = Path(__file__).parents[2] / "engine" / "demo" / "projects" / "flights"
ROW = {"carrier": "UA", "origin": "JFK", "hour": 18, "weekday": 3, "distance": 700.0, "temp": 40.0,
       "dewp": 30.0, "humid": 60.0, "wind_speed": 9.0, "precip": 0.0, "pressure": 1012.0, "visib": 10.0}


SLOTS = ("champion", "challenger")


class System:
    """The installation, its users by what they do, and its one service."""

    def __init__(self, at: Path, users: dict[str, str]) -> None:
        self.at, self.users = at, users
        self.home = homes.at(at / "home", "system")
        self.project = at / "flights"
        self.ports = {name: free_port() for name in ("gateway", "champion", "challenger")}
        self.registry = ""

    def ask(self, who: str, method: str, path: str, body: Any = None) -> dict[str, Any]:
        return ask(self.home.socket, method, path, body, user=self.users[who])

    def run(self, id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("bob", "GET", f"/v1/runs/{id}")["body"]
        return found

    def until(self, id: str, *states: str, within: float = 240.0) -> dict[str, Any]:
        end = time.monotonic() + within
        while (view := self.run(id)).get("state") not in states:
            assert time.monotonic() < end, [(one["id"], one["state"], one["error"]) for one in view["steps"]]
        return view

    def approve(self, who: str, id: str, step: str) -> int:
        gate = next(one for one in self.run(id)["steps"] if one["id"] == step)["gate"]
        return int(self.ask(who, "POST", f"/v1/runs/{id}/approve", {"step": step, "digest": gate["digest"]}
                            )["status"])

    def models(self, slot: str) -> Path:
        return self.home.path / "demo" / "models" / slot


@pytest.fixture(scope="module")
def system(users: dict[str, str]) -> Iterator[System]:
    with tempfile.TemporaryDirectory(prefix="opsdeck-i-", dir="/var/tmp") as folder:
        at = Path(folder)
        at.chmod(0o755)
        python = installed.install(at)
        found = System(at, {"engine": users["eve"], "steps": users["out"], **users})
        owner = pwd.getpwnam(found.users["engine"])
        for path, mode in ((found.home.path, 0o711), (at / "registry", 0o700)):
            path.mkdir(mode=mode)
            os.chown(path, owner.pw_uid, owner.pw_gid)
        with installed.registry(python, at / "registry", found.users["engine"]) as found.registry:
            prepare(found, python)
            with installed.engine(python, found.home.path, found.users["engine"]):
                yield found
            installed.end_all(at)


def prepare(system: System, python: Path) -> None:
    """The project as its author keeps it, where the engine may write what it accepts; and the config."""
    shutil.copytree(FLIGHTS, system.project)
    plan = yaml.safe_load((system.project / "opsdeck.pipeline.yaml").read_text())
    plan["train"]["params"]["max_iter"] = 40
    plan["release"]["procedure"] = "quick"
    (system.project / "opsdeck.pipeline.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    home = system.home.path
    secret = [str(home / "journal.db"), str(home / "opsdeck.log"), str(home / "demo" / "gateway.json"),
              str(system.models("champion") / "model.onnx"), str(system.at / "registry" / "mlflow.db"),
              str(home / "pipelines" / "flights" / "memo.json")]
    shutil.copy(Path(__file__).with_name("probe.py"), system.project)
    train = (system.project / "train.py").read_text().replace("def fit(", "def _fit(", 1)
    (system.project / "train.py").write_text(train + f'''

def fit(inputs, output, params):
    import json, os, probe
    if "OPSDECK_OUTPUT" in os.environ:
        (output / "probe.json").write_text(json.dumps(probe.look(
            {str(home)!r}, {str(system.home.socket)!r}, {system.registry!r},
            {installed.REGISTRY_PASSWORD[::-1]!r}[::-1], {secret!r})))
        os.chmod(output / "probe.json", 0o600)
    _fit(inputs, output, params)
''')
    author, engine = (pwd.getpwnam(system.users[name]) for name in ("alice", "engine"))
    for path in (system.project, *system.project.rglob("*")):
        os.chown(path, author.pw_uid, engine.pw_gid)
        path.chmod(0o775 if path.is_dir() else 0o664)
    service(system, python)


def service(system: System, python: Path) -> None:
    home, ports = system.home.path, system.ports
    system.models("x").parent.mkdir(parents=True)
    gateway = {"service": "flights", "host": "127.0.0.1", "port": ports["gateway"], "champion": "champion",
               "admin_socket": str(home / "demo" / "gw.sock"),
               "state_file": str(home / "demo" / "state.json"),
               "variants": {name: {"url": f"http://127.0.0.1:{ports[name]}", "version": "1"}
                            for name in SLOTS},
               "initial_weights": {"champion": 100, "challenger": 0}, "timeout_s": 2,
               "key_header": "x-request-key"}
    (home / "demo" / "gateway.json").write_text(json.dumps(gateway))
    address = f"http://127.0.0.1:{ports['gateway']}"
    processes = {name: {"command": [str(python), "-m", "engine.serving.model_server", "--model",
                                    str(system.models(name)), "--port", str(ports[name])],
                        "ready": f"http://127.0.0.1:{ports[name]}/ping"} for name in SLOTS}
    processes["gateway"] = {"command": [str(python), "-m", "engine.serving.gateway", "--config",
                                        str(home / "demo" / "gateway.json")], "ready": f"{address}/ping"}
    (home / "runbooks").mkdir()
    (home / "runbooks" / "quick.yaml").write_text(QUICK)
    starting = [{"id": name, "title": name, "use": "service.start", "irreversible": "it runs",
                 "with": {"service": "flights", "process": name}} for name in processes]
    (home / "runbooks" / "start.yaml").write_text(yaml.safe_dump({
        "opsdeck": 1, "id": "start", "title": "Start all", "kind": "runbook", "owner": "tests",
        "reviewed": "2026-11-20", "review_every": "9999d", "steps": starting}))
    system.home.config.write_text(yaml.safe_dump({
        "engine": {"group": "opsdeck-t-socket", "steps_user": system.users["steps"]},
        "roles": {"operator": {"users": [system.users["alice"]]},
                  "approver": {"users": [system.users["bob"]]}},
        "pipelines": {"tracking": system.registry, "projects": {"flights": str(system.project)}},
        "services": {"flights": {
            "scrape": [f"{address}/metrics"], "champion": "champion", "processes": processes,
            "gateway": {"admin": str(home / "demo" / "gw.sock"), "url": address},
            "manifests": {name: str(system.models(name) / "manifest.json") for name in SLOTS}}}}))
    engine = pwd.getpwnam(system.users["engine"])
    for path in home.rglob("*"):
        os.chown(path, engine.pw_uid, engine.pw_gid)
        path.chmod(0o755 if path.is_dir() else 0o644)
    (home / "demo").chmod(0o700)


@pytest.fixture(scope="module")
def at_the_gate(system: System) -> dict[str, Any]:
    begun = system.ask("alice", "POST", "/v1/runs", {
        "procedure": "train-and-release", "params": {"project": "flights"}})
    assert begun["status"] == 200, begun
    return system.until(begun["body"]["id"], "waiting", "failed")


def test_stages_of_both_users_bring_the_flights_to_the_gate_of_their_release(
        system: System, at_the_gate: dict[str, Any]) -> None:
    states = {step["id"]: (step["state"], step["error"]) for step in at_the_gate["steps"]}
    assert states.pop("release")[0] == "waiting"
    assert {state for state, _ in states.values()} == {"done", "skipped"}, states
    at = places.of(system.home.path, "flights")
    owners = {name: Path(at.results(at_the_gate["id"])[name]["output"]).stat().st_uid
              for name in ("tests", "data", "train", "evaluate", "register", "staging", "page")}
    engine, steps = (pwd.getpwnam(system.users[name]).pw_uid for name in ("engine", "steps"))
    assert owners.pop("register") == engine and set(owners.values()) == {steps}


def test_the_projects_own_code_sees_nothing_of_engine_production_and_registry(
        system: System, at_the_gate: dict[str, Any]) -> None:
    trained = places.of(system.home.path, "flights").results(at_the_gate["id"])["train"]
    found = json.loads((Path(trained["output"]) / "probe.json").read_text())
    assert found["uid"] == pwd.getpwnam(system.users["steps"]).pw_uid and found["groups"] == []
    assert not [name for name in found["variables"] if name.startswith(("MLFLOW", "AWS", "UV_"))]
    for tried in ("listed", "read"):
        assert set(found[tried].values()) == {"PermissionError"}, found[tried]
    assert (found["written"], found["socket"]) == ("PermissionError", "PermissionError")
    assert (found["registry"], found["password"]) == ("HTTPError", [])


def test_another_person_reads_the_page_approves_and_it_is_released(
        system: System, at_the_gate: dict[str, Any]) -> None:
    id = at_the_gate["id"]
    page = system.ask("bob", "GET", f"/v1/runs/{id}/page?html=1")["body"]
    assert "may be released" in page["verdict"] and "<svg" in page["whole"]
    staged = Path(places.of(system.home.path, "flights").results(id)["staging"]["output"]) / "model"
    for slot in SLOTS:
        shutil.copytree(staged, system.models(slot))
        for path in (system.models(slot), *system.models(slot).rglob("*")):
            os.chown(path, pwd.getpwnam(system.users["engine"]).pw_uid, -1)
    started = system.ask("alice", "POST", "/v1/runs", {"procedure": "start", "params": {}})["body"]["id"]
    assert system.until(started, "done", "failed", within=60)["state"] == "done"
    with traffic(system.ports["gateway"]):
        assert system.approve("alice", id, "release") == 403
        assert system.approve("bob", id, "release") == 200
        rollout = str(int(started) + 1)
        system.until(rollout, "waiting", "failed", "rolled_back", within=60)
        assert system.approve("bob", rollout, "weight-50") == 200
        released = system.until(id, "done", "failed", within=90)
    result = next(one for one in released["steps"] if one["id"] == "release")
    assert result["state"] == "done", result["error"]
    assert (result["result"]["champion"], result["result"]["version"]) == ("1", "1")
    assert system.models("challenger").stat().st_uid == pwd.getpwnam(system.users["engine"]).pw_uid


@contextmanager
def traffic(port: int) -> Iterator[None]:
    """Requests at the gateway until the block ends."""
    ending = threading.Event()

    def send() -> None:
        number = 0
        while not ending.wait(0.02):
            number += 1
            asked = urllib.request.Request(
                f"http://127.0.0.1:{port}/invocations", json.dumps({"dataframe_records": [ROW]}).encode(),
                {"Content-Type": "application/json", "x-request-key": f"key-{number}"})
            with urllib.request.urlopen(asked, timeout=5) as answer:
                answer.read()

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    yield
    ending.set()
    thread.join(10)
