"""The join of predictions and late labels: each label counts once, whatever comes late, twice or first."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.monitoring.outcomes import Join, Labelled, Predicted, answers_of, judged, wrong
from tests.monitoring.strata import summed


def join(**settings: Any) -> Join:
    return Join(**{"within": 100.0, "waiting": 1000, **settings})


def test_labels_are_counted_by_the_variant_that_predicted_and_each_take_gives_what_is_new() -> None:
    j = join()
    j.predicted("a", Predicted(0, "champion", [0.9]))
    j.predicted("b", Predicted(0, "challenger", [0.9]))
    j.labelled("a", Labelled(1, 1))
    j.labelled("b", Labelled(1, 0))
    assert summed(j.take()) == {"champion": (1, 0), "challenger": (1, 1)}
    assert summed(j.take()) == {}


def test_a_label_that_comes_before_its_prediction_waits_for_it() -> None:
    j = join()
    j.labelled("a", Labelled(0, 1))
    assert summed(j.take()) == {}
    j.predicted("a", Predicted(0, "champion", [0.1]))
    assert summed(j.take()) == {"champion": (1, 1)}


def test_a_second_label_for_one_prediction_is_a_duplicate_in_either_order() -> None:
    j = join()
    j.predicted("a", Predicted(0, "champion", [0.9]))
    j.labelled("a", Labelled(1, 1))
    j.labelled("a", Labelled(2, 0))
    j.labelled("b", Labelled(2, 0))
    j.labelled("b", Labelled(2, 1))
    j.predicted("b", Predicted(0, "champion", [0.9]))
    assert summed(j.take()) == {"champion": (2, 1)}
    assert j.tally.duplicate == 2


def test_a_prediction_that_is_read_again_after_its_label_changes_nothing() -> None:
    j = join()
    for _ in range(2):
        j.predicted("a", Predicted(0, "champion", [0.9]))
        j.labelled("a", Labelled(1, 1))
    assert summed(j.take()) == {"champion": (1, 0)}


def test_of_a_retried_request_the_last_answer_counts_and_a_failure_takes_none_away() -> None:
    j = join()
    j.predicted("a", Predicted(0, "challenger", None))
    j.predicted("a", Predicted(1, "champion", [0.9]))
    j.predicted("a", Predicted(2, "challenger", None))
    j.labelled("a", Labelled(3, 1))
    assert summed(j.take()) == {"champion": (1, 0)}


def test_a_label_that_is_later_than_within_is_unmatched_and_not_counted() -> None:
    j = join(within=100)
    j.predicted("a", Predicted(0, "champion", [0.9]))
    j.predicted("b", Predicted(1, "champion", [0.9]))
    j.expire(100.5)
    j.labelled("a", Labelled(100.5, 0))
    j.labelled("b", Labelled(100.5, 0))
    assert summed(j.take()) == {"champion": (1, 1)}
    j.expire(300)
    assert (j.tally.unmatched, j.tally.counted) == (1, 1)
    assert not j._predictions and not j._labels


def test_a_label_of_no_prediction_of_ours_ends_as_unmatched() -> None:
    j = join(within=100)
    j.labelled("stranger", Labelled(0, 1))
    j.expire(50)
    assert j.tally.unmatched == 0
    j.expire(101)
    assert j.tally.unmatched == 1


def test_memory_is_bounded_and_what_is_forgotten_is_the_oldest_and_is_counted() -> None:
    j = join(waiting=10)
    for i in range(25):
        j.predicted(f"p{i}", Predicted(i, "champion", [0.9]))
        j.labelled(f"x{i}", Labelled(i, 1))
    assert len(j._predictions) == 10 and len(j._labels) == 10
    assert j.tally.forgotten == 15 and j.tally.unmatched == 15
    j.labelled("p14", Labelled(30, 1))
    j.labelled("p15", Labelled(30, 1))
    assert summed(j.take()) == {"champion": (1, 0)}


def test_a_rollout_counts_only_predictions_that_were_made_since_it_began() -> None:
    """The labels of the version that was behind this variant before must not speak for the new one."""
    j = join()
    j.predicted("old", Predicted(10, "challenger", [0.9]))
    j.predicted("new", Predicted(20, "challenger", [0.9]))
    j.predicted("seen", Predicted(9, "challenger", [0.9]))
    j.labelled("seen", Labelled(12, 0))
    j.begin(15)
    j.labelled("old", Labelled(30, 0))
    j.labelled("new", Labelled(30, 0))
    assert summed(j.take()) == {"challenger": (1, 1)}
    assert j.tally.before == 1


def test_a_label_without_an_answer_or_of_another_kind_is_unusable_and_not_wrong() -> None:
    j = join()
    j.predicted("error", Predicted(0, "champion", None))
    j.predicted("word", Predicted(0, "champion", ["UA"]))
    j.labelled("error", Labelled(1, 1))
    j.labelled("word", Labelled(1, 1))
    assert summed(j.take()) == {}
    assert j.tally.unusable == 2


@pytest.mark.parametrize(("answer", "label", "tolerance", "expected"), [
    (0.5, 1, 0, False), (0.499, 1, 0, True), (0.5, 0, 0, True), (0.2, False, 0, False),
    (1, 1, 0, False), (0, 1, 0, True), (True, 1, 0, False),  # a class is a probability of 0 or 1
    (3, 3, 0, False), (3, 2, 0, True), (2.0, 2, 0, False),
    (12.5, 13.0, 0.5, False), (12.4, 13.0, 0.5, True), (0.9, 1, 0.05, True),  # with a tolerance: a number
    ("UA", "UA", 0, False), ("UA", "DL", 0, True),
    ("1", 1, 0, None), (1, "1", 0, None), (None, 1, 0, None), (0.3, None, 0, None),
    (float("nan"), 1, 0, None), (0.3, float("nan"), 0, None), (0.3, {"late": 1}, 0, None),
])
def test_what_is_wrong(answer: Any, label: Any, tolerance: float, expected: bool | None) -> None:
    assert wrong(answer, label, tolerance) is expected


@pytest.mark.parametrize(("logged", "output", "expected"), [
    ([{"probability": 0.25}], None, [0.25]),
    ([{"score": 12.3, "late": 1}], "late", [1]),
    ([{"score": 12.3, "late": 1}], None, None),
    ([{"score": 12.3, "late": 1}], "delay", None),
    ({"late": [1, 0], "score": [2, 3]}, "late", [1, 0]),
    ([0.25, 0.5], None, [0.25, 0.5]), ([[0.25]], None, [0.25]), (0.25, None, [0.25]),
    (["UA"], None, ["UA"]), ([[0.1, 0.9]], None, None), ([], None, None), (None, None, None),
])
def test_the_answers_in_each_form_of_a_scoring_response(logged: Any, output: str | None, expected: Any
                                                        ) -> None:
    assert answers_of(logged, output) == expected


def test_a_request_of_several_rows_wants_as_many_labels() -> None:
    assert judged([0.9, 0.1, 0.9], [1, 1, 0], 0) == [False, True, True]
    assert judged([0.9, 0.1], 1, 0) is None
    assert judged([0.9, 0.1], [1, 1, 0], 0) is None
    assert judged([0.9, 0.1], [1, None], 0) is None


@given(st.lists(st.tuples(st.integers(0, 15), st.booleans(), st.booleans()), max_size=80),
       st.integers(1, 6))
def test_however_they_come_no_id_counts_twice_and_memory_stays_in_its_bounds(
        events: list[tuple[int, bool, bool]], waiting: int) -> None:
    """Without forgetting, exactly the ids that have both count."""
    whole, small = join(), join(waiting=waiting)
    predicted, labelled = set(), set()
    counts = [0, 0]
    for i, (id, is_label, truth) in enumerate(events):
        for place, j in enumerate((whole, small)):
            if is_label:
                j.labelled(f"{id}", Labelled(i, truth))
            else:
                j.predicted(f"{id}", Predicted(i, "champion", [float(truth)]))
            counts[place] += sum(n for n, _ in summed(j.take()).values())
        (labelled if is_label else predicted).add(id)
        assert len(small._predictions) <= waiting and len(small._labels) <= waiting
    assert counts[0] == len(predicted & labelled)
    tally = whole.tally
    assert tally.labels == tally.counted + tally.duplicate + len(whole._labels)
