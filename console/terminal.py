"""The terminal's driver: no mouse unless asked, no orphan after a hangup, no queue of old frames.

Textual's own driver asks for any-motion mouse reports, keeps spinning when its terminal has gone,
blocks the whole program once thirty writes are queued, and wakes ten times a second to look for
keys. This one changes those four things, ends a program that was told to end and does not, and
leaves the rest as it is.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import threading
import time
from codecs import getincrementaldecoder
from collections.abc import Callable, Mapping
from typing import Any

from textual import constants
from textual._xterm_parser import XTermParser
from textual.app import App
from textual.drivers._writer_thread import WriterThread
from textual.drivers.linux_driver import LinuxDriver

from engine.errors import UsageError

# A killed console must not leave a shell that gets key reports instead of keys.
setattr(constants, "DISABLE_KITTY_KEY", True)  # noqa: B010

LAST_RESORT_S = 3.0  # how long an orderly end may take once one is asked for
RESTORE = "\x1b[?1000l\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[?7h\x1b[m\x1b[?1049l\x1b[?25h\x1b[?1004l"

WITHOUT_CURSOR = ("dumb", "unknown")  # rich takes the size of these for fixed; Textual then never settles


def usable(environ: Mapping[str, str]) -> None:
    """Raises UsageError where TERM names a terminal that cannot move the cursor."""
    term = environ.get("TERM", "")
    if term.lower() in WITHOUT_CURSOR:
        raise UsageError(f"the console wants a terminal that can move the cursor; TERM is {term}",
                         hint="set TERM to what your terminal is, for example xterm-256color, or "
                              "use `opsdeck status`, which does without one")


class FrameWriter(WriterThread):
    """Writes to the terminal from a thread of its own, at most one frame at a time.

    `idle` is false while anything is unwritten; `drained` is called, in this thread, each time all
    is written; `gone` once the terminal takes nothing any more.
    """

    def __init__(self, fileno: int, drained: Callable[[], None], gone: Callable[[], None]) -> None:
        super().__init__(sys.__stderr__)  # type: ignore[arg-type]
        self._fileno = fileno
        self._parts: list[str] = []
        self._lock = threading.Condition()
        self._busy = self._stopping = self.dead = False
        self._drained, self._gone = drained, gone

    @property
    def idle(self) -> bool:
        with self._lock:
            return not self._parts and not self._busy

    def write(self, text: str) -> None:
        with self._lock:
            if not self.dead:
                self._parts.append(text)
                self._lock.notify()

    def run(self) -> None:
        while True:
            with self._lock:
                while not self._parts and not self._stopping:
                    self._lock.wait()
                if not self._parts:
                    return
                data = "".join(self._parts).encode("utf-8", "replace")
                self._parts.clear()
                self._busy = True
            try:
                while data:
                    data = data[os.write(self._fileno, data):]
            except OSError:
                with self._lock:
                    self.dead, self._busy = True, False
                    self._parts.clear()
                self._gone()
                return
            with self._lock:
                self._busy = False
                drained = not self._parts
            if drained:
                self._drained()

    def stop(self) -> None:
        with self._lock:
            self._stopping = True
            self._lock.notify()
        self.join(LAST_RESORT_S)


class TerminalDriver(LinuxDriver):
    """Textual's driver for Linux with the changes named above.

    The app may offer, each called in its loop: `terminal_ready()` when the terminal is ours, also
    after a suspension; `terminal_drained()` whenever all is written; `terminal_gone()` when there is
    no terminal any more.
    """

    def __init__(self, app: App[Any], *, debug: bool = False, mouse: bool = True,
                 size: tuple[int, int] | None = None) -> None:
        assert sys.__stderr__ is not None
        self._out = sys.__stderr__.fileno()
        self.writer: FrameWriter | None = None
        super().__init__(app, debug=debug, mouse=mouse, size=size)
        self._wake_r, self._wake_w = os.pipe()
        self._leaving = False
        self._closed = False
        self._told: threading.Thread | None = None
        self._handlers: dict[int, Any] = {}

    @property
    def idle(self) -> bool:
        return self.writer is None or self.writer.idle

    def _call(self, name: str) -> None:
        method = getattr(self._app, name, None)
        if method is not None:
            with contextlib.suppress(RuntimeError):  # the loop has closed: nobody is left to tell
                self._loop.call_soon_threadsafe(method)

    @property
    def _writer_thread(self) -> FrameWriter | None:
        return self.writer

    @_writer_thread.setter
    def _writer_thread(self, thread: WriterThread | None) -> None:
        """The base class sets a writer of its own here; it gets one that waits for nobody."""
        self.writer = None if thread is None else FrameWriter(
            self._out, lambda: self._call("terminal_drained"), lambda: self._hang_up(signal.SIGHUP))

    def start_application_mode(self) -> None:
        self._closed = self._leaving = False
        # Before the loop has its say, and not through it: a loop that is stuck hears no signal.
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            self._handlers[number] = signal.signal(number, self._hang_up) or signal.SIG_DFL
        super().start_application_mode()  # type: ignore[no-untyped-call]
        self._call("terminal_ready")

    def _hang_up(self, number: int, _frame: object = None) -> None:
        """An orderly end, and a disorderly one if that takes too long (a terminal that blocks)."""
        if self._told is None:
            self._told = threading.Thread(target=self._last_resort, args=(128 + number,), daemon=True)
            self._told.start()
        self._call("terminal_gone")

    def _sigtstp_application(self, *_: object) -> None:
        """Stop together with the rest of the foreground job, as ^Z does elsewhere: a shell takes its
        terminal back only when a launcher that waits for us, such as `uv run`, has stopped too."""
        if self._auto_restart:
            self.suspend_application_mode()
            self._must_signal_resume = True
        os.killpg(0, signal.SIGSTOP)

    def _last_resort(self, code: int) -> None:
        """End the process if it is still there: also where the app has ended and something it left
        behind has not."""
        time.sleep(LAST_RESORT_S)
        if not self._closed:
            with contextlib.suppress(OSError):
                os.set_blocking(self._out, False)
                os.write(self._out, RESTORE.encode())
            if self.attrs_before is not None:
                with contextlib.suppress(termios.error):
                    termios.tcsetattr(self.fileno, termios.TCSANOW, self.attrs_before)
        os._exit(code)

    def disable_input(self) -> None:
        self._leaving = True  # before the wake-up, or the thread would go back to waiting for a key
        with contextlib.suppress(OSError):
            os.write(self._wake_w, b"x")
        super().disable_input()

    def close(self) -> None:
        super().close()
        self._closed = True
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def _run_input_thread(self) -> None:
        try:
            self.run_input_thread()
        except OSError:  # reading from a terminal that has gone
            self._hang_up(signal.SIGHUP)

    def run_input_thread(self) -> None:
        """Wait for keys without waking for nothing: a timeout only while an escape is undecided."""
        parser = XTermParser(self._debug)
        decode = getincrementaldecoder("utf-8")(errors="replace").decode
        while not self._leaving:
            deadline = parser._timeout_time
            timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select([self.fileno, self._wake_r], [], [], timeout)
            if self._wake_r in ready:
                os.read(self._wake_r, 64)
                continue
            if self.fileno in ready:
                data = os.read(self.fileno, 4096)
                if not data:
                    self._hang_up(signal.SIGHUP)
                    return
                for message in parser.feed(decode(data)):
                    self.process_message(message)
            for message in parser.tick():
                self.process_message(message)

    # With `--mouse`: clicks and the wheel (mode 1000), never motion: an idle hand costs nothing.

    def _enable_mouse_support(self) -> None:
        if self._mouse:
            self.write("\x1b[?1000h\x1b[?1006h")

    def _disable_mouse_support(self) -> None:
        if self._mouse:
            self.write("\x1b[?1000l\x1b[?1006l")

    def _enable_mouse_pixels(self) -> None:
        """Cells are enough."""
