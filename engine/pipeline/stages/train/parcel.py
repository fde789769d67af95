"""What a training elsewhere is sent, laid out for `container`, and what comes back from it."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

from engine.errors import ActionFailed
from engine.pipeline.child import entries, process
from engine.pipeline.child.views import View
from engine.pipeline.stages.train.container import CURVE as MARK
from engine.pipeline.stages.train.job import CURVE, KEY, WHAT, Job, Trained
from engine.reproduce import archives, seeds

ENGINE = Path(__file__).resolve().parents[3]
# What `container` needs beside it, all of the standard library alone.
TOOLS = (ENGINE / "pipeline/stages/train/container.py", ENGINE / "pipeline/child/runner.py",
         ENGINE / "reproduce/seeds.py", ENGINE / "reproduce/probe.py", ENGINE / "errors.py")
ABOUT = "opsdeck.json"


def files(job: Job) -> dict[str, Path]:
    """What is sent, by its path below input/data/: the tools, the project's code, the rows."""
    return {**{f"opsdeck/{one.name}": one for one in TOOLS},
            **{f"code/{one}": job.view.folder / one for one in sorted(job.view.digests)},
            **{f"rows/{one.name}": one for one in sorted(job.inputs.iterdir())}}


def order(job: Job, *, scrub: bool, watched: bool) -> dict[str, Any]:
    """job.json for `container`. Raises UsageError for parameters that JSON lacks."""
    entries.write_params(job.scratch / "params.json", job.train.params, KEY)
    entry = job.train.entry
    return {"function": entry.function, "command": entry.command, "params": job.train.params,
            "variables": {**seeds.environment(job.work.project.seed), "PYTHONUNBUFFERED": "1",
                          "PYTHONDONTWRITEBYTECODE": "1", "MPLBACKEND": "Agg"},
            "limits": process.rlimits(job.train.limits), "scrub": scrub, "watched": watched}


class Log:
    """Takes the lines that `container` printed: the curve to metrics.jsonl, the rest as bytes to `feed`."""

    def __init__(self, output: Path) -> None:
        self._curve = output / CURVE

    def sort(self, lines: list[str]) -> bytes:
        """The lines that are shown, joined."""
        curve = [line.removeprefix(MARK) for line in lines if line.startswith(MARK)]
        if curve:
            with self._curve.open("a", encoding="utf-8") as file:
                file.write("".join(f"{line}\n" for line in curve))
        return "".join(f"{line}\n" for line in lines if not line.startswith(MARK)).encode()


def unpacked(archive: Path | bytes, output: Path, where: str) -> None:
    """The archive's files into the output: within it, no devices, no links that lead out, not without bounds.

    Raises ActionFailed for any other archive.
    """
    budget = archives.Budget()
    try:
        content = archive.open("rb") if isinstance(archive, Path) else io.BytesIO(archive)
        with content, tarfile.open(fileobj=content, mode="r:*") as opened:
            for at, member in enumerate(opened):
                budget.spend(member.size, where)
                if at >= budget.members or not (member.isfile() or member.isdir()):
                    raise ActionFailed(f"The archive of the training holds {member.name[:80]!r}, which is "
                                       "neither a file nor a folder.", where=where,
                                       hint="Write plain files only.")
                opened.extract(member, output, filter="data")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ActionFailed(f"The archive of the training cannot be unpacked: {error}", where=where,
                           hint="Run this step again; look at the space on the disk.") from error


def trained(output: Path, **result: object) -> Trained:
    """What `container` told of the training that came back."""
    path = output / ABOUT
    try:
        told = json.loads(path.read_bytes())
        found = Trained(float(told["seconds"]), float(told["peak_mb"]), result)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ActionFailed(f"What came back of the training does not say how it went: {error}", where=KEY,
                           hint="Was its entry point replaced by the image's own?") from error
    path.unlink()
    return found


def failed(reason: str, place: str, view: View) -> ActionFailed:
    """`reason`: the line that `container` left, or what the place itself says."""
    if process.REFUSED.search(reason) or "signal 9" in reason:
        return ActionFailed(f"{WHAT} was ended for memory {place}: {reason}", where=KEY,
                            hint="Raise train.limits.memory_mb, take a larger machine, or use fewer rows.")
    problem = ActionFailed(f"{WHAT} failed {place}: {reason}", where=KEY,
                           hint="log.txt has what it printed before.")
    view.explain(problem)
    return problem
