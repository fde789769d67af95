"""What `opsdeck demo` writes before an engine starts: free ports, gateway.json and opsdeck.yaml.

Needs a tenth of a second and no library but YAML, because the console waits for it.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

from engine.demo.layout import (
    CHALLENGER,
    CHAMPION,
    FIRST_PORT,
    KEPT,
    LAST_PORT,
    MARK,
    PORTS,
    PROJECT,
    RPS,
    SERVICE,
    SPEED,
    START,
    VARIANTS,
    Layout,
    ports,
    tracking_uri,
    write_atomically,
)
from engine.errors import ActionFailed, UsageError

PROJECTS = Path(__file__).parent / "projects"
AUTHOR, EMAIL = "Opsdeck demo", "opsdeck-demo@example.invalid"
HOST = "127.0.0.1"
WEIGHTS = {CHAMPION: 95.0, CHALLENGER: 5.0}
GATEWAY_TIMEOUT_S = 2.0
PREDICTION_BYTES = 16 << 20
PREDICTION_EDGES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
# Version 1 is the champion and 2 the challenger in a home where both are registered the first time.
FIRST_VERSIONS = {CHAMPION: "1", CHALLENGER: "2"}
# One core is enough for each, and two of glibc's arenas keep the memory small.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2", "PYTHONUNBUFFERED": "1"}


def prepare(home: Path, *, running: bool, rps: float = RPS, speed: float = SPEED,
            start: dt.date = START) -> Layout:
    """Choose the demo's ports and write its configs; safe to repeat.

    `running` says whether processes of this demo may run: then its ports stay as they are.
    Otherwise one that somebody else has taken meanwhile is chosen anew. Raises UsageError when the
    home has an opsdeck.yaml that the demo did not write or a path that MLflow cannot use, or when
    no port is free.
    """
    layout = Layout(home.absolute())
    if set("%?") & set(str(layout.home)):
        raise UsageError("MLflow cannot keep its database under a path with % or ? in it.",
                         where=str(layout.home),
                         hint="Give the demo another home: opsdeck demo --home DIRECTORY")
    if layout.config.exists() and not layout.config.read_text(encoding="utf-8").startswith(MARK):
        raise UsageError("This home has a config of its own, and the demo does not write over it.",
                         where=str(layout.config),
                         hint="Give the demo a home of its own: opsdeck demo --home DIRECTORY")
    layout.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in (layout.root / "faults", layout.root / "models", layout.gateway_admin.parent):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    copy_project(layout)
    chosen = choose_ports(layout, running=running)
    write_gateway(layout, chosen)
    write_config(layout, chosen, rps=rps, speed=speed, start=start)
    return layout


def copy_project(layout: Layout) -> None:
    """The pipeline project of the flights, to be changed at will: its cases and expectations grow with it.

    It is copied once, whole or not at all; a copy that is there stays as it is. Where Git is installed it is
    a repository of one commit, so that evidence, tags and triggers by commits are shown as in a real one.
    """
    if layout.project.exists():
        return
    fresh = layout.project.with_name(f".{PROJECT}.{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(PROJECTS / PROJECT, fresh, ignore=shutil.ignore_patterns("__pycache__"))
    _commit(fresh)
    fresh.rename(layout.project)


def _commit(folder: Path) -> None:
    if shutil.which("git") is None:
        return
    from engine.reproduce.git import git

    person = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER")
              for what, value in (("NAME", AUTHOR), ("EMAIL", EMAIL))}
    (folder / ".gitignore").write_text("__pycache__/\n.pytest_cache/\n", encoding="utf-8")
    try:
        git(folder, "init", "--quiet", "--template=", "--initial-branch=main")
        git(folder, "add", "--all")
        git(folder, "-c", "commit.gpgSign=false", "commit", "--quiet", "--message",
            "The flights project, as the demo brings it", variables=person)
    except ActionFailed:  # an old Git, or one that is set up to refuse: the demo does without
        shutil.rmtree(folder / ".git", ignore_errors=True)


def choose_ports(layout: Layout, *, running: bool) -> dict[str, int]:
    """Each part's port, the remembered one where there is one and it is free (or ours)."""
    remembered = ports(layout) if layout.ports.exists() else {}
    if remembered and running:
        return remembered
    chosen: dict[str, int] = {}
    for part in PORTS:
        old = remembered.get(part)
        chosen[part] = old if old and _free(old) else _next_free(layout, {
            *chosen.values(), *remembered.values()})
    if chosen != remembered:
        write_atomically(layout.ports, json.dumps(chosen) + "\n")
    return chosen


def write_gateway(layout: Layout, chosen: dict[str, int]) -> None:
    """gateway.json, with the versions of the models that are laid out."""
    known = versions(layout)
    write_atomically(layout.gateway, json.dumps({
        "service": SERVICE, "host": HOST, "port": chosen["gateway"],
        "admin_socket": str(layout.gateway_admin), "state_file": str(layout.gateway_state),
        "champion": CHAMPION,
        "variants": {variant: {"url": f"http://{HOST}:{chosen[variant]}",
                               "version": known[variant]} for variant in VARIANTS},
        "initial_weights": WEIGHTS, "timeout_s": GATEWAY_TIMEOUT_S, "key_header": "x-request-key",
        "prediction_log": {"path": str(layout.predictions), "max_bytes": PREDICTION_BYTES,
                           "max_age_s": 86400.0, "keep": 3, "redact": [], "fields": True},
        "prediction_bins": {"output": "probability", "edges": PREDICTION_EDGES},
    }, indent=1) + "\n")


def write_config(layout: Layout, chosen: dict[str, int], *, rps: float, speed: float,
                 start: dt.date) -> None:
    """opsdeck.yaml: one service with its processes, limits and the runbooks that go with them.

    What somebody added to it stays, see `together`; a file that says all of it already is not written again,
    so that its comments stay as well. Raises UsageError for one that is no YAML.
    """
    import yaml

    fresh = config(layout, chosen, rps=rps, speed=speed, start=start)
    present: Any = None
    if layout.config.exists():
        try:
            present = yaml.safe_load(layout.config.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise UsageError("The demo's config cannot be read, so that what was added to it would be lost.",
                             where=str(layout.config), hint="`opsdeck config check` says what is wrong"
                             ) from error
    wanted = together(present, fresh) if isinstance(present, dict) else fresh
    if present == wanted:
        return
    text = yaml.safe_dump(wanted, sort_keys=False, width=100)
    write_atomically(layout.config, f"{MARK}\n{KEPT}\n{text}")


def together(present: dict[str, Any], fresh: dict[str, Any]) -> dict[str, Any]:
    """What somebody's config says and the demo's does not, and all that the demo's says, but for its policy,
    which somebody may have made another. Pure.

    A service is of one or the other as a whole: an old key of the demo's own would stay for ever otherwise.
    """
    whole = {**present, **fresh}
    for key in ("pipelines", "services"):
        mine = present.get(key)
        if isinstance(mine, dict):
            whole[key] = {**mine, **fresh[key]}
    if isinstance(present.get("policy"), dict):
        whole["policy"] = {**fresh["policy"], **present["policy"]}
    pipelines = present.get("pipelines")
    if isinstance(pipelines, dict) and isinstance(pipelines.get("projects"), dict):
        whole["pipelines"]["projects"] = {**pipelines["projects"], **fresh["pipelines"]["projects"]}
    return whole


def config(layout: Layout, chosen: dict[str, int], *, rps: float, speed: float,
           start: dt.date) -> dict[str, Any]:
    """The content of opsdeck.yaml; see `engine.config.Config`."""
    gateway = f"http://{HOST}:{chosen['gateway']}"

    def process(module: str, *arguments: str, ready: str | None = None) -> dict[str, Any]:
        entry: dict[str, Any] = {"command": [sys.executable, "-m", module, *arguments],
                                 "env": ENVIRONMENT}
        return entry if ready is None else {**entry, "ready": ready}

    servers = {variant: process(
        "engine.serving.model_server", "--model", str(layout.model(variant)),
        "--port", str(chosen[variant]), "--faults", str(layout.faults(variant)),
        ready=f"http://{HOST}:{chosen[variant]}/ping") for variant in VARIANTS}
    pipelines = {"tracking": tracking_uri(layout), "artifacts": layout.artifacts.as_uri(),
                 "projects": {PROJECT: str(layout.project)}}
    # There is one person here, and a release wants another: they may open a gate alone, for a reason.
    return {"policy": {"break_glass": ["admin"]}, "pipelines": pipelines, "services": {SERVICE: {
        "title": "Will the flight arrive more than 30 minutes late",
        "owner": "demo",
        "scrape": [f"{gateway}/metrics"],
        "gateway": {"admin": str(layout.gateway_admin), "url": gateway},
        "outcomes": {"predictions": str(layout.predictions), "labels": str(layout.labels),
                     "label": "late", "within": "1h"},
        "champion": CHAMPION,
        "versions": versions(layout),
        "manifests": {variant: str(layout.model(variant) / "manifest.json") for variant in VARIANTS},
        "processes": {
            **servers,
            "gateway": process("engine.serving.gateway", "--config", str(layout.gateway),
                               ready=f"{gateway}/ping"),
            "replayer": process("engine.demo.replayer", "--home", str(layout.home), "--url",
                                gateway, "--rps", f"{rps:g}", "--speed", f"{speed:g}", "--start",
                                start.isoformat())},
        "limits": {
            "p99_ms": _limit(150, "high-latency", hold="20s"),
            "error_ratio": _limit(0.02, "error-spike", hold="20s"),
            "age_s": _limit(15, "gateway-down", hold="1s")},
    }}}


def versions(layout: Layout) -> dict[str, str]:
    """The version of each variant's model that is laid out, or the one that the first will get."""
    found = {}
    for variant in VARIANTS:
        manifest = layout.model(variant) / "manifest.json"
        stated = json.loads(manifest.read_bytes()) if manifest.exists() else {}
        found[variant] = str(stated.get("version") or FIRST_VERSIONS[variant])
    return found


def _limit(above: float, runbook: str, *, hold: str) -> dict[str, Any]:
    return {"above": above, "for": hold, "level": "page", "runbooks": [runbook]}


def _next_free(layout: Layout, taken: set[int]) -> int:
    """A free port, searched from a place that the home's path gives: two demos start apart."""
    span = LAST_PORT - FIRST_PORT
    at = int.from_bytes(hashlib.sha256(str(layout.home).encode()).digest()[:8]) % span
    for step in range(span):
        port = FIRST_PORT + (at + step) % span
        if port not in taken and _free(port):
            return port
    raise UsageError(f"No port between {FIRST_PORT} and {LAST_PORT} is free.",
                     hint="End what uses them: ss -ltnp")


def _free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        # As servers do; without it a port is busy for a minute after a server that has ended.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
