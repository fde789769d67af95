"""A rollout as text: one screen of it, one line in a list, and its parts in words."""

from __future__ import annotations

from collections.abc import Sequence

from engine.api import wire
from engine.cli.show import answer_command, wants
from engine.cli.text import (
    RUN_GLYPHS,
    STEP_GLYPHS,
    Cell,
    Tone,
    columns,
    duration,
    number,
    paint,
    plain,
    stamp,
)

BEGIN = "begin"  # the first step of every rollout's run; it has no row of its own, and counts all the same
VERDICT_TONES: dict[str, Tone] = {"bad": "bad", "good": "good", "undecided": "plain"}
METRICS = ("METRIC", "ln E", "BAD AT", "ln E GOOD", "GOOD AT")
LIST = ("", "RUN", "SERVICE", "TO", "STATE", "WEIGHT", "STEP", "VERDICT", "BY", "STARTED", "TOOK")


def percent(weight: float | None) -> str:
    """A weight in words: `5 %`, or `unknown` where the router does not say."""
    return "unknown" if weight is None else f"{weight:g} %"


def variant(name: str, version: str | None) -> str:
    """`challenger 8`; the name alone where no version is known."""
    return plain(f"{name} {version}" if version else name)


def sides(rollout: wire.Rollout) -> str:
    """`challenger 8 beside champion 7`; the first alone before the champion is known."""
    beside = f" beside {variant(rollout.champion, rollout.champion_version)}" if rollout.champion else ""
    return variant(rollout.challenger, rollout.challenger_version) + beside


def weights(given: dict[str, float]) -> str:
    """`champion 100 %, challenger 0 %`, the largest first."""
    return ", ".join(f"{plain(name)} {percent(weight)}"
                     for name, weight in sorted(given.items(), key=lambda item: -item[1]))


def word(rollout: wire.Rollout) -> str:
    """The state in words, with who paused it."""
    by = f" by {plain(rollout.paused_by)}" if rollout.paused_by else ""
    if by and rollout.state != "paused":
        return f"{rollout.state}, paused{by}"
    return rollout.state.replace("_", " ") + by


def place(rollout: wire.Rollout, step: str | None) -> str:
    """Where in the plan a step stands, numbered as by `opsdeck show`: `watch-5 (6 of 12): Watch at 5 %`."""
    ids = [one.id for one in rollout.steps]
    if step is None:
        return "no step"
    if step not in ids:
        return plain(step)
    at, before = ids.index(step), 0 if BEGIN in ids else 1
    return f"{plain(step)} ({at + before + 1} of {len(ids) + before}): {plain(rollout.steps[at].title)}"


def answer(rollout: wire.Rollout) -> str | None:
    """The command that answers what a rollout waits for, to paste; None if it waits for nothing."""
    if rollout.gate is None:
        return None
    return answer_command(rollout.gate, rollout.run, rollout.gate_step or "")


def share(counts: tuple[int, int]) -> str:
    """[n, y] as `1.01 % of 1,480`."""
    n, y = counts
    return f"{100 * y / n:.2f} % of {n:,}" if n else "no requests yet"


def verdict(rollout: wire.Rollout) -> str:
    """The verdict and its sentence, with no word twice; a reason for the end has its own line."""
    said = plain(rollout.sentence)
    if rollout.reason is not None and said == plain(rollout.reason):
        return rollout.verdict
    return said if said.startswith(rollout.verdict) else f"{rollout.verdict}: {said}"


def lines(rollout: wire.Rollout, *, colour: bool) -> list[str]:
    """One screen: the path of weights, the evidence, the budget, the verdict, what is to do."""
    rows = [("weights", _path(rollout, colour)), ("step", _step(rollout))]
    after: list[tuple[str, str]] = [("budget", budget(rollout))]
    tone = VERDICT_TONES[rollout.verdict]
    after.append(("verdict", paint(verdict(rollout), tone, colour)))
    after += [(name, paint(text, "warn", colour)) for name, text in _warnings(rollout)]
    after += [(name, text) for name, text in _next(rollout) if text]
    return [_head(rollout, colour), *map(_named, rows), "",
            *_evidence(rollout, colour), "", *map(_named, after)]


def _named(row: tuple[str, str]) -> str:
    return f"  {row[0]:<9} {row[1]}"


def _head(rollout: wire.Rollout, colour: bool) -> str:
    glyph, tone = RUN_GLYPHS[rollout.state]
    took = duration((rollout.ended or rollout.at) - rollout.started)
    return (f"{paint(f'{glyph} {word(rollout)}', tone, colour)}  rollout {plain(rollout.run)} of "
            f"{plain(rollout.service)}: {sides(rollout)}, by {plain(rollout.by)} since "
            f"{stamp(rollout.started, rollout.at)}, {took}")


def _path(rollout: wire.Rollout, colour: bool) -> str:
    steps = [step for step in rollout.steps if step.weight is not None]
    begun = [step.id for step in steps if step.state not in ("planned", "waiting", "skipped")]
    last = begun[-1] if begun else None
    stopped = rollout.ended is not None and rollout.state != "done"
    parts = []
    for step in steps:
        glyph, tone = STEP_GLYPHS[step.state]
        if step.id == last and stopped:
            glyph, tone = STEP_GLYPHS["failed"]
        elif step.id == last and rollout.ended is None:
            glyph, tone = RUN_GLYPHS["running"]
        here = " stopped here" if step.id == last and stopped else ""
        parts.append(paint(f"{glyph} {percent(step.weight)}{here}", tone, colour))
    if rollout.ended is None:
        lease = f", lease {duration(rollout.lease_s)}" if rollout.lease_s is not None else ""
        parts.append(f"now {percent(rollout.weight)}{lease}")
    return "  ".join(parts)


def _step(rollout: wire.Rollout) -> str:
    if rollout.ended is not None:
        return f"ended at {stamp(rollout.ended, rollout.at)}"
    if rollout.step is None:
        return "none"
    since = (f", for {duration(rollout.at - rollout.step_since)}" if rollout.step_since is not None else "")
    return f"{place(rollout, rollout.step)}{since}, {rollout.step_requests:,} requests"


def _evidence(rollout: wire.Rollout, colour: bool) -> list[str]:
    header = (*METRICS, plain(rollout.challenger).upper(), "EXPECTED",
              plain(rollout.champion or "baseline").upper())
    rows: list[list[Cell]] = [_metric(metric) for metric in rollout.metrics]
    rows.append([("all together", "bold"), number(rollout.ln_e_all, 2), number(rollout.threshold, 2)])
    return columns(rows, header=header, right=" rrrr", indent="  ", colour=colour)


def _metric(metric: wire.RolloutMetric) -> list[Cell]:
    edge = f" over {metric.edge_ms:.0f} ms" if metric.edge_ms is not None else ""
    name = plain(metric.title) + edge + ("" if metric.critical else " (advisory)")
    over = metric.line is not None and metric.ln_e >= metric.line
    sides = [share(metric.canary), share(metric.baseline)]
    if metric.values is not None:
        sides = [f"{text} ({plain(value)})" for value, text in zip(metric.values, sides, strict=True)]
    expected = f"{100 * metric.expected:.2f} %" if metric.expected is not None else "-"
    return [name, (number(metric.ln_e, 2), "bad" if over and metric.critical else "plain"),
            number(metric.line, 2), number(metric.ln_good, 2), number(metric.good_line, 2),
            sides[0], expected, sides[1]]


def budget(rollout: wire.Rollout) -> str:
    """`15 of 200 bad requests, 1,480 of 20,000 exposed`."""
    def used(count: int, limit: int | None) -> str:
        return f"{count:,} of {limit:,}" if limit is not None else f"{count:,}"

    return (f"{used(rollout.bad, rollout.bad_limit)} bad requests, "
            f"{used(rollout.exposed, rollout.exposed_limit)} exposed")


def missing(rollout: wire.Rollout) -> str | None:
    """What keeps it from going on, and how long that takes at this rate."""
    if rollout.missing is None:
        return None
    wait = f"; about {duration(rollout.wait_s)} at this rate" if rollout.wait_s is not None else ""
    return plain(rollout.missing) + wait


def _warnings(rollout: wire.Rollout) -> list[tuple[str, str]]:
    lacking = missing(rollout)
    found = [("missing", lacking)] if lacking else []
    if not rollout.concurrent:
        found.append(("baseline", "not concurrent: no error guarantee is claimed"))
    if not rollout.watching and rollout.ended is None:
        found.append(("watch", "nothing is analysed now"))
    return found


def _next(rollout: wire.Rollout) -> list[tuple[str, str]]:
    found = []
    if rollout.gate is not None:
        found += [("gate", plain(wants(rollout.gate, rollout.at))), ("answer", answer(rollout) or "")]
    if rollout.ended is not None:
        return [*found, ("reason", plain(rollout.reason or "")), ("to do", remedy(rollout))]
    return [*found, ("next", plain(rollout.next or "")), ("then", plain(rollout.after or "")),
            ("undo", f"abort: back to {weights(rollout.safe)}" if rollout.safe else ""),
            ("reason", plain(rollout.reason or ""))]


def ending(rollout: wire.Rollout) -> str:
    """How an ended rollout ended: `rolled back at 03:20:11Z: errors are worse`."""
    why = f": {plain(rollout.reason)}" if rollout.reason else ""
    return f"{rollout.state.replace('_', ' ')} at {stamp(rollout.ended, rollout.at)}{why}"


def remedy(rollout: wire.Rollout) -> str:
    """What can be done about a rollout that has ended."""
    if rollout.state == "done":
        return (f"`opsdeck rollout undo {plain(rollout.service)}` goes back to "
                f"{variant(rollout.champion, rollout.champion_version)}")
    return f"`opsdeck rollout retry {plain(rollout.service)}` starts it again"


def listed(rollouts: Sequence[wire.Rollout], *, now: float, colour: bool) -> list[str]:
    """Rollouts as a table, [] if there are none."""
    rows = [_row(one, now) for one in rollouts]
    return columns(rows, header=LIST, right=" r   r    r", colour=colour) if rows else []


def _row(rollout: wire.Rollout, now: float) -> list[Cell]:
    glyph, tone = RUN_GLYPHS[rollout.state]
    return [(glyph, tone), plain(rollout.run), plain(rollout.service),
            variant(rollout.challenger, rollout.challenger_version), (word(rollout), tone),
            percent(rollout.weight) if rollout.ended is None else "-", plain(rollout.step or "-"),
            (rollout.verdict, VERDICT_TONES[rollout.verdict]), plain(rollout.by),
            stamp(rollout.started, now), duration((rollout.ended or now) - rollout.started)]
