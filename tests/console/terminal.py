"""A console in a pseudo-terminal: what it writes, byte by byte, and what a terminal would show."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyte

ROOT = Path(__file__).parents[2]
OPSDECK = (sys.executable, "-m", "engine.cli.main")
DEADLINE_S = 20.0


class Terminal:
    """One program in a terminal of `width` by `height`; `log` holds (seconds since start, bytes)."""

    def __init__(self, argv: list[str], *, width: int = 80, height: int = 24,
                 **environ: str) -> None:
        env = {k: v for k, v in os.environ.items()
               if k not in ("NO_COLOR", "TMUX", "COLORTERM", "COLUMNS", "LINES", "LC_ALL",
                            "PYTHONDONTWRITEBYTECODE")}
        env |= {"TERM": "xterm-256color", "LANG": "C.UTF-8", **environ}
        self.fd, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            argv, stdin=slave, stdout=slave, stderr=slave, env=env, cwd=ROOT, close_fds=True,
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(slave)
        self.screen = pyte.Screen(width, height)
        self._stream = pyte.ByteStream(self.screen)
        self.log: list[tuple[float, bytes]] = []
        self.ended = False

    @property
    def pid(self) -> int:
        return self.process.pid

    def read(self, seconds: float) -> bytes:
        """Read for that long, or until the program ends."""
        end = time.monotonic() + seconds
        got = b""
        while not self.ended and (left := end - time.monotonic()) > 0:
            got += self.read_once(left)
        return got

    def read_slice(self, count: int) -> bytes:
        """At most `count` bytes of what is there: a slow line."""
        return self._take(count, 0.0)

    def read_once(self, timeout: float) -> bytes:
        return self._take(65536, timeout)

    def _take(self, count: int, timeout: float) -> bytes:
        if not select.select([self.fd], [], [], timeout)[0]:
            return b""
        try:
            data = os.read(self.fd, count)
        except OSError:  # the other side has closed it
            data = b""
        if not data:
            self.ended = True
            return b""
        self.log.append((time.monotonic() - self.started, data))
        # pyte takes the private mode query for an unknown sequence and prints its end.
        self._stream.feed(re.sub(rb"\x1b\[\?[0-9;]*\$p|\x1b\[[<>][0-9]*u", b"", data))
        return data

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < end, f"not within {DEADLINE_S:.0f} s: {what}\n{self.text()}"
            assert not self.ended or condition(), f"it ended before: {what}\n{self.text()}"
            self.read_once(0.02)

    def wait_text(self, text: str) -> None:
        self.wait(lambda: text in self.text(), f"{text!r} on the screen")

    def wait_silent(self, for_s: float = 0.5) -> None:
        """Until it has written nothing for that long."""
        end = time.monotonic() + DEADLINE_S
        while self.read_once(for_s):
            assert time.monotonic() < end, f"not silent for {for_s} s within {DEADLINE_S:.0f} s"

    def wait_full(self) -> None:
        """Until so much waits to be read that it can write no more, or soon cannot."""
        end = time.monotonic() + DEADLINE_S
        while struct.unpack("i", fcntl.ioctl(self.fd, termios.FIONREAD, b"\0" * 4))[0] < 4095:
            assert time.monotonic() < end, f"it has written too little within {DEADLINE_S:.0f} s"
            time.sleep(0.01)

    def send(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def hang_up(self) -> None:
        """Close the terminal under the program, as a lost connection does."""
        os.close(self.fd)
        self.fd = -1

    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.screen.display)

    def written(self) -> bytes:
        return b"".join(data for _, data in self.log)

    def close(self) -> None:
        """End the program, also one that does not end by itself."""
        self.process.kill()
        self.process.wait(10)
        if self.fd >= 0:
            os.close(self.fd)


@contextmanager
def terminal(argv: list[str], **options: object) -> Iterator[Terminal]:
    opened = Terminal(argv, **options)  # type: ignore[arg-type]
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def fake_engine(home: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """The made-up engine of `tests.console.fake_engine`, on a real socket in `home`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.console.fake_engine", str(home), *options], cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def console(home: Path, *options: str) -> list[str]:
    return [*OPSDECK, "--home", str(home), *options]


def sgr_colors(data: bytes) -> set[str]:
    """The colour parameters of every SGR sequence in `data`: empty for a monochrome program."""
    found: set[str] = set()
    for match in re.finditer(rb"\x1b\[([0-9;]*)m", data):
        for code in match.group(1).decode().split(";"):
            if code.isdigit() and (30 <= int(code) <= 49 or 90 <= int(code) <= 107):
                found.add(code)
    return found
