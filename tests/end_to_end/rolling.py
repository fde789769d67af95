"""Rollouts of the real demo as a person drives them, and what its gateway says meanwhile."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import home as homes
from engine.api import wire
from engine.api.light import Client
from tests.end_to_end.live import ENDED, Demo
from tests.end_to_end.shifts import Gateway, Seen, Witness

HEAD = """opsdeck: 1
id: {name}
title: A quick rollout
kind: rollout
owner: tests
reviewed: 2026-11-20
review_every: 9999d
params:
  service: {{type: string, required: true}}
  to: {{type: string, required: true}}
rollout:
  service: "${{{{ params.service }}}}"
  to: "${{{{ params.to }}}}"
"""
# A good version is shown to be no worse soonest where both have half of the traffic.
QUICK = """
  canary: [25, {weight: 50, hold: 5s}, 100]
  requests: 20
  hold: 1s
  bake: 3s
  holdback: 45
  lease: 6s
"""
LEASE_S = 3.0
STAYS = f"""
  canary: [{{weight: 25, hold: 10m}}, 100]
  lease: {LEASE_S:g}s
"""
GATED = """
  canary: [5, {weight: 25, approvals: {min: 1, roles: [approver], not_initiator: true}}, 100]
  requests: 0
  lease: 5s
"""
PLANS = {"quick": QUICK, "stays": STAYS, "gated": GATED}
ALL_CHAMPION = {"champion": 100.0, "challenger": 0.0}


@dataclass(frozen=True)
class Outcome:
    """What one fault came to: seconds from its injection to the stable weights, which were seen at
    `back` (monotonic); requests that the challenger got from then on, and how many of them failed."""

    fault: str
    seconds: float
    back: float
    got: int
    failed: int
    view: dict[str, Any]


class Rolling:
    """Rollouts of `flights` in a demo."""

    def __init__(self, demo: Demo) -> None:
        self.demo = demo
        self.gateway = Gateway(demo.home)

    def plan(self, name: str, text: str) -> None:
        place = self.demo.home / "runbooks"
        place.mkdir(exist_ok=True)
        (place / f"{name}.yaml").write_text(HEAD.format(name=name) + text)

    def start(self, plan: str, to: str = "challenger") -> str:
        """Start a plan of the home; the run's id."""
        started = self.demo.json("rollout", "start", "flights", "--to", to, "--plan", plan, "--no-follow")
        return str(started["id"])

    def show(self, run: str) -> dict[str, Any]:
        shown: dict[str, Any] = self.demo.json("show", run)
        return shown

    def ended(self, run: str, within: float = 60.0) -> dict[str, Any]:
        end = time.monotonic() + within
        while (view := self.show(run))["state"] not in ENDED:
            assert time.monotonic() < end, json.dumps(view, indent=1)
            time.sleep(0.1)
        return view

    def at(self, witness: Witness, weight: float, since: float = 0.0) -> Seen:
        """The moment from which the challenger was seen with a weight."""
        return witness.first(lambda seen: abs(seen.weights["challenger"] - weight) < 0.01, since)

    def engine(self) -> wire.EngineInfo:
        """What this home's engine says of itself, asked without the time that a command takes."""
        return Client(homes.at(self.demo.home).socket).engine()

    def kill_engine(self, pid: int | None = None) -> None:
        """SIGKILL this home's engine, and see that it is gone."""
        pid = pid or self.engine().pid
        os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + 5.0
        while _alive(pid):
            assert time.monotonic() < end, f"engine {pid} does not end"
            time.sleep(0.005)

    def abort(self, run: str, reason: str) -> None:
        """As `opsdeck rollout abort`; it returns when the engine has accepted it."""
        client = Client(homes.at(self.demo.home).socket)
        client.act(run, "abort", wire.Act(reason=reason, rollback=True))

    def start_engine(self) -> None:
        done = self.demo("engine", "start")
        assert done.returncode == 0, done.stdout + done.stderr

    @contextmanager
    def witness(self) -> Iterator[Witness]:
        with Witness(self.gateway) as found:
            yield found

    def break_at_25(self, witness: Witness, fault: str, *amount: str, plan: str = "stays",
                    retry: bool = False, settled: bool = True, within: float = 30.0) -> Outcome:
        """Roll out, inject a fault once the challenger has 25 % and was watched, see it rolled back;
        `settled`: and all that it was asked answered."""
        begun = time.monotonic()
        run = (str(self.demo.json("rollout", "retry", "flights", "--no-follow")["id"]) if retry
               else self.start(plan))
        self.at(witness, 25.0, begun)
        self.demo.until("watched", lambda: self.rollout(run)["exposed"] > 0)
        before = self.gateway.served("challenger")
        injected = time.monotonic()
        self.demo("demo", "fault", fault, *(("--amount", *amount) if amount else ()))
        back = witness.first(lambda seen: seen.weights == ALL_CHAMPION, injected, within)
        view = self.ended(run)
        self.demo("demo", "fault", "clear")
        if settled:
            self.demo.until("all answered", lambda: self.gateway.under_way("challenger") == 0, 5.0)
        after = self.gateway.served("challenger")
        return Outcome(" ".join((fault, *amount)), back.at - injected, back.asked, after[0] - before[0],
                       after[1] - before[1], view)

    def rollout(self, name: str = "flights") -> dict[str, Any]:
        found: dict[str, Any] = self.demo.json("rollout", "status", name)
        return found


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
