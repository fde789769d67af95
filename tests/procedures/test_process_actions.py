"""Actions that a process carries: found again after a crash, ended by abort and timeout, read warily."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import signal
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.config import Config
from engine.procedures import carried, curves, following
from engine.procedures.actions import Action, Command, Context, Params, Registry
from engine.procedures.attempts import Performer
from engine.procedures.dry_run import dry_run
from engine.procedures.processes import Attempt
from tests.procedures.kit import Kit, World, kit, running, step


class Script(Params):
    code: str
    secret: str = ""


class Carrier(World):
    """Actions `test.carried`, a Python script in a process, and `test.known`, whose result is known."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def registry(self) -> Registry:
        async def command(context: Context, params: Script) -> Command | dict[str, Any]:
            self.asked += 1
            context.log("asked")
            secrets = {"TOKEN": params.secret} if params.secret else {}
            return Command([sys.executable, "-I", "-c", SCRIPT + textwrap.dedent(params.code)],
                           env={"GIVEN": "yes"}, secrets=secrets)

        async def shell(context: Context, params: Script) -> Command | dict[str, Any]:
            return Command(["/bin/sh", "-c", params.code])

        async def known(context: Context, params: Params) -> Command | dict[str, Any]:
            self.asked += 1
            return {"cached": True}

        async def foresee(context: Context, params: Params) -> str:
            return "hit: it was made before"

        found = super().registry()
        found.add(Action("test.carried", "idempotent", "run a script", Script, None,
                         lambda p: "test.carried", command=command))
        found.add(Action("test.once", "once", "run a script once", Script, None,
                         lambda p: "test.once", command=command))
        found.add(Action("test.shell", "idempotent", "run a script in sh", Script, None,
                         lambda p: "test.shell", command=shell))
        found.add(Action("test.known", "idempotent", "a known result", Params, None,
                         lambda p: "test.known", command=known, foresee=foresee))
        return found


SCRIPT = """
import json, os, pathlib, sys, time
def say(**what): pathlib.Path(os.environ["OPSDECK_RESULT"]).write_text(json.dumps(what))
def until(path):
    while not os.path.exists(path): time.sleep(0.01)
"""


def document(code: str, *, use: str = "test.carried", more: str = "", secret: str = "") -> str:
    given = json.dumps({"code": code, **({"secret": secret} if secret else {})})
    return f"- {{id: a, title: A, use: {use}, irreversible: t, {more} with: {given}}}"


async def came_to(home: Path, code: str, *, use: str = "test.carried", more: str = "") -> Any:
    async with kit(home, world=Carrier()) as k:
        live = await k.start(document(code, use=use, more=more))
        return step(await k.ended(live), "a")


async def test_a_process_carries_the_action_and_its_result_is_the_steps(tmp_path: Path) -> None:
    found = await came_to(tmp_path, """
        print("said", os.environ["GIVEN"], os.environ["OPSDECK_STEP"], os.environ["OPSDECK_ATTEMPT"])
        say(result={"rows": 7})
        """)
    assert (found.state, found.result, found.exit_code) == ("done", {"rows": 7}, 0)
    assert found.stdout == "asked\nsaid yes a 1\n"


async def test_a_known_result_starts_nothing(tmp_path: Path) -> None:
    async with kit(tmp_path, world=Carrier()) as k:
        live = await k.start("- {id: a, title: A, use: test.known, irreversible: t}")
        found = step(await k.ended(live), "a")
        attempt = k.performer.attempt(live.progress.id, "a", 1)
    assert (found.state, found.result) == ("done", {"cached": True})
    assert not (attempt.path / "lock").exists()


async def test_a_dry_run_tells_what_an_action_foresees_and_starts_nothing(tmp_path: Path) -> None:
    async with kit(tmp_path, world=Carrier()) as k:
        live = await k.start("""
            - {id: ask, title: Ask, manual: "go?"}
            - {id: a, title: A, use: test.known, irreversible: t}
            """)
        view = await dry_run(k.executor, live.progress, probe=False)
    assert step(view, "a").reason == "would run: hit: it was made before"


async def test_a_failure_is_told_in_its_own_words_and_keeps_its_result(tmp_path: Path) -> None:
    found = await came_to(tmp_path, """
        say(error="the column price is \\x1b[31mempty", hint="look at data.csv", result={"rows": 0})
        sys.exit(1)
        """)
    assert (found.state, found.exit_code, found.result) == ("failed", 1, {"rows": 0})
    assert found.error == "the column price is empty\n  look at data.csv"


@pytest.mark.parametrize(("code", "told"), [
    ("sys.exit('no such file')", "it exited with 1: no such file"),
    ("os.kill(os.getpid(), 9)", "it was ended by SIGKILL; the machine may have been out of memory"),
    ("say(result='x' * 300_000)", "larger than 256 KiB"),
    ("open(os.environ['OPSDECK_RESULT'], 'w').write('{\"result\": NaN}')", "not JSON"),
    ("open(os.environ['OPSDECK_RESULT'], 'w').write('[' * 9000)", "not JSON"),
    ("say(fine=1)", 'neither "result" nor "error"'),
    ("os.symlink('/etc/hostname', os.environ['OPSDECK_RESULT'])", "not a plain file"),
    ("os.mkfifo(os.environ['OPSDECK_RESULT'])", "not a plain file"),
])
async def test_a_process_that_ends_badly_or_says_nonsense_fails_with_a_reason(
        tmp_path: Path, code: str, told: str) -> None:
    found = await came_to(tmp_path, code)
    assert found.state == "failed" and told in found.error


async def test_no_secret_of_the_engines_environment_is_in_the_process(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "quiet-please")
    found = await came_to(tmp_path, "say(result=sorted(os.environ))")
    assert "AWS_SECRET_ACCESS_KEY" not in found.result and "PATH" in found.result


async def test_a_secret_it_is_given_is_masked_in_all_it_says_also_after_the_engine_went(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "tell-nobody")
    code = f"""
        print(os.environ["TOKEN"], flush=True)
        until({str(tmp_path / "go")!r})
        say(result={{"token": os.environ["TOKEN"]}})
        """
    async with kit(tmp_path, world=Carrier()) as k:
        live = await k.start(document(code, secret="env:A_TOKEN"))
        await k.until(live, lambda v: "tell" in out(k, live.progress.id).stdout.read_text())
        shown = following.chunk(k.performer, live.progress, "a", 1, 0, 9999)
        assert shown.text == "asked\n•••\n"
    (tmp_path / "go").touch()
    async with kit(tmp_path, world=Carrier()) as k:
        live = (await k.recover())[0]
        found = step(await k.ended(live), "a")
        assert found.stdout == "asked\n•••\n" and found.result == {"token": "•••"}
        assert "tell-nobody" not in out(k, live.progress.id).stdout.read_text()


async def test_a_result_that_can_no_longer_be_masked_is_asked_for_again(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "tell-nobody")
    code = f"until({str(tmp_path / 'go')!r}); say(result={{'token': os.environ['TOKEN']}})"
    async with kit(tmp_path, world=Carrier()) as k:
        live = await k.start(document(code, secret="env:A_TOKEN"))
        await k.until(live, lambda v: out(k, live.progress.id).pid() is not None)
    (tmp_path / "go").touch()
    monkeypatch.delenv("A_TOKEN")
    async with kit(tmp_path, world=Carrier()) as k:
        found = step(await k.ended((await k.recover())[0]), "a")
    assert found.attempt == 2 and "A_TOKEN" in (found.error or "") and found.result is None


def out(k: Kit, run: str) -> Attempt:
    return k.performer.attempt(run, "a", 1)


async def test_an_abort_ends_the_whole_group(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = f"""
        import subprocess
        other = subprocess.Popen(["sleep", "60"])
        pathlib.Path({str(pids)!r}).write_text(f"{{os.getpid()}} {{other.pid}} ")
        time.sleep(60)
        """
    async with kit(tmp_path, world=Carrier()) as k:
        live = await k.start(document(code))
        await k.until(live, lambda v: pids.exists() and pids.read_text().endswith(" "))
        await k.act(live, "abort", reason="enough")
        found = step(await k.ended(live), "a")
    assert "aborted" in found.error and not any(running(pid) for pid in pids.read_text().split())


async def test_a_process_that_takes_too_long_is_ended_and_what_it_said_does_not_count(tmp_path: Path) -> None:
    found = await came_to(tmp_path, "say(result=1); time.sleep(60)", more="timeout: 400ms,")
    assert found.state == "failed" and "timeout of 0.4 s" in found.error


def one_life(home: Path, steps: str, *, until: Callable[[], bool]) -> None:
    """An engine in a process of its own, killed with SIGKILL once `until` holds."""
    async def living() -> None:
        async with kit(home, world=Carrier()) as k:
            await k.start(steps)
            await asyncio.sleep(60)

    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            asyncio.run(living())
        os._exit(70)
    end = time.monotonic() + 20.0
    while not until():
        assert time.monotonic() < end
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


async def taken_up(home: Path, then: Callable[[], object] = lambda: None) -> tuple[Any, Carrier]:
    world = Carrier()
    async with kit(home, world=world) as k:
        live = (await k.recover())[0]
        then()
        return step(await k.ended(live), "a"), world


def slow(home: Path) -> str:
    return f"""
        with open({str(home / "mark")!r}, "a") as mark: mark.write("x")
        until({str(home / "go")!r})
        say(result={{"made": "once"}})
        """


def test_a_process_that_outlives_a_killed_engine_is_waited_for(tmp_path: Path) -> None:
    one_life(tmp_path, document(slow(tmp_path)), until=(tmp_path / "mark").exists)
    found, world = asyncio.run(taken_up(tmp_path, (tmp_path / "go").touch))
    assert (found.state, found.result, found.attempt) == ("done", {"made": "once"}, 1)
    assert (tmp_path / "mark").read_text() == "x" and world.asked == 0


def test_a_process_that_ended_while_no_engine_lived_has_the_outcome_it_left(tmp_path: Path) -> None:
    one_life(tmp_path, document(slow(tmp_path)), until=(tmp_path / "mark").exists)
    (tmp_path / "go").touch()
    attempt = Attempt(next((tmp_path / "runs").glob("*/a.1")))
    end = time.monotonic() + 20.0
    while attempt.status() is None:
        assert time.monotonic() < end
        time.sleep(0.005)
    found, world = asyncio.run(taken_up(tmp_path))
    assert (found.state, found.result, found.attempt, world.asked) == ("done", {"made": "once"}, 1, 0)


def test_a_process_that_outlives_its_engine_still_has_its_timeout(tmp_path: Path) -> None:
    steps = document(slow(tmp_path), more="timeout: 1500ms,")
    one_life(tmp_path, steps, until=(tmp_path / "mark").exists)
    found, _ = asyncio.run(taken_up(tmp_path))
    assert found.state == "failed" and "timeout" in found.error


@pytest.mark.parametrize(("use", "state", "attempt"), [
    ("test.carried", "done", 2), ("test.once", "unknown", 1)])
def test_a_process_that_was_killed_with_its_engine_runs_again_only_where_it_may(
        tmp_path: Path, use: str, state: str, attempt: int) -> None:
    one_life(tmp_path, document(slow(tmp_path), use=use), until=(tmp_path / "mark").exists)
    left = Attempt(next((tmp_path / "runs").glob("*/a.1")))
    left.signal(signal.SIGKILL)
    (tmp_path / "go").touch()

    async def look() -> Any:
        async with kit(tmp_path, world=Carrier()) as k:
            live = (await k.recover())[0]
            view = await k.until(live, lambda v: step(v, "a").state in ("done", "unknown", "failed"))
            return step(view, "a")

    found = asyncio.run(look())
    assert (found.state, found.attempt) == (state, attempt)


def test_an_action_that_an_engine_before_had_not_started_yet_begins_again(tmp_path: Path) -> None:
    """Killed between the intent and the process: known not to have begun, a `once` step too."""
    one_life(tmp_path, document(slow(tmp_path), use="test.once"), until=(tmp_path / "mark").exists)
    left = Attempt(next((tmp_path / "runs").glob("*/a.1")))
    left.signal(signal.SIGKILL)
    (left.path / "lock").write_text("")
    (tmp_path / "go").touch()
    found, _ = asyncio.run(taken_up(tmp_path))
    assert (found.state, found.attempt) == ("done", 2)


async def test_the_curve_is_there_while_it_runs_and_nothing_hostile_is_in_it(tmp_path: Path) -> None:
    lines = [{"name": "loss", "step": 1, "value": 0.5},
             {"name": "\x1b[2Jlo\u202ess\n", "step": 2, "value": 0.25},
             {"name": "loss", "step": True, "value": 1}, {"name": "loss", "step": 3, "value": "x"}, ["loss"],
             {"name": "", "step": 1, "value": 1}, {"name": "n" * 900, "step": 3, "value": 1e308}]
    code = f"""
        with open(os.environ["OPSDECK_PROGRESS"], "a") as curve:
            for line in json.loads({json.dumps(json.dumps(lines))}): curve.write(json.dumps(line) + "\\n")
            curve.write('{{"name": "loss", "step": 4, "value": NaN}}\\n{{"name": "loss", "st')
        until({str(tmp_path / "go")!r})
        """
    async with kit(tmp_path, world=Carrier()) as k:
        live = await k.start(document(code))
        await k.until(live, lambda v: len(k.performer.curve(v.id, "a", 1)) == 3)
        found = following.curve(k.performer, live.progress, "a", 1, 0)
        assert [(p.name, p.step, p.value) for p in found.points] == [
            ("loss", 1.0, 0.5), ("loss", 2.0, 0.25), ("n" * 64, 3.0, 1e308)]
        assert not found.final
        progress = out(k, live.progress.id).progress
        with progress.open("a") as more:
            more.write('ep": 5, "value": 0.1}\n')
        later = following.curve(k.performer, live.progress, "a", 1, found.next)
        assert [(p.step, p.value) for p in later.points] == [(5.0, 0.1)]
        (tmp_path / "go").touch()
        await k.ended(live)


def test_a_long_curve_gives_its_end_alone(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    with path.open("w") as file:
        for n in range(30_000):
            file.write(json.dumps({"name": "loss", "step": n, "value": 1.0}) + "\n")
    points, end = curves.read(path, 0)
    assert [p["step"] for p in points] == list(range(28_000, 30_000)) and end == path.stat().st_size
    assert curves.read(path, end) == ([], end)
    assert curves.read(tmp_path / "none", 7) == ([], 0)


def test_a_result_that_has_a_second_name_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "other").write_text('{"result": 1}')
    (tmp_path / "result.json").hardlink_to(tmp_path / "other")
    assert "plain file" in (carried.read(tmp_path / "result.json", []).problem or "")


def test_the_process_of_a_system_engine_is_the_steps_users_and_writes_into_its_folder() -> None:
    if os.geteuid() != 0:
        pytest.skip("a second user wants root")
    config = Config.model_validate({"engine": {"steps_user": "nobody"}})

    async def go(home: Path) -> Any:
        async with kit(home, world=Carrier(), config=config) as k:
            performer = Performer(home, config, k.world.registry(), k._context, system=True)
            k.executor.performer = performer
            live = await k.start(document("""
                printf '{"name": "l", "step": 1, "value": 2}\\n' >> "$OPSDECK_PROGRESS"
                printf '{"result": {"uid": %s}}' "$(id -u)" > "$OPSDECK_RESULT"
                """, use="test.shell"))
            return step(await k.ended(live), "a"), performer.curve(live.progress.id, "a", 1)

    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o711)
        found, points = asyncio.run(go(Path(place)))
    assert found.state == "done", found.error
    assert found.result == {"uid": pwd.getpwnam("nobody").pw_uid} and len(points) == 1
