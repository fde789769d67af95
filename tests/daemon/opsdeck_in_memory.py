"""The whole command `opsdeck`, with the in-memory engine in place of the composition root."""

from __future__ import annotations

import sys
from types import ModuleType

from tests.daemon.memory import open_memory

PROGRAM = (sys.executable, "-m", "tests.daemon.opsdeck_in_memory")

if __name__ == "__main__":
    app = ModuleType("engine.app")
    app.open_engine = open_memory  # type: ignore[attr-defined]
    sys.modules["engine.app"] = app
    from engine.cli.main import main
    from engine.daemon import lifecycle

    lifecycle.PROGRAM = PROGRAM
    sys.exit(main())
