"""Page: the evidence that a pipeline's run gives to whoever approves what follows it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import ClassVar

from textual.widget import Widget

from console import acting, commands, format, markdown, safety
from console.commands import bindings
from console.screens.view import View
from console.widgets.lines import Line, Lines, line
from engine.api import wire
from engine.errors import OpsdeckError


class PageScreen(View):
    """The page of one run, the argument. A run writes it once; the run itself is followed, for its gate."""

    place: ClassVar[str] = "page"
    BINDINGS = bindings("page")

    def __init__(self, argument: str = "") -> None:
        super().__init__(argument)
        self.page: wire.Page | None = None
        self.run: wire.RunView | None = None
        self.problem: str | None = None
        self.top = 0
        self._drawn: tuple[int, list[Line], list[int]] = (0, [], [])
        self._following: asyncio.Task[None] | None = None

    @property
    def run_id(self) -> str | None:
        return self.argument

    def crumbs(self) -> list[str]:
        return ["Runs", f"#{self.argument}", "Evidence"]

    def body(self) -> Iterable[Widget]:
        yield Lines(id="page")

    def on_mount(self) -> None:
        self.deck.begin(self._fetch(), settle=True)  # keys that were typed ahead wait for it
        self._following = self.deck.begin(self._follow())

    def on_unmount(self) -> None:
        if self._following is not None:
            self._following.cancel()

    async def _fetch(self) -> None:
        try:
            self.page = await self.deck.source.page(self.argument)
        except OpsdeckError as error:
            self.problem = acting.sentence(error, self.deck.state.user)
        if self.is_attached:
            self.renew()

    async def _follow(self) -> None:
        try:
            async for item in self.deck.source.follow(self.argument):
                if isinstance(item, wire.RunView):
                    self.take(item)
        except OpsdeckError:
            return  # the page says that there is no such run

    def take(self, run: wire.RunView) -> None:
        if self.run is None or run.revision >= self.run.revision:
            self.run = run
            self.renew()

    def _lines(self) -> tuple[list[Line], list[int]]:
        width = self.size.width
        if self.page is not None and self._drawn[0] != width:
            self._drawn = (width, *markdown.lines(self.page.text, width - 2, self.deck.glyphs))
        return self._drawn[1], self._drawn[2]

    def update(self) -> None:
        panel = self.query_one("#page", Lines)
        width, height = self.size.width, panel.size.height
        if not height:
            return
        if self.page is None:
            text = self.problem or self.deck.state.link.reason or "Reading the page."
            panel.show([line((f" {row}", "warn" if self.problem else "dim"))
                        for row in format.wrap(text, width - 2)])
            return
        rows, _ = self._lines()
        self.top = max(0, min(self.top, len(rows) - height))
        panel.show([((" ", "text"), *row) for row in rows[self.top:self.top + height]])

    def gate(self) -> wire.StepView | None:
        """The step that waits for the approval this page is for."""
        steps = self.run.steps if self.run is not None and self.run.ended is None else []
        return next((s for s in steps if s.gate is not None and s.gate.kind == "approval"), None)

    def hints(self) -> list[tuple[str, str]]:
        step, state = self.gate(), self.deck.state
        may = step is not None and not state.stale and state.may(self.argument, step.id)
        empty = {"approve": not may, "heading": self.page is None}
        own = [(c.show, c.hint) for c in commands.own(self.place) if c.hint and not empty.get(c.action)]
        left = len(self._lines()[0]) - self.top - self.query_one("#page", Lines).size.height
        where = [("PgDn", f"{left} more lines")] if left > 0 else []
        known = {command.show for command in commands.own(self.place)}
        return [*where, *own, *(pair for pair in super().hints() if pair[0] not in known)]

    def copyable(self) -> str:
        return self.page.text if self.page is not None else ""

    def _move(self, by: int) -> None:
        self.top += by
        self.renew()

    def _page(self) -> int:
        return max(1, self.query_one("#page", Lines).size.height - 2)

    def action_page_down(self) -> None:
        self._move(self._page())

    def action_page_up(self) -> None:
        self._move(-self._page())

    def action_heading(self) -> None:
        after = [at for at in self._lines()[1] if at > self.top]
        if after:
            self._move(after[0] - self.top)

    def action_heading_back(self) -> None:
        before = [at for at in self._lines()[1] if at < self.top]
        if before:
            self._move(before[-1] - self.top)

    def action_open(self) -> None:
        self.deck.go("run", self.argument)

    def action_approve(self) -> None:
        step = self.gate()
        if step is None:
            self.deck.say("Nothing waits for an approval here.", passing=True)
        elif (why := safety.unentitled("approve", self.deck.state)) is not None:
            self.deck.say(why, passing=True)
        else:
            acting.gate(self.deck, self.argument, step.id)
