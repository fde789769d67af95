"""The project's own Python, made by uv from its lock and kept by the digest of all it is made from."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from engine.errors import ActionFailed, OpsdeckError, UsageError
from engine.pipeline.child import process
from engine.pipeline.project import locks
from engine.pipeline.project.model import Limits, Project
from engine.pipeline.stages.contract import Work

FORMAT = 1  # of what is made; another number makes every environment anew
LIMITS = Limits(timeout=1800.0)
# Where packages come from, and how it is reached; a project's code gets none of them.
PASSED = re.compile(r"UV_.*|SSL_CERT_(FILE|DIR)|(HTTPS?|NO|ALL)_PROXY|NETRC|PATH|LANG"
                    r"|XDG_(CACHE|DATA|CONFIG)_HOME", re.IGNORECASE)
# Those that change what is installed, and so belong to the digest.
DECIDING = re.compile(r"UV_(DEFAULT_INDEX|INDEX|INDEX_URL|EXTRA_INDEX_URL|FIND_LINKS|NO_INDEX|NO_BINARY.*|"
                      r"NO_BUILD.*|ONLY_BINARY|CONSTRAINT|OVERRIDE|CONFIG_FILE|PYTHON_PREFERENCE)")
NETWORK = re.compile(r"Failed to fetch|error sending request|Could not connect|dns error|timed out"
                     r"|Network connectivity|network was disabled")
_GUARD = threading.Lock()
_IN_USE: dict[Path, int] = {}  # the locks of environments that this process uses


def ensure(project: Project, folder: Path, places_root: Path, say: Callable[[str], None]) -> Path:
    """The interpreter of the project's environment, which is made if it is not there. Blocking: seconds to
    minutes when it is made, milliseconds when it is there.

    `folder`: the project's; `places_root`: the folder of this project in the engine's home, which keeps
    `environments/<digest>`. Two that ask at once make one; one whose making was killed is made anew; none is
    removed while a process that has it lives. Raises
    UsageError for a lock that is missing or pins no hashes, ActionFailed when uv is missing or fails.
    """
    if project.environment.inherit:
        return Path(sys.executable)
    lock = _lock(project, folder)
    name = digest(project, folder)
    root = places_root / "environments"
    root.mkdir(parents=True, exist_ok=True)
    place = root / name
    with _held(root / f"{name}.lock", say):
        _use(root / f"{name}.used")
        if _whole(place):
            return place / "bin" / "python"
        for left in (*root.glob(f".{name}.*"), place):
            shutil.rmtree(left, ignore_errors=True)
        fresh = root / f".{name}.{os.getpid()}"
        say(f"making the environment from {project.environment.lock}")
        try:
            _make(project, folder, lock, fresh, say)
            _mark(fresh, project, lock)
            fresh.rename(place)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return place / "bin" / "python"


def of(work: Work) -> Path:
    """`ensure` for a stage at work."""
    project = work.project
    return ensure(project, work.folder, work.home / "pipelines" / project.project, work.say)


def digest(project: Project, folder: Path) -> str:
    """What names an environment: 16 hex digits over the lock's bytes, the Python, and uv's settings that
    decide what is installed. Reads the lock; raises UsageError as `ensure` does."""
    lock = _lock(project, folder)
    deciding = {name: value for name, value in os.environ.items() if DECIDING.fullmatch(name)}
    beside = folder / "pyproject.toml"
    settings = [FORMAT, project.environment.python, platform.machine(), lock.name == "uv.lock",
                sorted(deciding.items())]
    whole = hashlib.sha256(json.dumps(settings).encode() + b"\n" + lock.read_bytes())
    if lock.name == "uv.lock" and beside.exists():
        whole.update(b"\n" + beside.read_bytes())
    return whole.hexdigest()[:16]


def has(python: Path, package: str) -> bool:
    """Whether the environment of this interpreter has the package; reads its folders alone."""
    if python == Path(sys.executable):
        import importlib.util

        return importlib.util.find_spec(package) is not None
    return any(python.parent.parent.glob(f"lib/python*/site-packages/{package}/__init__.py"))


def _lock(project: Project, folder: Path) -> Path:
    named = project.environment.lock or ""
    path = folder / named
    if not path.is_file():
        raise UsageError(f"The lock {named} is not there.", where=f"environment.lock: {path}",
                         hint="Make it by uv lock, or uv pip compile --generate-hashes requirements.in "
                              f"-o {named}.")
    if path.name != "uv.lock":
        for number, wrong, hint in locks.faults(path.read_text("utf-8", errors="replace")):
            raise UsageError(wrong, where=f"{path}:{number}", hint=hint)
    return path


def _make(project: Project, folder: Path, lock: Path, fresh: Path, say: Callable[[str], None]) -> None:
    uv = process.tool("uv")
    if uv is None:
        raise ActionFailed("uv is not installed, which makes a project's environment.", where=str(lock),
                           hint="Install it (pip install uv), or set environment.inherit to use the engine's "
                                "own packages.")
    python = project.environment.python
    _uv(uv, ["venv", "--quiet", "--no-project", "--relocatable", "--python", python, str(fresh)],
        lock, fresh, {}, say)
    if lock.name == "uv.lock":
        # The project itself is not installed: it runs from its folder, and to build it would fetch what no
        # lock pins.
        _uv(uv, ["sync", "--frozen", "--no-install-project", "--compile-bytecode", "--project",
                 str(lock.parent)], lock, fresh, {"UV_PROJECT_ENVIRONMENT": str(fresh)}, say)
    else:
        _uv(uv, ["pip", "sync", "--require-hashes", "--compile-bytecode", "--python",
                 str(fresh / "bin/python"), str(lock)], lock, fresh, {}, say)


def _uv(uv: Path, arguments: list[str], lock: Path, fresh: Path, more: Mapping[str, str],
        say: Callable[[str], None]) -> None:
    variables = {name: value for name, value in os.environ.items() if PASSED.fullmatch(name)}
    home = os.environ.get("HOME", "")
    # A service's user may have no home to keep a cache in.
    keeps = "UV_CACHE_DIR" in variables or (home and os.access(home, os.W_OK))
    cached = {} if keeps else {"UV_CACHE_DIR": str(fresh.parent / "cache")}
    with tempfile.TemporaryDirectory(prefix=".uv-", dir=fresh.parent) as aside:
        log = Path(aside) / "log.txt"
        ended = process.run([str(uv), *arguments], folder=lock.parent, limits=LIMITS, log=log, say=say,
                            variables={**variables, "HOME": home or aside, "NO_COLOR": "1",
                                       "UV_NO_PROGRESS": "1", **cached, **more})
        if not ended.well:
            raise _refused(log.read_text("utf-8", errors="replace"), ended, lock)


def _refused(said: str, ended: process.Ended, lock: Path) -> OpsdeckError:
    """uv's own words in ours. `said`: all that it printed. Pure."""
    text, where = " ".join(said.split()), str(lock)
    python = re.search(r"No interpreter found for (Python \S+)", text)
    if python:
        return ActionFailed(f"{python[1]} is not on this machine.", where=where,
                            hint="Install it, or name one that is in environment.python.")
    if re.search(r"[Hh]ash mismatch", text):
        package = re.search(r"Hash mismatch for `([^`]+)`", text)
        return ActionFailed(f"What was fetched for {package[1] if package else 'a package'} has another hash "
                            "than the lock.", where=where,
                            hint="Do not use it before you know why; then lock anew.")
    if NETWORK.search(text):
        package = re.search(r"(?:Failed to fetch:?|[Dd]ownload) `?([^\s`]+)", text)
        about = f" for {package[1].rstrip('/').rsplit('/', 1)[-1]}" if package else ""
        return ActionFailed(f"The package index cannot be reached{about}, so the environment is not made.",
                            where=where, hint="Look at the network and at UV_INDEX_URL, then run this step "
                                              "again; packages that came are kept.")
    gone = re.search(r"[Bb]ecause (\S+) was not found|[Bb]ecause there is no version of (\S+)", text)
    if gone:
        return ActionFailed(f"The package {gone[1] or gone[2]} was not found where packages come from.",
                            where=where, hint="Look at its spelling and at UV_INDEX_URL, or lock anew.")
    problem = process.failure(ended, "The making of the environment", "environment", LIMITS)
    if ended.cause and problem is not None:
        return problem
    last = ended.tail[-1].strip() if ended.tail else "it printed nothing"
    return ActionFailed(f"uv could not make the environment: {last}", where=where,
                        hint="Run uv with this lock by hand to see more.")


def _mark(fresh: Path, project: Project, lock: Path) -> None:
    """The last file: with it an environment is whole."""
    content = {"lock": hashlib.sha256(lock.read_bytes()).hexdigest(), "python": project.environment.python}
    (fresh / "opsdeck.json").write_text(json.dumps(content, sort_keys=True), encoding="utf-8")


def _whole(place: Path) -> bool:
    """The interpreter it links to may have been removed since it was made."""
    return (place / "opsdeck.json").exists() and os.access(place / "bin" / "python", os.X_OK)


def _use(lock: Path) -> None:
    """Hold it with others until this process ends: so long nobody removes the environment (see `removing`).
    Its time tells when it was used last."""
    with _GUARD:
        if lock not in _IN_USE:
            handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(handle, fcntl.LOCK_SH)
            _IN_USE[lock] = handle
        os.utime(_IN_USE[lock])


@contextlib.contextmanager
def _held(path: Path, say: Callable[[str], None]) -> Iterator[None]:
    """The lock of one environment, which ends with its holder."""
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("this environment is being made by another run; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
