"""Which bin a prediction falls into, and how a real gateway counts them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.serving.prediction_bins import Bins
from tests.serving.harness import Gateway, ScriptedVariant, response, wait_for

SCORE = Bins("p", edges=[0, 0.25, 0.5])
CLASS = Bins("p", classes=["late", 1, "true"])


def test_the_bins_of_a_score_are_named_by_their_edges_and_hold_the_lower_one() -> None:
    assert SCORE.names == ("..0", "0..0.25", "0.25..0.5", "0.5..", "invalid")
    values = [-1e9, -0.001, 0, 0.2499, 0.25, 0.4, 0.5, 7, 10**400]
    assert SCORE([{"p": value} for value in values]) == [
        "..0", "..0", "0..0.25", "0..0.25", "0.25..0.5", "0.25..0.5", "0.5..", "0.5..", "0.5.."]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=8, unique=True),
       st.floats(allow_nan=False, allow_infinity=False))
def test_a_score_is_in_the_one_bin_whose_edges_hold_it(edges: list[float], value: float) -> None:
    bins = Bins(0, edges=sorted(edges))
    [name] = bins([value])
    low, _, high = name.partition("..")
    assert (not low or float(low) <= value) and (not high or value < float(high))
    assert name in bins.names and len(set(bins.names)) == len(edges) + 2


@pytest.mark.parametrize("value", [None, "0.3", True, float("nan"), float("inf"), [0.3], {}])
def test_what_is_no_finite_number_is_an_invalid_score(value: Any) -> None:
    assert SCORE([{"p": value}]) == ["invalid"]


def test_a_class_has_its_bin_and_what_is_not_among_them_is_another() -> None:
    assert CLASS.names == ("late", "1", "true", "other", "invalid")
    values = ["late", 1, 1.0, "1", True, "true", "early", 2, False, None, [], float("nan")]
    assert CLASS([{"p": value} for value in values]) == [
        "late", "1", "1", "1", "true", "true", "other", "other", "other", "invalid", "invalid",
        "invalid"]


@pytest.mark.parametrize(("output", "predictions", "found"), [
    ("p", [{"q": 1, "p": 0.3}], ["0.25..0.5"]), (1, [{"q": 9, "p": 0.3}], ["0.25..0.5"]),
    (0, [0.3, -1], ["0.25..0.5", "..0"]), (1, [[9, 0.3], [9]], ["0.25..0.5", "invalid"]),
    ("p", {"p": [0.3, 0.1]}, ["0.25..0.5", "0..0.25"]), ("p", {"p": 0.3}, ["0.25..0.5"]),
    ("p", [0.3], ["invalid"]), (1, [0.3], ["invalid"]), ("p", [{}], ["invalid"]),
    (0, 0.3, ["0.25..0.5"]), ("p", None, ["invalid"]), ("p", [], []), ("p", "text", ["invalid"]),
    (0, [{}], ["invalid"])])
def test_the_output_is_found_in_every_form_of_an_answer(output: str | int, predictions: Any,
                                                        found: list[str]) -> None:
    assert Bins(output, edges=[0, 0.25, 0.5])(predictions) == found


JSONS = st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3),
                     lambda some: st.lists(some, max_size=3) | st.dictionaries(
                         st.sampled_from(["p", "q"]), some, max_size=2), max_leaves=8)


@given(JSONS, st.sampled_from([0, 1, "p"]))
def test_whatever_an_answer_says_falls_into_a_bin_of_the_config(said: Any, output: str | int) -> None:
    for bins in (Bins(output, edges=[0.5]), Bins(output, classes=["a", 1])):
        assert set(bins(said)) <= set(bins.names)


def counts(gateway: Gateway, variant: str = "champion") -> dict[str, float]:
    return {name.partition('bin="')[2].partition('"')[0]: value
            for name, value in gateway.metrics().items()
            if name.startswith("opsdeck_predictions_total{") and f'variant="{variant}"' in name}


@pytest.mark.parametrize("logged", [True, False])
def test_a_gateway_counts_the_predictions_of_good_answers_with_and_without_a_log(
        home: Path, gateways: Callable[..., Gateway], variants: Callable[..., ScriptedVariant],
        logged: bool) -> None:
    good = [json.dumps({"predictions": [{"p": value} for value in values]})
            for values in ([0.1, 0.6], [0.7], [None])]
    said = iter([*(response(200, body) for body in good), response(200, "nothing"),
                 response(500, '{"predictions": [{"p": 0.1}]}'),
                 response(200, json.dumps({"predictions": [{"p": 0.1}] * 10_000}))])
    log = {"prediction_log": {"path": str(home / "log" / "predictions.jsonl")}} if logged else {}
    gateway = gateways(home, {"champion": variants(lambda _: next(said)).port, "challenger": 1},
                       prediction_bins={"output": "p", "edges": [0.5]}, **log)
    assert counts(gateway) == counts(gateway, "challenger") == {"..0.5": 0, "0.5..": 0, "invalid": 0}
    for _ in range(6):
        gateway.post()
    wait_for(lambda: sum(counts(gateway).values()) >= 5, "five predictions")
    assert not logged or len(gateway.records(6)) == 6
    assert counts(gateway) == {"..0.5": 1, "0.5..": 2, "invalid": 2}
