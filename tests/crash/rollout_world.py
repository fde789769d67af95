"""What is outside the engine in the campaign of killed rollouts: two variants, traffic, pages, a witness.

    python -m tests.crash.rollout_world HOME

One process that is never killed. The challenger fails every request while HOME/bad is there. It writes
HOME/pages (each page that arrived) and HOME/witness (the gateway's weights, twenty times a second) as JSON
lines, and HOME/world.json with its ports once it serves.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import aiohttp
from aiohttp import web

RPS = 80.0
EVERY_S = 0.05
BODY = {"predictions": [0.25]}


async def main(home: Path) -> None:
    bad = home / "bad"

    async def well(request: web.Request) -> web.Response:
        await request.read()
        return web.json_response(BODY)

    async def maybe(request: web.Request) -> web.Response:
        await request.read()
        if bad.exists():
            return web.json_response({"error_code": "INTERNAL_ERROR", "message": "on purpose"}, status=500)
        return web.json_response(BODY)

    async def page(request: web.Request) -> web.Response:
        told = await request.json()
        with (home / "pages").open("a") as file:
            file.write(json.dumps({"arrived": time.time(), **told}) + "\n")
        return web.Response()

    ports = {"champion": await _serve(well), "challenger": await _serve(maybe), "pages": await _serve(page)}
    part = home / "world.part"
    part.write_text(json.dumps(ports))
    part.rename(home / "world.json")
    gateway = home / "gateway.port"
    while not gateway.exists():
        await asyncio.sleep(0.02)
    await asyncio.gather(_traffic(f"http://127.0.0.1:{gateway.read_text()}/invocations"), _witness(home))


async def _serve(handler: object) -> int:
    app = web.Application()
    app.router.add_post("/{path:.*}", handler)  # type: ignore[arg-type]
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port: int = runner.addresses[0][1]
    return port


async def _traffic(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        tasks: set[asyncio.Task[None]] = set()
        begun = time.monotonic()
        sent = 0
        while True:
            if (due := begun + sent / RPS - time.monotonic()) > 0:
                await asyncio.sleep(due)
            task = asyncio.create_task(_one(session, url))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            sent += 1


async def _one(session: aiohttp.ClientSession, url: str) -> None:
    async with session.post(url, json={"inputs": [[1.0]]}) as answer:
        await answer.read()


async def _witness(home: Path) -> None:
    connector = aiohttp.UnixConnector(str(home / "admin.sock"))
    with (home / "witness").open("a", buffering=1) as file:
        async with aiohttp.ClientSession(connector=connector) as session:
            while True:
                asked = time.time()
                async with session.get("http://gateway/weights") as answer:
                    told = await answer.json()
                file.write(json.dumps([asked, time.time(), told["weights"]["challenger"], told["cause"]])
                           + "\n")
                await asyncio.sleep(EVERY_S)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
