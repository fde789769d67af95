"""The port for signed requests of other programs, on the loopback alone.

    POST /v1/projects/NAME/webhook    build it, where its `triggers:` say `webhook: true`
    POST /v1/projects/NAME/drift      the data has drifted, where they say `drift: true`
    POST /v1/senders/NAME/push        a push webhook of GitHub's kind: look at the branches now

The first two are signed as `signing` says and may have a JSON body {"reason": TEXT}. Who is not who they say,
whose time is off by more than the window, or whose request was taken before, learns that and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from engine.config_pipelines import Ingest, Sender, address
from engine.errors import Conflict, NotFound, OpsdeckError
from engine.journal.events import Actor
from engine.pipeline.triggers import http_requests, signing
from engine.pipeline.triggers.deciding import Kind
from engine.pipeline.triggers.http_requests import Refused, Request
from engine.procedures.output import harmless
from engine.procedures.secret_sources import resolve_secret

log = logging.getLogger("opsdeck")
MOST_OPEN = 64  # connections
RETRY = 10.0    # seconds until a port that is taken is tried again
_PATH = re.compile(r"/v1/(projects|senders)/([a-z0-9][a-z0-9-]*)/(webhook|drift|push)")
_NOBODY = "0" * 32
_UNKNOWN = Refused(401, "the signature is not one of a sender that is known here")


class Target(Protocol):
    """What the port needs of `watcher.Watcher`."""

    async def ask(self, project: str, kind: Kind, text: str, actor: Actor, nonce: str | None = None
                  ) -> Any: ...

    def pushed(self, wanted: Callable[[str], bool], ref: str) -> list[str]:
        """Have the projects that watch this ref (`refs/heads/…`) look now; their names."""
        ...


class Listener:
    """`run` lives as long as the engine; `use` gives it what the config says now. `problem`: why it does not
    listen, `port` where it does."""

    def __init__(self, target: Target, clock: Callable[[], float], environ: Mapping[str, str] = os.environ
                 ) -> None:
        self.problem: str | None = None
        self.port: int | None = None
        self._target = target
        self._clock = clock
        self._environ = environ
        self._wanted: Ingest | None = None
        self._changed = asyncio.Event()
        self._nonces: dict[str, float] = {}
        self._open = 0

    def use(self, wanted: Ingest | None) -> None:
        """Listen by another config from now on."""
        self._wanted = wanted
        self._changed.set()

    async def run(self) -> None:
        """Listen until cancelled."""
        while True:
            self._changed.clear()
            wanted = self._wanted
            if wanted is None:
                self.problem = None
                await self._changed.wait()
                continue
            host, port = address(wanted.listen)
            try:
                server = await asyncio.start_server(self._connected, host, port, limit=http_requests.HEAD * 2)
            except OSError as error:
                why = (error.strerror or str(error)).lower()
                self.problem = f"nothing can listen on {wanted.listen}: {why}"
                log.error("triggers: %s", self.problem)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RETRY):
                        await self._changed.wait()
                continue
            self.problem, self.port = None, server.sockets[0].getsockname()[1]
            log.info("requests for trainings are taken on %s", wanted.listen)
            try:
                while self._wanted is not None and self._wanted.listen == wanted.listen:
                    await self._changed.wait()
                    self._changed.clear()
            finally:
                self.port = None
                server.close()
            self._changed.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wanted = self._wanted
        try:
            if wanted is not None and self._open < MOST_OPEN:
                self._open += 1
                try:
                    await http_requests.serve(reader, writer, wanted.largest,
                                              lambda one: self._answer(wanted, one))
                finally:
                    self._open -= 1
            elif wanted is not None:
                await http_requests.refuse(writer, 503, "too many requests at once; try again in a moment")
        finally:
            writer.close()

    async def _answer(self, ingest: Ingest, request: Request) -> tuple[int, str]:
        try:
            return await self._taken(ingest, request)
        except Refused:
            raise
        except Conflict as error:
            raise Refused(409, error.message) from None
        except NotFound as error:
            raise Refused(404, error.message) from None
        except OpsdeckError as error:
            log.error("a request for a training was not taken: %s", error)
            raise Refused(503, "the engine cannot take this now; try again later") from None
        except Exception:
            log.exception("a request for a training failed")
            raise Refused(500, "the engine met an error of its own; its log says which") from None

    async def _taken(self, ingest: Ingest, request: Request) -> tuple[int, str]:
        where = _PATH.fullmatch(request.path.partition("?")[0])
        if where is not None and where[1] == "senders":
            return await self._pushed(ingest, where[2], request)
        headers = request.headers
        name = headers.get(signing.SENDER, "")
        sender = ingest.senders.get(name)
        if sender is not None and sender.format != "opsdeck":
            sender = None
        key = await self._key(name, sender)
        timestamp, nonce = headers.get(signing.TIMESTAMP, ""), headers.get(signing.NONCE, "")
        if not signing.right(key, request.method, request.path, timestamp, nonce, request.body,
                             headers.get(signing.SIGNATURE, "")) or sender is None:
            raise _UNKNOWN
        now = self._clock()
        if abs(now - float(timestamp)) > ingest.window:
            raise Refused(401, f"the request's time is off by more than {ingest.window:.0f} s; set the clock")
        if where is None or where[3] == "push":
            raise Refused(404, "there is nothing at this path")
        if request.method != "POST":
            raise Refused(405, "only POST is taken here")
        project, kind = where[2], "drift" if where[3] == "drift" else "webhook"
        if not _may(sender, project):
            raise Refused(404, f"there is no project {project} for {name}")
        reason = _reason(request.body)
        self._once(f"{name}:{nonce}", now, ingest.window)
        text = ("drift" if kind == "drift" else "request") + f" of {name}" + (f": {reason}" if reason else "")
        try:
            await self._target.ask(project, "drift" if kind == "drift" else "webhook", text,
                                   Actor(f"sender {name}", -1, f"ingest {ingest.listen}"), f"{name}:{nonce}")
        except BaseException:
            # It was not taken, or the journal knows the nonce: the same request may be tried again.
            self._nonces.pop(f"{name}:{nonce}", None)
            raise
        return 202, f"taken; `opsdeck triggers {project}` says what comes of it"

    async def _pushed(self, ingest: Ingest, name: str, request: Request) -> tuple[int, str]:
        sender = ingest.senders.get(name)
        if sender is not None and sender.format != "github":
            sender = None
        key = await self._key(name, sender)
        if not signing.right_github(key, request.body, request.headers.get(signing.GITHUB, "")) or (
                sender is None):
            raise _UNKNOWN
        if request.method != "POST":
            raise Refused(405, "only POST is taken here")
        event = request.headers.get("x-github-event", "push")
        if event != "push":
            return 200, f"nothing to do for {harmless(event)[:40]}"
        ref = _object(request.body).get("ref")
        # What a push says is only a reason to look: the repository itself says what it has.
        found = self._target.pushed(lambda project: _may(sender, project), str(ref))
        return 202, f"looks at {', '.join(found)}" if found else "no project watches this branch"

    async def _key(self, name: str, sender: Sender | None) -> str:
        """A sender's key, as it is now: it may have been replaced."""
        if sender is None:
            return _NOBODY
        try:
            key = await asyncio.to_thread(resolve_secret, sender.key, self._environ)
        except OpsdeckError as error:
            log.error("the key of the sender %s cannot be read: %s", name, error)
            raise Refused(503, "the engine cannot check this now; try again later") from None
        if len(key) < signing.SHORTEST_KEY:
            log.error("the key of the sender %s has less than %d characters", name, signing.SHORTEST_KEY)
            raise Refused(503, "the engine cannot check this now; try again later")
        return key

    def _once(self, nonce: str, now: float, window: float) -> None:
        """Refuse a nonce that was there. Those whose time has passed cannot come again anyway."""
        self._nonces = {one: at for one, at in self._nonces.items() if abs(now - at) <= 2 * window}
        if nonce in self._nonces:
            raise Refused(409, "this request was taken before")
        if len(self._nonces) >= 4000:
            raise Refused(429, "too many requests; try again in a few minutes")
        self._nonces[nonce] = now


def _may(sender: Sender, project: str) -> bool:
    return any(fnmatch.fnmatchcase(project, pattern) for pattern in sender.projects)


def _reason(body: bytes) -> str:
    if not body:
        return ""
    reason = _object(body).get("reason", "")
    if any("\ud800" <= character <= "\udfff" for character in str(reason)):
        raise Refused(400, "the reason is not Unicode text")
    return " ".join(harmless(str(reason)).split())[:300]


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, "the body is not JSON") from None
    if not isinstance(found, dict):
        raise Refused(400, "the body is not an object of JSON")
    return found
