"""Following a run on a terminal or in CI: a line a step, answers asked for, and the exit code."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from engine.api import wire
from engine.api.backend import OutputChunk, Verb
from engine.errors import EngineUnreachable, OpsdeckError

if TYPE_CHECKING:
    from engine.cli.run import Desk

EXIT = {"done": 0, "failed": 1, "rolled_back": 5, "aborted": 6, "waiting": 3, "paused": 3,
        "running": 3}
GLYPHS = {"done": "✔", "failed": "✘", "skipped": "–", "unknown": "?", "undone": "↶", "waiting": "▶"}
AWAY = 20.0
ENDED = ("done", "failed", "rolled_back", "aborted")


def exit_code(view: wire.RunView) -> int:
    """The exit code for how a run stands; 4 when an outcome is unknown."""
    if view.state not in ENDED and any(s.state == "unknown" for s in view.steps):
        return 4
    return EXIT[view.state]


class Follower:
    """Follows one run. `asking`: a person is there to answer; otherwise it fails closed. `embedded`:
    the engine ends with this process."""

    def __init__(self, desk: Desk, *, asking: bool, quiet: bool, embedded: bool) -> None:
        self._desk = desk
        self._asking = asking
        self._quiet = quiet
        self._embedded = embedded
        self._shown: dict[tuple[str, int], str] = {}
        self._refused: set[str] = set()
        self._beside = False  # whether several steps run, whose lines then say whose they are

    def follow(self, view: wire.RunView) -> wire.RunView:
        """Until the run ends or only a person elsewhere helps. Survives a restart of the engine."""
        if not self._quiet:
            unisolated = "  unisolated" if view.unisolated else ""
            print(f"run {view.id}  {view.title}  by {view.by}{unisolated}")
            if view.review:
                print(f"  note: {view.review}")
        away: float | None = None
        while True:
            try:
                for update in self._desk.follow(view.id):
                    away = None
                    if isinstance(update, OutputChunk):
                        self._output(update)
                        continue
                    view = update
                    self._show(view)
                    held = view.state == "paused" and all(s.state != "intent" for s in view.steps)
                    if view.state in ENDED or held or (
                            view.state == "waiting" and not self._answer(view)):
                        return self._closed(view)
            except EngineUnreachable:
                away = away or time.monotonic()
                if time.monotonic() - away > AWAY:
                    raise
                time.sleep(0.5)
            else:
                return self._closed(self._desk.run(view.id))

    def _closed(self, view: wire.RunView) -> wire.RunView:
        if self._quiet:
            return view
        if view.state in ENDED:
            why = f": {view.reason}" if view.reason else ""
            print(f"run {view.id} {view.state.replace('_', ' ')}{why}")
        else:
            print(f"run {view.id} waits: {view.next}")
            print(f"  it stays until it is answered or aborted: {self._later(view)}")
        return view

    def _later(self, view: wire.RunView) -> str:
        if self._embedded:
            return (f"`opsdeck engine start` gives it an engine to answer to, then `opsdeck show {view.id}` "
                    "tells more")
        return f"`opsdeck show {view.id}` tells more"

    def _show(self, view: wire.RunView) -> None:
        if self._quiet:
            return
        self._beside = sum(step.state == "intent" for step in view.steps) > 1
        for number, step in enumerate(view.steps, 1):
            key = (step.id, step.attempt)
            if step.state in ("planned", "intent") or self._shown.get(key) == step.state:
                continue
            self._shown[key] = step.state
            if step.state == "waiting":
                continue
            took = f"  {step.ended - step.started:.1f} s" if step.started and step.ended else ""
            why = step.error or step.reason
            print(f" {GLYPHS[step.state]} {number} {step.id}  {step.title}  {step.state}{took}"
                  + (f"\n     {why}" if why else ""), flush=True)

    def _output(self, chunk: OutputChunk) -> None:
        if self._quiet:
            return
        whose = f"{chunk.step}: " if self._beside else ""
        for line in chunk.text.splitlines():
            print(f"     {whose}{line}", flush=True)

    def _answer(self, view: wire.RunView) -> bool:
        """Ask whoever is there; False when nothing was answered."""
        step = next((s for s in view.steps if s.gate is not None), None)
        if step is None or step.gate is None or not self._asking or step.gate.digest in self._refused:
            return False
        gate = step.gate
        self._dialog(view, step)
        verb, act = self._ask(step, gate)
        if verb is None:
            self._refused.add(gate.digest)
            return False
        try:
            self._desk.act(view.id, verb, act)
        except OpsdeckError as error:
            print(f"  not accepted: {error}")
            return not isinstance(error, EngineUnreachable) and self._answer(
                self._desk.run(view.id))
        return True

    def _dialog(self, view: wire.RunView, step: wire.StepView) -> None:
        print(f"\n {step.id}  {step.title}")
        print(f"   runs    {step.command}")
        if step.preview:
            print(f"   now     {step.preview.now}\n   after   {step.preview.after}")
        undo = step.undo or (f"no: {step.irreversible}" if step.irreversible else "none given")
        print(f"   undo    {undo}\n   effect  {step.effect}")

    def _ask(self, step: wire.StepView, gate: wire.Gate) -> tuple[Verb | None, wire.Act]:
        seen = step.preview.state if step.preview else None
        act = wire.Act(step=step.id, digest=gate.digest, seen_state=seen)
        if gate.kind == "typed":
            act.text = _line(f"   type {gate.expected} to run it: ")
            return ("confirm" if act.text else None), act
        if gate.kind == "confirm":
            return ("confirm" if _line("   run it? y/N: ").lower() in ("y", "yes") else None), act
        if gate.kind == "answer":
            act.text = _line(f"   {gate.prompt} ")
            return ("answer" if act.text else None), act
        if gate.kind == "settle":
            act.text = _line("   did it take effect? done / not-done: ")
            return ("settle" if act.text else None), act
        if gate.kind == "failed":
            return ("retry" if _line("   retry? y/N: ").lower() in ("y", "yes") else None), act
        return None, act


def _line(prompt: str) -> str:
    print(prompt, end="", flush=True)
    return sys.stdin.readline().strip()
