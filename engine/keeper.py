"""Keeping what pipelines leave from growing for ever: after each of their runs, and when it is asked for."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any

from engine.api import wire
from engine.config import Config
from engine.errors import ActionFailed, JournalError, NotFound, OpsdeckError
from engine.home import Home
from engine.journal.events import ENGINE, SYSTEM, Actor, NewEvent
from engine.pipeline.building import cleaning
from engine.pipeline.building.cleaning import Cleaned, Cleaner
from engine.pipeline.building.keeping import ALIASES, Held, Item, Policy, Version
from engine.procedures.executor import Live
from engine.procedures.recorder import Recorder
from engine.words import megabytes

log = logging.getLogger("opsdeck")
EVERY = 6 * 3600.0     # seconds between two looks, whatever runs
REGISTRY = 120.0       # seconds for the registry
PASSED_ON = re.compile(r"PATH|HOME|LANG|LC_ALL|TZ|TMPDIR|MLFLOW_TRACKING_.*|SSL_CERT_(FILE|DIR)|"
                       r"(HTTPS?|NO|ALL)_PROXY", re.IGNORECASE)  # what MLflow needs to reach a registry


class Keeper:
    """Cleans up with what `config` says, as long as `live` has no say in it. One at a time."""

    def __init__(self, home: Home, recorder: Recorder, config: Callable[[], Config], live: Mapping[str, Live],
                 clock: Callable[[], float]) -> None:
        self._home = home
        self._recorder = recorder
        self._config = config
        self._live = live
        self._clock = clock
        self._ended = asyncio.Event()
        self._one = asyncio.Lock()

    def ended(self, live: Live) -> None:
        """A run has ended: if it is a pipeline's, that is the moment to clean up."""
        if live.progress.document.kind == "pipeline":
            self._ended.set()

    async def run(self) -> None:
        """Clean up until cancelled."""
        while True:
            try:
                async with asyncio.timeout(EVERY):
                    await self._ended.wait()
            except TimeoutError:
                pass
            self._ended.clear()
            await self.tidy()

    async def tidy(self) -> None:
        """Clean up where anything could go; what stands in the way is in the log. Raises JournalError."""
        try:
            if await asyncio.to_thread(cleaning.due, self._home.path, self._policy(), self._clock()):
                await self._clean(SYSTEM, None, dry=False)
        except JournalError as error:
            log.error("what pipelines have left is not cleaned up: %s", error)
        except OpsdeckError as error:
            log.warning("what pipelines have left is not cleaned up: %s", error)

    async def clean(self, actor: Actor, wanted: wire.Clean) -> wire.Cleaning:
        """As the API has it. Raises NotFound for a project that has left nothing here, and as
        `Cleaner.clean` does."""
        done = await self._clean(actor, wanted.project, dry=wanted.dry_run)
        return wire.Cleaning(self._clock(), wanted.dry_run, [_wired(one, wanted.dry_run) for one in done])

    async def _clean(self, actor: Actor, project: str | None, *, dry: bool) -> list[Cleaned]:
        async with self._one:
            known = await asyncio.to_thread(cleaning.projects, self._home.path)
            if project is not None and project not in known:
                raise NotFound(f"no run of {project} has left anything here",
                               hint=f"projects that have: {', '.join(known) or 'none'}")
            done = []
            for name in known if project is None else [project]:
                one = await asyncio.to_thread(self._cleaner().clean, name, dry=dry, clock=self._clock)
                if one.problem is not None:
                    log.warning("%s: %s", name, one.problem)
                if one.gone and not dry:
                    await self._recorder.append([NewEvent(
                        run=ENGINE, kind="pipeline.cleaned", at=self._clock(), actor=actor, data={
                            "text": f"{name}: {told(one.gone)} removed, {megabytes(one.bytes)}",
                            "project": name, "bytes": one.bytes,
                            "runs": sorted({item.name for item in one.gone if item.kind == "run"})})])
                done.append(one)
            return done

    def _cleaner(self) -> Cleaner:
        steps_user = self._config().engine.steps_user if self._home.mode == "system" else None
        return Cleaner(self._home.path, self._policy(), lambda: unended(self._live), self._ask, steps_user)

    def _policy(self) -> Policy:
        keep = self._config().pipelines.keep
        return Policy(keep.runs, keep.seconds)

    def _ask(self, named: str, versions: Collection[Version]) -> Held:
        return held(self._home, self._config().pipelines.tracking, named, versions)


def unended(live: Mapping[str, Live]) -> set[str]:
    """The runs that have not ended."""
    return {id for id, one in list(live.items()) if not one.progress.finished}


def held(home: Home, configured: str | None, named: str, versions: Collection[Version]) -> Held:
    """What the registry calls these versions. Blocking: MLflow is asked in a process of its own, seconds.

    `named`: the project's own registry, else that which the config names, else the home's. Raises
    ActionFailed when it does not answer.
    """
    tracking = named or configured or f"sqlite:///{home.path}/mlflow.db"
    found: dict[Version, str] = {}
    for model in sorted({name for name, _ in versions}):
        aliases = _aliases(home, tracking, model)
        for alias in reversed(ALIASES):
            if alias in aliases:
                found[model, str(aliases[alias])] = alias
    return found


def _aliases(home: Home, tracking: str, model: str) -> Mapping[str, Any]:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "engine.pipeline.releasing.aliases", "held", "--model", model],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=REGISTRY, check=False,
            cwd=home.path, env={**{name: value for name, value in os.environ.items()
                                   if PASSED_ON.fullmatch(name)}, "OPSDECK_TRACKING": tracking})
        answer = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        raise ActionFailed("it has not answered") from error
    if "error" in answer:
        raise ActionFailed(str(answer["error"]))
    return dict(answer["held"])


def told(items: Collection[Item]) -> str:
    """How many of each kind."""
    runs = len({one.name for one in items if one.kind == "run"})
    counts = [(runs, "run"), *((sum(one.kind == kind for one in items), kind)
                               for kind in ("output", "failure", "environment"))]
    return ", ".join(f"{number} {word}{'s' if number != 1 else ''}" for number, word in counts if number)


def _wired(one: Cleaned, dry: bool) -> wire.Cleaned:
    def pieces(items: Collection[Item]) -> list[wire.Piece]:
        # A run's notes lie in two folders of a system engine.
        known = dict.fromkeys((item.kind, item.name) for item in items)
        return [wire.Piece(kind, name) for kind, name in known]

    return wire.Cleaned(one.project, pieces(one.gone), one.bytes, pieces(one.used), [
        wire.Staying(kept.why, kept.count, kept.bytes if dry else None) for kept in one.stays], one.problem)
