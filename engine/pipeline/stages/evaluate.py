"""The stage that evaluates: how good the model is on the held-out rows, how fast, and how large.

It leaves predictions.npy (in the rows' order), evaluation.json, latencies.npz (milliseconds of each call by
batch size: b1, b16 …) and scoring.log.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import UsageError
from engine.pipeline.project.model import Project
from engine.pipeline.releasing.recording import trained
from engine.pipeline.scoring import measuring, rows, writing
from engine.pipeline.scoring.asking import LOG, opened
from engine.pipeline.scoring.measuring import Speed
from engine.pipeline.scoring.rows import HeldOut
from engine.pipeline.stages.contract import Done, Work
from engine.pipeline.statistics import metrics as metrics_
from engine.pipeline.statistics.evaluation import Estimate, Evaluation, evaluate
from engine.pipeline.statistics.gates import Latency, Memory

if TYPE_CHECKING:
    from engine.pipeline.statistics.labelled import Floats

STAGE = "evaluate"
STREAM = 1  # of the project's seed; every stage draws from its own


def run(work: Work) -> Done:
    """Raises ModelFailed for scores that are none, UsageError for rows or metrics that say nothing; both name
    the stage and the column."""
    import numpy as np

    project = work.project
    held = rows.read(project, work.inputs["data"], STAGE)
    model = trained(work.inputs["train"])
    with opened(work, STAGE, model, held.shown) as scorer:
        scores = scorer(held.rows)
    np.save(work.output / "predictions.npy", scores, allow_pickle=False)
    work.say(f"scored {held.rows.num_rows:,} held-out rows")
    found = _evaluated(project, held, scores)
    for one in found.metrics:
        work.say(_told(one))
    speeds, idle_mb, peak_mb = _measured(work, model, held)
    measuring.save(work.output / "latencies.npz", {f"b{one.batch}": one for one in speeds})
    size = sum(one.stat().st_size for one in model.rglob("*") if one.is_file()) if model.is_dir() \
        else model.stat().st_size
    notes = [*found.notes, *_notes(held, speeds)]
    writing.write(work.output / "evaluation.json", {
        **writing.plain(found), "notes": notes, "absent_segments": held.absent,
        "latency": [one.as_json() for one in speeds], "peak_mb": peak_mb, "idle_mb": idle_mb,
        "model_bytes": size, "features": list(scorer.schema.names), "classes": list(held.shown.classes)})
    return Done(True, _sentence(found), _result(found, speeds, peak_mb, size, notes),
                ("evaluation.json", "predictions.npy", "latencies.npz", LOG))


def asked(project: Project) -> list[str]:
    """The metrics that a project asks for, and those that its gates look at; the task's first before them."""
    named = [one.metric for one in project.gates if not isinstance(one, Latency | Memory)]
    return list(dict.fromkeys([*project.evaluate.metrics, *named]))


def _evaluated(project: Project, held: HeldOut, scores: Floats) -> Evaluation:
    import numpy as np

    data = held.labelled(scores)
    wanted = asked(project)
    usual = [] if project.evaluate.metrics else [
        name for name in metrics_.names(project.task)
        if name not in wanted and metrics_.undefined(metrics_.find(name, project.task), data) is None]
    first = metrics_.primary(project.task)
    chosen = sorted([*wanted, *usual], key=lambda name: name != first)
    with rows.located(f"{STAGE}: column {project.data.label}"):
        return evaluate(data, chosen or [first], rng=np.random.default_rng([project.seed, STREAM]),
                        segments=held.segments, confidence=project.evaluate.confidence,
                        resamples=project.evaluate.resamples)


def _measured(work: Work, model: Path, held: HeldOut) -> tuple[list[Speed], float, float]:
    """In a process of its own that has scored nothing else, so that its peak is the model's: the speeds, the
    MB before the model was loaded, and the peak."""
    project = work.project
    with opened(work, STAGE, model, held.shown) as scorer:
        speeds = measuring.measure({"model": scorer}, held.rows, sorted(set(project.evaluate.batches)),
                                   quantile=quantile_of(project), confidence=project.evaluate.confidence,
                                   longest=longest(project))
        return speeds["model"], scorer.raw.idle_mb, scorer.raw.peak_mb()


def quantile_of(project: Project) -> float:
    """The highest quantile that a gate looks at, at least p99."""
    return max([0.99, *(one.quantile for one in project.gates if isinstance(one, Latency))])


def longest(project: Project) -> float:
    """Seconds that a batch size may take: more where a gate needs the figure."""
    gated = any(isinstance(one, Latency) for one in project.gates)
    return measuring.LONGEST_GATED if gated else measuring.LONGEST


def _notes(held: HeldOut, speeds: list[Speed]) -> list[str]:
    notes = []
    if held.absent:
        notes.append(f"No held-out row is of {', '.join(held.absent[:5])}"
                     f"{' and others' if len(held.absent) > 5 else ''}, so nothing is said of them.")
    few = [one for one in speeds if not one.enough]
    if few:
        told = ", ".join(f"{len(one.ms):,} with {one.batch:,} rows" for one in few)
        notes.append(f"Too few calls fitted into the time to bound the p99: {told}.")
    return notes


def _result(found: Evaluation, speeds: list[Speed], peak_mb: float, size: int, notes: list[str]
            ) -> dict[str, Any]:
    single = speeds[0].as_json()
    return {
        "metrics": {one.metric: {"value": one.value, "low": one.low, "high": one.high, "better": one.better}
                    for one in found.metrics},
        "rows": found.rows, "segments": len(found.segments), "segments_worst": _worst(found),
        **{name: single[name] for name in measuring.QUANTILES},
        "rows_per_s": max(one.rows_per_s for one in speeds), "peak_mb": peak_mb, "model_bytes": size,
        "ece": None if found.calibration is None else found.calibration.ece, "notes": notes}


def _worst(found: Evaluation) -> dict[str, Any] | None:
    """The segment where the first metric is worst, of those that are not too small to conclude from."""
    sign = 1.0 if found.metrics[0].better == "higher" else -1.0
    known = [(part, part.metrics[0]) for part in found.segments
             if part.metrics[0].value is not None and not part.small]
    if not known:
        return None
    part, one = min(known, key=lambda pair: sign * (pair[1].value or 0.0))
    return {"segment": part.name, "metric": one.metric, "value": one.value, "low": one.low, "high": one.high,
            "rows": part.rows}


def _told(one: Estimate) -> str:
    if one.value is None:
        return f"{one.metric}: {one.why}"
    if one.low is None or one.high is None:
        return f"{one.metric} {one.value:.4g} ({one.why})"
    return f"{one.metric} {one.value:.4g}, between {one.low:.4g} and {one.high:.4g}"


def _sentence(found: Evaluation) -> str:
    first = found.metrics[0]
    if first.value is None:
        raise UsageError(first.why, where=STAGE, hint="choose a metric that these rows can have")
    parts = f" in {len(found.segments)} segments" if found.segments else ""
    return f"On {found.rows:,} held-out rows{parts}: {_told(first)} ({found.confidence:.0%})."
