"""The simulated calendar: which flight is sent at which moment, and when its label is known. Pure.

Two rates are given and they are independent: requests per second (`--rps`) and the calendar's speed
(`--speed`, simulated seconds per real second). So that both hold, the flights of each hour are
spread evenly over the hour's requests, in order of departure: with more requests than flights a
flight is sent several times in a row, with fewer some are left out. Hours in which nothing departs
(most nights, 1 h to 5 h in New York) are skipped, so that traffic does not stop twice a minute. At
the default 50 requests per second and 3,600 the average hour has 48 flights for 50 requests.

After the year's last hour it starts again with the first.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

HOUR = 3600


@dataclass(frozen=True)
class Moment:
    """A point of the calendar.

    `clock`: simulated UTC seconds, which go on to grow after the year's end; `flight`: the index of
    the flight to send; `lap`: how many times the year has ended.
    """

    clock: float
    flight: int
    lap: int


class Calendar:
    """`depart`: the departures of all flights, UTC seconds in ascending order, not empty."""

    def __init__(self, depart: Any) -> None:
        import numpy as np

        hours, first, flights = np.unique(np.asarray(depart) // HOUR, return_index=True,
                                          return_counts=True)
        self._hours, self._first, self._flights = hours, first, flights
        self.lap_s = int(hours[-1] + 1 - hours[0]) * HOUR  # one lap of the clock, nights included

    def start(self, at: float) -> int:
        """The index of the first hour with departures that is not before the hour of `at`.

        Past the year's end it is the first hour of all.
        """
        import numpy as np

        found = int(np.searchsorted(self._hours, int(at) // HOUR))
        return found if found < len(self._hours) else 0

    def moment(self, start: int, elapsed: float) -> Moment:
        """Where the calendar is when `elapsed` simulated seconds of hours with departures are over.

        `start` is an index that `start()` gave. `elapsed` is not negative.
        """
        hours, within = divmod(elapsed / HOUR, 1.0)
        lap, hour = divmod(start + int(hours), len(self._hours))
        rank = min(int(within * int(self._flights[hour])), int(self._flights[hour]) - 1)
        clock = (int(self._hours[hour]) + within) * HOUR + lap * self.lap_s
        return Moment(clock, int(self._first[hour]) + rank, lap)


class Landings:
    """Flights in the air: a label is due when the clock reaches the landing, not before.

    At most `limit` are in the air; a further one is dropped and counted. (A slow calendar keeps
    them up for hours of real time.)
    """

    def __init__(self, limit: int) -> None:
        self._heap: list[tuple[float, int, int]] = []
        self._limit = limit
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, lands: float, flight: int, request: int) -> None:
        """`flight` was sent as request number `request` and lands when the clock says `lands`."""
        if len(self._heap) >= self._limit:
            self.dropped += 1
            return
        heapq.heappush(self._heap, (lands, request, flight))

    def landed(self, clock: float) -> Sequence[tuple[int, int]]:
        """Those that have landed by now, as (flight, request), first landed first."""
        found = []
        while self._heap and self._heap[0][0] <= clock:
            _, request, flight = heapq.heappop(self._heap)
            found.append((flight, request))
        return found
