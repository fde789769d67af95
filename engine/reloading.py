"""Reading `opsdeck.yaml` again while the engine runs: all of it holds, or none of it does.

What is built once when the engine starts (`NEEDS_RESTART`) stays as it is, and is named. Everything
else is handed to the parts that follow the config, between two events of the loop, so that nobody
sees half of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine import config_file
from engine.api import wire
from engine.config import Config, as_dict
from engine.errors import DocumentError, JournalError
from engine.home import Home
from engine.journal.events import ENGINE, Actor, NewEvent
from engine.procedures.recorder import Recorder, to_the_end

log = logging.getLogger("opsdeck")
NEEDS_RESTART = ("group", "steps_user", "scrape_interval", "window", "stale_after", "history")
_MOST_PROBLEMS = 20  # of a refused config, in its event
_NONE = object()
Adopt = Callable[[Config], None]


@dataclass(frozen=True)
class Change:
    """`config` is what holds from now on. `changed` are the keys that it changes, `restart` those that
    are written and have to wait, each as two keys of the file: `services.flights`, `engine.window`."""

    config: Config
    changed: list[str]
    restart: list[str]


def change(holding: Config, written: Config) -> Change:
    """What comes of a config that was `written` while another is `holding`. Pure."""
    kept = {key: getattr(holding.engine, key) for key in NEEDS_RESTART}
    waiting = [f"engine.{key}" for key, value in kept.items() if getattr(written.engine, key) != value]
    config = written.model_copy(update={"engine": written.engine.model_copy(update=kept)})
    before, after = as_dict(holding), as_dict(config)
    return Change(config, [f"{section}.{key}" for section in after
                           for key in sorted(before[section].keys() | after[section].keys())
                           if before[section].get(key, _NONE) != after[section].get(key, _NONE)],
                  waiting)


class Reloader:
    """Has the config that holds (`config`) and replaces it. `problem` says why the last one that was
    written was refused, `restart` what of it waits for a restart."""

    def __init__(self, home: Home, config: Config, recorder: Recorder, *, clock: Callable[[], float]
                 ) -> None:
        self.config = config
        self.problem: str | None = None
        self.restart: list[str] = []
        self._home = home
        self._recorder = recorder
        self._clock = clock
        self._had_file = home.config.exists()
        self._followers: list[Adopt] = []
        self._one = asyncio.Lock()

    def follow(self, adopt: Adopt) -> None:
        """`adopt` is called with every config that replaces another. It may not raise or wait."""
        self._followers.append(adopt)

    async def reload(self, actor: Actor, runs: Callable[[], list[str]]) -> wire.Reloaded:
        """Read the file and put it in place, once that is in the journal.

        `runs` gives the ids of the runs that go on; they keep the policy they began with. Raises
        DocumentError with every problem of the file, or JournalError; then nothing has changed.
        """
        async with self._one:
            return await to_the_end(self._reload(actor, runs))

    async def _reload(self, actor: Actor, runs: Callable[[], list[str]]) -> wire.Reloaded:
        try:
            written = await asyncio.to_thread(self._read)
        except DocumentError as error:
            await self._refused(actor, error)
            raise
        found = change(self.config, written)
        kept = runs() if "policy.rules" in found.changed else []
        text = _sentence(found, kept)
        await self._record(actor, "config.reloaded", text=text, changed=found.changed,
                           restart=found.restart)
        self.config, self.restart, self.problem = found.config, found.restart, None
        for adopt in self._followers:
            adopt(found.config)
        log.info("%s", text)
        return wire.Reloaded(self._clock(), text, found.changed, found.restart, kept)

    def _read(self) -> Config:
        if self._had_file and not self._home.config.exists():
            raise DocumentError("the config is not there any more", where=str(self._home.config),
                                hint="put it back, or an empty file if every default is meant")
        try:
            written = config_file.of_engine(self._home)
        except OSError as error:
            raise DocumentError(f"the config cannot be read: {error.strerror}",
                                where=str(self._home.config)) from error
        self._had_file = self._home.config.exists()
        return written

    async def _refused(self, actor: Actor, error: DocumentError) -> None:
        first = f" ({error.problems[0].splitlines()[0]})" if error.problems else ""
        self.problem = f"{error.message}{first}; the config from before holds"
        log.warning("the config was not reloaded: %s", self.problem)
        try:
            await self._record(actor, "config.refused", text=f"the config was not reloaded: {self.problem}",
                               problems=error.problems[:_MOST_PROBLEMS])
        except JournalError as unwritten:
            log.error("not in the journal: the config was refused (%s)", unwritten)

    async def _record(self, actor: Actor, kind: str, **data: Any) -> None:
        await self._recorder.append([NewEvent(run=ENGINE, kind=kind, at=self._clock(), actor=actor,
                                              data=data)])


def _sentence(found: Change, kept: list[str]) -> str:
    told = [f"the config was reloaded: {', '.join(found.changed)} changed" if found.changed
            else "the config was reloaded: nothing in it has changed"]
    if found.restart:
        told.append(f"needs a restart: {', '.join(found.restart)}")
    if kept:
        told.append(f"{'run' if len(kept) == 1 else 'runs'} {', '.join(kept)} "
                    f"{'keeps' if len(kept) == 1 else 'keep'} the policy from before")
    return "; ".join(told)
