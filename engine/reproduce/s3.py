"""Data on S3, by version ids: an object's own, and for a prefix a digest over those of its objects.

An object of a bucket without versioning has no lasting name; it is read, and named by its content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from engine.errors import ActionFailed, NotFound, NotPermitted, UsageError
from engine.reproduce import canonical
from engine.reproduce.parts import Dataset

MISSING = {"404", "NoSuchKey", "NoSuchBucket", "NoSuchVersion", "NotFound"}
FORBIDDEN = {"403", "AccessDenied", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch"}
BLOCK = 1 << 20
LISTED = 10_000  # objects of a prefix that a manifest names one by one


def client(endpoint_url: str | None = None) -> Any:
    """boto3's client with the credentials of this process and short timeouts."""
    import boto3
    from botocore.config import Config

    return boto3.client("s3", endpoint_url=endpoint_url, config=Config(
        connect_timeout=5, read_timeout=60, retries={"mode": "standard", "max_attempts": 3}))


def split(uri: str) -> tuple[str, str, str | None]:
    """Bucket, key and version of `s3://bucket/key?versionId=…`. Raises UsageError for any other form."""
    parts = urlsplit(uri)
    if parts.scheme != "s3" or not parts.netloc:
        raise UsageError(f"{uri!r} is not an S3 address.", hint="Write it like s3://bucket/folder/file.parquet")
    version = parse_qs(parts.query).get("versionId", [None])[0]
    return parts.netloc, unquote(parts.path.removeprefix("/")), version


def dataset(uri: str, s3: Any) -> Dataset:
    """The entry of an object, or, where the address ends in `/`, of all objects below. Blocking.

    `s3`: a client, see `client`. An address with a version is taken at its word; else the newest one is
    named. Raises NotFound, NotPermitted, and ActionFailed when S3 cannot be asked.
    """
    bucket, key, version = split(uri)
    plain = f"s3://{bucket}/{quote(key)}"
    if not key or key.endswith("/"):
        return _prefix(plain, bucket, key, s3)
    head = _ask(plain, s3.head_object, Bucket=bucket, Key=key, **({"VersionId": version} if version else {}))
    named = head.get("VersionId")
    if named in (None, "null"):
        return Dataset(plain, "s3", sha256=content(plain, None, s3), bytes=head["ContentLength"], files=1)
    return Dataset(plain, "s3", version=named, bytes=head["ContentLength"], files=1)


def content(uri: str, version: str | None, s3: Any) -> str:
    """SHA-256 of an object's bytes, streaming. Blocking. Raises as `dataset` does."""
    bucket, key, _ = split(uri)
    got = _ask(uri, s3.get_object, Bucket=bucket, Key=key, **({"VersionId": version} if version else {}))
    total = hashlib.sha256()
    for block in _ask(uri, lambda: got["Body"].iter_chunks(BLOCK)):
        total.update(block)
    return total.hexdigest()


def available(entry: Dataset, s3: Any) -> str | None:
    """None if S3 still holds what a manifest's entry names, else a sentence why not. Blocking.

    An object is there while its version is, and a prefix while every object's version is, whatever came
    later. Of a prefix with too many objects to list in a manifest, the newest must be those of then.
    """
    bucket, key, _ = split(entry.uri)
    try:
        if entry.objects:
            held = {(name, version) for name, version, _, _ in _versions(entry.uri, bucket, key, s3)}
            gone = sorted(name for name, version in entry.objects.items() if (name, version) not in held)
            return f"{len(gone)} objects of {entry.uri} are gone, {gone[0]} first" if gone else None
        if not key or key.endswith("/"):
            now = _prefix(entry.uri, bucket, key, s3)
            return None if (now.version, now.sha256) == (entry.version, entry.sha256) else \
                f"the objects below {entry.uri} are not those of the run"
        if entry.version:
            _ask(entry.uri, s3.head_object, Bucket=bucket, Key=key, VersionId=entry.version)
            return None
        return None if content(entry.uri, None, s3) == entry.sha256 else f"{entry.uri} has other content now"
    except NotFound:
        return f"{entry.uri} is gone" + (f", or its version {entry.version} is" if entry.version else "")


def _prefix(uri: str, bucket: str, key: str, s3: Any) -> Dataset:
    found = sorted((name, version, size) for name, version, size, newest in _versions(uri, bucket, key, s3)
                   if newest)
    if not found:
        raise NotFound("There is no object below this address.", where=uri, hint="Look at its spelling.")
    size, files = sum(one[2] for one in found), len(found)
    if any(version == "null" for _, version, _ in found):
        named = [[name, version if version != "null" else content(f"s3://{bucket}/{quote(name)}", None, s3)]
                 for name, version, _ in found]
        return Dataset(uri, "s3", sha256=canonical.digest(named), bytes=size, files=files)
    objects = {name: version for name, version, _ in found}
    return Dataset(uri, "s3", version=canonical.digest(objects), bytes=size, files=files,
                   objects=objects if files <= LISTED else {})


def _versions(uri: str, bucket: str, key: str, s3: Any) -> Iterator[tuple[str, str, int, bool]]:
    """Key, version, size and whether it is the newest, of every version of every object below."""
    marks: dict[str, str] = {}
    while True:
        page = _ask(uri, s3.list_object_versions, Bucket=bucket, Prefix=key, **marks)
        for one in page.get("Versions", ()):
            if not one["Key"].endswith("/"):
                yield one["Key"], one["VersionId"], one["Size"], one["IsLatest"]
        if not page.get("IsTruncated"):
            return
        marks = {name: page[f"Next{name}"] for name in ("KeyMarker", "VersionIdMarker")
                 if page.get(f"Next{name}")}


def _ask(uri: str, call: Any, **arguments: Any) -> Any:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return call(**arguments)
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in MISSING:
            raise NotFound("There is no such object or version.", where=uri,
                           hint="Look at its spelling, and whether the bucket's rules removed it.") from error
        if code in FORBIDDEN:
            raise NotPermitted("These credentials may not read this object.", where=uri,
                               hint="Grant s3:GetObject, s3:GetObjectVersion and s3:ListBucketVersions."
                               ) from error
        raise ActionFailed(f"S3 refused: {code}.", where=uri, hint="Look at S3's state, then try again."
                           ) from error
    except BotoCoreError as error:
        raise ActionFailed(f"S3 cannot be asked: {error}", where=uri,
                           hint="Look at the credentials, the region and the network.") from error
