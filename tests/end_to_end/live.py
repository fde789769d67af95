"""The real demo, set up once: servers, gateway, traffic and an engine that watches them closely."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.end_to_end.command import Opsdeck
from tests.procedures.kit import running

WINDOW = "engine: {window: 3s}\n"  # so that what a fault did is forgotten in seconds, not a minute
HOLD = "for: 4s"  # so that a limit pages within seconds
PROCESSES = ("champion", "challenger", "gateway", "replayer")
ENDED = ("done", "failed", "rolled_back", "aborted")


@dataclass(frozen=True)
class Demo(Opsdeck):
    """The command on the demo's home, with what tests of it do again and again."""

    def service(self) -> dict[str, Any]:
        found: dict[str, Any] = self.json("status")["services"][0]
        return found

    def variant(self, name: str) -> dict[str, Any]:
        return next(v for v in self.service()["variants"] if v["name"] == name)

    def weights(self) -> dict[str, float]:
        return {v["name"]: v["weight"] for v in self.service()["variants"]}

    def until(self, what: str, holds: Callable[[], bool], within: float = 40.0) -> None:
        end = time.monotonic() + within
        while not holds():
            if time.monotonic() > end:
                raise AssertionError(f"{what}: not within {within} s\n{self('status').stdout}")

    def pid(self, process: str) -> int | None:
        """The process's pid by the supervisor's record, None if it was stopped."""
        path = self.home / "run" / f"flights-{process}.json"
        return int(json.loads(path.read_text())["pid"]) if path.exists() else None

    def go(self, procedure: str, *options: str, answers: dict[str, str] | None = None
           ) -> dict[str, Any]:
        """Run a procedure to its end as a person would: see what it waits for, and answer that."""
        done = self("run", procedure, "--json", *options, timeout=240)
        view: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
        assert view, done.stderr
        end = time.monotonic() + 240
        while view["state"] not in ENDED:
            assert time.monotonic() < end, view["next"]
            gated = [s for s in view["steps"] if s["gate"]]
            if gated:
                self._answer(view["id"], gated[0], answers or {})
            view = self.json("show", view["id"])
        return view

    def _answer(self, run: str, step: dict[str, Any], answers: dict[str, str]) -> None:
        gate = step["gate"]
        match gate["kind"]:
            case "typed":
                done = self("confirm", run, step["id"], gate["expected"])
            case "confirm":
                done = self("confirm", run, step["id"])
            case "answer":
                done = self("answer", run, step["id"], answers[step["id"]])
            case other:
                raise AssertionError(f"{step['id']} waits for {other}: {step['error']}")
        assert done.returncode == 0, done.stderr

    def mend(self) -> None:
        """No faults, every process running, 95 % to the champion, nothing failing in the window."""
        self("demo", "fault", "clear")
        self.start_missing()
        self.split(95, 5)
        self.until("well again", lambda: self.service()["error_ratio"] == 0.0
                   and self.weights() == {"champion": 95.0, "challenger": 5.0}
                   and (self.service()["p99_ms"] or 1e9) < 100)

    def start_missing(self) -> None:
        """Start what a test has ended, without training and registering again as `setup` would."""
        missing = [name for name in PROCESSES if not running(self.pid(name) or 0)]
        if missing:
            self.procedure("again", "\n".join(
                f"- {{id: {name}, title: Start it, use: service.start, needs: [], effect: idempotent,\n"
                f"   with: {{service: flights, process: {name}}}, irreversible: it runs, timeout: 1m}}"
                for name in missing))
            assert self.go("again")["state"] == "done"

    def split(self, champion: float, challenger: float) -> None:
        import httpx

        admin = json.loads((self.home / "demo" / "gateway.json").read_text())["admin_socket"]
        with httpx.Client(transport=httpx.HTTPTransport(uds=admin)) as client:
            client.put("http://gateway/weights", json={
                "weights": {"champion": champion, "challenger": challenger},
                "lease_s": None}).raise_for_status()


def set_up(home: Path) -> Demo:
    """A demo in `home`, up and well. About twenty seconds."""
    from engine.demo.configs import prepare

    demo = Demo(home)
    home.mkdir(mode=0o700)
    prepare(home, running=False)
    config = home / "opsdeck.yaml"
    config.write_text(config.read_text().replace("for: 20s", HOLD) + WINDOW)
    assert demo("engine", "start").returncode == 0
    done = demo("run", "setup", timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    return demo
