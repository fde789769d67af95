"""The model server as a process: what it imports, what it refuses, how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

from tests.serving.conftest import ModelServer
from tests.serving.harness import JSON, ROW, SCORED, call, raw


def test_it_speaks_mlflows_contract(model_server: ModelServer) -> None:
    scored = call(model_server.port, "POST", "/invocations", ROW,
                  JSON | {"x-correlation-id": "abc"})
    assert scored.status == 200 and scored.body == SCORED
    assert scored.headers["x-opsdeck-model-version"] == "3"
    assert scored.headers["x-correlation-id"] == "abc"
    csv = call(model_server.port, "POST", "/invocations", b"distance,temp,hour\n1400,39,7\n",
               {"content-type": "text/csv"})
    assert csv.body == SCORED
    assert call(model_server.port, "GET", "/ping").body == b"\n"
    assert call(model_server.port, "GET", "/health").status == 200
    assert call(model_server.port, "GET", "/version").body == b"3.17.2"
    assert call(model_server.port, "GET", "/invocations").status == 405
    assert call(model_server.port, "GET", "/else").status == 404


def test_a_body_beyond_the_limit_is_refused(model_server: ModelServer) -> None:
    said = raw(model_server.port, b"POST /invocations HTTP/1.1\r\nHost: x\r\n"
               b"Content-Length: 99999999999\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 413 ")


def test_a_correlation_id_with_a_line_break_cannot_split_a_response(
        model_server: ModelServer) -> None:
    said = raw(model_server.port, b"GET /ping HTTP/1.1\r\nHost: x\r\n"
               b"X-Correlation-Id: a\rX-Evil: 1\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 400 ") and b"Evil" not in said


def test_it_imports_neither_mlflow_nor_pandas_nor_pickles_nor_faults(model_dir: Path) -> None:
    code = ("import asyncio, sys; from pathlib import Path; "
            "from engine.serving import model_server as s; from engine.serving.manifest import "
            f"verify; d = Path({str(model_dir)!r}); m = s.Model(d, verify(d)); "
            "s.handler(m); print([n for n in sys.modules if n.split('.')[0] in "
            "('mlflow', 'pandas', 'onnx', 'aiohttp', 'pydantic', 'sklearn') or "
            "n == 'engine.serving.fault_injection'])")
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.stdout.strip() == "[]", shown.stderr


def test_a_model_that_does_not_verify_is_one_sentence_and_exit_2(model_dir: Path,
                                                                 home: Path) -> None:
    for name in ("model.onnx", "manifest.json"):
        (home / name).write_bytes((model_dir / name).read_bytes())
    (home / "extra.pkl").write_bytes(b"")
    for arguments, says in [
            ([], "extra.pkl is not listed"),
            (["--manifest-sha256", "0" * 64], "not the one that was recorded")]:
        shown = subprocess.run(
            [sys.executable, "-m", "engine.serving.model_server", "--model", str(home), "--port",
             "0", *arguments], capture_output=True, text=True)
        assert shown.returncode == 2 and says in shown.stderr
        assert "Traceback" not in shown.stderr


def test_sigterm_answers_what_is_in_flight_and_exits_0(model_dir: Path, home: Path) -> None:
    faults = home / "faults.json"
    faults.write_text(json.dumps({"latency_ms": 400}))
    server = ModelServer(model_dir, home, "--faults", str(faults))
    server.wait_ready(server.port)
    started, answers = threading.Event(), []

    def ask() -> None:
        started.set()
        answers.append(call(server.port, "POST", "/invocations", ROW))

    caller = threading.Thread(target=ask)
    caller.start()
    started.wait()
    while not _established(server.port):
        pass
    assert server.stop() == 0
    caller.join(5)
    assert answers[0].status == 200 and answers[0].body == SCORED


def _established(port: int) -> bool:
    """Whether the kernel has a connection to this port whose request the server has read."""
    wanted = f":{port:04X} "
    return any(wanted in line and line.split()[3] == "01" and line.split()[4].endswith("00000000")
               for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
