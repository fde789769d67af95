"""Requests through a real gateway process to real model servers, and to variants that misbehave."""

from __future__ import annotations

import gzip
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving.conftest import ModelServer
from tests.serving.harness import (
    ROW,
    SCORED,
    Gateway,
    ScriptedVariant,
    call,
    free_port,
    raw,
    response,
    wait_for,
)

OK = response(200, '{"predictions": [{"p": 1}]}', "x-opsdeck-model-version: 9")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
Variants = Callable[..., ScriptedVariant]


@pytest.fixture(scope="module")
def gateway(model_server: ModelServer, module_home: Path) -> Iterator[Gateway]:
    """A gateway before a real model server, with everything on and little patience."""
    made = Gateway(module_home, {"champion": model_server.port, "challenger": free_port()},
                   timeout_s=0.4, max_body_bytes=100_000,
                   prediction_log={"path": str(module_home / "log" / "predictions.jsonl"),
                                   "redact": ["hash:temp", "hour"]})
    yield made
    made.kill()


@pytest.fixture(scope="module")
def scripted(module_home: Path) -> Iterator[tuple[Gateway, ScriptedVariant]]:
    """A gateway before a scripted variant; each test sets the script."""
    variant = ScriptedVariant(lambda request: OK)
    home = module_home / "s"
    home.mkdir()
    made = Gateway(home, {"champion": variant.port}, timeout_s=0.3, max_response_bytes=10_000)
    yield made, variant
    made.kill()
    variant.close()


def test_an_answer_goes_through_with_the_variant_its_version_and_the_callers_id(
        gateway: Gateway) -> None:
    answer = gateway.post(x_correlation_id="order-7.a_B")
    assert answer.status == 200 and answer.body == SCORED
    assert answer.headers["x-correlation-id"] == "order-7.a_B"
    assert answer.headers["x-opsdeck-variant"] == "champion"
    assert answer.headers["x-opsdeck-model-version"] == "3"
    assert "x-opsdeck-error-type" not in answer.headers


def test_a_request_without_a_valid_id_gets_one(gateway: Gateway) -> None:
    for bad in ("a b", "x" * 65, "<script>"):
        answer = gateway.post(x_correlation_id=bad)
        assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-correlation-id"])


def test_what_the_caller_is_told_is_what_the_log_says(gateway: Gateway) -> None:
    gateway.post(x_correlation_id="logged-1", x_request_key="customer-1",
                 traceparent=f"00-{TRACE}-00f067aa0ba902b7-01")
    record = wait_for(lambda: next((r for r in gateway.records() if
                                    r["correlation_id"] == "logged-1"), None), "the record")
    assert record["trace_id"] == TRACE and record["variant"] == "champion"
    assert record["version"] == "3" and record["status"] == 200 and record["error_type"] == ""
    assert record["predictions"] == json.loads(SCORED)["predictions"]
    assert record["features"]["distance"] == [1400.0] and "hour" not in record["features"]
    assert record["features"]["temp"] != [39.0] and "customer-1" not in json.dumps(record)
    assert abs(record["at"] - time.time()) < 30 and 0 < record["latency_ms"] < 5000
    assert gateway.predictions.stat().st_mode & 0o777 == 0o600


def test_a_model_servers_refusal_is_the_callers_fault_and_named(gateway: Gateway) -> None:
    before = gateway.count("champion", "invalid_input")
    answer = gateway.post({"inputs": {"distance": [1.0]}}, x_correlation_id="bad-1")
    assert answer.status == 400 and answer.headers["x-opsdeck-error-type"] == "invalid_input"
    assert answer.json["error_type"] == "invalid_input" and answer.json["variant"] == "champion"
    assert answer.json["correlation_id"] == "bad-1"
    assert "missing inputs ['temp', 'hour']" in answer.json["message"]
    assert gateway.count("champion", "invalid_input") == before + 1


@pytest.mark.parametrize(("fault", "status"), [
    ("timeout", 504), ("out_of_memory", 507), ("invalid_input", 400), ("model_error", 502),
    ("unavailable", 503)])
def test_each_fault_of_a_real_model_server_is_seen_as_its_type(
        gateway: Gateway, model_server: ModelServer, fault: str, status: int) -> None:
    before = gateway.count("champion", fault)
    model_server.faults.write_text(json.dumps({"errors": {fault: 1.0}}))
    try:
        answer = wait_for(lambda: (a := gateway.post()).status == status and a, f"status {status}")
        assert answer.headers["x-opsdeck-error-type"] == fault == answer.json["error_type"]
        assert answer.headers["x-opsdeck-variant"] == "champion" and answer.json["message"]
        assert gateway.count("champion", fault) > before
    finally:
        model_server.faults.unlink()
    assert wait_for(lambda: gateway.post().status == 200, "the end of the fault")


def test_latency_on_purpose_is_really_waited(gateway: Gateway, model_server: ModelServer) -> None:
    model_server.faults.write_text(json.dumps({"latency_ms": 150, "latency_ratio": 1}))
    try:
        def slow() -> bool:
            began = time.monotonic()
            return gateway.post().status == 200 and time.monotonic() - began >= 0.15

        assert wait_for(slow, "the latency")
    finally:
        model_server.faults.unlink()


def test_a_variant_that_is_not_there_is_unavailable_and_the_others_serve_on(
        gateway: Gateway) -> None:
    gateway.put(50)
    try:
        seen: dict[str, int] = {}
        for i in range(40):
            answer = gateway.post(x_request_key=f"key-{i}")
            seen[answer.headers["x-opsdeck-variant"]] = answer.status
        assert seen == {"champion": 200, "challenger": 503}
    finally:
        gateway.put(100)


def test_a_key_stays_with_its_variant_whatever_the_correlation_id(gateway: Gateway) -> None:
    gateway.put(60)
    try:
        for key in ("one", "two", "three", "four", "five"):
            assert len({gateway.post(x_request_key=key).headers["x-opsdeck-variant"]
                        for _ in range(5)}) == 1
        by_id = {i: gateway.post(x_correlation_id=f"id-{i}").headers["x-opsdeck-variant"]
                 for i in range(20)}
        assert len(set(by_id.values())) == 2
        again = {i: gateway.post(x_correlation_id=f"id-{i}").headers["x-opsdeck-variant"]
                 for i in range(20)}
        assert by_id == again
    finally:
        gateway.put(100)


@pytest.mark.parametrize(("answer", "status", "error_type"), [
    (response(500, '{"message": "MemoryError"}'), 507, "out_of_memory"),
    (response(507, ""), 507, "out_of_memory"), (response(503, ""), 503, "unavailable"),
    (response(429, ""), 503, "unavailable"), (response(404, ""), 400, "invalid_input"),
    (response(500, "{}"), 502, "model_error"), (response(302, "", "location: /x"), 502, "model_error"),
    (b"SSH-2.0-nonsense\r\n\r\n", 502, "model_error"), (None, 503, "unavailable"),
    (b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nshort", 504, "timeout"),
    (ScriptedVariant.HANG, 504, "timeout"),
    (response(200, b"x" * 10_001), 502, "model_error"),
    (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"1000\r\n" + b"x" * 4096
     + b"\r\n1000\r\n" + b"x" * 4096 + b"\r\n1000\r\n" + b"x" * 4096 + b"\r\n0\r\n\r\n",
     502, "model_error"),
])
def test_whatever_a_variant_says_the_caller_gets_a_typed_error(
        scripted: tuple[Gateway, ScriptedVariant], answer: bytes | None, status: int,
        error_type: str) -> None:
    gateway, variant = scripted
    variant.script = lambda request: answer
    said = gateway.post()
    assert (said.status, said.headers["x-opsdeck-error-type"]) == (status, error_type)
    assert said.json["error_type"] == error_type and said.headers["x-correlation-id"]


def test_a_variant_gets_the_trace_the_id_and_the_callers_headers_but_no_hop_by_hop_ones(
        scripted: tuple[Gateway, ScriptedVariant]) -> None:
    gateway, variant = scripted
    variant.script = lambda request: OK
    variant.requests.clear()
    gateway.post(b'{"a": 1}', x_correlation_id="abc", authorization="Bearer t",
                 traceparent=f"00-{TRACE}-00f067aa0ba902b7-01", tracestate="v=1",
                 connection="keep-alive, x-secret", x_secret="1", te="trailers",
                 x_opsdeck_variant="challenger", cookie="a=b")
    [request] = variant.requests
    head, _, body = request.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert lines[0] == b"post /invocations http/1.1" and body == b'{"a": 1}'
    assert b"x-correlation-id: abc" in lines and b"authorization: bearer t" in lines
    assert b"content-type: application/json" in lines and b"tracestate: v=1" in lines
    [traceparent] = [line for line in lines if line.startswith(b"traceparent:")]
    assert TRACE.encode() in traceparent and b"00f067aa0ba902b7" not in traceparent
    for hidden in (b"x-secret", b"te:", b"x-opsdeck-variant", b"accept-encoding"):
        assert not any(line.startswith(hidden) for line in lines)


def test_a_variants_version_header_names_it_in_the_metrics_unless_it_is_no_version(
        scripted: tuple[Gateway, ScriptedVariant]) -> None:
    gateway, variant = scripted
    named = 'opsdeck_model_info{service="flights",variant="champion",version="9"}'
    for answer in (OK, response(200, "{}", 'x-opsdeck-model-version: "} 1\tevil')):
        variant.script = lambda request, answer=answer: answer  # type: ignore[misc]
        assert gateway.post().status == 200
        assert gateway.metrics()[named] == 1


def test_the_configs_version_is_named_where_a_variant_does_not_say_its_own(
        home: Path, gateways: Callable[..., Gateway], variants: Variants) -> None:
    variant = variants(lambda request: response(200, "{}"))
    url = f"http://127.0.0.1:{variant.port}"
    gateway = gateways(home, {"champion": {"url": url, "version": "4"}})
    assert gateway.post().headers["x-opsdeck-model-version"] == "4"
    variant.script = lambda request: OK
    assert gateway.post().headers["x-opsdeck-model-version"] == "9"


def test_a_body_without_a_type_is_passed_on_as_bytes(
        scripted: tuple[Gateway, ScriptedVariant]) -> None:
    gateway, variant = scripted
    variant.script = lambda request: OK
    variant.requests.clear()
    call(gateway.port, "POST", "/invocations", b"{}", {})
    assert b"content-type: application/octet-stream" in variant.requests[0].lower().split(b"\r\n")


def test_a_variants_headers_reach_the_caller_but_it_cannot_speak_for_the_gateway(
        scripted: tuple[Gateway, ScriptedVariant]) -> None:
    gateway, variant = scripted
    variant.script = lambda request: response(
        200, "{}", "x-custom: 1", "x-opsdeck-error-type: timeout", "x-opsdeck-variant: other",
        "set-cookie: a=b", "x-correlation-id: other", "keep-alive: timeout=5")
    answer = gateway.post(x_correlation_id="mine")
    assert answer.headers["x-custom"] == "1" and answer.headers["x-correlation-id"] == "mine"
    assert answer.headers["x-opsdeck-variant"] == "champion"
    assert not {"x-opsdeck-error-type", "set-cookie", "keep-alive"} & set(answer.headers)


def test_no_cookie_of_one_caller_reaches_another(scripted: tuple[Gateway, ScriptedVariant]) -> None:
    gateway, variant = scripted
    variant.script = lambda request: response(200, "{}", "set-cookie: session=secret; Path=/")
    variant.requests.clear()
    gateway.post(), gateway.post()
    assert len(variant.requests) == 2 and b"session" not in b"".join(variant.requests)


@pytest.mark.parametrize("smuggled", [
    b"X-A: 1\nX-Correlation-Id: evil\r\n", b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
    b"Content-Length: 2\r\nContent-Length: 3\r\n", b"X-A : 1\r\n", b"X-A: 1\x00\r\n"])
def test_injected_and_ambiguous_headers_are_refused_before_any_variant_sees_them(
        scripted: tuple[Gateway, ScriptedVariant], smuggled: bytes) -> None:
    gateway, variant = scripted
    variant.script = lambda request: OK
    variant.requests.clear()
    said = raw(gateway.port, b"POST /invocations HTTP/1.1\r\nHost: x\r\n" + smuggled + b"\r\n{}")
    assert said.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400"))
    assert variant.requests == []


def test_a_body_beyond_the_limit_is_refused_in_every_form(gateway: Gateway) -> None:
    before = gateway.count("champion", "invalid_input")
    large = b"x" * 100_001
    plain = gateway.post(large)
    chunked = raw(gateway.port, b"POST /invocations HTTP/1.1\r\nHost: x\r\n"
                  b"Transfer-Encoding: chunked\r\n\r\n" + b"186a1\r\n" + large + b"\r\n0\r\n\r\n")
    bomb = gateway.post(gzip.compress(b"0" * 50_000_000), content_encoding="gzip")
    assert plain.status == 413 == bomb.status and b" 413 " in chunked.split(b"\r\n")[0]
    assert plain.json["error_type"] == "invalid_input"
    assert "more than 100000 bytes" in bomb.json["message"]
    assert gateway.count("champion", "invalid_input") == before + 3


def test_a_compressed_body_is_opened_and_a_broken_one_refused(gateway: Gateway) -> None:
    packed = gzip.compress(json.dumps(ROW).encode())
    assert gateway.post(packed, content_encoding="gzip").body == SCORED
    answer = gateway.post(b"not gzip at all", content_encoding="gzip")
    assert answer.status == 400


def test_other_paths_and_methods_are_told_so(gateway: Gateway) -> None:
    assert call(gateway.port, "GET", "/ping").status == 200
    assert call(gateway.port, "GET", "/invocations").status == 405
    assert call(gateway.port, "POST", "/metrics").status == 405
    assert call(gateway.port, "GET", "/weights").status == 404


def test_metrics_come_in_the_form_that_is_asked_for(gateway: Gateway) -> None:
    gateway.post()
    plain = call(gateway.port, "GET", "/metrics")
    open_metrics = call(gateway.port, "GET", "/metrics", headers={
        "accept": "application/openmetrics-text;version=1.0.0"})
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert open_metrics.headers["content-type"].startswith("application/openmetrics-text")
    assert open_metrics.body.endswith(b"# EOF\n")
    found = gateway.metrics()
    assert found['opsdeck_traffic_weight_percent{service="flights",variant="champion"}'] == 100
    assert found['http_server_active_requests{service="flights",variant="champion"}'] == 0


def test_too_many_requests_in_flight_are_refused_rather_than_kept(
        home: Path, gateways: Callable[..., Gateway], variants: Variants) -> None:
    hanging = variants(lambda request: ScriptedVariant.HANG)
    gateway = gateways(home, {"champion": hanging.port}, timeout_s=1.0, max_in_flight=2)
    waiting = [threading.Thread(target=gateway.post) for _ in range(2)]
    for thread in waiting:
        thread.start()
    wait_for(lambda: len(hanging.requests) == 2, "two requests in flight")
    active = 'http_server_active_requests{service="flights",variant="champion"}'
    assert gateway.metrics()[active] == 2
    answer: Any = gateway.post()
    assert answer.status == 503 and "2 requests in flight" in answer.json["message"]
    for thread in waiting:
        thread.join()
    assert gateway.metrics()[active] == 0
