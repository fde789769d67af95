"""Five stages that do next to nothing, and their process: `how-<stage>` in the project's folder says what one
does instead. Run as a script it is the process of a stage."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from engine.errors import UsageError
from engine.pipeline.stages.contract import Done, Work
from engine.pipeline.stages.main import main
from engine.pipeline.stages.table import Stage

FIVE = {stage.name: stage for stage in (
    Stage("one", "The first", reads=("code",)),
    Stage("two", "The second", needs=("one",), settings=("train",)),
    Stage("three", "The third", needs=("two",), settings=("evaluate",)),
    Stage("four", "The fourth", needs=("two", "three")),
    Stage("five", "The fifth", needs=("four",)))}
PROCESS = (sys.executable, "-I", __file__)


def run_of(stage: str) -> SimpleNamespace:
    def run(work: Work) -> Done:
        how = work.folder / f"how-{stage}"
        does = how.read_text() if how.exists() else ""
        (work.output / "out.txt").write_text(f"{stage} after {' '.join(sorted(work.inputs))}\n")
        work.say(f"{stage} works")
        work.point("loss", 1, 0.5)
        if does.startswith("until "):
            while not Path(does.split()[1]).exists():
                time.sleep(0.01)
        if does == "fail":
            return Done(False, f"{stage} is not good enough", {"score": 1})
        if does == "refuse":
            raise UsageError("the column price is empty", where=f"stage {stage}: data.csv", hint="fill it in")
        if does == "break":
            raise KeyError("of a stage's own")
        if does == "memory":
            raise MemoryError
        if does == "die":
            os.kill(os.getpid(), 9)
        if does == "nan":
            return Done(True, "fine", {"loss": float("nan")})
        if does == "link":
            (work.output / "more").symlink_to("/etc/hostname")
        if does == "change":
            (work.folder / "train.py").write_text("def main(inputs, output, params): ...\n")
        if does == "project":
            return Done(True, "fine", {"model": work.project.model, "seen": sorted(work.before)})
        return Done(True, f"{stage} is fine", {"n": len(work.before), "pid": os.getpid()}, ("out.txt",))

    return SimpleNamespace(run=run)


if __name__ == "__main__":
    sys.exit(main(stages=FIVE, find=run_of))
