"""The page of evidence as a terminal shows it."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from console import asks, fake_runs, markdown
from console.glyphs import ASCII, UNICODE
from console.widgets.lines import Line
from engine.pipeline.reports import escaped
from engine.pipeline.stages.page.blocks import Items, Page, Section, Table, Text
from engine.pipeline.stages.page.rendering import markdown as written

WHY = "The challenger's p99 is 0.129 ms over 2,000 requests; at most 0.135 ms by its bound are allowed."


def texts(found: list[Line]) -> list[str]:
    return ["".join(text for text, _ in one) for one in found]


def page(text: str, width: int = 80) -> list[str]:
    return texts(markdown.lines(text, width, UNICODE)[0])


def table(*rows: str) -> str:
    return "\n".join(rows)


def test_what_the_page_escapes_reads_as_it_was_meant() -> None:
    said = "a_b *c* [d](e) `f` <g> #h |i| ~j~ !k & $l \\m"
    assert page(escaped(said)) == [" " + said]
    assert page(escaped("- no bullet")) == [" - no bullet"]


def test_a_verdict_has_its_glyph_its_words_and_its_role() -> None:
    for mark, role in (("✔", "ok"), ("✘", "bad"), ("✖", "bad"), ("?", "warn")):
        found, _ = markdown.lines(f"**{mark} flights version 9 may be released.**", 80, UNICODE)
        (glyph, glyph_role), (words, words_role) = found[0]
        assert glyph.strip() and glyph_role == role and words == "flights version 9 may be released."
        assert words_role == ("strong" if role == "ok" else role)


def test_a_table_stands_in_columns_with_its_numbers_to_the_right() -> None:
    assert page(table("| What | Rows |", "|---|---:|", "| Rows | 18,000 |", "| Held out | 600 |")) == [
        " What        Rows", " ────────────────", " Rows      18,000", " Held out     600"]


def test_a_pipe_after_a_backslash_ends_no_cell() -> None:
    assert page(table("| A | B |", "|---|---|", "| x\\|y | z\\\\ |"))[2] == " x|y  z\\"


def test_a_long_cell_is_wrapped_beside_the_others_and_says_all_of_it() -> None:
    text = table("| Gate | Verdict | Why |", "|---|---|---|", f"| latency p99 | passed | {WHY} |")
    shown = page(text)
    assert "✔ passed" in shown[2] and len(shown) > 3
    assert " ".join(row[shown[0].index("Why"):] for row in shown[2:]).split() == WHY.split()
    assert len(page(text, 160)) == 3


def test_what_does_not_fit_a_cell_ends_between_two_words() -> None:
    words = [f"{number}.25" for number in range(1000, 1400)]
    shown = page(table("| Check | Seen |", "|---|---|", f"| one | {' '.join(words)} |"))
    seen = [word for row in shown[2:] for word in row.split() if word != "one"]
    assert seen[-1] == "…" and set(seen[:-1]) <= set(words)


@pytest.mark.parametrize("width", [40, 80, 160])
def test_numbers_are_never_cut(width: int) -> None:
    numbers = ["0.3644", "0.3463 to 0.3845", "0.3703", "+0.0059", "+0.0021 to +0.0111", "12,836"]
    head = ["Metric", "This one", "Interval", "Champion", "Gain", "Interval of the gain", "Rows"]
    made = Page("T", "O", "V", "good", (), (), (Section("S", (Table(
        tuple(head), (("log_loss of the rarest carrier", *numbers),), len(numbers)),)),))
    shown = page(written(made), width)
    words = [word for row in shown for word in row.split()]
    assert all(part in words for number in numbers for part in number.split())
    assert max(map(cell_len, shown)) <= width


def test_headings_are_where_they_are_said_to_be() -> None:
    made = Page("A page", "O", "V", "good", (), ("k",), (Section("Tests", (Text("t"),)),
                                                    Section("Data", (Items(("i",)),))))
    found, heads = markdown.lines(written(made), 80, UNICODE)
    assert [texts(found)[at].strip("─ ") for at in heads] == ["A page", "Tests", "Data"]


def test_in_ascii_the_marks_are_of_the_ascii_set() -> None:
    text = table("**✔ Yes**", "", "## H", "", "| G | V |", "|---|---|", "| a | passed |", "| b | failed |")
    assert "\n".join(texts(markdown.lines(text, 80, ASCII)[0])).isascii()


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=300), st.integers(20, 170))
def test_no_text_breaks_out_of_its_lines(text: str, width: int) -> None:
    cells = f"| {text} | b |\n|---|---:|\n| {text} | 1 |"
    for hostile in (text, cells, f"# {text}", f"- {text}", f"```\n{text}"):
        for row in page(hostile, width):
            assert cell_len(row) <= width
            assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs") for c in row)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("ab|\\*_`#<>[]-1.漢\x1b\u202e ", max_size=40), min_size=2, max_size=2))
def test_no_cell_of_a_written_page_becomes_two(cells: list[str]) -> None:
    made = Page("T", "O", "V", "good", (), (), (Section("S", (Table(("A", "B"), (tuple(cells),)),)),))
    row = next(row for row in reversed(written(made).splitlines()) if row.startswith("|"))
    assert [" ".join(c.split()) for c in markdown._cells(row)] == [
        " ".join(markdown.visible(c.replace("\x1b", "\ufffd")).split()) for c in cells]


def released(model: str | None = None, **page: object) -> dict[str, str]:
    made = {"result": {"name": model, "version": "9"}} if model else {}
    steps = [fake_runs.done("register", "Register it", 980.0, 1.0, command="pipeline.register flights",
                            **made),
             fake_runs.done("page", "The page", 990.0, 1.0, command="pipeline.page flights", **page),
             fake_runs.step("release", "Release it", "waiting", effect="idempotent",
                            command="pipeline.release flights version 9 to flights-late, manifest cb88")]
    return dict(asks.step_facts(fake_runs.run("1", "p", "t", "waiting", steps, 1000.0), steps[-1], 1000.0))


def test_an_approval_of_a_release_says_what_is_released_and_what_the_page_says() -> None:
    facts = released(result={"verdict": "It may be released.", "against": []})
    assert "flights version 9 to service flights-late, in production" in facts["Releases"]
    assert facts["Evidence"].startswith("It may be released.") and "against" not in facts["Evidence"]


def test_a_release_is_named_by_its_model_where_the_project_has_another_name() -> None:
    assert released("flights")["Releases"].startswith("flights version 9 to service flights-late")
    assert "delays version 9 of project flights to service flights-late" in released("delays")["Releases"]


def test_what_speaks_against_a_release_is_counted_where_it_is_approved() -> None:
    facts = released(result={"verdict": "Not as it is.", "against": ["a", "b"]})
    assert facts["Evidence"].startswith("2 points against it: Not as it is.")


def test_what_a_step_came_to_is_said_whole_above_what_it_ran() -> None:
    said = "log_loss 0.3644, better than the champion's 0.3703 by 0.0021 to 0.0111"
    step = fake_runs.done("compare", "Comparison", 990.0, 1.0, command="pipeline.compare flights",
                          result={"says": said})
    facts = asks.step_facts(fake_runs.run("1", "p", "t", "running", [step], 1000.0), step, 1000.0)
    assert facts[0] == ("Came to", said)


def test_only_a_release_speaks_of_one() -> None:
    step = fake_runs.step("a", "b", command="traffic.shift flights champion=100")
    assert asks.release_facts(fake_runs.run("1", "p", "t", "running", [step], 1000.0), step) == []
