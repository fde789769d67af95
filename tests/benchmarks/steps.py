"""What a step costs beyond its command, and a whole headless run, cold."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from engine.journal.sqlite import SqliteJournal
from tests.benchmarks.figure import Figure
from tests.end_to_end.command import Opsdeck
from tests.procedures.kit import kit

STEPS = 40


def figures() -> list[Figure]:
    bare = _bare()
    each, mode = asyncio.run(_steps())
    return [
        Figure(f"overhead of a step, journal {mode}", each - bare, "ms", 4.0 if mode == "DELETE" else 2.0,
               "lower", f"median of {STEPS} steps of `true`, less {bare:.1f} ms for running `true` bare"),
        Figure("opsdeck run --embedded of five trivial steps, cold", _cold(), "s", 1.0, "lower",
               "median of 5; dvc 2.26 s, kedro 1.30 s, metaflow 5.14 s"),
    ]


def _bare() -> float:
    times = []
    for _ in range(STEPS):
        began = time.perf_counter()
        subprocess.run(["true"], check=True)
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


async def _steps() -> tuple[float, str]:
    """The median distance of two intents in the journal, in ms, and the journal's mode."""
    steps = "\n".join(f"- {{id: s{n}, title: S, shell: ['true'], effect: none}}" for n in range(STEPS))
    # Not in /tmp: directories there are slow to create files in on some systems.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        async with kit(Path(place)) as k:
            live = await k.start(steps)
            await k.ended(live)
            intents = [e.at for e in k.journal.read(live.progress.id) if e.kind == "step.intent"]
            mode = _mode(k.journal)
    each = [(after - before) * 1000 for before, after in itertools.pairwise(intents)]
    return statistics.median(each), mode


def _mode(journal: SqliteJournal) -> str:
    with journal._read() as db:
        found = str(db.execute("PRAGMA journal_mode").fetchone()[0]).upper()
    return "WAL" if found == "WAL" else "DELETE"


def _cold() -> float:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        command = Opsdeck(Path(place) / "home")
        path = command.procedure("five", "\n".join(
            f'- {{id: s{n}, title: S, shell: ["true"], effect: none}}' for n in range(5)))
        times = []
        for _ in range(6):
            began = time.perf_counter()
            done = command("run", str(path), "--embedded")
            times.append(time.perf_counter() - began)
            assert done.returncode == 0, done.stderr
    return statistics.median(times[1:])
