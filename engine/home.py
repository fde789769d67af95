"""Where an engine is found, and the paths in its home. Standard library only: every command pays.

    --home PATH, then $OPSDECK_HOME          a single-user engine there (/etc/opsdeck: the system's)
    /etc/opsdeck/, if opsdeck.yaml is there  the system engine: state in /var/lib/opsdeck,
                                             socket in /run/opsdeck
    $XDG_STATE_HOME/opsdeck                  the single-user engine (~/.local/state/opsdeck)
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.errors import NotPermitted, UsageError

Mode = Literal["single-user", "system"]
SYSTEM_CONFIG = Path("/etc/opsdeck")
SYSTEM_STATE = Path("/var/lib/opsdeck")
SYSTEM_RUNTIME = Path("/run/opsdeck")
SOCKET_LIMIT = 107  # bytes of sun_path, less the closing NUL


@dataclass(frozen=True)
class Home:
    """One engine's places. `path` is its state directory; none of it need exist."""

    path: Path
    mode: Mode
    socket: Path
    config: Path
    lock: Path
    journal: Path
    log: Path
    record: Path


def find(home: str | Path | None = None, environ: Mapping[str, str] | None = None, *,
         system: Path = SYSTEM_CONFIG) -> Home:
    """The home a command means: `home` is what `--home` says, or None. Raises UsageError."""
    environ = os.environ if environ is None else environ
    named = home or environ.get("OPSDECK_HOME")
    if named:
        path = _absolute(Path(named))
        if path.exists() and not path.is_dir():
            raise UsageError(f"the home {path} is not a directory",
                             hint="name the engine's home with --home or $OPSDECK_HOME")
        return system_home(system) if path == system else at(path)
    if (system / "opsdeck.yaml").exists():
        return system_home(system)
    state = environ.get("XDG_STATE_HOME")
    base = Path(state) if state and Path(state).is_absolute() else _user(environ) / ".local/state"
    return at(base / "opsdeck")


def at(path: Path, mode: Mode = "single-user") -> Home:
    """The home in one directory."""
    path = _absolute(path)
    return Home(path=path, mode=mode, socket=short_socket(path / "engine.sock"),
                config=path / "opsdeck.yaml", lock=path / "engine.lock",
                journal=path / "journal.db", log=path / "opsdeck.log",
                record=path / "engine.json")


def system_home(config: Path = SYSTEM_CONFIG) -> Home:
    """The system engine's home: config, state and socket lie where the system puts such things."""
    state = SYSTEM_STATE
    return Home(path=state, mode="system", socket=SYSTEM_RUNTIME / "engine.sock",
                config=config / "opsdeck.yaml", lock=state / "engine.lock",
                journal=state / "journal.db", log=state / "opsdeck.log",
                record=state / "engine.json")


def prepare(home: Home) -> None:
    """Create the home's directory if needed, 0700 for a single user (0711 for a system engine).

    Raises NotPermitted when it is somebody else's, or others could write in it: whoever can write
    there can replace the config and the journal.
    """
    mode = 0o700 if home.mode == "single-user" else 0o711
    try:
        home.path.parent.mkdir(parents=True, exist_ok=True)
        home.path.mkdir(mode=mode, exist_ok=True)
        found = home.path.stat()
    except OSError as error:
        raise UsageError(f"the home cannot be created: {error.strerror}", where=str(home.path),
                         hint="name another with --home or $OPSDECK_HOME") from error
    if not stat.S_ISDIR(found.st_mode):
        raise UsageError("the home is not a directory", where=str(home.path))
    if found.st_uid != os.geteuid():
        raise NotPermitted(f"the home belongs to uid {found.st_uid}, not to you",
                           where=str(home.path), hint="an engine runs in a home of its own user")
    if found.st_mode & 0o022:
        raise NotPermitted("others may write in the home, so nothing in it can be trusted",
                           where=str(home.path), hint=f"chmod go-w {home.path}")


def short_socket(path: Path) -> Path:
    """The path to bind and connect to: `path`, or where it moves when it is over 107 bytes.

    A long one moves to a short runtime directory, under a name made of its digest. The engine also
    leaves a symbolic link at `path`, and who finds that follows it: a shell with another
    environment than the engine's finds the same socket. Raises NotPermitted when the last resort,
    /tmp/opsdeck-UID, is another user's.
    """
    if len(os.fsencode(path)) <= SOCKET_LIMIT:
        return path
    try:
        return Path(os.readlink(path))  # noqa: PTH115  (Path.readlink resolves nothing more)
    except OSError:
        digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
        return _runtime_directory(_owner(path)) / f"opsdeck-{digest}.sock"


def checked_directory(path: Path, uid: int) -> bool:
    """Whether `path` is a directory of `uid`'s that nobody else may enter or write (no link)."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return (stat.S_ISDIR(found.st_mode) and found.st_uid == uid
            and not found.st_mode & 0o077)


def fallback_directory(uid: int) -> Path:
    """Where sockets go when there is no runtime directory; the engine creates it, 0700."""
    return Path(f"/tmp/opsdeck-{uid}")


def _runtime_directory(uid: int) -> Path:
    named = os.environ.get("XDG_RUNTIME_DIR")
    for candidate in ([Path(named)] if named else []) + [Path(f"/run/user/{uid}")]:
        room = SOCKET_LIMIT - len("/opsdeck-0123456789abcdef.sock")
        if checked_directory(candidate, uid) and len(os.fsencode(candidate)) <= room:
            return candidate
    last = fallback_directory(uid)
    if os.path.lexists(last) and not checked_directory(last, uid):
        raise NotPermitted("somebody else made the directory that the engine's socket belongs in",
                           where=str(last), hint="remove it, or set XDG_RUNTIME_DIR")
    return last


def _owner(path: Path) -> int:
    """The uid that owns the nearest directory above `path` that exists."""
    for parent in path.parents:
        try:
            return parent.stat().st_uid
        except OSError:
            continue
    return os.geteuid()


def _user(environ: Mapping[str, str]) -> Path:
    home = environ.get("HOME")
    if home and Path(home).is_absolute():
        return Path(home)
    return Path.home()


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(os.path.expanduser(path)))  # noqa: PTH100, PTH111  (links stay)
