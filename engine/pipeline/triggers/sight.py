"""What cannot look, said once, again when it can, and as a ticket when that lasts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from engine.pipeline.triggers.book import Book
from engine.pipeline.triggers.deciding import Fact
from engine.pipeline.triggers.projects import Registered

log = logging.getLogger("opsdeck")
TICKET_AFTER = 3600.0  # seconds


class Sight:
    """`latest`: why a source cannot look now, by its name. `tell` is the pager's."""

    def __init__(self, book: Book, tell: Callable[[str, dict[str, Any]], None], clock: Callable[[], float]
                 ) -> None:
        self.latest: dict[str, str] = {}
        self._book = book
        self._tell = tell
        self._clock = clock

    async def lost(self, source: str, text: str) -> None:
        """Say once that a source cannot look, and go on. Raises JournalError."""
        self.latest[source] = text
        if source in self._book.state.blind:
            return
        log.warning("%s cannot look: %s", source, text)
        since = self._clock()
        await self._book.note(lambda state: [] if source in state.blind else [Fact(
            "blind", {"source": source, "since": since, "text": f"{source} cannot look: {text}"})])

    async def back(self, source: str) -> None:
        """Say that it can again, where it could not. Raises JournalError."""
        self.latest.pop(source, None)
        if source in self._book.state.blind:
            await self._book.note(lambda state: [Fact("sees", {"source": source, "text": f"{source} can look "
                                                               "again"})] if source in state.blind else [])

    async def tickets(self, known: Mapping[str, Registered]) -> None:
        """Tell whom it concerns of what has been blind for an hour, once. Raises JournalError."""
        now = self._clock()
        for source, blind in self._book.state.blind.items():
            if blind.ticket or now - blind.since < TICKET_AFTER:
                continue
            name = source.partition("/")[0]
            project = known[name].project if name in known else None
            service = project.release.service if project is not None and project.release else name
            text = f"for an hour now {blind.text}"
            self._tell("trigger.blind", {"level": "ticket", "service": service, "text": text})
            await self._book.note(lambda _, source=source, text=text: [  # type: ignore[misc]
                Fact("ticket", {"source": source, "text": text})])
