"""Shadow traffic: which requests it takes, that no caller feels it, and that it ends by itself."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import UsageError
from engine.serving.mirror import Mirror
from engine.serving.split import KeyHash, Split
from tests.serving.harness import (
    Answer,
    Gateway,
    ScriptedVariant,
    call,
    free_port,
    response,
    wait_for,
)

Make = Callable[..., Gateway]
Variants = Callable[..., ScriptedVariant]
BOTH = ["champion", "challenger"]
OK = response(200, '{"predictions": [{"p": 0.1}]}')
SHADOW = response(200, '{"predictions": [{"p": 0.9}]}')


@pytest.fixture
async def mirror() -> Mirror:
    return Mirror("flights", BOTH, 64)


@pytest.mark.parametrize("percent", [1, 10, 50])
@pytest.mark.parametrize("challenger", [0, 5, 60])
async def test_it_takes_its_share_of_the_keys_wherever_the_split_is(mirror: Mirror, percent: float,
                                                                   challenger: float) -> None:
    mirror.set("challenger", percent, 60)
    key, rng = KeyHash("flights"), random.Random(3)
    split = Split({"champion": 100.0 - challenger, "challenger": challenger}, "champion")
    hashes = [key(str(rng.random())) for _ in range(40_000)]
    of_champion = [one for one in hashes if split.variant(one) == "champion"]
    share = sum(mirror.takes(one, "champion") for one in of_champion) / len(of_champion)
    assert share == pytest.approx(percent / 100, abs=4 * (percent / len(of_champion)) ** 0.5 / 10)
    assert not any(mirror.takes(one, "challenger") for one in hashes)


async def test_a_share_that_grows_keeps_the_keys_it_had_and_all_of_it_is_everything(
        mirror: Mirror) -> None:
    hashes = [KeyHash("flights")(str(n)) for n in range(2000)]
    mirror.set("challenger", 10, 60)
    first = {one for one in hashes if mirror.takes(one, "champion")}
    mirror.set("challenger", 30, 60)
    assert first < {one for one in hashes if mirror.takes(one, "champion")}
    mirror.set("challenger", 100, 60)
    assert all(mirror.takes(one, "champion") for one in [*hashes, 0, 2**64 - 1])


async def test_it_ends_with_its_lease_and_says_so(mirror: Mirror,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    mirror.set("challenger", 100, 0.05)
    mirror.set("challenger", 100, 0.1)
    left = mirror.view()["mirror"]["expires_in_s"]
    assert 0.05 < left <= 0.1 and mirror.takes(5, "champion")
    async with asyncio.timeout(5):
        while mirror.variant is not None:
            await asyncio.sleep(0.005)
    assert not mirror.takes(5, "champion") and mirror.view() == {"service": "flights", "mirror": None}
    assert capsys.readouterr().err == ("The mirror of flights to challenger has ended, for its lease "
                                       "ran out.\n")


@pytest.mark.parametrize(("variant", "percent", "lease_s", "says"), [
    ("other", 5, 60, "no variant 'other'"), (None, 5, 60, "no variant None"),
    ([], 5, 60, "no variant"), ("challenger", 0, 60, "percent must be"),
    ("challenger", 101, 60, "percent"), ("challenger", float("nan"), 60, "percent"),
    ("challenger", "5", 60, "percent"), ("challenger", True, 60, "percent"),
    ("challenger", 5, None, "lease_s"), ("challenger", 5, -1, "lease_s")])
async def test_what_is_no_mirror_is_a_sentence_and_leaves_the_one_there_is(
        mirror: Mirror, variant: Any, percent: Any, lease_s: Any, says: str) -> None:
    mirror.set("champion", 7, 60)
    with pytest.raises(UsageError, match=says):
        mirror.set(variant, percent, lease_s)
    assert mirror.view()["mirror"]["variant"] == "champion"


def shadow(gateway: Gateway, percent: float = 100, lease_s: float = 60) -> Answer:
    return call(gateway.admin, "PUT", "/mirror",
                {"variant": "challenger", "percent": percent, "lease_s": lease_s})


def label(error_type: str = "") -> str:
    return (f'http_server_request_duration_seconds_count{{error_type="{error_type}",'
            'service="flights",variant="challenger+mirror"}')


def seen(gateway: Gateway, error_type: str = "") -> float:
    return gateway.metrics().get(label(error_type), 0.0)


def test_a_mirrored_request_is_the_same_request_and_is_counted_apart(
        home: Path, gateways: Make, variants: Variants) -> None:
    champion, challenger = variants(lambda _: OK), variants(lambda _: SHADOW)
    gateway = gateways(home, {"champion": champion.port, "challenger": challenger.port},
                       prediction_bins={"output": "p", "edges": [0.5]},
                       prediction_log={"path": str(home / "log" / "predictions.jsonl")})
    answer = shadow(gateway)
    assert answer.status == 200 and answer.json["mirror"]["variant"] == "challenger"
    for n in range(4):
        real = gateway.post({"inputs": [n]}, x_correlation_id=f"c{n}", x_session_id="one",
                            x_opsdeck_mirror="forged")
        assert real.json["predictions"] == [{"p": 0.1}]
        assert real.headers["x-opsdeck-variant"] == "champion"
    wait_for(lambda: seen(gateway) == 4, "four mirrored requests")
    bodies = sorted(request.partition(b"\r\n\r\n")[2] for request in challenger.requests)
    assert [json.loads(body) for body in bodies] == [{"inputs": [n]} for n in range(4)]
    heads = [request.partition(b"\r\n\r\n")[0].lower() for request in challenger.requests]
    assert all(b"x-opsdeck-mirror: true" in head for head in heads)
    assert {f"c{n}" in str(heads) for n in range(4)} == {True}
    assert not any(b"x-opsdeck-mirror" in request.lower() for request in champion.requests)
    wait_for(lambda: len(gateway.records(4)) == 4, "the log")
    assert {record["variant"] for record in gateway.records()} == {"champion"}
    found = gateway.metrics()
    who = 'service="flights",variant="challenger'
    assert found[f'opsdeck_units_total{{{who}+mirror"}}'] == 1
    assert found[f'opsdeck_units_total{{{who}"}}'] == 0
    assert found[f'opsdeck_predictions_total{{bin="0.5..",{who}+mirror"}}'] == 4
    assert found[f'opsdeck_predictions_total{{bin="..0.5",{who[:18]}variant="champion"}}'] == 4
    assert found[f'opsdeck_mirror_dropped_total{{{who}+mirror"}}'] == 0
    assert gateway.count("challenger") == 0 and gateway.count("champion") == 4
    assert not any("+mirror" in name for name in found
                   if name.startswith(("opsdeck_traffic", "opsdeck_model", "http_server_active")))


def test_a_mirror_that_hangs_or_fails_is_felt_by_nobody_and_bounded(
        home: Path, gateways: Make, variants: Variants) -> None:
    hanging = variants(lambda _: ScriptedVariant.HANG)
    gateway = gateways(home, {"champion": variants(lambda _: OK).port, "challenger": hanging.port},
                       timeout_s=60.0, mirror_in_flight=3)
    shadow(gateway)
    assert [gateway.post().status for _ in range(10)] == [200] * 10
    dropped = 'opsdeck_mirror_dropped_total{service="flights",variant="challenger+mirror"}'
    assert gateway.metrics()[dropped] == 7
    wait_for(lambda: len(hanging.requests) == 3, "three mirrored requests")
    hanging.close()
    wait_for(lambda: seen(gateway, "unavailable") == 3, "three connections that broke")
    failed = 'error_type="any",service="flights",variant="challenger+mirror"'
    assert gateway.metrics()[f"opsdeck_unit_failures_total{{{failed}}}"] == 3
    assert gateway.count("champion") == 10 and gateway.count("champion", "unavailable") == 0
    assert "Traceback" not in gateway.said and gateway.stop() == 0


def test_a_request_that_the_serving_variant_fails_is_mirrored_too_and_one_never_asked_is_not(
        home: Path, gateways: Make, variants: Variants) -> None:
    challenger = variants(lambda _: SHADOW)
    gateway = gateways(home, {"champion": free_port(), "challenger": challenger.port},
                       max_body_bytes=1000)
    shadow(gateway)
    assert gateway.post(b"x" * 2000).status == 413
    assert gateway.post().status == 503
    wait_for(lambda: seen(gateway) == 1, "one mirrored request")
    assert len(challenger.requests) == 1


def test_the_mirror_begins_when_the_caller_has_its_answer(home: Path, gateways: Make,
                                                        variants: Variants) -> None:
    answering = threading.Event()

    def slow(_: bytes) -> bytes:
        assert answering.wait(5)
        return OK

    challenger = variants(lambda _: SHADOW)
    gateway = gateways(home, {"champion": variants(slow).port, "challenger": challenger.port})
    shadow(gateway)
    caller = threading.Thread(target=gateway.post)
    caller.start()
    wait_for(lambda: gateway.metrics()[
        'http_server_active_requests{service="flights",variant="champion"}'] == 1, "the request")
    assert challenger.requests == []
    answering.set()
    caller.join(5)
    wait_for(lambda: challenger.requests, "the mirrored request")


def test_a_mirror_is_ended_by_its_lease_by_a_word_and_by_a_restart(
        home: Path, gateways: Make, variants: Variants) -> None:
    challenger = variants(lambda _: SHADOW)
    gateway = gateways(home, {"champion": variants(lambda _: OK).port,
                              "challenger": challenger.port})

    def mirror() -> Any:
        return call(gateway.admin, "GET", "/mirror").json["mirror"]

    shadow(gateway, percent=5, lease_s=0.1)
    wait_for(lambda: mirror() is None, "the lease's end")
    for body in ({"variant": "other", "percent": 5, "lease_s": 9}, {"variant": "challenger"}, [],
                 {"variant": "challenger", "percent": 5, "lease_s": 9, "weight": 1}):
        refused = call(gateway.admin, "PUT", "/mirror", body)
        assert refused.status == 400 and refused.json["error"].endswith(".")
    shadow(gateway)
    assert mirror()["percent"] == 100
    ended = call(gateway.admin, "DELETE", "/mirror")
    assert ended.status == 200 and ended.json == {"service": "flights", "mirror": None}
    assert call(gateway.admin, "DELETE", "/mirror").status == 200
    assert gateway.post().status == 200
    shadow(gateway)
    gateway.kill()
    gateway.start()
    assert mirror() is None and gateway.post().status == 200
    assert challenger.requests == []
