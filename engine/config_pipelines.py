"""What `pipelines` may say: the projects that the engine trains, where their runs are tracked, and the port
on which other machines may ask for a training."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from engine.fields import Duration, Model, Positive, Text

NAME = r"^[a-z0-9][a-z0-9-]*$"
Name = Annotated[str, Field(pattern=NAME)]
SERVER = ("start one as a user of its own: mlflow server --app-name basic-auth --backend-store-uri "
          "sqlite:////var/lib/mlflow/mlflow.db --artifacts-destination /var/lib/mlflow/artifacts "
          "--host 127.0.0.1 --port 5000; then name it: pipelines: {tracking: http://127.0.0.1:5000}")
REFERENCE = r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:/.+)$"


def address(listen: str) -> tuple[str, int]:
    """Host and port of `127.0.0.1:8770` or `[::1]:8770`. Raises ValueError for another form, and for a host
    that other machines could reach: whatever makes it public does that, and its own TLS."""
    host, colon, port = listen.rpartition(":")
    if not colon or not re.fullmatch(r"\d{1,5}", port) or int(port) > 65535:
        raise ValueError(f"{listen!r} is not an address; write it like 127.0.0.1:8770")
    bare = host.removeprefix("[").removesuffix("]")
    try:
        loopback = ipaddress.ip_address(bare).is_loopback
    except ValueError:
        raise ValueError(f"{host!r} is not an address of this machine; write it like 127.0.0.1:8770"
                         ) from None
    if not loopback:
        raise ValueError(f"{host} can be reached from other machines; listen on 127.0.0.1 and put a reverse "
                         "proxy with TLS before it")
    return bare, int(port)


def unfit(tracking: str | None, artifacts: str | None = None) -> tuple[str, str] | None:
    """Why the stages of a system engine cannot be tracked there, and what to do; None where they can. Pure.

    Training runs as a user who must not be able to write the registry's own files, so that a server keeps it.
    """
    if tracking is None:
        return ("a system engine tracks its trainings on an MLflow server, and none is named: the user who "
                "trains must not be able to write the registry's files", SERVER)
    if not tracking.startswith(("http://", "https://")):
        scheme = tracking.partition(":")[0]
        return (f"a system engine tracks its trainings on an MLflow server, not in {scheme}:…: whoever "
                "trains could write all of the registry", SERVER)
    if "@" in tracking.split("/")[2]:
        return ("this address holds a name or a password, which everybody on this machine would see in the "
                "list of processes", "give them to the engine's process as MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD")
    if artifacts is not None and ("://" not in artifacts or artifacts.startswith("file:")):
        return (f"artifacts in {artifacts} would be written by whoever trains", "leave `artifacts` out: the "
                "server keeps them; or name a store, such as s3://models/mlflow")
    return None


def _listen(text: str) -> str:
    address(text)
    return text


Listen = Annotated[str, AfterValidator(_listen), WithJsonSchema(
    {"type": "string", "pattern": r"^.+:\d{1,5}$", "description": "A loopback address and a port."})]


class Sender(Model):
    """Who may ask: the key that signs, and the projects (globs) it is for.

    `format` is ours, or `github` for the push webhooks of GitHub, Gitea and Forgejo.
    """

    key: Annotated[str, Field(pattern=REFERENCE)]
    format: Literal["opsdeck", "github"] = "opsdeck"
    projects: list[Text] = ["*"]


class Ingest(Model):
    """The port for signed requests. `largest`: bytes of one. `window`: as far as its time may be off."""

    listen: Listen
    senders: dict[Name, Sender] = Field(min_length=1)
    largest: int = Field(default=1 << 20, ge=1024, le=1 << 26)
    window: Positive = 300.0


class Keep(Model):
    """What is kept of a project's runs: the last `runs`, everything of the last `for`, what champion,
    previous and candidate were made of, and what a run that has not ended refers to. The rest is removed."""

    runs: int = Field(default=20, ge=1)
    seconds: Duration = Field(default=30 * 86400.0, alias="for")


class Pipelines(Model):
    """The projects by name, each a folder with `opsdeck.pipeline.yaml`. `tracking` is an MLflow URI (an
    SQLite file in the home where it is left out; a system engine wants a server), `artifacts` where MLflow
    keeps them."""

    tracking: Text | None = None
    artifacts: Text | None = None
    projects: dict[Name, Path] = {}
    ingest: Ingest | None = None
    keep: Keep = Keep()
