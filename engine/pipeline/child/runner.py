"""Calls a project's function, in the project's Python: `python runner.py module:function FAILURE`.

Run by path in the project's folder, under an interpreter that knows nothing of the engine: standard library
only, any Python from 3.9. The function gets `inputs: Path, output: Path, params: dict` from OPSDECK_INPUTS,
OPSDECK_OUTPUT and OPSDECK_PARAMS. Before the project's code is imported, everything that draws is seeded by
OPSDECK_SEED. What the function raises is printed in full, and written to FAILURE as JSON: kind (memory,
import, missing, error), type, message, file and line of the project's own code, code.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).resolve().parent


class Missing(Exception):
    """The project has no such module or function."""


def seed() -> None:
    """By the engine's own `seeds`, which is loaded by its path; the name `engine` stays the project's."""
    if "OPSDECK_SEED" not in os.environ:
        return
    flat = HERE / "seeds.py"
    places = {"engine.errors": HERE / "errors.py", "seeds": flat} if flat.exists() else {
        "engine.errors": HERE.parents[1] / "errors.py", "seeds": HERE.parents[1] / "reproduce" / "seeds.py"}
    sys.modules["engine"] = ModuleType("engine")
    try:
        for name, path in places.items():
            loaded = load(name, path)
        loaded.apply(int(os.environ["OPSDECK_SEED"]))
    finally:
        for name in ("engine", *places):
            sys.modules.pop(name, None)


def load(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def find(entry: str) -> Callable[..., Any]:
    """The function. Raises Missing, a sentence, when the project has no such module or function."""
    name, _, wanted = entry.partition(":")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise Missing(f"there is no module {name} in the project's folder") from error
        raise
    found = getattr(module, wanted, None)
    if not callable(found):
        raise Missing(f"the module {name} has no function {wanted}")
    return found  # type: ignore[no-any-return]


def own(error: BaseException, folder: Path) -> tuple[str, int]:
    """File and line of the project's own code, as far in as the error goes; ("", 0) if it is nowhere."""
    places = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        places.append((error.filename, error.lineno or 0))
    for name, line in reversed(places):
        path = Path(name).resolve()
        if folder in path.parents and "site-packages" not in path.parts and path != Path(__file__).resolve():
            return path.relative_to(folder).as_posix(), line
    return "", 0


def failure(error: BaseException, folder: Path) -> dict[str, Any]:
    file, line = own(error, folder)
    kinds = {MemoryError: "memory", Missing: "missing", ImportError: "import"}
    kind = next((kind for one, kind in kinds.items() if isinstance(error, one)), "error")
    return {"kind": kind, "type": type(error).__name__, "message": " ".join(str(error).split())[:500],
            "file": file, "line": line, "name": getattr(error, "name", None)}


def main() -> int:
    entry, told = sys.argv[1], Path(sys.argv[2])
    folder = Path.cwd().resolve()
    # The script's own folder would put this package's modules before the project's.
    sys.path[0] = str(folder)
    sys.argv = [entry]
    try:
        seed()
        params = json.loads(Path(os.environ["OPSDECK_PARAMS"]).read_text("utf-8"))
        find(entry)(inputs=Path(os.environ["OPSDECK_INPUTS"]), output=Path(os.environ["OPSDECK_OUTPUT"]),
                    params=params)
    except SystemExit:
        raise
    except BaseException as error:
        problem = failure(error, folder)
        traceback.print_exc()
        sys.stderr.flush()
        told.write_text(json.dumps(problem), encoding="utf-8")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
