"""Files of the project that its code names and does not list, so that a stage will not have them: found in
the code, which is parsed and not run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from engine.located import Located, Problem
from engine.located.places import Where
from engine.parsing import parse
from engine.pipeline.building import listing, seen
from engine.pipeline.project.layout import FILE
from engine.pipeline.project.model import Project

LARGEST = 1 << 20  # bytes of a module that is parsed
MOST = 20  # that are told
LONGEST = 200  # characters of a path in a text


def problems(project: Project, located: Located, folder: Path) -> Iterator[Problem]:
    """A warning for each such file, with the first line that names it. Blocking: it parses every module that
    is listed. Raises what `listing.listed` does."""
    code, tests = seen.code(project, folder), seen.tests(project, folder)
    own = [project.data.source.path or "", *project.data.source.sources, project.data.expectations,
           project.robustness.cases, project.staging.downstream or "", project.environment.lock or "", FILE]
    where: Where = ("code",)
    parts = [(where, code, code), (where, tests, [*code, *tests])]
    if made := seen.source(project, folder):
        where = ("data", "source", "sources") if project.data.source.sources else ("code",)
        parts.append((where, made, made))
    told: set[str] = set()
    for where, modules, listed in parts:
        there = set(listing.listed(folder, listed))
        for module in listing.listed(folder, modules):
            for path, line in _named(folder, module):
                if path in there or path in told or listing.matching([path], [one for one in own if one]):
                    continue
                told.add(path)
                if len(told) > MOST:
                    return
                yield located.problem(
                    where, f"{module}:{line} names {path}, which is not among the files that `{where[-1]}` "
                    "lists: the stage will not have it",
                    f"add it to `{where[-1]}:`, if the stage reads it", "warning")


def _named(folder: Path, module: str) -> Iterator[tuple[str, int]]:
    """The files of the folder that a module imports or has the path of in a text, each with its line."""
    path = folder / module
    try:
        if path.suffix != ".py" or path.stat().st_size > LARGEST:
            return
        tree = parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return  # whoever runs it is told
    beside = PurePosixPath(module).parent
    for node in ast.walk(tree):
        for name in _paths(node, beside):
            found = name.as_posix()
            if ".." not in name.parts and not name.is_absolute() and (folder / found).is_file():
                yield found, getattr(node, "lineno", 0)


def _paths(node: ast.AST, beside: PurePosixPath) -> Iterator[PurePosixPath]:
    """Where the files may be that a part of a module names. `beside`: the module's folder."""
    roots: tuple[PurePosixPath, ...] = (PurePosixPath(), beside, PurePosixPath("src"))
    match node:
        case ast.Import():
            for one in node.names:
                yield from _modules(roots, one.name.split("."))
        case ast.ImportFrom():
            if node.level:
                roots = ((beside, *beside.parents)[min(node.level - 1, len(beside.parents))],)
            for one in node.names:
                yield from _modules(roots, [*(node.module or "").split("."), one.name])
        case ast.Constant(value=str() as text) if 2 < len(text) <= LONGEST and "." in text:
            if not set(text) & set(" \t\n\0*?") and "://" not in text:
                yield PurePosixPath(text)
                yield beside / text


def _modules(roots: tuple[PurePosixPath, ...], names: list[str]) -> Iterator[PurePosixPath]:
    parts = [one for one in names if one and one != "*"]
    for root in roots:
        for count in range(1, len(parts) + 1):
            base = root.joinpath(*parts[:count])
            yield base / "__init__.py"
            yield base.with_name(f"{base.name}.py")
