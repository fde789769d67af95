"""What is no score of these rows is refused, with the row and the class at fault."""

from __future__ import annotations

import numpy as np
import pytest

from engine.pipeline.scoring.scores import ModelFailed, checked

CLASSES = ("early", "on time", "late")
WHERE = "evaluate: model.onnx"


def refused(scores, task="binary", classes=("0", "1"), rows=None) -> str:
    found = np.asarray(scores)
    with pytest.raises(ModelFailed) as caught:
        checked(found, len(found) if rows is None else rows, task, classes, WHERE)
    assert caught.value.where == WHERE
    return caught.value.message


def test_probabilities_of_two_classes_become_that_of_class_1():
    assert checked([[0.9, 0.1], [0.25, 0.75]], 2, "binary", ("0", "1"), WHERE).tolist() == [0.1, 0.75]
    assert checked([[0.1], [0.75]], 2, "binary", ("0", "1"), WHERE).tolist() == [0.1, 0.75]
    kept = checked([[0.2, 0.3, 0.5]], 1, "multiclass", CLASSES, WHERE)
    assert kept.tolist() == [[0.2, 0.3, 0.5]]


def test_a_score_too_few_is_counted():
    assert refused([0.1, 0.2], rows=3) == "the model gave 2 scores for 3 rows"


def test_a_score_that_is_nan_is_named_by_its_row():
    assert refused([0.1, np.nan, np.nan]) == "the score of row 1 is not a number: NaN; so in 2 of 3 rows"


def test_a_score_that_is_nan_is_named_by_its_class():
    scores = [[0.2, 0.3, 0.5], [0.2, np.inf, 0.5]]
    said = refused(scores, "multiclass", CLASSES)
    assert "the score of class on time of row 1 is not a number: inf" in said


def test_a_margin_is_no_probability():
    assert "the score of row 2 is no probability: -1.5" in refused([0.1, 0.9, -1.5])
    assert checked([3.5, -1.5], 2, "regression", (), WHERE).tolist() == [3.5, -1.5]


def test_probabilities_of_a_row_add_up_to_1():
    assert "the probabilities of row 1 add up to 0.9, not to 1" in refused([[0.5, 0.5], [0.4, 0.5]])


@pytest.mark.parametrize("scores, task, classes, said", [
    ([[0.5, 0.5]], "multiclass", CLASSES, "scores of 2 classes, and there are 3 classes: early, on"),
    ([0.5], "multiclass", CLASSES, "one score a row, and there are 3 classes"),
    ([[0.2, 0.3, 0.5]], "binary", ("0", "1"), "scores of 3 classes, and the task is binary"),
    ([[0.2, 0.3]], "ranking", (), "2 scores a row, and a ranking task has one")])
def test_a_wrong_number_of_classes_is_said(scores, task, classes, said):
    assert said in refused(scores, task, classes)
