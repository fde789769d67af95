"""When a schedule is due. Pure: times are UTC seconds, and the zone's rules come from its name.

A tick counts once, whatever the clock does: `mark` is the last one that was counted. In a zone with summer
time a fixed hour runs once a day, as Debian's cron has it: in the hour that is left out, at its end, and in
the hour that comes twice, the first time.
"""

from __future__ import annotations

import datetime as dt
import zoneinfo
from dataclasses import dataclass
from typing import Literal

from cronsim import CronSim, CronSimError

from engine.errors import UsageError
from engine.pipeline.project.model import Cron

LATE = 120.0  # seconds after which a tick counts as missed
NEAR = 2 * 86400.0
SET_BACK = 86400.0  # a mark so far in the future is a clock's that was wrong


@dataclass(frozen=True)
class Tick:
    """`mark` is to be recorded. `verdict`: run it, or why it is not run: it was missed and `missed: skip`, or
    the clock was set back by so much that ticks are counted anew."""

    mark: float
    verdict: Literal["run", "missed", "anew"]


def check(schedule: Cron) -> None:
    """Raises UsageError for an expression or a zone that does not exist, or that never comes."""
    if following(schedule, 0.0) is None:
        raise UsageError(f"the schedule {schedule.at!r} never comes")


def look(schedule: Cron, mark: float | None, now: float) -> Tick | None:
    """The newest tick that is due since `mark`, or None. Without a mark counting begins now, with `anew`.

    Of several only the newest counts. Raises UsageError as `check` does.
    """
    check(schedule)
    if mark is None or mark > now + SET_BACK:
        return Tick(now, "anew")
    found = newest(schedule, mark, now)
    if found is None:
        return None
    missed = now - found > LATE and schedule.missed == "skip"
    return Tick(found, "missed" if missed else "run")


def newest(schedule: Cron, after: float, until: float) -> float | None:
    """The last tick with `after` < tick ≤ `until`."""
    found, start = None, max(after, until - NEAR)
    while (tick := following(schedule, start)) is not None and tick <= until:
        found = start = tick
    if found is None and after < until - NEAR:
        # Seldom, and long ago: backwards costs nothing for each tick between.
        ticks = CronSim(schedule.at, _local(schedule, until - NEAR + 1), reverse=True)
        before = next(ticks, None)
        if before is not None and before.timestamp() > after:
            return float(before.timestamp())
    return found


def following(schedule: Cron, moment: float) -> float | None:
    """The first tick after a moment; None if there is none within 50 years. Raises UsageError."""
    try:
        ticks = CronSim(schedule.at, _local(schedule, moment))
    except CronSimError as error:
        raise UsageError(f"{schedule.at!r} is not a schedule: {str(error).lower()}",
                         hint="write it like cron does: minute, hour, day, month, weekday") from error
    for tick in ticks:
        # The hour that comes twice may give a tick that is not later.
        if tick.timestamp() > moment:
            return float(tick.timestamp())
    return None


def _local(schedule: Cron, moment: float) -> dt.datetime:
    try:
        zone = zoneinfo.ZoneInfo(schedule.zone) if schedule.zone != "UTC" else dt.UTC
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UsageError(f"there is no time zone {schedule.zone!r}",
                         hint="write it like Europe/Berlin") from error
    return dt.datetime.fromtimestamp(moment, zone)
