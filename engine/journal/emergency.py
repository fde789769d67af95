"""The emergency journal: where the safe direction is recorded when the journal cannot be written.

A small file whose blocks are all allocated and written beforehand, so that recording an abort needs no
space, no lock and no database. The engine moves the records into the journal once that works again.

The file is a 16-byte header (magic, generation, checksum), then records one after the other: magic,
generation, length, checksum, payload. `clear` raises the generation, so that no old record comes back.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from pathlib import Path

import msgspec

from engine.errors import JournalError, JournalUnavailable
from engine.journal.events import NewEvent

SIZE = 64 * 1024

_HEAD = struct.Struct(">8sII")
_RECORD = struct.Struct(">4sIII")
_MAGIC, _MARK = b"OPSDECKE", b"\xf0EJ\n"
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(NewEvent).decode


class Emergency:
    """An open emergency journal; one engine uses it, under the home's lock."""

    def __init__(self, path: Path, handle: int) -> None:
        self.path = path
        self._handle = handle
        self._generation, self._end, self._events = _scan(os.pread(handle, SIZE, 0))

    @classmethod
    def open(cls, path: Path) -> Emergency:
        """Open, allocating the file's SIZE bytes where they are not there yet: do it at the engine's
        start, while there is space. Raises JournalUnavailable when they cannot be had."""
        flags = os.O_CREAT | os.O_RDWR | os.O_DSYNC | os.O_CLOEXEC
        handle = -1
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(path, flags, 0o600)
            there = os.fstat(handle).st_size
            if there < SIZE:
                os.posix_fallocate(handle, 0, SIZE)
                # Blocks that were only reserved may still need space for their bookkeeping.
                _write(handle, bytes(SIZE - there), there)
                os.fsync(handle)
            emergency = cls(path, handle)
            if not emergency._generation:
                emergency._set_generation(1)
        except OSError as error:
            if handle >= 0:
                os.close(handle)
            raise JournalUnavailable(
                f"the emergency journal cannot be prepared: {error.strerror}", where=str(path),
                hint="free some space before anything is run; an abort still works and is printed"
            ) from error
        return emergency

    def record(self, event: NewEvent) -> None:
        """Record durably. Raises JournalUnavailable when the file is full or cannot be written; then
        the caller acts all the same, prints and logs."""
        try:
            payload = _encode(event)
        except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
            raise JournalError(f"the event {event.kind} cannot be recorded: {error}",
                               where=f"run {event.run}") from error
        record = _RECORD.pack(_MARK, self._generation, len(payload),
                              _checksum(self._generation, payload)) + payload
        if self._end + len(record) > SIZE:
            raise JournalUnavailable(
                f"the emergency journal is full ({SIZE // 1024} KiB, {len(self._events)} records)",
                where=str(self.path), hint="free some space, so that the journal can take them over")
        try:
            _write(self._handle, record, self._end)
        except OSError as error:
            raise JournalUnavailable(f"the emergency journal cannot be written: {error.strerror}",
                                     where=str(self.path)) from error
        self._end += len(record)
        self._events.append(_decode(payload))

    def pending(self) -> list[NewEvent]:
        """The records that the journal has not taken over yet, oldest first."""
        return list(self._events)

    def clear(self) -> None:
        """Forget all records: call it once the journal has them. Raises JournalUnavailable."""
        try:
            self._set_generation(self._generation + 1)
        except OSError as error:
            raise JournalUnavailable(f"the emergency journal cannot be cleared: {error.strerror}",
                                     where=str(self.path)) from error

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _set_generation(self, generation: int) -> None:
        checksum = _checksum(generation, _MAGIC)
        _write(self._handle, _HEAD.pack(_MAGIC, generation, checksum), 0)
        self._generation, self._end, self._events = generation, _HEAD.size, []


def _scan(content: bytes) -> tuple[int, int, list[NewEvent]]:
    """The generation (0: none), where the next record goes, and the records.

    A torn last record is passed over and written over. A damaged one in the middle is passed over,
    and those behind it are found by their mark.
    """
    magic, generation, checksum = _HEAD.unpack_from(content.ljust(_HEAD.size, b"\0"))
    sound = magic == _MAGIC and checksum == _checksum(generation, _MAGIC)
    if not sound:  # a damaged header must not cost the records: the newest generation is the right one
        generation = max((g for g, _, _ in _records(content)), default=0)
    found = [(end, event) for g, end, event in _records(content) if g == generation]
    end = max((end for end, _ in found), default=_HEAD.size)
    return generation, end, [event for _, event in found]


def _records(content: bytes) -> list[tuple[int, int, NewEvent]]:
    found = []
    at = content.find(_MARK, _HEAD.size)
    while at >= 0:
        end = at + 1
        if at + _RECORD.size <= len(content):
            _, generation, length, checksum = _RECORD.unpack_from(content, at)
            payload = content[at + _RECORD.size:at + _RECORD.size + length]
            if len(payload) == length and checksum == _checksum(generation, payload):
                with contextlib.suppress(msgspec.MsgspecError):
                    found.append((generation, at + _RECORD.size + length, _decode(payload)))
                    end = at + _RECORD.size + length
        at = content.find(_MARK, end)
    return found


def _checksum(generation: int, payload: bytes) -> int:
    return zlib.crc32(payload, generation)


def _write(handle: int, content: bytes, at: int) -> None:
    """All of it; a short write goes on where it stopped."""
    view = memoryview(content)
    while view:
        written = os.pwrite(handle, view, at)
        view, at = view[written:], at + written
