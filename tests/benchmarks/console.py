"""What the console costs, measured through a pseudo-terminal against an engine on a real socket.

The engine is the daemon with made-up data (`tests.console.fake_engine`); the console is the whole
command `opsdeck`, started anew. Run alone: `python -m tests.benchmarks.console`.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.benchmarks.figure import Figure
from tests.console.terminal import Terminal, console, fake_engine

STARTS = 15
KEYS = 120
MEASURED_S = 20.0
SLOW_BYTES_S = 9600


@contextmanager
def engine(*options: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        with fake_engine(home, *options):
            yield home


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def opened(home: Path, *options: str, width: int = 80, height: int = 24) -> Terminal:
    terminal = Terminal(console(home, *options), width=width, height=height)
    terminal.wait_text("flights")
    return terminal


def first_paints(home: Path) -> tuple[list[float], list[int]]:
    """Seconds until the first service's row is on screen, and the bytes written until all is."""
    seconds, sizes = [], []
    for _ in range(STARTS):
        terminal = Terminal(console(home))
        try:
            terminal.wait_text("flights")
            seconds.append(terminal.log[-1][0])
            terminal.wait_text("translate")
            terminal.wait_text("? keys")
            sizes.append(len(terminal.written()))
        finally:
            terminal.close()
    return seconds, sizes


def steady(home: Path, width: int, height: int) -> tuple[float, float, float, list[int]]:
    """(bytes a second, CPU share in percent, resident MB, bytes of each single update)."""
    terminal = opened(home, width=width, height=height)
    try:
        terminal.read(2.0)
        process = psutil.Process(terminal.pid)
        before, began = sum(process.cpu_times()[:2]), time.monotonic()
        count = len(terminal.log)
        got = terminal.read(MEASURED_S)
        took = time.monotonic() - began
        cpu = sum(process.cpu_times()[:2]) - before
        updates: list[int] = []
        last = -1.0
        for at, data in terminal.log[count:]:
            if at - last > 0.3:
                updates.append(0)
            updates[-1] += len(data)
            last = at
        return len(got) / took, 100 * cpu / took, process.memory_info().rss / 1e6, updates
    finally:
        terminal.close()


def rollout_screen(width: int, height: int) -> tuple[float, int]:
    """(bytes a second, largest single update) of an open Rollout screen whose evidence moves at 1 Hz."""
    with engine("--rollouts", "--calm") as home:
        terminal = opened(home, width=width, height=height)
        try:
            terminal.send(":rollout recommend\r")
            terminal.wait_text("IS IT WORSE?")
            terminal.read(2.0)
            count = len(terminal.log)
            began = time.monotonic()
            got = terminal.read(MEASURED_S / 2)
            return len(got) / (time.monotonic() - began), max(len(data) for _, data in terminal.log[count:])
        finally:
            terminal.close()


def key_delays(home: Path) -> list[float]:
    """Milliseconds from a key to the first byte, while data streams."""
    terminal = opened(home)
    delays = []
    try:
        terminal.read(1.0)
        for number in range(KEYS):
            terminal.read(0.05 + 0.011 * (number % 7))
            sent = time.monotonic()
            terminal.send("j" if number % 20 < 10 else "k")
            while not terminal.read_once(1.0) and time.monotonic() - sent < 1.0:
                pass
            delays.append(1000 * (time.monotonic() - sent))
    finally:
        terminal.close()
    return delays


def idle_bytes() -> float:
    with engine("--hz", "0", "--calm") as home:
        terminal = opened(home)
        try:
            terminal.read(1.5)
            return len(terminal.read(10.0)) / 10.0
        finally:
            terminal.close()


def slow_line(home: Path) -> tuple[float, float]:
    """Over a line of 9,600 bytes a second: the age of what is shown (s), and abort's dialog (s).

    The reader takes 480 bytes each 50 ms, and keys leave 150 ms late, half of a round trip of 300 ms.
    """
    terminal = Terminal(console(home))
    try:
        ages: list[float] = []
        began = time.monotonic()
        shown_before = ""
        asked = answered = 0.0
        while time.monotonic() - began < 14.0:
            terminal.read_slice(SLOW_BYTES_S // 20)
            time.sleep(0.05)
            text = terminal.text()
            if not asked and time.monotonic() - began > 8.0:
                asked = time.monotonic()
                time.sleep(0.15)
                terminal.send("x")
            if asked and not answered and (("abort" in text and "runs 184" in text) or "Abort run" in text):
                answered = time.monotonic() + 0.15
            clock = text.partition("live ")[2][:9]
            if clock and clock != shown_before and time.monotonic() - began > 3.0:
                shown_before = clock
                ages.append(time.monotonic())
        gaps = [b - a for a, b in itertools.pairwise(ages)]
        return max(gaps, default=99.0) + 0.15, (answered or 1e9) - asked
    finally:
        terminal.close()


def figures() -> list[Figure]:
    """Every budget of the console, each beside its target."""
    with engine() as home:
        paints, sizes = first_paints(home)
        small_b, small_cpu, small_mb, updates = steady(home, 80, 24)
        large_b, large_cpu, large_mb, _ = steady(home, 160, 48)
        keys = key_delays(home)
        age, dialog = slow_line(home)
    rollout_b, rollout_most = rollout_screen(80, 24)
    rollout_wide, _ = rollout_screen(160, 48)
    return [
        Figure("console: first useful paint, p95", 1000 * percentile(paints, 0.95), "ms", 600,
               "lower", f"{STARTS} starts of the whole command, median "
                        f"{1000 * statistics.median(paints):.0f}"),
        Figure("console: bytes of the first picture, 80×24", max(sizes), "B", 20_000, "lower"),
        Figure("console: key to first byte while data streams, p50", percentile(keys, 0.5), "ms", 10,
               "lower", f"{KEYS} keys"),
        Figure("console: key to first byte while data streams, p99", percentile(keys, 0.99), "ms",
               50, "lower"),
        Figure("console: nothing changed", idle_bytes(), "B/s", 0, "lower"),
        Figure("console: 20 services changing at 1 Hz, 80×24", small_b, "B/s", 3000, "lower",
               f"largest single update {max(updates)} B"),
        Figure("console: a typical update, 80×24", statistics.median(updates), "B", 500, "lower"),
        Figure("console: the same at 160×48, over 80×24", large_b / small_b, "×", 1.2, "lower",
               f"{large_b:.0f} B/s"),
        Figure("console: an open rollout whose evidence moves at 1 Hz, 80×24", rollout_b, "B/s", 3000,
               "lower", f"largest single update {rollout_most} B; 160×48: {rollout_wide:.0f} B/s"),
        Figure("console: CPU at 1 Hz, 80×24", small_cpu, "%", 1.0, "lower",
               f"160×48: {large_cpu:.2f} %"),
        Figure("console: resident memory", max(small_mb, large_mb), "MB", 60, "lower"),
        Figure("console: age of the data on a line of 9,600 B/s", age, "s", 2.0, "lower",
               "largest gap between two states shown, and half a round trip of 300 ms"),
        Figure("console: x to the abort question on that line", dialog, "s", 2.0, "lower"),
    ]


if __name__ == "__main__":
    for figure in figures():
        good = figure.value <= figure.target
        print(f"{'ok ' if good else 'OVER'} {figure.name:<58} {figure.value:>9.2f} {figure.unit:<4} "
              f"target {figure.target:g}  {figure.note}")
