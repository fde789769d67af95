"""Data on S3 is fetched by the very version that is recorded."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from engine.errors import ActionFailed, NotFound
from engine.pipeline.stages.data.fetching import fetch
from engine.pipeline.stages.data.looking import look
from engine.reproduce import s3
from tests.pipeline.stages.working import NOW, project, table, work
from tests.rollout.traffic import moto_server


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with moto_server.serving() as running:
        made = running.client("s3")
        for name in ("versioned", "plain"):
            made.create_bucket(Bucket=name,
                               CreateBucketConfiguration={"LocationConstraint": moto_server.REGION})
        made.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
        yield made


@pytest.fixture
def aside(tmp_path: Path) -> Path:
    made = tmp_path / "aside"
    made.mkdir()
    return made


def put(client: Any, bucket: str, key: str, rows: int) -> str | None:
    body = io.BytesIO()
    pq.write_table(table(rows), body)
    version: str | None = client.put_object(Bucket=bucket, Key=key, Body=body.getvalue()).get("VersionId")
    return version


def test_an_object_is_fetched_by_the_version_that_is_recorded(
        client: Any, aside: Path, tmp_path: Path) -> None:
    first = put(client, "versioned", "one/rows.parquet", 100)
    put(client, "versioned", "one/rows.parquet", 200)
    uri = f"s3://versioned/one/rows.parquet?versionId={first}"
    found = fetch(work(tmp_path, project(source={"uri": uri})), aside, client)
    assert found.dataset.version == first
    assert [pq.read_table(one).num_rows for one in found.files] == [100]


def test_all_tables_below_a_prefix_are_fetched_in_the_order_of_keys(
        client: Any, aside: Path, tmp_path: Path) -> None:
    for key, rows in (("two/b/x.parquet", 20), ("two/a/x.parquet", 10)):
        put(client, "versioned", key, rows)
    client.put_object(Bucket="versioned", Key="two/_SUCCESS", Body=b"")
    found = fetch(work(tmp_path, project(source={"uri": "s3://versioned/two/"})), aside, client)
    assert [pq.read_table(one).num_rows for one in found.files] == [10, 20]
    assert len(found.dataset.objects) == 3 and found.dataset.version


def test_a_bucket_without_versions_is_named_by_its_content(client: Any, aside: Path, tmp_path: Path) -> None:
    put(client, "plain", "rows.parquet", 50)
    found = fetch(work(tmp_path, project(source={"uri": "s3://plain/rows.parquet"})), aside, client)
    assert found.dataset.version is None and found.dataset.sha256
    assert [one.name for one in found.files] == ["00000-rows.parquet"]


def test_an_object_that_is_replaced_while_it_is_fetched_is_refused(
        client: Any, aside: Path, tmp_path: Path) -> None:
    put(client, "plain", "moving.parquet", 50)

    class Replacing:
        """The client of an S3 where another writes right after each read."""

        def __getattr__(self, name: str) -> Any:
            return getattr(client, name)

        def get_object(self, **asked: Any) -> Any:
            got = client.get_object(**asked)
            body = got["Body"].read()
            put(client, "plain", "moving.parquet", 60)
            from botocore.response import StreamingBody

            return {**got, "Body": StreamingBody(io.BytesIO(body), len(body))}

    with pytest.raises(ActionFailed, match="changed while they were fetched"):
        fetch(work(tmp_path, project(source={"uri": "s3://plain/moving.parquet"})), aside, Replacing())


def test_an_object_that_is_not_there_names_its_address_and_the_stage(
        client: Any, aside: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound) as error:
        fetch(work(tmp_path, project(source={"uri": "s3://versioned/nowhere.parquet"})), aside, client)
    assert error.value.where == "s3://versioned/nowhere.parquet, stage data"


def test_rows_from_s3_lie_in_the_parts_alone(
        client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(client, "versioned", "parts/rows.parquet", 500)
    monkeypatch.setattr(s3, "client", lambda: client)
    one = work(tmp_path, project(source={"uri": "s3://versioned/parts/rows.parquet"}))
    done = look(one, NOW)
    assert done.passed, done.says
    assert sorted(path.name for path in one.output.iterdir()) == [
        "dataset.json", "expectations.yaml", "findings.json", "test.parquet", "train.parquet"]
    assert [path for path in one.output.parent.iterdir() if path.name.startswith(".")] == []
    parts = [pq.read_metadata(one.output / name).num_rows for name in ("train.parquet", "test.parquet")]
    assert sum(parts) == 500


def test_a_prefix_is_had_as_it_was_recorded_whatever_came_later(
        client: Any, aside: Path, tmp_path: Path) -> None:
    for key, rows in (("then/a.parquet", 10), ("then/b.parquet", 20)):
        put(client, "versioned", key, rows)
    recorded = s3.dataset("s3://versioned/then/", client)
    put(client, "versioned", "then/b.parquet", 99)
    put(client, "versioned", "then/c.parquet", 99)
    client.delete_object(Bucket="versioned", Key="then/a.parquet")
    given = work(tmp_path, project(source={"uri": "s3://versioned/then/"}))
    found = fetch(dataclasses.replace(given, settings={"recorded": recorded}), aside, client)
    assert [pq.read_table(one).num_rows for one in found.files] == [10, 20] and found.dataset == recorded
