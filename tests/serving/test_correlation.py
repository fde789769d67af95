"""Correlation ids and trace context from outside are checked, never trusted."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.serving.correlation import correlation_id, trace

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
VALID = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


@given(st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True))
def test_a_valid_correlation_id_is_kept(given_id: str) -> None:
    assert correlation_id(given_id) == given_id


@pytest.mark.parametrize("bad", [None, "", "a" * 65, "a b", "a\nb", "a\r\nx: y", "ü", "a\n", "a;b",
                                 "../x/"])
def test_any_other_is_replaced_by_a_new_one(bad: str | None) -> None:
    new = correlation_id(bad)
    assert re.fullmatch(r"[0-9a-f]{32}", new) and new != correlation_id(bad)


@given(st.text(max_size=80))
def test_whatever_comes_what_goes_on_is_a_valid_id(text: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", correlation_id(text))


def test_a_trace_goes_on_with_a_new_parent_and_its_state() -> None:
    traced = trace(f"00-{TRACE}-{PARENT}-01", "vendor=1")
    assert traced.trace_id == TRACE and traced.tracestate == "vendor=1"
    assert VALID.fullmatch(traced.traceparent) and PARENT not in traced.traceparent
    assert traced.traceparent.endswith("-01")


def test_a_caller_who_does_not_sample_is_respected_and_unknown_flags_are_dropped() -> None:
    assert trace(f"00-{TRACE}-{PARENT}-00", None).traceparent.endswith("-00")
    assert trace(f"00-{TRACE}-{PARENT}-fd", None).traceparent.endswith("-01")


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    traced = trace(f"01-{TRACE}-{PARENT}-01-more", None)
    assert traced.trace_id == TRACE and traced.traceparent.startswith("00-")


@pytest.mark.parametrize("bad", [
    None, "", "nonsense", f"ff-{TRACE}-{PARENT}-01", f"00-{'0' * 32}-{PARENT}-01",
    f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE.upper()}-{PARENT}-01", f"00-{TRACE}-{PARENT}-01-more",
    f"00-{TRACE}-{PARENT}-01, 00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-01\n"])
def test_any_other_trace_is_replaced_by_a_new_one_without_the_callers_state(
        bad: str | None) -> None:
    traced = trace(bad, "vendor=1")
    assert VALID.fullmatch(traced.traceparent)
    assert traced.trace_id != TRACE and traced.tracestate is None


def test_a_state_that_is_too_long_is_dropped() -> None:
    assert trace(f"00-{TRACE}-{PARENT}-01", "v=" + "x" * 511).tracestate is None
