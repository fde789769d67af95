"""The life of an engine process: lock, journal and collectors, socket; then the same backwards."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager, suppress
from typing import Protocol

import engine
from engine.api.backend import Backend, Caller
from engine.config import Config
from engine.daemon import lifecycle, privileges, sockets
from engine.daemon.identity import EVERY_ROLE, Gatekeeper, steps_uid
from engine.daemon.notify import notify
from engine.daemon.server import Server
from engine.errors import OpsdeckError
from engine.home import Home, prepare
from engine.journal.lease import take

log = logging.getLogger("opsdeck.engine")
ENGINE_USER = "engine"


class EngineApp(Protocol):
    """An opened engine: what it offers, the sessions of the steps that run in it now, its config."""

    @property
    def backend(self) -> Backend: ...
    def sessions(self) -> Collection[int]: ...
    def follow_config(self, adopt: Callable[[Config], None], /) -> None:
        """Have `adopt` called with every config that replaces the one before."""
        ...


OpenEngine = Callable[[Home, Config], AbstractAsyncContextManager[EngineApp]]


async def serve(home: Home, config: Config, open_engine: OpenEngine, *,
                ready: Callable[[], None] = lambda: None) -> None:
    """Be the engine of this home until SIGTERM or SIGINT; `ready` is called when the socket answers.

    Raises HomeBusy when another process is it, or what kept it from starting. On SIGTERM it accepts
    nothing more, ends the streams, lets the requests under way finish and shuts the backend down.
    On SIGHUP it reads its config again; a lost terminal stops nothing.
    """
    prepare(home)
    if home.mode == "system":
        privileges.keep_to_ourselves()
    uid_of_steps = steps_uid(config)
    with take(home.lock, engine="opsdeck engine serve"):
        lifecycle.write_record(home, engine.__version__)
        stopping, told = _on_signals()
        try:
            async with open_engine(home, config) as app:
                gatekeeper = Gatekeeper(home, config, app.sessions, steps_uid=uid_of_steps)
                app.follow_config(gatekeeper.use_config)
                reloading = asyncio.create_task(_reload_when(told, app.backend))
                try:
                    await _serve(home, config, Server(app.backend, gatekeeper), stopping, ready)
                finally:
                    reloading.cancel()
                    with suppress(asyncio.CancelledError):
                        await reloading
        finally:
            home.record.unlink(missing_ok=True)
            log.info("engine ended")


async def _serve(home: Home, config: Config, server: Server, stopping: asyncio.Event,
                 ready: Callable[[], None]) -> None:
    listener = sockets.listen(home, config.engine.group)
    bound = home.socket.lstat()
    try:
        serving = asyncio.create_task(server.run_on(listener))
        stop = asyncio.create_task(stopping.wait())
        started = asyncio.create_task(server.ready.wait())
        await asyncio.wait({serving, started, stop}, return_when=asyncio.FIRST_COMPLETED)
        if not stopping.is_set() and not serving.done():
            log.info("engine %s serves %s, pid %d", engine.__version__, home.socket, os.getpid())
            ready()
            notify("READY=1")
            await asyncio.wait({serving, stop}, return_when=asyncio.FIRST_COMPLETED)
        notify("STOPPING=1")
        sockets.release(home, bound)
        server.stop()
        await serving
        for task in (stop, started):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
    finally:
        sockets.release(home, bound)
        listener.close()


async def _reload_when(told: asyncio.Event, backend: Backend) -> None:
    """Reload the config at each SIGHUP, which only root and the engine's own user can send."""
    caller = Caller(ENGINE_USER, os.geteuid(), os.getpid(), EVERY_ROLE, "SIGHUP")
    while True:
        await told.wait()
        told.clear()
        try:
            said = (await backend.reload(caller)).text
        except OpsdeckError as error:
            said = f"the config was not reloaded: {error.message}"
            log.warning("%s", said)
        notify(f"STATUS={said}")


def _on_signals() -> tuple[asyncio.Event, asyncio.Event]:
    """An event that SIGTERM or SIGINT sets, and one that SIGHUP sets."""
    stopping, told = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, told.set)
    return stopping, told
