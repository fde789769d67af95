"""The process of one stage: `python -m engine.pipeline.stages.main STAGE --project NAME --folder F --home H
--run R --step S --attempt N [--settings JSON] [--planned FILE] [--hidden]`.

It makes the stage's folder, runs the stage, and puts what it left in place if it passed. What came of it goes
to OPSDECK_RESULT (else to standard output), points of curves to OPSDECK_PROGRESS. Exit 0: it passed.

`--planned` is what the engine found out when it looked in the cache (see `handing`); without it the process
looks itself. With `--hidden` it is given secrets on standard input (see `hidden`). Light at its start: the
project is read when a stage asks for it.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import functools
import importlib
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import ActionFailed, Conflict, DocumentError, OpsdeckError, UsageError
from engine.pipeline.building import listing, places, publishing
from engine.pipeline.building.places import Area, Places
from engine.pipeline.stages.contract import Done, Work
from engine.pipeline.stages.table import STAGES, Stage

if TYPE_CHECKING:
    from engine.pipeline.project.model import Project

RESULT_CAP = 200 * 1024  # bytes: what is larger belongs into a file of the output
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
NO_ROOM = "make room, then run it again; `opsdeck pipeline clean` removes what no run needs any more"
PROBLEMS = 10  # of a document that are told
Find = Callable[[str], Any]


class _Late(Work):
    """A work whose project is read when it is first asked for: it costs more than a small stage."""

    @functools.cached_property
    def project(self) -> Project:
        from engine.pipeline.project.model import Project

        return Project.model_validate(self.__dict__["written"])


def main(argv: Sequence[str] | None = None, stages: Mapping[str, Stage] = STAGES,
         find: Find = lambda name: importlib.import_module(f"engine.pipeline.stages.{name}")) -> int:
    """Run one stage; its exit status. `find`: a stage's module by name."""
    asked = _arguments(argv)
    try:
        stage = stages.get(asked.stage)
        if stage is None:
            raise UsageError(f"there is no stage {asked.stage}", hint=f"stages: {', '.join(stages)}")
        if asked.hidden:
            from engine.pipeline.stages import hidden

            hidden.take()
        told = _stage(asked, stage, find, stages)
    except OpsdeckError as error:
        told = {"error": _sentence(error), "hint": error.hint}
    except MemoryError:
        told = {"error": f"{asked.stage} ran out of memory", "hint": "give it more (limits: memory_mb in "
                "opsdeck.pipeline.yaml), or fewer rows"}
    except Exception as error:
        disk = _of_the_disk(error, asked.home)
        told = {"error": disk or _broken(asked.stage, error),
                "hint": NO_ROOM if disk else "its output has the traceback"}
    _tell(told)
    return 1 if "error" in told else 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="stage", description="Run one stage of a pipeline.")
    parser.add_argument("stage")
    for name in ("project", "folder", "home", "run", "step"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--attempt", type=int, required=True)
    parser.add_argument("--settings", type=json.loads, default={})
    parser.add_argument("--planned", type=Path)
    parser.add_argument("--hidden", action="store_true")
    return parser.parse_args(argv)


def _stage(asked: argparse.Namespace, stage: Stage, find: Find,
           stages: Mapping[str, Stage]) -> dict[str, Any]:
    at = places.of(Path(asked.home), asked.project)
    if asked.planned is not None:
        planned = places.read_json(asked.planned)
        if planned is None:
            raise ActionFailed("what was planned for this stage is not there", where=str(asked.planned))
    else:
        from engine.pipeline.building import handing

        found = handing.alone(stage, Path(asked.folder), Path(asked.home), asked.run, asked.attempt, stages)
        if "hit" in found:
            return {"result": found["hit"]}
        planned = found
    area = at.area(stage)
    with publishing.working(area, f"{asked.run}.{stage.name}.{asked.attempt}") as folder:
        work = _work(asked, planned, folder)
        made = _Making(asked, stage, at, area, planned, folder)
        try:
            try:
                if at.apart and area == at.own:
                    _take_over(work, folder / "inputs", planned["fields"]["inputs"])
                done = find(stage.name).run(work)
            finally:
                shutil.rmtree(folder / "inputs", ignore_errors=True)
            return made.finish(done)
        except Exception as error:
            made.fail(_sentence(error) if isinstance(error, OpsdeckError) else _one_line(error))
            raise


def _work(asked: argparse.Namespace, planned: Mapping[str, Any], folder: Path) -> Work:
    progress = os.environ.get("OPSDECK_PROGRESS")

    def say(line: str) -> None:
        print(line, flush=True)

    def point(name: str, step: float, value: float) -> None:
        if progress and math.isfinite(step) and math.isfinite(value):
            with Path(progress).open("a") as file:
                file.write(json.dumps({"name": name, "step": float(step), "value": float(value)}) + "\n")

    work = object.__new__(_Late)
    given = {"folder": Path(asked.folder), "home": Path(asked.home), "run": asked.run, "step": asked.step,
             "attempt": asked.attempt, "output": folder / "output", "before": planned["before"],
             "inputs": {name: Path(path) for name, path in planned["inputs"].items()},
             "say": say, "point": point, "written": planned["project"],
             "digests": {path: digest for path, (_, digest) in planned["watched"].items()},
             "settings": {**asked.settings, **planned.get("told", {}), "key": planned["key"]}}
    for name, value in given.items():
        object.__setattr__(work, name, value)
    return work


def _take_over(work: Work, into: Path, known: Mapping[str, Mapping[str, str]]) -> None:
    """A stage with the engine's rights reads copies: in what the steps' user owns a link could appear at any
    moment. Raises ActionFailed for links, Conflict for a file that is not the one that was planned with."""
    for name, path in work.inputs.items():
        shutil.copytree(path, into / name, symlinks=True)
        found = publishing.outputs(into / name)
        for file, digest in known.get(name, {}).items():
            if found.get(file, {}).get("sha256") != digest:
                raise Conflict(f"what {name} gave in this run was changed since: {file}",
                               where=str(path / file),
                               hint="start a new run: what has not changed is taken from the cache")
    object.__setattr__(work, "inputs", {name: into / name for name in work.inputs})


class _Making:
    """What becomes of a stage's folder."""

    def __init__(self, asked: argparse.Namespace, stage: Stage, at: Places, area: Area,
                 planned: Mapping[str, Any], folder: Path) -> None:
        self._run, self._attempt, self._project_folder = asked.run, asked.attempt, Path(asked.folder)
        self._stage, self._area, self._planned, self._folder = stage, area, planned, folder
        self._readable = at.apart
        self._filed = False

    def finish(self, done: Done) -> dict[str, Any]:
        """Put it in place if it passed; what to tell the engine. Raises OpsdeckError."""
        if not isinstance(done, Done):
            raise ActionFailed(f"{self._stage.name} gave a {type(done).__name__} instead of what it came to")
        result = self._checked(done)
        if not done.passed:
            self._file(done.says, self._record(done.says, result, done.evidence))
            return {"error": done.says, "result": {"says": done.says, **result, "cached": False}}
        changed = listing.changed(self._project_folder, self._planned["patterns"], {
            path: (tuple(seen), digest) for path, (seen, digest) in self._planned["watched"].items()})
        if changed is not None:
            raise Conflict(f"{changed} while {self._stage.name} ran, so what it made is of neither state",
                           where=f"stage {self._stage.name}", hint="start a new run")
        places.write_json(self._folder / publishing.RECORD, self._record(done.says, result, done.evidence))
        key = str(self._planned["key"])
        target = self._area.stage(self._stage.name) / key
        record: Mapping[str, Any] = {"says": done.says, "result": result}
        if self._readable:
            _open_to_all(self._folder)
        if not publishing.publish(self._folder, target, self._area, shared=self._readable):
            record = publishing.intact(target, key) or record
            print("the same was made by another run meanwhile, and is taken", flush=True)
        self._filed = True
        return {"result": publishing.note(self._area, self._run, self._stage.name, key, target, record,
                                          cached=False, shared=self._readable)}

    def fail(self, why: str) -> None:
        """Keep what is there of a stage that broke, as far as the disk takes it."""
        if not self._filed:
            with contextlib.suppress(OSError, OpsdeckError):
                self._file(why, {"stage": self._stage.name, "key": self._planned["key"], "says": why,
                                 "fields": self._planned["fields"], "passed": False, "run": self._run})

    def _file(self, why: str, record: Mapping[str, Any]) -> None:
        self._filed = True
        places.write_json(self._folder / publishing.RECORD, {**record, "passed": False})
        if self._readable:
            _open_to_all(self._folder)
        kept = publishing.file_failure(self._folder, self._area)
        print(f"what it left, its log too, is kept in {kept}", flush=True)
        publishing.note(self._area, self._run, self._stage.name, str(self._planned["key"]), kept,
                        {"says": why, "result": record.get("result", {})}, cached=False, passed=False,
                        shared=self._readable)

    def _record(self, says: str, result: Mapping[str, Any], evidence: Sequence[str]) -> dict[str, Any]:
        import datetime as dt

        return {"stage": self._stage.name, "key": self._planned["key"], "fields": self._planned["fields"],
                "says": says, "result": result, "evidence": list(evidence), "passed": True,
                "outputs": publishing.outputs(self._folder / "output"), "run": self._run,
                "attempt": self._attempt, "made": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}

    def _checked(self, done: Done) -> dict[str, Any]:
        try:
            text = json.dumps(dict(done.result), sort_keys=True, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ActionFailed(f"the result of {self._stage.name} cannot be recorded as JSON: {error}",
                               hint="a figure that is not a number is null, with a reason") from error
        if len(text) > RESULT_CAP:
            raise ActionFailed(f"the result of {self._stage.name} is larger than {RESULT_CAP // 1024} KiB",
                               hint="put it into a file of the output")
        return dict(json.loads(text))


def _open_to_all(folder: Path) -> None:
    """What one of the two users made is read by the other, however the project's code has left it."""
    for at, _, names in os.walk(folder):
        Path(at).chmod(0o755)
        for name in names:
            path = Path(at) / name
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)


def _sentence(error: OpsdeckError) -> str:
    text = f"{error.where}: {error.message}" if error.where else error.message
    if isinstance(error, DocumentError) and error.problems:
        more = len(error.problems) - PROBLEMS
        text = "\n  ".join([text, *error.problems[:PROBLEMS], *([f"and {more} more"] if more > 0 else [])])
    return text


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _broken(stage: str, error: BaseException) -> str:
    import traceback

    traceback.print_exception(error)
    return f"{stage} broke inside ({_one_line(error)})"


def _of_the_disk(error: Exception, home: str) -> str | None:
    """What to say of an error that the disk has made, None of another. Libraries wrap them."""
    cause: BaseException | None = error
    while cause is not None and not (isinstance(cause, OSError) and cause.errno in DISK):
        cause = cause.__cause__ or cause.__context__
    if not isinstance(cause, OSError):
        return None
    told = f"{cause.filename2 or cause.filename or home}: it cannot be written: " \
           f"{(cause.strerror or str(cause)).lower()}"
    with contextlib.suppress(OSError):
        return f"{told} ({shutil.disk_usage(home).free / 1e6:.0f} MB are free)"
    return told


def _tell(told: Mapping[str, Any]) -> None:
    """To the engine; on a full disk to whoever reads the output."""
    text = json.dumps(told, sort_keys=True)
    path = os.environ.get("OPSDECK_RESULT")
    if path:
        try:
            fresh = Path(f"{path}.fresh")
            fresh.write_text(text)
            fresh.replace(path)
            return
        except OSError as error:
            print(f"the result cannot be written: {error.strerror}", file=sys.stderr)
    if "error" in told:
        print(told["error"], file=sys.stderr)
    if not path:
        print(text)


if __name__ == "__main__":
    sys.exit(main())
