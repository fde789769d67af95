"""`http.check`: does a URL answer as it should."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from engine.actions import web
from engine.errors import ActionFailed
from engine.fields import Duration
from engine.procedures.actions import Action, Context, Params
from engine.words import SERVICE, span

BODY_LIMIT = 1 << 20  # bytes read of an answer
KEPT = 16 << 10  # bytes of JSON that may go into the result
Status = Annotated[int, Field(ge=100, le=599)]


class HttpCheck(Params):
    """`url`, or `path` on the public URL of `service`'s gateway.

    status: one code or several. json: by dotted path (`data.0.name`), the value it must have.
    max_ms: the longest time from the request to the whole answer. secret_headers: by header, the
    secret parameter that is its value.
    """

    url: Annotated[str, AfterValidator(web.http_url)] | None = None
    service: Annotated[str, Field(pattern=SERVICE)] | None = None
    path: Annotated[str, Field(pattern="^/")] = "/ping"
    method: Literal["GET", "HEAD"] = "GET"
    status: Status | Annotated[list[Status], Field(min_length=1)] = 200
    json_: dict[str, Any] = Field(default={}, alias="json")
    max_ms: float | None = Field(default=None, gt=0)
    headers: dict[str, str] = Field(default={})
    secret_headers: dict[str, str] = Field(default={})
    timeout: Annotated[Duration, Field(gt=0, le=600)] = 5.0

    @model_validator(mode="after")
    def _one_target(self) -> HttpCheck:
        if (self.url is None) == (self.service is None):
            raise ValueError("give either url, or service (and path)")
        if self.url is not None and "path" in self.model_fields_set:
            raise ValueError("path goes with service; put it into url")
        if self.method == "HEAD" and self.json_:
            raise ValueError("the answer to HEAD has no JSON to look at; use GET")
        return self

    @property
    def wanted(self) -> list[int]:
        return self.status if isinstance(self.status, list) else [self.status]


async def check(ctx: Context, params: HttpCheck) -> dict[str, Any]:
    """Effect none. Result: status, ms, and json where the answer is JSON of at most 16 KiB.

    Raises ActionFailed, saying what was expected and what came.
    """
    import httpx

    url = params.url or _public(ctx, params)
    headers = web.headers(ctx, params.headers, params.secret_headers)
    begun = time.perf_counter()
    try:
        async with (asyncio.timeout(params.timeout), web.client(url, params.timeout) as client,
                    client.stream(params.method, url, headers=headers) as answer):
            body = await _read(answer)
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
        if isinstance(error, TimeoutError | httpx.TimeoutException):
            raise ActionFailed(f"{url} did not answer within {span(params.timeout)}.") from error
        raise ActionFailed(f"{url} does not answer: {web.reason(error)}.") from error
    ms = (time.perf_counter() - begun) * 1000
    if answer.status_code not in params.wanted:
        expected = " or ".join(str(code) for code in params.wanted)
        raise ActionFailed(f"{url} answered {answer.status_code}; expected {expected}.",
                           hint=_said(body))
    result: dict[str, Any] = {"status": answer.status_code, "ms": round(ms, 1)}
    if params.json_ or "json" in answer.headers.get("content-type", ""):
        content = _json(url, body, required=bool(params.json_))
        for path, expected in params.json_.items():
            _compare(url, content, path, expected)
        if len(body) <= KEPT:
            result["json"] = content
    if params.max_ms is not None and ms > params.max_ms:
        raise ActionFailed(f"{url} took {ms:.0f} ms; expected at most {params.max_ms:g} ms.")
    ctx.log(f"{url} answered {answer.status_code} in {ms:.0f} ms")
    return result


def _public(ctx: Context, params: HttpCheck) -> str:
    service = web.config(ctx).services.get(params.service or "")
    base = service.gateway.url if service and service.gateway else None
    if base is None:
        raise ActionFailed(f"The config names no public URL for {params.service}.",
                           hint="Set services.*.gateway.url in opsdeck.yaml, or give url.")
    return base.rstrip("/") + params.path


async def _read(answer: Any) -> bytes:
    body = b""
    async for piece in answer.aiter_bytes():
        body += piece
        if len(body) > BODY_LIMIT:
            raise ActionFailed(f"{answer.url} answered with more than 1 MiB.",
                               hint="Check a smaller page; this one was not read to its end.")
    return body


def _json(url: str, body: bytes, *, required: bool) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        if not required:
            return None
        raise ActionFailed(f"{url} answered with something that is not JSON.",
                           hint=_said(body)) from error


def _compare(url: str, content: Any, path: str, expected: Any) -> None:
    value = content
    for key in path.split("."):
        try:
            value = value[int(key)] if isinstance(value, list) else value[key]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ActionFailed(f"{url} answered without {path}; expected it to be "
                               f"{json.dumps(expected)}.") from error
    if value != expected or isinstance(value, bool) != isinstance(expected, bool):
        raise ActionFailed(f"{url}: {path} is {json.dumps(value)[:200]}; expected "
                           f"{json.dumps(expected)}.")


def _said(body: bytes) -> str | None:
    text = " ".join(body.decode(errors="replace").split())
    return f"It said: {text[:300]}" if text else None


def _describe(params: HttpCheck) -> str:
    wanted = " or ".join(str(code) for code in params.wanted)
    target = params.url or f"{params.service} {params.path}"
    limit = f" within {params.max_ms:g} ms" if params.max_ms is not None else ""
    fields = "".join(f", {path} = {json.dumps(value)}" for path, value in params.json_.items())
    return f"http.check {params.method} {target} gives {wanted}{fields}{limit}"


ACTIONS = [Action(
    name="http.check", effect="none", params=HttpCheck, run=check, describe=_describe,
    summary="Check that a URL answers with the right status, JSON and latency",
    service="service")]
