"""The console in a real pseudo-terminal: modes, colours, bytes, signals, a lost line."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tests.console.terminal import Terminal, console, fake_engine, sgr_colors, terminal

SAVED = (b"\x1b[?1049l", b"\x1b[?25h", b"\x1b[?2004l", b"\x1b[?7h")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("home")
    with fake_engine(path):
        yield path


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("calm")
    with fake_engine(path, "--hz", "0", "--calm"):
        yield path


@pytest.fixture
def rolling(tmp_path: Path) -> Iterator[Path]:
    with fake_engine(tmp_path, "--hz", "0", "--calm", "--rollouts"):
        yield tmp_path


def open_fleet(home: Path, *options: str, **environ: object) -> Terminal:
    opened = Terminal(console(home, *options), **environ)  # type: ignore[arg-type]
    opened.wait_text("flights")
    opened.wait_text("? keys")
    return opened


def test_the_first_picture_is_small_and_asks_for_no_mouse_kitty_or_blinking(home: Path) -> None:
    with terminal(console(home)) as opened:
        opened.wait_text("flights")
        opened.wait_text("? keys")
        written = opened.written()
        assert len(written) <= 20_000
        for mode in (b"?1000h", b"?1002h", b"?1003h", b"?1015h", b"?1016h", b"?12h", b"\x1b[>"):
            assert mode not in written
        assert b"\x1b[?25l" in written and b"\x1b[?25h" not in written


def test_with_mouse_it_hears_clicks_and_never_motion(home: Path) -> None:
    with terminal(console(home, "--mouse")) as opened:
        opened.wait_text("flights")
        assert b"?1000h" in opened.written() and b"?1003h" not in opened.written()
        opened.send("q")
        opened.wait(lambda: opened.ended, "the end")
        assert b"?1000l" in opened.written()


def test_nothing_changed_costs_no_byte(calm: Path) -> None:
    with terminal(console(calm)) as opened:
        opened.wait_text("? keys")
        opened.wait_silent()
        assert opened.read(2.5) == b""


def test_a_whole_fleet_that_changes_each_second_stays_within_the_budget(home: Path) -> None:
    with terminal(console(home)) as opened:
        opened.wait_text("flights")
        opened.read(1.0)
        got = opened.read(3.0)
        assert 0 < len(got) <= 3 * 3000


def test_no_color_means_no_colour_at_all(home: Path) -> None:
    with terminal(console(home), NO_COLOR="1") as opened:
        opened.wait_text("flights")
        opened.send(":run 184\r")
        opened.wait_text("traffic.shift")
        opened.send("x")
        opened.wait_text("Abort run 184?")
        assert sgr_colors(opened.written()) == set()
        assert b"\x1b[0;1m" in opened.written()
    with terminal(console(home)) as opened:
        opened.wait_text("flights")
        assert sgr_colors(opened.written())


@pytest.mark.parametrize("environ", [{"LC_ALL": "C"}, {"LC_ALL": "en_US.ISO-8859-1"}])
def test_a_locale_without_utf8_gets_ascii(home: Path, environ: dict[str, str]) -> None:
    with terminal(console(home), **environ) as opened:
        opened.wait_text("flights")
        opened.send("\r")
        opened.wait_text("requests/s")
        assert opened.written().isascii()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_it_with_the_terminal_restored(home: Path, number: signal.Signals) -> None:
    with terminal(console(home)) as opened:
        opened.wait_text("flights")
        os.kill(opened.pid, number)
        opened.wait(lambda: opened.ended, "the end")
        tail = opened.written()[-400:]
        assert all(mode in tail for mode in SAVED)
        assert opened.process.wait(10) is not None


@pytest.mark.parametrize("key", ["q", "\x03"])
def test_q_and_ctrl_c_leave_with_the_terminal_restored(home: Path, key: str) -> None:
    with terminal(console(home)) as opened:
        opened.wait_text("flights")
        opened.send(key)
        opened.wait(lambda: opened.ended, "the end")
        assert all(mode in opened.written()[-400:] for mode in SAVED)
        assert opened.process.wait(10) == 0


def test_a_closed_terminal_leaves_no_orphan(home: Path) -> None:
    with terminal(console(home)) as opened:
        opened.wait_text("flights")
        process = psutil.Process(opened.pid)
        opened.hang_up()
        assert psutil.wait_procs([process], timeout=10)[0] == [process]


def test_a_terminal_that_takes_nothing_cannot_keep_it_alive_after_sigterm(home: Path) -> None:
    with terminal(console(home)) as opened:
        opened.wait_text("flights")
        process = psutil.Process(opened.pid)
        for _ in range(60):  # each repaints the whole screen; nobody reads
            opened.send("\x0c")
        opened.wait_full()
        os.kill(opened.pid, signal.SIGTERM)
        assert psutil.wait_procs([process], timeout=10)[0] == [process]


STUCK_LOOP = "while True: time.sleep(0.01)"
STUCK_THREAD = "self.begin(asyncio.to_thread(time.sleep, 1000)); time.sleep(0.1)"


def stuck(how: str) -> list[str]:
    """A console that q leads into what never ends."""
    return [sys.executable, "-c", f"""
import asyncio, os, time
from console.app import OpsdeckApp
from console.fake import FakeSource
from console.fake_world import World
def action_leave(self):
    os.write(2, b'\\x1b[Hnow stuck')
    {how}
OpsdeckApp.action_leave = action_leave
OpsdeckApp(FakeSource(World(), clock=lambda: 1000.0)).run()
"""]


def stuck_now(open_here: ExitStack, how: str) -> Terminal:
    opened = open_here.enter_context(terminal(stuck(how)))
    opened.wait_text("flights")
    opened.send("q")
    opened.wait_text("now stuck")
    return opened


def test_one_that_is_stuck_ends_all_the_same_and_restores_the_terminal() -> None:
    """By either signal, in its loop or in a thread; one whose terminal is gone ends, too. All at once."""
    with ExitStack() as here:
        signalled = [(number, stuck_now(here, how)) for number in (signal.SIGTERM, signal.SIGHUP)
                     for how in (STUCK_LOOP, STUCK_THREAD)]
        left = stuck_now(here, STUCK_LOOP)
        process = psutil.Process(left.pid)
        for number, opened in signalled:
            os.kill(opened.pid, number)
        left.hang_up()
        for number, opened in signalled:
            opened.wait(lambda opened=opened: opened.ended, "the end")  # type: ignore[misc]
            assert opened.process.wait(10) == 128 + number
            assert all(mode in opened.written()[-400:] for mode in SAVED)
        assert psutil.wait_procs([process], timeout=10)[0] == [process]


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_a_terminal_that_cannot_move_the_cursor_is_refused_with_a_sentence(
        home: Path, term: str) -> None:
    with terminal(console(home), width=200, TERM=term) as opened:
        opened.wait(lambda: opened.ended, "the end")
        assert opened.process.wait(10) == 2
        assert opened.text().strip().split("\n") == [
            f"the console wants a terminal that can move the cursor; TERM is {term}",
            "  set TERM to what your terminal is, for example xterm-256color, or use `opsdeck status`, "
            "which does without one"]


def test_a_terminal_that_is_behind_jumps_to_the_newest_state(home: Path) -> None:
    with terminal(console(home)) as opened:
        opened.wait_text("flights")
        for _ in range(40):
            opened.send("\x0c")
        opened.send(":runs\r")
        held = time.monotonic() + 1.5
        while time.monotonic() < held:
            time.sleep(0.05)
        opened.wait_text("PROCEDURE")
        # Forty whole pictures of 3.5 kB were asked for; the ones nobody could see were dropped.
        opened.read(0.5)
        assert len(opened.written()) < 60_000


def test_it_shows_the_age_while_the_engine_is_stopped_and_goes_on_after(tmp_path: Path) -> None:
    with fake_engine(tmp_path, "--hz", "4") as engine, terminal(console(tmp_path)) as opened:
        opened.wait_text("live")
        engine.send_signal(signal.SIGSTOP)
        opened.wait(lambda: re.search(r"data \d+ s old", opened.text()) is not None, "an age")
        assert "flights" in opened.text()
        engine.send_signal(signal.SIGCONT)
        opened.wait_text("live 03:")


def test_it_stays_up_when_the_engine_dies_and_finds_the_next_one(tmp_path: Path) -> None:
    with fake_engine(tmp_path) as engine:
        opened = open_fleet(tmp_path)
        try:
            engine.kill()
            engine.wait(10)
            opened.wait_text("reconnecting")
            assert "flights" in opened.text()
            with fake_engine(tmp_path):
                opened.wait_text("live 03:")
        finally:
            opened.close()


def test_suspending_gives_the_shell_its_terminal_and_coming_back_repaints(home: Path) -> None:
    with terminal(console(home)) as opened:
        opened.wait_text("flights")
        opened.send("\x1a")
        opened.wait(lambda: b"\x1b[?1049l" in opened.written(), "the shell's screen")
        process = psutil.Process(opened.pid)
        opened.wait(lambda: process.status() == psutil.STATUS_STOPPED, "stopped")
        before = len(opened.written())
        os.kill(opened.pid, signal.SIGCONT)
        opened.wait(lambda: b"flights" in opened.written()[before:], "painted again")


def test_suspending_stops_a_launcher_that_waits_for_the_console_too(home: Path) -> None:
    launcher = [sys.executable, "-c", "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"]
    with terminal([*launcher, *console(home)]) as opened:
        opened.wait_text("flights")
        waiting = psutil.Process(opened.pid)
        opened.send("\x1a")
        opened.wait(lambda: waiting.status() == psutil.STATUS_STOPPED, "the launcher stopped")
        opened.wait(lambda: b"\x1b[?1049l" in opened.written(), "the shell's screen")
        before = len(opened.written())
        os.killpg(opened.pid, signal.SIGCONT)
        opened.wait(lambda: b"flights" in opened.written()[before:], "painted again")
        opened.send("q")
        opened.wait(lambda: opened.ended, "the end")
        assert opened.process.wait(10) == 0


def test_copying_sends_one_clipboard_sequence(home: Path) -> None:
    with terminal(console(home)) as opened:
        opened.wait_text("flights")
        opened.send("y")
        opened.wait_text("Copied")
        assert re.search(rb"\x1b\]52;c;[A-Za-z0-9+/=]+\x07", opened.written())


def test_the_console_imports_no_heavy_library_and_not_httpx(home: Path) -> None:
    import subprocess
    import sys
    code = ("import sys, console.app, console.live, console.screens.run, console.screens.service;"
            "print(sorted(m for m in ('mlflow','scipy','pandas','boto3','httpx','pydantic','numpy',"
            "'starlette','uvicorn') if m in sys.modules))")
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_rollout_is_opened_and_aborted_over_the_engine_s_socket(rolling: Path) -> None:
    with terminal(console(rolling)) as opened:
        opened.wait_text("flights")
        opened.send(":rollout recommend\r")
        opened.wait_text("5 % live")
        opened.send("x")
        opened.wait_text("Abort the rollout of recommend and roll back?")
        opened.send("y")
        opened.wait_text("R tries again")
        assert "↶ rolled back   back to champion 100 %" in opened.text() and "R try again" in opened.text()


def test_a_rollout_in_which_nothing_moves_costs_nothing(rolling: Path) -> None:
    with terminal(console(rolling)) as opened:
        opened.wait_text("flights")
        opened.send(":rollout pricing\r")
        opened.wait_text("u way back")
        opened.read(0.5)
        assert opened.read(2.5) == b""


def test_an_abort_asked_for_without_an_engine_reaches_the_one_that_comes_after(tmp_path: Path) -> None:
    with fake_engine(tmp_path, "--rollouts") as engine:
        opened = open_fleet(tmp_path, "--write")
        try:
            opened.send(":rollout recommend\r")
            opened.wait_text("P skip watching")
            assert "watching: on" in opened.text()
            engine.kill()
            began = time.monotonic()
            opened.wait_text("reconnecting, data ")
            assert time.monotonic() - began < 2.0, "told by the broken stream, not by the data's age"
            opened.wait_text("away: watching not known")
            opened.wait(lambda: "P skip watching" not in opened.text(), "no promotion is offered")
            assert "x abort" in opened.text()
            opened.send("x")
            opened.wait_text("none answers now; the abort is sent as soon as one does")
            opened.send("y")
            opened.wait_text("Not aborted yet: no engine answers; it is sent as soon as one does.")
            with fake_engine(tmp_path, "--rollouts"):
                opened.wait_text("Aborted: run 169.")
                opened.wait_text("rolled back")
                opened.wait_text("● live")
                assert "Not aborted" not in opened.text()
        finally:
            opened.close()
