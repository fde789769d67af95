"""Setting a damaged journal file aside: the last resort, when SQLite itself cannot read it.

The damaged file is kept under another name, with what SQLite kept beside it. A new journal takes its
place in one rename; its first event names the old file, its digest, and the runs that had not ended.
Archives are taken over. Run ids go on above every id that was ever given.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from engine.durable import sync_folder
from engine.errors import JournalCorrupt, JournalUnavailable
from engine.journal import archive, schema
from engine.journal.anchors import EMPTY
from engine.journal.events import ENGINE, Event, NewEvent
from engine.journal.faults import utc
from engine.journal.ledger import ArchiveInfo
from engine.journal.rows import ARCHIVED, SEAL, Row
from engine.journal.sqlite import SqliteJournal


def set_aside(path: Path, event: NewEvent, *, engine_id: str, clock: Callable[[], float]) -> Event:
    """Put the journal at `path` aside and start a new one; returns its seal event.

    Only with the home's lock held. `event` gives who, when, and `data["reason"]`. Raises
    JournalUnavailable when the disk does not take it; the damaged file is in place until the new
    journal is complete, so that it can be tried again.
    """
    stamp = utc(event.at).replace(":", "").replace("-", "")
    kept = path.with_name(f"{path.name}.damaged-{stamp}")
    fresh = path.with_name(f".{path.name}.fresh")
    try:
        saved = _salvage(path, event.at)
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        schema.remove(fresh)
        journal = SqliteJournal.open(fresh, engine_id=engine_id, clock=clock)
        try:
            sealed = _fill(journal, path, kept.name, sha256, saved, event)
        finally:
            journal.close()
        for suffix in schema.BESIDE:
            fresh.with_name(fresh.name + suffix).unlink(missing_ok=True)
        with contextlib.suppress(FileExistsError):
            kept.hardlink_to(path)
        # A rollback journal left in place would be played into the new file.
        for suffix in schema.BESIDE:
            beside = path.with_name(path.name + suffix)
            if beside.exists():
                beside.rename(kept.with_name(kept.name + suffix))
        fresh.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise JournalUnavailable(f"the journal cannot be set aside: {os.strerror(error.errno or 0)}",
                                 where=str(path), hint="free some space, then try again") from error
    return sealed


class _Saved(msgspec.Struct):
    """What could still be read: `runs` is the greatest run id given, `seq` the greatest seq."""

    runs: int | None = None
    seq: int | None = None
    unfinished: list[str] = []


def _salvage(path: Path, now: float) -> _Saved:
    saved = _Saved()
    with contextlib.suppress(sqlite3.Error):
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=1)
        try:
            for field, query in (
                    ("runs", "SELECT value FROM meta WHERE key = 'runs'"),
                    ("seq", "SELECT seq FROM sqlite_sequence WHERE name = 'events'"),
                    ("unfinished", "SELECT json_group_array(id) FROM runs WHERE ended IS NULL")):
                with contextlib.suppress(sqlite3.Error, msgspec.MsgspecError):
                    value = msgspec.json.decode(str(db.execute(query).fetchone()[0]))
                    saved = msgspec.convert({**msgspec.structs.asdict(saved), field: value}, _Saved)
        finally:
            db.close()
    # Nobody starts a run a second, so the clock is above any counter that cannot be read.
    return _Saved(int(now) if saved.runs is None else saved.runs,
                  int(now) if saved.seq is None else saved.seq, saved.unfinished)


def _fill(journal: SqliteJournal, path: Path, kept: str, sha256: str, saved: _Saved,
          event: NewEvent) -> Event:
    directory = path.parent / archive.DIRECTORY
    taken, lost = _archives(directory)
    base = max([saved.seq or 0, *(info.last_seq for info in taken)])
    text = f"the damaged file was set aside as {kept}"
    if saved.unfinished:
        text += f"; runs that had not ended: {', '.join(saved.unfinished)}"
    data: dict[str, Any] = {
        **event.data, "text": f"{text} ({event.data.get('reason', '')})", "aside": text,
        "file": kept, "sha256": sha256, "unfinished": saved.unfinished,
        "archives_unread": lost, "breaks": []}
    with journal.transaction() as db:
        db.execute("UPDATE meta SET value = ? WHERE key = 'runs'", (str(saved.runs or 0),))
        db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('events', ?)", (base,))
        journal.set_tail(db, msgspec.structs.replace(EMPTY, first=base + 1, last=base))
        for info in taken:
            db.execute("INSERT INTO archives VALUES (?, ?, ?, ?, ?, ?)",
                       (info.id, info.file, info.sha256, info.events, info.first_seq, info.last_seq))
            db.executemany("INSERT INTO archived VALUES (?, ?, ?, ?, ?)",
                           [(s.run, s.first_n, s.last_n, s.last_hash, info.id) for s in info.spans])
        seal = journal.add(db, NewEvent(run=ENGINE, kind=SEAL, at=event.at, actor=event.actor,
                                        data=data))
        recorded = [seal]
        recorded += [journal.add(db, NewEvent(
            run=ENGINE, kind=ARCHIVED, at=event.at, actor=event.actor,
            data={"id": a.id, "file": a.file, "sha256": a.sha256, "events": a.events}))
            for a in taken]
        journal.note(db, recorded)
        # Above any token of the old file: an engine that is still there must not take this for its own.
        db.execute("UPDATE meta SET value = ? WHERE key = 'fence'", (str(int(event.at)),))
    return seal


def _archives(directory: Path) -> tuple[list[ArchiveInfo], list[str]]:
    """The archive files whose chains go on where the file before ended, and the names of the others."""
    taken: list[ArchiveInfo] = []
    lost: list[str] = []
    ends: dict[str, int] = {}
    for path in sorted(directory.glob("*.jsonl.gz")):
        try:
            rows: list[Row] = list(archive.read(path))
            spans = archive.spans_of(rows)
            if not rows or any(s.first_n != ends.get(s.run, 0) + 1 for s in spans):
                raise JournalCorrupt("the archive does not follow the ones before", where=str(path))
            id = int(path.name.split("-")[0])
        except (JournalCorrupt, ValueError):
            lost.append(path.name)
            continue
        ends.update((s.run, s.last_n) for s in spans)
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        taken.append(ArchiveInfo(id, path.name, sha256, len(rows), rows[0].seq, rows[-1].seq, spans))
    return taken, lost


