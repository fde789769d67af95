"""Archive files: old events as compressed JSON lines, which verify as well as the database does.

A file is written once, synced, and never changed. It is gzip over one header line and one line an
event, in order of seq, with each event's data byte for byte as it was recorded.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from engine.durable import sync_folder
from engine.errors import JournalCorrupt, JournalUnavailable
from engine.journal.events import GENESIS
from engine.journal.faults import SEAL_HINT
from engine.journal.ledger import ArchiveInfo, Span
from engine.journal.rows import Row, row_fault

DIRECTORY = "archive"


class Header(msgspec.Struct):
    opsdeck_archive: int
    events: int
    spans: list[Span]


_Line = msgspec.defstruct("_Line", [(name, msgspec.Raw if name == "data" else kind)
                                    for name, kind in get_type_hints(Row).items()])
_encode = msgspec.json.Encoder().encode
_decode_line = msgspec.json.Decoder(_Line).decode
_decode_header = msgspec.json.Decoder(Header).decode


def write(directory: Path, id: int, rows: Sequence[Row]) -> ArchiveInfo:
    """Write `rows` (in order of seq; each chain's without gaps) durably under its final name.

    The same rows give the same bytes and the same name, so that a rotation which was cut short is
    repeated over its own file. Raises JournalUnavailable when the disk does not take it.
    """
    spans = spans_of(rows)
    raw = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as packed:
        packed.write(_encode(Header(1, len(rows), list(spans))) + b"\n")
        packed.write(b"".join(_encode(_line(row)) + b"\n" for row in rows))
    content = raw.getvalue()
    sha256 = hashlib.sha256(content).hexdigest()
    path = directory / f"{id:06d}-{sha256[:12]}.jsonl.gz"
    unfinished = directory / f".{path.name}.unfinished"
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        with unfinished.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        sync_folder(directory)
        sync_folder(directory.parent)
    except OSError as error:
        raise JournalUnavailable(f"the archive cannot be written: {error.strerror}", where=str(path),
                                 hint="the events stay in the journal; nothing is lost") from error
    return ArchiveInfo(id, path.name, sha256, len(rows), rows[0].seq, rows[-1].seq, spans)


def spans_of(rows: Sequence[Row]) -> tuple[Span, ...]:
    first: dict[str, int] = {}
    last: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row.run, row.n)
        last[row.run] = row
    return tuple(Span(run, first[run], row.n, row.hash) for run, row in last.items())


def read(path: Path) -> Iterator[Row]:
    """The rows of an archive, in order of seq. Raises JournalCorrupt where the file is damaged."""
    last = "its header"
    try:
        with gzip.open(path, "rb") as packed:
            lines = iter(packed)
            header = _decode_header(next(lines, b""))
            count = 0
            for text in lines:
                row = _row(_decode_line(text))
                count += 1
                last = f"event {row.n} of {row.run} (seq {row.seq})"
                yield row
            if count != header.events:
                raise JournalCorrupt(f"the archive holds {count} events instead of {header.events}",
                                     where=str(path), hint=SEAL_HINT)
    except FileNotFoundError:
        raise JournalCorrupt("the archive's file is gone", where=str(path),
                             hint="put it back from a backup of the home") from None
    except (OSError, EOFError, zlib.error, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise JournalCorrupt(f"the archive cannot be read after {last}", where=str(path),
                             hint=SEAL_HINT) from error


def checked(directory: Path, info: ArchiveInfo) -> ArchiveInfo:
    """`info` with its `fault` said: the file is gone, or differs, and then its first bad event."""
    path = directory / info.file
    name = f"archive {info.id} ({DIRECTORY}/{info.file})"
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return msgspec.structs.replace(info, fault=f"{name} cannot be read: {error.strerror}",
                                       fault_evidence=str(error.strerror))
    if found == info.sha256:
        return info
    return msgspec.structs.replace(info, fault=f"{name} has changed: {_first_bad(path)}",
                                   fault_evidence=found)


def _first_bad(path: Path) -> str:
    heads: dict[str, tuple[int, str]] = {}
    try:
        for row in read(path):
            n, prev = heads.get(row.run, (row.n - 1, row.prev if row.n > 1 else GENESIS))
            fault = row_fault(row, n, prev)
            if fault:
                return fault
            heads[row.run] = (row.n, row.hash)
    except JournalCorrupt as error:
        return error.message
    return "it is not the file that was recorded"


def remove_unlisted(directory: Path, listed: set[str],
                    stored: Callable[[int], str | None]) -> None:
    """Remove what rotations that were cut short have left: files not listed, all of whose events are
    still in the database (`stored`: seq to hash). A file that holds anything else is left alone."""
    if not directory.is_dir():
        return
    for path in sorted(directory.iterdir()):
        if path.name.startswith(".") and path.name.endswith(".unfinished"):
            path.unlink()
        elif path.name.endswith(".jsonl.gz") and path.name not in listed:
            try:
                redundant = all(stored(row.seq) == row.hash for row in read(path))
            except JournalCorrupt:
                continue
            if redundant:
                path.unlink()


def _line(row: Row) -> dict[str, Any]:
    return row._asdict() | {"data": msgspec.Raw(row.data.encode())}


def _row(line: msgspec.Struct) -> Row:
    values = msgspec.structs.asdict(line)
    return Row(**values | {"data": bytes(values["data"]).decode()})
