"""Rollouts on the real demo: how soon a bad version is gone, whom it harmed, and what watching costs.

Seconds are counted from before the command that injects the fault (a model server looks at its faults
every 0.2 s) to the first answer of the gateway's admin socket with all traffic at the champion, asked
every 20 ms. It comes just after a beat of the collector, which is the worst moment: what was found then
waits a second for the next.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.demo import _pss_mb
from tests.benchmarks.figure import Figure
from tests.end_to_end.command import OPSDECK
from tests.end_to_end.live import Demo, set_up
from tests.end_to_end.rolling import ALL_CHAMPION, LEASE_S, PLANS, Outcome, Rolling
from tests.end_to_end.shifts import Witness

HARD = (("model_error", "100"), ("out_of_memory", "100"), ("invalid_input", "100"), ("unavailable", "100"),
        ("timeout", "100"), ("kill",))
SOFT = (("latency", "300"), ("model_error", "40"))
TIMES = 3
ABORTS = 5
WATCHED_S = 30.0
TICKS = 3600
EVERY_S = 0.02
LONG = """
  canary: [{weight: 25, hold: 10h}, 100]
  lease: 1h
  budget: {exposed: null}
"""


def figures() -> list[Figure]:
    """Takes about four minutes."""
    with tempfile.TemporaryDirectory(prefix="opsdeck-roll-", dir="/var/tmp") as folder:
        demo = set_up(Path(folder) / "home")
        try:
            rolling = Rolling(demo)
            for name, text in {**PLANS, "long": LONG}.items():
                rolling.plan(name, text)
            rolling.gateway.put({"champion": 95.0, "challenger": 5.0})
            with Witness(rolling.gateway, EVERY_S) as witness:
                return [*_faults(rolling, witness), _abort(rolling, witness), *_lease(rolling, witness),
                        _good(rolling), *_watching(rolling), *_recovery(rolling)]
        finally:
            demo("demo", "--clean", "--everything", "--yes")


def _faults(rolling: Rolling, witness: Witness) -> list[Figure]:
    found = []
    for fault, *amount in (*HARD, *SOFT):
        seen = [rolling.break_at_25(witness, fault, *amount) for _ in range(TIMES)]
        hard = (fault, *amount) in HARD
        name = f"{fault} of {'300 ms' if fault == 'latency' else f'{amount[0]} %'}" if amount else "SIGKILL"
        found += _figures(name, seen, 5.0 if hard else 10.0, harmed="served slowly" if fault == "latency"
                          else "failed")
    return found


def _figures(name: str, seen: Sequence[Outcome], target: float, harmed: str) -> list[Figure]:
    seconds = [one.seconds for one in seen]
    hurt = [one.got if harmed == "served slowly" else one.failed for one in seen]
    note = f"worst of {len(seen)}, median {statistics.median(seconds):.2f} s"
    if name.startswith("timeout"):
        note += "; 2 s of it are the gateway's timeout"
    return [Figure(f"rollout: {name} at 25 % → stable weights", max(seconds), "s", target, "lower", note),
            Figure(f"rollout: {name} at 25 %, requests {harmed}", max(hurt), "", 75, "lower",
                   f"of {max(one.got for one in seen)} at 12.5 a second")]


def _abort(rolling: Rolling, witness: Witness) -> Figure:
    """From the command's start, so that half of it is Python's."""
    taken = []
    for _ in range(ABORTS):
        begun = time.monotonic()
        run = rolling.start("stays")
        rolling.at(witness, 25.0, begun)
        asked = time.monotonic()
        command = subprocess.Popen([OPSDECK, "--home", str(rolling.demo.home), "rollout", "abort", "flights"],
                                   stdout=subprocess.DEVNULL)
        back = witness.first(lambda seen: seen.weights == ALL_CHAMPION, asked)
        taken.append(back.at - asked)
        command.wait(30)
        rolling.ended(run)
    return Figure("rollout: opsdeck rollout abort → weights back", statistics.median(taken), "s", 0.5,
                  "lower", f"from the start of the command, worst of {ABORTS} {max(taken):.2f} s")


def _lease(rolling: Rolling, witness: Witness) -> list[Figure]:
    begun = time.monotonic()
    run = rolling.start("stays")
    rolling.at(witness, 25.0, begun)
    rolling.demo.until("watched", lambda: rolling.rollout(run)["exposed"] > 0)
    killed = time.monotonic()
    rolling.kill_engine()
    back = witness.first(lambda seen: seen.weights == ALL_CHAMPION, killed)
    rolling.start_engine()
    rolling.ended(run)
    return [Figure("rollout: engine killed for good → champion has all", back.at - killed, "s", LEASE_S + 0.3,
                   "lower", f"by the gateway alone, with a lease of {LEASE_S:g} s")]


def _good(rolling: Rolling) -> Figure:
    begun = time.monotonic()
    view = rolling.ended(rolling.start("quick"), 180.0)
    taken = time.monotonic() - begun
    told = rolling.rollout(str(view["id"]))
    rolling.demo("rollout", "undo", "flights", "--yes")
    return Figure("rollout: a good version, by the quick plan", taken, "s", 60, "lower",
                  f"{view['state']}, verdict {told['verdict']} on {told['metrics'][0]['canary'][0]} requests")


def _watching(rolling: Rolling) -> list[Figure]:
    pid = rolling.engine().pid
    idle = _cpu_share(pid)
    run = rolling.start("stays")
    rolling.demo.until("watched", lambda: rolling.rollout(run)["exposed"] > 0)
    watched = _cpu_share(pid)
    memory = _pss_mb(pid)
    rolling.demo("rollout", "abort", "flights")
    rolling.ended(run)
    return [Figure("rollout: the engine's CPU while one is watched", 100 * watched, "%", 5, "lower",
                   f"of a core, over {WATCHED_S:.0f} s; {100 * idle:.1f} % without one"),
            Figure("rollout: the engine's memory while one is watched", memory, "MB PSS", 150, "lower")]


def _cpu_share(pid: int) -> float:
    def used() -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before, begun = used(), time.monotonic()
    time.sleep(WATCHED_S)
    return (used() - before) / (time.monotonic() - begun)


def _recovery(rolling: Rolling) -> list[Figure]:
    """A rollout whose engine is killed after an hour of ticks: each real one, repeated."""
    from engine.journal.events import NewEvent
    from engine.journal.sqlite import SqliteJournal

    demo, path = rolling.demo, rolling.demo.home / "journal.db"
    run = rolling.start("long")
    demo.until("watched for ten seconds", lambda: rolling.rollout(run)["step_requests"] > 120)
    rolling.kill_engine()
    size = _size(path)
    with contextlib.closing(SqliteJournal.open(path, engine_id="benchmark", clock=time.time)) as journal:
        ticks = [event for event in journal.read(run) if event.kind == "rollout.tick"][-8:]
        for number in range(TICKS):
            like = ticks[number % len(ticks)]
            # what happened by chance in a few beats would be evidence after an hour of them
            well = {name: [n, 0, m, 0] for name, (n, _, m, _) in like.data["counts"].items()}
            journal.append([NewEvent(run, like.kind, time.time(), like.actor,
                                     data={**like.data, "counts": well, "failed": [0, 0]})])
    grown = _size(path) - size
    begun = time.monotonic()
    rolling.start_engine()
    socket = time.monotonic() - begun
    while not (told := rolling.rollout(run))["watching"] or told["step_requests"] < TICKS:
        time.sleep(0.02)
    taken = time.monotonic() - begun
    again = _replay_s(demo, run)
    demo("rollout", "abort", "flights")
    rolling.ended(run)
    return [Figure(f"rollout: killed engine → watched again, after {TICKS:,} ticks", taken, "s", 2.0, "lower",
                   f"{socket:.2f} s until its socket answers; {told['step_requests']:,} requests"),
            Figure("rollout: journal a watched minute", grown / 1024 / (TICKS / 60), "KiB", 120, "lower",
                   f"on the disk, a commit a second; {grown / 1024 / 1024:.1f} MiB an hour"),
            Figure(f"rollout: opsdeck judge replay of {TICKS:,} ticks", again, "s", 5.0, "lower")]


def _replay_s(demo: Demo, run: str) -> float:
    begun = time.monotonic()
    demo("judge", "replay", run, "--json", timeout=120)
    return time.monotonic() - begun


def _size(path: Path) -> int:
    """Bytes of the journal with its write-ahead log emptied into it."""
    import sqlite3

    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return path.stat().st_size
