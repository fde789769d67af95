"""The prediction log: one JSON line a request, written where no request waits for it.

A request only appends a tuple. Encoding happens in slices of a millisecond between requests, on the
event loop rather than in a thread, because a thread that computes would hold the interpreter for up
to five milliseconds at a time; the bytes then go to a thread that does nothing but write. What does
not fit (the disk is full or slow) is dropped and counted; a process that is killed loses at most
the last third of a second.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from engine.serving.log_file import LogFile
from engine.serving.records import (
    CONTENT_LIMIT,
    Record,
    Redaction,
    Unreadable,
    columns_of,
    predictions_of,
)

_ENCODE_EVERY_S = 0.02
_SLICE_S = 0.001
_HAND_OVER_S = 0.25
_HAND_OVER_BYTES = 1 << 16
_WAITING_RECORDS = 20_000
_WAITING_BYTES = 16 << 20
_TICK_S = 1.0
_CLOSE_S = 5.0


@dataclass(frozen=True)
class LogSettings:
    """Where the log is, how long it is kept (bytes, seconds, files) and what it may say."""

    path: Path
    max_bytes: int = 64 << 20
    max_age_s: float = 86400.0
    keep: int = 8
    keep_age_s: float = 30 * 86400.0
    redact: tuple[str, ...] = ()
    fields: bool | tuple[str, ...] = True


class Entry(NamedTuple):
    """One request as the gateway hands it over; bodies are raw."""

    at: float
    correlation_id: str
    trace_id: str
    variant: str
    version: str | None
    key_hash: int
    latency_s: float
    status: int
    error_type: str
    content_type: str
    request: bytes
    response: bytes


class PredictionLog:
    """Takes entries on the event loop; writes them from a thread of its own.

    `predicted(variant, predictions)` is called for each answer that is read here anyway, so that nobody
    has to read it again: None where it has no predictions, never for one over CONTENT_LIMIT.
    """

    def __init__(self, settings: LogSettings, service: str,
                 predicted: Callable[[str, Any], None] = lambda variant, predictions: None) -> None:
        self._service = service
        self._predicted = predicted
        self._redaction = Redaction(settings.redact, settings.fields, _hash_key(settings))
        self._file = LogFile(settings.path, max_bytes=settings.max_bytes,
                             max_age_s=settings.max_age_s, keep=settings.keep,
                             keep_age_s=settings.keep_age_s)
        self._encoder = msgspec.json.Encoder()
        self._waiting: deque[Entry] = deque()
        self._waiting_bytes = 0
        self._lines = bytearray()
        self._line_count = 0
        self._handed_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._queue: queue.SimpleQueue[tuple[bytes, int] | None] = queue.SimpleQueue()
        self._queued_bytes = 0
        self._written_bytes = 0
        self._dropped_here = 0
        self._thread = threading.Thread(target=self._write_all, name="prediction-log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Records that could not be kept since the start."""
        return self._dropped_here + self._file.dropped

    def append(self, entry: Entry) -> None:
        """Keep an entry for later; costs a request well under a microsecond."""
        size = len(entry.request) + len(entry.response)
        if (len(self._waiting) >= _WAITING_RECORDS
                or self._waiting_bytes + size > _WAITING_BYTES):
            self._dropped_here += 1
            return
        self._waiting_bytes += size
        self._waiting.append(entry)
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_ENCODE_EVERY_S, self._encode_slice)

    async def close(self) -> None:
        """Write all that waits and stop; gives up on a disk that hangs after five seconds."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            self._encode_one()
        self._hand_over()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join, _CLOSE_S)

    def _encode_slice(self) -> None:
        """Encode for a millisecond, then let requests run; reschedules itself while work is left.
        """
        until = time.perf_counter() + _SLICE_S
        while self._waiting and time.perf_counter() < until:
            self._encode_one()
        loop = asyncio.get_running_loop()
        if (len(self._lines) >= _HAND_OVER_BYTES
                or (self._lines and loop.time() - self._handed_at >= _HAND_OVER_S)):
            self._hand_over()
            self._handed_at = loop.time()
        if self._waiting:
            self._timer = loop.call_later(_SLICE_S, self._encode_slice)
        elif self._lines:
            self._timer = loop.call_later(_HAND_OVER_S, self._encode_slice)
        else:
            self._timer = None

    def _encode_one(self) -> None:
        entry = self._waiting.popleft()
        self._waiting_bytes -= len(entry.request) + len(entry.response)
        try:
            line = self._encoder.encode(self._record(entry))
        except (TypeError, ValueError, RecursionError):
            self._dropped_here += 1
            return
        self._lines += line
        self._lines += b"\n"
        self._line_count += 1

    def _record(self, entry: Entry) -> Record:
        record = Record(entry.at, entry.correlation_id, entry.trace_id, self._service,
                        entry.variant, entry.version, f"{entry.key_hash:016x}",
                        round(entry.latency_s * 1000, 3), entry.status, entry.error_type)
        omitted: list[str] = []
        if not self._redaction.keeps_any:
            omitted.append("features are not kept")
        elif len(entry.request) > CONTENT_LIMIT:
            omitted.append(f"the request has {len(entry.request)} bytes")
        else:
            try:
                columns = columns_of(entry.content_type, entry.request)
            except Unreadable as reason:
                omitted.append(f"the request is unreadable: {reason}")
            else:
                if "" in columns and self._redaction.needs_names:
                    omitted.append("the columns have no names to redact by")
                else:
                    record.features = self._redaction(columns)
        if not entry.error_type:
            if len(entry.response) > CONTENT_LIMIT:
                omitted.append(f"the response has {len(entry.response)} bytes")
            else:
                record.predictions = predictions_of(entry.response)
                self._predicted(entry.variant, record.predictions)
        record.omitted = "; ".join(omitted) or None
        return record

    def _hand_over(self) -> None:
        if not self._lines:
            return
        if self._queued_bytes - self._written_bytes > _WAITING_BYTES:
            self._dropped_here += self._line_count
        else:
            self._queued_bytes += len(self._lines)
            self._queue.put((bytes(self._lines), self._line_count))
        self._lines.clear()
        self._line_count = 0

    def _write_all(self) -> None:
        self._file.tick(time.time())
        ticked = time.monotonic()
        while True:
            try:
                item = self._queue.get(timeout=_TICK_S)
            except queue.Empty:
                item = (b"", 0)
            if item is None:
                break
            if item[0]:
                self._file.write(item[0], item[1], time.time())
                self._written_bytes += len(item[0])
            if time.monotonic() - ticked >= _TICK_S:
                ticked = time.monotonic()
                self._file.tick(time.time())
        self._file.close()


def _hash_key(settings: LogSettings) -> bytes:
    """The secret that `hash:` columns are hashed with, kept beside the log so that hashes last.

    Where it cannot be kept, a new one serves until the process ends.
    """
    if not any(rule.startswith("hash:") for rule in settings.redact):
        return b""
    path = settings.path.with_name(f"{settings.path.name}.key")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            key = path.read_bytes()
            if len(key) == 32:
                return key
            fd = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        with os.fdopen(fd, "wb") as file:
            file.write(key := os.urandom(32))
        return key
    except OSError as error:
        print(f"The hash key {path} cannot be kept ({error.strerror}); hashed columns of the "
              "prediction log will not match those of another start.", file=sys.stderr, flush=True)
        return os.urandom(32)
