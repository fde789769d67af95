"""The stage that stages: real model servers with the registered model, asked as the product will ask them.

Served are ONNX models, by `engine.serving.model_server`, as the release serves them. A model that is a
folder of another kind is refused here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from engine.pipeline.releasing import served
from engine.pipeline.releasing.recording import trained
from engine.pipeline.stages.contract import Done, Work
from engine.pipeline.stages.staging import contract_tests, smoke
from engine.pipeline.stages.staging.checks import Check, write
from engine.pipeline.stages.staging.layout import lay_out
from engine.pipeline.stages.staging.requests import Held, held
from engine.pipeline.stages.staging.servers import Server

MODEL = "model"  # the folder of the output that a release lays out


def run(work: Work) -> Done:
    """Result: checks, failed (how many), p99_ms, version, and model_manifest (the SHA-256 of the served
    folder's manifest). The output has that folder as `model`, checks.json and junit.xml.

    Raises UsageError for a model that is not ONNX or a schema that is none, ActionFailed where a server does
    not come up.
    """
    import pyarrow.parquet as pq

    project, staging = work.project, work.project.staging
    version = str(work.before["register"]["version"])
    columns = pq.read_schema(work.inputs["data"] / "test.parquet").names
    manifest = work.inputs["register"] / "manifest.json" if "register" in work.inputs else None
    digest, told = lay_out(trained(work.inputs["train"]), work.output / MODEL, name=project.model,
                           version=version, features=served.features(project, columns),
                           run_manifest=manifest)
    rows = held(work.inputs["data"], work.inputs["evaluate"], told, staging.requests,
                own=project.evaluate.entry is not None)
    schema = None if staging.downstream is None else work.folder / staging.downstream
    wrong = contract_tests.validator(schema)
    with _replicas(work.output / MODEL, work.output, staging.replicas) as servers:
        ports = [server.port for server in servers]
        work.say(f"{len(ports)} replicas of {project.model} version {version} serve on {ports}")
        checks: list[Check] = []
        for check in contract_tests.contract(ports, rows, version, wrong, staging.downstream or ""):
            checks.append(_told(work, check))
        measured, p99 = smoke.latency(ports, rows, staging.requests, staging.concurrency, staging.p99_ms)
        checks.append(_told(work, measured))
        work.point("p99_ms", 0.0, p99)
        for check in _smoke(ports, rows, servers, staging.largest_mb, staging.concurrency):
            checks.append(_told(work, check))
    write(checks, work.output)
    failed = [check for check in checks if not check.passed]
    says = f"{len(checks)} checks of {len(ports)} replicas passed; p99 {p99:.1f} ms." if not failed else \
        f"{len(failed)} of {len(checks)} checks failed: {failed[0].name}: {failed[0].seen}"
    return Done(not failed, says, {
        "checks": len(checks), "failed": len(failed), "p99_ms": round(p99, 3), "version": version,
        "replicas": len(ports), "model_manifest": digest}, ("checks.json", "junit.xml"))


def _smoke(ports: list[int], rows: Held, servers: list[Server], largest_mb: float, concurrency: int
           ) -> Iterator[Check]:
    yield from smoke.bad_requests(ports[0], rows)
    yield from smoke.unusual_requests(ports[0], rows, largest_mb)
    yield smoke.slow_client(ports[0], rows)
    yield smoke.together(ports, rows, concurrency)
    yield from smoke.graceful_stop(servers, rows)


def _told(work: Work, check: Check) -> Check:
    work.say(f"{'passed' if check.passed else 'FAILED'}  {check.name}: {check.seen}")
    return check


@contextlib.contextmanager
def _replicas(folder: Path, output: Path, count: int) -> Iterator[list[Server]]:
    with contextlib.ExitStack() as stack:
        servers = []
        for number in range(1, count + 1):
            servers.append(Server(folder, output / f"server-{number}.log"))
            stack.callback(servers[-1].close)
        for server in servers:
            server.ready()
        yield servers
