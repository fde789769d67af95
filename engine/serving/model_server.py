"""Serves one ONNX model: `python -m engine.serving.model_server --model DIR --port N`.

    POST /invocations   MLflow's scoring contract (see `engine.serving.scoring`)
    GET  /ping, /health 200 once the model is loaded
    GET  /version       the version of MLflow whose contract this is

The directory's manifest is verified before onnxruntime sees a byte, and nothing is ever unpickled;
MLflow and pandas are not imported. Every response names the model's version and carries the
caller's correlation id. SIGTERM drains and exits 0; a model that must not be served is one sentence
on standard error and exit 2.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import re
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from engine.errors import OpsdeckError, UsageError
from engine.serving import scoring
from engine.serving.correlation import CORRELATION_HEADER
from engine.serving.http_messages import MAX_BODY_BYTES, Request, Response
from engine.serving.http_server import HttpServer
from engine.serving.manifest import MODEL, Manifest, ManifestError, read_verified, verify

if TYPE_CHECKING:
    from engine.serving.fault_injection import Faults

VERSION_HEADER = "x-opsdeck-model-version"
_DRAIN_S = 10.0
# More rows than this are scored beside the event loop, so that a ping is still answered.
_INLINE_ROWS = 256
_MEMORY = re.compile(r"bad_alloc|[Ff]ailed to allocate|out of memory")
_SUPPORTED = "text/csv, application/json"


class Model:
    """A verified ONNX model in an onnxruntime session with one thread."""

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        """Raises ManifestError when onnxruntime refuses it or its inputs are not the manifest's."""
        self.manifest = manifest
        content = read_verified(directory, manifest, MODEL)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False
        # Weights kept beside the model are read from here and nowhere else.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path",
                                         str(directory.resolve()))
        onnxruntime.set_default_logger_severity(3)
        try:
            self._session = onnxruntime.InferenceSession(content, options,
                                                         providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ManifestError(f"onnxruntime cannot load the model: {_first_line(error)}",
                                where=str(directory / MODEL)) from None
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._feeds = {one.name: (one.type, len(one.shape)) for one in self._session.get_inputs()}
        names = [name for name, _ in manifest.inputs]
        self._matrix = len(self._feeds) == 1 and list(self._feeds) != names
        if not self._matrix and set(self._feeds) != set(names):
            raise ManifestError(
                f"The model's inputs ({', '.join(self._feeds)}) are not those of the manifest "
                f"({', '.join(names)}).", where=str(directory))
        for name, (kind, _) in self._feeds.items():
            if kind not in scoring.TENSORS:
                raise ManifestError(f"The model's input {name} has type {kind}, which no column "
                                    "can have.", where=str(directory))
        self._names = names
        self._types = dict(manifest.inputs)

    def columns(self, content_type: str, body: bytes) -> dict[str, scoring.Array]:
        """The checked columns of a request. Raises scoring.BadInput."""
        if content_type == "text/csv":
            columns = scoring.from_csv(body, self._types)
        else:
            columns = scoring.from_json(body, self._names)
        return scoring.to_arrays(columns, self.manifest.inputs)

    def predict(self, columns: dict[str, scoring.Array]) -> bytes:
        """The response's body. Raises what onnxruntime raises."""
        rows = len(next(iter(columns.values())))
        outputs = self._session.run(None, self._feed(columns))
        return scoring.to_body(self._outputs, outputs, rows)

    def _feed(self, columns: dict[str, scoring.Array]) -> dict[str, scoring.Array]:
        import numpy as np

        if self._matrix:
            [(name, (kind, _))] = self._feeds.items()
            stacked = np.stack([columns[column] for column in self._names], axis=1)
            return {name: stacked.astype(scoring.TENSORS[kind], copy=False)}
        feed = {}
        for name, (kind, rank) in self._feeds.items():
            # Doubles beyond float32 become infinite, as they do in MLflow; that is no warning.
            with np.errstate(over="ignore"):
                column = columns[name].astype(scoring.TENSORS[kind], copy=False)
            feed[name] = column.reshape(-1, 1) if rank == 2 else column
        return feed


def handler(model: Model) -> Callable[[Request], Awaitable[Response | None]]:
    """Answers requests with a model; without any code for faults."""

    async def handle(request: Request) -> Response | None:
        headers = _common_headers(model, request)
        if request.path == "/invocations":
            if request.method != "POST":
                return Response(405, b"", headers=(*headers, ("allow", "POST")))
            return await _invocations(model, request, headers)
        if request.path not in ("/ping", "/health", "/version"):
            return Response(404, b"There is nothing here.\n", "text/plain", headers)
        if request.method not in ("GET", "HEAD"):
            return Response(405, b"", headers=(*headers, ("allow", "GET, HEAD")))
        body = _mlflow_version() if request.path == "/version" else b"\n"
        return Response(200, body, headers=headers)

    return handle


def faulty_handler(model: Model, faults: Faults) -> Callable[[Request], Awaitable[Response | None]]:
    """Answers like `handler`, but suffers from `faults` first."""
    from engine.serving.fault_injection import NEVER_S

    well = handler(model)

    async def handle(request: Request) -> Response | None:
        if request.path != "/invocations":
            return await well(request)
        plan = faults.plan
        if delay := plan.delay_s(faults.rng):
            await asyncio.sleep(delay)
        headers = _common_headers(model, request)
        match plan.fault(faults.rng):
            case "timeout":
                await asyncio.sleep(NEVER_S)
                return None
            case "unavailable":
                return None
            case "out_of_memory":
                return _error(507, "RESOURCE_EXHAUSTED", "MemoryError: a fault on purpose", headers)
            case "invalid_input":
                return _error(400, "BAD_REQUEST", "Invalid input: a fault on purpose", headers)
            case "model_error":
                return _error(500, "INTERNAL_ERROR", "The model failed: a fault on purpose",
                              headers)
            case None:
                return await well(request)

    return handle


async def _invocations(model: Model, request: Request,
                       headers: tuple[tuple[str, str], ...]) -> Response:
    kind, refusal = _content_type(request.headers.get("content-type", ""))
    if refusal is not None:
        return Response(415, refusal.encode(), "text/plain; charset=utf-8", headers)
    try:
        columns = model.columns(kind, request.body)
        if len(next(iter(columns.values()))) <= _INLINE_ROWS:
            body = model.predict(columns)
        else:
            body = await asyncio.to_thread(model.predict, columns)
    except scoring.BadInput as bad:
        return _error(400, bad.error_code, str(bad), headers)
    except MemoryError:
        return _error(507, "RESOURCE_EXHAUSTED", "MemoryError: the request needs too much memory",
                      headers)
    except Exception as error:
        return _onnx_error(error, headers)
    return Response(200, body, headers=headers)


def _onnx_error(error: Exception, headers: tuple[tuple[str, str], ...]) -> Response:
    """What onnxruntime raises: its classes have no common base, only names."""
    name, text = type(error).__name__, _first_line(error)
    if _MEMORY.search(str(error)):
        return _error(507, "RESOURCE_EXHAUSTED", f"MemoryError: {text}", headers)
    if name == "InvalidArgument":
        return _error(400, "BAD_REQUEST", f"The model does not take this input: {text}", headers)
    print(f"The model failed: {name}: {error}", file=sys.stderr, flush=True)
    return _error(500, "INTERNAL_ERROR", f"The model failed: {name}: {text}", headers)


def _content_type(value: str) -> tuple[str, str | None]:
    """The media type, and why it is refused, in MLflow's words."""
    kind, *parameters = (part.strip() for part in value.split(";"))
    kind = kind.lower()
    values = {key.lower(): text.strip('"').lower()
              for key, _, text in (parameter.partition("=") for parameter in parameters)}
    if values.pop("charset", "utf-8") != "utf-8":
        return kind, "The scoring server only supports UTF-8"
    if values:
        return kind, f"Unrecognized content type parameters: {', '.join(values)}."
    if kind not in ("text/csv", "application/json"):
        return kind, ("This predictor only supports the following content types: "
                      f"{_SUPPORTED}. Got '{value[:100]}'.")
    return kind, None


def _common_headers(model: Model, request: Request) -> tuple[tuple[str, str], ...]:
    headers = [(VERSION_HEADER, model.manifest.version)]
    correlation = request.headers.get(CORRELATION_HEADER)
    if correlation is not None:
        headers.append((CORRELATION_HEADER, correlation))
    return tuple(headers)


def _error(status: int, code: str, message: str,
           headers: tuple[tuple[str, str], ...]) -> Response:
    body = json.dumps({"error_code": code, "message": message}).encode()
    return Response(status, body, headers=headers)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:500]


def _mlflow_version() -> bytes:
    import importlib.metadata

    try:
        return importlib.metadata.version("mlflow").encode()
    except importlib.metadata.PackageNotFoundError:
        return b"unknown"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m engine.serving.model_server",
                                     description="Serve one verified ONNX model.")
    parser.add_argument("--model", type=Path, required=True, help="directory with manifest.json")
    parser.add_argument("--port", type=int, required=True, help="0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--name", help="shown in messages; the manifest's name unless given")
    parser.add_argument("--faults", type=Path, help="JSON file of faults on purpose")
    parser.add_argument("--manifest-sha256", help="the manifest's recorded SHA-256")
    arguments = parser.parse_args(argv)
    try:
        model = Model(arguments.model, verify(arguments.model, arguments.manifest_sha256))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(model, arguments))
    except OpsdeckError as error:
        print(error, file=sys.stderr, flush=True)
        return error.exit_code
    return 0


async def _serve(model: Model, arguments: Any) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if arguments.faults is None:
        handle = handler(model)
    else:
        from engine.serving.fault_injection import Faults

        faults = Faults(arguments.faults, random.Random())
        faults.watch()
        handle = faulty_handler(model, faults)
    server = HttpServer(handle, max_body_bytes=MAX_BODY_BYTES)
    try:
        port = await server.open(arguments.host, arguments.port)
    except (OSError, OverflowError) as error:
        raise UsageError(f"Port {arguments.port} on {arguments.host} cannot be opened: "
                         f"{getattr(error, 'strerror', None) or error}.") from None
    gc.collect()
    gc.freeze()
    name = arguments.name or model.manifest.name
    print(f"Serving {name} version {model.manifest.version} on http://{arguments.host}:{port}.",
          flush=True)
    await stop.wait()
    await server.close(_DRAIN_S)


if __name__ == "__main__":
    sys.exit(main())
