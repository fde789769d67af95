"""Where abort, rollback, retries and restarts meet: nothing starts, nothing is forgotten or stuck."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from engine.errors import Conflict
from engine.procedures import output, processes
from engine.procedures.attempts import Performer
from engine.procedures.executor import Live
from tests.procedures.kit import BOB, Kit, kit, running, states, step

STUBBORN = """
- id: a
  title: A
  irreversible: t
  timeout: {timeout}
  shell: "echo $$ > {place}/pid; trap 'touch {place}/told' TERM; while :; do sleep 0.1; done"
"""


async def test_a_second_abort_does_not_lose_the_first(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        live = await k.start(STUBBORN.format(timeout="60s", place=tmp_path))
        await k.until(live, lambda v: (tmp_path / "pid").exists())
        first = asyncio.create_task(k.act(live, "abort"))
        await k.until(live, lambda v: (tmp_path / "told").exists())
        await k.act(live, "abort")
        await first
        view = await k.ended(live)
    assert view.state == "aborted" and not running((tmp_path / "pid").read_text().strip())


async def test_a_second_abort_does_not_cut_short_the_cleaning_up_that_the_first_one_began(
        tmp_path: Path) -> None:
    told, go, clean = tmp_path / "told", tmp_path / "go", tmp_path / "clean"
    async with kit(tmp_path) as k:
        live = await k.start(f"""
            - id: a
              title: A
              irreversible: t
              timeout: 60s
              shell: "trap 'touch {told}; until [ -e {go} ]; do sleep 0.02; done; touch {clean}; exit' TERM;
                echo $$ > {tmp_path}/pid; while :; do sleep 0.1; done"
            """)
        await k.until(live, lambda v: (tmp_path / "pid").exists())
        first = asyncio.create_task(k.act(live, "abort"))
        await k.until(live, lambda v: told.exists())
        second = asyncio.create_task(k.act(live, "abort"))
        async with asyncio.timeout(20):
            while await aborts(k, live) < 2:
                await asyncio.sleep(0.01)
        go.touch()
        await asyncio.gather(first, second)
        view = await k.ended(live)
    assert view.state == "aborted" and clean.exists()


async def aborts(k: Kit, live: Live) -> int:
    """How often an abort of this run is in the journal."""
    events = await k.recorder.call(k.journal.read, live.progress.id)
    return sum(event.kind == "run.abort" for event in events)


async def test_an_abort_while_a_timeout_ends_the_step_still_ends_it(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        live = await k.start(STUBBORN.format(timeout="500ms", place=tmp_path))
        await k.until(live, lambda v: (tmp_path / "told").exists())  # the grace after the timeout
        await k.act(live, "abort")
        view = await k.ended(live)
    assert view.state == "aborted" and not running((tmp_path / "pid").read_text().strip())


async def test_a_rollback_goes_on_after_a_restart(tmp_path: Path) -> None:
    log = tmp_path / "log"
    go = tmp_path / "go"
    async with kit(tmp_path) as k:
        live = await k.start(f"""
            - {{id: a, title: A, shell: "true", undo: {{shell: "echo undo-a >> {log}"}}}}
            - {{id: b, title: B, shell: "true", undo: {{
                shell: "until [ -e {go} ]; do sleep 0.02; done; echo undo-b >> {log}"}}}}
            - {{id: c, title: C, manual: "go?"}}
            """)
        await k.waiting(live, "c")
        await k.act(live, "abort", rollback=True)
        await k.until(live, lambda v: states(v).get("undo:b") == "intent")
    async with kit(tmp_path) as k:
        live = (await k.recover())[0]
        go.touch()
        view = await k.ended(live)
    assert view.state == "rolled_back" and log.read_text().split() == ["undo-b", "undo-a"]


async def test_abort_with_rollback_lets_no_further_step_start(tmp_path: Path) -> None:
    """The intent of the next step is being committed while the abort arrives."""
    mark = tmp_path / "mark"
    async with kit(tmp_path) as k:
        live = await k.start(f"""
            - {{id: ask, title: Ask, manual: "go?"}}
            - {{id: b, title: B, shell: "sleep 0.3; echo x >> {mark}", irreversible: t}}
            """)
        await k.waiting(live, "ask")
        slow, begun, go = k.recorder.append, asyncio.Event(), asyncio.Event()

        async def late(*args: object, **more: object) -> object:
            begun.set()
            await go.wait()
            return await slow(*args, **more)  # type: ignore[arg-type]

        k.recorder.append = late  # type: ignore[method-assign, assignment]
        answering = asyncio.create_task(k.act(live, "answer", step="ask", text="yes"))
        await begun.wait()
        aborting = asyncio.create_task(k.act(live, "abort", rollback=True))
        await k.until(live, lambda v: bool(live.pending))
        go.set()
        await asyncio.gather(answering, aborting)
        view = await k.ended(live)
    assert view.state == "rolled_back" and not mark.exists()


async def test_an_undo_of_unknown_outcome_asks_a_person(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        live = await k.start("""
            - {id: a, title: A, shell: "true", undo: {shell: "sleep 30", timeout: 300ms}}
            - {id: g, title: G, shell: "true", irreversible: t, confirm: "yes"}
            """)
        await k.waiting(live, "g")
        await k.act(live, "abort", rollback=True)
        view = await k.waiting(live, "undo:a")
        assert view.state == "waiting" and "undo:a" in (view.next or "")
        assert [s.id for s in view.steps if s.gate] == ["undo:a"]
        with pytest.raises(Conflict, match="going back"):
            await k.act(live, "confirm", step="g")
        await k.act(live, "settle", step="undo:a", text="done")
        view = await k.ended(live)
    assert view.state == "rolled_back" and states(view)["a"] == "undone"


async def test_a_step_that_was_to_be_run_again_is_undone_too(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with kit(tmp_path) as k:
        live = await k.start(f"""
            - {{id: a, title: A, shell: "echo a >> {log}", effect: idempotent, confirm: "yes",
                undo: {{shell: "echo undo-a >> {log}"}}}}
            - {{id: b, title: B, shell: "false", effect: none, on_failure: {{goto: a}}}}
            """)
        await k.waiting(live, "a")
        await k.act(live, "confirm", step="a")
        await k.until(live, lambda v: step(v, "a").attempt == 2 and step(v, "a").state == "waiting")
        await k.act(live, "abort", rollback=True)
        view = await k.ended(live)
    assert view.state == "rolled_back" and log.read_text().split() == ["a", "undo-a"]


async def test_undo_goes_backwards_over_a_failed_step_that_was_passed_over(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with kit(tmp_path) as k:
        live = await k.start(f"""
            - {{id: a, title: A, shell: "false", on_failure: continue,
                undo: {{shell: "echo undo-a >> {log}"}}}}
            - {{id: b, title: B, shell: "true", undo: {{shell: "echo undo-b >> {log}"}}}}
            - {{id: c, title: C, shell: "false", on_failure: rollback,
                undo: {{shell: "echo undo-c >> {log}"}}}}
            """)
        view = await k.ended(live)
    assert view.state == "rolled_back" and log.read_text().split() == ["undo-c", "undo-b", "undo-a"]


async def test_output_that_is_json_but_no_text_does_not_keep_a_run_from_ending(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        view = await k.ended(await k.start(r"""
            - {id: a, title: A, effect: none, shell: ["printf", "%s", '{"a": "\ud800"}']}
            """))
    assert view.state == "done" and step(view, "a").result is None


async def test_an_unknown_step_is_settled_before_a_failure_ends_the_run(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        live = await k.start("""
            - {id: u, title: U, needs: [], shell: "sleep 30", timeout: 200ms, irreversible: t}
            - {id: f, title: F, needs: [], shell: "sleep 0.4; false", effect: none}
            """)
        await k.until(live, lambda v: states(v) == {"u": "unknown", "f": "failed"})
        view = await k.waiting(live, "u")
        assert view.state == "waiting"
        await k.act(live, "settle", step="u", text="done")
        assert (await k.ended(live)).state == "failed"


async def test_two_hundred_steps_that_are_not_needed_are_passed_in_one_go(tmp_path: Path) -> None:
    steps = "".join(f'- {{id: s{n}, title: S, shell: "true", effect: none, when: "false"}}\n'
                    for n in range(200))
    async with kit(tmp_path) as k:
        view = await k.ended(await k.start(steps))
    assert view.state == "done" and set(states(view).values()) == {"skipped"}


async def test_a_step_that_ended_is_done_though_its_background_lives_on(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        live = await k.start(f"""
            - {{id: a, title: A, irreversible: t, timeout: 30s,
                shell: "touch {tmp_path}/on; sleep 40 & sleep 0.5; exit 0"}}
            """)
        await k.until(live, lambda v: (tmp_path / "on").exists())
        attempt = k.performer.attempt(live.progress.id, "a", 1)
    while attempt.status() is None:
        await asyncio.sleep(0.01)
    async with kit(tmp_path) as k:
        view = await k.ended((await k.recover())[0], within=5)
    assert view.state == "done" and step(view, "a").exit_code == 0


async def test_an_approval_after_the_gate_has_closed_does_not_count(tmp_path: Path) -> None:
    now = [1_000_000.0]
    async with kit(tmp_path, clock=lambda: now[0]) as k:
        live = await k.start('- {id: a, title: A, shell: "true", irreversible: t, '
                             "approvals: {min: 1, expires: 1m}}")
        await k.waiting(live, "a")
        await k.act(live, "pause")
        now[0] += 3600
        with pytest.raises(Conflict, match="has closed"):
            await k.act(live, "approve", by=BOB, step="a")


def test_a_command_whose_pid_cannot_be_written_does_not_run(tmp_path: Path) -> None:
    """Otherwise an empty lock file would say "never started" of a step that has run."""
    done = subprocess.run(["/bin/sh", "-c", processes._SHIM, "step", "/dev/full", "touch",
                           str(tmp_path / "ran")], capture_output=True)
    assert done.returncode == 126 and not (tmp_path / "ran").exists()


async def test_a_secret_is_never_seen_in_parts(tmp_path: Path) -> None:
    path = tmp_path / "stdout"
    path.write_bytes(b"one\ntok=hunter2secret\nlast hunter2sec")
    shown, offset = "", 0
    while True:
        text, following = output.chunk(path, offset, 1, ["hunter2secret"])
        if following == offset:
            break
        shown, offset = shown + text, following
    assert "hunter2" not in shown and "tok=" in shown and "last" not in shown


async def test_after_a_restart_live_output_is_masked_or_withheld(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_TOKEN", "hunter2secret")
    async with kit(tmp_path) as k:
        live = await k.start(f"""
            - id: a
              title: A
              effect: none
              env: {{TOKEN: "${{{{ params.token }}}}"}}
              shell: 'echo tok=$TOKEN; touch {tmp_path}/on; sleep 1.5'
            """, params={"token": "env:THE_TOKEN"}, head="params: {token: {type: secret}}")
        await k.until(live, lambda v: (tmp_path / "on").exists())
    monkeypatch.delenv("THE_TOKEN")
    async with kit(tmp_path) as k:
        live = (await k.recover())[0]
        await k.until(live, lambda v: bool(k.performer.sessions()))
        assert known(k.performer, live.progress.steps["a"]) is None
        view = await k.ended(live)
        assert known(k.performer, live.progress.steps["a"]) is None
    assert view.state == "done" and "hunter2" not in step(view, "a").stdout


def known(performer: Performer, of: object) -> list[str] | None:
    return performer.secrets_of("1", of, 1)  # type: ignore[arg-type]
