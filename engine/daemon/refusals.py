"""What a request that cannot be answered gets: a status and a `wire.Problem`, never a traceback."""

from __future__ import annotations

import logging
import secrets
import time

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response

from engine import errors
from engine.api import problems

log = logging.getLogger("opsdeck.api")

STATUS: tuple[tuple[type[errors.OpsdeckError], int], ...] = (
    (errors.NotPermitted, 403),
    (errors.NotFound, 404),
    (errors.Conflict, 409),
    (errors.HomeBusy, 409),
    (errors.UsageError, 422),
    (errors.DocumentError, 422),
    (errors.EngineUnreachable, 426),
    (errors.JournalError, 503),
    (errors.ActionFailed, 502),
    (errors.OutcomeUnknown, 502),
)


class BadRequest(errors.UsageError):
    """The request itself cannot be read: no JSON, an unknown field, a wrong type, too large."""

    status = 400


class TooLarge(BadRequest):
    status = 413


def refusal(error: Exception) -> errors.OpsdeckError:
    """The error to show for any exception; one that is not ours is logged whole, under an id."""
    if isinstance(error, errors.OpsdeckError):
        return error
    if isinstance(error, HTTPException):
        kind = errors.NotFound if error.status_code == 404 else errors.UsageError
        return kind(f"the engine has no such request: {error.detail.lower()}")
    name = secrets.token_hex(4)
    log.error("error %s", name, exc_info=error)
    shown = errors.OpsdeckError("the engine met an error of its own",
                                hint=f"the engine's log says what is known of it, under {name}")
    shown.code = "internal"
    return shown


def status_of(error: Exception) -> int:
    if isinstance(error, BadRequest | HTTPException):
        return error.status if isinstance(error, BadRequest) else error.status_code
    for kind, status in STATUS:
        if isinstance(error, kind):
            return status
    return 500


def response(error: Exception) -> Response:
    """The refusal as a response."""
    body = msgspec.json.encode(problems.to_wire(refusal(error), time.time()))
    return Response(body, status_of(error), media_type="application/json")
