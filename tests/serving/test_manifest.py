"""A model directory is served with exactly the files it was made of, and never a pickle."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.serving import manifest
from engine.serving.manifest import ManifestError, read_verified, verify

INPUTS = [{"name": "hour", "type": "long"}]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    (directory / "extra").mkdir(parents=True)
    (directory / "model.onnx").write_bytes(b"\x08\x0amodel")
    (directory / "MLmodel").write_text("flavors: {}")
    (directory / "extra" / "weights.bin").write_bytes(b"w" * 100_000)
    manifest.write(directory, name="late", version="3", inputs=INPUTS, output="score")
    return directory


def test_what_was_written_verifies_and_says_what_it_is(model: Path) -> None:
    found = verify(model)
    assert (found.name, found.version, found.output) == ("late", "3", "score")
    assert found.inputs == (("hour", "long"),)
    assert set(found.files) == {"model.onnx", "MLmodel", "extra/weights.bin"}
    assert read_verified(model, found, "model.onnx") == b"\x08\x0amodel"


def test_writing_twice_gives_the_same_bytes(model: Path) -> None:
    before = (model / "manifest.json").read_bytes()
    digest = manifest.write(model, name="late", version="3", inputs=INPUTS, output="score")
    assert (model / "manifest.json").read_bytes() == before and verify(model, digest).sha256 == digest


def one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(("damage", "says"), [
    (lambda d: one_bit(d / "model.onnx"), "model.onnx does not have the SHA-256"),
    (lambda d: one_bit(d / "extra/weights.bin"), "extra/weights.bin does not have"),
    (lambda d: (d / "MLmodel").unlink(), "MLmodel is missing"),
    (lambda d: (d / "new.txt").touch(), "new.txt is not listed"),
    (lambda d: (d / "extra/new.onnx").touch(), "extra/new.onnx is not listed"),
    (lambda d: (d / "manifest.json").unlink(), "no manifest"),
    (lambda d: (d / "manifest.json").write_text("{"), "not valid"),
    (lambda d: (d / "manifest.json").write_text("[]"), "not valid"),
    (lambda d: (d / "manifest.json").write_text('{"format": 2}'), "format 2"),
    (lambda d: (d / "link").symlink_to("/etc/passwd"), "link is a link"),
    (lambda d: ((d / "MLmodel").rename(d.parent / "x"), (d / "MLmodel").symlink_to("../x")),
     "MLmodel is a link"),
    (lambda d: ((d / "manifest.json").rename(d.parent / "m"),
                (d / "manifest.json").symlink_to("../m")), "manifest cannot be read"),
])
def test_any_difference_is_refused_by_name(model: Path, damage: Callable[[Path], object],
                                           says: str) -> None:
    damage(model)
    with pytest.raises(ManifestError, match=says) as caught:
        verify(model)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["model.pkl", "m.joblib", "m.SKOPS", "sub.pickle", "w.pt", "a.npy"])
def test_a_pickle_is_refused_by_its_name_even_when_it_is_listed(model: Path, name: str) -> None:
    (model / name).write_bytes(b"harmless")
    with pytest.raises(ManifestError, match="pickle"):
        manifest.write(model, name="late", version="3", inputs=INPUTS)
    listed = json.loads((model / "manifest.json").read_text())
    listed["files"][name] = "0" * 64
    (model / "manifest.json").write_text(json.dumps(listed))
    with pytest.raises(ManifestError, match=r"pickle|SHA"):
        verify(model)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_under_another_name_is_refused_by_its_content(model: Path, protocol: int) -> None:
    (model / "notes.txt").write_bytes(pickle.dumps({"a": 1}, protocol))
    with pytest.raises(ManifestError, match=r"notes\.txt is, or may hold, a pickle"):
        manifest.write(model, name="late", version="3", inputs=INPUTS)


def test_a_manifest_that_was_replaced_with_its_files_is_refused_by_its_recorded_digest(
        model: Path) -> None:
    recorded = verify(model).sha256
    one_bit(model / "model.onnx")
    manifest.write(model, name="late", version="3", inputs=INPUTS, output="score")
    verify(model)
    with pytest.raises(ManifestError, match="not the one that was recorded"):
        verify(model, recorded)


def test_a_file_that_changes_after_it_was_verified_is_not_used(model: Path) -> None:
    found = verify(model)
    one_bit(model / "model.onnx")
    with pytest.raises(ManifestError, match=r"model\.onnx"):
        read_verified(model, found, "model.onnx")
    with pytest.raises(ManifestError, match="not listed"):
        read_verified(model, found, "../x")


def test_the_file_that_mlflow_adds_to_a_download_is_no_reason_to_refuse(model: Path) -> None:
    (model / "registered_model_meta").write_text("model_name: late")
    verify(model)


@pytest.mark.parametrize(("inputs", "version", "says"), [
    ([], "3", "no inputs"), (INPUTS * 2, "3", "twice"),
    ([{"name": "a", "type": "tensor"}], "3", "not known"), (INPUTS, "3\r\nx: y", "version")])
def test_a_manifest_that_would_not_verify_is_not_written(
        model: Path, inputs: list[dict[str, str]], version: str, says: str) -> None:
    with pytest.raises(ManifestError, match=says):
        manifest.write(model, name="late", version=version, inputs=inputs)
    assert verify(model).version == "3"
