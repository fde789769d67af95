"""What a project's own code sees of the project: a copy of the files that are listed, and no other file.

A stage is taken from the cache where those files are as they were; another one must have no say in what it
makes. The copy is the stage's own, is thrown away, and holds the very bytes whose digests are in the key. It
lies at the same path for the same files, since a model may hold the path of the code that it was made by.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.errors import ActionFailed, Conflict, OpsdeckError, UsageError
from engine.pipeline.building import listing, places, publishing, seen
from engine.pipeline.stages.contract import Work
from engine.reproduce import canonical, digests

Part = Literal["code", "tests", "source"]
SMALL = 1 << 20  # bytes of a file that goes through memory; a larger one is copied by the kernel
LONGEST = 1000  # characters of a line that are looked at, its last
FICLONE = 0x40049409  # linux/fs.h
ELSEWHERE = "/input/data/code/"  # where a training elsewhere has the code, see `container`
_NO_FILE = re.compile(r"No such file|FileNotFound|Errno 2\b|could not be executed", re.IGNORECASE)
_NOTHING = re.compile(r"not found|n't exist|not exist|cannot find", re.IGNORECASE)
_QUOTED = re.compile(r"""['"`]([^'"`\n]+)['"`]""")
_BARE = re.compile(r"""([^\s:'"]+): (?:No such file|not found)|No such file or directory: ([^\s'"]+)"""
                   r"|(\S+) could not be executed", re.IGNORECASE)
_MODULE = re.compile(r"No module named '?([\w.]+)")
_NAME = re.compile(r"cannot import name '(\w+)' from '([\w.]+)'")


@dataclass(frozen=True)
class View:
    """`folder`: the copy; `project`: the folder that it is of; `digests`: the sha256 of each file by path.
    `key`: where the project file lists them; `data`: the path of the project's data, if it lies there."""

    folder: Path
    project: Path
    digests: Mapping[str, str]
    key: str = "code"
    data: str | None = None

    def told(self, text: str) -> str:
        """A text in which the files are the project's own."""
        for place in dict.fromkeys((str(self.folder), str(self.folder.resolve()))):
            text = text.replace(place, str(self.project))
        return text

    def retell(self, path: Path, quote: Callable[[str], str] = str) -> None:
        """As `told`, for a file that was written, if it was; `quote`: how a path stands there."""
        if not path.is_file() or path.is_symlink():
            return
        data = path.read_bytes()
        now = data
        for place in dict.fromkeys((str(self.folder), str(self.folder.resolve()))):
            now = now.replace(quote(place).encode(), quote(str(self.project)).encode())
        if now != data:
            path.write_bytes(now)

    def explain(self, error: OpsdeckError, *more: str) -> None:
        """Have an error of the project's code name the project's files; where one that is not listed was
        wanted, as the error or lines of output in `more` say, it says that, and what to do."""
        error.message = self.told(error.message)
        error.where, error.hint = (text and self.told(text) for text in (error.where, error.hint))
        wanted = self.unlisted("\n".join([*more, error.message]))
        if wanted is not None:
            error.message = f"{error.message.rstrip('.')}. {self.missed(wanted)}"
            error.hint = self.remedy(wanted)
        error.args = (error.message,)

    def missed(self, wanted: str) -> str:
        return (f"{wanted} is in the project's folder, but not among the files that `{self.key}:` lists, and "
                "a stage sees no other.")

    def remedy(self, wanted: str) -> str:
        if self.data is not None and listing.matching([wanted], [self.data]):
            return "It is the data, which the code is given: read what is in OPSDECK_INPUTS (`inputs`)."
        return (f"Add it to `{self.key}:` in opsdeck.pipeline.yaml; then the stage has it, and runs again "
                "when it changes.")

    def unlisted(self, text: str) -> str | None:
        """The file or folder of the project, not among the files, whose absence is told of in a text."""
        for whole in reversed(self.told(text).splitlines()):
            line = whole[-LONGEST:]
            names = [*self._modules(line)]
            file = _NO_FILE.search(line)
            if file or _NOTHING.search(line):
                named = [*_QUOTED.findall(line), *(one for found in _BARE.findall(line) for one in found)]
                # A single word may be a column's name, or whatever else was not found.
                names += [one for one in named if one and (file or set("./") & set(one))]
            for name in names:
                path = self._inside(name)
                if path is not None and self._only_there(path):
                    return path
        return None

    def _modules(self, line: str) -> Iterator[str]:
        """Files that modules could be in which a line says are not there."""
        found = [one.replace(".", "/") for one in _MODULE.findall(line)]
        found += [f"{of.replace('.', '/')}/{name}" for name, of in _NAME.findall(line)]
        roots = sorted({"", "src", *(os.path.dirname(path) for path in self.digests)})  # noqa: PTH120
        for module in found:
            for root in roots:
                parts = module.split("/")
                for count in range(len(parts), 0, -1):
                    base = "/".join([*([root] if root else []), *parts[:count]])
                    yield from (f"{base}.py", f"{base}/__init__.py", base)

    def _inside(self, name: str) -> str | None:
        """The path in the project of a name that was told; None for what lies elsewhere."""
        name = name.strip().rstrip(".,;")
        for base in (f"{self.project}/", f"{self.project.resolve()}/"):
            name = name.removeprefix(base)
        if name.startswith("/"):
            _, there, name = name.partition(ELSEWHERE)
            if not there:
                return None
        path = os.path.normpath(name)
        return None if path.startswith(("..", "/")) or path == "." else path

    def _only_there(self, path: str) -> bool:
        try:
            if not (self.project / path).exists():
                return False
        except (OSError, ValueError):  # no path at all: too long, or with a null in it
            return False
        return not any(one == path or one.startswith(f"{path}/") for one in self.digests)


@contextlib.contextmanager
def of(work: Work, *parts: Part) -> Iterator[View]:
    """The copy of what a stage lists, as long as its code runs. Blocking.

    Raises Conflict where a file is no longer the one whose digest is in the key, UsageError for one outside
    the folder, ActionFailed when it cannot be copied.
    """
    project = work.project
    known = _listed(work, parts)
    area = places.of(work.home, project.project).steps
    key = "data.source.sources" if parts == ("source",) and project.data.source.sources else "code"
    with publishing.aside(area, f"code.{canonical.digest(known)[:16]}") as folder:
        for path, digest in known.items():
            _lay(work.folder / path, folder / path, digest, path)
        yield View(folder, work.folder, known, key, project.data.source.path)


def _listed(work: Work, parts: tuple[Part, ...]) -> dict[str, str]:
    """The digests of the files, by path."""
    wanted = [one for part in parts for one in getattr(seen, part)(work.project, work.folder)]
    paths = listing.listed(work.folder, wanted) if work.digests is None else \
        listing.matching(work.digests, wanted)
    for path in paths:
        if path.startswith("/") or ".." in path.split("/"):
            raise UsageError(f"{path} is not in the project's folder, and a stage sees nothing else",
                             where="code", hint="put it into the folder")
    return {path: work.digests[path] if work.digests is not None else
            digests.file(work.folder / path).sha256 for path in paths}


def _lay(source: Path, target: Path, digest: str, path: str) -> None:
    """Copy one file. What a link leads to is copied, as its digest is what counts."""
    try:
        # Not to wait for ever for the writer of a named pipe.
        handle = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        raise _another(f"{path} is gone") from None
    except OSError as error:
        raise ActionFailed(f"{path} cannot be read: {error.strerror}", where=str(source),
                           hint="look at its permissions") from error
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        os.close(handle)
        raise _another(f"{path} is no file any more")
    try:
        with os.fdopen(handle, "rb") as content:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as copy:
                os.fchmod(copy.fileno(), 0o755 if found.st_mode & 0o100 else 0o644)
                if found.st_size <= SMALL:
                    data = content.read()
                    copy.write(data)
                    made = hashlib.sha256(data).hexdigest()
                else:
                    _by_kernel(handle, copy.fileno())
                    made = ""
        made = made or digests.file(target).sha256
    except OSError as error:
        raise ActionFailed(f"{path} cannot be copied for the stage: {error.strerror}", where=str(target),
                           hint="look at the space on the disk, then run it again") from error
    if made != digest:
        raise _another(f"{path} has changed")


def _by_kernel(source: int, target: int) -> None:
    """Share the blocks where the file system can, else copy them. Raises OSError."""
    with contextlib.suppress(OSError):  # another file system, or one that shares nothing
        fcntl.ioctl(target, FICLONE, source)
        return
    try:
        while os.copy_file_range(source, target, 1 << 30):
            pass
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF):
            raise
        os.lseek(source, 0, os.SEEK_SET)
        os.lseek(target, 0, os.SEEK_SET)
        with os.fdopen(source, "rb", closefd=False) as whole, os.fdopen(target, "wb", closefd=False) as copy:
            shutil.copyfileobj(whole, copy, SMALL)


def _another(what: str) -> Conflict:
    return Conflict(f"{what} since this stage was planned, and it must run on what was looked at",
                    where="code", hint="start a new run: what has not changed is taken from the cache")
