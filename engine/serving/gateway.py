"""The gateway of one service: `python -m engine.serving.gateway --config FILE.json`.

    POST /invocations   goes to the variant that the request's key belongs to
    GET  /ping, /health 200 while it serves
    GET  /metrics       Prometheus text or OpenMetrics, as the Accept header asks

Weights and the mirror are read and changed over the admin socket (`engine.serving.admin`). SIGTERM
stops taking requests, lets those in flight end (`drain_s`, ten seconds, at most) and exits 0. A config
that is not valid is one sentence on standard error and exit 2.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import uvloop
from aiohttp import web

from engine.errors import OpsdeckError, UsageError
from engine.serving import gateway_config
from engine.serving.admin import AdminSocket, Lock, admin_handler
from engine.serving.gateway_config import GatewayConfig
from engine.serving.instruments import Exposition, Instruments
from engine.serving.mirror import Mirror
from engine.serving.prediction_log import PredictionLog
from engine.serving.proxy import Proxy
from engine.serving.weights import Traffic

_IDLE_CALLER_S = 75.0
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


async def serve(config: GatewayConfig, stop: asyncio.Event,
                ready: Callable[[int], None] = lambda port: None) -> None:
    """Serve until `stop` is set, then drain. `ready` is called with the port once it is open.

    Raises UsageError when a path or the port cannot be had.
    """
    state_lock = Lock(Path(config.state_file))
    state_lock.take("gateway")
    admin_socket = AdminSocket(Path(config.admin_socket))
    listener = admin_socket.bind()
    instruments = Instruments(config.service,
                              {name: v.version for name, v in config.variants.items()},
                              config.unit_window_s,
                              config.prediction_bins.bins() if config.prediction_bins else None)

    def weigh(weights: object) -> None:
        instruments.weights = traffic.state.weights

    traffic = Traffic(service=config.service, champion=config.champion, initial=config.weights(),
                      state_file=Path(config.state_file), on_change=weigh)
    instruments.lease_left = traffic.lease_left
    await traffic.start()
    log = None
    if config.prediction_log is not None:
        log = PredictionLog(config.prediction_log.settings(), config.service, instruments.predicted)
        instruments.dropped = lambda: log.dropped
    mirror = Mirror(config.service, list(config.variants), config.mirror_in_flight)
    proxy = Proxy(config, traffic, instruments, log, mirror)
    public = _runner(_public_handler(proxy, Exposition(instruments)), config.max_body_bytes,
                     config.drain_s)
    admin = _runner(admin_handler(traffic, mirror), 65536, 1.0)
    try:
        await public.setup()
        await admin.setup()
        await web.SockSite(admin, listener).start()
        await _open(public, config)
        gc.collect()
        gc.freeze()
        ready(public.addresses[0][1])
        await stop.wait()
    finally:
        await public.cleanup()
        await admin.cleanup()
        await mirror.close()
        await proxy.close()
        if log is not None:
            await log.close()
        await traffic.close()
        admin_socket.remove()
        state_lock.release()


async def _open(runner: web.ServerRunner, config: GatewayConfig) -> None:
    try:
        await web.TCPSite(runner, config.host, config.port, backlog=1024).start()
    except OSError as error:
        raise UsageError(f"Port {config.port} on {config.host} cannot be opened: "
                         f"{error.strerror or error}.") from None


def _runner(handler: Handler, max_body_bytes: int, drain_s: float) -> web.ServerRunner:
    loop = asyncio.get_running_loop()

    def request_of(message: Any, payload: Any, protocol: Any, writer: Any,
                   task: Any) -> web.BaseRequest:
        return web.BaseRequest(message, payload, protocol, writer, task, loop,
                               client_max_size=max_body_bytes)

    server = web.Server(handler, request_factory=request_of, access_log=None,
                        keepalive_timeout=_IDLE_CALLER_S)
    # aiohttp grants its timeout twice: until the handler ends, then until the response is out.
    return web.ServerRunner(server, shutdown_timeout=drain_s / 2)


def _public_handler(proxy: Proxy, exposition: Exposition) -> Handler:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        path, method = request.path, request.method
        if path == "/invocations":
            if method == "POST":
                return await proxy(request)
            return web.Response(status=405, headers={"Allow": "POST"})
        if path not in ("/ping", "/health", "/metrics"):
            return web.Response(status=404, text="There is nothing here.\n")
        if method not in ("GET", "HEAD"):
            return web.Response(status=405, headers={"Allow": "GET, HEAD"})
        if path == "/metrics":
            body, content_type = exposition.render(request.headers.get("Accept", ""))
            return web.Response(body=body, headers={"Content-Type": content_type})
        return web.Response(body=b"\n", content_type="application/json")

    return handle


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m engine.serving.gateway",
                                     description="Split a service's traffic between variants.")
    parser.add_argument("--config", type=Path, required=True, help="JSON file; see the module")
    arguments = parser.parse_args(argv)
    try:
        config = gateway_config.read(arguments.config)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_until_told(config))
    except OpsdeckError as error:
        print(error, file=sys.stderr, flush=True)
        return error.exit_code
    return 0


async def _until_told(config: GatewayConfig) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def ready(port: int) -> None:
        print(f"Serving {config.service} on http://{config.host}:{port}, admin socket "
              f"{config.admin_socket}.", flush=True)

    await serve(config, stop, ready)


if __name__ == "__main__":
    sys.exit(main())
