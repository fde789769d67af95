"""The stages of a pipeline as actions: taken from the cache where nothing changed, else in a process.

One action for each stage of `engine.pipeline.stages.table`, `pipeline.<stage>`. Its result is the stage's,
with `says` (a sentence), and `cached`: whether nothing was run. What the engine's environment holds is kept
from the process, but for what the stage cannot do without: uv's settings for one that runs the project's
code, access to the registry and the object store for one that speaks to them, and the credentials that the
project names.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.config import Config
from engine.config_pipelines import unfit
from engine.errors import DocumentError, NotFound, NotPermitted, UsageError
from engine.home import Home
from engine.pipeline.building import places
from engine.pipeline.stages.table import STAGES, Stage
from engine.procedures.actions import Action, Command, Context, Params

if TYPE_CHECKING:  # commands that only list the actions do not pay for the model of a project
    from engine.pipeline.project.model import Project

TOLD = 2  # problems of a project file in one sentence
PROCESS = (sys.executable, "-I", "-m", "engine.pipeline.stages.main")
# What uv and downloads are reached by; see `engine.pipeline.child.environments`.
_PACKAGES = re.compile(r"UV_.*|SSL_CERT_(FILE|DIR)|(HTTPS?|NO|ALL)_PROXY|NETRC|XDG_(CACHE|DATA|CONFIG)_HOME",
                       re.IGNORECASE)
_REGISTRY = re.compile(r"MLFLOW_TRACKING_.*|MLFLOW_S3_.*")
_STORE = re.compile(r"AWS_.*")
_SECRET = re.compile(r".*(SECRET|TOKEN|PASSWORD|_KEY|INDEX).*", re.IGNORECASE)
_PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]*@")  # in an address
_TRACKED = frozenset({"train", "compare", "register", "staging", "page"})


class Staged(Params):
    """A stage of one project. `project`: its name in the config, or in a single-user engine its folder.

    `folder`: another state of the project's files, such as one commit's. `fresh`: run it whatever is kept;
    what it makes then is for this run alone.
    """

    project: str
    folder: str = ""
    fresh: bool = False


def folder_of(context: Context, params: Staged) -> Path:
    """The folder that the project is built from. Raises NotFound, or NotPermitted for one that a system
    engine was not told of."""
    home, config = home_of(context), _config(context)
    known: Mapping[str, Path] = config.pipelines.projects
    single = home.mode == "single-user"
    if params.folder:
        named = Path(params.folder).expanduser()
        if single or (".." not in named.parts and (_laid_out(home, named) or named in known.values())):
            return named
        raise NotPermitted(f"the folder {params.folder} is not one that this engine builds from",
                           hint="an admin may name it in opsdeck.yaml: pipelines: projects:")
    if params.project in known:
        return known[params.project]
    if "/" in params.project or "." in params.project:
        if single:
            return Path(params.project).expanduser().absolute()
        raise NotPermitted(f"{params.project} is a folder, and this engine builds only what its config names",
                           hint="an admin may name it in opsdeck.yaml: pipelines: projects:")
    names = ", ".join(sorted(known)) or "none yet"
    raise NotFound(f"there is no project {params.project}",
                   hint=f"opsdeck.yaml names them (pipelines: projects:): {names}")


def _laid_out(home: Home, folder: Path) -> bool:
    """Whether it is in a commit that the engine itself has laid out; beside them steps write."""
    try:
        return folder.relative_to(home.path / "pipelines").parts[1:2] == ("commits",)
    except ValueError:
        return False


async def _command(stage: Stage, stages: Mapping[str, Stage], process: Sequence[str], context: Context,
                   params: Staged) -> Command | dict[str, Any]:
    return await asyncio.to_thread(_look, stage, stages, process, context, params)


def _look(stage: Stage, stages: Mapping[str, Stage], process: Sequence[str], context: Context,
          params: Staged) -> Command | dict[str, Any]:
    from engine.pipeline.building import cleaning, handing, plan
    from engine.pipeline.project.reading import read
    from engine.reproduce import git

    home, config = home_of(context), _config(context)
    folder = folder_of(context, params)
    try:
        project = read(folder)
    except DocumentError as error:
        more = f" (and {len(error.problems) - TOLD} more)" if len(error.problems) > TOLD else ""
        raise UsageError("; ".join(error.problems[:TOLD]) + more or str(error.message),
                         where=None if error.problems else error.where,
                         hint=f"opsdeck check {folder} says all that is wrong with it") from error
    _one_name(config, params, project, folder)
    system = home.mode == "system"
    if system:  # before anything is paid for: what a later stage needs
        settings(project, config, home)
        git.toplevel(folder)
    at = places.make(home.path, project.project, _steps_user(config) if system else None)
    _keep_definition(context, at, folder)
    with cleaning.taking(at):
        prepared = plan.prepare(stage, project, folder, at, context.run, context.attempt, fresh=params.fresh,
                                stages=stages)
        if prepared.found is not None:
            context.log(f"nothing changed since run {prepared.found.record.get('run')}: taken from the cache")
            return handing.hit(at, at.own, context.run, prepared)
    path = handing.hand(at, project, prepared, context.run, context.attempt, _told(stage, context))
    env, secrets = _given(stage, project, config, home)
    return Command(
        [*process, stage.name, "--project", project.project, "--folder", str(folder),
         "--home", str(home.path), "--run", context.run, "--step", context.step,
         "--attempt", str(context.attempt), "--planned", str(path),
         "--settings", json.dumps(settings(project, config, home)), *(["--hidden"] if secrets else [])],
        env=env, user=stage.user, secrets=secrets, unseen=bool(secrets))


def _one_name(config: Config, params: Staged, project: Project, folder: Path) -> None:
    if params.project in config.pipelines.projects and project.project != params.project:
        raise UsageError(f"the config calls this project {params.project}, and its own file "
                         f"{project.project}", where=str(folder), hint="give it one name in both")


async def _ready(context: Context, params: Staged) -> None:
    """Raises what is wrong with the project, all of it, before there is a run."""
    def look() -> None:
        from engine.pipeline.project.reading import read

        folder = folder_of(context, params)
        _one_name(_config(context), params, read(folder), folder)

    await asyncio.to_thread(look)


def _told(stage: Stage, context: Context) -> dict[str, Any]:
    """What only the engine knows: for the page, which users the authors are."""
    live = context.extra.get("live", {}).get(context.run)
    if stage.name != "page" or live is None:
        return {}
    import msgspec

    from engine.procedures.authors import resolve
    from engine.procedures.users import known_users

    run, config = live.progress, _config(context)
    authors = resolve(run.written_by, people=config.people, known=known_users(config),
                      initiator=run.initiator)
    return {} if authors is None else {"authors": msgspec.to_builtins(authors)}


def _keep_definition(context: Context, at: places.Places, folder: Path) -> None:
    """Keep the project file and the procedure that this run uses; see `engine.pipeline.project.history`."""
    from engine.pipeline.project import history, layout

    live = context.extra.get("live", {}).get(context.run)
    if live is None:
        return
    run = live.progress
    history.keep(at.root, layout.file_of(folder).read_bytes(), run.document.id, run.text, run=run.id,
                 by=run.initiator.user, at=context.clock(), folder=folder)


def settings(project: Project, config: Config, home: Home) -> dict[str, Any]:
    """What every stage is told beside the project: `tracking`, MLflow's URI, and `artifacts`, where it keeps
    them (None: where MLflow says). Raises UsageError or NotPermitted for a registry that a system engine's
    stages must not be given."""
    if home.mode == "system":
        _served(project, config)
    tracking = project.tracking or config.pipelines.tracking or f"sqlite:///{home.path}/mlflow.db"
    artifacts = config.pipelines.artifacts
    if artifacts is None and tracking.startswith("sqlite:"):
        artifacts = (home.path / "mlflow-artifacts").as_uri()
    return {"tracking": tracking, "artifacts": artifacts}


def _served(project: Project, config: Config) -> None:
    from engine.pipeline.releasing.registry import shown

    named = config.pipelines.tracking
    problem = unfit(named, config.pipelines.artifacts)
    if problem is not None:
        raise UsageError(problem[0], where="opsdeck.yaml: pipelines.tracking", hint=problem[1])
    if project.tracking not in (None, named):
        # The stages that register act with the engine's rights and the registry's password.
        raise NotPermitted(f"the project names a registry of its own, {shown(str(project.tracking))}, and a "
                           "system engine speaks to the one that its config names",
                           where="opsdeck.pipeline.yaml: tracking",
                           hint="leave it out; an admin names it in opsdeck.yaml: pipelines: tracking:")


def _given(stage: Stage, project: Project, config: Config, home: Home
           ) -> tuple[dict[str, str], dict[str, str]]:
    """The variables that a stage's process is given, and the references of those that are secret."""
    wanted = []
    remote = settings(project, config, home)
    if stage.environment or (stage.name == "data" and project.data.source.command):
        wanted.append(_PACKAGES)
    if stage.name in _TRACKED and not remote["tracking"].startswith("sqlite:"):
        wanted.append(_REGISTRY)
    stored = str(remote["artifacts"]).startswith("s3:") and stage.name in _TRACKED
    if stored or (stage.name == "data" and project.data.source.uri) or (
            stage.name == "train" and project.train.runs_on == "sagemaker"):
        wanted.append(_STORE)
    found = {name: value for name, value in os.environ.items() if any(one.fullmatch(name) for one in wanted)}
    secrets = {name: f"env:{name}" for name, value in found.items()
               if value and (_SECRET.fullmatch(name) or _PASSWORD.search(value))}
    if stage.name == "train":
        variables = config.engine.operators_variables(home.mode)
        for reference in project.train.credentials.values():
            source, _, name = reference.partition(":")
            if source == "env":
                if not any(fnmatchcase(name, glob) for glob in variables):
                    raise NotPermitted(f"the project may not have the engine's variable {name}",
                                       where="opsdeck.pipeline.yaml: train.credentials",
                                       hint="an admin may add it to `engine: secret_env:` in opsdeck.yaml")
                secrets[name] = reference
    return {name: value for name, value in found.items() if name not in secrets}, secrets


async def _foresee(stage: Stage, stages: Mapping[str, Stage], context: Context, params: Staged) -> str:
    def look() -> str:
        from engine.pipeline.building import plan
        from engine.pipeline.project.reading import read

        folder = folder_of(context, params)
        project = read(folder)
        at = places.of(home_of(context).path, project.project)
        planned = plan.plan(project, folder, at, None, stages)
        one = next(found for found in planned if found.stage == stage.name)
        if params.fresh:
            return "miss: asked to run whatever is kept"
        return f"{'not known yet' if one.state == 'unknown' else one.state}: {one.why}"

    return await asyncio.to_thread(look)


def home_of(context: Context) -> Home:
    """The engine's home. Raises NotFound in an engine that has no place for pipelines."""
    home = context.extra.get("home")
    if not isinstance(home, Home):
        raise NotFound("this action is for pipelines, and this engine has no place for them")
    return home


def _config(context: Context) -> Config:
    config = context.extra.get("config")
    return config if isinstance(config, Config) else Config()


def _steps_user(config: Config) -> str:
    if config.engine.steps_user is None:
        raise UsageError("a system engine runs stages as a second user, and none is named",
                         where="opsdeck.yaml", hint="engine: {steps_user: NAME}")
    return config.engine.steps_user


def actions(stages: Mapping[str, Stage] = STAGES, process: Sequence[str] = PROCESS) -> list[Action[Any]]:
    """An action for each stage. `process` is the command of a stage's process, which gets arguments."""
    found: list[Action[Any]] = []
    for stage in stages.values():
        command = functools.partial(_command, stage, stages, process)
        command.__doc__ = f"Effect idempotent: {stage.title}, in a process of its own or from the cache."
        found.append(Action(
            name=f"pipeline.{stage.name}", effect="idempotent", params=Staged, run=None, command=command,
            summary=f"Pipeline: {stage.title[0].lower()}{stage.title[1:]}",
            foresee=functools.partial(_foresee, stage, stages), ready=_ready, describe=_described(stage)))
    return found


def _described(stage: Stage) -> Any:
    return lambda p: f"pipeline.{stage.name} {p.project}{' fresh' if p.fresh else ''}"


ACTIONS = actions()
