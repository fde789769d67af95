"""The console's app: it hears the engine, keeps the state, and moves between views."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from rich.color import ColorSystem
from rich.console import RenderableType
from textual import events
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.app import App
from textual.driver import Driver
from textual.screen import Screen

from console import acting, commands, places, reports
from console.commands import Context
from console.glyphs import ASCII, UNICODE, Glyphs, utf8_locale
from console.paint import Painter, color_system
from console.palette import Palette, ThemeName, choose
from console.screens.view import View
from console.source import Source
from console.state import State
from console.terminal import TerminalDriver
from engine.api import wire

SMALLEST = (80, 24)
PATIENCE_S = 1.0  # how long the next key waits for what the one before has opened


class Home(Protocol):
    """Where an engine lives: its directory and its socket."""

    @property
    def path(self) -> Path: ...
    @property
    def socket(self) -> Path: ...


@runtime_checkable
class Pressable(Protocol):
    """A screen that takes keys and pastes by itself: a view or a dialog."""

    async def press(self, key: str, character: str | None) -> None: ...
    def paste(self, text: str) -> None: ...


class OpsdeckApp(App[int], inherit_bindings=False):
    """Everything the views share. `say` shows a sentence, `go` moves, `begin` runs something."""

    CSS_PATH = "theme.tcss"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS = commands.bindings(commands.EVERYWHERE)
    TITLE = "opsdeck"

    def __init__(self, source: Source, *, write: bool = False, read_only: bool = False,
                 theme: ThemeName = "calm", ascii: bool = False, open_run: str | None = None,
                 crash_log: Path | None = None, driver: type[Driver] | None = None) -> None:
        super().__init__(driver_class=driver or TerminalDriver, ansi_color=True)
        self.animation_level = "none"
        self._disable_tooltips = self._disable_notifications = True
        self.source = source
        self.state = State(source.clock, write=write, read_only=read_only)
        system = color_system(os.environ, theme)
        self.palette = Palette(theme, sixteen=system is ColorSystem.STANDARD)
        self.glyphs: Glyphs = ASCII if ascii else UNICODE
        self.painter = Painter(system, ascii_only=ascii)
        self.crash_log = crash_log
        self.notice, self.notice_role, self.notice_passing = "", "text", False
        self.trail = places.Trail(("run", open_run) if open_run else places.FLEET)
        self.procedures: tuple[str, ...] = ()
        self._touched = source.clock() - 60.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._behind = False
        self._renewed = 0.0
        self.settling: Awaitable[Any] | None = None

    def get_default_screen(self) -> Screen[Any]:
        view = places.make(self.trail.here)
        # Textual gives a pushed screen somewhere to put its result, which switching takes away again.
        view._push_result_callback(self, None, None)
        return view

    def on_mount(self) -> None:
        self.begin(self._listen())
        self.set_interval(1.0, self._age)

    def on_resize(self, event: events.Resize) -> None:
        self.state.too_small = event.size.width < SMALLEST[0] or event.size.height < SMALLEST[1]

    async def _listen(self) -> None:
        async for tick in self.source.ticks():
            self.state.tick = tick
            self._renew_or_owe()

    def _age(self) -> None:
        """Ages and timers move on by themselves where no tick has just drawn everything."""
        if self.source.clock() - self._renewed > 0.9:
            self._renew_or_owe()

    def _renew_or_owe(self) -> None:
        """Draw, unless the terminal has not yet taken the frame before: then draw once it has."""
        driver = self._driver
        if isinstance(driver, TerminalDriver) and not driver.idle:
            self._behind = True
        else:
            self.renew()

    def terminal_ready(self) -> None:
        """The terminal is ours, perhaps again: what it shows is unknown."""
        self.painter.forget()
        self._paint()

    def terminal_drained(self) -> None:
        if self._behind:
            self._behind = False
            self.renew()
            self._paint()

    def terminal_gone(self) -> None:
        """The terminal hung up, or a signal asks for the end: leave; the runs go on in the engine."""
        self.exit(return_code=0)

    async def on_event(self, event: events.Event) -> None:
        """Keys go straight to the screen in front, one after the other: typing ahead keeps its order.

        Textual would queue a key for a widget before the key in front of it has moved the focus.
        """
        front: object = self.screen_stack[-1] if self._screen_stack else None
        if isinstance(event, events.Key) and isinstance(front, Pressable):
            self.touched()
            if event.key == "ctrl+c":
                self.action_leave()
            else:
                await front.press(event.key, event.character)
                await self._settle()
        elif isinstance(event, events.Paste) and isinstance(front, Pressable):
            front.paste(event.text)
        else:
            await super().on_event(event)

    async def run_key(self, key: str) -> None:
        """Do what `key` is bound to in the view in front, or everywhere."""
        await self._check_bindings(key)

    async def _settle(self) -> None:
        """Wait until a screen that a key has opened is there, before the next key is taken."""
        settling, self.settling = self.settling, None
        if settling is not None:
            await asyncio.wait({asyncio.ensure_future(settling)}, timeout=PATIENCE_S)

    def open(self, dialog: Screen[None]) -> None:
        self.settling = self.push_screen(dialog)

    def begin(self, work: Coroutine[Any, Any, None], *, settle: bool = False) -> None:
        """Run something beside the loop; what it raises unexpectedly ends the console with a report.

        With `settle` the next key waits a moment for it.
        """
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        if settle:
            self.settling = task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self._handle_exception(error)

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
        self.renew()

    @property
    def message(self) -> tuple[str, str]:
        """What the message line shows: the notice, or what the engine says is wrong with itself."""
        snapshot = self.state.snapshot
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
        if view is not None and view.place == "run" and view.argument == run.id:
            view.take(run)

    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        """Take a composition into the picture wanted, and paint what differs."""
        if renderable is None or self._batch_count or not self._running or self._closed:
            return
        self.painter.resize(*self.size)
        if self.state.too_small:
            self.painter.sentence(f"{SMALLEST[0]}×{SMALLEST[1]} is the least that shows everything; "
                                  f"this is {self.size.width}×{self.size.height}.")
        elif isinstance(renderable, LayoutUpdate):
            self.painter.full(renderable.strips)
        elif isinstance(renderable, ChopsUpdate):
            self.painter.partial(renderable.chops, renderable.spans)
        self._paint()

    def _paint(self) -> None:
        driver = self._driver
        if self.is_headless or driver is None:
            return
        if isinstance(driver, TerminalDriver) and not driver.idle:
            self._behind = True
            return
        if text := self.painter.flush():
            if self._sync_available and len(text) > 512:
                text = f"\x1b[?2026h{text}\x1b[?2026l"
            driver.write(text)

    def write_raw(self, sequence: str) -> None:
        """Send a sequence that moves no cursor and changes no cell."""
        if self._driver is not None and not self.is_headless:
            self._driver.write(sequence)

    def _set_pointer_shape(self, shape: str) -> None:
        """No pointer shapes: they cost bytes and the mouse is off."""

    def _fatal_error(self) -> None:
        """A fault of the console's own: keep the details in a file and say where, without a traceback."""
        reports.crash(self, self.crash_log)
        self._close_messages_no_wait()


def launch(*, home: Home, write: bool, read_only: bool, theme: str | None, ascii: bool,
           mouse: bool, open_run: str | None) -> int:
    """Open the console on an engine's home; returns the exit code. Entry point of `opsdeck.console`."""
    from console.live import LiveSource
    app = OpsdeckApp(
        LiveSource(home.socket), write=write, read_only=read_only,
        theme=choose(theme, bool(os.environ.get("NO_COLOR"))), ascii=ascii or not utf8_locale(),
        open_run=open_run, crash_log=home.path / "console-crash.log")
    app.run(mouse=mouse)
    return app.return_code or 0
