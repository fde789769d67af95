"""Running what the project file names as an entry: a command, or a function by way of `runner`."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import ActionFailed, OpsdeckError, UsageError
from engine.pipeline.child import process
from engine.pipeline.child.process import Ended
from engine.pipeline.child.views import View
from engine.pipeline.project.model import Entry, Limits
from engine.procedures.secret_sources import resolve_secret
from engine.reproduce import seeds

RUNNER = Path(__file__).with_name("runner.py")
RESERVED = ("PATH", "HOME", "LD_", "OPSDECK_", "PYTHON")


@dataclass(frozen=True)
class Call:
    """One entry and where it runs. `what` is it in a sentence, such as "the training"; `key`: where the
    project file has it, such as train; `scratch`: a folder of its own, its home, which is thrown away;
    `view`: what `folder` is a copy of, where it is one."""

    entry: Entry
    what: str
    key: str
    python: Path
    folder: Path
    inputs: Path
    output: Path
    scratch: Path
    params: Mapping[str, Any]
    seed: int
    limits: Limits
    log: Path
    credentials: Mapping[str, str] = field(default_factory=dict)
    view: View | None = None

    def command(self) -> list[str]:
        """A command's `python` is the project's; a function goes through the runner."""
        if self.entry.function is not None:
            return [str(self.python), str(RUNNER), self.entry.function, str(self.scratch / "failure.json")]
        first, *rest = self.entry.command
        return [str(self.python) if first in ("python", "python3") else first, *rest]

    def variables(self) -> dict[str, str]:
        return process.variables(self.python, self.scratch, {
            **seeds.environment(self.seed), "OPSDECK_INPUTS": str(self.inputs),
            "OPSDECK_OUTPUT": str(self.output), "OPSDECK_PARAMS": str(self.scratch / "params.json"),
            **self.credentials})


def run(call: Call, say: Callable[[str], None], tick: Callable[[], None] | None = None) -> Ended:
    """Run it to its end. Raises ActionFailed, one clear line, where it did not end well: of a function the
    line of the project's own code that failed; of either the limit at which it was ended."""
    write_params(call.scratch / "params.json", call.params, call.key)
    told = call.scratch / "failure.json"
    lines: tuple[str, ...] = ()
    try:
        ended = process.run(call.command(), folder=call.folder, variables=call.variables(),
                            limits=call.limits, log=call.log, say=say, tick=tick,
                            secrets=tuple(call.credentials.values()),
                            told=str if call.view is None else call.view.told)
        lines = ended.tail
        problem = failure(call, ended, _told(told))
        if problem is not None:
            raise problem
    except OpsdeckError as error:
        if call.view is not None:
            call.view.explain(error, *lines)
        raise
    return ended


def failure(call: Call, ended: Ended, told: Mapping[str, Any] | None) -> OpsdeckError | None:
    """The error of an entry that did not end well. `told`: what the runner wrote of it. Pure."""
    if told is None or ended.cause:
        return process.failure(ended, call.what, call.key, call.limits)
    where = f"{told['file']}:{told['line']}" if told["file"] else str(call.entry.function)
    said = str(told["message"]) or "without a word"
    for secret in call.credentials.values():
        said = said.replace(secret, "•••")
    if told["kind"] == "missing":
        return UsageError(f"{call.what} cannot begin: {said}.", where=f"{call.key}.entry.function",
                          hint="Correct the entry in opsdeck.pipeline.yaml.")
    if told["kind"] == "memory":
        return process.failure(Ended(1, None, "memory", 0, 0, ended.peak_mb, ended.tail), call.what, call.key,
                               call.limits)
    hint = "The whole traceback is in log.txt."
    if told["kind"] == "import" and told.get("name"):
        hint = f"Is {told['name']} in the project's lock? The whole traceback is in log.txt."
    return ActionFailed(f"{call.what} failed: {told['type']}: {said}", where=where, hint=hint)


def write_params(path: Path, params: Mapping[str, Any], key: str) -> None:
    """As JSON. Raises UsageError for what YAML has and JSON lacks."""
    try:
        path.write_text(json.dumps(params, sort_keys=True, allow_nan=False), encoding="utf-8")
    except (TypeError, ValueError) as error:
        raise UsageError(f"The parameters cannot be written as JSON: {error}.", where=f"{key}.params",
                         hint="Write dates and other things as text, in quotes.") from error


def credentials(given: Mapping[str, str], folder: Path, key: str) -> dict[str, str]:
    """The values of `credentials`, by the variable's name; a file's path may be relative to the project.

    Raises UsageError for a name that is none of a variable's or would change how the code runs, SecretError
    for one that is not to be had.
    """
    found = {}
    for name, reference in given.items():
        if not name.isidentifier() or name.upper().startswith(RESERVED):
            raise UsageError(f"{name} cannot be a variable that holds a credential.",
                             where=f"{key}.credentials",
                             hint="Give it another name, such as STORE_PASSWORD.")
        source, _, rest = reference.partition(":")
        if source == "file":
            reference = f"file:{(folder / rest).absolute()}"
        try:
            found[name] = resolve_secret(reference, os.environ)
        except OpsdeckError as error:
            error.where = f"{key}.credentials.{name}: {error.where or reference}"
            raise
    return found


@contextmanager
def scratch(beside: Path) -> Iterator[Path]:
    """A folder for as long as a call takes, beside its output and gone after it."""
    made = Path(tempfile.mkdtemp(prefix=".scratch-", dir=beside.parent))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def copied(files: Sequence[Path], into: Path) -> Path:
    """The files as `into` of a call: copies, since what is kept must not change under the project's hands."""
    into.mkdir(parents=True, exist_ok=True)
    for one in files:
        shutil.copyfile(one, into / one.name)
    return into


def _told(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(found, dict) and {"kind", "type", "message", "file", "line"} <= found.keys()
    return found if whole else None
