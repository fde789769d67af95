"""`notify`: tell people through a webhook."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from engine.actions import web
from engine.errors import ActionFailed, OutcomeUnknown
from engine.fields import Duration
from engine.procedures.actions import Action, Context, Params
from engine.rollout.traffic.sending import Sending


class Notify(Params):
    """`url`, or the config's webhook for `level`, or the secret parameter `url_secret` that is one.

    The JSON that is sent: {"text", "fields", "run", "step", "attempt", "level"?}. secret_headers:
    by header, the secret parameter that is its value.
    """

    text: Annotated[str, Field(min_length=1, max_length=4000)]
    url: Annotated[str, AfterValidator(web.http_url)] | None = None
    level: Literal["page", "ticket"] | None = None
    url_secret: str | None = None
    fields: dict[str, Any] = Field(default={})
    headers: dict[str, str] = Field(default={})
    secret_headers: dict[str, str] = Field(default={})
    timeout: Annotated[Duration, Field(gt=0, le=600)] = 10.0

    @model_validator(mode="after")
    def _one_target(self) -> Notify:
        if sum(each is not None for each in (self.url, self.level, self.url_secret)) != 1:
            raise ValueError("give exactly one of url, level and url_secret")
        return self


async def notify(ctx: Context, params: Notify) -> dict[str, Any]:
    """Effect once. Result: status, ms. The header Idempotency-Key is `run/step/attempt`.

    Raises ActionFailed when nothing was sent or the receiver refused it with a 4xx, OutcomeUnknown
    when it was sent and no good answer came.
    """
    import httpx

    url = _target(ctx, params)
    key = f"{ctx.run}/{ctx.step}/{ctx.attempt}"
    headers = web.headers(ctx, params.headers, params.secret_headers) | {"Idempotency-Key": key}
    body = {"text": params.text, "fields": params.fields, "run": ctx.run, "step": ctx.step,
            "attempt": ctx.attempt} | ({"level": params.level} if params.level else {})
    place = web.place(url)
    begun, sending = time.perf_counter(), Sending()
    try:
        async with asyncio.timeout(params.timeout), web.client(url, params.timeout) as client:
            answer = await client.post(url, json=body, headers=headers,
                                       extensions={"trace": sending.trace})
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
        if not sending.begun:
            raise ActionFailed(f"The message was not sent: {place} cannot be reached "
                               f"({web.reason(error)}).") from error
        raise OutcomeUnknown(f"The message was sent to {place}, and no answer came back "
                             f"({web.reason(error)}).",
                             hint="Look there whether it has arrived.") from error
    ms = round((time.perf_counter() - begun) * 1000, 1)
    if answer.status_code >= 500:
        raise OutcomeUnknown(f"{place} answered {answer.status_code}; the message may have "
                             "arrived.", hint="Look there whether it has.")
    if not answer.is_success:
        raise ActionFailed(f"{place} refused the message with {answer.status_code}.")
    ctx.log(f"{place} took the message: {answer.status_code} in {ms:.0f} ms")
    return {"status": answer.status_code, "ms": ms}


def _target(ctx: Context, params: Notify) -> str:
    if params.url is not None:
        return params.url
    if params.level is not None:
        hook = web.config(ctx).alerts.webhooks.get(params.level)
        if hook is None:
            raise ActionFailed(f"The config has no webhook for {params.level}; nothing was sent.",
                               hint=f"Set alerts.webhooks.{params.level} in opsdeck.yaml.")
        return hook
    hook = ctx.secrets.get(params.url_secret or "")
    if hook is None:
        raise ActionFailed(f"This run has no secret {params.url_secret}; nothing was sent.",
                           hint=f"Declare {params.url_secret} under params as type: secret.")
    try:
        return web.http_url(hook)
    except ValueError:
        raise ActionFailed(f"The secret {params.url_secret} is not a URL.") from None


def _describe(params: Notify) -> str:
    if params.url is not None:
        target = web.place(params.url)
    else:
        target = f"the {params.level} webhook" if params.level else f"secret {params.url_secret}"
    return f"notify {target}: {' '.join(params.text.split())}"


ACTIONS = [Action(
    name="notify", effect="once", params=Notify, run=notify, describe=_describe,
    summary="Send a message to a webhook")]
