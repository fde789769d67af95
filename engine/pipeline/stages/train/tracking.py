"""The training's run in MLflow: begun beside it, fed while it runs, ended as what it was.

    opsdeck.run, .step, .attempt, .key     which stage of which run
    opsdeck.data, .lock, .payload          digests of what it was made from, and of the model
    opsdeck.ended                          why an attempt that did not end itself is KILLED
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import re
import sqlite3
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engine.errors import ActionFailed, OpsdeckError
from engine.pipeline.releasing.registry import Registry, shown
from engine.pipeline.stages import hidden
from engine.pipeline.stages.contract import Work
from engine.pipeline.stages.train.curve import Curve, Point

Status = Literal["FINISHED", "FAILED", "KILLED"]
SEND = 1.0  # seconds between two batches
BATCH = 900  # metrics of a batch; MLflow takes 1000
PARAMS = 100  # parameters of a batch, MLflow's limit
BEGIN = 120.0  # seconds that the beginning may take after the training has ended
LEAVE = 1.0  # seconds when the stage is asked to end
ANSWER = 5.0  # seconds for the first question
HINT = "Start it, or correct pipelines.tracking in opsdeck.yaml; then retry this step."


@dataclass(frozen=True)
class Tracked:
    """`run`: MLflow's id where all of the training is in it; else `why` not."""

    run: str | None
    why: str | None = None


def reachable(uri: str) -> None:
    """Whether the tracking server answers, or its SQLite file can be written. Within seconds, without MLflow.

    Raises ActionFailed. Of what is neither HTTP nor SQLite only `Tracking.begin` can tell.
    """
    if uri.startswith(("http://", "https://")):
        _answers(uri)
    elif uri.startswith("sqlite:///"):
        _writable(Path(uri.removeprefix("sqlite:///")), uri)


class Tracking:
    """One run. `begin` returns at once: MLflow is imported and asked in a thread, for as long as it lives."""

    def __init__(self, work: Work, uri: str, curve: Curve, tags: Mapping[str, str]) -> None:
        self._work, self._uri, self._curve = work, uri, curve
        key = {"opsdeck.key": str(work.settings["key"])} if work.settings.get("key") else {}
        self._tags = {"opsdeck.run": work.run, "opsdeck.step": work.step,
                      "opsdeck.attempt": str(work.attempt), **key, **tags}
        self._thread = threading.Thread(target=self._live, name="tracking", daemon=True)
        self._begun, self._closing = threading.Event(), threading.Event()
        self._problem: OpsdeckError | None = None
        self._trouble: str | None = None
        self._client: Any = None
        self._run: str | None = None
        self._unsent: list[Point] = []

    def begin(self) -> None:
        self._thread.start()

    def check(self) -> None:
        """Raises ActionFailed when the run could not be begun: training is then not worth going on with."""
        if self._begun.is_set() and self._problem is not None:
            raise self._problem

    def end(self, status: Status, metrics: Mapping[str, float] | None = None,
            tags: Mapping[str, str] | None = None, files: Path | None = None) -> Tracked:
        """Send what is left, and end the run as `status`. Never raises: the training is done, and stays done.

        `files`: the folder whose files are kept with the run, under training/.
        """
        self._closing.set()
        if self._thread.ident is None:
            return Tracked(None, "it was not begun")
        patience = LEAVE if status == "KILLED" else BEGIN
        self._begun.wait(patience)
        self._thread.join(patience)
        if self._problem is not None:
            return Tracked(None, self._problem.message)
        if self._thread.is_alive() or self._run is None:
            return Tracked(None, f"{shown(self._uri)} has not answered")
        try:
            with hidden.using():
                if status != "KILLED":
                    self._send()
                    if self._unsent:
                        return self._given_up(self._trouble or "some of the curve could not be sent")
                    self._finish(metrics or {}, tags or {}, files)
                self._client.set_terminated(self._run, status)
        except Exception as error:  # whatever MLflow, its store or the network raise
            return self._given_up(_said(error))
        return Tracked(self._run)

    def _given_up(self, why: str) -> Tracked:
        """A run that lacks something does not pass for finished, if its server can still be told."""
        with contextlib.suppress(Exception):
            self._client.set_terminated(self._run, "FAILED")
        return Tracked(None, why)

    def _live(self) -> None:
        try:
            with hidden.using():
                self._start()
        except Exception as error:  # told by `check` or `end`
            why = _said(error.__cause__ or error)
            self._problem = ActionFailed(f"The training's run cannot be begun in MLflow: {why}",
                                         where=shown(self._uri), hint=HINT)
            return
        finally:
            self._begun.set()
        while not self._closing.wait(SEND):
            with hidden.using():
                self._send()

    def _start(self) -> None:
        work = self._work
        registry = Registry(self._uri)
        self._client = registry.client
        with _alone(self._uri):
            experiment = registry.experiment(work.project.project, work.settings.get("artifacts"))
        for one in self._client.search_runs([experiment], " and ".join(
                f"tags.`{name}` = '{self._tags[name]}'" for name in ("opsdeck.run", "opsdeck.step"))):
            # One attempt runs at a time, and what an earlier one made was not kept, or there were no other.
            if one.info.status in ("RUNNING", "SCHEDULED", "FINISHED"):
                self._client.set_tag(one.info.run_id, "opsdeck.ended", f"before attempt {work.attempt} began")
                self._client.set_terminated(one.info.run_id, "KILLED")
        name = f"{work.project.project} {work.run} {work.step} {work.attempt}"
        self._run = str(self._client.create_run(experiment, run_name=name, tags=self._tags).info.run_id)
        self._log_params()

    def _log_params(self) -> None:
        from mlflow.entities import Param

        train = self._work.project.train
        given = {**train.params, "seed": self._work.project.seed, "runs_on": train.runs_on}
        params = [Param(_key(name), _text(value)) for name, value in sorted(given.items())]
        for at in range(0, len(params), PARAMS):
            self._client.log_batch(self._run, params=params[at:at + PARAMS])

    def _send(self) -> None:
        """The points since the last time; those that could not be sent are kept for the next."""
        from mlflow.entities import Metric

        self._unsent += self._curve.take()
        try:
            while self._unsent:
                batch = self._unsent[:BATCH]
                self._client.log_batch(self._run, metrics=[
                    Metric(_key(one.name), one.value, int(one.at * 1000), int(one.step)) for one in batch])
                del self._unsent[:len(batch)]
            self._trouble = None
        except Exception as error:  # whatever MLflow, its store or the network raise
            if self._trouble is None:
                self._work.say(f"tracking does not answer, training goes on: {_said(error)}")
            self._trouble = _said(error)

    def _finish(self, metrics: Mapping[str, float], tags: Mapping[str, str], files: Path | None) -> None:
        for name, value in sorted(metrics.items()):
            if math.isfinite(value):
                self._client.log_metric(self._run, f"train.{_key(name)}", value)
        for name, tag in tags.items():
            self._client.set_tag(self._run, name, tag)
        if files is not None:
            self._client.log_artifacts(self._run, str(files), "training")


def _answers(uri: str) -> None:
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=ANSWER):
            return
    except urllib.error.HTTPError as error:
        if error.code < 500:  # it answers; whether it lets us in, MLflow's own client finds out
            return
        why = f"it answers with {error.code}"
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        why = str(getattr(reason, "strerror", None) or reason)
    raise ActionFailed(f"The tracking server does not answer, so training was not begun: {why}.",
                       where=shown(uri), hint=HINT)


def _writable(path: Path, uri: str) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(path, timeout=ANSWER)) as base:
            base.execute("BEGIN IMMEDIATE")
            base.execute("ROLLBACK")
    except (OSError, sqlite3.Error) as error:
        raise ActionFailed(f"The tracking database cannot be written, so training was not begun: {error}.",
                           where=shown(uri), hint="Look at its file, its folder's permissions and the disk; "
                                                  "then retry this step.") from error


@contextlib.contextmanager
def _alone(uri: str) -> Iterator[None]:
    """Two processes do not make the same database's tables at once."""
    if not uri.startswith("sqlite:///"):
        yield
        return
    with Path(f"{uri.removeprefix('sqlite:///')}.lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _key(name: str) -> str:
    """A name as MLflow takes it."""
    return re.sub(r"[^\w\-. /]", "_", name)[:250] or "_"


def _text(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    return text[:6000]


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
