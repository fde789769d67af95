"""Whether what a plan of `rebuild` needs is there. The checks read and change nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from engine.errors import OpsdeckError
from engine.reproduce import digests, git, s3
from engine.reproduce.parts import Dataset, Environment
from engine.reproduce.rebuild import Step
from engine.reproduce.verify import differences

State = Literal["ready", "missing", "differs", "later"]
MACHINE = {"CPU", "GPU", "BLAS", "system"}


@dataclass(frozen=True)
class Places:
    """Where the checks look: the repository, the project's folder at hand, kept files by SHA-256 (patches),
    and clients. `now` is the environment at hand."""

    repository: Path
    project: Path
    kept: Mapping[str, Path] = field(default_factory=dict)
    now: Environment | None = None
    s3: Any = None


@dataclass(frozen=True)
class Checked:
    """`later`: it can only be told when the steps before it are done. `sentence` says what was found."""

    step: Step
    state: State
    sentence: str
    hint: str = ""


def check(step: Step, places: Places) -> Checked:
    """Whether a step can be done with what is at hand. Blocking. What is missing or cannot be asked is told
    as such, and raises nothing."""
    try:
        return _CHECKS[step.kind](step, places)
    except OpsdeckError as error:
        return Checked(step, "missing", error.message, error.hint or "")


def _commit(step: Step, places: Places) -> Checked:
    commit = step.facts.get("commit")
    if commit is None:
        now = git.code(places.project, step.facts["aside"]).sources
        same = now == step.facts["sources"]
        return Checked(step, "ready" if same else "differs",
                       "The project's files are those of the run." if same else
                       "The run was made outside Git, and the project's files have changed since.",
                       "" if same else "Find a copy of the project from that day.")
    if git.has_commit(places.repository, commit):
        return Checked(step, "ready", f"Commit {commit[:12]} is in the repository.")
    remote = step.facts.get("remote")
    return Checked(step, "missing", f"Commit {commit[:12]} is not in this repository.",
                   f"Fetch it: git fetch {remote} {commit}" if remote else
                   "It was perhaps never pushed; look where the run was made.")


def _worktree(step: Step, places: Places) -> Checked:
    folder = Path(step.facts["folder"])
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        return Checked(step, "differs", f"{folder} is there and is not empty.", "Name another folder.")
    return Checked(step, "ready", f"{folder} is free.")


def _patch(step: Step, places: Places) -> Checked:
    wanted = step.facts["patch"]
    if wanted is None:
        return Checked(step, "missing", "The run had uncommitted changes, and no patch of them was kept.",
                       "It can be run again without them; then the code differs.")
    kept = places.kept.get(wanted)
    if kept is None or not kept.is_file():
        return Checked(step, "missing", f"The patch {wanted[:12]} of the uncommitted changes is not at hand.",
                       "Get it from the run's artifacts.")
    if digests.file(kept).sha256 != wanted:
        return Checked(step, "differs", f"{kept} is not the patch of the run.",
                       "Get it from the run's artifacts.")
    return Checked(step, "ready", "The patch of the uncommitted changes is at hand.")


def _lock(step: Step, places: Places) -> Checked:
    path, commit = step.facts["path"], step.facts["commit"]
    if commit is None:
        found = digests.file(places.project / path).sha256
    elif path in step.facts["dirty"]:
        return Checked(step, "later", f"{path} was changed when the run was made; the patch brings it back.")
    else:
        content = git.content(places.repository, commit, path)
        if content is None:
            return Checked(step, "missing", f"{path} is not in commit {commit[:12]}.",
                           "The run used a lock that Git does not hold; get it from the run's artifacts.")
        found = hashlib.sha256(content).hexdigest()
    same = found == step.facts["sha256"]
    return Checked(step, "ready" if same else "differs",
                   f"{path} is that of the run." if same else f"{path} is not that of the run.",
                   "" if same else "Get the lock from the run's artifacts.")


def _packages(step: Step, places: Places) -> Checked:
    if not step.command:
        return Checked(step, "missing", "No lock was recorded, so the packages can only be listed.",
                       "Install the versions that the manifest lists, one by one.")
    return Checked(step, "later", "Whether every package can still be had is told when they are installed.")


def _data(step: Step, places: Places) -> Checked:
    entry: Dataset = step.facts["entry"]
    if not entry.versioned:
        return Checked(step, "missing", f"{entry.uri} was recorded without a version or digest.",
                       "Nothing can tell whether it is still the same.")
    if entry.kind == "derived":
        return Checked(step, "later", f"{entry.uri} is made again from its sources.")
    if entry.kind == "s3":
        gone = s3.available(entry, places.s3 if places.s3 is not None else s3.client())
        return Checked(step, "missing" if gone else "ready", f"{gone}." if gone else
                       f"{entry.uri} is there in the version of the run.",
                       "Look for a backup of the bucket." if gone else "")
    path = Path(entry.uri.removeprefix("file://"))
    now = digests.local(path if path.is_absolute() else places.project / path)
    if now.sha256 != entry.sha256:
        return Checked(step, "differs", f"{entry.uri} has other content than at the run.",
                       "Find the version whose digest begins with " + (entry.sha256 or "")[:12] + ".")
    return Checked(step, "ready", f"{entry.uri} is that of the run.")


def _hardware(step: Step, places: Places) -> Checked:
    if places.now is None:
        return Checked(step, "later", "This machine was not looked at.")
    import msgspec

    then, now = ({"environment": msgspec.to_builtins(one)} for one in (step.facts["environment"], places.now))
    unlike = [one.path.removeprefix("environment.") for one in differences(then, now) if one.topic in MACHINE
              and one.reach == "rounding"]
    if unlike:
        return Checked(step, "differs", "This machine is another than the run's, so the last digits of "
                       f"results may differ: {', '.join(unlike[:3])}.", "Compare with tolerances.")
    return Checked(step, "ready", "Processor, cards and linear algebra are those of the run.")


def _run(step: Step, places: Places) -> Checked:
    if not step.command:
        return Checked(step, "missing", "The manifest does not say which command was run.",
                       "Start the training by hand in the worktree.")
    return Checked(step, "later", "It runs when everything before it is ready.")


def _later(step: Step, places: Places) -> Checked:
    return Checked(step, "later", "It can be told when the steps before it are done.")


_CHECKS = {"commit": _commit, "worktree": _worktree, "patch": _patch, "lock": _lock, "image": _later,
           "environment": _packages, "data": _data, "hardware": _hardware, "run": _run, "verify": _later}
