"""What `pipelines` may say: the projects that the engine trains, where their runs are tracked, and the port
on which other machines may ask for a training."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from engine.fields import Model, Positive, Text

NAME = r"^[a-z0-9][a-z0-9-]*$"
Name = Annotated[str, Field(pattern=NAME)]
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


class Pipelines(Model):
    """The projects by name, each a folder with `opsdeck.pipeline.yaml`. `tracking` is an MLflow URI (an
    SQLite file in the home where it is left out), `artifacts` where MLflow keeps them."""

    tracking: Text | None = None
    artifacts: Text | None = None
    projects: dict[Name, Path] = {}
    ingest: Ingest | None = None
