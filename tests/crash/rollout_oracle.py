"""What a campaign of killed rollouts is judged by: the gateway's weights as they were seen from outside,
the pages that arrived, and the journal."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.journal.events import Event
from engine.journal.sqlite import SqliteJournal
from engine.rollout.replay import replay

LEASE_S = 2.0
PLAN = f"""opsdeck: 1
id: quick
title: A quick rollout
kind: rollout
owner: tests
reviewed: 2026-11-20
review_every: 9999d
params:
  service: {{type: string, required: true}}
  to: {{type: string, required: true}}
rollout:
  service: "${{{{ params.service }}}}"
  to: "${{{{ params.to }}}}"
  canary: [10, 30, 60, 100]
  requests: 5
  hold: 0.3s
  bake: 0.3s
  holdback: 20
  lease: {LEASE_S:g}s
  judge: {{good: false}}
"""
WEIGHTS = {"weight-10": 10.0, "weight-30": 30.0, "weight-60": 60.0, "weight-100": 80.0, "promote": 100.0}
SLACK = 0.01  # percent
GRACE_S = 0.15  # a call to the router may be under way when the abort is stamped
ENDINGS = ("done", "rolled_back")


@dataclass
class Result:
    """What a campaign came to. All lists must be empty.

    `raised`: weights that rose after an abort was recorded. `beyond`: more than the plan's step. `unsafe`:
    rollouts that did not end, or ended with other weights. `lost`: aborts that were accepted and did not
    roll back. `doubled`: pages that arrived twice as if they were two (a page has an id, by which one that
    is posted again is known; `again` counts those), or runs with two. `unpaged`: rollouts that the engine
    sent back and told nobody of. `late`: leases that ran over. `differs`: runs whose verdicts are not
    recomputed to the bit.
    """

    seed: int
    kills: int
    runs: int
    done: int
    rolled_back: int
    aborted: int
    leases_out: int
    pages: int
    again: int
    samples: int
    raised: list[str]
    beyond: list[str]
    unsafe: list[str]
    lost: list[str]
    doubled: list[str]
    unpaged: list[str]
    late: list[str]
    differs: list[str]
    breaks: list[str]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def wrong(self) -> dict[str, list[str]]:
        """What must be empty and is not."""
        return {name: found for name, found in asdict(self).items() if isinstance(found, list) and found}


@dataclass
class Told:
    """One run by the journal: `steps` are (seconds, weight) of the intents that give the challenger more."""

    id: str
    began: float
    ended: float | None
    state: str
    aborted: float | None
    by: str | None
    reason: str
    steps: list[tuple[float, float]]


def judged(home: Path, *, seed: int, kills: int, resets: list[float], late: list[str],
           after: dict[str, Any], seconds: float) -> Result:
    with contextlib.closing(SqliteJournal.open_readonly(home / "journal.db")) as journal:
        rows = sorted(journal.runs(None, 100_000), key=lambda row: int(row.id))
        events = {row.id: journal.read(row.id) for row in rows}
        breaks = journal.verify().breaks
    runs = [told(id, found) for id, found in events.items()]
    seen = _lines(home / "witness")
    accepted = set(_text(home / "accepted").split())
    arrived = [page for page in _lines(home / "pages") if "run" in page]
    pages = Counter(run for run, _ in {(str(page["run"]), page["id"]) for page in arrived})
    return Result(
        seed=seed, kills=kills, runs=len(runs), done=sum(run.state == "done" for run in runs),
        rolled_back=sum(run.state == "rolled_back" for run in runs),
        aborted=sum(run.by == "tests" for run in runs),
        leases_out=sum("its lease was not renewed" in run.reason for run in runs),
        pages=sum(pages.values()), again=len(arrived) - sum(pages.values()), samples=len(seen),
        raised=[line for run, until in _windows(runs) for line in _raised(run, until, seen)],
        beyond=_beyond(runs, seen, resets),
        unsafe=[*(f"run {run.id} is {run.state}" for run in runs if run.state not in ENDINGS),
                *_not_safe(runs, after, resets)],
        lost=[f"run {run.id}: an abort was accepted, and it is {run.state}" for run in runs
              if run.id in accepted and (run.state != "rolled_back" or run.aborted is None)],
        doubled=[f"run {run}: {n} pages" for run, n in pages.items() if n > 1],
        unpaged=[f"run {run.id}: {run.reason}" for run in runs if run.by == "engine" and run.id not in pages],
        late=late, differs=[id for id, found in events.items() if not _replays(found)],
        breaks=breaks, seconds=seconds)


def told(id: str, events: list[Event]) -> Told:
    aborts = [event for event in events if event.kind == "run.abort"]
    ends = [event for event in events if event.kind == "run.finished"]
    return Told(
        id, events[0].at, ends[0].at if ends else None, ends[0].data["state"] if ends else "running",
        aborts[0].at if aborts else None, aborts[0].actor.user if aborts else None,
        str(aborts[0].data.get("reason", "")) if aborts else "",
        [(event.at, WEIGHTS[event.step]) for event in events
         if event.kind == "step.intent" and event.step in WEIGHTS])


def _windows(runs: list[Told]) -> list[tuple[Told, float]]:
    """Each run with the moment at which the next one begins."""
    begins = [run.began for run in runs[1:]]
    return list(zip(runs, [*begins, float("inf")], strict=True))


def _raised(run: Told, until: float, seen: list[Any]) -> list[str]:
    """Weights that rose from one look to the next after this run's abort was recorded."""
    if run.aborted is None:
        return []
    after = [one for one in seen if run.aborted + GRACE_S <= one[0] and one[1] < until]
    return [f"run {run.id}: {before[2]:g} → {now[2]:g} % {now[0] - run.aborted:.2f} s after its abort"
            for before, now in itertools.pairwise(after) if now[2] > before[2] + SLACK]


def _beyond(runs: list[Told], seen: list[Any], resets: list[float]) -> list[str]:
    """Looks at which the challenger had more than any step that had begun by then could give it."""
    found = []
    for asked, answered, weight, _ in seen:
        if weight <= SLACK:
            continue
        run = next((run for run in reversed(runs) if run.began <= answered), None)
        most = max((w for at, w in run.steps if at <= answered), default=0.0) if run else 0.0
        if run is not None and not run.steps:  # what the one before left, until this one sets its first
            most = _left(runs[:runs.index(run)], resets, asked)
        if run is not None and run.ended is not None and asked > run.ended:
            most = _left([run], resets, asked)
        if weight > most + SLACK:
            found.append(f"{weight:g} % at {asked:.3f}, {most:g} allowed, run {run.id if run else '-'}")
    return found[:20]


def _left(runs: list[Told], resets: list[float], asked: float) -> float:
    """What a run that has ended leaves to the challenger, until somebody sets the weights again."""
    if not runs or runs[-1].state != "done":
        return 0.0
    ended = runs[-1].ended or 0.0
    return 0.0 if any(ended < reset < asked for reset in resets) else 100.0


def _not_safe(runs: list[Told], after: dict[str, Any], resets: list[float]) -> list[str]:
    wanted = _left(runs, resets, float("inf"))
    weight = after["weights"]["challenger"]
    wrong = [f"{weight:g} % at the end, {wanted:g} wanted"] if abs(weight - wanted) > SLACK else []
    return wrong + (["a lease runs at the end"] if after["lease"] else [])


def _replays(events: list[Event]) -> bool:
    """Whether the verdicts come out again, for a run that was watched."""
    return all(event.kind != "rollout.began" for event in events) or replay(events).bit_equal


def _lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in _text(path).splitlines() if line.endswith(("}", "]"))]


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
