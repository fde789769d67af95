"""Rollout: the evidence growing towards its lines, and what a person must do about it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import ClassVar, Literal

from textual.widget import Widget

from console import acting, commands, evidence, format, rollout_asks, rollout_text, safety
from console.commands import bindings
from console.run_text import OPEN
from console.screens.view import View
from console.state import STALE_AFTER_S
from console.widgets.lines import Line, Lines, line
from engine.api import wire
from engine.api.backend import Verb
from engine.errors import NotFound, OpsdeckError

LEAST_S = 1.0      # between two readings
AGAIN_S = 2.0      # what changed without a tick is read after so long
PICTURE = 7        # lines that a plot wants at least
WAY_BACK = "rollback-after-promotion"


class Panel(Lines):
    """Drawn anew when a message takes room from it or gives it back: the next action stays whole."""

    def on_resize(self) -> None:
        if isinstance(self.screen, RolloutScreen):
            self.screen.draw()


class RolloutScreen(View):
    """The argument is a service, or the id of a rollout's run.

    The ticks of the fleet say when to read: at most once a second, in the background, and never two
    readings at once.
    """

    place: ClassVar[str] = "rollout"
    BINDINGS = bindings("rollout")

    def __init__(self, argument: str = "") -> None:
        super().__init__(argument)
        self.rollout: wire.Rollout | None = None
        self.problem: str | None = None
        self.missing = False
        self.showing: Literal["numbers", "evidence", "diff"] = "numbers"
        self.page = 0
        self.heard: float | None = None
        self._seen: wire.Snapshot | None = None
        self._read_at: float | None = None
        self._reading = self._again = False

    @property
    def run_id(self) -> str | None:
        return self.rollout.run if self.rollout else None

    def crumbs(self) -> list[str]:
        one = self.rollout
        if one is None:
            return ["Rollouts", self.argument]
        return ["Rollouts", f"{one.service} {rollout_asks.versions(one, self.deck.glyphs.arrow)}"]

    def body(self) -> Iterable[Widget]:
        yield Panel(id="rollout")

    def on_mount(self) -> None:
        self._seen = self.deck.state.snapshot
        self._read(settle=True)  # keys that were typed ahead wait for it

    def update(self) -> None:
        self._read_if_due()
        self.draw()

    def _read_if_due(self) -> None:
        """Read when a tick has come or time has passed; an ended rollout only until it was seen ended."""
        snapshot, clock = self.deck.state.snapshot, self.deck.source.clock()
        since = None if self._read_at is None else clock - self._read_at
        moved = snapshot is not self._seen
        if since is not None and (since < LEAST_S or not (moved or since >= AGAIN_S) or self._settled()):
            return
        self._seen = snapshot
        self._read()

    def _settled(self) -> bool:
        """Whether what is shown has ended and nothing newer runs in its place."""
        one = self.rollout
        if one is None or one.ended is None:
            return False
        service = self.deck.state.service(self.argument)
        return service is None or (service.rollout or {}).get("run") in (None, one.run)

    def _read(self, *, settle: bool = False) -> None:
        if self._reading:
            self._again = True
            return
        self._reading, self._read_at = True, self.deck.source.clock()
        self.deck.begin(self._fetch(), settle=settle)

    async def _fetch(self) -> None:
        try:
            self.rollout = await self.deck.source.rollout(self.argument)
        except OpsdeckError as error:
            self.problem = acting.sentence(error, self.deck.state.user)
            self.missing = isinstance(error, NotFound)
        else:
            self.problem, self.missing, self.heard = None, False, self.deck.source.clock()
        finally:
            self._reading = False
        if self._again:
            self._again = False
            self._read()
        if self.is_attached:
            self.renew()

    def take(self, run: wire.RunView) -> None:
        """The run has changed under an act: what is shown is read anew at once."""
        self._read()

    def old(self) -> str | None:
        """Why what is shown is not fresh though the engine answers; None when it is."""
        one = self.rollout
        if one is None or one.ended is not None or self.heard is None:
            return None
        age = self.deck.source.clock() - self.heard
        if age <= STALE_AFTER_S and self.problem is None:
            return None
        return f"What is shown of this rollout is {format.age(age)} old. {self.problem or ''}".rstrip()

    def draw(self) -> None:
        deck, panel = self.deck, self.query_one("#rollout", Lines)
        width, height = self.size.width, panel.size.height
        if not height:
            return
        if self.rollout is None:
            text = self.problem or deck.state.link.reason or "Reading the rollout."
            panel.show([line((f" {row}", "warn" if self.problem else "dim"))
                        for row in format.wrap(text, width - 2)])
        elif self.showing != "numbers":
            panel.show(self._whole(self.rollout, width, height))
        else:
            panel.show(rollout_text.screen(self.rollout, deck.state, deck.glyphs, width, height, self.old()))

    def _whole(self, one: wire.Rollout, width: int, height: int) -> list[Line]:
        """The plots, or the difference of the manifests, with the next action below all the same."""
        deck, state = self.deck, self.deck.state
        text, role = rollout_text.next_action(one, state, self.old())
        action = [line((f" {row}", role)) for row in format.wrap(text, width - 2)]
        room = height - len(action) - 3
        if self.showing == "evidence":
            title = "ln E of each metric over time; at the dotted line it is rolled back"
            body, pages = self._pictures(one, width, room)
        else:
            title = f"How the manifests of {rollout_asks.versions(one)} differ"
            body, pages = rollout_text.differences(one, width, room, self.page)
        self.page = max(0, min(self.page, pages - 1))
        more = f"  {self.page + 1}/{pages} PgDn" if pages > 1 else ""
        status = rollout_text.status(one, deck.glyphs, state.now, width,
                                     back=rollout_text.going_back(one, state),
                                     fresh=not state.stale and self.old() is None, away=state.away)
        lines = [status, line((f" {title}", "head"), (more, "ask")), *body]
        lines += [()] * (height - len(lines) - len(action) - 1)
        return [*lines, line((deck.glyphs.rule * width, "dim")), *action]

    def _pictures(self, one: wire.Rollout, width: int, room: int) -> tuple[list[Line], int]:
        """A page of plots, and how many pages there are."""
        columns = 3 if width >= evidence.WIDE else 2
        each = columns * max(1, room // PICTURE)
        pages = max(1, -(-len(one.metrics) // each))
        page = max(0, min(self.page, pages - 1))
        shown = one.metrics[page * each:(page + 1) * each]
        return evidence.pictures(shown, one, width, room, columns, self.deck.glyphs), pages

    def hints(self) -> list[tuple[str, str]]:
        """Only what would do something now."""
        one = self.rollout
        if one is None:
            open_ = not self.missing and (self.argument.isdigit() or self.rolls(self.argument))
            return [pair for pair in super().hints() if pair[0] in ("a", ":", "?", *("x" * open_))]
        running = one.state in OPEN
        state = self.deck.state
        may = {verb for verb in safety.ROLES if safety.unentitled(verb, state) is None}
        acts = running and not state.stale and self.old() is None
        acts = acts and not rollout_text.going_back(one, self.deck.state)
        on = acts and one.watching and one.weight is not None
        watch = on and one.state == "running"
        gate = one.gate.kind if one.gate is not None else None
        gate = gate if self.deck.state.may_answer(one) else None
        pauses = "resume" if one.state == "paused" else "pause"
        words = {"A": "" if gate is None or not on else "approve" if gate == "approval" else "answer",
                 "p": pauses if acts and pauses in may else "",
                 "P": "skip watching" if watch and "promote" in may else "",
                 "F": "skip all" if watch and "promote-full" in may else "",
                 "x": "abort" if running else "",
                 "u": "way back" if one.state == "done" and "start" in may else "",
                 "R": "try again" if not running and one.state != "done" and "start" in may else "",
                 "e": "numbers" if self.showing == "evidence" else "evidence",
                 "d": "numbers" if self.showing == "diff" else "diff" if one.diff else ""}
        own = [(c.show, words.get(c.show, c.hint)) for c in commands.own(self.place) if c.hint]
        everywhere = [pair for pair in super().hints() if pair[0] not in words and pair not in own]
        return [pair for pair in [*own, *everywhere] if pair[1]]

    def copyable(self) -> str:
        return "\n".join("".join(text for text, _ in spans).rstrip()
                         for spans in self.query_one("#rollout", Lines).lines).strip("\n")

    def action_approve(self) -> None:
        one = self.rollout
        if one is None or one.gate is None or one.gate_step is None:
            self.deck.say("Nothing waits for an approval here.", passing=True)
        elif refused := self.refused("approve", one):
            self.deck.say(refused, "warn")
        else:
            acting.gate(self.deck, one.run, one.gate_step)

    def refused(self, verb: str, one: wire.Rollout) -> str | None:
        """Why `verb` is not done on what is shown."""
        if refused := rollout_text.refused(verb, one, self.deck.state):
            return refused
        old = self.old()
        return f"{old} Nothing is done on it. {safety.abort_works(self.deck.state)}" if old else None

    def _put(self, verb: Verb) -> None:
        one = self.rollout
        if one is None or one.state not in OPEN:
            self.deck.say("This rollout has ended." if one else "The rollout is not known yet.", passing=True)
        elif refused := self.refused(verb, one):
            self.deck.say(refused, "warn")
        else:
            acting.of_rollout(self.deck, verb, one.run)

    def action_pause(self) -> None:
        paused = self.rollout is not None and self.rollout.state == "paused"
        self._put("resume" if paused else "pause")

    def action_promote(self) -> None:
        self._put("promote")

    def action_promote_full(self) -> None:
        self._put("promote-full")

    def action_abort(self) -> None:
        one = self.rollout
        if one is None:
            service = self.deck.state.service(self.argument)
            run = str((service.rollout or {}).get("run", "")) if service else self.argument
            self.deck.abort_of([run] if run else [], f"rollout {self.argument}")
        elif one.state in OPEN:
            acting.abort_rollout(self.deck, one)
        else:
            self.deck.say("This rollout has ended; there is nothing to abort.", passing=True)

    def action_evidence(self) -> None:
        self._show("evidence")

    def action_diff(self) -> None:
        self._show("diff")

    def _show(self, what: Literal["evidence", "diff"]) -> None:
        self.showing, self.page = "numbers" if self.showing == what else what, 0
        self.renew()

    def action_page_down(self) -> None:
        self.page += 1
        self.draw()

    def action_page_up(self) -> None:
        self.page -= 1
        self.draw()

    def action_open(self) -> None:
        if self.rollout is not None:
            self.deck.go("run", self.rollout.run)

    def action_timeline(self) -> None:
        if self.rollout is not None:
            self.deck.go("run", f"{self.rollout.run}/timeline")

    def action_way_back(self) -> None:
        one = self.rollout
        if one is None or one.state != "done":
            self.deck.say("Only a promoted rollout has a way back; x aborts one that runs.", passing=True)
        else:
            self.deck.go("start", shlex.join([WAY_BACK, f"service={one.service}", f"to={one.champion}"]))

    def action_retry(self) -> None:
        one = self.rollout
        if one is None:
            self.deck.say("The rollout is not known yet.", passing=True)
        elif one.state == "done":
            self.deck.say("It was promoted; u starts the way back.", passing=True)
        else:
            self.deck.begin(self._retry(one), settle=True)

    async def _retry(self, one: wire.Rollout) -> None:
        """The form of the same procedure, filled in with what it was started with.

        Whether it has ended the run says: what is shown may be a second behind an abort.
        """
        try:
            run = await self.deck.source.run(one.run)
        except OpsdeckError as error:
            self.deck.complain(error)
            return
        if run.state in OPEN:
            back = rollout_text.going_back(one, self.deck.state)
            self.deck.say("It still goes back; R tries again once it has ended." if back else
                          "It still runs; R tries again a rollout that has ended.", passing=True)
            return
        given = [f"{name}={value}" for name, value in run.params.items() if value is not None]
        self.deck.go("start", shlex.join([one.procedure, *given]))
