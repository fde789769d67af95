"""A campaign of random SIGKILLs against an engine, with logs outside it as the oracle.

Each life of the engine is a forked process (so that a life costs no imports) which takes up the runs
it finds, sometimes starts one, and is killed after a random time. Effects write themselves into
`marks`; every commit that returned is in `acknowledged`. Neither is read by the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.config import Config
from engine.errors import HomeBusy, JournalError, NotFound
from engine.journal.lease import HomeLock, take
from engine.journal.sqlite import SqliteJournal
from tests.crash.driver import Doomed
from tests.procedures.kit import World

ONCE = ("one", "two", "four")
LIFE_S = 0.4  # the longest life; the engine needs about 0.05 s to take up its runs


@dataclass
class Result:
    """What a campaign came to. `twice` and `lost` must be empty."""

    seed: int
    kills: int
    runs: int
    done: int
    asking: int
    effects: int
    acknowledged: int
    twice: list[str]
    lost: list[str]
    breaks: list[str]
    seconds: float

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def steps(home: Path) -> str:
    def mark(name: str) -> str:
        return f'echo ${{OPSDECK_RUN}}:{name} >> {home}/marks'

    return f"""
    - {{id: one, title: One, shell: "{mark('one')}", irreversible: t}}
    - {{id: two, title: Two, shell: "sleep 0.03; {mark('two')}", irreversible: t}}
    - {{id: three, title: Three, shell: "{mark('three')}", effect: idempotent, irreversible: t}}
    - {{id: four, title: Four, shell: "{mark('four')}", irreversible: t,
        probe: {{shell: "grep -q $OPSDECK_RUN:four {home}/marks"}}}}
    """


def taken(lock: Path) -> HomeLock:
    """The home's lock. A child that the engine before was starting when it died holds it, too, until
    that child's `exec`: a moment in which the home is rightly busy."""
    end = time.monotonic() + 5.0
    while True:
        try:
            return take(lock)
        except HomeBusy:
            if time.monotonic() > end:
                raise


async def live(home: Path, start: bool) -> None:
    with taken(home / "engine.lock"):
        kit = Doomed(home, Config(), World(), time.time)
        kit.arm("none")
        await kit.recover()
        if start:
            await kit.start(steps(home))
        await asyncio.Event().wait()


def life(home: Path, rng: random.Random, most: int) -> None:
    """One life: fork, live for a while, be killed. At most `most` runs are open at once."""
    start = rng.random() < 0.6 and _open(home) < most
    delay = rng.uniform(0.0, LIFE_S)
    pid = os.fork()
    if pid == 0:
        try:
            asyncio.run(live(home, start))
        except BaseException:
            with (home / "errors").open("a") as file:
                traceback.print_exc(file=file)
        os._exit(70)
    time.sleep(delay)  # not a wait for something: the moment of death is the experiment
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), f"an engine ended by itself: {(home / 'errors').read_text()}"


def _open(home: Path) -> int:
    try:
        journal = SqliteJournal.open_readonly(home / "journal.db")
    except (JournalError, NotFound):
        return 0
    with contextlib.closing(journal):
        return len(journal.runs(["running"], 1000))


async def finish(home: Path) -> Counter[str]:
    """A last life without a kill: every run ends, or asks a person. By state."""
    with taken(home / "engine.lock"):
        kit = Doomed(home, Config(), World(), time.time)
        kit.arm("none")
        states: Counter[str] = Counter()
        for run in await kit.recover():
            view = await kit.until(run, lambda v: v.state in ("done", "waiting"), 60.0)
            unknown = [s.id for s in view.steps if s.state == "unknown"]
            assert view.state == "done" or unknown, view
        for row in kit.journal.runs(None, 100_000):
            states[row.state] += 1
        await kit.close()
        return states


def campaign(home: Path, *, kills: int, seed: int, most: int = 6) -> Result:
    """Kill `kills` engines in one home, then look at what the outside logs and the journal say."""
    rng = random.Random(seed)
    began = time.monotonic()
    home.mkdir(parents=True, exist_ok=True)
    for _ in range(kills):
        life(home, rng, most)
    states = asyncio.run(finish(home))
    marks = Counter((home / "marks").read_text().split())
    with contextlib.closing(SqliteJournal.open_readonly(home / "journal.db")) as journal:
        recorded = {f"{e.run} {e.n} {e.hash}" for row in journal.runs(None, 100_000)
                    for e in journal.read(row.id)}
        breaks = journal.verify().breaks
    acknowledged = set((home / "acknowledged").read_text().splitlines())
    return Result(
        seed=seed, kills=kills, runs=sum(states.values()), done=states["done"],
        asking=states["running"], effects=sum(marks.values()), acknowledged=len(acknowledged),
        twice=[m for m, n in marks.items() if n > 1 and m.split(":")[1] in ONCE],
        lost=sorted(acknowledged - recorded)[:10], breaks=breaks,
        seconds=round(time.monotonic() - began, 1))


if __name__ == "__main__":
    print(campaign(Path(sys.argv[1]), kills=int(sys.argv[2]), seed=int(sys.argv[3])).as_dict())
