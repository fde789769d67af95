"""Correlation ids and W3C trace context: what comes from outside is checked, never trusted.

Trace context: https://www.w3.org/TR/trace-context/, version 00.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

CORRELATION_HEADER = "x-correlation-id"
_CORRELATION = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_TRACESTATE_LIMIT = 512
# The flags that version 00 and its level 2 define: sampled and random-trace-id.
_FLAGS = 0x03
_SAMPLED = 0x01


def correlation_id(given: str | None) -> str:
    """The id a caller gave, if it is 1 to 64 of A-Z a-z 0-9 . _ -, else a new one (32 hex)."""
    if given is not None and is_correlation_id(given):
        return given
    return os.urandom(16).hex()


def is_correlation_id(text: str) -> bool:
    """Whether it is 1 to 64 of A-Z a-z 0-9 . _ -."""
    return _CORRELATION.fullmatch(text) is not None


class Trace(NamedTuple):
    """One request's place in a trace: what goes to the variant, and the id for the log."""

    trace_id: str
    traceparent: str
    tracestate: str | None


def trace(traceparent: str | None, tracestate: str | None) -> Trace:
    """The same trace with a new parent span, or a new trace where none, or no valid one, came.

    A new trace is marked as sampled, because the prediction log keeps its id. `tracestate` goes on
    only with a valid traceparent and up to 512 characters.
    """
    span = os.urandom(8).hex()
    if traceparent is not None:
        match = _TRACEPARENT.fullmatch(traceparent)
        if match is not None:
            version, trace_id, parent, flags, rest = match.groups()
            if (version != "ff" and trace_id.strip("0") and parent.strip("0")
                    and not (version == "00" and rest)):
                state = tracestate if tracestate and len(tracestate) <= _TRACESTATE_LIMIT else None
                return Trace(trace_id, f"00-{trace_id}-{span}-{int(flags, 16) & _FLAGS:02x}", state)
    trace_id = os.urandom(16).hex()
    return Trace(trace_id, f"00-{trace_id}-{span}-{_SAMPLED:02x}", None)
