"""A real engine process on the in-memory backend: `python -m tests.daemon.engine_process HOME MODE`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from engine import home as homes
from engine.config_file import of_engine
from engine.daemon import logs
from engine.daemon.run import serve
from engine.errors import OpsdeckError
from tests.daemon.memory import open_memory


def main(path: str, mode: str) -> int:
    home = homes.at(Path(path), mode)  # type: ignore[arg-type]
    homes.prepare(home)
    logs.write_to(home, in_front=False)
    try:
        asyncio.run(serve(home, of_engine(home), open_memory,
                          ready=lambda: print("ready", flush=True)))
    except OpsdeckError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
