"""Five trivial stages of a pipeline in one warm engine: cold, and when nothing has changed."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from engine import app, home
from engine.actions.pipeline import actions
from engine.api import wire
from engine.config import Config
from engine.embedded import EmbeddedClient, embedded
from engine.procedures.actions import Registry
from tests.benchmarks.figure import Figure
from tests.pipeline.building.trivial import FIVE, PROCESS
from tests.pipeline.project.written import project
from tests.procedures.kit import document_text

STEPS = "\n".join(f"- {{id: {name}, title: {name}, use: pipeline.{name}, irreversible: t, "
                  f"with: {{project: delays, fresh: FRESH}}}}" for name in FIVE)
TIMES = 5


def figures() -> list[Figure]:
    # Not in /tmp: directories there are slow to create files in on some systems.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place, _engine(Path(place)) as client:
        run(client, fresh=True)  # what is imported at the first use is imported
        cold = [run(client, fresh=True) for _ in range(TIMES)]
        run(client, fresh=False)
        hits = [run(client, fresh=False) for _ in range(TIMES)]
    others = "dvc 2.10 s, kedro 1.30 s, metaflow 5.14 s"
    return [
        Figure("five trivial stages, cold, in a warm engine", statistics.median(cold), "s", 1.0, "lower",
               f"median of {TIMES}, {min(cold):.2f} to {max(cold):.2f} s; {others}"),
        Figure("five trivial stages, all hits, in a warm engine", statistics.median(hits), "s", 0.3, "lower",
               f"median of {TIMES}, {min(hits):.2f} to {max(hits):.2f} s"),
    ]


def run(client: EmbeddedClient, *, fresh: bool) -> float:
    """Seconds of one run, from asking for it to its end."""
    began = time.perf_counter()
    text = document_text(STEPS.replace("FRESH", str(fresh).lower()))
    view = client.start_run(wire.StartRun("five", {}, document=text))
    last = view
    for update in client.follow(view.id):
        if isinstance(update, wire.RunView):
            last = update
    taken = time.perf_counter() - began
    assert last.state == "done", [(one.id, one.error) for one in last.steps]
    assert all(one.result["cached"] is not fresh for one in last.steps if fresh)
    return taken


@contextmanager
def _engine(place: Path) -> Iterator[EmbeddedClient]:
    folder = project(place / "delays")
    (place / "home").mkdir(mode=0o700)
    config = Config.model_validate({"pipelines": {"projects": {"delays": str(folder)}}})

    def registry() -> Registry:
        found = Registry()
        for action in actions(FIVE, PROCESS):
            found.add(action)
        return found

    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with mock.patch.object(app, "registry", registry), embedded(home.at(place / "home"), config) as client:
        yield client
