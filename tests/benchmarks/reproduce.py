"""What it costs to record a run and to look at a project: digests, a manifest, two compared, lint."""

from __future__ import annotations

import importlib.util
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from engine.reproduce import digests, environment, git, manifest, payload
from engine.reproduce.lint import lint
from engine.reproduce.parts import Artifact, Code, Run
from engine.reproduce.verify import verify
from tests.benchmarks.figure import Figure

ROOT = Path(__file__).parents[2]
MIB = 256
FILES = 5000
METRICS = 200


def figures() -> list[Figure]:
    """Takes about fifteen seconds."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        return [*_digests(Path(folder)), *_manifests(), *_projects()]


def _digests(folder: Path) -> list[Figure]:
    large = folder / "large"
    with large.open("wb") as file:
        for _ in range(MIB):
            file.write(os.urandom(1 << 20))
    many = folder / "many"
    many.mkdir()
    for at in range(FILES):
        (many / f"part-{at:05d}.parquet").write_bytes(b"x" * 4096)
    return [
        Figure("SHA-256 of a large file", MIB / _seconds(lambda: digests.file(large)), "MiB/s", 200, "higher",
               f"{MIB} MiB, one core"),
        Figure(f"digest of a folder of {FILES:,} small files", _seconds(lambda: digests.folder(many)), "s", 2,
               "lower"),
        Figure("canonical payload of that folder", _seconds(lambda: payload.digest(many)), "s", 3, "lower"),
    ]


def _manifests() -> list[Figure]:
    found = environment.collect()
    one = manifest.assemble(
        run=Run("run", "flights", "2026-11-24T12:00:00Z"), code=Code(commit="0" * 40), environment=found,
        config={f"setting {at}": at for at in range(METRICS)}, loss=0.1,
        metrics={f"metric {at}": at / 7 for at in range(METRICS)},
        artifacts={f"artifact {at}": Artifact(f"{at:064x}", at) for at in range(METRICS)})
    data = one.encode()
    return [
        Figure("an environment's account of itself", _seconds(environment.collect), "s", 1.5, "lower",
               "a process of its own, with NumPy"),
        Figure("read a manifest", 1e3 * _seconds(lambda: manifest.read(data)), "ms", 10, "lower",
               f"{len(data) / 1024:.0f} KiB, {METRICS} metrics and artifacts"),
        Figure("compare two runs", 1e3 * _seconds(lambda: verify(one, one)), "ms", 10, "lower"),
    ]


def _projects() -> list[Figure]:
    spec = importlib.util.find_spec("sklearn")
    assert spec is not None and spec.origin is not None
    package = Path(spec.origin).parent
    lines = sum(len(path.read_bytes().splitlines()) for path in package.rglob("*.py")
                if "tests" not in path.parts)
    return [
        Figure("Git state of this repository", 1e3 * _seconds(lambda: git.state(ROOT)), "ms", 200, "lower"),
        Figure("lint of the demo", _seconds(lambda: lint(ROOT / "engine" / "demo")), "s", 1, "lower"),
        Figure("lint of scikit-learn", _seconds(lambda: lint(package), 1), "s", 30, "lower",
               f"{lines:,} lines"),
    ]


def _seconds(work: Callable[[], object], times: int = 3) -> float:
    """The quickest of a few runs."""
    took = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        took.append(time.perf_counter() - begun)
    return min(took)
