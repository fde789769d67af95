"""The process that does a run again: `python -m engine.pipeline.reproduction.main --home PATH [RUN] …`.

`opsdeck reproduce RUN` starts it, so that the command itself stays light. Exit 0: the results are the same;
1: they differ; 2: it could not be rebuilt.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.errors import NotPermitted, OpsdeckError
from engine.pipeline.reproduction import again, finding, rebuilding
from engine.reproduce.verify import Comparison


def main(argv: Sequence[str] | None = None) -> int:
    asked = _arguments(argv)
    steps: list[dict[str, str]] = []

    def say(step: str, line: str) -> None:
        steps.append({"step": step, "says": line})
        if not asked.json:
            print(f"{step:<12} {line}", flush=True)

    try:
        made, compared = _again(asked, say)
    except OpsdeckError as error:
        where = f"{error.where}: " if error.where else ""
        if asked.json:
            print(json.dumps({"steps": steps, "error": {"message": error.message, "where": error.where,
                                                        "hint": error.hint}}, ensure_ascii=False))
        else:
            print(f"it cannot be done again: {where}{error.message}"
                  + (f"\n  {error.hint}" if error.hint else ""), file=sys.stderr)
        return 2
    if asked.json:
        print(json.dumps({"steps": steps, "manifest_sha256": made, **dataclasses.asdict(compared),
                          "reproduced": compared.reproduced}, ensure_ascii=False, default=str))
    else:
        _print(compared)
    return 0 if compared.reproduced else 1


def _apart(home: Path, steps_user: str | None) -> None:
    """A project's code gets no more rights here than a system engine's stages have. Raises NotPermitted."""
    whose = "root's" if os.geteuid() == 0 else "the engine's" if home.stat().st_uid == os.geteuid() else None
    if whose is not None:
        raise NotPermitted(f"The project's own code would run here with {whose} rights.",
                           hint="Ask as the user who runs the stages: "
                                f"sudo -u {steps_user or 'USER'} opsdeck reproduce …")


def _again(asked: argparse.Namespace, say: rebuilding.Say) -> tuple[str, Comparison]:
    from engine.config_file import load
    from engine.home import find

    home = find(asked.home)
    if home.mode == "system":
        _apart(home.path, load(home.config).engine.steps_user)
    projects = {} if asked.project else load(home.config).pipelines.projects
    found = finding.find(asked.run, home.path, projects, manifest=asked.manifest, folder=asked.project,
                         patch=asked.patch)
    say("run", f"{found.manifest.known.run.id} of {found.manifest.known.run.project}, made "
        f"{found.manifest.known.run.made}; its manifest is {found.manifest.sha256[:12]}")
    kept = asked.folder is not None
    root = asked.folder.absolute() if kept else Path(tempfile.mkdtemp(prefix="opsdeck-reproduce-"))
    try:
        made, compared = again.again(found, root, dt.datetime.now(dt.UTC), say)
        return made.sha256, compared
    finally:
        if not kept:
            rebuilding.leave(found, root / "code")
            shutil.rmtree(root, ignore_errors=True)


def _print(found: Comparison) -> None:
    print(found.sentence)
    for one in found.results:
        print(f"  {one.key}: {_shown(one.a)} and {_shown(one.b)}, {one.status}")


def _shown(value: Any) -> str:
    return "none" if value is None else value[:12] if isinstance(value, str) else repr(value)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="reproduction", description="Do a run again from its manifest.")
    parser.add_argument("run", nargs="?")
    parser.add_argument("--home")
    parser.add_argument("--in", type=Path, dest="folder")
    for name in ("manifest", "project", "patch"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
