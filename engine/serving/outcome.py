"""What became of a request: the type of error, from what the variant said or did not say. Pure.

    the variant …                                              type            status
    does not answer within timeout_s, or says 504              timeout         504
    says 507, or its error names the exception MemoryError …   out_of_memory   507
    refuses, drops the connection, or says 503 or 429          unavailable     503
    says 400 because the model itself failed (see below)       model_error     502
    says any other 4xx                                         invalid_input   400
    says any other 5xx                                         model_error     502

MLflow's own server says 400 whatever its model raises, and shows the stack trace. An exception that
complains of a value is the caller's fault; one for want of a file, a library or an attribute is not.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from engine.serving.instruments import ErrorType

STATUS: dict[ErrorType, int] = {"timeout": 504, "out_of_memory": 507, "invalid_input": 400,
                                "model_error": 502, "unavailable": 503}
# MLflow's names, so that its clients read the gateway's errors too.
ERROR_CODE: dict[ErrorType, str] = {
    "timeout": "DEADLINE_EXCEEDED", "out_of_memory": "RESOURCE_EXHAUSTED",
    "invalid_input": "BAD_REQUEST", "model_error": "INTERNAL_ERROR",
    "unavailable": "TEMPORARILY_UNAVAILABLE"}

_MEMORY = re.compile(rb"MemoryError|OutOfMemory|out of memory|bad_alloc", re.IGNORECASE)
_MEMORY_EXCEPTION = re.compile(r"\w*(MemoryError|OutOfMemoryError)")
# What models and their libraries raise about a value they cannot take.
_VALUE_EXCEPTION = re.compile(r"(Value|Type|Key|Index|Overflow|Unicode\w*|Validation|InvalidArgument)"
                              r"Error|InvalidArgument")
# How MLflow's message begins where the model raised, and not what reads the request.
_MODEL_RAISED = "Encountered an unexpected error while evaluating the model"
_TRACEBACK = "Traceback (most recent call last):\n"
_EXCEPTION = re.compile(r"(?:[\w.]*\.)?(\w+)(?=:|$)")
_LOOK_AT = 65536
_MESSAGE_LIMIT = 2000


class Failure(NamedTuple):
    """A request that did not succeed: its type, and a sentence for the caller."""

    error_type: ErrorType
    message: str


def judge(status: int, body: bytes) -> Failure | None:
    """What a variant's answer means; None when it is a success (2xx).

    A message of a 4xx may repeat what the caller sent, so that only the exception at the end of
    its stack trace counts there: callers must not be able to fake a shortage of memory or a
    failure of the model.
    """
    if 200 <= status < 300:
        return None
    said = _said(body)
    text = said.get("message") or f"The model answered with status {status}."
    if status == 507 or (status >= 500 and _MEMORY.search(body, 0, _LOOK_AT)):
        return Failure("out_of_memory", text)
    if status == 504:
        return Failure("timeout", text)
    if status in (429, 503):
        return Failure("unavailable", text)
    if 400 <= status < 500:
        raised = _raised(said.get("stack_trace", ""))
        if _MEMORY_EXCEPTION.fullmatch(raised):
            return Failure("out_of_memory", "The model ran out of memory.")
        if raised and text.startswith(_MODEL_RAISED) and not _VALUE_EXCEPTION.fullmatch(raised):
            return Failure("model_error", f"The model failed with {raised}.")
        return Failure("invalid_input", text)
    return Failure("model_error", text)


def error_body(failure: Failure, variant: str, correlation_id: str) -> bytes:
    """The JSON a caller gets instead of predictions."""
    return json.dumps({
        "error_code": ERROR_CODE[failure.error_type], "message": failure.message,
        "error_type": failure.error_type, "variant": variant, "correlation_id": correlation_id,
    }).encode()


def _raised(stack_trace: str) -> str:
    """The class of the exception that a stack trace ends with, "" where it names none.

    The exception's own message may go on for lines: it begins where the frames, indented, end.
    """
    _, header, block = stack_trace.strip().rpartition(_TRACEBACK)
    lines = [line for line in block.splitlines() if line[:1].strip()]
    if not lines:
        return ""
    match = _EXCEPTION.match(lines[0] if header else lines[-1])
    return "" if match is None else match[1]


def _said(body: bytes) -> dict[str, str]:
    """The strings of MLflow's error form {"error_code", "message", "stack_trace"}, as far as there.
    """
    if len(body) > _LOOK_AT:
        return {}
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(document, dict):
        return {}
    return {key: value[:_MESSAGE_LIMIT] if key == "message" else value
            for key, value in document.items() if isinstance(value, str)}
