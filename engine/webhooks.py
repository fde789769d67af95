"""Posting to a webhook: tried again where that can help, and what went wrong in half a sentence."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from engine.procedures.output import harmless

PATIENCE = 5.0
TRIES = 3
PAUSE = 1.0  # before the second try, twice as long before the third


async def post(url: str, body: dict[str, Any], *, id: str | None = None,
               wanted: Callable[[], bool] = lambda: True) -> str | None:
    """None where it was taken, else what went wrong ("answered 500, down for repair; tried 3 times").

    Tried again after no answer, 408, 429 and 5xx, as long as it is still `wanted`. `id` goes along as
    idempotency-key, so that who gets it twice can tell.
    """
    import httpx

    problem = ""
    headers = {"idempotency-key": id} if id is not None else {}
    async with httpx.AsyncClient(timeout=PATIENCE, headers=headers) as client:
        for attempt in range(TRIES):
            if attempt:
                await asyncio.sleep(PAUSE * 2.0 ** (attempt - 1))
                if not wanted():
                    return f"{problem}; it was answered meanwhile"
            try:
                response = await client.post(url, json=body)
            except httpx.HTTPError as error:
                problem = f"did not take it: {str(error) or type(error).__name__}"
                continue
            if response.is_success:
                return None
            said = harmless(response.text[:200]).strip().replace("\n", " ")
            problem = f"answered {response.status_code}" + (f", {said}" if said else "")
            if response.status_code < 500 and response.status_code not in (408, 429):
                return problem
    return f"{problem}; tried {TRIES} times"
