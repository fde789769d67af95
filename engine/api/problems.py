"""Errors of `engine.errors` to and from the wire, and the sentences for an engine that is away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from engine import errors
from engine.api import wire

START = "start one with `opsdeck engine start`"


def to_wire(error: errors.OpsdeckError, at: float) -> wire.Problem:
    """The body of a refusal; `at` is the engine's time."""
    problems = error.problems if isinstance(error, errors.DocumentError) else []
    return wire.Problem(code=error.code, message=error.message, exit_code=error.exit_code, at=at,
                        where=error.where, hint=error.hint, problems=list(problems))


def from_wire(problem: wire.Problem) -> errors.OpsdeckError:
    """The error a refusal stands for; of an unknown code, an OpsdeckError with its exit code."""
    if problem.code == errors.DocumentError.code:
        return errors.DocumentError(problem.message, problem.problems, where=problem.where,
                                    hint=problem.hint)
    for kind in _tree(errors.OpsdeckError):
        if kind.code == problem.code:
            return kind(problem.message, where=problem.where, hint=problem.hint)
    other = errors.OpsdeckError(problem.message, where=problem.where, hint=problem.hint)
    other.exit_code = problem.exit_code
    other.code = problem.code
    return other


def _tree(kind: type[errors.OpsdeckError]) -> Iterator[type[errors.OpsdeckError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)


def unreachable(socket: Path, error: OSError) -> errors.OpsdeckError:
    """What a failed connection means: no engine, or one whose socket is not for this user."""
    if isinstance(error, PermissionError):
        return errors.NotPermitted("you may not open the engine's socket", where=str(socket),
                                   hint="its group is `engine: group:` in opsdeck.yaml; ask to be "
                                        "added to it")
    if isinstance(error, TimeoutError):
        return errors.EngineUnreachable("the engine does not answer", where=str(socket),
                                        hint="look at `opsdeck engine status` and at its log")
    return errors.EngineUnreachable(f"no engine answers at {socket}", hint=START)


def lost(socket: Path, *, sent: bool) -> errors.EngineUnreachable:
    """The connection ended before the answer; `sent`: the request may have had its effect."""
    hint = ("the request may have been carried out: look at `opsdeck runs` before you repeat it"
            if sent else START)
    return errors.EngineUnreachable("the engine stopped answering", where=str(socket), hint=hint)


def other_protocol(*, engine: str | None, command: str) -> errors.EngineUnreachable:
    """Engine and command do not speak the same protocol; None: what answers names none at all."""
    says = f"the engine speaks protocol {engine}" if engine else "what answers is no engine"
    return errors.EngineUnreachable(
        f"{says}, and this command speaks protocol {command}",
        hint="use the same version of opsdeck for the engine and the command")
