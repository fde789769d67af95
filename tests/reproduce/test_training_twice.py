"""Two trainings of the demo's flights model give one payload and bit-equal predictions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from engine.demo import flights
from engine.demo.layout import Layout
from engine.reproduce import digests, environment, git, manifest, payload, seeds
from engine.reproduce.parts import Lock, Run
from engine.reproduce.verify import verify

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def subset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every twelfth flight of the year, as the demo keeps them."""
    layout = Layout(tmp_path_factory.mktemp("whole"))
    about, _ = flights.prepare(layout)
    small = Layout(tmp_path_factory.mktemp("subset"))
    small.flights.parent.mkdir(parents=True)
    np.save(small.flights, np.array(flights.load(layout)[::12]), allow_pickle=False)
    about = replace(about, digest=digests.file(small.flights).sha256)
    small.flights_about.write_text(json.dumps(asdict(about)))
    return small.flights.parent


@pytest.fixture(scope="module")
def trained(subset: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What two trainings saved, side by side in processes of their own, with unlike hash seeds."""
    homes = [tmp_path_factory.mktemp("training") for _ in "ab"]
    running = []
    for seed, home in enumerate(homes):
        (home / "demo").mkdir()
        (home / "demo" / "data").symlink_to(subset)
        running.append(subprocess.Popen(
            [sys.executable, "-m", "tests.reproduce.trainings", home], cwd=ROOT, text=True,
            env={**os.environ, **seeds.environment(seed)}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE))
    for process in running:
        _, errors = process.communicate(timeout=100)
        assert process.returncode == 0, errors
    return [home / "saved" for home in homes]


def test_two_trainings_in_two_processes_have_one_digest_and_the_same_bits(trained: list[Path]) -> None:
    one, other = map(payload.digest, trained)
    assert one == other
    assert set(one.members) == {"model.onnx", "predictions.npy"}
    predicted = [np.load(folder / "predictions.npy") for folder in trained]
    assert predicted[0].tobytes() == predicted[1].tobytes()
    assert len(predicted[0]) == 2000 and predicted[0].std() > 0.05


def test_their_manifests_say_that_the_result_is_the_same_and_what_was_not(trained: list[Path],
                                                                          subset: Path) -> None:
    manifests = []
    for seed, saved in enumerate(trained):
        report = json.loads((saved.parent / "demo" / "training" / "champion" / "report.json").read_text())
        manifests.append(manifest.assemble(
            run=Run(f"train-{seed}", "flights", "2026-11-24T12:00:00Z"), code=git.code(ROOT),
            environment=environment.collect(variables={**os.environ, **seeds.environment(seed)}),
            lock=Lock("requirements.lock", digests.file(ROOT / "requirements.lock").sha256),
            data={"flights": digests.local(subset, "data")}, config=report["params"],
            seeds={"training": report["seed"]}, metrics={"auc": report["auc_new_days"]},
            artifacts={name: payload.artifact(saved / name, kind) for name, kind in
                       (("model.onnx", "model"), ("predictions.npy", "predictions"))}))
    found = verify(*manifests)
    assert found.verdict == "identical" and len(found.results) == 3
    assert found.first is not None and found.first.path == "environment.variables.PYTHONHASHSEED"
    assert found.sentence == ("All 3 results are the same, though environment.variables.PYTHONHASHSEED "
                              "differs (0 and 1).")


SAVE = """
import sys, mlflow, onnx
for source in sys.argv[1:]:
    mlflow.onnx.save_model(onnx.load(source + "/model.onnx"), source + "-mlflow", pip_requirements=["onnx"],
                           save_as_external_data=False)
"""


def test_saved_by_mlflow_they_differ_in_bytes_and_not_in_payload(trained: list[Path]) -> None:
    done = subprocess.run([sys.executable, "-c", SAVE, *trained], cwd=ROOT, text=True, capture_output=True,
                          env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    folders = [folder.with_name("saved-mlflow") for folder in trained]
    assert (folders[0] / "MLmodel").read_bytes() != (folders[1] / "MLmodel").read_bytes()
    assert digests.folder(folders[0]).sha256 != digests.folder(folders[1]).sha256
    one, other = map(payload.digest, folders)
    assert payload.differing(one, other) == [] and one.sha256 == other.sha256
    assert {"MLmodel", "model.onnx", "requirements.txt"} <= set(one.members)
