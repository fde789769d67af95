"""What each stage depends on, read from the project and its files. Blocking; see `cache` for the fields."""

from __future__ import annotations

import functools
import hashlib
import json
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.errors import ActionFailed, UsageError
from engine.pipeline.building import listing, seen
from engine.pipeline.building.memo import Memo
from engine.pipeline.project.model import Project
from engine.pipeline.stages.table import REPORTS, Stage
from engine.reproduce import canonical

FEW = 1000  # files that a field names one by one
REMOTE_PATIENCE = 120.0
_TIME = re.compile(rb"^(passed_at|failed_at|fixed_at):([^\n#]*)(?:#[^\n]*)?\n?", re.MULTILINE)
Watched = dict[str, tuple[listing.Signature, str]]


def patterns(stage: Stage, project: Project, folder: Path) -> dict[str, list[str]]:
    """By field the patterns of the files that a stage reads in the project's folder. Raises UsageError."""
    source = project.data.source
    reads: dict[str, list[str]] = {}
    for name in stage.reads:
        match name:
            case "code":
                reads[name] = seen.code(project, folder)
            case "tests":
                reads[name] = seen.tests(project, folder)
            case "source":
                reads[name] = [source.path] if source.path else seen.source(project, folder)
            case "expectations":
                reads[name] = [project.data.expectations]
            case "cases":
                reads[name] = [project.robustness.cases]
            case "downstream":
                reads[name] = [project.staging.downstream] if project.staging.downstream else []
    return reads


def of(stage: Stage, project: Project, folder: Path, memo: Memo,
       inputs: Mapping[str, Mapping[str, str]]) -> tuple[dict[str, Any], Watched]:
    """The stage's fields, and each file they come from with how it looked and its digest.

    `inputs`: by stage the digests of its output. Raises ActionFailed when a file cannot be read or changes
    meanwhile, UsageError for a source that is not there.
    """
    written = project.model_dump(mode="json", by_alias=True)
    fields: dict[str, Any] = {
        "stage": stage.name, "version": stage.version,
        "settings": {name: written[name] for name in stage.settings},
        "inputs": {name: {path: digest for path, digest in digests.items()
                          if path not in REPORTS.get(name, ())} for name, digests in inputs.items()}}
    watched: Watched = {}
    for name, wanted in patterns(stage, project, folder).items():
        found = {path: memo.seen(folder / path) for path in listing.listed(folder, wanted)}
        watched |= found
        digests = {path: _of_case(folder / path) if name == "cases" and path.endswith(".yaml") else digest
                   for path, (_, digest) in found.items()}
        fields[name] = digests if len(digests) <= FEW else {
            "files": len(digests), "digest": canonical.digest(digests)}
    if "source" in stage.reads:
        source = project.data.source
        if source.uri is not None:
            fields["source"] = remote(source.uri)
        elif source.path is not None and not fields["source"]:
            raise UsageError(f"the data {source.path} is not there", where=str(folder / source.path),
                             hint="put it there, or correct data.source in opsdeck.pipeline.yaml")
    if stage.environment or ("source" in stage.reads and project.data.source.command):
        fields["environment"], found = _environment(project, folder, memo)
        watched |= found
    return fields, watched


def _of_case(path: Path) -> str:
    """The digest of a hard case, in which not the times count at which it passed and failed, but what they
    say together: every registration sets them anew, and a case that was fixed must never fail again."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ActionFailed(f"the file cannot be read: {error.strerror}", where=str(path)) from error
    times = {name.decode(): value.strip(b" \t'\"\r") for name, value in _TIME.findall(text)}
    known = {name: value for name, value in times.items() if value not in (b"", b"null", b"~")}
    fixed = known.get("fixed_at", b"") >= known.get("failed_at", b"")
    return canonical.digest([hashlib.sha256(_TIME.sub(b"", text)).hexdigest(), sorted(known), fixed])


def _environment(project: Project, folder: Path, memo: Memo) -> tuple[dict[str, Any], Watched]:
    wanted = project.environment
    if wanted.lock is None:
        return {"python": platform.python_version(), "packages": dict(_installed(*_site_packages()))}, {}
    files = [wanted.lock]
    if Path(wanted.lock).name == "uv.lock" and (folder / "pyproject.toml").exists():
        files.append("pyproject.toml")
    if not (folder / wanted.lock).is_file():
        raise UsageError(f"the lock {wanted.lock} is not there", where=str(folder / wanted.lock),
                         hint="`uv lock` writes one")
    found = {path: memo.seen(folder / path) for path in files}
    return {"python": wanted.python, "image": wanted.image, "machine": platform.machine(),
            "lock": {path: digest for path, (_, digest) in found.items()}}, found


def _site_packages() -> tuple[tuple[str, int], ...]:
    """The folders that packages are in, each with when it changed."""
    folders = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    return tuple((path, Path(path).stat().st_mtime_ns) for path in folders if Path(path).is_dir())


@functools.lru_cache(maxsize=4)
def _installed(*folders: tuple[str, int]) -> tuple[tuple[str, str], ...]:
    """The packages of the engine's own interpreter and their versions, by the names of their folders."""
    found = {}
    for folder, _ in reversed(folders):
        for entry in Path(folder).iterdir():
            stem, dot, kind = entry.name.rpartition(".")
            if dot and kind in ("dist-info", "egg-info"):
                package, _, version = stem.partition("-")
                found[package.lower()] = version
    return tuple(sorted(found.items()))


def remote(uri: str) -> dict[str, Any]:
    """What names the data at an S3 address: its version or content. Asked in a process of its own, since the
    engine does not load what talks to S3. Raises ActionFailed when it cannot be told."""
    try:
        done = subprocess.run([sys.executable, "-I", "-m", "engine.pipeline.building.remote", uri],
                              capture_output=True, text=True, timeout=REMOTE_PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ActionFailed(f"the data's state cannot be asked for: {error}", where=uri) from error
    try:
        told = json.loads(done.stdout)
    except ValueError:
        told = {"error": (done.stderr.strip().splitlines() or ["it says nothing"])[-1][:300]}
    if "error" in told:
        raise ActionFailed(str(told["error"]), where=uri, hint=told.get("hint"))
    return dict(told["dataset"])
