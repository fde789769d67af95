"""Having the data: a file or folder of the project, objects on S3, or what a command makes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from engine.errors import ActionFailed, OpsdeckError, UsageError
from engine.pipeline.building import listing
from engine.pipeline.project.model import Entry, Limits
from engine.pipeline.stages.contract import Work
from engine.pipeline.stages.data.naming import STAGE
from engine.reproduce import canonical, digests, s3
from engine.reproduce.parts import Dataset, Derivation

TABLES = (".parquet", ".csv", ".csv.gz")
MAKING = Limits(timeout=6 * 3600.0)


@dataclass(frozen=True)
class Fetched:
    """`files` in order; `name` is how the project file names the whole, for sentences."""

    files: tuple[Path, ...]
    dataset: Dataset
    name: str


def fetch(work: Work, aside: Path, client: Any = None) -> Fetched:
    """Have the source's files, on this machine, and the digest or version that names them. Blocking.

    `aside`: an empty folder for what is not there already; it need not be kept. `client`: boto3's, for S3
    (one is made). The setting `recorded` is the Dataset of a run that is done again, which is had as it was.
    Raises UsageError where there is nothing, NotFound, NotPermitted and ActionFailed where it cannot be had;
    each names the source and this stage.
    """
    source = work.project.data.source
    name = source.path or source.uri or " ".join(source.command)
    try:
        if source.path is not None:
            path = work.folder / source.path
            if not path.exists():
                raise UsageError(f"There is no {source.path} in the project's folder.",
                                 hint="Put the data there, or correct data.source.path.")
            return Fetched(_tables(path, name), digests.local(path, source.path), name)
        if source.uri is not None:
            return _from_s3(source.uri, work, aside, client or s3.client())
        return _made(work, name, aside)
    except OpsdeckError as error:
        where = error.where if error.where and error.where != name else ""
        error.where = f"{name}{f' ({where})' if where else ''}, {STAGE}"
        raise


def _tables(path: Path, name: str) -> tuple[Path, ...]:
    """The tables of a folder, below it too, in the order of their paths; of one kind."""
    if not path.is_dir():
        return (path,)
    files = sorted(one for one in path.rglob("*") if one.name.endswith(TABLES) and one.is_file()
                   and not any(part.startswith(".") for part in one.relative_to(path).parts))
    if not files:
        raise UsageError(f"There is no table in {name}: neither Parquet nor CSV.",
                         hint="Tables are .parquet, .csv or .csv.gz files.")
    parquet = [one for one in files if one.suffix == ".parquet"]
    if parquet and len(parquet) < len(files):
        other = next(one for one in files if one.suffix != ".parquet")
        raise UsageError(f"{name} holds both Parquet and CSV: {parquet[0].name} and {other.name}.",
                         hint="Keep one of the two there, or name a single file.")
    return tuple(files)


def _from_s3(uri: str, work: Work, into: Path, client: Any) -> Fetched:
    """Download the very version that is named, or was recorded."""
    bucket, key, _ = s3.split(uri)
    recorded: Dataset | None = work.settings.get("recorded")
    entry = recorded if recorded is not None and (recorded.objects or (
        recorded.version and not recorded.uri.endswith("/"))) else s3.dataset(uri, client)
    if not key or key.endswith("/"):
        wanted = entry.objects or dict.fromkeys(_listed(bucket, key, client), "null")
        wanted = {name: version for name, version in wanted.items() if name.endswith(TABLES)}
    else:
        wanted = {key: entry.version or "null"}
    for at, (name, version) in enumerate(sorted(wanted.items())):
        file = into / f"{at:05d}-{PurePosixPath(name).name}"
        work.say(f"fetching s3://{bucket}/{name}" + (f" version {version}" if version != "null" else ""))
        _download(uri, bucket, name, version, file, client)
    # What has no version may have been replaced between the two looks.
    if "null" in wanted.values() and s3.dataset(uri, client) != entry:
        raise ActionFailed("The objects changed while they were fetched.",
                           hint="Run the stage again; a bucket that keeps versions avoids this.")
    return Fetched(_tables(into, uri), entry, uri)


def _listed(bucket: str, key: str, client: Any) -> list[str]:
    return [one["Key"] for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
            for one in page.get("Contents", ()) if not one["Key"].endswith("/")]


def _download(uri: str, bucket: str, key: str, version: str, file: Path, client: Any) -> None:
    from botocore.exceptions import BotoCoreError, ClientError

    more = {"VersionId": version} if version != "null" else {}
    try:
        body = client.get_object(Bucket=bucket, Key=key, **more)["Body"]
        with file.open("wb") as out:
            for block in body.iter_chunks(s3.BLOCK):
                out.write(block)
    except (ClientError, BotoCoreError) as error:
        raise ActionFailed(f"{key} could not be fetched: {error}", where=uri,
                           hint="Look at S3's state and at the credentials, then run the stage again."
                           ) from error


def _made(work: Work, name: str, into: Path) -> Fetched:
    """Run the command that makes the data, in the project's environment."""
    from engine.pipeline.child import entries, environments, views

    project, source = work.project, work.project.data.source
    python = environments.ensure(project, work.folder, work.home / "pipelines" / project.project, work.say)
    with entries.scratch(work.output) as scratch, views.of(work, "source") as view:
        entries.run(entries.Call(
            entry=Entry(command=source.command), what="the command that makes the data", key="data.source",
            python=python, folder=view.folder, inputs=view.folder, output=into, scratch=scratch, params={},
            seed=project.seed, limits=MAKING, log=work.output / "log.txt", view=view), work.say)
    try:
        files = _tables(into, "what the command left in OPSDECK_OUTPUT")
    except UsageError as error:
        raise ActionFailed(error.message, hint="The command writes a .parquet or .csv file into "
                           "OPSDECK_OUTPUT; what it printed is in log.txt.") from error
    sources = {path: view.digests[path] for path in listing.matching(view.digests, source.sources)}
    derived = Derivation(canonical.digest(dict(view.digests)), sources, list(source.command))
    made = digests.local(files[0]) if len(files) == 1 else digests.local(into)
    return Fetched(files, Dataset(f"derived:{project.project}", "derived", made.sha256, bytes=made.bytes,
                                  files=len(files), derived=derived), name)
