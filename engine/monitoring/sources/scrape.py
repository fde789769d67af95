"""Targets read over HTTP: the adapter the embedded default uses.

A read has one deadline over connecting, waiting and reading together, because a target that sends
a byte now and then would keep to any deadline of a single step. Nothing is followed, unpacked or
believed that was not asked for: a redirect may lead anywhere, and packed text may unfold into
gigabytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from engine.monitoring.sources.exposition import Parser, Rubbish
from engine.monitoring.sources.source import Kind, Reading, Source, Trouble

if TYPE_CHECKING:
    import httpx

LARGEST = 8 * 2**20  # bytes; 20 services with two variants and five kinds of error are about 3 MB
ACCEPT = "text/plain;version=0.0.4;q=1,text/plain;q=0.5"


class ScrapeSource:
    """One address that exposes text, with a client of its own, which closes with it."""

    def __init__(self, url: str, client: httpx.AsyncClient, deadline_s: float,
                 largest: int = LARGEST) -> None:
        self.name = shown(url)
        self._url = url
        self._client = client
        self._deadline_s = deadline_s
        self._largest = largest
        self._parser = Parser()

    async def read(self) -> Reading | Trouble:
        """One scrape. A target's own faults come back as Trouble, never as an exception."""
        import httpx

        try:
            async with asyncio.timeout(self._deadline_s):
                body = await self._fetch()
        except TimeoutError:
            return self._trouble("slow", f"gave no whole answer within {self._deadline_s:g} s")
        except (httpx.InvalidURL, httpx.UnsupportedProtocol):
            return self._trouble("failed", "is not an address to scrape; write http://HOST:PORT/PATH")
        except httpx.ConnectError as error:
            reason = str(error)
            why = "nothing answers there" if "attempts failed" in reason else f"{reason[:120]!a}"
            return self._trouble("gone", f"cannot be reached: {why}")
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            return self._trouble("gone", f"broke off: {reason[:120]!a}")
        if isinstance(body, Trouble):
            return body
        try:
            reading = self._parser.parse(body.decode())
        except UnicodeDecodeError:
            return self._trouble("rubbish", "answered with bytes that are not UTF-8 text")
        except Rubbish as error:
            return self._trouble("rubbish", f"answered with text that cannot be trusted: {error}")
        if reading is None:
            return self._trouble("empty", "answered without any metric of a service")
        return reading

    async def close(self) -> None:
        await self._client.aclose()

    async def _fetch(self) -> bytes | Trouble:
        headers = {"Accept": ACCEPT, "Accept-Encoding": "identity"}
        async with self._client.stream("GET", self._url, headers=headers) as answer:
            if answer.is_redirect:
                to = answer.headers.get("location", "nowhere")
                return self._trouble("redirect", f"points to {shown(to)[:120]!a} instead of "
                                                 "answering; give that address if it is right")
            if answer.status_code != 200:
                return self._trouble("refused", f"answered with status {answer.status_code}")
            form = answer.headers.get("content-type", "text/plain").partition(";")[0].strip()
            if form.lower() not in ("text/plain", "application/openmetrics-text"):
                return self._trouble("not_text", f"answered with {form[:60]!a}, which is not "
                                                 "metrics as text")
            if answer.headers.get("content-encoding", "identity") != "identity":
                return self._trouble("not_text", "answered with packed text, unasked")
            body = bytearray()
            async for piece in answer.aiter_raw():
                body += piece
                if len(body) > self._largest:
                    return self._trouble("huge", "answered with more than "
                                                 f"{self._largest / 2**20:g} MB")
            return bytes(body)

    def _trouble(self, kind: Kind, what: str) -> Trouble:
        return Trouble(kind, f"{self.name} {what}")


async def open_targets(urls: Sequence[str], deadline_s: float) -> Mapping[str, Source]:
    """A source for each address. httpx is loaded off the event loop."""
    clients = await asyncio.to_thread(_clients, list(dict.fromkeys(urls)))
    return {url: ScrapeSource(url, client, deadline_s) for url, client in clients.items()}


def _clients(urls: Sequence[str]) -> dict[str, httpx.AsyncClient]:
    """A client for each address: a pool looks at all its connections for every request, so one pool
    for a fleet would cost the square of it."""
    import ssl

    import httpx

    secure = any(url.lower().startswith("https:") for url in urls)
    verify: ssl.SSLContext | bool = ssl.create_default_context() if secure else False
    # proxies and passwords of the environment are for people: a target is asked directly
    return {url: httpx.AsyncClient(verify=verify, trust_env=False, follow_redirects=False,
                                   timeout=None, limits=httpx.Limits(keepalive_expiry=30.0))
            for url in urls}


def shown(url: str) -> str:
    """An address as people may see it: without user, password and query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an address that cannot be read"
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))
