"""Process of the demo: sends the flights through the gateway, and their labels when they land.

    python -m engine.demo.replayer --home H --url http://127.0.0.1:PORT --rps 50 --speed 3600

It is open-loop: a request is due each 1/rps seconds, whatever became of those before it. A gateway
that is away costs errors and never the pace; requests that are due while it waits to try again are
counted as not sent. How the calendar follows is in `calendar`; at the default speed a simulated
hour takes a second, so that April, when the drift begins, is two minutes after the start.

It writes replayer.json each second (what it did so far) and labels.jsonl: one line for each flight
that was predicted and has landed, with the correlation id of the prediction.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime as dt
import json
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from engine.demo import flights
from engine.demo.calendar import Calendar, Landings, Moment
from engine.demo.command import guarded
from engine.demo.layout import RPS, SPEED, START, Layout, write_atomically
from engine.errors import UsageError
from engine.serving.log_file import LogFile

if TYPE_CHECKING:
    import aiohttp

TIMEOUT_S = 10.0
IN_FLIGHT = 256  # more than a gateway that answers ever has from this; beyond it nothing is sent
IN_THE_AIR = 100_000
LABEL_BYTES = 8 << 20
LABEL_FILES = 3
LATE_BY = 1.0  # seconds behind its time from which a request is left out rather than sent late
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 2.0
DRAIN_S = 2.0
STOP_WITHIN = 0.25


class Requests:
    """The requests of flights: body, key and correlation id."""

    def __init__(self, layout: Layout, session: str) -> None:
        about = flights.load_about(layout)
        self.rows = flights.load(layout)
        self._carrier, self._origin = about.carrier, about.origin
        self._session = session

    def body(self, flight: int) -> bytes:
        """MLflow's `dataframe_split` with one row; weather that was not recorded is null."""
        row = self.rows[flight]
        # The shortest decimal that is the float32 again: what the model gets is what it learned.
        numbers = [float(str(row[name])) for name in flights.NUMBERS]
        values = [self._carrier[row["carrier"]], self._origin[row["origin"]],
                  *(None if number != number else number for number in numbers)]
        return json.dumps({"dataframe_split": {"columns": list(flights.FEATURES),
                                               "data": [values]}}).encode()

    def key(self, flight: int) -> str:
        """The aircraft: all its flights go to one variant."""
        return str(self.rows["tail"][flight].decode())

    def correlation(self, flight: int, request: int) -> str:
        row = self.rows[flight]
        return f"{self._session}-{request}-{self._carrier[row['carrier']]}{row['number']}"

    def lands(self, moment: Moment, lap_s: int) -> float:
        return float(self.rows["land"][moment.flight]) + moment.lap * lap_s

    def label(self, flight: int, request: int, at: float) -> bytes:
        """One line of labels.jsonl. `at` is real UTC seconds, `landed` the flight's own time."""
        row = self.rows[flight]
        return json.dumps({
            "at": round(at, 3), "correlation_id": self.correlation(flight, request),
            "key": self.key(flight), "landed": stamp(int(row["land"])),
            "late": int(row["late"]), "delay_min": int(row["delay"])}).encode() + b"\n"


class Replayer:
    """One run of the replayer; `run` goes on until `stop` is set."""

    def __init__(self, layout: Layout, url: str, rps: float, speed: float, start: dt.date) -> None:
        self._layout = layout
        self._url = url.rstrip("/") + "/invocations"
        self._rps, self._speed = rps, speed
        self._requests = Requests(layout, os.urandom(4).hex())
        self._calendar = Calendar(self._requests.rows["depart"])
        midnight = dt.datetime.combine(start, dt.time(), dt.UTC).timestamp()
        self._first = self._calendar.start(midnight)
        self._air = Landings(IN_THE_AIR)
        self._labels = LogFile(layout.labels, max_bytes=LABEL_BYTES, max_age_s=86400.0,
                               keep=LABEL_FILES, keep_age_s=30 * 86400.0)
        self._tasks: set[asyncio.Task[None]] = set()
        self._errors: Counter[str] = Counter()
        self._sent = self._ok = self._not_sent = self._labelled = 0
        self._pause, self._again_at = FIRST_PAUSE, 0.0
        self._begun = 0.0
        self._started = time.time()
        self._status_error: int | None = None

    async def run(self, stop: asyncio.Event) -> None:
        import aiohttp

        self._begun = time.monotonic()
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout,
                                         cookie_jar=aiohttp.DummyCookieJar()) as session:
            writer = asyncio.create_task(self._write(stop))
            try:
                await self._pace(session, stop)
            finally:
                if self._tasks:
                    await asyncio.wait(self._tasks, timeout=DRAIN_S)
                for task in list(self._tasks):
                    task.cancel()
                writer.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await writer
        self._write_labels(time.time())
        self._labels.close()
        self._write_status("stopped")

    async def _pace(self, session: aiohttp.ClientSession, stop: asyncio.Event) -> None:
        request = 0
        while not stop.is_set():
            behind = self._elapsed() - request / self._rps
            if behind < 0:
                await asyncio.sleep(min(-behind, STOP_WITHIN))
                continue
            if behind > LATE_BY:
                # The machine slept or this process was stopped: a burst would be no real traffic.
                left_out = int(behind * self._rps)
                self._not_sent += left_out
                request += left_out
            self._send(session, request)
            request += 1
            if request % 64 == 0:
                await asyncio.sleep(0)

    def _send(self, session: aiohttp.ClientSession, request: int) -> None:
        if len(self._tasks) >= IN_FLIGHT or time.monotonic() < self._again_at:
            self._not_sent += 1
            return
        moment = self._calendar.moment(self._first, request / self._rps * self._speed)
        self._sent += 1
        task = asyncio.create_task(self._predict(session, moment, request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _predict(self, session: aiohttp.ClientSession, moment: Moment, request: int) -> None:
        import aiohttp

        flight = moment.flight
        headers = {"content-type": "application/json", "x-request-key": self._requests.key(flight),
                   "x-correlation-id": self._requests.correlation(flight, request)}
        try:
            async with session.post(self._url, data=self._requests.body(flight),
                                    headers=headers) as response:
                await response.read()
                status, kind = response.status, response.headers.get("x-opsdeck-error-type")
        except TimeoutError:
            self._errors["no answer in time"] += 1
            return
        except aiohttp.ClientError:
            self._errors["gateway away"] += 1
            now = time.monotonic()
            if now >= self._again_at:
                self._again_at = now + self._pause
                self._pause = min(2 * self._pause, LONGEST_PAUSE)
            return
        self._pause = FIRST_PAUSE
        if status != 200:
            self._errors[kind or f"status {status}"] += 1
            return
        self._ok += 1
        self._air.add(self._requests.lands(moment, self._calendar.lap_s), flight, request)

    async def _write(self, stop: asyncio.Event) -> None:
        """Labels ten times a second, the status each second."""
        turn = 0
        while not stop.is_set():
            self._write_labels(time.time())
            if turn % 10 == 0:
                self._labels.tick(time.time())
                self._write_status("running")
            turn += 1
            await asyncio.sleep(0.1)

    def _write_labels(self, now: float) -> None:
        landed = self._air.landed(self._now().clock)
        if landed:
            lines = [self._requests.label(flight, request, now) for flight, request in landed]
            self._labels.write(b"".join(lines), len(lines), now)
            self._labelled += len(lines)

    def _write_status(self, state: str) -> None:
        moment = self._now()
        status = json.dumps({
            "at": round(time.time(), 3), "state": state, "pid": os.getpid(),
            "started": round(self._started, 3), "simulated": stamp(
                moment.clock - moment.lap * self._calendar.lap_s), "lap": moment.lap,
            "rps": self._rps, "speed": self._speed, "sent": self._sent, "ok": self._ok,
            "errors": dict(self._errors), "not_sent": self._not_sent,
            "in_flight": len(self._tasks), "labels": self._labelled,
            "labels_due": len(self._air),
            "labels_dropped": self._air.dropped + self._labels.dropped})
        try:
            write_atomically(self._layout.replayer, status + "\n")
        except OSError as error:
            # A full disk must not end the traffic; the file's own time shows that it is old.
            if error.errno != self._status_error:
                print(f"{self._layout.replayer} cannot be written: {error.strerror}",
                      file=sys.stderr, flush=True)
            self._status_error = error.errno
        else:
            self._status_error = None

    def _elapsed(self) -> float:
        return time.monotonic() - self._begun

    def _now(self) -> Moment:
        return self._calendar.moment(self._first, self._elapsed() * self._speed)


def stamp(seconds: float) -> str:
    """UTC seconds as 2013-04-01T05:00:00Z."""
    return dt.datetime.fromtimestamp(int(seconds), dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m engine.demo.replayer")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--url", required=True, help="the gateway's, without /invocations")
    parser.add_argument("--rps", type=float, default=RPS, help="requests per second")
    parser.add_argument("--speed", type=float, default=SPEED,
                        help="simulated seconds per second")
    parser.add_argument("--start", type=dt.date.fromisoformat, default=START,
                        help="the day of 2013 it starts at, such as 2013-03-25")
    args = parser.parse_args()
    if not 0 < args.rps <= 2000:
        raise UsageError(f"--rps is {args.rps:g}; it must be above 0 and at most 2000.")
    if not 0 < args.speed <= 1e6:
        raise UsageError(f"--speed is {args.speed:g}; it must be above 0 and at most 1000000.")
    return args


async def _serve(replayer: Replayer) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await replayer.run(stop)


def main() -> None:
    args = _arguments()
    replayer = Replayer(Layout(args.home), args.url, args.rps, args.speed, args.start)
    print(f"sending {args.rps:g} flights a second to {args.url} from {args.start} on, "
          f"{args.speed:g} simulated seconds a second", flush=True)
    asyncio.run(_serve(replayer))


if __name__ == "__main__":
    guarded(main)
