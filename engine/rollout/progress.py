"""How far a step's watching has come, and what keeps it: numbers and sentences. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from engine.rollout.analysis import SILENT_S, Analysis
from engine.rollout.evidence import Counts, worse
from engine.rollout.setup import ERRORS, QUALITY
from engine.words import span

Kind = Literal["watching", "traffic", "stale", "incident", "baseline", "done", "bad"]
QUIET_S = 20.0  # how long no request at all is not yet worth a word
MOST_LEFT = 200  # failures more than this are far
PATIENT_S = 600.0  # beyond it the wait is for want of traffic, not for the plan


@dataclass(frozen=True)
class Wanted:
    """What a step's watching asks for at least: requests of the canary at this weight, seconds of
    watching there, and whether the judge must have evidence that it is no worse."""

    requests: int = 0
    hold_s: float = 0.0
    good: bool = False


@dataclass(frozen=True)
class Progress:
    """`kind` done: the step may end. `text` says what is missing and `wait_s` how long that takes at this
    rate, None where nobody can tell. `halts`: nothing can be learnt now, so the rollout stands."""

    kind: Kind
    text: str | None = None
    wait_s: float | None = None

    @property
    def halts(self) -> bool:
        return self.kind not in ("watching", "done")


def progress(analysis: Analysis, wanted: Wanted, *, stage: str, stale_s: float | None,
             blind: str | None = None) -> Progress:
    """Where the watching of `stage` stands. `stale_s`: how old the data is if it is too old, infinite before
    the first; `blind`: the sentence for data that makes no sense."""
    verdict = analysis.verdict
    if verdict is not None and verdict.verdict == "bad":
        return Progress("bad", "it is worse than the old version")
    if blind is not None:
        return Progress("stale", blind)
    if stale_s is not None:
        since = f"for {span(stale_s)}" if math.isfinite(stale_s) else "yet"
        return Progress("stale", f"nothing was measured {since}; it goes on when data comes")
    last = analysis.recent[-1] if analysis.recent else None
    if last is not None and last.mark == "incident":
        return Progress("incident", "the old version itself is failing, so that nothing can be compared; "
                        "that is an incident of its own")
    if analysis.without_baseline():
        return Progress("baseline", "nothing is measured of the old version, so that nothing can be "
                        "compared; it goes on when that has requests again")
    requests = analysis.stage_requests if analysis.stage == stage else 0
    held = analysis.stage_s if analysis.stage == stage else 0.0
    rate = analysis.rate() if analysis.stage == stage else None
    waits: list[tuple[float | None, str]] = []
    if requests < wanted.requests:
        waits.append((_needs(wanted.requests - requests, rate),
                      f"{requests:,} of {wanted.requests:,} requests at this weight"))
    if held < wanted.hold_s:
        waits.append((wanted.hold_s - held, f"{span(max(1, int(held)))} of {span(wanted.hold_s)} watched"))
    if wanted.good and (verdict is None or verdict.verdict != "good"):
        waits.append(_good(analysis))
    if not waits:
        return Progress("done")
    known = [wait for wait, _ in waits if wait is not None]
    wait_s = max(known) if len(known) == len(waits) else None
    text = "; ".join(said for _, said in waits)
    if analysis.silent_s >= SILENT_S:
        return Progress("traffic", f"the service gets no requests at all: {text}")
    if rate == 0.0 and held >= QUIET_S:
        return Progress("traffic", f"it gets no traffic: {text}", wait_s)
    if wait_s is not None and wait_s > PATIENT_S and wait_s > 2 * wanted.hold_s:
        return Progress("traffic", f"too little traffic: {text}", wait_s)
    return Progress("watching", text, wait_s)


def _needs(more: int, rate: float | None) -> float | None:
    return more / rate if rate else None


def _good(analysis: Analysis) -> tuple[float | None, str]:
    """How long the evidence that it is no worse still takes at the pace it came so far."""
    verdict = analysis.verdict
    if verdict is None or not verdict.ln_good:
        return None, "evidence that it is no worse"
    least, ln_e = min(verdict.ln_good.items(), key=lambda item: item[1])
    pace = ln_e / analysis.watched_s if analysis.watched_s else 0.0
    wait = (verdict.threshold - ln_e) / pace if pace > 0 else None
    return wait, (f"evidence of {max(ln_e, 0.0):.1f} of {verdict.threshold:.1f} that it is no worse "
                  f"({least})")


def verdict_sentence(analysis: Analysis) -> str:
    """The judge's last word, and what brought it there."""
    verdict = analysis.verdict
    if verdict is None or analysis.setup is None:
        return "not watched yet"
    if verdict.verdict == "bad":
        return f"worse: {_why(analysis, verdict.by or ERRORS)}"
    guarantee = "" if analysis.concurrent else (
        "; not concurrent: compared with what was recorded before, without a guarantee")
    guarantee += _skipped(analysis)
    if verdict.verdict == "good":
        return f"no worse than the old version, at α = {analysis.setup.alpha:g}{guarantee}"
    closest = closest_metric(analysis)
    if closest is None or verdict.ln_e[closest] <= 0.5:
        return f"undecided; nothing speaks against it{guarantee}"
    more = failures_left(analysis, closest)
    if more is None:
        return f"undecided; most against it: {_why(analysis, closest)}{guarantee}"
    return (f"undecided; about {more:,} more {_failures(analysis, closest)}, and none at the old version, "
            f"would roll it back{guarantee}")


def _skipped(analysis: Analysis) -> str:
    """Who skipped what watching, for it is no evidence."""
    if analysis.full is not None:
        return f"; {analysis.full} skipped all further watching"
    by: dict[str, list[str]] = {}
    for step, who in analysis.promoted.items():
        by.setdefault(who, []).append(step)
    return "".join(f"; {who} skipped {' and '.join(steps)}" for who, steps in by.items())


def closest_metric(analysis: Analysis) -> str | None:
    """The critical metric nearest to its own line; None where there is none."""
    verdict, setup = analysis.verdict, analysis.setup
    if verdict is None or setup is None:
        return None
    critical = {m.name: m.alpha for m in setup.metrics if m.alpha > 0 and not m.bins}
    return max(critical, key=lambda name: verdict.ln_e[name] / line(critical[name]), default=None)


def failures_left(analysis: Analysis, name: str) -> int | None:
    """How many more failures of the canary, with none of the baseline, reach the metric's line at the split
    of the last minute; None where that is far or cannot be told."""
    setup, verdict = analysis.setup, analysis.verdict
    here = sum(tick.requests[0] for tick in analysis.recent)
    there = sum(tick.requests[1] for tick in analysis.recent)
    if setup is None or verdict is None or not here or not there:
        return None
    metric = next(m for m in setup.metrics if m.name == name)
    total = analysis.totals[name]
    trial = worse(metric.tolerated_ratio)
    trial.add(Counts(*total.canary), Counts(*total.baseline))
    gap = verdict.ln_e[name] - trial.ln_e
    for more in range(1, MOST_LEFT):
        if trial.add(Counts(here, 1), Counts(there, 0)) + gap >= line(metric.alpha):
            return more
    return None


def _why(analysis: Analysis, name: str) -> str:
    total = analysis.totals[name]
    verdict, setup = analysis.verdict, analysis.setup
    assert verdict is not None and setup is not None
    metric = next(m for m in setup.metrics if m.name == name)
    if metric.bins:
        sides = "its predictions fall otherwise"
    else:
        edge = analysis.edges.get(name)
        over = f" over {1000 * edge:.0f} ms" if edge is not None else ""
        n, y = total.expected
        sides = f"{share(total.canary)}{over} against {_percent(y, n)} % of the old version's"
    return f"{name.replace('_', ' ')}{_mostly(analysis, name)}, {sides}; evidence {verdict.ln_e[name]:.1f}"


def _mostly(analysis: Analysis, name: str) -> str:
    """Which type most of the errors are of, where the types are counted too."""
    kinds = {other: total.canary[1] for other, total in analysis.totals.items()
             if name == ERRORS and other.startswith(f"{ERRORS}: ")}
    most = max(kinds, key=lambda kind: kinds[kind], default=None)
    if most is None or not kinds[most]:
        return ""
    return f" (mostly {most.removeprefix(f'{ERRORS}: ').replace('_', ' ')})"


def _failures(analysis: Analysis, name: str) -> str:
    """What one more failure of a metric is called, in the plural."""
    if name in analysis.edges:
        return f"requests over {1000 * analysis.edges[name]:.0f} ms"
    if name == QUALITY:
        return "wrong predictions"
    return "errors" if name == ERRORS else f"errors ({name.removeprefix(f'{ERRORS}: ').replace('_', ' ')})"


def share(counts: tuple[int, int]) -> str:
    """(n, y) in words: "1.9 % of 500"."""
    n, y = counts
    return f"{_percent(y, n)} % of {n:,}" if n else "none yet"


def _percent(y: float, n: int) -> str:
    """Two digits, and all of them as 100."""
    part = 100 * y / n if n else 0.0
    return f"{part:.0f}" if part >= 99.5 else f"{part:.2g}"


def line(alpha: float) -> float:
    """The ln E at which a metric with this part of α is bad by itself."""
    return -math.log(alpha) if alpha > 0 else math.inf
