"""http.check: what passes, and what a failure says."""

import socket
from typing import Any

import pytest
from pydantic import ValidationError

from engine.config import Config
from engine.errors import ActionFailed


async def test_a_good_answer_gives_status_latency_and_json(world: Any, site: Any) -> None:
    site.says_json({"state": "ok"})
    result = await world.run("http.check", url=f"{site.url}/ping")
    assert result["status"] == 200
    assert result["json"] == {"state": "ok"}
    assert 0 < result["ms"] < 5000
    assert site.requests[0].startswith("GET /ping HTTP/1.1")


async def test_a_wrong_status_says_what_was_expected_and_what_came(world: Any, site: Any) -> None:
    site.says("503 Service Unavailable", "loading the model\n", "text/plain")
    with pytest.raises(ActionFailed) as failed:
        await world.run("http.check", url=site.url, status=[200, 204])
    assert failed.value.message == f"{site.url} answered 503; expected 200 or 204."
    assert failed.value.hint == "It said: loading the model"


async def test_one_of_several_statuses_passes(world: Any, site: Any) -> None:
    site.says("204 No Content")
    assert (await world.run("http.check", url=site.url, status=[200, 204]))["status"] == 204


async def test_a_redirect_is_an_answer_and_not_followed(world: Any, site: Any) -> None:
    site.answer = b"HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n"
    with pytest.raises(ActionFailed, match="answered 302"):
        await world.run("http.check", url=site.url)
    assert len(site.requests) == 1


@pytest.mark.parametrize(("path", "expected", "said"), [
    ("models.0.name", "flights", None),
    ("models.0.version", 8, "models.0.version is 7; expected 8"),
    ("models.1.name", "flights", "without models.1.name"),
    ("models.name", "flights", "without models.name"),
    ("ready", True, None),
    ("ready", 1, "ready is true; expected 1"),
    ("none", None, None),
])
async def test_json_is_compared_by_dotted_path(world: Any, site: Any, path: str, expected: Any,
                                               said: str | None) -> None:
    site.says_json({"models": [{"name": "flights", "version": 7}], "ready": True, "none": None})
    if said is None:
        await world.run("http.check", url=site.url, json={path: expected})
        return
    with pytest.raises(ActionFailed, match=said):
        await world.run("http.check", url=site.url, json={path: expected})


async def test_an_answer_that_is_not_json_fails_only_where_json_was_wanted(
        world: Any, site: Any) -> None:
    site.says("200 OK", "<html>")
    assert (await world.run("http.check", url=site.url))["json"] is None
    with pytest.raises(ActionFailed, match="not JSON"):
        await world.run("http.check", url=site.url, json={"a": 1})


async def test_too_slow_is_a_failure(world: Any, site: Any) -> None:
    site.delay = 0.05
    with pytest.raises(ActionFailed, match="expected at most 10 ms"):
        await world.run("http.check", url=site.url, max_ms=10)


async def test_no_answer_within_the_timeout_is_a_failure(world: Any, site: Any) -> None:
    site.delay = 5.0
    with pytest.raises(ActionFailed, match="did not answer within 100 ms"):
        await world.run("http.check", url=site.url, timeout="100ms")


async def test_nobody_there_is_a_failure_that_names_the_url(world: Any) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/ping"
        with pytest.raises(ActionFailed, match="does not answer") as failed:
            await world.run("http.check", url=url)
    assert url in failed.value.message


@pytest.mark.parametrize("answer", [
    b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab", b"?\r\n"])
async def test_a_broken_answer_is_a_failure(world: Any, site: Any, answer: bytes) -> None:
    site.answer = answer
    with pytest.raises(ActionFailed, match="does not answer"):
        await world.run("http.check", url=site.url)


async def test_an_endless_answer_is_not_read_to_its_end(world: Any, site: Any) -> None:
    site.answer = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (3 << 20)
    with pytest.raises(ActionFailed, match="more than 1 MiB"):
        await world.run("http.check", url=site.url)


async def test_a_secret_goes_into_its_header_and_into_no_message(world: Any, site: Any) -> None:
    world.secrets["token"] = "Bearer hush"
    site.says("401 Unauthorized")
    with pytest.raises(ActionFailed) as failed:
        await world.run("http.check", url=site.url, headers={"accept": "text/plain"},
                        secret_headers={"Authorization": "token"})
    assert "Bearer hush" in site.requests[0]
    assert "hush" not in str(failed.value) + "".join(world.logged)


@pytest.mark.parametrize("value", [None, "two\r\nlines", "caf\u00e9"])
async def test_a_secret_that_cannot_be_a_header_is_refused_unsent(
        world: Any, site: Any, value: str | None) -> None:
    world.secrets.update({"token": value} if value else {})
    with pytest.raises(ActionFailed, match="token") as failed:
        await world.run("http.check", url=site.url, secret_headers={"Authorization": "token"})
    assert site.requests == []
    assert value is None or value not in str(failed.value)


async def test_a_service_is_checked_at_its_public_url(world: Any, site: Any) -> None:
    world.config = Config.model_validate({"services": {"flights": {
        "gateway": {"admin": "/run/x.sock", "url": site.url + "/"}}}})
    await world.run("http.check", service="flights", path="/version")
    assert site.requests[0].startswith("GET /version ")
    with pytest.raises(ActionFailed, match="names no public URL for pricing"):
        await world.run("http.check", service="pricing")


@pytest.mark.parametrize(("params", "said"), [
    ({}, "either url, or service"),
    ({"url": "http://x/", "service": "flights"}, "either url, or service"),
    ({"url": "http://x/", "path": "/ping"}, "path goes with service"),
    ({"url": "ftp://x/"}, "not a URL"),
    ({"url": "http://"}, "not a URL"),
    ({"url": "http://x/", "method": "POST"}, "'GET' or 'HEAD'"),
    ({"url": "http://x/", "method": "HEAD", "json": {"a": 1}}, "use GET"),
    ({"url": "http://x/", "status": 42}, "greater than or equal to 100"),
    ({"url": "http://x/", "status": []}, "at least 1"),
    ({"url": "http://x/", "timeout": "soon"}, "is not a duration"),
])
def test_wrong_parameters_are_refused_with_a_reason(world: Any, params: dict[str, Any],
                                                    said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        world.action("http.check").params.model_validate(params)


def test_the_description_is_exact(world: Any) -> None:
    action = world.action("http.check")
    params = action.params.model_validate({"url": "http://x/ping", "json": {"ready": True},
                                           "max_ms": 50, "status": [200, 204]})
    assert action.describe(params) == (
        "http.check GET http://x/ping gives 200 or 204, ready = true within 50 ms")
