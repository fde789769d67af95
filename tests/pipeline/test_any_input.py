"""Whatever is given, there is an answer or a sentence: never a traceback, a warning or half an interval."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import DocumentError, UsageError
from engine.pipeline.robustness import case_files
from engine.pipeline.statistics.comparison import compare
from engine.pipeline.statistics.evaluation import evaluate
from engine.pipeline.statistics.evidence import paired
from engine.pipeline.statistics.gates import NonInferiority, Segments
from engine.pipeline.statistics.labelled import labelled

pytestmark = pytest.mark.filterwarnings("error")
TASKS = ["binary", "multiclass", "regression", "ranking"]
odd = st.one_of(st.none(), st.booleans(), st.integers(-3, 5), st.floats(), st.text(max_size=3),
                st.lists(st.floats(0, 1), max_size=3))
column = st.one_of(odd, st.lists(odd, max_size=6))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([*TASKS, "x"]), column, column, st.one_of(st.none(), column),
       st.sampled_from([(), ("a", "b"), ("a", "a"), ("a",)]), st.one_of(st.none(), column))
def test_rows_are_taken_or_refused(task, labels, scores, weights, classes, groups):
    with contextlib.suppress(UsageError):
        labelled(task, labels, scores, weights=weights, classes=classes, groups=groups)


@st.composite
def models(draw):
    """Two models' rows of any task, few and full of ties, with weights of 0 and groups in some."""
    task, n = draw(st.sampled_from(TASKS)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    classes = draw(st.integers(2, 4)) if task == "multiclass" else 2
    labels = rng.integers(0, draw(st.integers(1, classes)), n)
    grain = draw(st.sampled_from([2, 5, 1000]))
    weights = rng.integers(0, 3, n) if draw(st.booleans()) else None
    if weights is not None and not weights.any():
        weights = None
    groups = rng.integers(0, 6, n) if task == "ranking" or draw(st.booleans()) else None
    made = []
    for _ in range(2):
        raw = rng.integers(0, grain + 1, (n, classes)) + 0.25 * (task == "multiclass")
        scores = raw / raw.sum(axis=1, keepdims=True) if task == "multiclass" else raw[:, 0] / grain
        made.append(labelled(task, labels, scores, weights=weights, groups=groups))
    return made


@settings(max_examples=25, deadline=None)
@given(models())
def test_every_metric_has_a_value_with_an_interval_or_a_reason(pair):
    first, second = pair
    halves = {"odd": np.arange(len(first)) % 2 == 0} if first.task != "ranking" else None
    found = evaluate(first, rng=np.random.default_rng(0), resamples=100, segments=halves)
    for one in [*found.metrics, *(m for part in found.segments for m in part.metrics)]:
        assert one.why or (one.low <= one.high and np.isfinite([one.value, one.low, one.high]).all()), one
    gates = [NonInferiority(metric=one.metric, margin=0.1) for one in found.metrics]
    if halves:
        gates.append(Segments(metric=gates[0].metric, margin=0.1))
    pair = paired(first, second)
    verdict = compare(pair, gates, rng=np.random.default_rng(0), segments=halves, resamples=100)
    for one in verdict.comparisons:
        assert one.why or one.low <= one.high, one
    for gate in verdict.gates:
        assert gate.says.endswith(".") and ".." not in gate.says
        assert "nan" not in gate.says and "None" not in gate.says


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 500), st.integers(0, 40),
       st.text(st.sampled_from("abc:{}[]- \n\t'\"#0.7&*!\x00é"), max_size=8))
def test_a_case_file_however_damaged_is_read_or_refused(tmp_path, at, cut, put):
    folder = tmp_path / "cases"
    path = folder / "a.yaml"
    if not path.exists():
        case_files.add(folder, "a", pa.table({"x": [1.0]}), [{"kind": "called", "as": 1}], title="t", why="w",
                       source="s", by="m", now=datetime(2026, 11, 24, tzinfo=UTC))
        path.with_suffix(".whole").write_text(path.read_text())
    whole = path.with_suffix(".whole").read_text()
    path.write_text(whole[:at] + put + whole[at + cut:])
    try:
        case_files.read(folder)
    except DocumentError as refused:
        assert all("a.yaml" in one for one in refused.problems)
