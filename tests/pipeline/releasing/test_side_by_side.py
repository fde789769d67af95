"""Two versions side by side: what was measured of both, and what of neither. Pure."""

from __future__ import annotations

from typing import Any

from engine.cli import models
from engine.pipeline.releasing import side_by_side

RESULT = {"champion": {"name": "late", "version": "1"}, "metrics": [
    {"metric": "log_loss", "champion": 0.5, "challenger": 0.4, "gain": 0.1},
    {"metric": "roc_auc", "champion": None, "challenger": None, "why": "one class"}]}


def entry(version: str, metrics: dict[str, float], compared: str | None = None) -> dict[str, Any]:
    return {"reference": version, "name": "late", "version": version, "aliases": [], "mlflow_run": "f" * 32,
            "run": "14", "by": "ann", "began": None, "ended": None, "status": "FINISHED", "outcome": None,
            "parameters": {}, "metrics": metrics, "compared": side_by_side.told(compared), "sources": {}}


def shown(a: dict[str, Any], b: dict[str, Any]) -> str:
    return "\n".join(models._lines(a, b, side_by_side.compare(a, b), everything=False))


def test_figures_of_the_comparison_stage_are_shown_where_no_metric_is_common() -> None:
    first = entry("1", {"auc_train": 0.8})
    second = entry("2", {"eval.log_loss": 0.4}, side_by_side.on_the_same_rows(RESULT))
    found = side_by_side.compare(first, second)
    [line] = found.compared
    assert (line.name, line.a, line.b, found.on) == ("log_loss", 0.5, 0.4, "14")
    assert abs(line.difference or 0.0) == 0.5 - 0.4
    [back] = side_by_side.compare(second, first).compared
    assert (back.a, back.b) == (0.4, 0.5)
    said = shown(first, second)
    assert "Measured on the same rows by run 14:" in said
    assert "No metric was measured of both: A has auc_train; B has eval.log_loss." in said


def test_without_a_comparison_it_is_said_which_metrics_each_has() -> None:
    first, second = entry("1", {"auc_train": 0.8}), entry("3", {}, side_by_side.on_the_same_rows(
        {**RESULT, "champion": {"name": "late", "version": "2"}}))
    said = shown(first, second)
    assert "No metric was measured of both: A has auc_train; B has none." in said
    assert "Measured on the same rows" not in said and "beside the champion" in said
    assert side_by_side.compare(first, entry("2", {"auc_train": 0.7})).lacking == ""


def test_a_tag_that_is_not_ours_and_a_first_model_say_nothing() -> None:
    assert side_by_side.on_the_same_rows({"champion": None, "metrics": []}) is None
    assert [side_by_side.told(text) for text in (None, "", "3", "{}", "no json")] == [None] * 5
    many = {**RESULT, "metrics": [{"metric": f"m{at}" * 20, "champion": 0.1, "challenger": 0.2}
                                  for at in range(300)]}
    tag = side_by_side.on_the_same_rows(many)
    assert tag is not None and len(tag) <= side_by_side.LONGEST and side_by_side.told(tag) is not None
