"""`opsdeck reproduce lint PROJECT`: what would keep a run of the project from being done again.

Nothing is run or imported: files are read. Tests, hidden folders and environments are left out. A line is
excused by a comment on it, or alone above it, which may say why:

    started = time.time()  # opsdeck: reproducible: only names the log file
"""

from __future__ import annotations

import ast
import fnmatch
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from engine.errors import UsageError
from engine.reproduce import git
from engine.reproduce.linting import clocks, dependencies, places, randomness
from engine.reproduce.linting.finding import MARK, Finding
from engine.reproduce.linting.source import Source

SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages", "venv", "env", "build", "dist", "tests",
                     "test", "mlruns", "wandb"})
TESTS = ("test_*.py", "*_test.py", "conftest.py")
SETTINGS = (".yaml", ".yml", ".toml", ".ini", ".cfg")
LARGEST = 2 << 20  # bytes of a file that is read; a larger one is data
SETTINGS_LARGEST = 256 << 10
PIPELINE = "opsdeck.pipeline.yaml"


def lint(project: Path) -> list[Finding]:
    """Every finding in a project's folder, or in one file, sorted by place. Blocking; nothing is changed.

    Raises UsageError for a path that is not there.
    """
    if not project.exists():
        raise UsageError("There is no such project.", where=str(project),
                         hint="Name the folder with opsdeck.pipeline.yaml.")
    root = project if project.is_dir() else project.parent
    paths = sorted(_files(root) if project.is_dir() else [project])
    sources, found = _read(root, paths)
    found += _python(sources, _reach(root, sources), _held(root, paths, sources))
    found += _settings(root, paths)
    if project.is_dir():
        found += _dependencies(root, paths, bool(sources))
    return sorted(set(found), key=lambda one: (one.path, one.line, one.rule, one.text))


def _files(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = [one for one in folders if one not in SKIPPED and not one.startswith(".")
                      and not Path(folder, one, "pyvenv.cfg").exists()]
        yield from (Path(folder, name) for name in names if not name.startswith("."))


def _read(root: Path, paths: list[Path]) -> tuple[list[Source], list[Finding]]:
    sources, found = [], []
    for path in paths:
        if path.suffix != ".py" or any(fnmatch.fnmatch(path.name, one) for one in TESTS):
            continue
        relative = path.relative_to(root).as_posix()
        text = _text(path, LARGEST)
        try:
            if text is not None:
                sources.append(Source(relative, text))
        except (SyntaxError, ValueError) as error:
            found.append(Finding("unreadable", relative, getattr(error, "lineno", None) or 1,
                                 f"This is not Python 3.11: {getattr(error, 'msg', None) or error}",
                                 "What it does to a run cannot be told.", "Mend the file, or take it away."))
    return sources, found


def _python(sources: list[Source], reach: dict[str, set[str]], held: places.Held) -> list[Finding]:
    seeded: dict[str, set[str]] = {one.path: set() for one in sources}
    training: set[str] = set()
    for one in sources:
        own = randomness.seeds(one)
        for path in reach[one.path]:
            seeded[path] |= own
        if one.trains:
            training |= reach[one.path]
    found: list[Finding] = []
    for one in sources:
        hits: list[tuple[ast.AST, Finding]] = [*places.absolute(one), *places.unversioned(one, held)]
        if one.on_data or one.path in training:
            hits += randomness.find(one, frozenset(seeded[one.path]))
        if one.path in training:
            hits += clocks.find(one)
        found += _grouped(finding for node, finding in hits if not one.is_excused(node))
    return found


def _reach(root: Path, sources: list[Source]) -> dict[str, set[str]]:
    """By file: itself and every file of the project that it imports, and those import."""
    modules: dict[str, str] = {}
    for one in sources:
        parts = PurePosixPath(one.path).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        modules[".".join(parts)] = one.path
    # The project's own folder may be a package: in flights/, `flights.train` is train.py.
    own = root.resolve().parts
    prefixes = tuple(".".join(own[at:]) + "." for at in range(1, len(own)))
    imports = {}
    for one in sources:
        beside = ".".join(PurePosixPath(one.path).parent.parts)
        wanted = set(one.modules)
        wanted |= {name.removeprefix(prefix) for name in one.modules for prefix in prefixes}
        wanted |= {f"{base}.{name}" for name in one.modules for base in (beside, "src") if base}
        imports[one.path] = {modules[name] for name in wanted if name in modules}
    reach = {}
    for path in imports:
        seen, todo = {path}, [path]
        while todo:
            fresh = imports[todo.pop()] - seen
            seen |= fresh
            todo += fresh
        reach[path] = seen
    return reach


def _grouped(found: Iterable[Finding]) -> list[Finding]:
    """The first of each group with how many more there are."""
    kept: dict[tuple[str, str], Finding] = {}
    alone = []
    for one in sorted(found, key=lambda each: each.line):
        key = (one.rule, one.group)
        if not one.group:
            alone.append(one)
        elif key in kept:
            kept[key] = replace(kept[key], more=kept[key].more + 1)
        else:
            kept[key] = one
    return [*alone, *kept.values()]


def _held(root: Path, paths: list[Path], sources: list[Source]) -> places.Held:
    declared = root / PIPELINE
    return places.Held(
        tracked=git.tracked(root), declared=_text(declared, LARGEST) or "" if declared.is_file() else "",
        dvc=frozenset(path.relative_to(root).as_posix() for path in paths if path.suffix == ".dvc"),
        written=frozenset(name for one in sources for name in places.writes(one)))


def _settings(root: Path, paths: list[Path]) -> list[Finding]:
    found = []
    for path in paths:
        if path.suffix in SETTINGS and (text := _text(path, SETTINGS_LARGEST)) is not None:
            lines = text.splitlines()
            found += [one for one in places.absolute_in_text(path.relative_to(root).as_posix(), text)
                      if MARK not in lines[one.line - 1]]
    return found


def _dependencies(root: Path, paths: list[Path], has_python: bool) -> list[Finding]:
    top = git.toplevel(root) or root
    above = [one for one in (root.resolve(), *root.resolve().parents) if one.is_relative_to(top)]
    locked_above = any((one / name).is_file() for one in above for name in dependencies.LOCKS)
    locks = {path.parent for path in paths if path.name in dependencies.LOCKS}
    found: list[Finding] = []
    said = locked_above or any((one / "pyproject.toml").is_file() for one in above)
    for path in paths:
        name, relative = path.name, path.relative_to(root).as_posix()
        locked = locked_above or path.parent in locks
        text = _text(path, LARGEST)
        if text is None:
            continue
        if dependencies.REQUIREMENTS.match(name) or path.match("requirements/*.txt"):
            said = True
            found += [] if locked else dependencies.requirements(relative, text)
        elif name == "pyproject.toml":
            said = True
            found += dependencies.pyproject(relative, text, locked)
        elif dependencies.CONDA.match(name) and "dependencies:" in text:
            said = True
            found += [] if locked else dependencies.conda(relative, text)
        elif dependencies.CONTAINER.match(name):
            found += dependencies.container(relative, text)
        said = said or name in ("setup.py", "setup.cfg", "Pipfile", *dependencies.LOCKS)
    if has_python and not said:
        found.append(Finding("dependency", ".", 1, "nothing says which packages the project needs",
                             "Another machine has other versions, or none.",
                             "Add a pyproject.toml and lock it: uv init, uv add, uv lock."))
    return found


def _text(path: Path, largest: int) -> str | None:
    """A file's text; None for one that is large, is no text, or cannot be read."""
    try:
        if not path.is_file() or path.stat().st_size > largest:
            return None
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None
