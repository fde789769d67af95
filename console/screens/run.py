"""Run: one procedure step by step. The next human action is always on screen, never clipped."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import ClassVar

from textual.widget import Widget

from console import acting, asks, commands, curves, format, run_text, safety
from console.commands import bindings
from console.screens.view import View
from console.source import Link
from console.transcript import Transcript
from console.widgets.lines import BLANK, Box, Line, Lines, line
from console.widgets.table import Table
from engine.api import wire
from engine.api.backend import OutputChunk
from engine.errors import NotFound, OpsdeckError

WIDE = 140
LEFT = 56    # percent of a wide screen, as in theme.tcss
QUIET_S = 0.1  # output is drawn at most ten times a second
CURVE_S = 1.0  # between two looks at the curve of the step in focus


class RunScreen(View):
    """Follows one run, the argument, after a / `timeline`. Leaving it leaves the run as it is."""

    place: ClassVar[str] = "run"
    BINDINGS = bindings("run")

    def __init__(self, argument: str = "") -> None:
        super().__init__(argument)
        self.id_of, _, also = argument.partition("/")
        self.run: wire.RunView | None = None
        self.transcripts: dict[tuple[str, int], Transcript] = {}
        self.curves: dict[tuple[str, int], curves.Heard] = {}
        self.following = True
        self.showing_timeline = also == "timeline"
        self.events: list[wire.Event] = []
        self.problem: str | None = None
        self.missing = False
        self.top = 0
        self._current: str | None = None
        self._due = False
        self._following_run: asyncio.Task[None] | None = None
        self._following_curve: asyncio.Task[None] | None = None

    @property
    def run_id(self) -> str | None:
        return self.id_of

    def crumbs(self) -> list[str]:
        run = self.run
        if run is None:
            return ["Runs", f"#{self.id_of}"]
        dry = " dry run" if run.dry_run else ""
        service = f" {run.service}" if run.service else ""
        return ["Runs", f"{run.procedure} #{run.id}{service}{dry}"]

    def body(self) -> Iterable[Widget]:
        with Box(id="run"):
            with Box(id="what"):
                yield Table(run_text.COLUMNS, head=False, choose="id", id="steps")
                yield Lines(id="rule")
                yield Lines(id="panel")
                yield Lines(id="next")
            yield Lines(id="output")

    def table(self) -> Table:
        return self.query_one("#steps", Table)

    def on_mount(self) -> None:
        self._following_run = self.deck.begin(self._follow())
        self._following_curve = self.deck.begin(self._follow_curve())
        if self.showing_timeline:
            self.deck.begin(self._read_timeline())

    def on_unmount(self) -> None:
        """Leaving the run ends what follows it, not the run."""
        for task in (self._following_run, self._following_curve):
            if task is not None:
                task.cancel()

    async def _follow(self) -> None:
        try:
            async for item in self.deck.source.follow(self.id_of):
                if isinstance(item, wire.RunView):
                    self.take(item)
                elif isinstance(item, OutputChunk):
                    self._output(item)
                elif isinstance(item, Link):
                    self.problem = item.reason if item.state == "lost" else None
        except OpsdeckError as error:
            self.problem = acting.sentence(error, self.deck.state.user)
            self.missing = isinstance(error, NotFound)
            self.renew()

    async def _follow_curve(self) -> None:
        """Ask for the curve of the step in focus, once when it has ended, again and again while it runs."""
        while True:
            step = self.step
            if step is not None and step.kind == "action" and step.attempt:
                heard = self.curves.setdefault((step.id, step.attempt), curves.Heard())
                if not heard.final:
                    await self._hear(step, heard)
            await asyncio.sleep(CURVE_S)

    async def _hear(self, step: wire.StepView, heard: curves.Heard) -> None:
        try:
            news = heard.feed(await self.deck.source.curve(self.id_of, step.id, step.attempt, heard.next))
        except OpsdeckError:
            return  # the link says what is wrong with it
        if news and self.is_attached:
            self._draw_output()

    def take(self, run: wire.RunView) -> None:
        """A newer state of the run."""
        if self.run is not None and run.revision < self.run.revision:
            return
        self.run = run
        step = run_text.current(run)
        table = self.table()
        if step is not None and table.selected in (None, self._current):
            table.selected = step.id
        self._current = step.id if step else None
        self.renew()

    def _output(self, chunk: OutputChunk) -> None:
        key = (chunk.step, chunk.attempt)
        if self.transcripts.setdefault(key, Transcript()).feed(chunk) and not self._due:
            self._due = True
            self.set_timer(QUIET_S, self._draw_due)

    def _draw_due(self) -> None:
        self._due = False
        self._draw_output()

    @property
    def step(self) -> wire.StepView | None:
        """The selected step."""
        if self.run is None:
            return None
        selected = self.table().selected
        return next((s for s in self.run.steps if s.id == selected), None)

    def gated(self) -> wire.StepView | None:
        """The step a person may answer: the selected one if it waits, else the first that does."""
        steps = self.run.steps if self.run else []
        if self.step is not None and self.step.gate is not None:
            return self.step
        return next((s for s in steps if s.gate is not None), None)

    def update(self) -> None:
        deck, run, table = self.deck, self.run, self.table()
        wide = self.size.width >= WIDE
        self.query_one("#run").set_class(wide, "-wide")
        width = self.size.width * LEFT // 100 if wide else self.size.width
        now = deck.state.now
        text, role = run_text.next_action(run, self.gated() or self.step, deck.state)
        if run is None and self.problem:
            text, role = self.problem, "warn"
        action = [line((" " + row, role)) for row in format.wrap(text, width - 2)]
        steps = run_text.rows(run, deck.glyphs, now, stale=deck.state.stale) if run else []
        total = self.query_one("#run").size.height + (4 if wide else 0)
        spare = total - len(steps) - len(action) - (8 if wide else 14)
        facts = run_text.panel(run, self.step, now, width, 9, spare) if run and self.step else []
        if total - len(steps) - len(facts) - len(action) >= 8:
            action = [BLANK, *action, BLANK]
        high = run_text.heights(total, len(steps), len(facts), len(action))
        table.coming = max(1, high[0])
        table.styles.height, panel_h = table.coming, high[1]
        panel, following = self.query_one("#panel", Lines), self.query_one("#next", Lines)
        panel.styles.height, following.styles.height = panel_h, len(action)
        table.fit("title", max((len(row.cells["title"][0]) for row in steps), default=0))
        table.set_rows(steps)
        self.query_one("#rule", Lines).show([line((deck.glyphs.rule * width, "dim"))])
        panel.show(facts[:panel_h])
        following.show(action)
        self._draw_output()

    def _transcript(self) -> Transcript:
        step = self.step
        if step is None:
            return Transcript()
        found = self.transcripts.get((step.id, step.attempt))
        if found is not None:
            return found
        recorded = Transcript()
        if step.stdout:
            recorded.feed(OutputChunk("", step.id, step.attempt, 0, len(step.stdout.encode()),
                                      step.stdout, True))
        return recorded

    def _draw_output(self) -> None:
        output = self.query_one("#output", Lines)
        width, height = output.size
        if not height:
            return
        wide = self.size.width >= WIDE
        inner = width - (3 if wide else 2)
        if self.showing_timeline:
            texts = run_text.event_lines(self.events, self.deck.state.now, inner)
        else:
            texts = self._transcript().wrapped(inner)
        drawn = self._curve(inner, height)
        room = height - 1 - len(drawn)
        last = max(0, len(texts) - room)
        self.top = last if self.following else max(0, min(self.top, last))
        shown = texts[self.top:self.top + room]
        edge = f"{self.deck.glyphs.axis} " if wide else " "
        lines = [self._output_title(width, len(texts), room)]
        lines += [line((edge, "dim"), *spans) for spans in drawn]
        lines += [line((edge, "dim"), text) for text in shown]
        lines += [line((edge, "dim"))] * (room - len(shown)) if wide else []
        output.show(lines)

    def _curve(self, width: int, height: int) -> list[Line]:
        step = self.step
        heard = self.curves.get((step.id, step.attempt)) if step is not None else None
        if heard is None or self.showing_timeline:
            return []
        return curves.lines(heard, width, height, self.deck.glyphs)[:max(0, height - 3)]

    def _output_title(self, width: int, count: int, room: int) -> Line:
        rule = self.deck.glyphs.rule
        what = "timeline" if self.showing_timeline else "output"
        step = self.step
        if step is not None and not self.showing_timeline:
            what += f" of {step.id}"
            if step.output_file:
                what += f", all of it in {step.output_file}"
        if not count:
            what += ": none yet" if self.run and self.run.ended is None else ": none"
        elif count > room:
            where = "following" if self.following else \
                f"lines {self.top + 1} to {self.top + room} of {count}, f follows"
            what += f", {where}"
        head = f"{rule * 2} {format.clip(what, max(8, width - 6))} "
        return line((head + rule * max(0, width - len(head)), "dim"))

    def hints(self) -> list[tuple[str, str]]:
        """Only what would do something now."""
        step, run = self.gated(), self.run
        kind = step.gate.kind if step is not None and step.gate is not None else None
        ended = run is not None and run.state not in run_text.OPEN
        known = run is not None
        state = self.deck.state
        fresh = known and not state.stale
        counts = step is None or state.may(self.id_of, step.id)
        operates = safety.unentitled("confirm", state) is None
        pauses = "resume" if run is not None and run.state == "paused" else "pause"
        words = {"f": "follow" if known else "", "t": "timeline" if known else "",
                 "A": "approve" if kind == "approval" and fresh and counts else "",
                 "enter": "" if kind in (None, "approval") or not fresh or not operates else "answer",
                 "p": "" if ended or not fresh or not operates else pauses,
                 "e": "evidence" if self._has_page() else "",
                 "o": "evidence" if run is not None and asks.is_rollout(run) else "",
                 "x": "" if ended or self.missing else "abort"}
        own = [(c.show, words.get(c.show, c.hint)) for c in commands.own(self.place) if c.hint]
        everywhere = [pair for pair in super().hints() if pair[0] not in words]
        leave = [] if ended else [("esc", "back" if self.missing else "leave it running")]
        return [pair for pair in [*own, *leave, *everywhere] if pair[1]]

    def selection_moved(self) -> None:
        self.following, self.top = True, 0
        self.update()

    def copyable(self) -> str:
        transcript, step = self._transcript(), self.step
        if not transcript.empty:
            return transcript.text()
        return (step.command or "") if step else ""

    def action_open(self) -> None:
        step = self.gated()
        if self.run is None or step is None:
            self.deck.say("Nothing waits for an answer here.", passing=True)
        else:
            acting.gate(self.deck, self.run.id, step.id)

    def action_approve(self) -> None:
        step = self.gated()
        if self.run is None or step is None or step.gate is None or step.gate.kind != "approval":
            self.deck.say("Nothing waits for an approval here.", passing=True)
        else:
            acting.gate(self.deck, self.run.id, step.id)

    def action_abort(self) -> None:
        if self.run is None or self.run.state in run_text.OPEN:
            self.deck.abort_of([self.id_of], f"run {self.id_of}") if self.run is None else \
                acting.abort_run(self.deck, self.run)
        else:
            self.deck.say(f"Run {self.run.id} has ended; there is nothing to abort.", passing=True)

    def action_pause(self) -> None:
        if self.run is not None and self.run.state in run_text.OPEN:
            acting.pause(self.deck, self.run)
        else:
            self.deck.say("The run has ended; there is nothing to pause.", passing=True)

    def _has_page(self) -> bool:
        """Whether the run has come to a page of evidence."""
        steps = self.run.steps if self.run is not None else []
        return any(s.state == "done" and (s.command or "").startswith("pipeline.page") for s in steps)

    def action_page(self) -> None:
        if self._has_page():
            self.deck.go("page", self.id_of)
        else:
            self.deck.say("There is no page of evidence here, or not yet.", passing=True)

    def action_rollout(self) -> None:
        if self.run is not None and asks.is_rollout(self.run):
            known = [place for place in self.deck.trail.places
                     if place in (("rollout", self.run.id), ("rollout", self.run.service))]
            self.deck.go(*(known[-1] if known else ("rollout", self.run.id)))
        else:
            self.deck.say("This run is no rollout.", passing=True)

    def action_follow(self) -> None:
        self.following = True
        self._draw_output()

    def action_output_up(self) -> None:
        self._scroll(-1)

    def action_output_down(self) -> None:
        self._scroll(1)

    def _scroll(self, by: int) -> None:
        room = max(1, self.query_one("#output", Lines).size.height - 2)
        self.top += by * room
        self.following = False
        self._draw_output()

    def action_timeline(self) -> None:
        self.showing_timeline = not self.showing_timeline
        self.following = True
        if self.showing_timeline:
            self.deck.begin(self._read_timeline())
        self._draw_output()

    async def _read_timeline(self) -> None:
        try:
            self.events = await self.deck.source.timeline(self.id_of)
        except OpsdeckError as error:
            self.deck.complain(error)
            return
        if self.is_attached:
            self._draw_output()
