"""Server-sent events: one message as bytes, and bytes as messages. Pure.

Only what this API sends: `event:`, `id:` and one `data:` line of JSON; a field unknown here is
ignored, as the standard says (WHATWG HTML, 9.2.6).
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

LIMIT = 16 * 1024 * 1024  # bytes of one message; a peer that sends more is not our engine


class Message(msgspec.Struct, frozen=True):
    event: str
    data: bytes
    id: str | None = None


def encode(message: Message) -> bytes:
    """The bytes of one message. `data` must hold no newline: JSON never does."""
    lines = [b"event: " + message.event.encode()]
    if message.id is not None:
        lines.append(b"id: " + message.id.encode())
    return b"\n".join([*lines, b"data: " + message.data, b"", b""])


class Decoder:
    """Collects bytes as they arrive and gives back whole messages."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that `data` completes. Raises ValueError on one that is endless."""
        self._rest += data
        *blocks, self._rest = self._rest.split(b"\n\n")
        if len(self._rest) > LIMIT:
            raise ValueError("a message without an end")
        for block in blocks:
            if message := _message(block):
                yield message


def _message(block: bytes) -> Message | None:
    event, identity, data = "message", None, []
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"event":
            event = value.decode("utf-8", "replace")
        elif name == b"id":
            identity = value.decode("utf-8", "replace")
        elif name == b"data":
            data.append(value)
    return Message(event, b"\n".join(data), identity) if data else None
