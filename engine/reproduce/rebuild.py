"""From a manifest to what must be done to run it again: a plan. Pure.

Each step says what it does, with the command that does it where one is enough. `checks.check` looks whether
a step can be done. Doing the steps is the pipeline's part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from engine.reproduce.manifest import Manifest
from engine.reproduce.seeds import environment

Kind = Literal["commit", "worktree", "patch", "lock", "image", "environment", "data", "hardware", "run",
               "verify"]


@dataclass(frozen=True)
class Step:
    """`command` is an argument vector, empty where the pipeline itself does the step; `variables` are added
    to its environment; `facts` is what the check compares."""

    id: str
    kind: Kind
    title: str
    command: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


def plan(manifest: Manifest, folder: str, offline: bool = False) -> list[Step]:
    """What to do, in order, to run it again in a fresh worktree at `folder`. Pure."""
    known = manifest.known
    code, steps = known.code, []
    project = f"{folder}/{code.folder}" if code.folder else folder
    if code.commit:
        steps += [Step("commit", "commit", f"Find commit {code.commit[:12]}",
                       facts={"commit": code.commit, "remote": code.remote}),
                  Step("worktree", "worktree", f"Check it out at {folder}",
                       ("git", "worktree", "add", "--detach", folder, code.commit), facts={"folder": folder})]
    else:
        steps.append(Step("commit", "commit", "Find the project's files as they were",
                          facts={"sources": code.sources, "aside": code.aside}))
    if code.dirty:
        steps.append(Step("patch", "patch", f"Apply the {len(code.changed)} uncommitted changes",
                          ("git", "-C", folder, "apply", "--binary", "-"), facts={"patch": code.patch}))
    if known.lock:
        steps.append(Step("lock", "lock", f"Compare {known.lock.path} with the recorded digest", facts={
            "path": f"{code.folder}/{known.lock.path}" if code.folder else known.lock.path,
            "sha256": known.lock.sha256, "commit": code.commit, "dirty": code.changed}))
    steps.append(_environment(manifest, project, offline))
    steps += [Step(f"data {name}", "data", f"Fetch {one.uri}", facts={"name": name, "entry": one})
              for name, one in sorted(known.data.items())]
    steps.append(Step("hardware", "hardware", "Compare this machine with the run's",
                      facts={"environment": known.environment}))
    recorded = {**known.environment.threads, **known.environment.variables}
    seed = next((one for one in known.seeds.values() if isinstance(one, int)), None)
    if not recorded and isinstance(seed, int) and 0 <= seed < 2**32:
        recorded = environment(seed)
    steps.append(Step("run", "run", f"Run {known.run.project} again", tuple(known.run.command), recorded,
                      {"config": known.config, "seeds": known.seeds, "folder": project}))
    steps.append(Step("verify", "verify", f"Compare the result with {known.run.id}",
                      facts={"sha256": manifest.sha256}))
    return steps


def _environment(manifest: Manifest, project: str, offline: bool) -> Step:
    known = manifest.known
    if known.image:
        return Step("image", "image", f"Pull {known.image.reference} by its digest",
                    ("docker", "pull", f"{known.image.reference.partition('@')[0]}@{known.image.digest}"),
                    facts={"digest": known.image.digest})
    network = ("--offline",) if offline else ()
    version = known.environment.python.version
    if known.lock and known.lock.path.endswith("uv.lock"):
        command: tuple[str, ...] = ("uv", "sync", "--frozen", "--project", project, "--python", version,
                                    *network)
    elif known.lock:
        hashes = ("--require-hashes",) if known.lock.path.endswith((".lock", ".txt")) else ()
        command = ("uv", "pip", "sync", f"{project}/{known.lock.path}", *hashes,
                   "--python", f"{project}/.venv", *network)
    else:
        command = ()
    return Step("environment", "environment",
                f"Make the environment: Python {version} and the locked packages", command,
                facts={"packages": known.environment.packages, "python": version})
