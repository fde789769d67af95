"""`opsdeck engine reload` and SIGHUP on a real engine."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from tests.end_to_end.command import Opsdeck


def until(holds: Callable[[], bool], within_s: float = 20.0) -> None:
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.05)


def test_a_reload_says_what_holds_what_waits_and_what_is_wrong(opsdeck: Opsdeck) -> None:
    away = opsdeck("engine", "reload")
    assert away.returncode == 7 and "opsdeck engine start" in away.stderr
    assert opsdeck("engine", "start").returncode == 0
    config = opsdeck.home / "opsdeck.yaml"
    config.write_text("services: {flights: {}}\nengine: {window: 30s}\n")
    done = opsdeck("engine", "reload")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ("the config was reloaded: services.flights changed\n"
                           "needs a restart: engine.window\n")
    assert "needs a restart: engine.window" in opsdeck("engine", "status").stdout
    config.write_text("servces: {}\n")
    refused = opsdeck("engine", "reload", "--json")
    assert refused.returncode == 2 and refused.stdout == ""
    assert f"{config}:1: unknown key `servces`" in refused.stderr
    assert "the config from before holds" in opsdeck("engine", "status").stdout
    assert opsdeck.json("engine", "status")["restart"] == ["engine.window"]
    assert [s["name"] for s in opsdeck.json("status")["services"]] == ["flights"]


def test_sighup_reads_the_config_again_and_a_bad_one_ends_nothing(opsdeck: Opsdeck) -> None:
    assert opsdeck("engine", "start").returncode == 0
    pid = opsdeck.json("engine", "status")["pid"]
    config = opsdeck.home / "opsdeck.yaml"
    config.write_text("services: [\n")
    os.kill(pid, signal.SIGHUP)
    until(lambda: "config_problem" in opsdeck.json("engine", "status"))
    config.write_text("services: {flights: {}}\n")
    os.kill(pid, signal.SIGHUP)
    until(lambda: bool(opsdeck.json("status")["services"]))
    found = opsdeck.json("engine", "status")
    assert found["pid"] == pid and found["state"] == "serving" and "config_problem" not in found
    export = opsdeck("audit", "export", "--run", "engine").stdout
    assert export.count('"config.refused"') == 1 and '"origin":"SIGHUP"' in export
