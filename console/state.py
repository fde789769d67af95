"""What the console knows at one moment, and how old that is."""

from __future__ import annotations

from collections import Counter

from console.source import Clock, Link, Tick
from engine.api import wire

STALE_AFTER_S = 5.0
RECENT_S = 3600.0  # how long Fleet still says that a rollout has ended
GATE_WORDS: dict[str, tuple[str, str]] = {
    "approval": ("approval", "approvals"), "confirm": ("confirmation", "confirmations"),
    "typed": ("confirmation", "confirmations"), "answer": ("question", "questions"),
    "settle": ("unknown outcome", "unknown outcomes"), "failed": ("failed step", "failed steps")}


class State:
    """The newest tick with the console's own mode. Changed by the app alone, read by every view."""

    def __init__(self, clock: Clock, *, write: bool = False, read_only: bool = False) -> None:
        self.clock = clock
        self.tick = Tick(None, None, Link("connecting"))
        self.read_only = read_only
        self.write = write and not read_only
        self.too_small = False
        self.skipped: tuple[str, str | None] | None = None  # the run, and the step or all of them
        self.aborted: set[str] = set()  # the runs whose abort the engine has taken from here
        self.ended: dict[str, wire.Rollout] = {}  # the last of each service, as far as it was read

    @property
    def snapshot(self) -> wire.Snapshot | None:
        return self.tick.snapshot

    @property
    def link(self) -> Link:
        return self.tick.link

    @property
    def age(self) -> float | None:
        """Seconds since the engine's last sign of life; None before the first."""
        return None if self.tick.heard is None else max(0.0, self.clock() - self.tick.heard)

    @property
    def away(self) -> bool:
        """Whether no engine is heard: its stream has broken and is not back."""
        return self.link.state == "lost"

    @property
    def stale(self) -> bool:
        """Whether what is shown may not hold any more: it is old, or the engine is away since just now."""
        age = self.age
        return age is None or age > STALE_AFTER_S or self.away

    @property
    def now(self) -> float:
        """The engine's time, as far as is known: the snapshot's plus the time since it came."""
        snapshot, age = self.snapshot, self.age
        return (snapshot.at if snapshot else 0.0) + (age or 0.0)

    @property
    def user(self) -> str:
        """Who the engine says is asking; "" before the first snapshot."""
        return self.snapshot.engine.user if self.snapshot else ""

    @property
    def services(self) -> list[wire.Service]:
        return self.snapshot.services if self.snapshot else []

    @property
    def runs(self) -> list[wire.RunSummary]:
        return self.snapshot.runs if self.snapshot else []

    @property
    def waiting(self) -> list[wire.Waiting]:
        return self.snapshot.waiting if self.snapshot else []

    def service(self, name: str) -> wire.Service | None:
        return next((s for s in self.services if s.name == name), None)

    def rolls_out(self, run: str) -> bool:
        """Whether a run is a rollout that is under way."""
        return any((s.rollout or {}).get("run") == run for s in self.services)

    def skips(self, rollout: wire.Rollout) -> bool:
        """Whether the watching a rollout is at was skipped from here, and the engine is yet to follow."""
        return self.skipped in ((rollout.run, rollout.step), (rollout.run, None))

    def may_answer(self, rollout: wire.Rollout) -> bool:
        """Whether this person's answer counts at a rollout's gate, as far as is known."""
        return self.may(rollout.run, rollout.gate_step)

    def may(self, run: str, step: str | None) -> bool:
        """Whether this person's answer counts at a gate, as far as is known."""
        return all(w.may for w in self.waiting if w.run == run and w.step == step)

    def just_ended(self, service: wire.Service) -> wire.Rollout | None:
        """The rollout that ended on a service within the hour, if none runs there now."""
        one = self.ended.get(service.name)
        if one is None or one.ended is None or service.rollout or self.now - one.ended >= RECENT_S:
            return None
        return one

    def newly_ended(self) -> frozenset[str]:
        """The runs on a service that ended within the hour; whether they are rollouts they do not say."""
        return frozenset(r.id for r in self.runs if r.ended is not None and r.service is not None
                         and not r.dry_run and self.now - r.ended < RECENT_S)

    @property
    def pages(self) -> int:
        """How many alerts page now."""
        return sum(a.level == "page" for s in self.services for a in s.alerts)

    def waits_for_me(self) -> list[tuple[int, str]]:
        """(count, word) of what waits for this person's answer, the most frequent first."""
        counts = Counter(GATE_WORDS[w.kind] for w in self.waiting if w.may)
        return [(n, words[n != 1]) for words, n in counts.most_common()]
