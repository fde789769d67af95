"""The whole command `opsdeck`, with the in-memory engine in place of the composition root."""

from __future__ import annotations

import sys

PROGRAM = (sys.executable, "-m", "tests.daemon.opsdeck_in_memory")


def put_memory_in_place() -> None:
    """What `engine serve` and `engine start` need; the other commands must not pay for it."""
    from types import ModuleType

    from engine.daemon import lifecycle
    from tests.daemon.memory import open_memory

    app = ModuleType("engine.app")
    app.open_engine = open_memory  # type: ignore[attr-defined]
    sys.modules["engine.app"] = app
    lifecycle.PROGRAM = PROGRAM


if __name__ == "__main__":
    from engine.cli.main import main

    if "engine" in sys.argv:
        put_memory_in_place()
    sys.exit(main())
