"""The curves of a step: what is kept of them, and what is drawn where there is room."""

from __future__ import annotations

from console import curves
from console.glyphs import ASCII, UNICODE
from engine.api.backend import Curve, Point
from tests.console.scenes import BY_NAME, opened


def heard(*values: float, name: str = "loss") -> curves.Heard:
    found = curves.Heard()
    found.feed(Curve("1", "train", 1, len(values), [Point(name, float(at), v) for at, v in
                                                    enumerate(values, 1)], False))
    return found


def text(found: curves.Heard, width: int = 70, height: int = 30) -> list[str]:
    return ["".join(span[0] for span in row) for row in curves.lines(found, width, height, UNICODE)]


def test_without_a_point_nothing_is_drawn() -> None:
    assert text(curves.Heard()) == []


def test_the_newest_value_its_step_and_where_it_began_are_said() -> None:
    assert text(heard(0.69, 0.5, 0.41), height=8)[0].startswith("loss  0.41 at step 3, from 0.69")


def test_a_plot_is_drawn_where_the_output_leaves_room_and_its_axis_spans_the_values() -> None:
    drawn = text(heard(*(0.7 - at / 400 for at in range(100))))
    assert len(drawn) == curves.PLOT + 1
    assert drawn[0].lstrip().startswith("0.71") and drawn[curves.PLOT - 1].lstrip().startswith("0.4")
    assert all(len(row) <= 70 for row in drawn)


def test_a_curve_that_stands_still_is_said_and_not_plotted() -> None:
    assert text(heard(0.5, 0.5, 0.5)) == ["loss  0.5 at step 3, from 0.5"]


def test_plain_letters_do_where_there_is_no_braille() -> None:
    rows = curves.lines(heard(*(1 / at for at in range(1, 60))), 70, 30, ASCII)
    assert all("".join(span[0] for span in row).isascii() for row in rows)


def test_more_than_three_curves_show_the_first_three() -> None:
    found = curves.Heard()
    for name in "abcd":
        found.feed(Curve("1", "train", 1, 9, [Point(name, 1.0, 0.5)], False))
    assert len(text(found, height=8)) == curves.SHOWN


def test_a_long_training_is_kept_whole_at_less_detail() -> None:
    found = curves.Heard()
    for at in range(3 * curves.KEPT):
        found.feed(Curve("1", "train", 1, at, [Point("loss", float(at), 1.0)], False))
    kept = found.points["loss"]
    assert len(kept) <= curves.KEPT and kept[0][0] < curves.KEPT and kept[-1][0] == 3 * curves.KEPT - 1


def test_a_file_that_began_anew_forgets_the_old_points() -> None:
    found = heard(1.0, 0.9, 0.8)
    found.feed(Curve("1", "train", 1, 1, [Point("loss", 1.0, 0.7)], False))
    assert found.points["loss"] == [(1.0, 0.7)]


async def test_the_run_screen_shows_the_loss_while_the_training_runs() -> None:
    async with opened(BY_NAME["run-training"], (80, 24)) as (app, _pilot):
        assert "log_loss  0.4262 at step 64" in "\n".join(app.painter.text())
