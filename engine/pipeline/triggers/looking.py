"""What would be built of a project now: the digest of all that its stages depend on.

`python -m engine.pipeline.triggers.looking FOLDER MEMO` prints it as JSON. It is a process of its own, as
data may be large; it can be killed at any moment.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from engine.errors import ActionFailed, OpsdeckError, UsageError
from engine.pipeline.building import fields, listing
from engine.pipeline.building.memo import Memo
from engine.pipeline.project.model import Project
from engine.pipeline.stages.table import STAGES
from engine.reproduce import canonical

SETTLE = 10.0   # seconds that a file of the data must have been left alone
FUTURE = 60.0   # a file's time so far ahead is another machine's clock, not a fresh write
_NOT_BUILT = {"triggers", "title", "owner", "tracking"}


class Unsettled(ActionFailed):
    """Data that is being written."""

    code = "unsettled"


def look(folder: Path, memo: Path, now: float, settle: float = SETTLE) -> dict[str, Any]:
    """{"what": digest of what would be built, "data": of the data alone}. Blocking; reads every file that has
    changed since `memo` was written.

    What would be built is the same when every stage's own fields are (`engine.pipeline.building.fields`) and
    the project's other settings. Raises Unsettled, DocumentError of the project file, UsageError and
    ActionFailed for what cannot be read.
    """
    from engine.pipeline.project import reading

    project = reading.read(folder)
    remembered = Memo(memo)
    before = _source(folder, project, now, settle)
    try:
        looked = {stage.name: fields.of(stage, project, folder, remembered, {}) for stage in STAGES.values()}
    except ActionFailed as error:
        if error.where in before:
            raise Unsettled("the data changes while it is read", where=error.where) from error
        raise
    finally:
        memo.parent.mkdir(parents=True, exist_ok=True)
        remembered.save()
    if _source(folder, project, now, settle) != before:
        raise Unsettled("the data changes while it is read", where=str(folder))
    made = project.model_dump(mode="json", by_alias=True, exclude=_NOT_BUILT)
    found = {name: one for name, (one, _) in looked.items()}
    # A file that only got another name or place is no new data.
    read = looked["data"][1]
    content = sorted(digest for path, (_, digest) in read.items() if str(folder / path) in before)
    data = [made["data"]["source"], content or found["data"].get("source")]
    return {"what": canonical.digest([made, found]), "data": canonical.digest(data)}


def _source(folder: Path, project: Project, now: float, settle: float) -> dict[str, listing.Signature]:
    """How each file of the data looks. Raises Unsettled, or UsageError where there is none."""
    found = {}
    source = project.data.source
    for path in [source.path] if source.path is not None else source.sources:
        if not (folder / path).exists():
            raise UsageError("there is no such file or folder, so there is no data to train on",
                             where=str(folder / path))
        for name in listing.listed(folder, [path]):
            looks = listing.signature(folder / name)
            if looks is not None:
                found[str(folder / name)] = looks
            if looks is None or -FUTURE <= now - max(looks[3], looks[4]) / 1e9 < settle:
                raise Unsettled("the data was written just now, and may not be whole",
                                where=str(folder / name))
    return found


def main(argv: list[str]) -> int:
    folder, memo = Path(argv[0]), Path(argv[1])
    try:
        print(json.dumps(look(folder, memo, time.time(), float(os.environ.get("OPSDECK_SETTLE", SETTLE)))))
    except OpsdeckError as error:
        print(json.dumps({"problem": error.message, "where": error.where, "code": error.code,
                          "problems": getattr(error, "problems", [])[:5]}))
    except OSError as error:
        print(json.dumps({"problem": f"it cannot be read: {error.strerror}", "where": error.filename,
                          "code": "error", "problems": []}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
