"""A run is done again whose data is a version of an object on S3, in the environment of its uv.lock."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine.errors import UsageError
from engine.pipeline import deployment
from engine.pipeline.project import reading
from engine.pipeline.reproduction import again, finding
from engine.pipeline.reproduction.rebuilding import NotAgain
from tests.pipeline.reproduction.ran import Ran, rows, run_locked
from tests.rollout.traffic import moto_server

NOW = dt.datetime(2026, 11, 24, 13, tzinfo=dt.UTC)
URI = "s3://weather/rows.csv"


@dataclass(frozen=True)
class Stored:
    """`version` is that of the object that the run learned from."""

    ran: Ran
    client: Any
    version: str

    @property
    def folder(self) -> Path:
        return self.ran.repository.folder / "models"

    def again(self, root: Path, said: list[str]) -> Any:
        found = finding.find("7", self.ran.home, {"weather": self.folder})
        return again.again(found, root, NOW, lambda step, line: said.append(f"{step}: {line}"))


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    root = tmp_path_factory.mktemp("stored")
    with moto_server.serving() as running, pytest.MonkeyPatch.context() as env:
        env.setenv("AWS_ENDPOINT_URL", running.url)
        env.setenv("UV_CACHE_DIR", str(root / "cache"))
        env.setenv("UV_NO_INDEX", "1")
        env.setenv("UV_FIND_LINKS", str(root / "repository" / "models" / "wheels"))
        client = running.client("s3")
        client.create_bucket(Bucket="weather",
                             CreateBucketConfiguration={"LocationConstraint": moto_server.REGION})
        client.put_bucket_versioning(Bucket="weather", VersioningConfiguration={"Status": "Enabled"})
        put = client.put_object(Bucket="weather", Key="rows.csv", Body=rows().encode())
        ran = run_locked(root, URI)
        client.put_object(Bucket="weather", Key="rows.csv", Body=rows(300).encode())
        yield Stored(ran, client, put["VersionId"])


def test_it_learns_from_the_version_of_then_though_the_object_was_overwritten(
        stored: Stored, tmp_path: Path) -> None:
    recorded = stored.ran.manifest.known
    assert recorded.data["data"].version == stored.version and recorded.lock is not None
    assert recorded.lock.path == "uv.lock"
    said: list[str] = []
    made, compared = stored.again(tmp_path / "again", said)
    assert compared.verdict == "identical", compared.sentence
    assert made.known.data["data"] == recorded.data["data"] and made.known.lock == recorded.lock
    assert f"data: {URI} is there in the version of the run" in said
    assert "environment: made from uv.lock, whose digest is the run's" in said
    assert any("400 rows of" in line for line in said)


def test_a_version_that_was_deleted_is_told_before_anything_is_done(stored: Stored, tmp_path: Path) -> None:
    stored.client.delete_object(Bucket="weather", Key="rows.csv", VersionId=stored.version)
    with pytest.raises(NotAgain) as told:
        stored.again(tmp_path / "again", [])
    assert f"{URI} is gone, or its version {stored.version} is" in told.value.message
    assert "backup" in str(told.value.hint) and not (tmp_path / "again").exists()


def test_an_image_cannot_be_made_of_a_package_that_the_uv_lock_has_no_hash_of(stored: Stored) -> None:
    """A wheel in a folder has none; `tests/reproduce/rendering` has locks of an index."""
    project = reading.read(stored.folder)
    settings = deployment.settings(project, base=f"python@sha256:{'0' * 64}")
    with pytest.raises(UsageError, match=r"no hash of tiny==1\.0"):
        deployment.docker(project, stored.folder, settings)
