"""Whether a request that broke had begun to be sent: what tells *failed* from *unknown*."""

from __future__ import annotations

from typing import Any


class Sending:
    """Pass `trace` as httpx's extension of that name; `begun` is set before the first byte goes."""

    def __init__(self) -> None:
        self.begun = False

    async def trace(self, event: str, info: dict[str, Any]) -> None:
        """Called by httpcore, with names such as `http11.send_request_headers.started`."""
        if event.endswith("send_request_headers.started"):
            self.begun = True
