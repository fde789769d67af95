"""The console's app: it hears the engine, keeps the state, and moves between views."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from rich.color import ColorSystem
from textual.driver import Driver
from textual.screen import Screen

from console import acting, commands, places, reports
from console.commands import Context
from console.glyphs import ASCII, UNICODE, Glyphs, utf8_locale
from console.paint import Painter, color_system
from console.palette import Palette, ThemeName, choose
from console.screens.view import View
from console.source import Source
from console.stage import Stage
from console.state import State
from engine.api import wire
from engine.errors import EngineUnreachable, OpsdeckError


class Home(Protocol):
    """Where an engine lives: its directory and its socket."""

    @property
    def path(self) -> Path: ...
    @property
    def socket(self) -> Path: ...


class OpsdeckApp(Stage):
    """Everything the views share. `say` shows a sentence, `go` moves, `begin` runs something."""

    CSS_PATH = "theme.tcss"
    BINDINGS = commands.bindings(commands.EVERYWHERE)
    TITLE = "opsdeck"

    def __init__(self, source: Source, *, write: bool = False, read_only: bool = False,
                 theme: ThemeName = "calm", ascii: bool = False, open_run: str | None = None,
                 crash_log: Path | None = None, driver: type[Driver] | None = None) -> None:
        system = color_system(os.environ, theme)
        super().__init__(Painter(system, ascii_only=ascii), driver)
        self.source = source
        self.state = State(source.clock, write=write, read_only=read_only)
        self.palette = Palette(theme, sixteen=system is ColorSystem.STANDARD)
        self.glyphs: Glyphs = ASCII if ascii else UNICODE
        self.crash_log = crash_log
        self.notice, self.notice_role, self.notice_passing = "", "text", False
        self._unheard = self._warned = False
        self.unsent: dict[str, str] = {}
        self._ticked = asyncio.Event()
        self._looked: frozenset[str] = frozenset()
        self.trail = places.Trail(("run", open_run) if open_run else places.FLEET)
        self.procedures: tuple[str, ...] = ()
        self._touched = source.clock() - 60.0
        self._renewed = 0.0

    def get_default_screen(self) -> Screen[Any]:
        view = places.make(self.trail.here)
        # Textual gives a pushed screen somewhere to put its result, which switching takes away again.
        view._push_result_callback(self, None, None)
        return view

    def on_mount(self) -> None:
        self.begin(self._listen())
        self.set_interval(1.0, self._age)

    def on_resize(self) -> None:
        self.state.too_small = self.too_small

    async def _listen(self) -> None:
        async for tick in self.source.ticks():
            self.state.tick = tick
            if self._unheard and tick.link.state == "live" and not self.state.stale:
                self.notice = ""
                self._unheard = False
            if tick.link.state == "live":
                self._ticked.set()
                self._ticked = asyncio.Event()
                self._look_back()
            self.renew_or_owe()

    def _look_back(self) -> None:
        """Read the rollouts that have ended when a run has, so that Fleet can say how: never each tick."""
        ended = self.state.newly_ended()
        if ended - self._looked:
            self._looked = ended
            self.begin(self._read_ended())

    async def _read_ended(self) -> None:
        try:
            found = await self.source.rollouts()
        except EngineUnreachable:
            self._looked = frozenset()  # asked again once it is heard
            return
        except OpsdeckError:
            return  # a fleet without the past is worth more than a complaint; `o` tells what is wrong
        over = sorted((r for r in found if r.ended is not None), key=lambda r: r.ended or 0.0)
        self.state.ended = {r.service: r for r in over}
        self.renew()

    async def next_tick(self, most: float) -> None:
        """Wait until the engine is heard again, `most` seconds at most."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ticked.wait(), most)

    def owe(self, run: str, sentence: str | None) -> None:
        """Show that the abort of a run is not sent yet, whatever else is said; None: that is over."""
        if sentence is None:
            self.unsent.pop(run, None)
        else:
            self.unsent[run] = sentence
            self._warned = False
        self.renew()

    def _age(self) -> None:
        """Ages and timers move on by themselves where no tick has just drawn everything."""
        if self.source.clock() - self._renewed > 0.9:
            self.renew_or_owe()

    async def on_unmount(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await self.source.close()

    @property
    def idle_s(self) -> float:
        """Seconds since the last key."""
        return self.source.clock() - self._touched

    def touched(self) -> None:
        self._touched = self.source.clock()
        if self.notice and self.notice_passing:
            self.say("")

    @property
    def view(self) -> View | None:
        """The view in front, below any dialog."""
        return next((s for s in reversed(self.screen_stack) if isinstance(s, View)), None)

    def renew(self) -> None:
        self._renewed = self.source.clock()
        if self._screen_stack and (view := self.view) is not None:
            view.renew()

    def say(self, text: str, role: str = "text", *, passing: bool = False) -> None:
        """Show a sentence: until it is put away, or (`passing`) until the next key."""
        self.notice, self.notice_role, self.notice_passing = text, role, passing
        self._unheard = False
        self.renew()

    def complain(self, error: OpsdeckError) -> None:
        """Say why something could not be read. That no engine answers holds only until one does."""
        self.say(acting.sentence(error, self.state.user), "warn")
        self._unheard = isinstance(error, EngineUnreachable)

    @property
    def message(self) -> tuple[str, str]:
        """What the message line shows: the notice, or why there is no news, or what ails the engine."""
        snapshot, link = self.state.snapshot, self.state.link
        if self.unsent:
            many = f" ({', '.join(self.unsent)})" if len(self.unsent) > 1 else ""
            return " ".join(filter(None, (next(iter(self.unsent.values())) + many, self.notice))), "bad"
        if not self.notice and snapshot is not None and link.state == "lost" and link.reason:
            return f"{link.reason} Trying again by itself.", "warn"
        if not self.notice and snapshot is not None and snapshot.engine.problem:
            return f"The engine has a problem: {snapshot.engine.problem}", "warn"
        return self.notice, self.notice_role

    def context(self) -> Context:
        state = self.state
        return Context(tuple(s.name for s in state.services), tuple(r.id for r in state.runs),
                       self.procedures)

    def go(self, place: str, argument: str = "") -> None:
        """Show a place; `back` then leads here again."""
        self._move(lambda: self.trail.go((place, argument)))

    def _move(self, step: Callable[[], bool]) -> None:
        place, view = self.trail.here, self.view
        if step():
            if view is not None:
                self.trail.keep(place, view)
            places.show(self)

    def go_to_line(self, text: str) -> None:
        """Carry out a line typed after `:`."""
        goto = commands.parse(text, self.context())
        if goto.problem:
            self.say(goto.problem, "warn")
        elif goto.place == "q":
            self.action_leave()
        elif goto.place == "write":
            self.action_write_mode()
        elif goto.place == "help":
            self.action_keys()
        elif goto.place:
            self.go(goto.place, goto.argument)

    def action_step_back(self) -> None:
        view = self.view
        if self.notice:
            self.say("")
        elif view is not None and view.filter:
            view.filter = ""
            view.renew()
        else:
            self._move(self.trail.back)

    def action_last(self) -> None:
        self.go(*self.trail.before)

    def action_goto(self) -> None:
        if self.view is not None:
            self.view.ask_goto()

    def action_approvals(self) -> None:
        self.go("approvals")

    def action_leave(self) -> None:
        if self.unsent and not self._warned:
            self.say("Leaving now sends no abort; q again leaves.", "bad")
            self._warned = True
            return
        self.exit(0)

    def action_keys(self) -> None:
        from console.screens.help import HelpDialog
        self.open(HelpDialog(self.trail.here[0]))

    def action_write_mode(self) -> None:
        state = self.state
        if state.read_only:
            self.say("This console was opened with --read-only, which cannot be left.", "warn")
            return
        state.write = not state.write
        self.renew()

    def action_redraw(self) -> None:
        self.painter.forget()
        self._paint()

    def action_copy(self) -> None:
        reports.copy(self, self.view.copyable() if self.view else "")

    def action_save(self) -> None:
        reports.save(self, self.trail.here[0])

    def suggest(self, service: str) -> None:
        """The library, with what fits the alert of `service` first."""
        self.go("runbooks", f"for:{service}")

    def abort_of(self, runs: list[str], where: str) -> None:
        acting.abort(self, runs, where)

    def take_run(self, run: wire.RunView) -> None:
        """A newer state of a run, for the view that shows it."""
        view = self.view
        if view is not None and view.run_id == run.id:
            view.take(run)

    def _fatal_error(self) -> None:
        """A fault of the console's own: keep the details in a file and say where, without a traceback."""
        reports.crash(self, self.crash_log)
        self._close_messages_no_wait()


def launch(*, home: Home, write: bool, read_only: bool, theme: str | None, ascii: bool,
           mouse: bool, open_run: str | None) -> int:
    """Open the console on an engine's home; returns the exit code. Entry point of `opsdeck.console`.

    Raises UsageError for a terminal that cannot move the cursor and for a theme that is not there.
    """
    from console.live import LiveSource
    from console.terminal import usable
    usable(os.environ)
    app = OpsdeckApp(
        LiveSource(home.socket), write=write, read_only=read_only,
        theme=choose(theme, bool(os.environ.get("NO_COLOR"))), ascii=ascii or not utf8_locale(),
        open_run=open_run, crash_log=home.path / "console-crash.log")
    app.run(mouse=mouse)
    return app.return_code or 0
