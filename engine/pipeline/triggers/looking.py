"""What would be built of a project now: the digest of its code, its settings and its data.

`python -m engine.pipeline.triggers.looking FOLDER MEMO` prints it as JSON. It is a process of its own, as
data may be large, and as the engine is not to have an S3 client in it; it can be killed at any moment.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.errors import ActionFailed, OpsdeckError, UsageError
from engine.pipeline.project.model import Project, Source
from engine.reproduce import canonical, digests, git

SETTLE = 10.0   # seconds that a file must have been left alone
FUTURE = 60.0   # a file's time so far ahead is another machine's clock, not a fresh write
_NOT_BUILT = {"triggers", "title", "owner", "tracking"}


class Unsettled(ActionFailed):
    """Data that is being written."""

    code = "unsettled"


def look(folder: Path, memo: Path | None, now: float, settle: float = SETTLE) -> dict[str, Any]:
    """{"what": digest of all, "code", "data", "settings": digests of each}. Blocking; reads every file that
    has changed since `memo` was written.

    Raises Unsettled, DocumentError of the project file, UsageError and ActionFailed for what cannot be read.
    """
    from engine.pipeline.project import reading

    project = reading.read(folder)
    made = project.model_dump(mode="json", by_alias=True, exclude=_NOT_BUILT)
    found = {"code": code(folder, project), "data": data(folder, project.data.source, memo, now, settle),
             "settings": canonical.digest(made)}
    return {"what": canonical.digest(found), **found}


def code(folder: Path, project: Project) -> str:
    """The digest of all files that stages read, but the data: code, tests, lock, expectations, cases."""
    beside = [*project.tests.paths, project.data.expectations, project.robustness.cases]
    beside += [path for path in (project.environment.lock, project.staging.downstream) if path is not None]
    files = {path for pattern in project.code for path in folder.glob(pattern)}
    files |= {path for name in beside for path in _files(folder / name)}
    named = {path.relative_to(folder).as_posix(): path for path in files if _counts(folder, path)}
    return canonical.digest([[name, digests.file(named[name]).sha256] for name in sorted(named)])


def data(folder: Path, source: Source, memo: Path | None, now: float, settle: float) -> str:
    """The digest of the data, or of what a command makes it from. Raises as `look` does."""
    if source.uri is not None:
        from engine.reproduce import s3

        found = s3.dataset(source.uri, s3.client(os.environ.get("AWS_ENDPOINT_URL")))
        return canonical.digest([found.uri, found.version, found.sha256])
    paths = source.sources if source.path is None else [source.path]
    return canonical.digest([source.command, *([path, _local(folder / path, memo, now, settle)]
                                               for path in paths)])


def _local(path: Path, memo: Path | None, now: float, settle: float) -> str:
    if not path.exists():
        raise UsageError("there is no such file or folder, so there is no data to train on", where=str(path))
    path = path.resolve()
    before = _signature(path, now, settle)
    known = _remembered(memo)
    if known.get(str(path), ["", ""])[0] == before:
        return str(known[str(path)][1])
    try:
        found = digests.local(path).sha256
    except ActionFailed as error:
        raise Unsettled("the data changes while it is read", where=str(path)) from error
    if _signature(path, now, settle) != before:
        raise Unsettled("the data changes while it is read", where=str(path))
    assert found is not None
    if memo is not None:
        memo.parent.mkdir(parents=True, exist_ok=True)
        fresh = memo.with_name(f"{memo.name}.{os.getpid()}")
        fresh.write_text(json.dumps({**known, str(path): [before, found]}, sort_keys=True))
        fresh.replace(memo)
    return found


def _signature(path: Path, now: float, settle: float) -> str:
    """What tells that nothing was written: every file's name, size, time and inode. Raises Unsettled."""
    listed: list[Any] = []
    for one in _files(path):
        about = one.lstat()
        if -FUTURE <= now - max(about.st_mtime, about.st_ctime) < settle:
            raise Unsettled("the data was written just now, and may not be whole", where=str(one))
        listed.append([os.fsdecode(os.path.relpath(one, path)), about.st_size, about.st_mtime_ns,
                       about.st_ctime_ns, about.st_ino])
    return canonical.digest(listed)


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        for base, folders, names in os.walk(path):
            folders.sort()
            yield from (Path(base, name) for name in sorted(names))
    elif path.exists():
        yield path.resolve()


def _counts(folder: Path, path: Path) -> bool:
    inside = path.relative_to(folder).parts if path.is_relative_to(folder) else ("..",)
    hidden = any(part in git.EXCLUDED or part == ".." for part in inside) or path.suffix == ".pyc"
    return not hidden and path.is_file() and stat.S_ISREG(path.stat().st_mode)


def _remembered(memo: Path | None) -> dict[str, list[str]]:
    try:
        found = json.loads(memo.read_bytes()) if memo is not None else {}
    except (OSError, ValueError):
        return {}  # it only saves reading
    return found if isinstance(found, dict) else {}


def main(argv: list[str]) -> int:
    folder, memo = Path(argv[0]), Path(argv[1])
    try:
        print(json.dumps(look(folder, memo, time.time(), float(os.environ.get("OPSDECK_SETTLE", SETTLE)))))
    except OpsdeckError as error:
        print(json.dumps({"problem": error.message, "where": error.where, "code": error.code,
                          "problems": getattr(error, "problems", [])[:5]}))
    except OSError as error:
        print(json.dumps({"problem": f"it cannot be read: {error.strerror}", "where": error.filename,
                          "code": "error"}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
