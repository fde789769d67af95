"""The admin socket, the config and the life of a gateway process."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import UsageError
from engine.serving.gateway_config import parse
from tests.serving.harness import (
    Gateway,
    ScriptedVariant,
    call,
    is_root,
    response,
    wait_for,
)

Make = Callable[..., Gateway]
TWO = {"champion": 1, "challenger": 2}


@pytest.fixture(scope="module")
def gateway(module_home: Path) -> Iterator[Gateway]:
    made = Gateway(module_home, TWO)
    yield made
    made.kill()


def test_the_state_is_read_changed_and_read_back(gateway: Gateway) -> None:
    before = gateway.weights()
    assert before["service"] == "flights" and before["champion"] == "champion"
    answer = gateway.put(95, if_revision=before["revision"])
    assert answer.status == 200 and answer.json["durable"] is True
    after = gateway.weights()
    assert after["weights"] == {"champion": 95.0, "challenger": 5.0} and after["lease"] is None
    assert after["revision"] == before["revision"] + 1 and after["cause"] == "set"
    weight = 'opsdeck_traffic_weight_percent{service="flights",variant="challenger"}'
    assert gateway.metrics()[weight] == 5


def test_a_change_on_another_revision_is_a_409_with_the_present_state(gateway: Gateway) -> None:
    gateway.put(90)
    answer = gateway.put(50, if_revision=0)
    assert answer.status == 409 and answer.json["weights"]["champion"] == 90
    assert answer.json["revision"] == gateway.weights()["revision"]
    assert "revision" in answer.json["error"]


def test_a_lease_is_told_renewed_and_measured(gateway: Gateway) -> None:
    assert 29 < gateway.put(95, lease_s=30).json["lease"]["expires_in_s"] <= 30
    renewed = call(gateway.admin, "POST", "/lease", {"lease_s": 60})
    assert renewed.status == 200 and 59 < renewed.json["lease"]["expires_in_s"] <= 60
    left = gateway.metrics()['opsdeck_traffic_lease_seconds{service="flights"}']
    assert 58 < left <= 60
    gateway.put(100)
    assert 'opsdeck_traffic_lease_seconds{service="flights"}' not in gateway.metrics()
    refused = call(gateway.admin, "POST", "/lease", {"lease_s": 60})
    assert refused.status == 409 and refused.json["weights"]["champion"] == 100


@pytest.mark.parametrize("body", [
    {"weights": {"champion": 60, "challenger": 60}}, {"weights": {"champion": -1, "challenger": 101}},
    {"weights": {"champion": 100, "other": 0}}, {"weights": {"champion": "100"}},
    {"weights": []}, {"weights": {}}, {}, {"weights": {"champion": 100}, "lease": 3},
    {"weights": {"champion": 100}, "lease_s": -1}, {"weights": {"champion": 100}, "lease_s": "1"},
    {"weights": {"champion": 100}, "if_revision": "1"}, [], "text", b"", b"{", b"\xff",
    b'{"weights": {"champion": NaN, "challenger": 100}}',
    b'{"weights": {"champion": Infinity}}', b'{"weights": {"champion": 1e999}}',
    b'{"weights": {"champion": 0, "champion": 100}}', b"[" * 60_000, b" " * 70_000])
def test_a_request_that_is_not_valid_is_a_sentence_and_changes_nothing(gateway: Gateway,
                                                                      body: Any) -> None:
    before = gateway.weights()
    answer = call(gateway.admin, "PUT", "/weights", body)
    assert answer.status == 400 and answer.json["error"].endswith(".")
    assert gateway.weights() == before


def test_other_paths_are_not_there(gateway: Gateway) -> None:
    assert call(gateway.admin, "GET", "/metrics").status == 404
    assert call(gateway.admin, "DELETE", "/weights").status == 404


ASK = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
s = socket.socket(socket.AF_UNIX); s.settimeout(5)
try:
    s.connect(sys.argv[1])
except PermissionError:
    print("no entry"); sys.exit()
s.sendall(b"PUT /weights HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 30\\r\\n\\r\\n"
          b'{"weights": {"champion": 100}}')
print(s.recv(65536).decode())
"""


@pytest.mark.skipif(not is_root(), reason="needs root to act as another user")
def test_another_user_is_kept_out_by_the_files_rights_and_by_the_kernels_word(
        gateway: Gateway) -> None:
    gateway.put(95)
    before = gateway.weights()
    assert gateway.admin.stat().st_mode & 0o777 == 0o600

    def as_nobody() -> str:
        return subprocess.run([sys.executable, "-c", ASK, str(gateway.admin)], check=True,
                              capture_output=True, text=True).stdout

    gateway.home.chmod(0o755)
    assert as_nobody().strip() == "no entry"
    gateway.admin.chmod(0o666)
    try:
        said = as_nobody()
    finally:
        gateway.admin.chmod(0o600)
    assert said.startswith("HTTP/1.1 403") and "uid 65534" in said
    assert gateway.weights() == before


def test_a_second_gateway_on_the_same_files_is_an_error_and_the_first_serves_on(
        gateway: Gateway) -> None:
    config = gateway.home / "gateway.json"
    shown = subprocess.run([sys.executable, "-m", "engine.serving.gateway", "--config",
                            str(config)], capture_output=True, text=True)
    assert shown.returncode == 2 and f"pid {gateway.process.pid}" in shown.stderr
    assert "Traceback" not in shown.stderr and gateway.weights()["service"] == "flights"


def test_a_socket_that_another_program_listens_on_is_not_taken(home: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(home / "admin.sock"))
        other.listen()
        gateway = Gateway(home, TWO, start=False)
        gateway.launch()
        assert gateway.ends() == 2 and "already answers" in gateway.said


def test_a_socket_that_a_dead_gateway_left_is_replaced(home: Path, gateways: Make) -> None:
    first = gateways(home, TWO)
    first.kill()
    assert first.admin.exists()
    first.start()
    assert first.weights()["weights"]["champion"] == 100


def config_of(home: Path, **more: Any) -> dict[str, Any]:
    return Gateway(home, TWO, start=False).config | more


@pytest.mark.parametrize(("change", "says"), [
    ({"champion": "other"}, "champion 'other' is not among the variants"),
    ({"surprise": 1}, "surprise"), ({"port": "80"}, "port"), ({"port": 70000}, "70000"),
    ({"service": "Flights 1"}, "service name"), ({"variants": {}}, "champion"),
    ({"variants": {"champion": {"url": "ftp://x"}}}, "url of variant champion"),
    ({"variants": {"champion": {"url": "http://x:99999"}}}, "not a URL"),
    ({"variants": {"champion": {"url": "http://x", "version": "a\nb"}}}, "version of variant"),
    ({"initial_weights": {"champion": 50}}, "add up to 50"), ({"timeout_s": 0}, "timeout_s"),
    ({"key_header": "a b"}, "key_header"), ({"session_header": ""}, "session_header ''"),
    ({"unit_window_s": 0}, "unit_window_s"), ({"mirror_in_flight": 0}, "mirror_in_flight"),
    ({"prediction_bins": {}}, "edges (of a score) or classes"),
    ({"prediction_bins": {"edges": [1], "classes": ["a"]}}, "not both"),
    ({"prediction_bins": {"edges": []}}, "has 0 edges"),
    ({"prediction_bins": {"edges": [0.5, 0.5]}}, "each above the one before"),
    ({"prediction_bins": {"edges": ["0.5"]}}, "edges"),
    ({"prediction_bins": {"output": -1, "edges": [0]}}, "output is -1"),
    ({"prediction_bins": {"classes": []}}, "1 to 64 classes"),
    ({"prediction_bins": {"classes": ["1", 1]}}, "must all differ"),
    ({"prediction_bins": {"classes": ["other"]}}, "none may be called other"),
    ({"prediction_bins": {"classes": ["a\nb"]}}, "printable"),
    ({"prediction_bins": {"edge": [1]}}, "edge"), ({"admin_socket": "/tmp/" + "x" * 110}, "107"),
    ({"prediction_log": {"path": "p", "max_bytes": 0}}, "max_bytes"),
    ({"prediction_log": {"path": "p", "redacted": []}}, "redacted")])
def test_a_config_that_is_not_valid_is_one_sentence_and_exit_2(home: Path, change: dict[str, Any],
                                                               says: str) -> None:
    with pytest.raises(UsageError, match=r".") as caught:
        parse(json.dumps(config_of(home, **change)).encode(), "gateway.json")
    assert says in caught.value.message and caught.value.exit_code == 2
    assert "\n" not in caught.value.message


def test_a_config_that_cannot_be_read_ends_the_process_with_2_and_no_traceback(home: Path) -> None:
    path = home / "gateway.json"
    path.write_text("{")
    shown = subprocess.run([sys.executable, "-m", "engine.serving.gateway", "--config", str(path)],
                           capture_output=True, text=True)
    assert shown.returncode == 2 and str(path) in shown.stderr
    assert "Traceback" not in shown.stderr and shown.stderr.count("\n") == 1


def test_a_port_that_is_taken_is_a_sentence_and_leaves_no_socket_behind(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        gateway = Gateway(home, TWO, start=False, port=other.getsockname()[1])
        gateway.launch()
        assert gateway.ends() == 2 and "cannot be opened" in gateway.said
        assert not gateway.admin.exists()


def test_sigterm_lets_requests_in_flight_end_logs_them_and_exits_0(
        home: Path, gateways: Make, variants: Callable[..., ScriptedVariant]) -> None:
    arrived, go_on = threading.Event(), threading.Event()

    def slow(request: bytes) -> bytes:
        arrived.set()
        go_on.wait(5)
        return response(200, '{"predictions": []}')

    gateway = gateways(home, {"champion": variants(slow).port}, prediction_log={
        "path": str(home / "log" / "predictions.jsonl")})
    answers: list[Any] = []
    caller = threading.Thread(target=lambda: answers.append(gateway.post()))
    caller.start()
    assert arrived.wait(5)
    gateway.process.terminate()

    def closed() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", gateway.port)) != 0

    wait_for(closed, "the port's end")
    go_on.set()
    caller.join(5)
    assert answers[0].status == 200 and gateway.ends() == 0
    assert len(gateway.records()) == 1 and not gateway.admin.exists()


def test_sigterm_does_not_wait_for_a_request_longer_than_the_drain(
        home: Path, gateways: Make, variants: Callable[..., ScriptedVariant]) -> None:
    hanging = variants(lambda request: ScriptedVariant.HANG)
    gateway = gateways(home, {"champion": hanging.port}, timeout_s=60.0, drain_s=0.5)
    with socket.create_connection(("127.0.0.1", gateway.port)) as caller:
        caller.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
        wait_for(lambda: hanging.requests, "the request")
        began = time.monotonic()
        assert gateway.stop() == 0
        assert time.monotonic() - began < 5


def test_a_full_disk_under_the_prediction_log_does_not_break_serving(
        home: Path, gateways: Make, variants: Callable[..., ScriptedVariant]) -> None:
    (home / "log").write_text("a file where the log's directory should be")
    variant = variants(lambda request: response(200, "{}"))
    gateway = gateways(home, {"champion": variant.port}, prediction_log={
        "path": str(home / "log" / "predictions.jsonl")})
    for _ in range(5):
        assert gateway.post().status == 200
    dropped = 'opsdeck_prediction_log_dropped_total{service="flights"}'
    wait_for(lambda: gateway.metrics()[dropped] == 5, "five dropped records")
    assert "serving goes on" in gateway.said


def test_files_and_socket_need_no_other_rights_than_the_owners(gateway: Gateway) -> None:
    for path in gateway.home.iterdir():
        if path.name not in ("gateway.json", "gateway.log"):
            assert path.stat().st_mode & 0o077 == 0, path
