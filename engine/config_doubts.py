"""What a valid `opsdeck.yaml` says that probably is not meant: names that nothing on this host has.

They are warnings: a config may be checked on another machine than the one it is for. But a policy rule
for an action that does not exist protects nothing, so that it has to be told.
"""

from __future__ import annotations

import fnmatch
import grp
import importlib.util
import os
import pwd
from collections.abc import Collection, Iterator
from pathlib import Path

from engine.config import Config
from engine.config_pipelines import unfit
from engine.config_routers import GatewayApi, HAProxy
from engine.located import Located, Problem, did_you_mean
from engine.located.reading import Where


def doubts(config: Config, located: Located, *, actions: Collection[str], procedures: Collection[str],
           system: bool = False) -> list[Problem]:
    """Every doubt as a warning with its line. `actions` are all that a rule may name (with "shell" and
    "manual"), `procedures` the ids of the library, `system`: of a system engine. Paths in `config` are
    absolute."""
    found = [*_policy(config, located, actions), *_runbooks(config, located, procedures),
             *_people(config, located), *_library(config, located), *_routers(config, located),
             *_projects(config, located), *(_apart(config, located) if system else ())]
    return sorted(found, key=lambda problem: (problem.line, problem.column))


def _policy(config: Config, located: Located, actions: Collection[str]) -> Iterator[Problem]:
    for at, rule in enumerate(config.policy.rules):
        base: Where = ("policy", "rules", at)
        if not fnmatch.filter(actions, rule.action):
            yield _warning(located, (*base, "action"), f"there is no action `{rule.action}`, so this rule "
                           "protects nothing", did_you_mean(rule.action, actions))
        if rule.service != "*" and not fnmatch.filter(config.services, rule.service):
            yield _warning(located, (*base, "service"), f"there is no service `{rule.service}` here, so "
                           "this rule protects nothing", did_you_mean(rule.service, config.services))


def _runbooks(config: Config, located: Located, procedures: Collection[str]) -> Iterator[Problem]:
    for name, service in config.services.items():
        for signal, limit in service.limits.items():
            for at, id in enumerate(limit.runbooks):
                if id not in procedures:
                    yield _warning(located, ("services", name, "limits", signal, "runbooks", at),
                                   f"the library has no procedure `{id}`", did_you_mean(id, procedures))


def _people(config: Config, located: Located) -> Iterator[Problem]:
    for role, members in config.roles.items():
        for kind, names in (("user", members.users), ("group", members.groups)):
            for at, name in enumerate(names):
                if not _known(kind, name):
                    yield _warning(located, ("roles", role, f"{kind}s", at),
                                   f"this machine has no {kind} `{name}`, so nobody gets the role by it")

    for name in config.people:
        if not _known("user", name):
            yield _warning(located, ("people", name), f"this machine has no user `{name}`, so the commits of "
                           "these addresses are nobody's here")


def _known(kind: str, name: str) -> bool:
    try:
        pwd.getpwnam(name) if kind == "user" else grp.getgrnam(name)
    except KeyError:
        return False
    return True


def _library(config: Config, located: Located) -> Iterator[Problem]:
    for at, place in enumerate(config.engine.library):
        if not Path(place).is_dir():
            yield _warning(located, ("engine", "library", at), f"there is no directory {place}")


def _projects(config: Config, located: Located) -> Iterator[Problem]:
    for name, folder in config.pipelines.projects.items():
        if not (folder / "opsdeck.pipeline.yaml").is_file():
            yield _warning(located, ("pipelines", "projects", name),
                           f"there is no {folder / 'opsdeck.pipeline.yaml'}",
                           "`opsdeck pipeline init` writes one to begin with")


def _apart(config: Config, located: Located) -> Iterator[Problem]:
    """What keeps a system engine from training."""
    if not config.pipelines.projects:
        return
    user = config.engine.steps_user
    if user is None:
        yield _warning(located, ("pipelines", "projects"), "a system engine runs the stages of a pipeline as "
                       "a second user, and none is named", "engine: {steps_user: NAME}")
    problem = unfit(config.pipelines.tracking, config.pipelines.artifacts)
    if problem is not None:
        named = "artifacts" if problem[0].startswith("artifacts") else "tracking"
        base: Where = ("pipelines", named if config.pipelines.tracking else "projects")
        yield _warning(located, base, *problem)
    for name, folder in config.pipelines.projects.items():
        closed = next((place for place in (folder, *folder.parents)
                       if user and not _open(place, user, 5 if place == folder else 1)), None)
        if closed is not None:
            yield _warning(located, ("pipelines", "projects", name), f"{user}, who runs the stages, cannot "
                           f"read {closed}", f"chmod o+rx {closed}, or put the project elsewhere")


def _open(place: Path, user: str, wanted: int) -> bool:
    """Whether the user may read a folder (4) and pass through it (1), by its mode; where that is not known,
    it is."""
    try:
        owner, found = pwd.getpwnam(user), place.stat()
        groups = os.getgrouplist(user, owner.pw_gid)
    except (KeyError, OSError):
        return True
    kind = 6 if found.st_uid == owner.pw_uid else 3 if found.st_gid in groups else 0
    return owner.pw_uid == 0 or found.st_mode >> kind & wanted == wanted


def _routers(config: Config, located: Located) -> Iterator[Problem]:
    for name, service in config.services.items():
        base: Where = ("services", name, "router")
        if isinstance(service.router, HAProxy) and not service.router.socket.exists():
            yield _warning(located, (*base, "socket"), f"there is no socket {service.router.socket}",
                           "is HAProxy running, with this as its `stats socket`?")
        if isinstance(service.router, GatewayApi):
            kubeconfig = service.router.kubeconfig
            if kubeconfig is not None and not kubeconfig.is_file():
                yield _warning(located, (*base, "kubeconfig"), f"there is no file {kubeconfig}")
            if importlib.util.find_spec("kubernetes") is None:
                yield _warning(located, (*base, "kind"), "the Kubernetes client is not installed",
                               "pip install opsdeck[kubernetes]")


def _warning(located: Located, where: Where, message: str, hint: str | None = None) -> Problem:
    return located.problem(where, message, hint, "warning")
