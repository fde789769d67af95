"""Data on S3 is named by versions, and found again by them, on a real server of its API."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from engine.errors import ActionFailed, NotFound, UsageError
from engine.reproduce import s3
from tests.rollout.traffic import moto_server

NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[moto_server.Moto]:
    with moto_server.serving() as running:
        yield running


@pytest.fixture
def bucket(server: moto_server.Moto) -> str:
    name = f"bucket-{next(NUMBERS)}"
    client = server.client("s3")
    client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": moto_server.REGION})
    client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name


@pytest.fixture
def client(server: moto_server.Moto) -> Any:
    return server.client("s3")


def put(client: Any, bucket: str, key: str, data: bytes) -> str | None:
    version: str | None = client.put_object(Bucket=bucket, Key=key, Body=data).get("VersionId")
    return version


def test_an_object_is_named_by_its_version(client: Any, bucket: str) -> None:
    first = put(client, bucket, "a b.csv", b"old")
    found = s3.dataset(f"s3://{bucket}/a b.csv", client)
    assert (found.version, found.bytes, found.files, found.kind) == (first, 3, 1, "s3")
    second = put(client, bucket, "a b.csv", b"newer")
    assert s3.dataset(found.uri, client).version == second != first
    assert s3.dataset(f"{found.uri}?versionId={first}", client) == found
    assert s3.content(found.uri, first, client) == hashlib.sha256(b"old").hexdigest()


def test_the_version_of_a_run_is_there_as_long_as_it_is_not_removed(client: Any, bucket: str) -> None:
    put(client, bucket, "a.csv", b"old")
    of_run = s3.dataset(f"s3://{bucket}/a.csv", client)
    put(client, bucket, "a.csv", b"new")
    client.delete_object(Bucket=bucket, Key="a.csv")
    assert s3.available(of_run, client) is None
    client.delete_object(Bucket=bucket, Key="a.csv", VersionId=of_run.version)
    assert s3.available(of_run, client) == f"{of_run.uri} is gone, or its version {of_run.version} is"


def test_a_prefix_is_named_by_the_versions_below_it_and_found_again_after_more_came(
        client: Any, bucket: str) -> None:
    for name in ("p/a", "p/b", "q/c"):
        put(client, bucket, name, b"1")
    of_run = s3.dataset(f"s3://{bucket}/p/", client)
    assert of_run.files == 2 and of_run.bytes == 2 and set(of_run.objects) == {"p/a", "p/b"}
    assert s3.dataset(f"s3://{bucket}/p/", client) == of_run
    old = of_run.objects["p/a"]
    put(client, bucket, "p/a", b"2")
    put(client, bucket, "p/z", b"2")
    now = s3.dataset(f"s3://{bucket}/p/", client)
    assert now.version != of_run.version and now.files == 3
    assert s3.available(of_run, client) is None
    client.delete_object(Bucket=bucket, Key="p/a", VersionId=old)
    assert s3.available(of_run, client) == f"1 objects of {of_run.uri} are gone, p/a first"


def test_a_prefix_of_more_than_one_page_is_whole(client: Any, bucket: str) -> None:
    class Paged:
        """The client, with pages of two as S3 has pages of a thousand."""

        def list_object_versions(self, **arguments: Any) -> Any:
            return client.list_object_versions(**arguments, MaxKeys=2)

    for at in range(5):
        put(client, bucket, f"p/{at}", b"1")
    assert s3.dataset(f"s3://{bucket}/p/", Paged()) == s3.dataset(f"s3://{bucket}/p/", client)


def test_a_prefix_too_large_to_list_must_be_as_it_was(client: Any, bucket: str,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "LISTED", 1)
    put(client, bucket, "p/a", b"1")
    put(client, bucket, "p/b", b"1")
    of_run = s3.dataset(f"s3://{bucket}/p/", client)
    assert of_run.objects == {} and s3.available(of_run, client) is None
    put(client, bucket, "p/c", b"1")
    assert "are not those of the run" in str(s3.available(of_run, client))


def test_without_versioning_an_object_is_named_by_its_content(client: Any, server: moto_server.Moto) -> None:
    client.create_bucket(Bucket="plain", CreateBucketConfiguration={"LocationConstraint": moto_server.REGION})
    put(client, "plain", "a", b"data")
    found = s3.dataset("s3://plain/a", client)
    assert found.version is None and found.sha256 == hashlib.sha256(b"data").hexdigest()
    folder = s3.dataset("s3://plain/", client)
    assert folder.version is None and folder.sha256
    assert s3.available(found, client) is None and s3.available(folder, client) is None
    put(client, "plain", "a", b"other")
    assert "other content" in str(s3.available(found, client))
    assert s3.dataset("s3://plain/", client).sha256 != folder.sha256


def test_what_is_not_there_is_said_plainly(client: Any, bucket: str) -> None:
    for uri in (f"s3://{bucket}/none", f"s3://{bucket}/none/", "s3://no-such-bucket/x"):
        with pytest.raises(NotFound, match=r"no such object|no object below"):
            s3.dataset(uri, client)


@pytest.mark.parametrize("uri", ["s3:/x", "https://x/y", "s3://", "x"])
def test_an_address_of_another_form_is_refused(uri: str) -> None:
    with pytest.raises(UsageError, match="not an S3 address"):
        s3.split(uri)


def test_a_server_that_is_away_is_an_error_and_not_a_missing_object(server: moto_server.Moto) -> None:
    gone = s3.client(f"http://127.0.0.1:{moto_server.free_port()}")
    with pytest.raises(ActionFailed, match="S3 cannot be asked") as failed:
        s3.dataset("s3://b/k", gone)
    assert "network" in str(failed.value.hint)
