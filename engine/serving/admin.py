"""The gateway's admin socket: how the engine reads and changes weights and the mirror.

    GET  /weights                                            200 the state
    PUT  /weights  {"weights", "lease_s"?, "fallback"?, "if_revision"?}
                                                             200 the state · 400 · 409 · 500
    POST /lease    {"lease_s", "if_revision"?}               200 the state · 400 · 409 · 500
    GET  /mirror                                             200 the mirror
    PUT  /mirror   {"variant", "percent", "lease_s"}         200 the mirror · 400
    DELETE /mirror                                           200 no mirror

The state is {"service", "weights", "champion", "revision", "cause", "lease": {"expires_in_s",
"fallback"} or null}; `fallback` is the whole split that comes into force when the lease runs out, all
to the champion unless given. Refusals carry "error", "code" and "hint", a 409 also the present state.
A PUT of all traffic to the champion, or of the present fallback, is accepted even where it cannot be
written; then it says "durable": false.

The mirror is {"service", "mirror": {"variant", "percent", "expires_in_s"} or null}. It is not kept over a
restart.

A Unix socket of mode 0600 whose peers must have this process's own uid, as the kernel reports it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from engine.errors import Conflict, NotPermitted, OpsdeckError, UsageError
from engine.serving.mirror import Mirror
from engine.serving.weights import Traffic

_BODY_LIMIT = 65536
_KEYS = {"/weights": {"weights", "lease_s", "fallback", "if_revision"},
         "/lease": {"lease_s", "if_revision"}, "/mirror": {"variant", "percent", "lease_s"}}
_WITHOUT_BODY = ("GET", "DELETE")


class AdminSocket:
    """The socket file with its lock. Only one process at a time can hold one path."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock(path)
        self._inode: int | None = None

    def bind(self) -> socket.socket:
        """A listening socket; one that a dead gateway left is replaced.

        Raises UsageError when a live process has it, or it cannot be made.
        """
        self._lock.take("gateway")
        if _answers(self._path):
            raise UsageError("A live process already answers on the admin socket.",
                             where=str(self._path), hint="Stop it, or give this gateway another.")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        umask = os.umask(0o177)
        try:
            self._path.unlink(missing_ok=True)
            listener.bind(str(self._path))
            listener.listen(64)
            self._inode = self._path.lstat().st_ino
        except OSError as error:
            listener.close()
            raise UsageError(f"The admin socket cannot be made: {error.strerror or error}.",
                             where=str(self._path)) from None
        finally:
            os.umask(umask)
        return listener

    def remove(self) -> None:
        """Take the file away, if it is still this process's own."""
        try:
            if self._path.lstat().st_ino == self._inode:
                self._path.unlink()
        except FileNotFoundError:
            return
        finally:
            self._lock.release()


class Lock:
    """`PATH.lock`, held by the kernel until this process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + ".lock")
        self._fd: int | None = None

    def take(self, what: str) -> None:
        """Raises UsageError, naming the owner, when another process holds it."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise UsageError(f"The lock cannot be made: {error.strerror}.",
                             where=str(self._path)) from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.pread(fd, 32, 0).decode(errors="replace").strip()
            os.close(fd)
            raise UsageError(f"Another {what} (pid {owner or 'unknown'}) is live here.",
                             where=str(self._path),
                             hint=f"Stop it, or give this {what} another path.") from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def admin_handler(traffic: Traffic, mirror: Mirror
                  ) -> Callable[[web.BaseRequest], Awaitable[web.Response]]:
    """The request handler of the admin socket."""

    async def get(_: dict[str, Any]) -> dict[str, Any]:
        return traffic.view()

    async def put(asked: dict[str, Any]) -> dict[str, Any]:
        durable = await traffic.set_weights(asked.get("weights", {}), asked.get("lease_s"),
                                            asked.get("if_revision"), asked.get("fallback"))
        return traffic.view() | {"durable": durable}

    async def renew(asked: dict[str, Any]) -> dict[str, Any]:
        await traffic.renew(asked.get("lease_s"), asked.get("if_revision"))
        return traffic.view()

    async def mirrored(_: dict[str, Any]) -> dict[str, Any]:
        return mirror.view()

    async def begin(asked: dict[str, Any]) -> dict[str, Any]:
        mirror.set(asked.get("variant"), asked.get("percent"), asked.get("lease_s"))
        return mirror.view()

    async def end(_: dict[str, Any]) -> dict[str, Any]:
        mirror.clear()
        return mirror.view()

    routes = {("GET", "/weights"): get, ("PUT", "/weights"): put, ("POST", "/lease"): renew,
              ("GET", "/mirror"): mirrored, ("PUT", "/mirror"): begin, ("DELETE", "/mirror"): end}

    async def handle(request: web.BaseRequest) -> web.Response:
        try:
            _check_peer(request)
            route = routes.get((request.method, request.path))
            if route is None:
                return web.json_response({"error": f"There is no {request.method} {request.path}.",
                                          "code": "not_found"}, status=404)
            asked = {} if request.method in _WITHOUT_BODY else await _asked(request)
            return web.json_response(await route(asked))
        except OpsdeckError as error:
            said: dict[str, Any] = {"error": error.message, "code": error.code, "hint": error.hint}
            if isinstance(error, Conflict):
                return web.json_response(traffic.view() | said, status=409)
            status = {UsageError: 400, NotPermitted: 403}.get(type(error), 500)
            return web.json_response(said, status=status)

    return handle


def _check_peer(request: web.BaseRequest) -> None:
    peer = request.transport.get_extra_info("socket") if request.transport is not None else None
    if peer is None:
        raise NotPermitted("The caller went away before it could be identified.")
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    if uid != os.getuid():
        raise NotPermitted(f"Only uid {os.getuid()} may use this socket; the caller has uid {uid}.")


async def _asked(request: web.BaseRequest) -> dict[str, Any]:
    if (request.content_length or 0) > _BODY_LIMIT:
        raise UsageError(f"The body has more than {_BODY_LIMIT} bytes.")
    try:
        asked = json.loads(await request.read(), object_pairs_hook=_no_doubles)
    except web.HTTPRequestEntityTooLarge:
        raise UsageError(f"The body has more than {_BODY_LIMIT} bytes.") from None
    except (ValueError, RecursionError):
        raise UsageError("The body is not JSON.") from None
    if not isinstance(asked, dict):
        raise UsageError("The body is not a JSON object.")
    known = _KEYS[request.path]
    unknown = sorted(set(asked) - known)
    if unknown:
        raise UsageError(f"The body has unknown keys: {', '.join(unknown)}.",
                         hint=f"Known are: {', '.join(sorted(known))}.")
    return asked


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    asked = dict(pairs)
    if len(asked) != len(pairs):
        raise UsageError("The body names a key twice.")
    return asked


def _answers(path: Path) -> bool:
    """Whether a live process listens on this socket file."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        code = probe.connect_ex(str(path))
    return code in (0, errno.EAGAIN, errno.EACCES)
