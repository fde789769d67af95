"""What the API answers, refuses and never says, over a real socket."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from engine.api import wire
from engine.errors import Conflict, JournalUnavailable, NotFound, OpsdeckError, UsageError
from tests.daemon.conftest import Running
from tests.daemon.rollouts import rollout


async def raw(running: Running, text: bytes, *, until: bytes | None = None) -> tuple[bytes, bytes]:
    """Send bytes as they are; the head and the body of what comes back."""
    reader, writer = await asyncio.open_unix_connection(running.home.socket)
    writer.write(text)
    await writer.drain()
    async with asyncio.timeout(10):
        answer = await (reader.readuntil(until) if until else reader.read())
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


def request(method: str, path: str, body: bytes = b"", *extra: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: opsdeck", "connection: close",
             f"content-length: {len(body)}", *extra]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def ask(running: Running, method: str, path: str, body: bytes = b"",
              *extra: str) -> tuple[int, dict[str, str], Any]:
    head, answer = await raw(running, request(method, path, body, *extra))
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    if headers.get("transfer-encoding") == "chunked":
        answer = b"".join(answer.split(b"\r\n")[1::2])
    return int(status.split()[1]), headers, json.loads(answer) if answer else None


@pytest.mark.parametrize("path", [
    "/v1/engine", "/v1/status", "/v1/snapshot", "/v1/library", "/v1/runs", "/v1/events",
    "/v1/audit/verify", "/v1/handover", "/v1/rollouts", "/v1/services/flights/history?seconds=60&points=10"])
async def test_every_query_answers_with_the_engines_time(running: Running, path: str) -> None:
    status, headers, body = await ask(running, "GET", path)
    assert status == 200
    assert headers["x-opsdeck-protocol"] == "1"
    assert abs(float(headers["x-opsdeck-at"]) - time.time()) < 5
    assert abs(body["at"] - time.time()) < 5


async def test_a_run_is_started_confirmed_and_seen_to_its_end(running: Running) -> None:
    view = await running.client.start_run(wire.StartRun("ask", {"service": "flights"}))
    gate = view.steps[1].gate
    assert gate is not None
    done = await running.client.act(view.id, "confirm", wire.Act(step="drain", digest=gate.digest))
    assert done.state == "done"
    assert [r.id for r in await running.client.runs(["done"])] == [view.id]
    assert (await running.client.run(view.id)).params == {"service": "flights"}
    assert (await running.client.timeline(view.id))[0].kind == "run.started"


async def test_the_caller_is_who_the_kernel_says_not_who_the_request_says(running: Running) -> None:
    await ask(running, "POST", "/v1/runs", b'{"procedure": "ask"}', "x-user: root", "from: eve")
    caller = running.backend.seen[0][1]
    info = await running.client.engine()
    assert caller.user == info.user
    assert caller.origin == f"socket pid {caller.pid}"
    assert set(info.roles) == {"viewer", "operator", "approver", "admin"}


async def test_a_yes_to_what_has_changed_is_a_conflict_that_says_where(running: Running) -> None:
    view = await running.client.start_run(wire.StartRun("ask"))
    with pytest.raises(Conflict) as refused:
        await running.client.act(view.id, "confirm", wire.Act(step="drain", digest="old"))
    assert refused.value.where == "run 1, step drain"
    assert refused.value.hint == "look again"


@pytest.mark.parametrize(("body", "says"), [
    (b"{", "not JSON"), (b"\xff\xfe", "not JSON"), (b"[]", "Expected `object`"),
    (b'{"procedure": 3}', "$.procedure"), (b'{}', "procedure"),
    (b'{"procedure": "ask", "shell": "rm"}', "shell"),
    (b'{"procedure": "ask", "params": ' + b"[" * 100_000, "not")])
async def test_a_body_that_cannot_be_read_is_refused_with_the_place(
        running: Running, body: bytes, says: str) -> None:
    status, _, problem = await ask(running, "POST", "/v1/runs", body)
    assert status == 400
    assert problem["code"] == "usage"
    assert problem["exit_code"] == 2
    assert says in problem["message"]
    assert running.backend.seen == []


async def test_a_body_of_more_than_two_megabytes_is_refused(running: Running) -> None:
    big = b'{"procedure": "' + b"x" * (2 * 1024 * 1024) + b'"}'
    status, _, problem = await ask(running, "POST", "/v1/runs", big)
    assert status == 413
    assert "2048 KiB" in problem["message"]
    assert (await running.client.engine()).state == "serving"


@pytest.mark.parametrize(("path", "says"), [
    ("/v1/runs?limit=many", "`limit` is a number"), ("/v1/runs?limit=0", "between 1 and 1000"),
    ("/v1/runs?limit=nan", "between"), ("/v1/runs?state=asleep", "not a state of a run"),
    ("/v1/services/flights/history?points=1e9", "between"), ("/v1/runs/1/output", "`step`"),
    ("/v1/runs/1/curve", "`step`")])
async def test_a_query_out_of_range_is_refused(running: Running, path: str, says: str) -> None:
    status, _, problem = await ask(running, "GET", path)
    assert (status, problem["code"]) == (400, "usage")
    assert says in problem["message"]


@pytest.mark.parametrize(("method", "path", "status"), [
    ("GET", "/", 404), ("GET", "/v2/status", 404), ("DELETE", "/v1/runs", 405),
    ("GET", "/v1/runs/77", 404), ("POST", "/v1/runs/1/explode", 404)])
async def test_what_is_not_there_is_a_problem_too(running: Running, method: str, path: str,
                                                  status: int) -> None:
    got, headers, problem = await ask(running, method, path)
    assert got == status
    assert headers["x-opsdeck-protocol"] == "1"
    assert problem["message"]


@pytest.mark.parametrize(("verb", "act", "says"), [
    ("confirm", wire.Act(digest="d"), "confirm wants `step`"),
    ("confirm", wire.Act(step="drain"), "confirm wants `digest`"),
    ("approve", wire.Act(step="drain"), "approve wants `digest`"),
    ("answer", wire.Act(step="watch"), "answer wants `text`"),
    ("answer", wire.Act(step="watch", text="  "), "it is empty"),
    ("settle", wire.Act(step="drain", text="maybe"), "done or not-done"),
    ("skip", wire.Act(step="drain"), "skip wants `reason`"),
    ("pause", wire.Act(step="drain"), "pause has no use for `step`"),
    ("promote", wire.Act(digest="d"), "promote has no use for `digest`"),
    ("promote-full", wire.Act(rollback=True), "promote-full has no use for `rollback`"),
    ("retry", wire.Act(step="drain", rollback=True), "retry has no use for `rollback`")])
async def test_each_verb_says_what_it_wants(running: Running, verb: Any, act: wire.Act,
                                            says: str) -> None:
    view = await running.client.start_run(wire.StartRun("ask"))
    with pytest.raises(UsageError, match=says):
        await running.client.act(view.id, verb, act)
    assert [what for what, *_ in running.backend.seen] == ["start"]


async def test_an_error_nobody_expected_tells_nothing_of_the_inside(
        running: Running, caplog: pytest.LogCaptureFixture) -> None:
    status, _, problem = await ask(running, "GET", "/v1/services/boom/history")
    assert status == 500
    assert problem["code"] == "internal"
    assert "secret detail" not in json.dumps(problem)
    name = problem["hint"].split()[-1]
    record = next(r for r in caplog.records if name in r.getMessage())
    assert "secret detail of the inside" in str(record.exc_info)
    with pytest.raises(OpsdeckError, match="an error of its own"):
        await running.client.history("boom", 60, 10)


async def test_a_journal_that_cannot_be_written_is_said_as_what_it_is(running: Running) -> None:
    running.backend.broken = JournalUnavailable("the disk is full", where="/var", hint="make room")
    status, _, problem = await ask(running, "GET", "/v1/events")
    assert (status, problem["code"]) == (503, "journal_unavailable")
    with pytest.raises(JournalUnavailable, match="the disk is full") as error:
        await running.client.events()
    assert (error.value.where, error.value.hint) == ("/var", "make room")


async def test_a_client_of_another_protocol_is_refused_with_a_sentence(running: Running) -> None:
    status, _, problem = await ask(running, "GET", "/v1/status", b"", "x-opsdeck-protocol: 2")
    assert (status, problem["code"], problem["exit_code"]) == (426, "unreachable", 7)
    assert "the engine speaks protocol 1, and this command speaks protocol 2" in problem["message"]


@pytest.mark.parametrize("garbage", [
    b"\x00\x01\x02\x03\r\n\r\n", b"HELO there\r\n\r\n", b"\x16\x03\x01" + b"\xaa" * 500,
    b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 100_000,
    b"POST /v1/runs HTTP/1.1\r\nhost: a\r\ncontent-length: -4\r\n\r\n",
    b"POST /v1/runs HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"])
async def test_garbage_ends_its_own_connection_and_nothing_else(running: Running,
                                                                garbage: bytes) -> None:
    try:
        head, _ = await raw(running, garbage)
        assert head.split()[1] in (b"400", b"426")
    except ConnectionError:
        pass  # refused without a word, before all of it was read
    assert (await running.client.engine()).state == "serving"


async def test_a_seal_wants_a_reason(running: Running) -> None:
    with pytest.raises(UsageError, match="a seal wants a reason"):
        await running.client.seal(" ")
    assert (await running.client.seal("row 7 was edited")).text == "row 7 was edited"


async def test_a_rollout_is_found_by_its_service_and_by_its_run(running: Running) -> None:
    ended = rollout("40", started=1.0, ended=2.0, state="rolled_back")
    running.backend.rolling |= {"40": ended, "41": rollout("41", started=3.0)}
    assert [r.run for r in await running.client.rollouts()] == ["41", "40"]
    assert (await running.client.rollout("flights")).run == "41", "the one that runs"
    assert await running.client.rollout("40") == ended
    status, _, problem = await ask(running, "GET", "/v1/rollouts/nil%2Fnil")
    assert (status, problem["code"]) == (404, "not_found")


@pytest.mark.parametrize("act", [wire.Act(), wire.Act(step="watch-5", reason="quiet night",
                                                      seen_state={"weight": 5.0})])
@pytest.mark.parametrize("verb", ["promote", "promote-full"])
async def test_a_promotion_tells_the_engine_what_was_seen(running: Running, verb: Any, act: wire.Act) -> None:
    view = await running.client.start_run(wire.StartRun("ask"))
    await running.client.act(view.id, verb, act)
    assert [(what, given) for what, _, given in running.backend.seen[1:]] == [(verb, act)]


async def test_an_unknown_run_is_not_found_before_a_stream_begins(running: Running) -> None:
    with pytest.raises(NotFound, match="there is no run 9"):
        async for _ in running.client.follow("9"):
            raise AssertionError("nothing may come")
