"""Asking `looking` in a process of its own: it may read for minutes, and it ends when it must."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import engine
from engine.errors import ActionFailed, OpsdeckError
from engine.pipeline.triggers import commands
from engine.pipeline.triggers.looking import Unsettled

WITHIN = 1800.0
_KEEP = ("PATH", "HOME", "LANG", "TMPDIR", "OPSDECK_SETTLE", "SSL_CERT_FILE", "HTTPS_PROXY", "https_proxy",
         "NO_PROXY", "no_proxy")


async def apart(folder: Path, memo: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    """What `looking.look` gives. Raises Unsettled, ActionFailed and what reading the project raises."""
    # Data on S3 is read with the engine's credentials, whichever way boto3 finds them.
    given = {name: value for name, value in environ.items() if name in _KEEP or name.startswith("AWS_")}
    package = str(Path(engine.__file__).resolve().parent.parent)
    argv = [sys.executable, "-m", "engine.pipeline.triggers.looking", str(folder), str(memo)]
    done = await commands.run(argv, environ={**given, "PYTHONPATH": package}, within=WITHIN)
    try:
        found = json.loads(done.stdout)
    except ValueError as error:
        last = (done.stderr.strip().splitlines() or [f"it ended with {done.code}"])[-1]
        raise ActionFailed(f"what would be built cannot be told: {last[:200]}", where=str(folder)) from error
    if "problem" in found:
        kind = Unsettled if found["code"] == Unsettled.code else OpsdeckError
        first = f" ({str(found['problems'][0]).splitlines()[0]})" if found["problems"] else ""
        where = f" {found['where']}" if found["where"] else ""
        raise kind(f"{found['problem']}{first}:{where}" if where else f"{found['problem']}{first}",
                   where=found["where"])
    return dict(found)
