"""Two runs beside each other: what differs, which recorded field comes first, and whether it explains it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.reproduce.parts import Artifact, Dataset, Derivation
from engine.reproduce.verify import Tolerance, Tolerances, verify
from tests.reproduce.manifests import changed, made

numbers = st.floats()
REACHES = [
    ("code.commit", "9" * 40, "code", True), ("code.dirty", "9" * 64, "code", True),
    ("data.flights.sha256", "9" * 64, "data", True), ("config.trees", 200, "configuration", True),
    ("seeds.training", 8, "seeds", True), ("lock.sha256", "9" * 64, "lock", True),
    ("environment.packages.numpy", "2.0.0", "packages", True),
    ("image.digest", "sha256:9", "image", True),
    ("environment.python.version", "3.11.8", "Python", True),
    ("environment.variables.PYTHONHASHSEED", "8", "hash seed", True),
    ("environment.variables.MKL_CBWR", "AVX2", "variables", False),
    ("environment.threads.OMP_NUM_THREADS", "4", "threads", False),
    ("environment.blas.blas.version", "0.3.30", "BLAS", False),
    ("environment.gpus", [], "GPU", False), ("environment.cpu.model", "EPYC", "CPU", False),
    ("environment.system.libc", "glibc 2.41", "system", False),
]


def test_a_run_is_identical_to_itself() -> None:
    found = verify(made(), made())
    assert found.verdict == "identical" and found.reproduced and found.explained is None
    assert not found.differences and {one.status for one in found.results} == {"equal"}
    assert found.sentence == "All 4 results are the same."


@pytest.mark.parametrize(("path", "value", "topic", "everything"), REACHES)
def test_each_field_explains_what_it_can_reach(path: str, value: Any, topic: str, everything: bool) -> None:
    other = changed(changed(made(), path, value), "metrics.auc", 0.5)
    found = verify(made(), other)
    assert found.first is not None and (found.first.path, found.first.topic) == (path, topic)
    assert found.verdict == "different" and found.explained is everything
    assert path in found.sentence


@pytest.mark.parametrize(("path", "value"), [(path, value) for path, value, _, every in REACHES if not every])
def test_another_order_of_additions_explains_last_digits_and_checksums(path: str, value: Any) -> None:
    other = changed(changed(changed(made(), path, value), "metrics.auc", 0.75 + 1e-9),
                    "artifacts.model.payload", "0" * 64)
    found = verify(made(), other)
    assert found.verdict == "different" and found.explained is True
    assert found.first is not None and set(found.first.explains) == {"checksum model", "metric auc"}
    assert "which explains it" in found.sentence


def test_a_difference_that_nothing_recorded_explains_is_said_to_be_that() -> None:
    found = verify(made(), changed(made(), "metrics.auc", 0.5))
    assert found.first is None and found.explained is False
    assert "nothing that was recorded explains it" in found.sentence


def test_names_and_times_explain_nothing() -> None:
    other = changed(changed(changed(made(), "run.id", "train-2"), "environment.system.kernel", "Linux 7"),
                    "data.flights.uri", "file:///elsewhere/flights.parquet")
    assert verify(made(), other).verdict == "identical"
    found = verify(made(), changed(other, "loss", 0.9))
    assert found.first is None and found.explained is False
    assert {one.reach for one in found.differences} == {"nothing"}


def test_data_comes_before_seeds_before_the_commit_that_holds_them_before_threads() -> None:
    one = made()
    for path, value in (("environment.threads.OMP_NUM_THREADS", "1"), ("code.commit", "0" * 40),
                        ("seeds.training", 8), ("data.flights.sha256", "0" * 64)):
        one = changed(one, path, value)
        found = verify(made(), one)
        assert found.first is not None and found.first.path == path
    assert [each.topic for each in found.differences] == ["data", "seeds", "code", "threads"]


def test_a_report_is_not_compared_for_it_holds_how_long_things_took() -> None:
    one, other = (made(artifacts={"model": Artifact("e" * 64, 100, "f" * 64, "model"),
                                  "evaluation.json": Artifact(digit * 64, 9, None, "report")})
                  for digit in "12")
    found = verify(one, other)
    assert found.verdict == "identical" and "evaluation.json" not in {each.name for each in found.results}


@pytest.mark.parametrize("field", ["config.train.limits.timeout", "config.staging.p99_ms", "config.title"])
def test_settings_that_no_result_depends_on_explain_none(field: str) -> None:
    found = verify(changed(made(), field, "one"), changed(changed(made(), field, "other"), "loss", 9.0))
    assert found.explained is False and found.first is None


def test_gates_judge_and_explain_no_result() -> None:
    other = changed(changed(made(), "config.gates", ["other"]), "code.commit", "0" * 40)
    found = verify(made(), changed(other, "loss", 9.0))
    assert found.first is not None and found.first.path == "code.commit"


def test_data_that_was_made_otherwise_and_came_out_the_same_is_the_same_data() -> None:
    one, other = (made(data={"rows": Dataset("derived:p", "derived", sha256, derived=Derivation(
        code * 64, {}, ["python"]))}, loss=loss) for sha256, code, loss in (
            ("d" * 64, "1", 0.25), ("d" * 64, "2", 9.0)))
    found = verify(one, other)
    assert found.first is None and found.explained is False


def test_a_first_difference_that_explains_too_little_is_named_beside_the_one_that_does() -> None:
    other = changed(changed(made(), "environment.cpu.model", "EPYC"), "metrics.auc", 0.5)
    found = verify(made(), other)
    assert found.explained is False and "does not explain it all" in found.sentence


def test_a_field_of_a_later_version_leaves_the_explanation_open() -> None:
    other = changed(changed(made(), "environment.quantum", "on"), "metrics.auc", 0.5)
    found = verify(made(), other)
    assert found.explained is None and "cannot be said" in found.sentence
    assert found.differences[0].reach == "unknown"


def test_a_data_set_that_only_one_run_had_explains_everything() -> None:
    other = made(data={"flights": Dataset("data/flights.parquet", "file", "d" * 64, bytes=10, files=1),
                       "weather": Dataset("s3://b/w", "s3", version="1")}, loss=0.5)
    found = verify(made(), other)
    assert found.first is not None and found.first.path == "data.weather" and found.explained


def test_a_model_is_compared_by_its_payload_and_other_files_by_their_bytes() -> None:
    other = changed(made(), "artifacts.model.sha256", "0" * 64)
    assert verify(made(), other).verdict == "identical"
    plain = made(artifacts={"report": Artifact("1" * 64, 1)})
    assert verify(plain, made(artifacts={"report": Artifact("2" * 64, 1)})).verdict == "different"


def test_an_artifact_or_metric_that_only_one_run_has_is_missing() -> None:
    found = verify(made(), made(artifacts={}, metrics={"auc": 0.75}))
    missing = {one.key for one in found.results if one.status == "missing"}
    assert missing == {"checksum model", "metric log_loss"}
    assert found.verdict == "different"


def test_tolerances_are_by_metric_and_checksums_can_be_left_out() -> None:
    other = changed(changed(made(), "metrics.auc", 0.7501), "artifacts.model.payload", "0" * 64)
    given = Tolerances(metrics={"auc": Tolerance(absolute=1e-3)}, checksums=False)
    assert verify(made(), other, given).verdict == "within tolerance"
    assert verify(made(), other, replace(given, checksums=True)).verdict == "different"
    assert verify(made(), other, replace(given, metrics={})).verdict == "different"


def test_the_final_loss_has_a_tolerance_of_its_own() -> None:
    other = changed(made(), "loss", 0.2501)
    assert not verify(made(), other).reproduced
    assert verify(made(), other, Tolerances(loss=Tolerance(relative=1e-3))).reproduced


def test_a_metric_that_is_nan_in_both_runs_is_equal_and_in_one_is_not() -> None:
    nan = made(metrics={"auc": math.nan})
    assert verify(nan, nan).verdict == "identical"
    assert verify(nan, made(metrics={"auc": 0.5}), Tolerances(default=Tolerance(9, 9))).verdict == "different"


def test_without_results_there_is_nothing_to_compare() -> None:
    bare = made(artifacts={}, metrics={}, loss=None)
    assert verify(bare, bare).verdict == "nothing to compare" and not verify(bare, bare).reproduced


def test_a_metric_whose_name_has_dots_and_one_called_as_a_field_are_only_metrics() -> None:
    one, other = made(metrics={"code.commit": 1.0}), made(metrics={"code.commit": 2.0})
    found = verify(one, other)
    assert found.first is None and [each.name for each in found.results if each.status == "differs"] == [
        "code.commit"]


@pytest.mark.parametrize(("a", "b", "tolerance", "holds"), [
    (100.0, 110.5, Tolerance(relative=0.1), True), (110.5, 100.0, Tolerance(relative=0.1), True),
    (100.0, 112.0, Tolerance(relative=0.1), False), (0.0, 1e-9, Tolerance(relative=0.1), False),
    (0.0, 1e-9, Tolerance(absolute=1e-8), True), (-1.0, 1.0, Tolerance(absolute=1.9), False),
    (math.inf, math.inf, Tolerance(), True), (math.inf, 1.0, Tolerance(9, 9), False),
    (1.0, 1.0 + 2**-52, Tolerance(), False)])
def test_a_tolerance_is_of_the_larger_number_or_absolute(a: float, b: float, tolerance: Tolerance,
                                                         holds: bool) -> None:
    assert tolerance.holds(a, b) is holds


def test_a_field_of_data_that_is_not_known_leaves_it_open_too() -> None:
    found = verify(made(), changed(changed(made(), "data.flights.shards", 9), "loss", 9.0))
    assert found.explained is None and found.differences[0].reach == "unknown"


@given(numbers, numbers, st.floats(0, 1), st.floats(0, 1))
def test_a_tolerance_is_symmetric_and_a_wider_one_holds_at_least_as_much(
        a: float, b: float, narrow: float, wide: float) -> None:
    narrow, wide = sorted((narrow, wide))
    assert Tolerance(narrow, narrow).holds(a, b) == Tolerance(narrow, narrow).holds(b, a)
    if Tolerance(narrow, narrow).holds(a, b):
        assert Tolerance(wide, wide).holds(a, b)


@given(st.dictionaries(st.sampled_from(["auc", "rmse"]), numbers),
       st.dictionaries(st.sampled_from(["auc", "rmse"]), numbers),
       st.sampled_from(REACHES), st.none() | numbers, st.floats(0, 1))
def test_the_verdict_does_not_depend_on_which_run_comes_first(
        a: dict[str, float], b: dict[str, float], reach: Any, loss: float | None, wide: float) -> None:
    one, other = made(metrics=a, loss=loss), changed(made(metrics=b), reach[0], reach[1])
    given_tolerances = Tolerances(Tolerance(wide, wide))
    there, back = verify(one, other, given_tolerances), verify(other, one, given_tolerances)
    assert (there.verdict, there.explained) == (back.verdict, back.explained)
    assert [each.path for each in there.differences] == [each.path for each in back.differences]
    assert there.sentence and "\n" not in there.sentence
