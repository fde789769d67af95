"""Where the demo keeps its things, which ports it uses, and the configs of its parts.

    $OPSDECK_HOME/opsdeck.yaml       the engine's config, written by `prepare`
    $OPSDECK_HOME/demo/
        ports.json  gateway.json     chosen and written by `prepare`
        data/       flights.npy, flights.json
        training/   <variant>/model.onnx, report.json
        mlflow.db   artifacts/
        projects/   flights/        the pipeline project, a copy to work on
        models/     <variant>/model.onnx, manifest.json    what the model servers load
        faults/     <variant>.json
        labels.jsonl  predictions.jsonl  replayer.json
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import UsageError

SERVICE = "flights"
PROJECT = "flights"
CHAMPION = "champion"
CHALLENGER = "challenger"
VARIANTS = (CHAMPION, CHALLENGER)
MARK = "# Written by `opsdeck demo`, and written again by it."
KEPT = """\
# What you add stays: projects, services, policy, other keys. The service flights, its paths and these
# comments are written anew where the demo's own part has changed. `opsdeck engine reload` reads it."""
PORTS = (*VARIANTS, "gateway")
RPS = 50.0  # requests per second
SPEED = 3600.0  # simulated seconds per second
START = dt.date(2013, 3, 25)  # the models learned from nothing after 17 March
# Below Linux's default range of ephemeral ports (32768-60999): one in it could be the source port
# of somebody's outgoing connection by the time a server that was killed is started again.
FIRST_PORT, LAST_PORT = 20_000, 32_000


@dataclass(frozen=True)
class Layout:
    """The paths of the demo in one home. Nothing here says that any of them exists."""

    home: Path

    @property
    def root(self) -> Path:
        return self.home / "demo"

    @property
    def config(self) -> Path:
        return self.home / "opsdeck.yaml"

    @property
    def ports(self) -> Path:
        return self.root / "ports.json"

    @property
    def gateway(self) -> Path:
        return self.root / "gateway.json"

    @property
    def gateway_state(self) -> Path:
        return self.root / "gateway-state.json"

    @property
    def gateway_admin(self) -> Path:
        """The gateway's admin socket; a long path moves to a short runtime directory."""
        from engine.home import short_socket

        return short_socket(self.root / "gateway.sock")

    @property
    def flights(self) -> Path:
        return self.root / "data" / "flights.npy"

    @property
    def flights_about(self) -> Path:
        return self.root / "data" / "flights.json"

    @property
    def predictions(self) -> Path:
        return self.root / "predictions.jsonl"

    @property
    def labels(self) -> Path:
        return self.root / "labels.jsonl"

    @property
    def replayer(self) -> Path:
        return self.root / "replayer.json"

    @property
    def tracking(self) -> Path:
        return self.root / "mlflow.db"

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    @property
    def project(self) -> Path:
        return self.root / "projects" / PROJECT

    def training(self, variant: str) -> Path:
        return self.root / "training" / variant

    def model(self, variant: str) -> Path:
        return self.root / "models" / variant

    def faults(self, variant: str) -> Path:
        return self.root / "faults" / f"{variant}.json"


def write_atomically(path: Path, text: str, mode: int = 0o600) -> None:
    """A reader sees the old content or the whole new one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
        fresh.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        raise


def read_json(path: Path, what: str, hint: str) -> dict[str, Any]:
    """A JSON object that an earlier step wrote. Raises UsageError with `hint` if it is missing."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UsageError(f"{what} is not there yet.", where=str(path), hint=hint) from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{what} cannot be read: {error}", where=str(path), hint=hint) from error
    if not isinstance(value, dict):
        raise UsageError(f"{what} is not a JSON object.", where=str(path), hint=hint)
    return value


def tracking_uri(layout: Layout) -> str:
    """Not quoted: SQLAlchemy would undo it, but MLflow creates the quoted folder as well."""
    return f"sqlite:///{layout.tracking}"


def ports(layout: Layout) -> dict[str, int]:
    """The ports by part that `prepare` chose. Raises UsageError if it has not run."""
    found = read_json(layout.ports, "The list of the demo's ports",
                      "Set the demo up first: opsdeck demo")
    try:
        return {part: int(found[part]) for part in PORTS}
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"The list of the demo's ports lacks {error}.", where=str(layout.ports),
                         hint="Remove it; opsdeck demo chooses new ones.") from error
