"""The run done again: the stages data, train and evaluate, as in a pipeline, in a folder of their own."""

from __future__ import annotations

import copy
import datetime as dt
import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from engine.errors import ActionFailed
from engine.pipeline.project import reading
from engine.pipeline.project.model import Project
from engine.pipeline.releasing import recording
from engine.pipeline.reproduction import rebuilding
from engine.pipeline.reproduction.finding import Found
from engine.pipeline.reproduction.rebuilding import NotAgain, Say
from engine.pipeline.stages.contract import Work
from engine.reproduce import canonical, checks, rebuild
from engine.reproduce import manifest as manifests
from engine.reproduce.manifest import Manifest
from engine.reproduce.parts import Dataset
from engine.reproduce.verify import Comparison, verify

STAGES = ("data", "train", "evaluate")


def again(found: Found, root: Path, now: dt.datetime, say: Say) -> tuple[Manifest, Comparison]:
    """Rebuild and run below `root`, which is empty; the manifest of what came out, and its comparison with
    the run's. Blocking: as long as the training, and the making of its environment.

    Leaves root/code (a worktree of the repository), root/home (environment, MLflow), root/outputs and
    root/manifest.json. Raises NotAgain with what is missing, and whatever a stage raises.
    """
    code = root / "code"
    steps = rebuild.plan(found.manifest, str(code))
    rebuilding.look(steps, found, root)
    root.mkdir(parents=True, exist_ok=True)
    folder = rebuilding.checkout(found, code, say)
    project = _project(found.manifest, folder, say)
    _environment(found, project, folder, root, say, steps)
    rebuilding.data(found, folder, say)
    outputs = _stages(found, project, folder, root, say)
    made = _recorded(found, project, folder, root, outputs, now)
    (root / "manifest.json").write_bytes(made.encode())
    return made, verify(found.manifest, made)


def _project(manifest: Manifest, folder: Path, say: Say) -> Project:
    """The project file of that day, with the settings that the run was given."""
    path = reading.file_of(folder)
    # What it names need not be there yet: the data comes later.
    written = reading.parse(path.read_bytes(), str(path)).model_dump(mode="json", by_alias=True)
    given = {key: value for key, value in manifest.known.config.items() if key in written}
    other = sorted(key for key in given if written[key] != given[key])
    if other:
        say("settings", f"as the run was given them, other than the file says: {', '.join(other)}")
    else:
        say("settings", "those of the project file, as in the run")
    # Whatever it tracks is its own: a run that is done again is no run of the project.
    return Project.model_validate({**written, **given, "tracking": None})


def _environment(found: Found, project: Project, folder: Path, root: Path, say: Say,
                 steps: list[rebuild.Step]) -> None:
    from engine.pipeline.child import environments
    from engine.reproduce import environment

    if found.manifest.known.image is not None:
        say("environment", f"the run took place in {found.manifest.known.image.reference}; here its lock is "
            "installed outside a container")
    python = environments.ensure(project, folder, root / "home" / "pipelines" / project.project,
                                 lambda line: say("environment", line))
    say("environment", f"made from {project.environment.lock}, whose digest is the run's"
        if project.environment.lock else "the engine's own: no lock pins what the project imports")
    then = found.manifest.known.environment
    here = environment.collect(python, {**os.environ, **then.threads, **then.variables})
    at = checks.Places(folder, folder, now=here)
    for step in steps:
        if step.kind == "hardware":
            say("machine", checks.check(step, at).sentence)


def _stages(found: Found, project: Project, folder: Path, root: Path, say: Say) -> dict[str, dict[str, Any]]:
    """The results by stage."""
    outputs: dict[str, dict[str, Any]] = {}
    for name in STAGES:
        work = _work(found, project, folder, root, name, outputs, say)
        work.output.mkdir(parents=True)
        done = importlib.import_module(f"engine.pipeline.stages.{name}").run(work)
        if not done.passed:
            raise ActionFailed(f"The stage {name} did not pass: {done.says}", where=name)
        say(name, done.says)
        outputs[name] = dict(done.result)
        if name == "data" and (entry := found.manifest.known.data.get("data")) is not None:
            rebuilding.same(entry, msgspec.json.decode((work.output / "dataset.json").read_bytes(),
                                                       type=Dataset), say)
    return outputs


def _work(found: Found, project: Project, folder: Path, root: Path, stage: str,
          before: Mapping[str, Mapping[str, Any]], say: Say) -> Work:
    home, outputs = root / "home", root / "outputs"
    return Work(project=project, folder=folder, home=home, run=found.manifest.known.run.id, step=stage,
                attempt=1, inputs={name: outputs / name for name in before}, output=outputs / stage,
                before=dict(before), say=lambda line: say(stage, line),
                point=lambda name, step, value: None,
                settings={"tracking": f"sqlite:///{home}/mlflow.db", "key": "again",
                          "recorded": found.manifest.known.data.get("data"),
                          "artifacts": (home / "artifacts").as_uri()})


def _recorded(found: Found, project: Project, folder: Path, root: Path,
              results: Mapping[str, Mapping[str, Any]], now: dt.datetime) -> Manifest:
    work = _work(found, project, folder, root, "register", results, lambda step, line: None)
    content = copy.deepcopy(recording.record(work, now).manifest.content)
    content["run"]["id"] = f"{found.manifest.known.run.id} again"
    content["image"] = None  # it ran in none
    return manifests.read(canonical.encode(content), str(root / "manifest.json"))


__all__ = ["STAGES", "NotAgain", "again"]
