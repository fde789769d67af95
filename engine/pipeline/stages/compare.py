"""The stage that compares with the model in production, on the same rows and in turns on the same clock.

It leaves comparison.json, latencies.npz (champion and challenger), champion.npy (its scores) and scoring.log.
The champion is asked by the project's code as it is now.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import ActionFailed
from engine.pipeline.project.model import Project
from engine.pipeline.releasing import champion
from engine.pipeline.releasing.champion import Champion
from engine.pipeline.releasing.recording import trained
from engine.pipeline.releasing.registry import Registry
from engine.pipeline.scoring import measuring, rows, writing
from engine.pipeline.scoring.asking import LOG, opened
from engine.pipeline.scoring.measuring import Speed
from engine.pipeline.scoring.rows import HeldOut
from engine.pipeline.scoring.scores import ModelFailed
from engine.pipeline.stages.contract import Done, Work
from engine.pipeline.stages.evaluate import asked, longest, quantile_of
from engine.pipeline.statistics import alone
from engine.pipeline.statistics.comparison import Verdict, compare
from engine.pipeline.statistics.deciding import GateResult
from engine.pipeline.statistics.evidence import Comparison, paired
from engine.pipeline.statistics.resources import Measured, measured
from engine.reproduce import payload

if TYPE_CHECKING:
    from engine.pipeline.statistics.labelled import Floats

STAGE = "compare"
STREAM = 3
RESAMPLES = 2000  # at least: a gate looks at the interval's end


def run(work: Work) -> Done:
    """Raises ActionFailed while the registry does not answer, or when the champion cannot be asked on these
    rows; then nothing has changed anywhere, and the step can be run again."""
    import numpy as np

    held = rows.read(work.project, work.inputs["data"], STAGE)
    scores: Floats = np.load(work.inputs["evaluate"] / "predictions.npy", allow_pickle=False)
    with tempfile.TemporaryDirectory(prefix=".champion-", dir=work.output.parent) as aside:
        work.say("asking the registry for the model in production")
        found = _champion(work, Path(aside))
        if found is None:
            return _first(work, held)
        work.say(f"comparing with version {found.version}")
        return _both(work, held, scores, found)


def _champion(work: Work, into: Path) -> Champion | None:
    try:
        registry = Registry(str(work.settings["tracking"]))
        return champion.fetch(registry, work.project.model, into)
    except ActionFailed as error:
        error.where = f"{STAGE}: {error.where}" if error.where else STAGE
        raise


def _first(work: Work, held: HeldOut) -> Done:
    import numpy as np

    project = work.project
    speeds, memory = _speeds(work, held, {"challenger": trained(work.inputs["train"])})
    own = measured(speeds["challenger"].ms, memory["challenger"])
    gates = alone.decide(project.gates, own, project.evaluate.confidence,
                         np.random.default_rng([project.seed, STREAM]))
    passed = all(one.passed for one in gates)
    stopped = next((one for one in gates if not one.passed), None)
    says = alone.NOTHING if stopped is None else f"The gate {stopped.name} is not passed: {stopped.says}"
    summary = [alone.NOTHING, *(one.says for one in gates if one.says != alone.NOTHING)]
    return _done(work, passed, says, summary, None, gates, speeds, memory, None)


def _both(work: Work, held: HeldOut, scores: Floats, found: Champion) -> Done:
    import numpy as np

    project, challenger = work.project, trained(work.inputs["train"])
    try:
        with opened(work, STAGE, found.model, held.shown, "the champion") as scorer:
            theirs = scorer(held.rows)
    except ModelFailed as error:
        raise ActionFailed(
            champion.says(error, found), where=error.where,
            hint="It was made for other data or other code. To replace it without a comparison, take its "
                 f"alias {found.name}@champion away in MLflow; then run this step again.") from error
    np.save(work.output / "champion.npy", theirs, allow_pickle=False)
    speeds, memory = _speeds(work, held, {"champion": found.model, "challenger": challenger})
    pair = paired(held.labelled(theirs), held.labelled(scores))
    same = found.payload == (work.before.get("train", {}).get("payload")
                             or payload.digest(challenger).sha256)
    with rows.located(STAGE):
        verdict = compare(pair, project.gates, rng=np.random.default_rng([project.seed, STREAM]),
                          segments=held.segments, metrics=asked(project),
                          champion=_resources("champion", speeds, memory),
                          challenger=_resources("challenger", speeds, memory),
                          confidence=project.evaluate.confidence,
                          resamples=max(RESAMPLES, project.evaluate.resamples), one_model=same)
    very = f"This is the very model that is in production already, {found.name} version {found.version}. "
    says = f"{very if same else ''}{verdict.says}"
    return _done(work, verdict.passed, says, _summary(project, found, verdict, same), found, verdict.gates,
                 speeds, memory, verdict)


def _speeds(work: Work, held: HeldOut, models: dict[str, Path]) -> tuple[dict[str, Speed], dict[str, float]]:
    """Of single requests, and the peak memory; each model in a fresh process that has scored nothing else."""
    project = work.project
    with contextlib.ExitStack() as stack:
        scorers = {name: stack.enter_context(opened(work, STAGE, model, held.shown, f"the {name}"))
                   for name, model in models.items()}
        found = measuring.measure(scorers, held.rows, [1], quantile=quantile_of(project),
                                  confidence=project.evaluate.confidence, longest=longest(project))
        memory = {name: one.raw.peak_mb() for name, one in scorers.items()}
    return {name: one[0] for name, one in found.items()}, memory


def _resources(name: str, speeds: dict[str, Speed], memory: dict[str, float]) -> Measured:
    return measured(speeds[name].ms, memory[name])


def _done(work: Work, passed: bool, says: str, summary: Sequence[str], found: Champion | None,
          gates: Sequence[GateResult], speeds: dict[str, Speed], memory: dict[str, float],
          verdict: Verdict | None) -> Done:
    told = None if found is None else found.as_json()
    measuring.save(work.output / "latencies.npz", speeds)
    writing.write(work.output / "comparison.json", {
        "champion": told, "passed": passed, "says": says, "summary": list(summary), "verdict": verdict,
        "gates": [_gate(one) for one in gates],
        "latency": {name: one.as_json() for name, one in speeds.items()}, "memory_mb": memory})
    for line in summary:
        work.say(line)
    shown = [] if verdict is None else [_compared(one) for one in verdict.comparisons if one.segment is None]
    result = {"passed": passed, "says": says, "champion": told, "gates": [_gate(one) for one in gates],
              "summary": list(summary), "metrics": shown,
              "p99_ms": {name: one.as_json()["p99_ms"] for name, one in speeds.items()}, "peak_mb": memory}
    return Done(passed, says, writing.plain(result), ("comparison.json", "latencies.npz", LOG))


def _gate(one: GateResult) -> dict[str, Any]:
    return {"name": one.name, "kind": one.kind, "status": one.status, "passed": one.passed, "says": one.says,
            "p": one.p}


def _compared(one: Comparison) -> dict[str, Any]:
    return {"metric": one.metric, "better": one.better, "champion": one.champion,
            "challenger": one.challenger, "gain": one.gain, "low": one.low, "high": one.high, "why": one.why}


def _summary(project: Project, found: Champion, verdict: Verdict, same: bool) -> list[str]:
    """What was compared, how sure it is, and why the verdict is what it is, in sentences."""
    lines = [f"This run's {project.model} was compared with version {found.version}, which is in "
             f"production, on the same {verdict.rows:,} held-out rows."]
    if same:
        lines.append("The two are one model: their payloads have the same digest.")
    for one in verdict.comparisons:
        if one.segment is None:
            lines.append(_in_words(one, verdict.confidence))
    lines += [f"{one.name}: {one.says}" for one in verdict.gates if one.kind in ("latency", "memory")]
    lines += [f"Not passed: {one.name}. {one.says}" for one in verdict.gates
              if not one.passed and one.kind not in ("latency", "memory")]
    return [*lines, *verdict.notes]


def _in_words(one: Comparison, confidence: float) -> str:
    if one.champion is None or one.challenger is None or one.gain is None:
        return f"{one.metric} has no value here: {one.why}."
    way = "the same" if one.gain == 0 else f"{'better' if one.gain > 0 else 'worse'} by {abs(one.gain):.4g}"
    sure = (f"{confidence:.0%} interval of the gain {one.low:+.4g} to {one.high:+.4g}"
            if one.low is not None and one.high is not None else one.why)
    return f"{one.metric} is {one.challenger:.4g}, the champion's {one.champion:.4g}: {way} ({sure})."
