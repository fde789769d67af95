"""Reading `opsdeck.yaml`: every problem at once with its line, and where each value comes from."""

from __future__ import annotations

import codecs
import fnmatch
import json
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from engine.config import Config, Service, as_dict
from engine.config_routers import Aws, GatewayApi, HAProxy, Router, variants
from engine.errors import DocumentError
from engine.home import SOCKET_LIMIT, Home
from engine.located import Located, Problem, did_you_mean, problems_of
from engine.located import load as load_located
from engine.located.reading import Where

EXAMPLE = Path(__file__).with_name("config_example.yaml")
SCHEMA = Path(__file__).with_name("config_schema.json")


def load(path: Path) -> Config:
    """The config in a file, the defaults if there is none. Raises DocumentError, all problems in it."""
    if not path.exists():
        return Config()
    config, problems = check(path)
    if config is None or problems:
        raise refusal(path, problems)
    return config


def of_engine(home: Home) -> Config:
    """The config of the engine of a home. Raises DocumentError with all problems.

    A system engine must have a file, writable by root or its own user alone: it gives out roles.
    """
    if home.mode == "system":
        if not home.config.exists():
            raise DocumentError("the system's engine has no config", where=str(home.config),
                                hint="`opsdeck config example` prints one to begin with")
        if found := distrust(home.config):
            raise refusal(home.config, found)
    return load(home.config)


def check(path: Path) -> tuple[Config | None, list[Problem]]:
    """The config in a file, or None with every problem of it. Paths in it are made absolute."""
    located = _load(path)
    if located.value is None:
        return (None, located.problems) if located.problems else (Config(), [])
    value = _filled(located.value)
    try:
        config = Config.model_validate(value)
    except ValidationError as error:
        found = problems_of(error, located, Config)
        return None, sorted([*located.problems, *found], key=lambda p: (p.line, p.column))
    problems = [*located.problems, *_beyond_the_types(config, located)]
    return (None if problems else _absolute(config, path.parent)), problems


def refusal(path: Path, problems: list[Problem]) -> DocumentError:
    """All problems of a file as one error."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return DocumentError(f"the config has {count}", [str(p) for p in problems], where=str(path))


def _load(path: Path) -> Located:
    located = load_located(path)
    if located.value is None and path.is_file() and _only_comments(path.read_bytes()):
        located.problems = []  # every default holds
    return located


def _only_comments(data: bytes) -> bool:
    """Whether nothing else stands in a file. Told by its bytes: those of another encoding have no text."""
    lines = (line.strip() for line in data.removeprefix(codecs.BOM_UTF8).splitlines())
    return all(not line or line.startswith(b"#") for line in lines)


def _filled(value: Any) -> Any:
    """A section with nothing under it (`roles:`) is as if it were not there."""
    return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value


def _beyond_the_types(config: Config, located: Located) -> Iterator[Problem]:
    """What the types cannot say."""
    for name, service in config.services.items():
        base: Where = ("services", name)
        for signal, limit in service.limits.items():
            if (limit.above is None) == (limit.below is None):
                yield located.problem((*base, "limits", signal),
                                      f"the limit on {signal} wants one of `above` and `below`")
        yield from _routers(service, located, base)
        yield from _not_http(located, [((*base, "scrape", at), target)
                                       for at, target in enumerate(service.scrape)])
        addresses: list[tuple[Where, str | None]] = [
            (("gateway", "url"), None if service.gateway is None else service.gateway.url),
            *((("processes", key, "ready"), process.ready) for key, process in service.processes.items())]
        yield from _not_http(located, [((*base, *place), url) for place, url in addresses])
    yield from _not_http(located, [(("alerts", "webhooks", level), url)
                                   for level, url in config.alerts.webhooks.items()])
    if config.alerts.approvals is not None:
        yield from _not_http(located, [(("alerts", "approvals", "url"), config.alerts.approvals.url)])
    yield from _pipelines(config, located)
    for key in ("scrape_interval", "window", "stale_after"):
        if getattr(config.engine, key) <= 0:
            yield located.problem(("engine", key), f"`{key}` must be more than zero")


def _routers(service: Service, located: Located, base: Where) -> Iterator[Problem]:
    router = service.router
    if router is None:
        return
    if service.gateway is not None:
        yield located.problem((*base, "router"), "a service has a `gateway` or a `router`, not both")
    if service.champion not in variants(router):
        yield located.problem((*base, "router"), f"the champion `{service.champion}` is not among the "
                              "router's variants, so that no traffic could go back to it",
                              did_you_mean(service.champion, variants(router)))
    if isinstance(router, HAProxy) and len(os.fsencode(router.socket)) > SOCKET_LIMIT:
        yield located.problem((*base, "router", "socket"), "the path of a Unix socket has at most "
                              f"{SOCKET_LIMIT} bytes")
    if isinstance(router, Aws) and router.endpoint_url is not None:
        yield from _not_http(located, [((*base, "router", "endpoint_url"), router.endpoint_url)])


def _pipelines(config: Config, located: Located) -> Iterator[Problem]:
    folders: dict[Path, str] = {}
    for name, folder in config.pipelines.projects.items():
        if (other := folders.setdefault(folder, name)) != name:
            yield located.problem(("pipelines", "projects", name), f"`{name}` and `{other}` are the same "
                                  "folder, so that its model would be built twice")
    ingest = config.pipelines.ingest
    for name, sender in ({} if ingest is None else ingest.senders).items():
        for at, wanted in enumerate(sender.projects):
            if not fnmatch.filter(config.pipelines.projects, wanted):
                yield located.problem(("pipelines", "ingest", "senders", name, "projects", at),
                                      f"there is no project `{wanted}` for `{name}` to ask for",
                                      did_you_mean(wanted, config.pipelines.projects))


def _not_http(located: Located, addresses: Iterable[tuple[Where, str | None]]) -> Iterator[Problem]:
    for place, url in addresses:
        if url is not None and not url.startswith(("http://", "https://")):
            yield located.problem(place, f"{url!r} is not an HTTP address",
                                  "write it like http://127.0.0.1:9100/metrics")


def _absolute(config: Config, base: Path) -> Config:
    """The config with its relative paths resolved against the directory of its file."""
    library = [base / path.expanduser() for path in config.engine.library]
    services = {
        name: service.model_copy(update={
            "gateway": service.gateway and service.gateway.model_copy(
                update={"admin": base / service.gateway.admin.expanduser()}),
            "router": service.router and _absolute_router(service.router, base),
            "outcomes": service.outcomes and service.outcomes.model_copy(update={
                "predictions": base / service.outcomes.predictions.expanduser(),
                "labels": base / service.outcomes.labels.expanduser()}),
            "manifests": {key: base / path.expanduser() for key, path in service.manifests.items()},
            "processes": {
                key: process.model_copy(update={"cwd": base / process.cwd.expanduser()})
                if process.cwd is not None else process
                for key, process in service.processes.items()}})
        for name, service in config.services.items()}
    engine = config.engine.model_copy(update={"library": library})
    pipelines = config.pipelines.model_copy(update={"projects": {
        name: base / folder.expanduser() for name, folder in config.pipelines.projects.items()}})
    return config.model_copy(update={"engine": engine, "services": services, "pipelines": pipelines})


def _absolute_router(router: Router, base: Path) -> Router:
    if isinstance(router, HAProxy):
        return router.model_copy(update={"socket": base / router.socket.expanduser()})
    if isinstance(router, GatewayApi) and router.kubeconfig is not None:
        return router.model_copy(update={"kubeconfig": base / router.kubeconfig.expanduser()})
    return router


def distrust(path: Path) -> list[Problem]:
    """Why a file that gives out roles cannot be trusted, if so."""
    for place in (path, path.parent):
        found = place.stat()
        if found.st_uid not in (0, os.geteuid()):
            return [Problem(str(place), 0, 0, f"it belongs to uid {found.st_uid}, who could change "
                            "who may do what", f"chown root {place}")]
        if stat.S_IMODE(found.st_mode) & 0o022:
            return [Problem(str(place), 0, 0, "others may write it, and so change who may do what",
                            f"chmod go-w {place}")]
    return []


def caller_can_write(path: Path) -> bool:
    """Whether this process's user can change a file, or put another in its place."""
    return os.access(path, os.W_OK) or os.access(path.parent, os.W_OK)


@dataclass(frozen=True)
class Setting:
    """One value that holds: its dotted key, the value, and `file:line` or `default`."""

    key: str
    value: Any
    source: str


def settings(path: Path, config: Config) -> list[Setting]:
    """Every value that holds, in the order of the model, and where it comes from."""
    located = load_located(path) if path.exists() else Located(str(path), "")
    return [Setting(".".join(str(part) for part in where), value, _source(located, where))
            for where, value in _leaves(as_dict(config), ())]


def _source(located: Located, where: Where) -> str:
    return f"{located.name}:{located.line_of(where)}" if where in located.marks else "default"


def _leaves(value: Any, where: Where) -> Iterator[tuple[Where, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*where, key))
    else:
        yield where, value


def schema() -> str:
    """The JSON Schema of `opsdeck.yaml`, as shipped in `config_schema.json`."""
    made = Config.model_json_schema(by_alias=True)
    made["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    made["title"] = "opsdeck.yaml"
    return json.dumps(made, indent=2, sort_keys=True) + "\n"
