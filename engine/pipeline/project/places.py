"""The paths of a project file: whether what they name is there, and whether modules have their functions.

Nothing of the project is run or imported; modules are parsed.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

from engine.located import Located, Problem, did_you_mean
from engine.located import load as load_yaml
from engine.located.places import Where
from engine.parsing import parse
from engine.pipeline.building import listing
from engine.pipeline.project import locks
from engine.pipeline.project.model import Entry, Project

MOST_LISTED = 500  # files of a folder that are looked at for a name that was meant


def problems(project: Project, located: Located, folder: Path) -> Iterator[Problem]:
    """Every path that leads nowhere. Missing data is a warning: it may be on its way."""
    if project.environment.lock is not None:
        yield from _file(located, folder, ("environment", "lock"), project.environment.lock,
                         "`uv lock` writes one; or write inherit: true to try things out")
        yield from _lock(located, folder / project.environment.lock)
    for at, path in enumerate(project.tests.paths):
        yield from _there(located, folder, ("tests", "paths", at) if ("tests", "paths") in located.marks
                          else ("tests",), path, "the tests")
    if (downstream := project.staging.downstream) is not None:
        place: Where = ("staging", "downstream")
        missing = list(_file(located, folder, place, downstream, "it is a JSON schema of the answers"))
        yield from missing
        if not missing:
            yield from _json(located, folder, place, downstream)
    if not listing.listed(folder, project.code):
        yield located.problem(("code",), "no file matches `code`",
                              "name the files that are the model's code, such as [\"**/*.py\"]")
    yield from _entry(located, folder, ("train", "entry"), project.train.entry)
    if project.evaluate.entry is not None:
        yield from _entry(located, folder, ("evaluate", "entry"), project.evaluate.entry)
    yield from _source(project, located, folder)
    yield from _procedure(project, located)


def _file(located: Located, folder: Path, place: Where, path: str, hint: str) -> Iterator[Problem]:
    there = folder / path
    if there.is_dir():
        yield located.problem(place, f"{path} is a folder, where a file is wanted", hint)
    elif not there.is_file():
        yield located.problem(place, f"there is no file {path} in the project's folder",
                              _near(folder, path) or hint)


def _lock(located: Located, path: Path) -> Iterator[Problem]:
    """The first thing that keeps a lock in pip's format from being one, at its own line."""
    if path.name == "uv.lock" or not path.is_file():
        return
    for line, wrong, hint in locks.faults(path.read_text("utf-8", errors="replace")):
        yield Problem(str(path), line, 1, wrong, hint)
        return


def _there(located: Located, folder: Path, place: Where, path: str, what: str) -> Iterator[Problem]:
    if not (folder / path).exists():
        yield located.problem(place, f"there is no {path} in the project's folder, where {what} are",
                              _near(folder, path) or "make it, or correct the path")


def _near(folder: Path, path: str) -> str | None:
    """A file of the same folder that was probably meant."""
    parent = (folder / path).parent
    if not parent.is_dir():
        return None
    names = [one.name for _, one in zip(range(MOST_LISTED), parent.iterdir(), strict=False)]
    hint = did_you_mean(Path(path).name, names)
    return hint if hint.startswith("did you mean") else None


def _json(located: Located, folder: Path, place: Where, path: str) -> Iterator[Problem]:
    try:
        value = json.loads((folder / path).read_bytes())
    except RecursionError:
        yield located.problem(place, f"{path} is nested too deep", "write a JSON schema of the answers")
        return
    except ValueError as error:
        yield located.problem(place, f"{path} is not JSON: {error}", "write a JSON schema of the answers")
        return
    except OSError as error:
        yield located.problem(place, f"{path} cannot be read: {error.strerror}", "look at its permissions")
        return
    if not isinstance(value, dict | bool):
        yield located.problem(place, f"{path} is no JSON schema", "a schema is an object")


def _entry(located: Located, folder: Path, place: Where, entry: Entry) -> Iterator[Problem]:
    if entry.function is not None:
        yield from _function(located, folder, (*place, "function"), entry.function)
        return
    program = entry.command[0]
    if "/" in program and not program.startswith("/") and not (folder / program).exists():
        yield located.problem((*place, "command", 0), f"there is no {program} in the project's folder",
                              _near(folder, program))
    for at, word in enumerate(entry.command):
        if at and word.endswith(".py") and not word.startswith(("/", "-")):
            if not (folder / word).is_file():
                yield located.problem((*place, "command", at), f"there is no {word} in the project's folder",
                                      _near(folder, word) or "paths begin at the project's folder")
            return


def _function(located: Located, folder: Path, place: Where, function: str) -> Iterator[Problem]:
    module, _, name = function.partition(":")
    base = folder.joinpath(*module.split("."))
    files = [base.with_name(f"{base.name}.py"), base / "__init__.py"]
    file = next((one for one in files if one.is_file()), None)
    if file is None:
        wanted = files[0].relative_to(folder).as_posix()
        yield located.problem(place, f"there is no {wanted}, where the module {module} would be",
                              _near(folder, wanted) or "modules are found from the project's folder")
        return
    try:
        tree = parse(file.read_bytes(), str(file))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        at = f"{file.relative_to(folder).as_posix()}" + (f":{line}" if line else "")
        yield located.problem(place, f"{at} is not Python: {getattr(error, 'msg', error)}",
                              "`python -m py_compile` shows it")
        return
    names, all_of_it = defined(tree)
    if not all_of_it and name not in names:
        yield located.problem(place, f"{file.relative_to(folder).as_posix()} has no function {name}",
                              did_you_mean(name, names))


def defined(tree: ast.Module) -> tuple[set[str], bool]:
    """The names a module has at its top, also under `if` and `try`; and whether there may be others, by
    `from … import *`."""
    names: set[str] = set()
    more = False
    todo: list[ast.stmt] = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            more = more or any(one.name == "*" for one in node.names)
            names |= {(one.asname or one.name).partition(".")[0] for one in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)}
        elif isinstance(node, ast.If | ast.Try | ast.With):
            todo += [one for part in ("body", "orelse", "finalbody") for one in getattr(node, part, [])]
            todo += [one for handler in getattr(node, "handlers", []) for one in handler.body]
    return names, more


def _source(project: Project, located: Located, folder: Path) -> Iterator[Problem]:
    source = project.data.source
    paths: list[tuple[Where, str]] = [(("data", "source", "sources", at), path)
                                      for at, path in enumerate(source.sources)]
    if source.path is not None:
        paths.append((("data", "source", "path"), source.path))
    for place, path in paths:
        if not (folder / path).exists():
            yield located.problem(place, f"there is no {path} in the project's folder yet",
                                  _near(folder, path) or "a run needs it", "warning")
    for at, word in enumerate(source.command):
        if at and word.endswith(".py") and not word.startswith(("/", "-")):
            if not (folder / word).is_file():
                yield located.problem(("data", "source", "command", at),
                                      f"there is no {word} in the project's folder", _near(folder, word))
            return


def _procedure(project: Project, located: Located) -> Iterator[Problem]:
    """Parameters of a release's procedure where it is one of those that come with Opsdeck; what another one
    takes is known to its engine alone."""
    from engine.procedures.library import shipped

    release = project.release
    if release is None or not release.params:
        return
    for path in sorted(shipped().glob(f"*/{release.procedure}.yaml")):
        params = load_yaml(path).at(("params",)) or {}
        for name in release.params:
            if name not in params and name not in ("service", "to"):
                free = [one for one in params if one not in ("service", "to")]
                yield located.problem(("release", "params", name),
                                      f"the procedure {release.procedure} has no parameter {name}",
                                      did_you_mean(name, free) if free else "it takes none beside those that "
                                      "the release gives it; remove this")
