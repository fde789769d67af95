"""The files of the engine that a container needs to serve a model: the server and what it imports."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[3]
SERVER = "engine.serving.model_server"
LOCK = Path(__file__).with_name("serving.lock")


def files() -> dict[str, bytes]:
    """Content by path, `engine/serving/model_server.py` and all of the engine that it imports. Blocking."""
    found: dict[str, bytes] = {}
    todo = [SERVER]
    while todo:
        path = _path(todo.pop())
        if path is None or (name := path.relative_to(ROOT).as_posix()) in found:
            continue
        found[name] = path.read_bytes()
        for node in ast.walk(ast.parse(found[name])):
            named = [one.name for one in node.names] if isinstance(node, ast.Import) else \
                [f"{node.module}.{one.name}" for one in node.names] \
                if isinstance(node, ast.ImportFrom) else []
            for module in named:
                parts = module.split(".")
                todo += [".".join(parts[:at]) for at in range(1, len(parts) + 1) if parts[0] == "engine"]
    for folder in ("engine", "engine/serving"):
        found[f"{folder}/__init__.py"] = (ROOT / folder / "__init__.py").read_bytes()
    return dict(sorted(found.items()))


def _path(module: str) -> Path | None:
    place = ROOT.joinpath(*module.split("."))
    return next((one for one in (place.with_suffix(".py"), place / "__init__.py") if one.is_file()), None)
