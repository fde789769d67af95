"""Performing one attempt of one step: a process, or an action in this process.

What comes back is an Outcome, never an exception: done, failed (known not to have worked) or unknown
(may have taken effect). Which of the last two follows from the step's effect.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from engine.config import Config
from engine.errors import ActionFailed, Decided, OpsdeckError, OutcomeUnknown
from engine.procedures import carried, curves, output, rendering
from engine.procedures.actions import Action, Command, Context, Effect, Registry
from engine.procedures.ending import ABORTED, until_ended, until_gone
from engine.procedures.processes import Attempt, Child, boot_id, environment, spawn
from engine.procedures.run import StepRun
from engine.procedures.secrets import mask

State = Literal["done", "failed", "unknown"]


@dataclass(frozen=True)
class Outcome:
    """What an attempt came to. `final` forbids an automatic retry, `decided` asking a person for one."""

    state: State
    error: str | None = None
    exit_code: int | None = None
    result: Any = None
    stdout: str = ""
    output: dict[str, Any] = field(default_factory=dict)
    final: bool = False
    decided: bool = False

    def data(self) -> dict[str, Any]:
        """As the `step.outcome` event records it."""
        return {k: v for k, v in vars(self).items() if v or (v == 0 and v is not False)} | {
            "state": self.state, "result": self.result}


ContextFactory = Callable[[str, StepRun, Mapping[str, str], Callable[[str], None]], Context]


class Performer:
    """Performs attempts under `home`/runs. One per engine."""

    def __init__(self, home: Path, config: Config, registry: Registry, make_context: ContextFactory,
                 *, system: bool) -> None:
        self._home = home
        self._config = config
        self._registry = registry
        self._make_context = make_context
        self._system = system
        self._boot = boot_id()
        self._children: dict[tuple[str, str], Child | Attempt] = {}
        self._secrets: dict[tuple[str, str], list[str]] = {}
        self.closing = False

    def use_config(self, config: Config) -> None:
        """Perform by another config from the next attempt on."""
        self._config = config

    @property
    def boot(self) -> str:
        return self._boot

    def attempt(self, run: str, step: str, attempt: int) -> Attempt:
        """The folder of an attempt; whether it exists is not asked."""
        return Attempt(self._home / "runs" / run / f"{step.replace(':', '-')}.{attempt}")

    def context(self, run: str, step: StepRun) -> Context:
        """What an action's preview may reach: as for running it, but what it logs is not kept."""
        return self._make_context(run, step, {}, lambda text: None)

    def sessions(self) -> set[int]:
        """The sessions of the processes of steps that run now."""
        found = set()
        for child in self._children.values():
            pid = child.session if isinstance(child, Child) else child.pid()
            if pid is not None:
                found.add(pid)
        return found

    def secrets_of(self, run: str, step: StepRun, attempt: int) -> list[str] | None:
        """What to mask in an attempt's output; None when it must be withheld, because it holds
        secrets that are not known here and was not masked on the disk."""
        if not self._references(step, self.attempt(run, step.id, attempt)):
            return []
        if step.state == "intent" and step.attempt == attempt:
            return self._secrets.get((run, step.id))
        return [] if self.attempt(run, step.id, attempt).masked.exists() else None

    async def perform(self, run: str, step: StepRun) -> Outcome:
        """Run the step's rendered operation to its end, its timeout, or a cancellation (abort)."""
        assert step.op is not None
        try:
            return await (self._use(run, step) if "use" in step.op else self._shell(run, step))
        except ActionFailed as error:
            return Outcome("failed", str(error))
        except OutcomeUnknown as error:
            return Outcome(_doubt(step.effect), str(error))
        except OpsdeckError as error:
            return Outcome("failed", str(error), final=True)
        except Exception as error:
            logging.getLogger("opsdeck").exception("step %s of run %s broke", step.id, run)
            return Outcome(_doubt(step.effect), f"it broke inside ({type(error).__name__}: {error});"
                           " the engine's log has the details")

    async def _shell(self, run: str, step: StepRun) -> Outcome:
        op, attempt = step.op or {}, self.attempt(run, step.id, step.attempt)
        env, secrets = {}, []
        for name, value in (op.get("env") or {}).items():
            env[name], secret = await asyncio.to_thread(rendering.resolve, value)
            secrets += [secret] if secret else []
        stdin = None
        if op.get("stdin") is not None:
            text, secret = await asyncio.to_thread(rendering.resolve, op["stdin"])
            stdin = text.encode()
            secrets += [secret] if secret else []
        env |= {"OPSDECK_RUN": run, "OPSDECK_STEP": step.id, "OPSDECK_ATTEMPT": str(step.attempt)}
        user = self._config.engine.steps_user if self._system else None
        child = spawn(attempt, op["shell"], stdin=stdin, cwd=self._home, user=user,
                      environ=environment(os.environ, scrub=self._system, extra=env, user=user))
        return await self._to_its_end(run, step, child, step.spec.timeout, secrets)

    async def _to_its_end(self, run: str, step: StepRun, child: Child, timeout: float,
                          secrets: list[str]) -> Outcome:
        key = (run, step.id)
        self._children[key], self._secrets[key] = child, secrets
        try:
            try:
                why = await until_ended(child, timeout, step.spec.timeout, lambda: self.closing)
            except asyncio.CancelledError:
                if self.closing:
                    raise
                why = ABORTED  # cut short while it was being ended: no more grace
            if why is not None:
                child.signal(signal.SIGKILL)
            return await self._ended(step, child.attempt, child.reap(), why, secrets)
        finally:
            if not self.closing:
                self._children.pop(key, None)
                self._secrets.pop(key, None)

    async def _ended(self, step: StepRun, attempt: Attempt, code: int | None, why: str | None,
                     secrets: list[str]) -> Outcome:
        cap = self._config.engine.output_cap
        small = _size(attempt.stdout) + _size(attempt.stderr) < 1 << 20
        read = output.collect if small else _in_thread(output.collect)
        kept, known = await _value(read(attempt.stdout, attempt.stderr, cap, secrets))
        state: State = "done"
        error = why
        if "use" in (step.op or {}):
            known.pop("json", None)
            said = await asyncio.to_thread(carried.read, attempt.result, secrets)
            state, error = carried.verdict(said, code, known["stderr"])
            if why is not None:
                state, error = _doubt(step.effect), why
            return Outcome(state, error, code, said.result, kept, known)
        if why is not None:
            state = _doubt(step.effect)
        elif code != 0 and not _expects_exit_code(step):
            state, error = "failed", _exit_sentence(code, known["stderr"])
        result = known.get("json")
        return Outcome(state, error, code, result, kept, known)

    async def _use(self, run: str, step: StepRun) -> Outcome:
        action = self._registry.get((step.op or {})["use"])
        if action is None:
            return Outcome("failed", f"there is no action {(step.op or {})['use']}", final=True)
        if action.command is not None:
            return await self._process(run, step, action)
        return await self._action(run, step, action)

    async def _process(self, run: str, step: StepRun, action: Action[Any]) -> Outcome:
        """An action that a process carries: asked which, it is run as a shell step is."""
        assert action.command is not None
        op, attempt = step.op or {}, self.attempt(run, step.id, step.attempt)
        attempt.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        end = asyncio.get_running_loop().time() + step.spec.timeout
        given = {name: (await asyncio.to_thread(rendering.resolve, {"secret": reference}))[0]
                 for name, reference in (op.get("secrets") or {}).items()}
        with attempt.stdout.open("a", encoding="utf-8", buffering=1) as log:
            context = self._make_context(run, step, given,
                                         lambda text: print(mask(text, given.values()), file=log))
            args = rendering.parse_args(action, op["with"], step.id)
            try:
                asked = await asyncio.wait_for(action.command(context, args), step.spec.timeout)
            except TimeoutError:
                return self._logged(attempt, Outcome("failed", (
                    f"nothing was started within its timeout of {step.spec.timeout:g} s")))
            except asyncio.CancelledError:
                if self.closing:
                    raise
                return self._logged(attempt, Outcome("failed", ABORTED))
            except OpsdeckError as error:
                return self._logged(attempt, Outcome("failed", str(error)))
        if not isinstance(asked, Command):
            return self._logged(attempt, Outcome("done", result=msgspec.to_builtins(asked)))
        env, hidden = dict(asked.env), {}
        for name, reference in asked.secrets.items():
            hidden[name] = (await asyncio.to_thread(rendering.resolve, {"secret": reference}))[0]
        if not asked.unseen:
            env |= hidden
        carried.keep_references(attempt.references, [*(op.get("secrets") or {}).values(),
                                                     *asked.secrets.values()])
        env |= {"OPSDECK_RUN": run, "OPSDECK_STEP": step.id, "OPSDECK_ATTEMPT": str(step.attempt),
                "OPSDECK_RESULT": str(attempt.result), "OPSDECK_PROGRESS": str(attempt.progress)}
        user = self._config.engine.steps_user if self._system and asked.user == "steps" else None
        child = spawn(attempt, asked.argv, cwd=self._home, keep=True, user=user,
                      stdin=json.dumps(hidden).encode() if asked.unseen else None,
                      environ=environment(os.environ, scrub=True, extra=env, user=user),
                      umask=0o022 if user else -1)
        left = max(0.0, end - asyncio.get_running_loop().time())
        return await self._to_its_end(run, step, child, left,
                                      [*given.values(), *hidden.values()])

    def _references(self, step: StepRun, attempt: Attempt) -> list[dict[str, str]]:
        """The references of the secrets that an attempt's process was given."""
        return rendering.secret_values(step.op or {}) + carried.references(attempt.references)

    def left_a_process(self, run: str, step: StepRun) -> bool:
        """Whether `adopt` can settle an attempt in flight: a process carries it, or would have."""
        op = step.op or {}
        action = self._registry.get(op.get("use") or "")
        return ("shell" in op or (action is not None and action.command is not None)
                or self.attempt(run, step.id, step.attempt).pid() is not None)

    def curve(self, run: str, step: str, attempt: int) -> list[dict[str, Any]]:
        """The newest points {"name", "step", "value"} that an attempt's process gave. Blocks."""
        return curves.read(self.attempt(run, step, attempt).progress, 0)[0]

    async def _action(self, run: str, step: StepRun, action: Action[Any]) -> Outcome:
        assert action.run is not None
        op = step.op or {}
        attempt = self.attempt(run, step.id, step.attempt)
        attempt.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        log = attempt.stdout.open("a", encoding="utf-8", buffering=1)
        with log:
            secrets = {name: rendering.resolve({"secret": reference})[0]
                       for name, reference in (op.get("secrets") or {}).items()}
            context = self._make_context(run, step, secrets,
                                         lambda text: print(mask(text, secrets.values()), file=log))
            args = rendering.parse_args(action, op["with"], step.id)
            try:
                result = await asyncio.wait_for(action.run(context, args), step.spec.timeout)
            except TimeoutError:
                return self._logged(attempt, Outcome(_doubt(step.effect), (
                    f"it took longer than its timeout of {step.spec.timeout:g} s")))
            except asyncio.CancelledError:
                if self.closing:
                    raise
                return self._logged(attempt, Outcome(_doubt(step.effect),
                                                     ABORTED))
            except ActionFailed as error:
                return self._logged(attempt, Outcome("failed", str(error), final=isinstance(error, Decided),
                                                     decided=isinstance(error, Decided)))
            except OutcomeUnknown as error:
                return self._logged(attempt, Outcome(_doubt(step.effect), str(error)))
            except OpsdeckError as error:
                return self._logged(attempt, Outcome("failed", str(error)))
        return self._logged(attempt, Outcome("done", result=msgspec.to_builtins(result)))

    def _logged(self, attempt: Attempt, outcome: Outcome) -> Outcome:
        kept, known = output.collect(attempt.stdout, attempt.stderr,
                                     self._config.engine.output_cap, [])
        known.pop("json", None)
        return replace(outcome, exit_code=None, stdout=kept, output=known)

    async def adopt(self, run: str, step: StepRun) -> Outcome | Literal["never-started"] | None:
        """Settle an attempt that a process carries and that an engine before this one left in flight.

        Still alive: wait for it, no longer than its timeout from when it began. Ended: its exit
        status is in its folder. "never-started": it is known not to have begun. None: nothing is
        known (the machine went down, or the process was killed).
        """
        attempt = self.attempt(run, step.id, step.attempt)
        key = (run, step.id)
        self._children[key] = attempt
        secrets: list[str] | None = None
        with contextlib.suppress(ActionFailed):
            secrets = [(await asyncio.to_thread(rendering.resolve, value))[0]
                       for value in self._references(step, attempt)]
            self._secrets[key] = secrets
        why = None
        try:
            deadline = (step.started or 0.0) + step.spec.timeout
            why = await until_gone(attempt, deadline, lambda: self.closing)
        finally:
            if not self.closing:
                self._children.pop(key, None)
                self._secrets.pop(key, None)
        code = attempt.status()
        if code is None and why is None:
            started = attempt.pid() is not None or step.boot != self._boot
            return None if started else "never-started"
        if secrets is None and code == 0 and "use" in (step.op or {}) and step.effect != "once":
            return None  # its result cannot be masked, and it may be asked for again
        if secrets is None:
            state: State = "done" if code == 0 else "failed"
            return Outcome(state if why is None else _doubt(step.effect), why, code, output={
                "withheld": "its secrets can no longer be resolved, so it cannot be masked"})
        return await self._ended(step, attempt, code, why, secrets)

    async def probe(self, run: str, step: StepRun, op: Mapping[str, Any]) -> str:
        """Ask a probe: "done", "not-done" or "unknown"."""
        if "use" in op:
            spec = StepRun(id=f"{step.id}-probe", spec=step.spec, op=dict(op), effect="none",
                           attempt=step.attempt)
            outcome = await self._use(run, spec)
            return "done" if outcome.state == "done" else (
                "not-done" if outcome.state == "failed" else "unknown")
        asked = StepRun(id=f"{step.id}-probe", spec=step.spec, op=dict(op), effect="none",
                        attempt=step.attempt)
        outcome = await self.perform(run, asked)
        return {0: "done", 1: "not-done"}.get(
            -1 if outcome.exit_code is None else outcome.exit_code, "unknown")


def _doubt(effect: Effect) -> State:
    """What an attempt cut short is: a `once` step may have taken effect."""
    return "unknown" if effect == "once" else "failed"


def _expects_exit_code(step: StepRun) -> bool:
    return step.spec.expect is not None and "exit_code" in step.spec.expect


def _exit_sentence(code: int | None, stderr: str) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"it was ended by {name}"
    last = output.harmless(stderr).strip().splitlines()
    said = f": {last[-1][:200]}" if last else ""
    return f"it exited with {code}{said}"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _in_thread(function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    return lambda *args: asyncio.to_thread(function, *args)


async def _value(value: Any) -> Any:
    return await value if asyncio.iscoroutine(value) else value
