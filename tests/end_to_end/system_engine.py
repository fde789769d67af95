"""A real system engine in a folder: `python -m tests.end_to_end.system_engine HOME`.

It has one action more, as a third party's entry point would add it: `test.built` tells who wrote a folder's
code, as the registration of a pipeline's model does, without a registry.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import msgspec

from engine import home as homes
from engine.app import open_engine
from engine.config_file import of_engine
from engine.daemon import logs
from engine.daemon.run import serve
from engine.procedures.actions import Action, Context, Params, Registry
from engine.reproduce import authorship, git


class Built(Params):
    folder: str
    since: str


async def _built(context: Context, params: Built) -> dict[str, Any]:
    folder = Path(params.folder)
    written = await asyncio.to_thread(lambda: authorship.written(folder, git.code(folder), params.since))
    return {"written_by": msgspec.to_builtins(written)}


BUILT = Action("test.built", "none", "Tell who wrote it", Built, _built, lambda p: f"built {p.folder}")


def _entry_points(self: Registry) -> None:
    self.add(BUILT)


def main(path: str) -> None:
    Registry.load_entry_points = _entry_points  # type: ignore[method-assign]
    home = homes.at(Path(path), "system")
    homes.prepare(home)
    logs.write_to(home, in_front=False)
    asyncio.run(serve(home, of_engine(home), open_engine,
                      ready=lambda: print("ready", flush=True)))


if __name__ == "__main__":
    main(sys.argv[1])
