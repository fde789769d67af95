"""The painter: whatever is composed, the terminal ends up showing it, with few bytes."""

from __future__ import annotations

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.color import ColorSystem
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from console.paint import Painter, color_system, sgr, shows_on_blanks
from tests.console.terminal import sgr_colors

WIDTH, HEIGHT = 24, 4
STYLES = [Style(), Style.parse("bold red"), Style.parse("color(245)"), Style.parse("reverse")]
CELLS = st.text(st.sampled_from("ab  -│▂日本é…"), min_size=0, max_size=WIDTH)
FRAMES = st.lists(st.lists(st.lists(st.tuples(CELLS, st.sampled_from(STYLES)), max_size=3),
                           min_size=HEIGHT, max_size=HEIGHT), min_size=1, max_size=5)


def rows(frame: list[list[tuple[str, Style]]]) -> list[list[Strip]]:
    return [[Strip([Segment(text, style) for text, style in spans]).crop(0, WIDTH)
             .adjust_cell_length(WIDTH)] for spans in frame]


def shown(screen: pyte.Screen) -> list[list[str]]:
    return [[screen.buffer[y][x].data for x in range(WIDTH)] for y in range(HEIGHT)]


@settings(max_examples=150, deadline=None)
@given(FRAMES)
def test_after_a_flush_the_terminal_shows_what_was_composed(
        frames: list[list[list[tuple[str, Style]]]]) -> None:
    painter = Painter(ColorSystem.EIGHT_BIT)
    painter.resize(WIDTH, HEIGHT)
    screen = pyte.Screen(WIDTH, HEIGHT)
    screen.reset_mode(pyte.modes.DECAWM)
    stream = pyte.Stream(screen)
    for frame in frames:
        painter.full(rows(frame))
        stream.feed(painter.flush())
        assert shown(screen) == painter.chars
    fresh = pyte.Screen(WIDTH, HEIGHT)
    fresh.reset_mode(pyte.modes.DECAWM)
    painter.forget()
    pyte.Stream(fresh).feed(painter.flush())
    for y in range(HEIGHT):
        for x in range(WIDTH):
            one, other = screen.buffer[y][x], fresh.buffer[y][x]
            assert one.reverse == other.reverse
            assert one.data == " " or (one.fg, one.bold) == (other.fg, other.bold)


def painted(text: str, painter: Painter | None = None) -> Painter:
    painter = painter or Painter(ColorSystem.EIGHT_BIT)
    painter.resize(80, 1)
    painter.full([[Strip([Segment(text.ljust(80))])]])
    return painter


def test_an_unchanged_picture_costs_no_byte() -> None:
    painter = painted("p99 212 ms")
    assert painter.flush()
    painted("p99 212 ms", painter)
    assert painter.flush() == ""


def test_one_changed_digit_costs_a_move_and_a_digit() -> None:
    painter = painted("flights  p99 212 ms")
    painter.flush()
    painted("flights  p99 213 ms", painter)
    assert painter.flush() == "\x1b[1;16H3"


def test_the_rest_of_a_line_is_erased_rather_than_written() -> None:
    painter = painted("a long line of text that goes away")
    painter.flush()
    painted("a", painter)
    assert painter.flush() == "\x1b[1;3H\x1b[K"


def test_what_arrives_on_the_right_leaves_the_left_as_it_is() -> None:
    painter = painted(f"{'This runs':40}{'line 1':40}")
    blank, fresh = Strip([Segment(" " * 40)]), Strip([Segment("line 2".ljust(40))])
    painter.partial([{0: blank, 40: fresh}], [(0, 40, 80)])
    assert "".join(painter.chars[0]) == f"{'This runs':40}{'line 2':40}"


def test_a_span_may_begin_within_a_piece() -> None:
    painter = painted("flights  p99 212 ms")
    painter.partial([{0: Strip([Segment("XXXXXXX  p99 213 ms".ljust(80))])}], [(0, 13, 16)])
    assert "".join(painter.chars[0]).rstrip() == "flights  p99 213 ms"


def test_frames_that_were_not_flushed_leave_no_trace() -> None:
    painter = painted("one")
    painter.flush()
    for text in ("two", "three", "four"):
        painted(text, painter)
    assert painter.flush() == "\x1b[1Hfour"


def test_monochrome_drops_every_colour_and_keeps_bold() -> None:
    look = sgr(Style.parse("bold red on blue"), None)
    assert look == "1" and not sgr_colors(f"\x1b[{look}m".encode())


def test_ascii_mode_replaces_every_other_character_whatever_its_origin() -> None:
    painter = Painter(None, ascii_only=True)
    painted("▲ naïve 日本 ─ café", painter)
    assert painter.text() == ["# na?ve ? ?  - caf?"]
    assert painter.flush().isascii()


def test_the_colour_system_follows_the_terminal() -> None:
    assert color_system({"TERM": "xterm-256color"}, "calm") is ColorSystem.EIGHT_BIT
    assert color_system({"TERM": "linux"}, "calm") is ColorSystem.STANDARD
    assert color_system({"TERM": "dumb"}, "calm") is None
    assert color_system({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, "mono") is None


@pytest.mark.parametrize(("style", "shows"), [
    ("", False), ("bold", False), ("red", False), ("color(245)", False), ("color(44)", False),
    ("bold #040709", False), ("reverse", True), ("underline", True), ("on blue", True),
    ("color(7) on color(4)", True)])
def test_a_blank_needs_no_colour_of_its_own(style: str, shows: bool) -> None:
    assert shows_on_blanks(sgr(Style.parse(style), ColorSystem.TRUECOLOR)) is shows
