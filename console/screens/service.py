"""Service: one service over time, champion beside challenger on one scale."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual.widget import Widget

from console import service_text
from console.commands import bindings
from console.screens.fleet import advice
from console.screens.view import View
from console.widgets.lines import Lines, line
from engine.api import wire
from engine.errors import OpsdeckError

POINTS = 150


class ServiceView(View):
    """The argument is the service's name. `h` switches the stretch of time."""

    place: ClassVar[str] = "service"
    BINDINGS = bindings("service")

    def __init__(self, argument: str = "") -> None:
        super().__init__(argument)
        self.number = 0
        self.series: wire.Series | None = None
        self._read_at: float | None = None
        self._reading = False

    @property
    def stretch(self) -> service_text.SpanOf:
        return service_text.SPANS[self.number]

    def crumbs(self) -> list[str]:
        return ["Fleet", self.argument]

    def hints(self) -> list[tuple[str, str]]:
        names = [f"[{s.name}]" if s is self.stretch else s.name for s in service_text.SPANS]
        return [(key, " ".join(names) if key == "h" else word) for key, word in super().hints()
                if key != "o" or self.rolled(self.argument)]

    def body(self) -> Iterable[Widget]:
        yield Lines(id="advice")
        yield Lines(id="signals")

    def update(self) -> None:
        state = self.deck.state
        service = state.service(self.argument)
        panel, sentence = self.query_one("#signals", Lines), self.query_one("#advice", Lines)
        if service is None:
            sentence.show([line((f" There is no service {self.argument} in what the engine sends."
                                 if state.snapshot else " Waiting for the engine.", "warn"))])
            panel.show([])
            return
        now = state.now
        if not state.stale and (self._read_at is None or now - self._read_at >= self.stretch.again):
            self._read(now)
        lines = advice(service, state, self.size.width)
        sentence.styles.height = len(lines)
        sentence.show(lines)
        panel.show(service_text.screen(service, self.series, self.size.width, panel.size.height,
                                       self.deck.glyphs))

    def _read(self, now: float) -> None:
        if not self._reading:
            self._reading, self._read_at = True, now
            self.deck.begin(self._fetch(self.stretch))

    async def _fetch(self, stretch: service_text.SpanOf) -> None:
        try:
            series = await self.deck.source.history(self.argument, stretch.seconds, POINTS)
        except OpsdeckError as error:
            self.deck.complain(error)
            return
        finally:
            self._reading = False
        if self.is_attached and stretch is self.stretch:
            self.series = series
            self.update()

    def copyable(self) -> str:
        return "\n".join("".join(text for text, _ in spans).rstrip()
                         for spans in self.query_one("#signals", Lines).lines)

    def action_span(self) -> None:
        self.number = (self.number + 1) % len(service_text.SPANS)
        self.series, self._read_at = None, None
        self.renew()

    def action_rollout(self) -> None:
        self.show_rollout(self.argument)

    def action_suggest(self) -> None:
        self.deck.suggest(self.argument)
