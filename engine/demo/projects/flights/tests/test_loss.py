"""The loss is the log loss, weights count, and validation takes whole hours."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest

import train
from synthetic import synthetic


def test_the_loss_is_the_mean_surprise_in_nats() -> None:
    labels, weights = np.array([1, 0]), np.ones(2)
    assert train.log_loss(labels, np.array([0.5, 0.5]), weights) == pytest.approx(math.log(2))
    assert train.log_loss(labels, np.array([0.8, 0.1]), weights) == pytest.approx(
        -(math.log(0.8) + math.log(0.9)) / 2)


def test_a_weight_counts_as_so_many_rows() -> None:
    once = train.log_loss(np.array([1, 1, 1, 0]), np.array([0.7, 0.7, 0.7, 0.2]), np.ones(4))
    weighted = train.log_loss(np.array([1, 0]), np.array([0.7, 0.2]), np.array([3.0, 1.0]))
    assert weighted == pytest.approx(once)


def test_a_certainty_that_was_wrong_costs_much_and_not_infinitely_much() -> None:
    assert train.log_loss(np.array([1]), np.array([0.0]), np.ones(1)) == pytest.approx(52 * math.log(2))


def test_validation_takes_whole_hours_and_the_same_ones_for_the_same_seed() -> None:
    groups = [f"JFK {hour}" for hour in range(400) for _ in range(3)]
    aside = train.held_out(groups, 0.25, np.random.default_rng(5))
    by_hour = aside.reshape(400, 3)
    assert (by_hour.all(axis=1) == by_hour.any(axis=1)).all()
    assert 0.18 < aside.mean() < 0.32
    assert (aside == train.held_out(groups, 0.25, np.random.default_rng(5))).all()


def one_class(values: list[int | None]) -> pa.Table:
    rows = synthetic(len(values))
    return rows.set_column(rows.column_names.index("late"), "late", pa.array(values, pa.int64()))


def test_one_class_only_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="late holds 1 class in 4 rows"):
        train.rows_of(one_class([0, 0, 0, 0]), {"carrier": [], "origin": []})


def test_a_missing_label_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="1 of 3 rows have no late"):
        train.rows_of(one_class([0, None, 1]), {"carrier": [], "origin": []})
