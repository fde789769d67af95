"""A real system engine in a folder: `python -m tests.end_to_end.system_engine HOME`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from engine import home as homes
from engine.app import open_engine
from engine.config_file import of_engine
from engine.daemon import logs
from engine.daemon.run import serve


def main(path: str) -> None:
    home = homes.at(Path(path), "system")
    homes.prepare(home)
    logs.write_to(home, in_front=False)
    asyncio.run(serve(home, of_engine(home), open_engine,
                      ready=lambda: print("ready", flush=True)))


if __name__ == "__main__":
    main(sys.argv[1])
