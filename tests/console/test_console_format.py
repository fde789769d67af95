"""Numbers, times and text, as the screens write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from console import format

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Mn", "Me", "Cf")))


@pytest.mark.parametrize(("seconds", "text"), [
    (0, "0 s"), (0.032, "32 ms"), (0.38, "0.4 s"), (9, "9 s"), (41, "41 s"), (200, "3 min 20 s"),
    (180, "3 min"), (4320, "1 h 12 min"), (183600, "2 d 3 h"), (86400, "1 d"), (None, "-")])
def test_a_duration_takes_its_largest_two_units(seconds: float | None, text: str) -> None:
    assert format.duration(seconds) == text


@pytest.mark.parametrize(("value", "text"), [
    (0.42, "0.4"), (4.0, "4.0"), (9.96, "10"), (212.4, "212"), (None, "-")])
def test_milliseconds_have_a_decimal_only_below_ten(value: float | None, text: str) -> None:
    assert format.ms(value) == text


@pytest.mark.parametrize(("ratio", "text"), [
    (0.0, "0.00"), (0.0002, "0.02"), (0.021, "2.10"), (0.1234, "12.3"), (1.0, "100"), (None, "-")])
def test_a_ratio_is_written_in_percent(ratio: float | None, text: str) -> None:
    assert format.percent(ratio) == text


def test_an_unknown_value_is_never_written_as_zero() -> None:
    assert {f(None) for f in (format.ms, format.rate, format.percent, format.plain,
                              format.duration)} == {"-"}


def test_an_age_stands_still_within_its_unit() -> None:
    assert format.age(74.0) == format.age(119.0) == "1 min"


def test_a_time_of_another_day_carries_its_date() -> None:
    now = 1795490047.0
    assert format.stamp(now, now) == "03:14:07Z"
    assert format.stamp(now - 86400, now) == "23 Nov 03:14Z"


@given(TEXT, st.integers(0, 40))
def test_clipping_never_exceeds_the_width_and_marks_the_cut(text: str, width: int) -> None:
    clipped = format.clip(text, width)
    assert cell_len(clipped) <= width
    assert clipped == text or width == 0 or clipped.endswith("…")


@given(TEXT, st.integers(1, 40))
def test_padding_fills_exactly_the_width(text: str, width: int) -> None:
    assert cell_len(format.left(text, width)) == cell_len(format.right(text, width)) == width


@given(st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Zs"))),
       st.integers(2, 30))
def test_wrapped_lines_fit_and_keep_every_word(text: str, width: int) -> None:
    lines = format.wrap(text, width)
    assert all(cell_len(line) <= width for line in lines)
    assert "".join("".join(lines).split(" ")) == "".join(text.split(" "))


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"))), st.integers(2, 30))
def test_folded_output_loses_no_character(text: str, width: int) -> None:
    pieces = format.fold(text, width)
    assert "".join(pieces) == text
    assert all(cell_len(piece) <= width for piece in pieces)


@given(st.floats(1e-3, 1e9))
def test_a_ceiling_is_round_and_not_below_the_value(value: float) -> None:
    top = format.nice_ceiling(value)
    assert value <= top * (1 + 1e-9) and top <= value * 2.5 * (1 + 1e-9)


def test_a_spark_is_full_at_the_limit_and_blank_where_nothing_is_known() -> None:
    assert format.spark([0.0, 75.0, 150.0, 900.0, None], "▁▂▃▄▅▆▇█", 150.0) == "▁▅██ "


def test_a_spark_changes_only_at_its_newest_end_between_two_bucket_edges() -> None:
    values: list[float | None] = [float(i % 7) for i in range(60)]
    before = format.buckets(values, 1000.0, 5.0, 8)
    after = format.buckets([*values[1:], 99.0], 1005.0, 5.0, 8)
    assert before[1:7] == after[1:7] or before[2:] == [*after[1:7], before[7]]
    assert after[-1] == 99.0


@given(st.lists(st.one_of(st.none(), st.floats(0, 1e6)), max_size=300), st.integers(1, 30),
       st.floats(0, 2e9), st.floats(0, 0.99))
def test_buckets_keep_the_largest_value_of_the_newest_stretch(
        values: list[float | None], count: int, end: float, phase: float) -> None:
    found = format.buckets(values, end, 5.0, count, phase)
    assert len(found) == count
    if values and values[-1] is not None:
        assert found[-1] is not None and found[-1] >= values[-1]


@pytest.mark.parametrize(("text", "shown"), [
    ("there is no run 99", "There is no run 99."),
    ("opsdeck runs lists them", "`opsdeck runs` lists them."),
    ("opsdeck show 12 tells how it went", "`opsdeck show 12` tells how it went."),
    ("systemctl start opsdeck", "`systemctl start opsdeck`."),
    ("`opsdeck runs` lists them.", "`opsdeck runs` lists them."),
    ("é", "É.")])
def test_a_sentence_has_a_capital_but_a_command_stays_as_it_is_typed(text: str, shown: str) -> None:
    assert format.sentence(text) == shown
