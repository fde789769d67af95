"""The digest of what would be built: the same as long as nothing differs, and never of half a file."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from engine.errors import DocumentError, OpsdeckError, UsageError
from engine.pipeline.triggers.looking import FUTURE, SETTLE, Unsettled, look
from engine.pipeline.triggers.looking_apart import apart
from tests.pipeline.triggers.triggered import project

LATER = 3600.0


def seen(folder: Path, tmp_path: Path, after: float = LATER) -> dict[str, Any]:
    return look(folder, tmp_path / "memo.json", time.time() + after)


@pytest.mark.parametrize(("name", "text", "data", "what"), [
    ("train.py", "def main(inputs, output, params): return 1\n", False, True),
    ("tests/test_it.py", "def test_it(): assert 1\n", False, True),
    ("expectations.yaml", "columns: {}\n", False, True),
    ("data/rows.csv", "x,y\n1,1\n", True, True),
    ("notes.md", "nothing of the model\n", False, False),
    ("__pycache__/train.cpython-311.pyc", "x", False, False)])
def test_what_would_be_built_differs_exactly_when_something_of_it_does(
        name: str, text: str, data: bool, what: bool, tmp_path: Path) -> None:
    folder = project(tmp_path / "flights")
    before = seen(folder, tmp_path)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    after = seen(folder, tmp_path)
    assert (after["what"] != before["what"], after["data"] != before["data"]) == (what, data)


def test_settings_of_the_build_count_and_those_of_its_triggers_do_not(tmp_path: Path) -> None:
    folder = project(tmp_path / "flights")
    before = seen(folder, tmp_path)
    file = folder / "opsdeck.pipeline.yaml"
    file.write_text(file.read_text().replace("triggers: {}", "triggers: {drift: true}"))
    assert seen(folder, tmp_path) == before
    file.write_text(file.read_text() + "seed: 7\n")
    assert seen(folder, tmp_path)["what"] != before["what"]


def test_a_file_that_was_written_just_now_is_not_taken_yet(tmp_path: Path) -> None:
    folder = project(tmp_path / "flights")
    with pytest.raises(Unsettled, match="written just now"):
        seen(folder, tmp_path, 0.0)
    with pytest.raises(Unsettled):
        seen(folder, tmp_path, -FUTURE / 2)
    seen(folder, tmp_path, SETTLE + 1.0)


def test_a_file_that_keeps_changing_is_never_taken_half(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = project(tmp_path / "flights")
    rows = folder / "data/rows.csv"
    from engine.reproduce import digests

    real = digests.file

    def growing(path: Path) -> digests.Digest:
        found = real(path)
        if path == rows:
            with rows.open("a") as file:
                file.write("2,1\n")
        return found

    monkeypatch.setattr(digests, "file", growing)
    with pytest.raises(Unsettled, match="changes while it is read"):
        seen(folder, tmp_path)


def test_data_of_a_folder_is_all_its_files_by_name(tmp_path: Path) -> None:
    folder = project(tmp_path / "flights", source="path: data")
    before = seen(folder, tmp_path)
    (folder / "data/more.csv").write_text("x,y\n")
    assert seen(folder, tmp_path)["data"] != before["data"]
    (folder / "data/more.csv").unlink()
    assert seen(folder, tmp_path) == before


def test_data_that_is_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    folder = project(tmp_path / "flights")
    (folder / "data/rows.csv").unlink()
    with pytest.raises(UsageError, match="there is no data to train on"):
        seen(folder, tmp_path)
    (folder / "opsdeck.pipeline.yaml").write_text("opsdeck: 1\n")
    with pytest.raises(DocumentError):
        seen(folder, tmp_path)


async def test_a_process_of_its_own_finds_the_same_and_says_what_is_wrong(tmp_path: Path) -> None:
    folder = project(tmp_path / "flights")
    environ = {**os.environ, "OPSDECK_SETTLE": "0"}
    found = await apart(folder, tmp_path / "own/memo.json", environ)
    assert found == seen(folder, tmp_path)
    with pytest.raises(Unsettled):
        await apart(folder, tmp_path / "memo.json", {**environ, "OPSDECK_SETTLE": "3600"})
    (folder / "opsdeck.pipeline.yaml").write_text("opsdeck: 1\n")
    with pytest.raises(OpsdeckError, match="problems"):
        await apart(folder, tmp_path / "memo.json", environ)


def test_a_damaged_memory_of_digests_changes_nothing(tmp_path: Path) -> None:
    folder = project(tmp_path / "flights")
    before = seen(folder, tmp_path)
    (tmp_path / "memo.json").write_text(json.dumps({str(folder / "train.py"): 3}))
    assert seen(folder, tmp_path) == before
    (tmp_path / "memo.json").write_text("{")
    assert seen(folder, tmp_path) == before


def test_data_on_s3_is_told_by_the_versions_of_its_objects(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "testing",
                            "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}.items():
            monkeypatch.setenv(name, value)
        from engine.reproduce import s3

        client = s3.client(f"http://{host}:{port}")
        client.create_bucket(Bucket="rows")
        client.put_bucket_versioning(Bucket="rows", VersioningConfiguration={"Status": "Enabled"})
        client.put_object(Bucket="rows", Key="day/1.csv", Body=b"x,y\n")
        folder = project(tmp_path / "flights", source="uri: s3://rows/day/")
        before = seen(folder, tmp_path)
        assert seen(folder, tmp_path) == before
        client.put_object(Bucket="rows", Key="day/2.csv", Body=b"x,y\n")
        assert seen(folder, tmp_path)["data"] != before["data"]
    finally:
        server.stop()
