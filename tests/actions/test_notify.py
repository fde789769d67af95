"""notify: sent at most once, and honest about not knowing."""

import json
import socket
from typing import Any

import pytest
from pydantic import ValidationError

from engine.config import Config
from engine.errors import ActionFailed, OutcomeUnknown


async def test_the_message_goes_out_with_its_idempotency_key(world: Any, site: Any) -> None:
    site.says("202 Accepted")
    result = await world.run("notify", url=f"{site.url}/hook", text="drained",
                             fields={"service": "flights"})
    assert result["status"] == 202
    head, _, body = site.requests[0].partition("\r\n\r\n")
    assert "idempotency-key: r-1/look/2" in head.lower()
    assert json.loads(body) == {"text": "drained", "fields": {"service": "flights"},
                                "run": "r-1", "step": "look", "attempt": 2}


async def test_a_level_goes_to_its_webhook_of_the_config(world: Any, site: Any) -> None:
    world.config = Config.model_validate({"alerts": {"webhooks": {"page": f"{site.url}/pager"}}})
    await world.run("notify", level="page", text="x")
    assert site.requests[0].startswith("POST /pager ")
    with pytest.raises(ActionFailed, match="no webhook for ticket; nothing was sent"):
        await world.run("notify", level="ticket", text="x")


async def test_nobody_listening_means_not_sent(world: Any) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        with pytest.raises(ActionFailed, match="was not sent"):
            await world.run("notify", url=f"http://127.0.0.1:{probe.getsockname()[1]}/s3cret",
                            text="x")


async def test_a_connection_that_breaks_after_sending_is_unknown(world: Any, site: Any) -> None:
    site.answer = b""
    with pytest.raises(OutcomeUnknown, match="no answer came back"):
        await world.run("notify", url=site.url, text="x")
    assert len(site.requests) == 1


async def test_no_answer_in_time_after_sending_is_unknown(world: Any, site: Any) -> None:
    site.delay = 5.0
    with pytest.raises(OutcomeUnknown, match="it took too long"):
        await world.run("notify", url=site.url, text="x", timeout="100ms")
    assert len(site.requests) == 1


async def test_a_connection_that_is_not_established_in_time_is_not_sent(world: Any) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        others = []
        for _ in range(4):  # fill the backlog, so that the next connection is never accepted
            other = socket.socket()
            other.setblocking(False)
            other.connect_ex(full.getsockname())
            others.append(other)
        with pytest.raises(ActionFailed, match="was not sent"):
            await world.run("notify", url=f"http://127.0.0.1:{full.getsockname()[1]}", text="x",
                            timeout="300ms")
        for other in others:
            other.close()


async def test_a_refusal_is_failed_and_a_broken_receiver_unknown(world: Any, site: Any) -> None:
    site.says("403 Forbidden")
    with pytest.raises(ActionFailed, match="refused the message with 403"):
        await world.run("notify", url=site.url, text="x")
    site.says("502 Bad Gateway")
    with pytest.raises(OutcomeUnknown, match="may have arrived"):
        await world.run("notify", url=site.url, text="x")


async def test_a_webhooks_path_is_in_no_message_and_no_description(world: Any, site: Any) -> None:
    site.says("404 Not Found")
    url = f"{site.url}/services/T0/s3cret"
    with pytest.raises(ActionFailed) as failed:
        await world.run("notify", url=url, text="x")
    action = world.action("notify")
    line = action.describe(action.params.model_validate({"url": url, "text": "two\nlines"}))
    assert "s3cret" not in str(failed.value) + "".join(world.logged) + line
    assert line == f"notify {site.url}: two lines"


async def test_secrets_are_headers_or_the_webhook_itself(world: Any, site: Any) -> None:
    world.secrets.update(hook=f"{site.url}/s3cret", token="key hush", bad="nowhere")
    await world.run("notify", url_secret="hook", text="x", secret_headers={"X-Key": "token"})
    assert site.requests[0].startswith("POST /s3cret ")
    assert "key hush" in site.requests[0]
    with pytest.raises(ActionFailed, match="The secret bad is not a URL") as failed:
        await world.run("notify", url_secret="bad", text="x")
    assert "nowhere" not in str(failed.value)
    with pytest.raises(ActionFailed, match="no secret other"):
        await world.run("notify", url_secret="other", text="x")


@pytest.mark.parametrize("params", [
    {"text": "x"}, {"text": "x", "url": "http://x", "level": "page"}, {"text": "", "level": "page"},
    {"text": "x", "level": "fyi"}, {"text": "x", "url": "x"},
])
def test_wrong_parameters_are_refused(world: Any, params: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        world.action("notify").params.model_validate(params)
