"""An engine's journal in a process of its own, told what to do line by line; for fault tests.

    python engine_process.py HOME ENGINE_ID

Each line of input is one act; each act is answered by one line: `ok …` or the error's class.
    open          take the home's lock and open the journal
    note RUN      append an event and answer with its n and hash
    intent RUN STEP
    loop          start runs and append intents and outcomes without end, a line for each one acknowledged
    hot           begin a commit that reaches the database file, and stop in the middle of it
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from engine.errors import OpsdeckError
from engine.journal import lease
from engine.journal.events import Actor, Event, NewEvent
from engine.journal.journal import RunRow
from engine.journal.sqlite import SqliteJournal

ME = Actor("engine", -1, "engine")


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def name(event: Event) -> str:
    return f"{event.run} {event.n} {event.hash}"


def act(words: list[str], home: Path, engine_id: str, journal: SqliteJournal | None) -> SqliteJournal | None:
    match words:
        case ["open"]:
            lock = lease.take(home / "engine.lock", engine=engine_id)
            journal = SqliteJournal.open(home / "journal.db", engine_id=engine_id)
            journal.lock = lock  # type: ignore[attr-defined]
            say("ok")
        case ["note", run]:
            assert journal
            say("ok " + name(journal.append([NewEvent(run, "run.note", time.time(), ME)])[0]))
        case ["intent", run, step]:
            assert journal
            say("ok " + name(journal.append([NewEvent(run, "step.intent", time.time(), ME, step, 1)])[0]))
        case ["loop"]:
            assert journal
            loop(journal)
        case ["hot"]:
            assert journal
            with journal.transaction() as db:
                db.execute("PRAGMA cache_size = 1")
                for number in range(200):
                    journal.add(db, NewEvent("hot", "run.note", time.time(), ME, data={"x": "y" * 3000,
                                                                                      "number": number}))
                say("ok in the middle")
                sys.stdin.readline()
    return journal


def loop(journal: SqliteJournal) -> None:
    while True:
        run = journal.new_run_id()
        row = RunRow(run, "loop", "running", "engine", time.time(), None, None)
        say(name(journal.append([NewEvent(run, "run.created", time.time(), ME)], row=row)[0]))
        for number in range(5):
            for kind in ("step.intent", "step.outcome"):
                say(name(journal.append([NewEvent(run, kind, time.time(), ME, f"s{number}", 1)])[0]))


def main() -> None:
    home, engine_id = Path(sys.argv[1]), sys.argv[2]
    journal: SqliteJournal | None = None
    for line in sys.stdin:
        try:
            journal = act(line.split(), home, engine_id, journal)
        except OpsdeckError as error:
            say(f"{type(error).__name__} {error.message}")


if __name__ == "__main__":
    main()
