"""How the app meets the terminal: keys come in one after the other, pictures go out when they can.

Textual queues each key for a widget and each picture for the terminal. Over a bad line both go
wrong: keys typed ahead reach what is not open yet, and old pictures arrive before new ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, Protocol, runtime_checkable

from rich.console import RenderableType
from textual import events
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.app import App
from textual.driver import Driver
from textual.screen import Screen

from console.paint import Painter
from console.terminal import TerminalDriver

SMALLEST = (80, 24)
PATIENCE_S = 1.0  # how long the next key waits for what the one before has opened
SYNC_FROM = 512   # bytes from which an update is worth the sequences that keep it from tearing


@runtime_checkable
class Pressable(Protocol):
    """A screen that takes keys and pastes by itself: a view or a dialog."""

    async def press(self, key: str, character: str | None) -> None: ...
    def paste(self, text: str) -> None: ...


class Stage(App[int], inherit_bindings=False):
    """An app that paints through a `Painter` and hands keys to the screen in front.

    Subclasses write `renew`, `touched` and `action_leave`.
    """

    ENABLE_COMMAND_PALETTE = False

    def __init__(self, painter: Painter, driver: type[Driver] | None) -> None:
        super().__init__(driver_class=driver or TerminalDriver, ansi_color=True)
        self.animation_level = "none"
        self._disable_tooltips = self._disable_notifications = True
        self.painter = painter
        self.settling: Awaitable[Any] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._behind = False

    def renew(self) -> None:
        """Draw everything from the state as it is now."""
        raise NotImplementedError

    def touched(self) -> None:
        """A key was pressed."""
        raise NotImplementedError

    def action_leave(self) -> None:
        raise NotImplementedError

    @property
    def too_small(self) -> bool:
        return self.size.width < SMALLEST[0] or self.size.height < SMALLEST[1]

    def renew_or_owe(self) -> None:
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
        while (settling := self.settling) is not None:
            self.settling = None
            await asyncio.wait({asyncio.ensure_future(settling)}, timeout=PATIENCE_S)

    def open(self, dialog: Screen[None]) -> None:
        self.settling = self.push_screen(dialog)

    def begin(self, work: Coroutine[Any, Any, None], *,
              settle: bool = False) -> asyncio.Task[None]:
        """Run something beside the loop; what it raises unexpectedly ends the console with a report.

        With `settle` the next key waits a moment for it.
        """
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        if settle:
            self.settling = task
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self._handle_exception(error)

    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        """Take a composition into the picture wanted, and paint what differs."""
        if renderable is None or self._batch_count or not self._running or self._closed:
            return
        self.painter.resize(*self.size)
        if self.too_small:
            self.painter.sentence(f"{SMALLEST[0]}×{SMALLEST[1]} is the least that shows everything. "
                                  f"This is {self.size.width}×{self.size.height}. "
                                  "q leaves; `opsdeck status` works at any size.")
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
            if self._sync_available and len(text) > SYNC_FROM:
                text = f"\x1b[?2026h{text}\x1b[?2026l"
            driver.write(text)

    def write_raw(self, sequence: str) -> None:
        """Send a sequence that moves no cursor and changes no cell."""
        if self._driver is not None and not self.is_headless:
            self._driver.write(sequence)

    def _set_pointer_shape(self, shape: str) -> None:
        """No pointer shapes: they cost bytes and the mouse is off."""
