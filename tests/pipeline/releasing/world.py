"""A service with a gateway, two model servers and traffic, whose engine may come and go; and a project whose
runs have registered and staged a model."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from engine import home as homes
from engine.api import wire
from engine.api.backend import Backend, Caller
from engine.app import open_engine
from engine.config_file import of_engine
from engine.journal.lease import take
from engine.pipeline.building import places
from engine.pipeline.releasing.registry import CHAMPION, Registry
from engine.pipeline.stages import register, staging
from engine.serving import manifest
from tests.pipeline.releasing.built import Built, build, commit, settings
from tests.serving.harness import Gateway, free_port, wait_for

ADMIN = Caller("root", 0, 1, frozenset({"admin", "operator"}), "tests")
BOB = Caller("bob", 1002, 1, frozenset({"approver"}), "tests")
RELEASE = {"service": "flights", "folder": "models/challenger", "process": "challenger", "procedure": "quick",
           "other": {"folder": "models/champion", "process": "champion", "variant": "champion"}}
RUNS = range(1, 41)
QUICK = """opsdeck: 1
id: quick
title: A quick rollout
kind: rollout
owner: tests
reviewed: 2026-11-20
review_every: 9999d
params:
  service: {type: string, required: true}
  to: {type: string, required: true}
rollout:
  service: "${{ params.service }}"
  to: "${{ params.to }}"
  canary: [10, {weight: 50, approvals: {min: 1, roles: [approver], not_initiator: true}}, 100]
  requests: 5
  hold: 0.3s
  bake: 0.3s
  holdback: 20
  lease: 5s
  judge: {good: false}
"""
LET_GO = """opsdeck: 1
id: let-go
title: Release what was registered
kind: runbook
owner: tests
reviewed: 2026-11-20
review_every: 9999d
params:
  version: {type: string, required: true}
  manifest: {type: string, required: true}
  model: {type: string, required: true}
steps:
  - id: release
    title: Release it
    use: pipeline.release
    with:
      project: late-flights
      service: flights
      version: "${{ params.version }}"
      manifest: "${{ params.manifest }}"
      model_manifest: "${{ params.model }}"
    irreversible: the rollout is undone by its own run
    on_failure: ask
    timeout: 5m
"""


@dataclass
class World:
    """What outlives an engine."""

    home: homes.Home
    built: Built
    gateway: Gateway
    registry: Registry
    params: dict[str, str]
    refused: list[str] = field(default_factory=list)

    @property
    def weights(self) -> dict[str, float]:
        found: dict[str, float] = self.gateway.weights()["weights"]
        return found

    def served(self, slot: str) -> str | None:
        try:
            return manifest.verify(self.home.path / "models" / slot).version
        except manifest.ManifestError:
            return None

    def project(self, **change: Any) -> None:
        """Write the project's file with another `release`."""
        (self.built.folder / "opsdeck.pipeline.yaml").write_text(
            yaml.safe_dump(settings(release={**RELEASE, **change})))

    def faults(self, slot: str, share: float) -> None:
        path = self.home.path / f"{slot}.faults"
        path.write_text(json.dumps({"errors": {"model_error": share}}))

    @contextlib.asynccontextmanager
    async def engine(self) -> AsyncIterator[Backend]:
        with take(self.home.lock):
            async with open_engine(self.home, of_engine(self.home)) as app:
                yield app.backend

    async def let_go(self, backend: Backend, **change: str) -> str:
        view = await backend.start_run(ADMIN, wire.StartRun(
            procedure="let-go", params={**self.params, **change}))
        return view.id


async def until(backend: Backend, id: str, holds: Callable[[wire.RunView], bool], within: float = 20.0
                ) -> wire.RunView:
    end = time.monotonic() + within
    while not holds(view := await backend.run(id)):
        told = [(step.id, step.state, step.error, step.gate is not None) for step in view.steps]
        assert time.monotonic() < end, f"run {id}: {view.state}, {told}"
        await asyncio.sleep(0.02)
    return view


async def child_of(backend: Backend, id: str) -> str:
    """The rollout that a run has started."""
    end = time.monotonic() + 15.0
    while True:
        for event in await backend.timeline(id):
            if event.kind == "child.started":
                with contextlib.suppress(Exception):
                    await backend.run(event.data["id"])
                    return str(event.data["id"])
        view = await backend.run(id)
        assert time.monotonic() < end and view.steps[0].state != "failed", view.steps[0].error
        await asyncio.sleep(0.02)


async def approve(backend: Backend, id: str, step: str = "weight-50") -> None:
    view = await until(backend, id, lambda v: any(s.id == step and s.gate for s in v.steps))
    gate = next(s.gate for s in view.steps if s.id == step)
    assert gate is not None
    await backend.act(BOB, id, "approve", wire.Act(step=step, digest=gate.digest))


@contextlib.contextmanager
def world(root: Path) -> Iterator[World]:
    home = homes.at(root / "home")
    homes.prepare(home)
    built = build(root / "built", release=RELEASE)
    ports = {name: free_port() for name in ("champion", "challenger")}
    # As in a gateway that has run for a while: it knows the version that was in a place before.
    gateway = Gateway(home.path, {name: {"url": f"http://127.0.0.1:{port}", "version": "0"}
                                  for name, port in ports.items()})
    (home.path / "runbooks").mkdir(exist_ok=True)
    (home.path / "runbooks" / "quick.yaml").write_text(QUICK)
    (home.path / "runbooks" / "let-go.yaml").write_text(LET_GO)
    _config(home, gateway, ports, built)
    params = _staged(home, built)
    made = World(home, built, gateway, Registry(f"sqlite:///{built.root}/mlflow.db"), params)
    made.project()
    commit(built.folder, "the project's file")
    ended = threading.Event()
    caller = threading.Thread(target=_traffic, args=(gateway.port, ended, made.refused), daemon=True)
    try:
        asyncio.run(_started(made))
        caller.start()
        wait_for(lambda: gateway.count("champion") > 20, "traffic")
        yield made
    finally:
        ended.set()
        caller.join(5)
        asyncio.run(_stopped(made))
        gateway.kill()


def _config(home: homes.Home, gateway: Gateway, ports: dict[str, int], built: Built) -> None:
    servers = {name: {"command": [sys.executable, "-m", "engine.serving.model_server", "--model",
                                  f"models/{name}", "--port", str(port), "--faults", f"{name}.faults"],
                      "env": {"OMP_NUM_THREADS": "1"}, "ready": f"http://127.0.0.1:{port}/ping"}
               for name, port in ports.items()}
    (home.path / "opsdeck.yaml").write_text(yaml.safe_dump({
        "engine": {"scrape_interval": "250ms", "window": "10s", "stale_after": "2s"},
        "pipelines": {"tracking": f"sqlite:///{built.root}/mlflow.db",
                      "projects": {"late-flights": str(built.folder)}},
        "services": {"flights": {
            "scrape": [f"http://127.0.0.1:{gateway.port}/metrics"], "champion": "champion",
            "gateway": {"admin": str(gateway.admin)}, "processes": servers,
            "manifests": {name: str(home.path / "models" / name / "manifest.json") for name in ports}}}}))


def _staged(home: homes.Home, built: Built) -> dict[str, str]:
    """Two versions in the registry, the first in production; the second as each run of RUNS has left it."""
    first = register.run(built.work("register", "first"))
    (built.folder / "training.py").write_text("def train(inputs, output, params):\n    return None\n")
    (built.folder / "tests").mkdir()
    (built.folder / "tests" / "test_it.py").write_text("def test_it():\n    assert True\n")
    commit(built.folder, "second")
    registered = built.work("register", "second")
    second = register.run(registered)
    built.before["register"] = dict(second.result)
    work = built.work("staging", "second")
    staged = staging.run(replace(work, inputs={**work.inputs, "register": registered.output}))
    assert staged.passed, staged.says
    registry = Registry(str(work.settings["tracking"]))
    registry.point(first.result["name"], CHAMPION, first.result["version"])
    old = home.path / "models" / "champion"
    old.mkdir(parents=True)
    for name in ("model.onnx", "run.json"):
        (old / name).write_bytes((work.output / "model" / name).read_bytes())
    stated = json.loads((work.output / "model" / "manifest.json").read_text())
    manifest.write(old, name=stated["name"], version=first.result["version"], inputs=stated["inputs"],
                   output=stated["output"])
    at = places.make(home.path, "late-flights")
    for run in RUNS:
        (at.root / "runs" / str(run)).mkdir()
        for stage, done, output in (("register", second, registered.output),
                                    ("staging", staged, work.output)):
            places.write_json(at.steps.noted(str(run), stage), {
                "stage": stage, "key": "k", "cached": False, "passed": True, "says": done.says,
                "result": dict(done.result), "output": str(output)})
    return {"version": second.result["version"], "manifest": second.result["manifest_sha256"],
            "model": staged.result["model_manifest"]}


async def _started(made: World) -> None:
    from engine.supervision import ProcessSupervisor, processes

    supervisor = ProcessSupervisor(made.home.path, processes(of_engine(made.home)))
    await supervisor.start("flights/champion")


async def _stopped(made: World) -> None:
    from engine.supervision import ProcessSupervisor, processes

    supervisor = ProcessSupervisor(made.home.path, processes(of_engine(made.home)))
    for name in ("champion", "challenger"):
        await supervisor.stop(f"flights/{name}", 2.0)


def _traffic(port: int, ended: threading.Event, refused: list[str]) -> None:
    body = json.dumps({"dataframe_split": {"columns": ["distance", "temp", "hour", "carrier"],
                                           "data": [[1400.0, 39.0, 7, "UA"]]}}).encode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    while not ended.wait(0.004):
        try:
            connection.request("POST", "/invocations", body, {"content-type": "application/json"})
            answer = connection.getresponse()
            said = answer.read()
            if answer.status != 200:
                refused.append(f"{answer.status} {said[:80]!r}")
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            refused.append(str(error))
    connection.close()
