"""What a run of the data stage has learned, once it is in place: the project's file then says no more than
none did, and what the run made is taken. A file that differs in one byte is another one. Blocking."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.pipeline.building import cache
from engine.pipeline.building.cache import Kept
from engine.pipeline.building.memo import Memo
from engine.pipeline.building.places import Area

FILE = "expectations.yaml"  # of the data stage's output: what it has learned, where nothing was expected
FIELD = "expectations"


def look_up(area: Area, stage: str, fields: Mapping[str, Any], memo: Memo) -> Kept | None:
    """What is kept that was made without expectations, has learned those of `fields`, and leaves nothing to
    be accepted."""
    found = fields.get(FIELD)
    if not isinstance(found, Mapping) or len(found) != 1:
        return None
    kept = cache.look_up(area, stage, cache.key({**fields, FIELD: {}}), memo)
    if kept is None or kept.digests.get(FILE) not in found.values():
        return None
    result = kept.record.get("result")
    # What waits for a person is accepted into the file that was checked, and there was none then.
    quiet = isinstance(result, Mapping) and result.get("learned") and not result.get("suspicious")
    return kept if quiet else None
