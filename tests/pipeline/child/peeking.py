"""The process of a stage that calls the project's code, as `engine.pipeline.stages.main` is started. Run as a
script: `peeking.py one …`, with `--hidden`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

from engine.pipeline.child import entries, views
from engine.pipeline.stages.contract import Done, Work
from engine.pipeline.stages.main import main
from engine.pipeline.stages.table import Stage

ONE = {"one": Stage("one", "The first", reads=("code",))}
PROCESS = (sys.executable, "-I", __file__)


def run_of(stage: str) -> SimpleNamespace:
    def run(work: Work) -> Done:
        train = work.project.train
        has = "MLFLOW_TRACKING_PASSWORD" in os.environ
        with entries.scratch(work.output) as scratch, views.of(work, "code") as view:
            entries.run(entries.Call(train.entry, "The training", "train", Path(sys.executable), view.folder,
                                     work.output, work.output, scratch, train.params, 1, train.limits,
                                     work.output / "log.txt", view=view), work.say)
        return Done(True, "it looked", {"has": has})

    return SimpleNamespace(run=run)


if __name__ == "__main__":
    sys.exit(main(stages=ONE, find=run_of))
