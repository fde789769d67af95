"""What a person is asked before a rollout is changed: target, present state, effect, undo, choices. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from console import asks
from console.asks import Ask, Choice, Fact
from console.safety import rolling, stated
from engine.api import wire
from engine.api.backend import Verb

DIGEST = re.compile(r"[0-9a-f]{32,}")


def versions(rollout: wire.Rollout, arrow: str = "to") -> str:
    return f"{rollout.champion_version or '?'} {arrow} {rollout.challenger_version or '?'}"


def said(rollout: wire.Rollout) -> str:
    """The judge's verdict and why, no word twice; why a person ended it is told elsewhere."""
    begins = {"bad": ("worse", "bad", "the new version is worse"), "good": ("no worse", "good"),
              "undecided": ("undecided", "not watched")}
    sentence = rollout.sentence.rstrip(".")
    if rollout.verdict != "bad" and sentence == (rollout.reason or "").rstrip("."):
        return rollout.verdict
    return sentence if sentence.startswith(begins[rollout.verdict]) else f"{rollout.verdict}: {sentence}"


def difference(rollout: wire.Rollout, most: int) -> str:
    """How the versions' manifests differ: the first `most` values."""
    parts = [f"{key} {_brief(old)} to {_brief(new)}" for key, old, new in rollout.diff[:most]]
    left = len(rollout.diff) - len(parts)
    return "; ".join(parts) + (f"; {left} more, d shows them" if left else "")


def _brief(value: str) -> str:
    """A digest by its beginning, as people compare them; anything else whole."""
    return f"{value[:8]}…" if DIGEST.fullmatch(value) else value


def weights(given: Mapping[str, float]) -> str:
    """`champion 95 %, challenger 5 %`, the heaviest first."""
    if not given:
        return "the weights from before"
    ordered = sorted(given.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {weight:g} %" for name, weight in ordered)


def target(rollout: wire.Rollout) -> str:
    return (f"{rollout.service}, version {versions(rollout)}: run {rollout.run}, {rollout.procedure}, "
            f"started by {rollout.by}")


def live(rollout: wire.Rollout) -> str:
    """The canary's share of the traffic as the router last said, and the step."""
    share = "the router does not say what it gets" if rollout.weight is None else \
        f"the canary gets {rollout.weight:g} %"
    step = f", at step {rollout.step}" if rollout.step else ""
    return f"{rollout.state}{step}; {share}"


def _ln(value: float) -> str:
    return f"{round(value, 1) + 0.0:.1f}"  # no minus before a nought


def evidence(rollout: wire.Rollout) -> list[Fact]:
    """The verdict with its reason, the metric that is nearest to its line, what it has cost so far."""
    facts = [("Verdict", said(rollout))]
    asked = [m for m in rollout.metrics if m.critical and m.line]
    if asked:
        worst = max(asked, key=lambda m: m.ln_e / (m.line or 1.0))
        facts.append(("Evidence", f"{worst.title} is nearest to its line, ln E {_ln(worst.ln_e)} of "
                                  f"{worst.line:.1f}; all together {_ln(rollout.ln_e_all)} of "
                                  f"{rollout.threshold:.1f}"))
    if rollout.missing:
        facts.append(("Missing", rollout.missing))
    if not rollout.concurrent:
        facts.append(("Careful", "not concurrent: no error guarantee"))
    limit = f" of {rollout.exposed_limit:,}" if rollout.exposed_limit else ""
    bad = f" of {rollout.bad_limit:,}" if rollout.bad_limit else ""
    facts.append(("Exposed", f"{rollout.exposed:,}{limit} requests so far, {rollout.bad:,}{bad} bad"))
    return facts


def _undo(rollout: wire.Rollout) -> str:
    return f"x restores {weights(rollout.safe)}"


def gate(rollout: wire.Rollout, run: wire.RunView, step: wire.StepView, now: float) -> Ask:
    """The question a gate of a rollout puts: the run's own, with versions and evidence in front."""
    ask = asks.gate(run, step, now)
    own = [fact for fact in ask.facts if fact[0] not in ("Target", "Undo", "Effect", "Why")]
    differs = [("Differs", difference(rollout, 3))] if rollout.diff else []
    facts = [("Target", target(rollout)), *differs, *evidence(rollout), *own,
             *([("Next", rollout.after)] if rollout.after else []), ("Undo", _undo(rollout)),
             *[fact for fact in ask.facts if fact[0] in ("Effect", "Why")]]
    return Ask(ask.title, tuple(facts), ask.choices, ask.run, ask.step, ask.stated, ask.digest, ask.world,
               rolling(rollout))


def _verb(rollout: wire.Rollout, run: wire.RunView, title: str, effect: str, undo: str,
          choice: Choice, *, shown: list[Fact] | None = None, step: str | None = None) -> Ask:
    facts = [("Target", target(rollout)), ("Now", live(rollout)), *(shown or []), ("Effect", effect),
             ("Undo", undo)]
    return Ask(title, tuple(facts), (choice,), rollout.run, step, stated(run, None),
               rolling=rolling(rollout))


def promote(rollout: wire.Rollout, run: wire.RunView) -> Ask:
    step = rollout.step or "the present step"
    after = f", and goes on: {rollout.after}" if rollout.after else ", and goes on with the next step"
    return _verb(
        rollout, run, f"Skip the watching of {step}?",
        f"{step} ends without the evidence it waits for{after}. The judge still watches; approvals are "
        "still asked for.", _undo(rollout), Choice("y", f"skip the watching of {step}", "promote"),
        shown=evidence(rollout), step=rollout.step)


def promote_full(rollout: wire.Rollout, run: wire.RunView) -> Ask:
    name = rollout.service
    return _verb(
        rollout, run, f"Promote {name} {rollout.challenger_version or ''} without further watching?",
        "every further watching is skipped, to the last weight and the promotion. The judge still rolls "
        "it back on bad evidence; approvals are still asked for.",
        f"{_undo(rollout)}; once promoted, u starts the way back",
        Choice("y", "skip all further watching", "promote-full", "typed",
               f"Type {name} and enter to skip all further watching", name),
        shown=evidence(rollout))


def pause(rollout: wire.Rollout, run: wire.RunView) -> Ask:
    if rollout.state == "paused":
        by = {None: "", "engine": " by the engine"}.get(rollout.paused_by, f" by {rollout.paused_by}")
        missing = [("Missing", rollout.missing)] if rollout.missing else []
        return _verb(rollout, run, f"Resume the rollout of {rollout.service}?",
                     f"goes on with {rollout.step or 'its next step'}", "p pauses it again",
                     Choice("y", "resume", "resume"), shown=[("Paused", f"it is paused{by}"), *missing])
    return _verb(rollout, run, f"Pause the rollout of {rollout.service}?",
                 "the canary keeps the traffic it has and stays watched; no further weight is set",
                 "p resumes it", Choice("y", "pause", "pause"))


def abort(rollout: wire.Rollout) -> Ask:
    """Made of what is shown, without asking the engine: x, y is all it takes."""
    facts = (("Target", target(rollout)), ("Now", live(rollout)),
             ("Effect", f"the weights from before come back: {weights(rollout.safe)}"),
             ("Undo", "R starts the rollout anew, from its first step"))
    return Ask(f"Abort the rollout of {rollout.service} and roll back?", facts,
               (Choice("y", f"abort; {weights(rollout.safe)}", "abort", rollback=True),), rollout.run)


def about(verb: Verb, rollout: wire.Rollout, run: wire.RunView) -> Ask:
    """The question of one of the verbs promote, promote-full, pause and resume."""
    made = {"promote": promote, "promote-full": promote_full}.get(verb, pause)
    return made(rollout, run)
