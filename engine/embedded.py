"""The engine in this process, behind the same calls as the client: for `run --embedded` and CI."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

from engine.api import wire
from engine.api.backend import Backend, Caller, OutputChunk, Verb
from engine.config import Config
from engine.errors import NotPermitted
from engine.home import Home, prepare

T = TypeVar("T")


class EmbeddedClient:
    """What `engine.api.light.Client` offers a run, without a socket: one event loop in a thread."""

    def __init__(self, backend: Backend, caller: Caller, loop: asyncio.AbstractEventLoop, *,
                 trusted: bool) -> None:
        self._backend = backend
        self._caller = caller
        self._loop = loop
        self._trusted = trusted

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def start_run(self, request: wire.StartRun) -> wire.RunView:
        return self._do(self._backend.start_run(self._caller, request))

    def run(self, id: str) -> wire.RunView:
        return self._do(self._backend.run(id))

    def rollouts(self) -> list[wire.Rollout]:
        return self._do(self._backend.rollouts())

    def rollout(self, name: str) -> wire.Rollout:
        return self._do(self._backend.rollout(name))

    def act(self, id: str, verb: Verb, act: wire.Act) -> wire.RunView:
        if verb in ("approve", "promote", "promote-full") and not self._trusted:
            raise NotPermitted(f"an embedded run cannot {verb}: its roles come from a config that "
                               "you can write yourself",
                               hint="start an engine on this home; its approvers can approve it")
        return self._do(self._backend.act(self._caller, id, verb, act))

    def follow(self, id: str) -> Iterator[wire.RunView | OutputChunk]:
        stream = self._backend.follow(id).__aiter__()

        async def following() -> wire.RunView | OutputChunk | None:
            return await anext(stream, None)

        while (update := self._do(following())) is not None:
            yield update


@contextlib.contextmanager
def embedded(home: Home, config: Config) -> Iterator[EmbeddedClient]:
    """Open the engine of this home in a thread. Raises HomeBusy while another process is it."""
    from engine.config_file import caller_can_write
    from engine.daemon.identity import embedded_caller
    from engine.journal.lease import take

    prepare(home)
    trusted = home.config.exists() and not caller_can_write(home.config)
    caller = embedded_caller(home, config, trusted=trusted)
    with take(home.lock), _loop() as loop, _opened(home, config, loop) as backend:
        yield EmbeddedClient(backend, caller, loop, trusted=trusted)


@contextlib.contextmanager
def _loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="engine", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(_let_go(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _let_go() -> None:
    """End what still waits on the loop, such as a follower that was interrupted."""
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@contextlib.contextmanager
def _opened(home: Home, config: Config, loop: asyncio.AbstractEventLoop) -> Iterator[Backend]:
    from engine.app import open_engine

    context = open_engine(home, config, embedded=True)
    app = asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result()
    try:
        yield app.backend
    finally:
        asyncio.run_coroutine_threadsafe(context.__aexit__(None, None, None), loop).result()
