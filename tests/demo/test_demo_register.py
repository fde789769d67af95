"""Both models are in MLflow with all that is known of them, and what is served can be verified."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.demo import export, flights, register, train
from engine.demo.layout import CHAMPION, VARIANTS, Layout
from engine.errors import ActionFailed, UsageError
from engine.pipeline.releasing.registry import ENVIRONMENT
from engine.serving import manifest

# Counts outgoing internet connections and lookups of the process it is run in.
WATCH = """
import runpy, sys
calls = []
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        if not (event == "socket.connect" and isinstance(arguments[1], str)):
            calls.append((event, str(arguments[1:])))
sys.addaudithook(watch)
try:
    runpy.run_module("engine.demo.register", run_name="__main__")
finally:
    print("NETWORK", calls, file=sys.stderr)
"""


@pytest.fixture(scope="module")
def registered(trained: Layout) -> tuple[Layout, subprocess.CompletedProcess[str]]:
    done = subprocess.run([sys.executable, "-c", WATCH, "--home", str(trained.home)],
                          capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return trained, done


@pytest.fixture(scope="module")
def client(registered: Any) -> Any:
    os.environ.update(ENVIRONMENT)
    from mlflow import MlflowClient

    uri = register.tracking_uri(registered[0])
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def test_it_tells_what_it_does_and_shows_no_warnings_and_reaches_no_network(
        registered: Any) -> None:
    _, done = registered
    assert "champion: registered as flights-late version 1" in done.stdout
    assert "challenger: registered as flights-late version 2" in done.stdout
    assert done.stderr == "NETWORK []\n"


def test_what_is_served_is_verified_by_its_manifest_and_is_what_was_trained(
        registered: Any) -> None:
    layout, _ = registered
    for variant, version in zip(VARIANTS, ("1", "2"), strict=True):
        stated = manifest.verify(layout.model(variant))
        assert (stated.name, stated.version) == ("flights-late", version)
        assert stated.files == {"model.onnx": train.load_report(layout, variant).onnx_sha256}
        assert tuple(name for name, _ in stated.inputs) == flights.FEATURES


def test_a_version_carries_parameters_metrics_seed_and_digests(
        registered: Any, client: Any) -> None:
    layout, _ = registered
    report = train.load_report(layout, CHAMPION)
    version = client.get_model_version_by_alias("flights-late", CHAMPION)
    assert version.version in (1, "1")
    assert version.tags == {"variant": CHAMPION, "onnx_sha256": report.onnx_sha256,
                            "data_sha256": report.data_digest, "seed": "2013"}
    run = client.get_run(version.run_id)
    assert run.data.params["max_iter"] == "100" and run.data.params["seed"] == "2013"
    assert run.data.metrics["auc_train"] == report.auc_train
    assert run.data.metrics["auc_2013_04"] == report.auc_by_month["04"]


def test_everything_that_mlflow_keeps_is_in_the_home(registered: Any, client: Any) -> None:
    layout, _ = registered
    version = client.get_model_version("flights-late", "1")
    kept = list(layout.artifacts.rglob("model.onnx"))
    served = (layout.model(CHAMPION) / "model.onnx").read_bytes()
    assert [path.name for path in layout.home.parent.iterdir() if "%" in path.name] == []
    assert len(kept) == 2 and served in [path.read_bytes() for path in kept]
    assert client.get_run(version.run_id).info.artifact_uri.startswith(layout.artifacts.as_uri())


def test_the_pinned_requirements_are_those_of_the_lock(registered: Any) -> None:
    lock = (Path(__file__).parents[2] / "requirements.lock").read_text()
    pins = dict(re.findall(r"^([a-z0-9-]+)==([^\s;\\]+)", lock, flags=re.MULTILINE))
    for requirement in register.requirements():
        name, _, version = requirement.partition("==")
        assert pins[name] == version
    logged = next(registered[0].artifacts.rglob("requirements.txt")).read_text().split()
    assert set(register.requirements()) <= set(logged)


@pytest.mark.filterwarnings("ignore:The 'future.infer_string' option is deprecated")
def test_mlflow_loads_the_version_and_gives_the_same_probabilities(
        registered: Any, client: Any) -> None:
    import mlflow
    import pandas as pd

    layout, _ = registered
    about, rows = flights.load_about(layout), flights.load(layout)[:: 3000]
    inputs = export.feed(rows, {"carrier": about.carrier, "origin": about.origin})
    folder = mlflow.artifacts.download_artifacts(
        client.get_model_version_download_uri("flights-late", "1"),
        tracking_uri=register.tracking_uri(layout))
    model = mlflow.pyfunc.load_model(folder)
    frame = pd.DataFrame({name: values.astype(object if name in flights.CATEGORIES else float)
                          for name, values in inputs.items()})
    # MLflow 3.17 hands onnxruntime the text columns of pandas 3 as they are, which it refuses.
    with pd.option_context("future.infer_string", False):
        frame = frame.astype(dict.fromkeys(flights.CATEGORIES, object))
        got = model.predict(frame)["probability"].to_numpy()
    served = export.session((layout.model(CHAMPION) / "model.onnx").read_bytes())
    assert np.abs(got - served.run([export.OUTPUT], inputs)[0]).max() < 1e-6


def test_registering_again_adds_no_version(registered: Any, client: Any,
                                           step: Callable[..., Any]) -> None:
    layout, _ = registered
    again = step("register", "--home", str(layout.home))
    assert again.returncode == 0, again.stderr
    assert "champion: these very bytes are flights-late version 1 already" in again.stdout
    assert len(client.search_model_versions("name = 'flights-late'")) == 2
    manifest.verify(layout.model(CHAMPION))


def test_the_alias_champion_is_on_the_version_that_is_laid_out_again(
        registered: Any, client: Any, step: Callable[..., Any]) -> None:
    layout, _ = registered
    client.set_registered_model_alias("flights-late", CHAMPION, "2")
    assert step("register", "--home", str(layout.home)).returncode == 0
    assert str(client.get_model_version_by_alias("flights-late", CHAMPION).version) == "1"
    assert manifest.verify(layout.model(CHAMPION)).version == "1"


def test_a_model_that_is_not_the_one_that_was_compared_is_not_registered(
        trained: Layout, tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    for variant in VARIANTS:
        folder = layout.training(variant)
        folder.mkdir(parents=True)
        report = json.loads((trained.training(variant) / "report.json").read_text())
        (folder / "report.json").write_text(json.dumps(report))
        (folder / "model.onnx").write_bytes(b"something else")
    with pytest.raises(ActionFailed, match="not the one that was compared"):
        register.register(layout)
    assert not layout.tracking.exists() and not layout.model(CHAMPION).exists()


def test_without_a_training_it_says_which_to_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Train it first"):
        register.register(Layout(tmp_path))
