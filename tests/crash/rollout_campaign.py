"""A campaign of random SIGKILLs against an engine that rolls versions out on a real gateway.

Each life is a forked process that opens the whole engine, sometimes starts a rollout, sometimes aborts
it, and is killed after a random time; the next one comes at once, or only after the gateway's lease has
run out. What holds is judged from outside (`tests.crash.rollout_oracle`) by what the gateway's weights
were twenty times a second, and by the pages that arrived.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from engine import home as homes
from engine.api import wire
from engine.api.backend import Backend, Caller
from engine.app import open_engine
from engine.config import Config
from engine.errors import JournalError, NotFound, OpsdeckError
from engine.journal.sqlite import SqliteJournal
from tests.crash.campaign import taken
from tests.crash.rollout_oracle import LEASE_S, PLAN, Result, judged
from tests.serving.harness import Gateway, wait_for

ADMIN = Caller(user="tests", uid=0, pid=0, roles=frozenset({"admin", "operator", "approver"}),
               origin="campaign")
LATE_S = 0.3
LIFE_S = 2.5  # the longest life; a good version needs about four seconds


@dataclass
class Life:
    """What one life is to do, seconds from its beginning; None: it does not."""

    delay: float
    start: bool
    bad_at: float | None
    abort_at: float | None
    wait_out: bool  # whether the next life comes after the lease only


@dataclass
class World:
    """What is outside the engine, and never killed."""

    home: Path
    gateway: Gateway
    resets: list[float] = field(default_factory=list)

    @property
    def weight(self) -> float:
        """The challenger's weight now, in percent."""
        weight: float = self.gateway.weights()["weights"]["challenger"]
        return weight

    def bad(self, on: bool) -> None:
        if on:
            (self.home / "bad").touch()
        else:
            (self.home / "bad").unlink(missing_ok=True)

    def reset(self) -> None:
        """All to the champion, as a person would before the next rollout."""
        self.gateway.put(100.0)
        self.resets.append(time.time())


@contextlib.contextmanager
def world(home: Path) -> Iterator[World]:
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    outside = subprocess.Popen([sys.executable, "-m", "tests.crash.rollout_world", str(home)],
                               cwd=Path(__file__).parents[2])
    gateway: Gateway | None = None
    try:
        ports = json.loads(wait_for((home / "world.json").exists, "the world")
                           and (home / "world.json").read_text())
        gateway = Gateway(home, {name: ports[name] for name in ("champion", "challenger")})
        (home / "runbooks").mkdir()
        (home / "runbooks" / "quick.yaml").write_text(PLAN)
        (home / "opsdeck.yaml").write_text(yaml.safe_dump({
            "engine": {"scrape_interval": "250ms", "window": "10s", "stale_after": "2s"},
            "alerts": {"webhooks": {"page": f"http://127.0.0.1:{ports['pages']}/"}},
            "services": {"flights": {
                "scrape": [f"http://127.0.0.1:{gateway.port}/metrics"], "champion": "champion",
                "gateway": {"admin": str(gateway.admin)}}}}))
        (home / "gateway.port").write_text(str(gateway.port))
        wait_for(lambda: gateway is not None and gateway.count("champion") > 50, "traffic")
        yield World(home, gateway)
    finally:
        outside.kill()
        outside.wait()
        if gateway is not None:
            gateway.kill()


def config_of(home: Path) -> Config:
    return Config.model_validate(yaml.safe_load((home / "opsdeck.yaml").read_text()))


async def live(home: Path, life: Life) -> None:
    place = homes.at(home)
    homes.prepare(place)
    with taken(place.lock):
        async with open_engine(place, config_of(home)) as app:
            if life.start and not [run for run in await app.backend.runs(None, 5) if run.ended is None]:
                await app.backend.start_run(ADMIN, wire.StartRun(
                    procedure="quick", params={"service": "flights", "to": "challenger"}))
            if life.abort_at is not None:
                await asyncio.sleep(life.abort_at)
                await _abort(home, app.backend)
            await asyncio.Event().wait()


async def _abort(home: Path, backend: Backend) -> None:
    """Abort what runs; what was accepted is written down outside, with fsync."""
    for run in await backend.runs(None, 5):
        if run.ended is None:
            try:
                await backend.act(ADMIN, run.id, "abort", wire.Act(rollback=True, reason="a person"))
            except OpsdeckError:
                continue  # it has ended meanwhile
            handle = os.open(home / "accepted", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(handle, f"{run.id}\n".encode())
            os.fsync(handle)
            os.close(handle)


def spend(outside: World, life: Life) -> None:
    """One life, from the fork to the kill."""
    home = outside.home
    pid = os.fork()
    if pid == 0:
        try:
            asyncio.run(live(home, life))
        except BaseException:
            with (home / "errors").open("a") as file:
                traceback.print_exc(file=file)
        os._exit(70)
    if life.bad_at is not None:
        time.sleep(life.bad_at)  # not a wait for something: the moment is the experiment, here and below
        outside.bad(True)
    time.sleep(max(0.0, life.delay - (life.bad_at or 0.0)))
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    errors = home / "errors"
    assert os.WIFSIGNALED(status), f"an engine ended by itself: {errors.read_text()}"


def drawn(rng: random.Random) -> Life:
    delay = rng.uniform(0.0, LIFE_S)
    return Life(delay, rng.random() < 0.7, rng.uniform(0.0, delay) if rng.random() < 0.12 else None,
                rng.uniform(0.0, delay) if rng.random() < 0.15 else None, rng.random() < 0.15)


async def finish(home: Path) -> None:
    """A last life without a kill: every rollout ends."""
    place = homes.at(home)
    with taken(place.lock):
        async with open_engine(place, config_of(home)) as app:
            end = time.monotonic() + 60.0
            while open := [run for run in await app.backend.runs(None, 100) if run.ended is None]:
                assert time.monotonic() < end, open
                await asyncio.sleep(0.1)
            await asyncio.sleep(1.0)  # the pages of the last moment


def campaign(home: Path, *, kills: int, seed: int) -> Result:
    """Kill `kills` engines in one home, then judge what was seen from outside."""
    rng = random.Random(seed)
    began = time.monotonic()
    late: list[str] = []
    with world(home) as outside:
        for number in range(kills):
            life = drawn(rng)
            if life.start and not _open(home):
                outside.bad(rng.random() < 0.2)
                if outside.weight:
                    outside.reset()
            spend(outside, life)
            if life.wait_out and outside.gateway.weights()["lease"]:
                late += _waited_out(outside, number)
        asyncio.run(finish(home))
        after = outside.gateway.weights()
        resets = outside.resets
    return judged(home, seed=seed, kills=kills, resets=resets, late=late, after=after,
                  seconds=round(time.monotonic() - began, 1))


def _waited_out(outside: World, number: int) -> list[str]:
    """Without an engine the gateway goes back by itself within its lease; what is wrong with that."""
    end = time.monotonic() + LEASE_S + LATE_S
    while outside.weight:
        if time.monotonic() > end:
            return [f"kill {number}: {outside.weight:g} % for more than the lease"]
        time.sleep(0.02)
    return []


def _open(home: Path) -> bool:
    try:
        journal = SqliteJournal.open_readonly(home / "journal.db")
    except (JournalError, NotFound):
        return False
    with contextlib.closing(journal):
        return bool(journal.runs(["running"], 10))


if __name__ == "__main__":
    found = campaign(Path(sys.argv[1]), kills=int(sys.argv[2]), seed=int(sys.argv[3]))
    print(json.dumps(found.as_dict(), indent=1))
