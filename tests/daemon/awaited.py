"""The product's blocking client, awaited: for tests whose engine lives in the same loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from engine.api import wire
from engine.api.backend import OutputChunk
from engine.api.light import Client


class Awaited:
    """Every call of `light.Client` in a thread; each stream on a client of its own, ended with it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __getattr__(self, name: str) -> Any:
        call = getattr(Client(self._path), name)

        async def awaited(*given: Any) -> Any:
            return await asyncio.to_thread(call, *given)

        return awaited

    def snapshots(self) -> AsyncIterator[wire.Snapshot]:
        client = Client(self._path)
        return _each(client, client.snapshots())

    def follow(self, id: str) -> AsyncIterator[wire.RunView | OutputChunk]:
        client = Client(self._path)
        return _each(client, client.follow(id))


async def _each(client: Client, events: Iterator[Any]) -> AsyncIterator[Any]:
    try:
        while (event := await asyncio.to_thread(next, events, None)) is not None:
            yield event
    finally:
        client.hang_up()
