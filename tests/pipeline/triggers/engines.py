"""A real engine whose projects are begun by a small procedure: it notes what it was given, and waits for a
file before it is done."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from engine import home as homes
from engine.api import wire
from engine.api.backend import Backend, Caller
from engine.app import open_engine
from engine.config_file import of_engine
from engine.pipeline.triggers import looking, turns, watcher

ANN = Caller("ann", 1001, 1, frozenset({"viewer", "operator"}), "test")
EVE = Caller("eve", 1003, 1, frozenset({"viewer", "approver", "operator"}), "test")
VIC = Caller("vic", 1004, 1, frozenset({"viewer"}), "test")
PROCEDURE = """\
opsdeck: 1
id: build
title: Build a model
kind: pipeline
owner: tests
contacts: [{{name: Tests, via: tests}}]
reviewed: 2026-11-20
params:
  project: {{type: string, required: true}}
  cause: {{type: string, default: ""}}
  commit: {{type: string, default: ""}}
  folder: {{type: string, default: ""}}
steps:
  - id: build
    title: Build it
    shell:
      - /bin/sh
      - -c
      - 'echo "$0|$1|$2|$3" >> {place}/built; while [ ! -e {place}/go ]; do sleep 0.02; done'
      - "${{{{ params.project }}}}"
      - "${{{{ params.cause }}}}"
      - "${{{{ params.commit }}}}"
      - "${{{{ params.folder }}}}"
    irreversible: test
"""
APPROVED = """\
  - id: release
    title: Release it
    shell: [/bin/true]
    needs: [build]
    irreversible: test
    approvals: {{min: 1, roles: [approver], not_initiator: true}}
"""


class Place:
    """A folder with an engine's home, its library and its projects."""

    def __init__(self, root: Path, config: str = "", steps: str = "") -> None:
        self.root = root
        self.home = homes.at(root / "home", "single-user")
        homes.prepare(self.home)
        (root / "library").mkdir()
        (root / "library/build.yaml").write_text((PROCEDURE + steps).format(place=root))
        self.config = config
        self.roles = ""
        self.register()

    def register(self, **projects: Path) -> None:
        named = ", ".join(f"{name}: {folder}" for name, folder in projects.items())
        self.home.config.write_text(f"engine: {{library: [{self.root}/library]}}\n{self.roles}"
                                    f"pipelines:\n  projects: {{{named}}}\n{self.config}")

    def built(self) -> list[list[str]]:
        """What the runs were given so far: project, cause, commit, folder."""
        place = self.root / "built"
        return [line.split("|") for line in place.read_text().splitlines()] if place.exists() else []

    def go(self, yes: bool = True) -> None:
        (self.root / "go").touch() if yes else (self.root / "go").unlink()


@contextlib.asynccontextmanager
async def engine(place: Place) -> AsyncIterator[Backend]:
    async with open_engine(place.home, of_engine(place.home)) as app:
        yield app.backend


async def until(backend: Backend, project: str, holds: Callable[[wire.Trigger], Any], within: float = 20.0
                ) -> wire.Trigger:
    """The project's triggers, as soon as something holds of them."""
    end = time.monotonic() + within
    shown: Any = None
    while time.monotonic() < end:
        with contextlib.suppress(Exception):
            shown = (await backend.triggers(project))[0]
            if holds(shown):
                return shown
        await asyncio.sleep(0.02)
    raise AssertionError(f"not within {within:.0f} s: {shown}")


def fast(monkeypatch: Any) -> None:
    """Beats twenty times a second, data that is taken as soon as it is there, and looks in a thread: that
    they are a process elsewhere is tested by itself."""
    def looker(home: Path) -> watcher.Look:
        async def look(project: str, folder: Path) -> watcher.Looked:
            memo = home / project / "looked.json"
            found = await asyncio.to_thread(looking.look, folder, memo, time.time(), 0.0)
            return watcher.Looked(found["what"], found["data"])

        return look

    monkeypatch.setattr(watcher, "looker", looker)
    monkeypatch.setattr(watcher, "BEAT", 0.05)
    monkeypatch.setattr(turns, "RETRY", 0.2)
    monkeypatch.setattr(turns, "BEAT", 0.05)
    monkeypatch.setenv("OPSDECK_SETTLE", "0")
