"""Targets that a Prometheus already scrapes, read by instant queries of the same families.

The counters are asked for as they stand and series by series, never as a `rate` or a `sum`: a sum
of counters falls when one of them restarts, and would look like a restart of all. What is read is
as old as Prometheus' own last scrape; the reading says how old, and the signals are no finer than
that.

prometheus-api-client blocks, so each read runs in a thread, one at a time.
"""

from __future__ import annotations

import asyncio
import json
import time
from array import array
from collections.abc import Mapping, Sequence
from math import inf, isfinite
from typing import Any

from engine.monitoring.histograms import Histogram, well_formed
from engine.monitoring.sources.assembly import (
    BUCKET,
    COUNTERS,
    GAUGES,
    assembled,
    key_of,
    tally_of,
)
from engine.monitoring.sources.scrape import LARGEST, shown
from engine.monitoring.sources.source import Key, Kind, Reading, Source, Tally, Trouble

FAMILIES = f'{{__name__=~"{"|".join((BUCKET, *GAUGES, *COUNTERS))}",service!=""}}'
# family by family, because timestamp() drops the name and two series may not look the same
AGE = "time() - max({})".format(" or ".join(f'timestamp({name}{{service!=""}})'
                                            for name in (BUCKET, *GAUGES)))


class _Refused(Exception):
    """An answer that is not read on: what kind of trouble it is, and in words."""

    def __init__(self, kind: Kind, what: str) -> None:
        super().__init__(what)
        self.kind = kind


class PrometheusSource:
    """One Prometheus. Its client is loaded in the thread of the first read."""

    def __init__(self, url: str, deadline_s: float) -> None:
        self.name = shown(url)
        self._url = url.rstrip("/")
        self._deadline_s = deadline_s
        self._connect: Any = None
        self._under_way: asyncio.Future[Reading | Trouble] | None = None

    async def read(self) -> Reading | Trouble:
        """One reading, or why there is none; never raises for what Prometheus does."""
        if self._under_way is None or self._under_way.done():
            self._under_way = asyncio.ensure_future(asyncio.to_thread(self._ask))
        try:
            async with asyncio.timeout(self._deadline_s):
                return await asyncio.shield(self._under_way)
        except TimeoutError:
            return self._trouble("slow", f"gave no whole answer within {self._deadline_s:g} s")

    async def close(self) -> None:
        """Wait for a read under way, which has a deadline of its own, and close the session."""
        if self._under_way is not None:
            await asyncio.wait([self._under_way])
        if self._connect is not None:
            self._connect.close()

    def _ask(self) -> Reading | Trouble:
        import requests

        try:
            if self._connect is None:
                self._connect = _connect(self._url, self._deadline_s)
        except ValueError as error:
            return self._trouble("failed", f"is not the address of a Prometheus: {error}")
        try:
            asked = time.monotonic()
            rows = self._connect.custom_query(FAMILIES, timeout=self._deadline_s)
            then = {"time": rows[0]["value"][0]} if rows else {}
            age = rows and self._connect.custom_query(AGE, params=then, timeout=self._deadline_s)
            if not age:  # also where the target went away between the two
                return self._trouble("empty", "knows no metric of a service now")
            # it looked at its numbers when it was asked, and they have aged while they came
            return _reading(rows, float(age[0]["value"][1]) + time.monotonic() - asked)
        except _Refused as refused:
            return self._trouble(refused.kind, str(refused))
        except requests.Timeout:
            return self._trouble("slow", f"gave no whole answer within {self._deadline_s:g} s")
        except (requests.exceptions.InvalidSchema, requests.exceptions.MissingSchema,
                requests.exceptions.InvalidURL):
            return self._trouble("failed", "is not the address of a Prometheus; write "
                                           "http://HOST:9090")
        except requests.RequestException as error:
            reason = "nothing answers there" if "refused" in str(error) else f"{str(error)[:120]!a}"
            return self._trouble("gone", f"cannot be reached: {reason}")
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            return self._trouble("rubbish", f"gave an answer that is no instant vector: "
                                            f"{str(error)[:120]!a}")

    def _trouble(self, kind: Kind, what: str) -> Trouble:
        return Trouble(kind, f"{self.name} {what}")


def _reading(rows: list[Any], age_s: float) -> Reading:
    """The reading in an instant vector. Raises ValueError or LookupError where it is none."""
    buckets: dict[Key, dict[float, float]] = {}
    gauges: dict[str, list[tuple[tuple[str, ...], float]]] = {name: [] for name in GAUGES}
    counters: dict[str, list[tuple[Tally, float]]] = {name: [] for name in COUNTERS}
    for row in rows:
        labels, value = row["metric"], float(row["value"][1])
        name = labels["__name__"]
        if name == BUCKET and "variant" in labels:
            buckets.setdefault(key_of(labels), {})[float(labels["le"])] = value
        elif name in GAUGES and labels.keys() >= set(GAUGES[name]):
            gauges[name].append((tuple(labels[one] for one in GAUGES[name]), value))
        elif name in COUNTERS and labels.keys() >= set(COUNTERS[name]):
            counters[name].append((tally_of(name, labels), value))
    if not isfinite(age_s):
        raise ValueError("it does not say how old its numbers are")
    return assembled({key: _histogram(key, some) for key, some in buckets.items()}, gauges,
                     counters, measures=bool(buckets), age_s=max(age_s, 0.0))


def _histogram(key: Key, buckets: Mapping[float, float]) -> Histogram:
    *bounds, last = sorted(buckets)
    histogram = Histogram(tuple(bounds), array("d", [buckets[upper] for upper in sorted(buckets)]))
    if wrong := "has no +Inf bucket" if last != inf else well_formed(histogram):
        raise ValueError(f"the histogram of {key.service} {key.variant} {wrong}")
    return histogram


async def open_prometheus(urls: Sequence[str], deadline_s: float) -> Mapping[str, Source]:
    """A source for each address of a Prometheus."""
    return {url: PrometheusSource(url, deadline_s) for url in dict.fromkeys(urls)}


def _connect(url: str, deadline_s: float) -> Any:
    from prometheus_api_client import PrometheusConnect
    from urllib3.util.retry import Retry

    # the next tick is the retry
    return PrometheusConnect(url, retry=Retry(0), session=_session(deadline_s))


def _session(deadline_s: float) -> Any:
    """A session that gives up where a scrape does: at redirects, other content, size and time."""
    import requests

    class Answer:
        status_code = 200

        def __init__(self, content: bytes) -> None:
            self.content = content

        def json(self) -> Any:
            return json.loads(self.content)

    class Session(requests.Session):
        def request(self, *args: Any, **kwargs: Any) -> Any:
            until = time.monotonic() + deadline_s
            kwargs |= {"stream": True, "allow_redirects": False}
            with super().request(*args, **kwargs) as answer:
                _refuse(answer.status_code, answer.headers)
                content = bytearray()
                while piece := answer.raw.read1(65536):
                    content += piece
                    if len(content) > LARGEST:
                        raise _Refused("huge", f"answered with more than {LARGEST / 2**20:g} MB")
                    if time.monotonic() > until:
                        raise requests.Timeout
                return Answer(bytes(content))

    session = Session()
    session.trust_env = False
    session.headers["Accept-Encoding"] = "identity"
    return session


def _refuse(status: int, headers: Mapping[str, str]) -> None:
    if 300 <= status < 400:
        raise _Refused("redirect", f"points to {shown(headers.get('location', ''))[:120]!a} "
                                   "instead of answering; give that address if it is right")
    if status != 200:
        raise _Refused("refused", f"answered with status {status}")
    form = headers.get("content-type", "").partition(";")[0].strip().lower()
    if form != "application/json" or headers.get("content-encoding", "identity") != "identity":
        raise _Refused("not_text", f"answered with {form[:60]!a}, which is not plain JSON")
