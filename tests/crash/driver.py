"""An engine that kills itself with SIGKILL at one chosen boundary. Forked by the tests.

BOUNDARY is `append:N:before`, `append:N:after` (round the Nth commit of this process) or
`effect:STEP:before|after` (round the process of that step), or `none`. Each commit that returned is
written, with fsync, to HOME/acknowledged before anything else happens: the outside log.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

from engine.config import Config
from engine.journal.lease import take
from engine.procedures.attempts import Outcome
from engine.procedures.run import StepRun
from tests.procedures.kit import BOB, EVE, Kit, World

PATIENCE = 20.0


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def steps(home: Path) -> str:
    """Six steps; each `once` one leaves a mark in an outside log each time its effect happens."""
    def mark(name: str) -> str:
        return f"echo {name} >> {home}/marks"

    return f"""
    - {{id: look, title: Look, shell: "{mark('look')}", effect: none}}
    - {{id: first, title: First, shell: "{mark('first')}", irreversible: test}}
    - {{id: gate, title: Gate, shell: "{mark('gate')}", irreversible: test,
        approvals: {{min: 2}}}}
    - {{id: again, title: Again, shell: "{mark('again')}", effect: idempotent, irreversible: test}}
    - {{id: probed, title: Probed, shell: "{mark('probed')}", irreversible: test,
        probe: {{shell: "grep -q probed {home}/marks"}}}}
    - {{id: last, title: Last, shell: "sleep 0.05; {mark('last')}", irreversible: test}}
    """


class Doomed(Kit):
    """A kit whose commits and effects are counted, and which dies at its boundary."""

    def arm(self, boundary: str) -> None:
        kind, _, rest = boundary.partition(":")
        self._kind = kind
        self._at, _, self._side = rest.rpartition(":")
        self._count = 0
        append, perform = self.journal.append, self.performer.perform
        acknowledged = os.open(self.home / "acknowledged", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

        def counted(events: Any, *, row: Any = None) -> Any:
            self._count += 1
            mine = self._kind == "append" and int(self._at) == self._count
            if mine and self._side == "before":
                die()
            recorded = append(events, row=row)
            for event in recorded:
                os.write(acknowledged, f"{event.run} {event.n} {event.hash}\n".encode())
            os.fsync(acknowledged)
            if mine and self._side == "after":
                die()
            return recorded

        async def performed(run: str, step: StepRun) -> Outcome:
            mine = self._kind == "effect" and self._at == step.id
            if mine and self._side == "before":
                die()
            if mine and self._side == "during":
                asyncio.get_running_loop().call_later(0.03, die)
            outcome = await perform(run, step)
            if mine and self._side == "after":
                die()
            return outcome

        self.journal.append = counted  # type: ignore[method-assign]
        self.performer.perform = performed  # type: ignore[method-assign]


async def main(home: Path, boundary: str, how: str) -> str:
    """`how` is start or recover. A line for each run: its state, and its steps of unknown outcome."""
    said = []
    with take(home / "engine.lock"):
        kit = Doomed(home, Config(), World(), time.time)
        kit.arm(boundary)
        if how == "start":
            lives = [await kit.start(steps(home))]
        else:
            lives = await kit.recover()
        for live in lives:
            view = await kit.until(live, lambda v: v.state in ("done", "failed", "waiting"), PATIENCE)
            while view.state == "waiting" and any(s.id == "gate" and s.gate for s in view.steps):
                have = next(s for s in view.steps if s.id == "gate").gate.approvals  # type: ignore[union-attr]
                by = next(p for p in (BOB, EVE) if p.user not in have)
                await kit.act(live, "approve", by=by, step="gate")
                view = await kit.until(live, lambda v: v.state in ("done", "failed", "waiting"), PATIENCE)
            said.append(f"{view.state} {[s.id for s in view.steps if s.state == 'unknown']}\n")
        await kit.close()
    return "".join(said)
