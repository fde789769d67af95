"""The engine's Unix socket: binding it safely, recovering a stale one, telling a live one."""

from __future__ import annotations

import errno
import grp
import os
import socket
import stat
from pathlib import Path

from engine.errors import HomeBusy, NotPermitted, UsageError
from engine.home import Home, checked_directory, fallback_directory

BACKLOG = 128


def answers(path: Path, *, timeout: float = 2.0) -> bool:
    """Whether something listens at `path`. Raises NotPermitted when we may not even ask."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(timeout)
        try:
            probe.connect(str(path))
        except PermissionError:
            raise NotPermitted("you may not open the engine's socket", where=str(path)) from None
        except TimeoutError:
            return True
        except OSError as error:
            return error.errno == errno.EAGAIN  # the backlog is full: somebody is there
    return True


def listen(home: Home, group: str | None = None) -> socket.socket:
    """Bind the home's socket, mode 0660, of `group`, and listen. The caller holds the home's lock.

    A socket that nobody answers on is replaced. Raises HomeBusy if somebody does, UsageError for an
    unknown group or a path that holds something else.
    """
    path = home.socket
    gid = _gid(group) if group else -1
    _make_parent(home)
    _clear(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        before = os.umask(0o177)  # nobody else gets in before the group is set
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        _hand_to(path, gid, group)
        path.chmod(0o660)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise UsageError(f"the socket cannot be made: {error.strerror}", where=str(path)) from error
    except BaseException:
        listener.close()
        raise
    _leave_link(home)
    return listener


def release(home: Home, bound: os.stat_result) -> None:
    """Remove the socket that was bound as `bound`, and the link to it; never another's."""
    try:
        now = home.socket.lstat()
        if (now.st_dev, now.st_ino) == (bound.st_dev, bound.st_ino):
            home.socket.unlink()
            link = _natural(home)
            if link != home.socket and link.is_symlink():
                link.unlink()
    except FileNotFoundError:
        return


def _make_parent(home: Home) -> None:
    parent = home.socket.parent
    if parent == fallback_directory(os.geteuid()):
        parent.mkdir(mode=0o700, exist_ok=True)
        if not checked_directory(parent, os.geteuid()):
            raise NotPermitted("somebody else made the directory that the socket belongs in",
                               where=str(parent), hint="remove it, or set XDG_RUNTIME_DIR")
    elif home.mode == "system":
        parent.mkdir(mode=0o755, exist_ok=True)


def _clear(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise UsageError("the place of the engine's socket holds something else", where=str(path),
                         hint="move it away")
    if answers(path):
        raise HomeBusy("another process answers on this home's socket", where=str(path),
                       hint="look at `opsdeck engine status`")
    path.unlink()


def _gid(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise UsageError(f"`engine: group:` names {group}, and there is no such group") from None


def _hand_to(path: Path, gid: int, group: str | None) -> None:
    if gid < 0:
        return
    try:
        os.chown(path, -1, gid)
    except PermissionError:
        raise NotPermitted(f"the engine's user cannot give the socket to the group {group}",
                           hint=f"make the engine's user a member of {group}") from None


def _natural(home: Home) -> Path:
    return home.path / "engine.sock" if home.mode == "single-user" else home.socket


def _leave_link(home: Home) -> None:
    """Where the socket had to move, a link in the home says where to: see `home.short_socket`."""
    link = _natural(home)
    if link == home.socket:
        return
    fresh = link.with_name(f"engine.sock.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(home.socket)
    fresh.replace(link)
