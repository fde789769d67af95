"""The main job, in a real terminal: a runbook in an incident, a lost connection, and the run's end."""

from __future__ import annotations

import os
import signal

import pytest

from tests.console.terminal import console, terminal
from tests.end_to_end.live import Demo

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_an_incident_is_worked_through_over_a_connection_that_breaks(demo: Demo) -> None:
    """Fault, page, runbook, form, typed confirmation; SIGKILL of the console while a step runs; a
    new console finds the run where it is and sees it end. The engine did each thing once."""
    demo("demo", "fault", "latency", "--amount", "400")
    demo.until("the page", lambda: bool(demo.service()["alerts"]), 60)
    with terminal(console(demo.home, "--write")) as first:
        first.wait_text("r: try high-latency")
        first.send("r")
        first.wait_text("FITS NOW")
        first.send("\r")
        for field in ("service", "champion", "challenger", "p99_limit_ms"):
            first.wait_text(f"▶ {field}")
            first.send("\r")
        first.wait_text("▶ hold_s")
        first.send("\x7f\x7f4\r")  # 4 seconds rather than 30
        first.wait_text("hold_s=4")
        first.send("y")
        first.wait_text("waits for: typed name")
        assert "champion 95 %, challenger 5 %" in first.text()
        first.send("\r")
        first.wait_text("Type flights and enter to run it")
        first.send("flights\r")
        first.wait_text("Step verify runs for")
        run = demo.json("runs")["runs"][0]["id"]
        os.kill(first.pid, signal.SIGKILL)
    assert demo.json("show", run)["state"] == "running"
    with terminal(console(demo.home)) as second:
        second.wait_text("flights")
        second.send(":")
        second.send(f"run {run}\r")
        second.wait_text(f"high-latency #{run}")
        second.wait_text("Nothing waits for you")
        assert "✔ 5 verify" in second.text()
    shown = demo.json("show", run)
    assert shown["state"] == "done" and demo.weights() == {"champion": 100.0, "challenger": 0.0}
    assert [s["attempt"] for s in shown["steps"] if s["state"] == "done"] == [1, 1, 1, 1]


def test_a_terminal_that_hangs_up_stops_nothing(demo: Demo) -> None:
    started = demo.json("run", "drain-variant", "-p", "service=flights", "-p", "hold_s=3",
                        "--confirm", "drain=flights", "--detach")
    with terminal(console(demo.home, "--run", started["id"])) as opened:
        opened.wait_text("drain-variant")
        os.kill(opened.pid, signal.SIGHUP)
        opened.wait(lambda: opened.ended, "the console ends")
    demo.until("done", lambda: demo.json("show", started["id"])["state"] == "done")


def test_abort_takes_two_keys_and_works_in_read_only_mode(demo: Demo) -> None:
    started = demo.json("run", "drain-variant", "-p", "service=flights", "--detach")
    with terminal(console(demo.home, "--run", started["id"])) as opened:
        opened.wait_text("waits for: typed name")
        assert "read-only" in opened.text()
        opened.send("x")
        opened.wait_text("y")
        opened.send("y")
        demo.until("aborted", lambda: demo.json("show", started["id"])["state"] == "aborted")
    assert demo.weights() == {"champion": 95.0, "challenger": 5.0}


def test_the_console_stays_when_the_engine_goes_and_finds_it_again(demo: Demo) -> None:
    with terminal(console(demo.home)) as opened:
        opened.wait_text("● live")
        assert demo("engine", "stop").returncode == 0
        opened.wait(lambda: "● live" not in opened.text(), "the loss is shown")
        assert "flights" in opened.text() and not opened.ended
        assert demo("engine", "start").returncode == 0
        opened.wait_text("● live")
