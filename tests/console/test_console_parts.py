"""The small pure parts: order, filter, prompt, editing, transcript, form, table layout, glyphs."""

from __future__ import annotations

import importlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console import commands, fake_runs, run_text
from console.commands import Context, complete, parse
from console.edit import Edit
from console.fake_world import World
from console.filter import matches
from console.form import Form
from console.glyphs import ASCII, UNICODE, utf8_locale
from console.order import HOLD_S, Order
from console.palette import choose
from console.places import FLEET, VIEWS, Trail
from console.reports import COPY_LIMIT, osc52
from console.screens.fleet import COLUMNS
from console.screens.runbooks import order, suggestions
from console.transcript import KEPT_LINES, Transcript
from console.widgets.plot import Curve, plot
from console.widgets.table import Table, place
from engine.api.backend import OutputChunk
from engine.errors import UsageError

CONTEXT = Context(("flights", "pricing"), ("184", "183"), ("high-latency",))


def names(order: Order, world: World, idle: float = 60.0) -> list[str]:
    return [s.name for s in order.sort(world.snapshot().services, idle_s=idle)]


def test_the_worst_service_stands_first_and_the_well_ones_by_name() -> None:
    found = names(Order(), World(services=8))
    assert found[:3] == ["flights", "fraud", "pricing"]
    assert found[3:] == sorted(found[3:])


def test_moving_numbers_move_no_row() -> None:
    world, order = World(), Order()
    before = names(order, world)
    for _ in range(30):
        world.advance()
    assert names(order, world) == before


def test_the_order_waits_while_hands_are_on_the_keys_and_follows_after() -> None:
    world, order = World(), Order()
    before = names(order, world)
    services = world.snapshot().services
    flights = next(s for s in services if s.name == "flights")
    flights.alerts = []
    assert [s.name for s in order.sort(services, idle_s=HOLD_S / 2)] == before
    assert [s.name for s in order.sort(services, idle_s=HOLD_S)] != before


@pytest.mark.parametrize(("filter", "passes"), [
    ("", True), ("fli", True), ("FLI page", True), ("fli ticket", False), ("!fli", False),
    ("!pricing", True), ("!", True)])
def test_a_filter_wants_every_word_and_an_exclamation_mark_inverts_it(
        filter: str, passes: bool) -> None:
    assert matches(filter, "flights", "page", None) is passes


@pytest.mark.parametrize(("text", "place", "argument"), [
    ("fleet", "fleet", ""), (":run 184", "run", "184"), ("run #184", "run", "184"),
    ("service flights", "service", "flights"), ("service pric", "service", "pricing"),
    ("app", "approvals", ""), ("q", "q", ""), ("runbooks latency", "runbooks", "latency")])
def test_the_prompt_understands(text: str, place: str, argument: str) -> None:
    goto = parse(text, CONTEXT)
    assert (goto.problem, goto.place, goto.argument) == (None, place, argument)


@pytest.mark.parametrize("text", ["nowhere", "run", "run x", "service", "service nothing", "ru"])
def test_the_prompt_says_in_a_sentence_what_it_does_not_understand(text: str) -> None:
    goto = parse(text, CONTEXT)
    assert goto.problem is not None and goto.problem.endswith(".") and not goto.place


def test_the_prompt_completes_places_services_and_runs() -> None:
    assert complete("ru", CONTEXT) == ["runbooks", "runs", "run"]
    assert complete("service f", CONTEXT) == ["service flights"]
    assert complete("run 18", CONTEXT) == ["run 184", "run 183"]


@pytest.mark.parametrize("place", sorted(VIEWS))
def test_every_key_in_the_table_does_something_in_its_view(place: str) -> None:
    from console.app import OpsdeckApp
    module, _, name = VIEWS[place].partition(":")
    view = getattr(importlib.import_module(f"console.screens.{module}"), name)
    for command in commands.own(place):
        assert hasattr(view, f"action_{command.action}"), command
    for command in commands.COMMANDS:
        if commands.EVERYWHERE in command.views:
            assert hasattr(OpsdeckApp, f"action_{command.action}"), command


@pytest.mark.parametrize("place", sorted(VIEWS))
def test_no_key_means_two_things_in_one_view(place: str) -> None:
    keys = [key for command in commands.here(place) for key in command.keys]
    assert len(keys) == len(set(keys))


def test_the_trail_leads_back_along_itself_and_dash_to_the_place_before() -> None:
    trail = Trail(FLEET)
    for step in (("runs", ""), ("run", "184"), ("runs", "")):
        assert trail.go(step)
    assert trail.places == [FLEET, ("runs", "")] and trail.before == ("run", "184")
    assert trail.back() and not trail.back()


@given(st.lists(st.sampled_from(["a", "é", "日", "left", "right", "backspace", "delete", "home",
                                 "end", "ctrl+w", "ctrl+u", "ctrl+k"]), max_size=40))
def test_editing_keeps_the_caret_inside_the_text_and_in_sight(keys: list[str]) -> None:
    edit = Edit()
    for key in keys:
        edit.press(key, key if len(key) == 1 else None)
        assert 0 <= edit.at <= len(edit.text)
        spans = edit.spans(10)
        assert any(role == "caret" for _, role in spans)


def test_a_paste_brings_no_control_characters_into_a_field() -> None:
    edit = Edit()
    edit.insert("fli\x1b[2Jghts\n")
    assert edit.text == "fli [2Jghts "


def chunk(offset: int, text: str, *, attempt: int = 1, stream: str = "stdout") -> OutputChunk:
    return OutputChunk("1", "s", attempt, offset, offset + len(text.encode()), text, False,
                       stream)  # type: ignore[arg-type]


@given(st.lists(st.integers(0, 11), min_size=1, max_size=12))
def test_chunks_that_come_twice_are_shown_once(cuts: list[int]) -> None:
    whole = "línea uno\nzwei\n"
    data = whole.encode()
    transcript = Transcript()
    for start in [*cuts, 0]:
        piece = data[start:]
        if start <= transcript.next.get("stdout", 0):
            transcript.feed(OutputChunk("1", "s", 1, start, len(data),
                                        piece.decode("utf-8", "replace"), False))
    assert transcript.lines[-1] == "" and transcript.text().endswith("zwei\n")
    assert len(transcript.lines) == 3


def test_output_that_was_not_seen_is_said_to_be_missing() -> None:
    transcript = Transcript()
    transcript.feed(chunk(0, "a\n"))
    transcript.feed(chunk(2000, "b\n"))
    assert "[2.0 kB of output are not shown]" in transcript.text()


def test_both_streams_are_shown_and_count_their_own_bytes() -> None:
    transcript = Transcript()
    assert transcript.feed(chunk(0, "out\n")) and transcript.feed(chunk(0, "err\n", stream="stderr"))
    assert transcript.lines == ["out", "err", ""]


def test_endless_output_keeps_its_end_and_a_bounded_size() -> None:
    transcript = Transcript()
    offset = 0
    for number in range(80):
        text = "".join(f"{number} {i}\n" for i in range(100))
        transcript.feed(chunk(offset, text))
        offset += len(text)
    assert len(transcript.lines) == KEPT_LINES and transcript.lines[-2] == "79 99"


def test_a_form_names_what_is_wrong_with_each_field_and_parses_when_nothing_is() -> None:
    procedure = next(p for p in fake_runs.library() if p.id == "rollback-model")
    form = Form(procedure.params)
    assert [problem for _, problem in form.problems] == ["needed"]
    form.edits[0].insert("flights")
    form.edits[1] = Edit("200")
    assert form.problems == [(1, "from 0 to 100")]
    form.edits[1] = Edit("25")
    assert form.values() == {"service": "flights", "weight": 25}


def test_a_form_cycles_through_its_fields() -> None:
    form = Form(next(p for p in fake_runs.library() if p.id == "rollback-model").params)
    seen = [form.at]
    for key in ("tab", "down", "tab", "shift+tab"):
        form.press(key, None)
        seen.append(form.at)
    assert seen == [0, 1, 2, 0, 2]


@given(st.integers(80, 300))
def test_columns_fit_the_width_and_stand_in_their_order(width: int) -> None:
    placed = place(COLUMNS, width)
    assert placed[0].column.key == "name"
    assert all(one.x + one.width + 1 <= other.x for one, other in itertools.pairwise(placed))
    assert placed[-1].x + placed[-1].width <= width
    keys = [p.column.key for p in placed]
    assert keys == [c.key for c in COLUMNS if c.key in keys]


def test_what_a_column_does_not_need_widens_the_next() -> None:
    table = Table(run_text.COLUMNS)
    before = {p.column.key: p.width for p in place(table.columns, 88)}
    table.fit("title", 30)
    after = {p.column.key: p.width for p in place(table.columns, 88)}
    assert after["title"] == 30 < before["title"]
    assert after["note"] - before["note"] == before["title"] - 30


def test_what_matters_at_night_fits_80_columns_and_160_show_everything() -> None:
    narrow = {p.column.key for p in place(COLUMNS, 80)}
    assert {"name", "version", "split", "rps", "p50", "p95", "p99", "spark", "errors",
            "state"} <= narrow
    assert len(place(COLUMNS, 160)) == len(COLUMNS)


def test_what_an_alert_names_is_suggested_before_what_only_fits_its_signal() -> None:
    services, library = World().snapshot().services, fake_runs.library()
    fits = suggestions(services, library, "flights")
    assert list(fits) == ["high-latency", "rollback-model"]
    assert [p.id for p in order(library, fits)][:2] == ["high-latency", "rollback-model"]


@pytest.mark.parametrize(("environ", "utf8"), [
    ({"LANG": "en_US.UTF-8"}, True), ({"LANG": "de_DE.ISO-8859-1"}, False),
    ({"LC_ALL": "C", "LANG": "en_US.UTF-8"}, False), ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, False),
    ({"LANG": "de_DE.ISO-8859-1", "LC_CTYPE": "C.UTF-8"}, True), ({"LC_CTYPE": "C.UTF-8"}, True),
    ({}, True)])
def test_the_locale_says_whether_the_terminal_takes_utf8(
        environ: dict[str, str], utf8: bool) -> None:
    assert utf8_locale(environ) is utf8


def test_the_ascii_glyphs_are_ascii_and_cover_the_same_states() -> None:
    texts = [getattr(ASCII, f) for f in ASCII.__struct_fields__ if isinstance(getattr(ASCII, f), str)]
    assert "".join([*texts, *ASCII.steps.values(), *ASCII.runs.values()]).isascii()
    assert ASCII.steps.keys() == UNICODE.steps.keys() and ASCII.runs.keys() == UNICODE.runs.keys()
    assert len(ASCII.spark) == len(UNICODE.spark)


def test_the_clipboard_sequence_is_wrapped_for_tmux_and_capped() -> None:
    assert osc52("hi", {}) == "\x1b]52;c;aGk=\x07"
    assert osc52("hi", {"TMUX": "/tmp/t"}) == "\x1bPtmux;\x1b\x1b]52;c;aGk=\x07\x1b\\"
    with pytest.raises(ValueError, match=r"75\.0 kB"):
        osc52("x" * (COPY_LIMIT + 1), {})


def test_a_plot_rises_from_the_bottom_left_to_the_top_right() -> None:
    curve = Curve("p99", [float(i) for i in range(40)], "*")
    lines = ["".join(text for text, _ in line) for line in
             plot([curve], 27, 5, 39.0, limit=None, braille=False, axis="|")]
    assert lines[0].startswith("    39|") and lines[0].rstrip().endswith("*")
    assert lines[-1].startswith("     0|*")


def test_a_gap_in_what_is_known_stays_a_gap_in_the_plot() -> None:
    values = [5.0] * 10 + [None] * 20 + [5.0] * 10
    line = "".join(text for text, _ in plot([Curve("p99", values, "*")], 47, 1, 10.0, limit=None,
                                            braille=False, axis="|")[0])
    assert " " * 15 in line.strip()


def test_an_unknown_theme_is_refused_with_the_known_ones() -> None:
    assert choose(None, False) == "calm" and choose("blind", False) == "blind"
    assert choose("blind", True) == "mono"
    with pytest.raises(UsageError) as refused:
        choose("neon", False)
    assert refused.value.hint == "there are calm, blind, mono"


@pytest.mark.parametrize(("width", "rows"), [
    (120, [" flights: p99 38 ms, was over 150 ms for 1 min, challenger only, clears when it stays well "
           "(and 1 more)", " r: try high-latency"]),
    (80, [" flights: p99 38 ms, was over 150 ms for 1 min, challenger only, clears when it",
          " stays well (and 1 more)  r: try high-latency"])])
def test_what_is_wrong_takes_the_lines_it_needs_and_is_never_cut(width: int, rows: list[str]) -> None:
    from console.screens.fleet import advice
    from console.source import Link, Tick
    from console.state import State
    state = State(lambda: 1000.0)
    state.tick = Tick(World().snapshot(), 1000.0, Link("live"))
    service = next(s for s in state.services if s.name == "flights")
    alert = service.alerts[0]
    alert.title = "p99 38 ms, was over 150 ms for 1 min, challenger only, clears when it stays well"
    service.alerts = [alert, alert]
    assert ["".join(text for text, _ in row) for row in advice(service, state, width)] == rows


@pytest.mark.parametrize(("pages", "parts", "room", "shown"), [
    (1, [], 30, "1 page"), (0, [], 30, ""),
    (1, [(2, "approvals")], 40, "1 page, 2 wait for you: 2 approvals"),
    (2, [(1, "approval")], 30, "2 pages, 1 waits for you"),
    (0, [(1, "approval"), (2, "questions")], 36, "3 wait for you: 1 approval, 2 more"),
    (1, [(2, "approvals")], 16, "1 page, 2 wait"), (12, [(12, "approvals")], 16, "12 pages")])
def test_a_page_is_told_apart_from_what_waits_for_an_answer(
        pages: int, parts: list[tuple[int, str]], room: int, shown: str) -> None:
    from console.widgets.bars import waits
    assert waits(pages, parts, room, least=room == 16) == shown
