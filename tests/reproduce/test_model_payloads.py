"""A model's payload has one digest, whenever, wherever and under whichever id it was saved."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ActionFailed, UsageError
from engine.reproduce import archives, payload

names = st.text("abcdé/", min_size=1, max_size=5).map(lambda one: one.strip("/") or "x").filter(
    lambda one: "//" not in one)
trees = st.dictionaries(names, st.binary(max_size=30), min_size=1, max_size=5)


def zipped(tree: dict[str, bytes], year: int = 1990, stored: bool = False, backwards: bool = False) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(tree, reverse=backwards):
            info = zipfile.ZipInfo(name, (year, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
            archive.writestr(info, tree[name])
    return made.getvalue()


def tarred(tree: dict[str, bytes], when: int = 0, mode: str = "w", backwards: bool = False) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as archive:
        for name in sorted(tree, reverse=backwards):
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.uid = len(tree[name]), when, when % 1000
            archive.addfile(info, io.BytesIO(tree[name]))
    return made.getvalue()


def of(folder: Path, name: str, data: bytes) -> payload.Payload:
    (folder / name).write_bytes(data)
    return payload.digest(folder / name)


@settings(max_examples=25, deadline=None)
@given(trees)
def test_times_order_and_compression_of_an_archive_do_not_count_and_contents_do(
        tmp_path_factory: pytest.TempPathFactory, tree: dict[str, bytes]) -> None:
    folder = tmp_path_factory.mktemp("archives")
    zips = [zipped(tree), zipped(tree, 2030), zipped(tree, stored=True), zipped(tree, backwards=True)]
    tars = [tarred(tree), tarred(tree, 10**9), tarred(tree, backwards=True)]
    for made in (zips, tars):
        assert len({of(folder, f"{at}", data).sha256 for at, data in enumerate(made)}) == 1
    changed = {**tree, min(tree): tree[min(tree)] + b"!"}
    found, other = of(folder, "a", zips[0]), of(folder, "b", zipped(changed))
    assert payload.differing(found, other) == [f"!/{min(tree)}"]
    assert of(folder, "c", tars[0]).sha256 != of(folder, "d", tarred(changed)).sha256


def test_compressed_archives_are_looked_into(tmp_path: Path) -> None:
    tree = {"model/weights.bin": b"w" * 1000, "model/config.json": b"{}"}
    found = {mode: of(tmp_path, mode.replace(":", "."), tarred(tree, when, mode))
             for when, mode in enumerate(["w:gz", "w:bz2", "w:xz"])}
    assert len({one.sha256 for one in found.values()}) == 1
    assert list(found["w:gz"].members) == ["!/content!/model/config.json", "!/content!/model/weights.bin"]
    one, other = (of(tmp_path, f"{when}.gz", gzip.compress(b"x", mtime=when)) for when in (1, 2))
    assert one == other


def test_archives_inside_archives_and_folders_are_looked_into(tmp_path: Path) -> None:
    sums = set()
    for year in (1990, 2030):
        folder = tmp_path / str(year)
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / "m.zip").write_bytes(zipped({"w.npz": zipped({"w.npy": b"1"}, year)}, year))
        found = payload.digest(folder)
        assert list(found.members) == ["deep/m.zip!/w.npz!/w.npy"]
        sums.add(found.sha256)
    assert len(sums) == 1


def test_two_members_of_one_name_both_count(tmp_path: Path) -> None:
    def twice(second: bytes) -> bytes:
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as archive:
            for data in (b"1", second):
                archive.writestr(zipfile.ZipInfo("a"), data)
        return made.getvalue()

    with pytest.warns(UserWarning, match="Duplicate name"):
        one, other = of(tmp_path, "1", twice(b"2")), of(tmp_path, "2", twice(b"3"))
    assert payload.differing(one, other) == ["!/a#2"]


def test_a_npz_saved_twice_is_the_same_and_of_other_numbers_is_not(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", w=np.arange(5.0), b=np.ones(2))
    np.savez(tmp_path / "b.npz", b=np.ones(2), w=np.arange(5.0))
    np.savez(tmp_path / "c.npz", w=np.arange(5.0) + 1e-16, b=np.ones(2) + 1e-15)
    a, b, c = (payload.digest(tmp_path / f"{name}.npz") for name in "abc")
    assert a == b and payload.differing(a, c) == ["!/b.npy", "!/w.npy"]


ML = """artifact_path: file:///{id}/artifacts
flavors:
  onnx: {{data: model.onnx, onnx_version: 1.23.2}}
mlflow_version: 3.17.2
model_id: m-{id}
model_size_bytes: 17{id}
model_uuid: m-{id}
run_id: {id}
signature: {{inputs: '[{{"type": "double", "name": "x"}}]'}}
utc_time_created: '2026-11-24 11:49:5{id}'
"""


def test_ids_and_times_of_mlflow_do_not_count_and_everything_else_does(tmp_path: Path) -> None:
    found = []
    for at, text in enumerate([ML.format(id=1), ML.format(id=2), ML.format(id=1).replace("double", "float"),
                               ML.format(id=1).replace("1.23.2", "1.23.3")]):
        (tmp_path / str(at) / "model").mkdir(parents=True)
        (tmp_path / str(at) / "model" / "MLmodel").write_text(text)
        found.append(payload.digest(tmp_path / str(at)))
    assert found[0] == found[1] and len({one.sha256 for one in found}) == 3


@pytest.mark.parametrize(("name", "one", "other"), [
    ("MLmodel", "run_id: 1\n", "run_id: 2\n"),
    ("MLmodel", "not: [yaml", "not: {yaml"),
    ("metadata.json", '{"date_saved": 1}', '{"date_saved": 2}'),
    ("manifest.json", '{"version": 1}', '{"version": 2}'),
    ("notes.yaml", "run_id: 1\n", "run_id: 2\n"),
])
def test_a_file_that_only_has_the_name_keeps_its_content(tmp_path: Path, name: str, one: str,
                                                         other: str) -> None:
    first = of(tmp_path, name, one.encode())
    for folder, text in (("1", one), ("2", other)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(text)
    assert payload.digest(tmp_path / "1").sha256 != payload.digest(tmp_path / "2").sha256
    assert first.members.keys() == {""}


def test_dates_and_nan_in_mlflows_metadata_are_no_obstacle(tmp_path: Path) -> None:
    for folder, number in (("1", ".nan"), ("2", ".inf")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "MLmodel").write_text(
            f"flavors: {{a: {number}, 3: 2026-01-01}}\nrun_id: {folder}\n")
    assert payload.digest(tmp_path / "1").sha256 != payload.digest(tmp_path / "2").sha256


def test_keras_bytecode_and_the_registrys_note_do_not_count(tmp_path: Path) -> None:
    found = []
    for at in "12":
        folder = tmp_path / at
        (folder / "code" / "__pycache__").mkdir(parents=True)
        (folder / "code" / "__pycache__" / "x.pyc").write_bytes(at.encode())
        (folder / "registered_model_meta").write_text(f"version: {at}")
        (folder / "model.keras").write_bytes(zipped({
            "metadata.json": json.dumps({"keras_version": "3", "date_saved": at}).encode(), "w": b"1"}))
        found.append(payload.digest(folder))
    assert found[0] == found[1] and "model.keras!/w" in found[0].members


def test_a_skops_file_of_one_model_fitted_twice_is_the_same(tmp_path: Path) -> None:
    import skops.io
    from sklearn.linear_model import LogisticRegression

    rows = np.random.default_rng(1).normal(size=(50, 3))
    fitted = [LogisticRegression(C=c).fit(rows, rows[:, 0] > 0) for c in (1.0, 1.0, 2.0)]
    for at, model in enumerate(fitted):
        skops.io.dump(model, tmp_path / f"{at}.skops")
    one, again, other = (payload.digest(tmp_path / f"{at}.skops") for at in range(3))
    assert (tmp_path / "0.skops").read_bytes() != (tmp_path / "1.skops").read_bytes()
    assert one == again and "!/schema.json" in payload.differing(one, other)


def test_an_archive_with_a_damaged_member_is_named(tmp_path: Path) -> None:
    whole = zipped({"a": b"x" * 1000, "b": os.urandom(999)})
    packed = tarred({"a": os.urandom(3000)}, mode="w:gz")
    middle = len(whole) // 2
    for name, data in (("a.zip", whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1:]),
                       ("cut.tar.gz", packed[:2000])):
        with pytest.raises(ActionFailed, match="damaged") as failed:
            of(tmp_path, name, data)
        assert name in str(failed.value.where)


@pytest.mark.parametrize("start", [b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b\x08", b"\xfd7zXZ\0",
                                   b"BZh91AY&SY", bytes(257) + b"ustar"])
def test_what_only_begins_like_an_archive_is_compared_by_its_bytes(tmp_path: Path, start: bytes) -> None:
    one, other = of(tmp_path, "1", start + b"1"), of(tmp_path, "2", start + b"2")
    assert one.members.keys() == {""} and one.sha256 != other.sha256


def test_an_encrypted_member_is_named(tmp_path: Path) -> None:
    data = bytearray(zipped({"a": b"x"}, stored=True))
    data[6] |= 1
    at = data.index(b"PK\x01\x02")
    data[at + 8] |= 1
    with pytest.raises(ActionFailed, match="encrypted"):
        of(tmp_path, "a.zip", bytes(data))


def test_an_archive_made_to_fill_the_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bomb.zip").write_bytes(zipped({"zeros": bytes(5 << 20)}))
    monkeypatch.setattr(archives.Budget, "__init__",
                        lambda self: self.__dict__.update(bytes=1 << 20, members=9))
    with pytest.raises(ActionFailed, match="expands to more than"):
        payload.digest(tmp_path / "bomb.zip")
    (tmp_path / "many.zip").write_bytes(zipped({str(at): b"" for at in range(10)}))
    with pytest.raises(ActionFailed, match="more members"):
        payload.digest(tmp_path / "many.zip")


def test_what_is_missing_and_what_leads_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        payload.digest(tmp_path / "none")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "link").symlink_to("/etc/passwd")
    with pytest.raises(UsageError, match="leads out"):
        payload.digest(tmp_path / "m")


def test_a_pickle_is_compared_by_its_bytes_and_never_loaded(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(b"cos\nsystem\n(S'touch loaded'\ntR.")
    assert payload.digest(tmp_path / "model.pkl").members.keys() == {""}
    assert not (Path.cwd() / "loaded").exists()


def test_a_models_entry_has_both_digests_and_another_files_one(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "w.bin").write_bytes(b"123")
    model, report = payload.artifact(tmp_path / "m", "model"), payload.artifact(tmp_path / "m" / "w.bin")
    assert model.payload == payload.digest(tmp_path / "m").sha256 and model.bytes == 3
    assert report.payload is None and report.kind == "file" and report.sha256 != model.sha256


def test_what_is_left_out_says_why() -> None:
    assert all(one.why and (one.keys or not one.only_with) for one in payload.VOLATILE)
