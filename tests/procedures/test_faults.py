"""The promises under fire: a full disk, a locked or corrupted journal, an engine that is gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import JournalCorrupt
from engine.journal.events import ENGINE, SYSTEM, NewEvent
from tests.procedures.kit import ANN, BOB, kit, running, states, step


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 2 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("a small tmpfs wants root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def fill(disk: Path) -> Path:
    """Take every free byte."""
    path = disk / "filler"
    with contextlib.suppress(OSError), path.open("ab", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    return path


LONG = "x" * 90_000  # more than the journal has room for in pages it already owns


async def test_on_a_full_disk_an_intent_cannot_be_recorded_and_so_nothing_runs(
        small_disk: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    async with kit(small_disk) as k:
        live = await k.start(f"""
            - {{id: ask, title: Ask, manual: "go?"}}
            - {{id: act, title: Act, shell: ["sh", "-c", "echo x >> {mark}", "{LONG}"], irreversible: t}}
            """)
        await k.waiting(live, "ask")
        filler = fill(small_disk)
        with pytest.raises(Exception, match=r"full|space"):
            await k.act(live, "answer", step="ask", text="yes")
        assert not mark.exists() and states(await k.waiting(live, "ask"))["ask"] == "waiting"
        filler.unlink()
        await k.act(live, "answer", step="ask", text="yes")
        view = await k.ended(live)
    assert view.state == "done" and mark.read_text() == "x\n"


async def test_an_outcome_that_cannot_be_recorded_is_unknown_until_it_can(
        small_disk: Path, tmp_path: Path) -> None:
    """The step itself fills the disk; it must not be run again, and its outcome is not lost."""
    mark, go = tmp_path / "mark", tmp_path / "go"
    async with kit(small_disk) as k:
        live = await k.start(f"""
            - id: act
              title: Act
              irreversible: t
              shell: "head -c 60000 /dev/zero | tr '\\\\0' x; echo x >> {mark};
                until [ -e {go} ]; do sleep 0.02; done"
            """)
        await k.until(live, lambda v: mark.exists())
        filler = fill(small_disk)
        go.touch()
        view = await k.until(live, lambda v: step(v, "act").state == "unknown")
        assert "cannot be recorded" in (view.next or "")
        filler.unlink()
        view = await k.ended(live)
    assert view.state == "done" and mark.read_text() == "x\n"


async def test_a_journal_locked_for_a_while_delays_and_loses_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    async with kit(tmp_path) as k:
        live = await k.start(f"""
            - {{id: a, title: A, shell: "echo a >> {mark}; sleep 0.3", irreversible: t}}
            - {{id: b, title: B, shell: "echo b >> {mark}", irreversible: t}}
            """)
        await k.until(live, lambda v: mark.exists())
        other = sqlite3.connect(tmp_path / "journal.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        view = await k.until(live, lambda v: step(v, "a").state == "unknown")
        assert "locked" in (view.next or "") and mark.read_text() == "a\n"
        other.execute("ROLLBACK")
        other.close()
        view = await k.ended(live)
        assert view.state == "done" and mark.read_text() == "a\nb\n"
        assert k.journal.verify().breaks == []


async def test_abort_does_not_wait_for_a_journal_that_is_locked(tmp_path: Path) -> None:
    """What runs is stopped at once; the record waits in the emergency journal."""
    pid = tmp_path / "pid"
    async with kit(tmp_path) as k:
        live = await k.start(f'- {{id: a, title: A, shell: "echo $$ > {pid}; sleep 60", irreversible: t}}')
        await k.until(live, lambda v: pid.exists())
        other = sqlite3.connect(tmp_path / "journal.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        started = time.monotonic()
        await k.act(live, "abort", reason="enough")
        assert time.monotonic() - started < 5
        assert not running(pid.read_text().strip())
        assert [e.kind for e in k.emergency.pending()] == ["run.abort"]
        view = await k.until(live, lambda v: True)
        assert view.state == "aborted" and "emergency journal" in (view.next or "")
        other.execute("ROLLBACK")
        other.close()
        view = await k.ended(live)
        assert view.state == "aborted" and k.emergency.pending() == []
        kinds = [e.kind for e in k.journal.read(live.progress.id)]
    assert kinds.count("run.abort") == 1


async def test_a_corrupted_run_takes_no_more_events_but_abort_and_seal_work(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        live = await k.start('- {id: a, title: A, manual: "well?"}\n'
                             '- {id: b, title: B, shell: "true", effect: none}')
        await k.waiting(live, "a")
        other = sqlite3.connect(tmp_path / "journal.db", isolation_level=None)
        for name, in other.execute("select name from sqlite_master where type='trigger'").fetchall():
            other.execute(f"DROP TRIGGER {name}")
        other.execute("UPDATE events SET data = replace(data, 'well?', 'hell?') WHERE run = ? AND n = 2",
                      (live.progress.id,))
        other.close()
        breaks = k.journal.verify().breaks
        assert len(breaks) == 1 and "event 2 of" in breaks[0]
        with pytest.raises(JournalCorrupt):
            await k.act(live, "answer", step="a", text="yes")
        assert len(k.journal.read(live.progress.id)) == 2
        await k.act(live, "abort")
        assert (await k.until(live, lambda v: v.state == "aborted")).state == "aborted"
        assert [e.kind for e in k.emergency.pending()] == ["run.abort"]
        k.journal.seal(NewEvent(run=ENGINE, kind="journal.sealed", at=time.time(), actor=SYSTEM,
                                data={"reason": "a bad sector"}))
        view = await k.ended(live)
        assert view.state == "aborted" and k.emergency.pending() == []
        verdict = k.journal.verify()
    assert verdict.seals and not verdict.breaks


async def test_a_child_that_outlives_its_engine_is_waited_for(tmp_path: Path) -> None:
    """The engine lets go in the middle (as a kill would); the next one takes the true exit status."""
    go, mark = tmp_path / "go", tmp_path / "mark"
    async with kit(tmp_path) as k:
        live = await k.start(f"""
            - {{id: a, title: A, irreversible: t,
                shell: "echo x >> {mark}; until [ -e {go} ]; do sleep 0.02; done; echo out; exit 7"}}
            """)
        await k.until(live, lambda v: mark.exists())
    async with kit(tmp_path) as k:
        live = (await k.recover())[0]
        view = await k.until(live, lambda v: len(k.performer.sessions()) == 1)
        assert step(view, "a").state == "intent" and step(view, "a").attempt == 1
        go.touch()
        view = await k.ended(live)
    assert mark.read_text() == "x\n"
    assert step(view, "a").exit_code == 7 and step(view, "a").stdout == "out\n"


async def test_a_child_that_outlives_its_engine_still_has_its_timeout(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        live = await k.start(
            f'- {{id: a, title: A, timeout: 1500ms, effect: none, shell: "touch {tmp_path}/on; sleep 60"}}')
        await k.until(live, lambda v: (tmp_path / "on").exists())
    async with kit(tmp_path) as k:
        view = await k.ended((await k.recover())[0])
    assert view.state == "failed" and "timeout" in (step(view, "a").error or "")


async def test_a_second_engine_that_took_over_leaves_the_first_unable_to_act(tmp_path: Path) -> None:
    """The journal's fence, not the lock file: the older engine starts nothing more."""
    mark = tmp_path / "mark"
    async with kit(tmp_path) as old, contextlib.AsyncExitStack() as stack:
        live = await old.start(f"""
            - {{id: ask, title: Ask, manual: "go?"}}
            - {{id: act, title: Act, shell: "echo x >> {mark}", irreversible: t}}
            """)
        await old.waiting(live, "ask")
        new = await stack.enter_async_context(kit(tmp_path))
        taken = (await new.recover())[0]
        with pytest.raises(Exception, match=r"engine"):
            await old.act(live, "answer", by=ANN, step="ask", text="yes")
        assert not mark.exists()
        await new.act(taken, "answer", by=ANN, step="ask", text="yes")
        await new.ended(taken)
    assert mark.read_text() == "x\n"


async def test_approvals_race_abort_and_the_step_does_not_run_after_it(tmp_path: Path) -> None:
    for _ in range(10):
        mark = tmp_path / f"mark{_}"
        home = tmp_path / f"home{_}"
        home.mkdir()
        async with kit(home) as k:
            live = await k.start(f"""
                - {{id: a, title: A, shell: "sleep 0.05; echo x >> {mark}", irreversible: t,
                    approvals: {{min: 1}}}}
                """)
            await k.waiting(live, "a")
            await asyncio.gather(k.act(live, "abort"), k.act(live, "approve", by=BOB, step="a"),
                                 return_exceptions=True)
            view = await k.ended(live)
        assert view.state == "aborted" and not mark.exists()


async def test_a_wall_clock_that_is_set_back_holds_no_retry_up(tmp_path: Path) -> None:
    offset = 0.0
    mark = tmp_path / "mark"
    async with kit(tmp_path, clock=lambda: time.time() + offset) as k:
        live = await k.start(f"""
            - id: act
              title: Fails the first time
              shell: ["sh", "-c", "test -e {mark} || {{ touch {mark}; exit 1; }}"]
              effect: idempotent
              retry: {{times: 3, backoff: 300ms}}
              irreversible: a test
            """)
        await k.until(live, lambda v: step(v, "act").state == "failed")
        offset = -3600.0
        assert (await k.ended(live, within=10.0)).state == "done"
