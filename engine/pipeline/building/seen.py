"""Which files of its folder a project's own code sees, by what they are to it: those that the keys of its
stages cover, and no other. Light to import; `listing` says what a pattern means."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from engine.errors import UsageError

if TYPE_CHECKING:
    from engine.pipeline.project.model import Entry, Project

# pytest's order; the first file that speaks of pytest is its configuration.
CONFIGS = (("pytest.toml", ""), (".pytest.toml", ""), ("pytest.ini", ""), (".pytest.ini", ""),
           ("pyproject.toml", "tool.pytest"), ("tox.ini", "[pytest]"), ("setup.cfg", "[tool:pytest]"))
ABOVE = ("conftest.py", "__init__.py")  # of the folders that tests are in, which pytest looks at


def code(project: Project, folder: Path) -> list[str]:
    """The patterns of the model's code: those under `code`, and the files that the entries name."""
    entries = [one for one in (project.train.entry, project.evaluate.entry) if one is not None]
    return list(dict.fromkeys([*project.code, *(name for one in entries for name in _named(one, folder))]))


def tests(project: Project, folder: Path) -> list[str]:
    """The patterns of the tests, and of what pytest reads beside them. Raises UsageError as `config`."""
    paths, found = project.tests.paths, config(folder)
    above = [(parent / name).as_posix() for path in paths for parent in PurePosixPath(path).parents
             for name in ABOVE]
    words = [word for one in project.tests.args for word in (one, one.partition("=")[2])]
    return list(dict.fromkeys([*paths, *([found] if found else []), *above, *_files(words, folder)]))


def source(project: Project, folder: Path) -> list[str]:
    """The patterns of what a command makes the data from: what it names itself, and `sources`, else the
    model's code. None where no command makes it."""
    given = project.data.source
    if not given.command:
        return []
    return list(dict.fromkeys([*(given.sources or code(project, folder)), *_files(given.command, folder)]))


def config(folder: Path) -> str | None:
    """The file of the folder that configures pytest. Raises UsageError for a pyproject.toml that is none."""
    return next((name for name, needed in CONFIGS if _speaks(folder / name, needed)), None)


def _named(entry: Entry, folder: Path) -> Iterator[str]:
    if entry.function is None:
        yield from _files(entry.command, folder)
        return
    *above, last = entry.function.partition(":")[0].split(".")
    base = PurePosixPath(*above)
    yield (base / f"{last}.py").as_posix()
    for parent in (base / last, base, *base.parents):
        if parent.name:
            yield (parent / "__init__.py").as_posix()


def _files(words: Iterable[str], folder: Path) -> Iterator[str]:
    """Words of a command that are paths within the folder. Whether there is such a file is not asked: one
    that goes or comes is a change."""
    for word in words:
        inside = not word.startswith(("-", "/")) and ".." not in word.split("/")
        if word and inside and not set("*?[\0") & set(word) and not (folder / word).is_dir():
            yield word


def _speaks(path: Path, needed: str) -> bool:
    if not path.is_file():
        return False
    text = path.read_text("utf-8", errors="replace")
    if path.name != "pyproject.toml":
        return needed in text
    import tomllib

    try:
        return "pytest" in tomllib.loads(text).get("tool", {})
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"This file is not TOML: {error}.", where=str(path)) from error
