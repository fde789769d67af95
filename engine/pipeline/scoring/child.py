"""The process that holds a model and answers for it. Run by its path, in any interpreter that has pyarrow.

    python child.py DESCRIPTOR MODULE:FUNCTION MODEL ROOT LIMITS

`function(model: Path)` gives a callable from a pyarrow Table to scores. It is called in ROOT, which is the
first place modules are found in. DESCRIPTOR is a socket on which requests and answers go: a header as JSON,
and a table as an Arrow stream, each behind its length. Whatever the model prints goes to standard error.

    score    (table) the scores, a column of numbers for each
    hold     (table) keep these rows for `measure`
    measure  score `batch` rows of those `calls` times or for `seconds`; the nanoseconds of each call
    memory   the peak of this process, in KiB

Only the standard library and pyarrow are imported here, so that the project's environment needs no more.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import resource
import signal
import socket
import struct
import sys
import time
import traceback
from pathlib import Path
from typing import Any

LENGTHS = struct.Struct(">IQ")
LIMITS = {"memory": resource.RLIMIT_AS, "cpu": resource.RLIMIT_CPU, "file": resource.RLIMIT_FSIZE}


def main() -> None:
    descriptor, function, model, root, limits = sys.argv[1:]
    _die_with_parent()
    sys.path[:] = [root, *(path for path in sys.path if path != str(Path(__file__).parent))]
    channel = socket.socket(fileno=int(descriptor))
    before = _peak_kib()
    try:
        _limit(json.loads(limits))
        importlib.import_module("pyarrow")
        module, _, name = function.partition(":")
        predict = getattr(importlib.import_module(module), name)(Path(model))
        if not callable(predict):
            raise TypeError(f"{function} gave {type(predict).__name__}, which cannot be called with a table")
    except BaseException as error:
        _send(channel, _failed(error, root))
        return
    columns = getattr(predict, "columns", None)
    _send(channel, {"ok": True, "columns": None if columns is None else list(columns), "before": before})
    held: Any = None
    while True:
        asked = _receive(channel)
        if asked is None:
            return
        header, table = asked
        try:
            if header["do"] == "hold":
                held = table
                gc.collect()
                gc.freeze()
                _send(channel, {"ok": True})
            elif header["do"] == "memory":
                _send(channel, {"ok": True, "kib": _peak_kib()})
            elif header["do"] == "measure":
                _send(channel, {"ok": True, "ns": _measured(predict, held, header)})
            else:
                _send(channel, {"ok": True}, _as_table(predict(table)))
        except KeyboardInterrupt:
            return
        except Exception as error:
            _send(channel, _failed(error, root))


def _measured(predict: Any, rows: Any, header: dict[str, Any]) -> list[int]:
    """Each call's own time. The rows are cut beforehand, and nothing is collected while the clock runs: the
    garbage there is was collected by `hold`."""
    batch, calls = int(header["batch"]), int(header["calls"])
    places = rows.num_rows - batch + 1
    slices = [rows.slice((int(header["start"]) + at * batch) % places, batch)
              for at in range(min(calls, 4096))]
    clock, until = time.perf_counter_ns, time.perf_counter() + float(header["seconds"])
    found: list[int] = []
    collecting = gc.isenabled()
    gc.disable()
    try:
        for at in range(calls):
            piece = slices[at % len(slices)]
            begun = clock()
            predict(piece)
            found.append(clock() - begun)
            if time.perf_counter() > until:
                break
    finally:
        if collecting:
            gc.enable()
    return found


def _as_table(scores: Any) -> Any:
    """Scores of whatever kind as columns of float64, one for each class."""
    import pyarrow as pa

    if isinstance(scores, pa.Table | pa.RecordBatch):
        columns = [scores.column(at) for at in range(scores.num_columns)]
    elif isinstance(scores, pa.Array | pa.ChunkedArray):
        columns = [scores]
    else:
        if hasattr(scores, "to_numpy"):
            scores = scores.to_numpy()
        if getattr(scores, "ndim", None) is not None:
            if scores.ndim not in (1, 2):
                raise TypeError(f"scores have the shape {tuple(scores.shape)}; wanted are (rows,) or "
                                "(rows, classes)")
            columns = [pa.array(scores)] if scores.ndim == 1 else [pa.array(scores[:, at].copy())
                                                                   for at in range(scores.shape[1])]
        else:
            scores = list(scores)
            nested = scores and isinstance(scores[0], list | tuple)
            columns = ([pa.array(list(column)) for column in zip(*scores, strict=True)] if nested
                       else [pa.array(scores)])
    return pa.table({str(at): column.cast(pa.float64()) for at, column in enumerate(columns)})


def _failed(error: BaseException, root: str) -> dict[str, Any]:
    """What was raised, and where in the project."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [one for one in frames if Path(one.filename).is_relative_to(root)
           and "site-packages" not in one.filename]
    traceback.print_exception(error)
    at = f"{Path(own[-1].filename).relative_to(root)}:{own[-1].lineno}" if own else None
    said = " ".join(str(error).split())[:500]
    if isinstance(error, ModuleNotFoundError) and error.name == "pyarrow":
        return {"ok": False, "type": "", "at": None, "plain": True, "message":
                "the project's environment has no pyarrow, which its function is handed rows by; add it to "
                "the lock"}
    return {"ok": False, "type": type(error).__name__, "message": said, "at": at,
            "plain": bool(getattr(error, "plain", False))}


def _send(channel: socket.socket, header: dict[str, Any], table: Any = None) -> None:
    head, body = json.dumps(header).encode(), b""
    if table is not None:
        import pyarrow as pa

        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        body = sink.getvalue().to_pybytes()
    channel.sendall(LENGTHS.pack(len(head), len(body)))
    channel.sendall(head)
    channel.sendall(body)


def _receive(channel: socket.socket) -> tuple[dict[str, Any], Any] | None:
    """None when whoever asks has gone."""
    lengths = _exactly(channel, LENGTHS.size)
    if lengths is None:
        return None
    head, body = LENGTHS.unpack(lengths)
    header, content = _exactly(channel, head), _exactly(channel, body)
    if header is None or content is None:
        return None
    table = None
    if body:
        import pyarrow as pa

        with pa.ipc.open_stream(pa.py_buffer(content)) as reader:
            table = reader.read_all()
    return json.loads(header), table


def _exactly(channel: socket.socket, size: int) -> bytearray | None:
    found = bytearray(size)
    view, at = memoryview(found), 0
    while at < size:
        got = channel.recv_into(view[at:])
        if not got:
            return None
        at += got
    return found


def _peak_kib() -> int:
    """VmHWM and not ru_maxrss: that one counts what the process that started this one had in memory."""
    lines = Path("/proc/self/status").read_text(errors="replace").splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def _limit(limits: dict[str, int]) -> None:
    for name, value in limits.items():
        hard = resource.getrlimit(LIMITS[name])[1]
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(LIMITS[name], (most, most))


def _die_with_parent() -> None:
    """Whoever asked is gone: a model that is still computing answers nobody."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)


if __name__ == "__main__":
    main()
