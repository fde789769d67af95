"""Reads the prediction logs and the labels of the services that have `outcomes`, and counts what became
of their predictions.

Predictions are read back as far as their labels may be late. Labels are only taken from the start of this
engine on: those from before may have been counted by the engine before it, and nothing counts twice.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from engine.config import Outcomes, Service
from engine.monitoring.outcomes import Join, Labelled, Predicted, Tally, answers_of
from engine.monitoring.sources.tail import Tail

log = logging.getLogger("opsdeck")
EVERY_S = 1.0


class _Prediction(msgspec.Struct):
    """What is needed of a line of the prediction log (`engine.serving.records.Record`)."""

    correlation_id: str
    variant: str
    at: float | None = None
    predictions: Any = None


_PREDICTION = msgspec.json.Decoder(_Prediction)
_LABEL = msgspec.json.Decoder(dict[str, Any])


@dataclass
class _Followed:
    """The two files of one service, and what was made of them."""

    config: Outcomes
    join: Join
    predictions: Tail
    labels: Tail
    garbage: dict[str, int] = field(default_factory=dict)
    last_label: float | None = None
    told: dict[str, str] = field(default_factory=dict)

    def close(self) -> None:
        self.predictions.close()
        self.labels.close()


class OutcomeReader:
    """Follows the services' files while `run` goes on.

    `clock` gives UTC seconds. `tell` gets a sentence when a file cannot be read or holds what is no
    record, once each until it changes.
    """

    def __init__(self, services: Mapping[str, Service], clock: Callable[[], float], *,
                 tell: Callable[[str], None] = log.warning) -> None:
        self._clock = clock
        self._tell = tell
        self._followed: dict[str, _Followed] = {}
        self._left: list[_Followed] = []  # to be closed when nothing reads them
        self._since: dict[str, float] = {}
        self.use_services(services)

    def use_services(self, services: Mapping[str, Service]) -> None:
        """Follow what these say from now on; a service whose `outcomes` are as before goes on."""
        wanted = {name: service.outcomes for name, service in services.items() if service.outcomes}
        for name in list(self._followed):
            if wanted.get(name) != self._followed[name].config:
                self._left.append(self._followed.pop(name))
        for name, config in wanted.items():
            if name not in self._followed:
                join = Join(config.within, config.waiting, config.tolerance)
                if name in self._since:
                    join.begin(self._since[name])
                self._followed[name] = _Followed(config, join, Tail(config.predictions, back_s=config.within),
                                                 Tail(config.labels))

    def begin(self, service: str, since: float) -> None:
        """From now on count only labels of predictions that were made from `since` (UTC seconds) on.

        For a rollout: `since` is when its first weight was set, also after a restart.
        """
        self._since[service] = since
        if (followed := self._followed.get(service)) is not None:
            followed.join.begin(since)

    def take(self, service: str) -> Sequence[Mapping[str, tuple[int, int]]]:
        """The new (n labelled, y of them wrong) since the last call by variant, for each second in which
        predictions were made; empty without any."""
        followed = self._followed.get(service)
        return [] if followed is None else followed.join.take()

    def age(self, service: str) -> float | None:
        """Seconds since this engine read a label of the service; None if it has not read one."""
        followed = self._followed.get(service)
        if followed is None or followed.last_label is None:
            return None
        return max(0.0, self._clock() - followed.last_label)

    def tally(self, service: str) -> Tally | None:
        """What was read of the service and what came of it; None where it has no `outcomes`."""
        followed = self._followed.get(service)
        return None if followed is None else followed.join.tally

    def problems(self, service: str) -> list[str]:
        """What is wrong with the service's files now, in sentences."""
        followed = self._followed.get(service)
        return [] if followed is None else list(followed.told.values())

    async def run(self) -> None:
        """Look at every file each second, until cancelled."""
        try:
            while True:
                await self.look()
                await asyncio.sleep(EVERY_S)
        finally:
            for followed in [*self._left, *self._followed.values()]:
                followed.close()

    async def look(self) -> None:
        """Read what is new in every file, predictions before the labels that belong to them."""
        while self._left:
            self._left.pop().close()
        for followed in list(self._followed.values()):
            await self._drain(followed, followed.predictions, self._predictions)
            await self._drain(followed, followed.labels, self._labels)
            followed.join.expire(self._clock())
            self._mention(followed)

    async def _drain(self, followed: _Followed, tail: Tail,
                     take: Callable[[_Followed, list[bytes]], int]) -> None:
        """A piece at a time, so that a long file holds up nothing else."""
        ended = False
        while not ended:
            lines, ended = await asyncio.to_thread(tail.read, self._clock())
            path = str(tail.path)
            if lines:
                followed.garbage[path] = followed.garbage.get(path, 0) + take(followed, lines)

    def _predictions(self, followed: _Followed, lines: list[bytes]) -> int:
        garbage, now, output = 0, self._clock(), followed.config.output
        for line in lines:
            try:
                found = _PREDICTION.decode(line)
            except (msgspec.DecodeError, RecursionError):
                garbage += 1
                continue
            at = now if found.at is None else min(found.at, now)
            followed.join.predicted(found.correlation_id, Predicted(
                at, sys.intern(found.variant), answers_of(found.predictions, output)))
        return garbage

    def _labels(self, followed: _Followed, lines: list[bytes]) -> int:
        garbage, now, name = 0, self._clock(), followed.config.label
        for line in lines:
            try:
                found = _LABEL.decode(line)
                id, label = found["correlation_id"], found[name]
            except (msgspec.DecodeError, RecursionError, KeyError):
                garbage += 1
                continue
            if not isinstance(id, str):
                garbage += 1
                continue
            followed.join.labelled(id, Labelled(now, label))
            followed.last_label = now
        return garbage

    def _mention(self, followed: _Followed) -> None:
        """Say what is wrong, once."""
        found: dict[str, str] = {}
        for tail in (followed.predictions, followed.labels):
            path = str(tail.path)
            if tail.problem is not None:
                found[path] = tail.problem
            elif bad := followed.garbage.get(path, 0) + tail.overlong:
                found[f"{path} lines"] = (f"{path} has lines that are no records of ours, "
                                          f"{'they are' if bad > 1 else 'it is'} left out")
        tally = followed.join.tally
        if tally.unusable:
            found["unusable"] = (f"labels in {followed.config.labels} cannot be compared with the "
                                 f"predictions they belong to; see `label` and `output` of outcomes")
        if tally.forgotten:
            found["forgotten"] = (f"more than {followed.config.waiting} predictions wait for their labels: "
                                  f"the oldest are forgotten; see `waiting` of outcomes")
        for key, text in found.items():
            if followed.told.get(key) != text:
                self._tell(text)
        followed.told = found
