"""The parts of the page that are about running it: speed, staging, what can be repeated, and the release."""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import partial
from typing import Any

from engine.pipeline.stages.page import plots
from engine.pipeline.stages.page.blocks import (
    Block,
    Items,
    Plot,
    Section,
    Table,
    Text,
    missing,
    number,
    short,
)
from engine.pipeline.stages.page.found import RunFound, StageFound


def sections(found: RunFound) -> list[Section]:
    return [speed(found), staging(found), repeated(found), release(found)]


def speed(found: RunFound) -> Section:
    """Latency by batch size, memory and size; the champion's beside where it was measured."""
    stage = found.get("evaluate")
    title = "Latency and memory"
    if stage is None:
        return Section(title, [missing("evaluate", "latency and memory")])
    rows = [[number(one.get("batch")), number(one.get("p50_ms"), 3), number(one.get("p95_ms"), 3),
             number(one.get("p99_ms"), 3), number(one.get("rows_per_s"), 3)]
            for one in _maps(stage.mapping("evaluation.json").get("latency"))]
    if not rows:
        rows = [["1", *(number(stage.result.get(name), 3)
                        for name in ("p50_ms", "p95_ms", "p99_ms", "rows_per_s"))]]
    blocks: list[Block] = [Table(["Rows a request", "p50 ms", "p95 ms", "p99 ms", "Rows/s"], rows, 5)]
    if drawn := _latencies(stage):
        blocks.append(Plot(partial(plots.latencies, drawn), "How long the model takes, by rows a request."))
    size = stage.result.get("model_bytes")
    facts = [["Peak memory, MB", number(stage.result.get("peak_mb"))],
             ["Size of the model, MB", number(size / 1e6 if isinstance(size, int | float) else None, 3)]]
    compared = _map(found.result("compare").get("p99_ms"))
    facts += [[f"p99 ms beside the other: {name}", number(value, 3)] for name, value in compared.items()]
    return Section(title, [*blocks, Table(["What", "Value"], facts, 1)])


def staging(found: RunFound) -> Section:
    stage = found.get("staging")
    if stage is None:
        return Section("Staging", [missing("staging", "the checks on real servers")])
    blocks: list[Block] = [Text(stage.says, "good" if stage.passed else "bad")]
    rows = [[str(one.get("name")), "passed" if one.get("passed") else "FAILED", str(one.get("expected", "")),
             str(one.get("seen", ""))] for one in _maps(stage.read("checks.json"))]
    rows.sort(key=lambda row: row[1] == "passed")
    blocks.append(Table(["Check", "Verdict", "Expected", "Seen"], rows, whole=(1,)) if rows else
                  missing("staging", "the list of its checks"))
    return Section("Staging", blocks)


def repeated(found: RunFound) -> Section:
    """Every digest by which this model can be made anew, and compared."""
    register = found.get("register")
    title = "Can it be made again"
    if register is None:
        return Section(title, [missing("register", "the manifest of this run")])
    manifest = register.mapping("manifest.json")
    environment = _map(manifest.get("environment"))
    python, system = _map(environment.get("python")), _map(environment.get("system"))
    rows = [["Manifest of the run", short(register.result.get("manifest_sha256"))],
            ["Payload of the model", short(register.result.get("payload"))],
            ["Commit", short(_map(manifest.get("code")).get("commit"))],
            ["Uncommitted changes", short(_map(manifest.get("code")).get("dirty"))],
            ["Lock", short(_map(manifest.get("lock")).get("sha256"))],
            ["Container image", short(_map(manifest.get("image")).get("digest"))],
            *([f"Data {name}", short(_map(one).get("sha256") or _map(one).get("version"))]
              for name, one in sorted(_map(manifest.get("data")).items())),
            ["Python", str(python.get("version", "–"))], ["System", str(system.get("name", "–"))],
            *([name, short(_map(one).get("payload") or _map(one).get("sha256"))]
              for name, one in sorted(_map(manifest.get("artifacts")).items()))]
    again = Text(f"opsdeck reproduce {found.run} makes it again from these, and compares.")
    return Section(title, [Table(["What", "Digest"], rows), again])


def release(found: RunFound) -> Section:
    """What an approval starts, and how it is taken back."""
    plan = found.project.release
    if plan is None:
        return Section("What a release does", [Text("The project names no service to release to.")])
    version = found.result("register").get("version") or "this one"
    steps = [
        f"Production's lock and image are compared with those that staging tested; if they differ, it ends "
        f"there. A rollout of {plan.service} that runs, or a variant that has the traffic, ends it too.",
        f"Version {version} is laid out in {plan.folder}, and the process {plan.process} is started with "
        "it; it has no traffic then.",
        f"The Git commit is tagged release/{found.project.model}-{version}, where there is a repository.",
        f"The procedure {plan.procedure} moves the traffic of {plan.service} to {plan.variant}, with "
        "approvals of its own, and watches it; it is a run of its own.",
        "When that is done, the registry's alias champion moves to this version, and the one before keeps "
        "previous."]
    back = [
        "While the rollout runs: abort it or this run; the traffic goes back to the old version at once, as "
        "it does by itself when the new one is shown to be worse.",
        f"Later: `opsdeck rollout undo {plan.service}` starts a rollout back to the version before."]
    return Section("What a release does", [Items(steps), Text("How it is undone:"), Items(back)])


def _latencies(stage: StageFound) -> list[tuple[str, Any]]:
    """Milliseconds by batch size; none where the file is not there or is damaged."""
    import zipfile

    import numpy as np

    if stage.output is None:
        return []
    try:
        with np.load(io.BytesIO((stage.output / "latencies.npz").read_bytes()), allow_pickle=False) as kept:
            found = [(name, np.asarray(kept[name], dtype=np.float64)) for name in kept.files]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return []
    sized = [(int(name[1:]), ms) for name, ms in found if name[:1] == "b" and name[1:].isdigit() and ms.size]
    return [(f"{batch} rows" if batch > 1 else "1 row", ms) for batch, ms in sorted(sized, key=lambda x: x[0])
            if (ms > 0).all()]


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _maps(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
