"""Likenesses of pictures: what is the same is 1, what is hidden says nothing."""

from __future__ import annotations

import numpy as np
import pytest

import data
from similarity import FEATURES, compare


def picture(seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.random.default_rng(seed).integers(0, 17, (8, 8)).astype(np.float64)


def test_a_picture_is_wholly_like_itself_and_like_itself_in_paler_ink() -> None:
    one = picture(1)
    alike = compare(one, np.stack([one, one / 2]))
    assert set(alike) == set(FEATURES)
    for name in set(FEATURES) - {"ink"}:
        assert alike[name] == pytest.approx(1.0)
    assert alike["ink"][0] == 0 and alike["ink"][1] < 0


def test_a_hidden_half_is_left_out_of_what_is_seen() -> None:
    whole = picture(2)
    torn = data.damaged(whole, "lower half hidden")
    alike = compare(torn, whole[None])
    assert alike["seen"][0] == pytest.approx(1.0) and alike["pixels"][0] < 0.95
    assert alike["top"][0] == pytest.approx(1.0) and alike["bottom"][0] == 0
    assert (whole == picture(2)).all()


def test_a_picture_moved_by_a_pixel_is_found_again() -> None:
    inner = np.zeros((8, 8))
    inner[2:6, 2:6] = picture(3)[2:6, 2:6]
    moved = np.roll(inner, (1, -1), axis=(0, 1))
    alike = compare(inner, moved[None])
    assert alike["shifted"][0] == pytest.approx(1.0) and alike["pixels"][0] < 0.9


def test_an_empty_picture_is_like_nothing_and_gives_no_nan() -> None:
    alike = compare(np.zeros((8, 8)), np.stack([picture(4), np.zeros((8, 8))]))
    assert all(np.isfinite(values).all() for values in alike.values())
    assert alike["seen"].tolist() == [0, 0]


def test_queries_have_their_candidates_and_no_picture_is_in_both_parts() -> None:
    pictures = np.stack([picture(seed) for seed in range(1797)])
    digits = np.arange(1797) % 10
    table = data.rows(30, pictures, digits)
    assert table.num_rows == 30 * 20
    assert set(table.group_by("query").aggregate([("relevant", "sum")])["relevant_sum"].to_pylist()) == {4}
    part = np.array(table["part"].to_pylist())
    candidate, query = table["candidate"].to_numpy(), np.array(table["query"].to_pylist())
    assert not set(candidate[part == "learning"]) & set(candidate[part == "held-out"])
    assert [len(set(query[part == one])) for one in ("learning", "held-out")] == [20, 10]
    assert table.equals(data.rows(30, pictures, digits))


def test_too_few_queries_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 9"):
        data.rows(3, np.zeros((1797, 8, 8)), np.zeros(1797, dtype=np.int64))
