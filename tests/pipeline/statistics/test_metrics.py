"""Each metric is scikit-learn's; resampled values are those of the resampled rows; bad input is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from engine.errors import UsageError
from engine.pipeline.statistics.labelled import Labelled, labelled
from engine.pipeline.statistics.metrics import find, measure, names, primary
from engine.pipeline.statistics.plans import value

RNG = np.random.default_rng(20_261_124)


def binary(n: int = 400, *, tied: bool = True, weights: bool = False, groups: bool = False) -> Labelled:
    rng = np.random.default_rng(n)
    labels = rng.random(n) < 0.3
    scores = np.clip(rng.normal(0.3 + 0.2 * labels, 0.2), 0.01, 0.99)
    return labelled("binary", labels, np.round(scores, 2) if tied else scores,
                    weights=rng.exponential(size=n) if weights else None,
                    groups=rng.integers(0, n // 5, n) if groups else None)


def multiclass(n: int = 300, weights: bool = False) -> Labelled:
    rng = np.random.default_rng(n)
    labels = rng.integers(0, 4, n)
    raw = rng.random((n, 4)) + 0.6 * np.eye(4)[labels]
    return labelled("multiclass", labels, raw / raw.sum(axis=1, keepdims=True),
                    weights=rng.exponential(size=n) if weights else None)


def regression(n: int = 200, weights: bool = False) -> Labelled:
    rng = np.random.default_rng(n)
    labels = rng.normal(100, 10, n)
    return labelled("regression", labels, labels + rng.normal(0, 3, n),
                    weights=rng.exponential(size=n) if weights else None)


def ranked(queries: int = 40, tied: bool = False) -> Labelled:
    rng = np.random.default_rng(queries)
    query = np.repeat(np.arange(queries), rng.integers(2, 15, queries))
    scores = rng.random(len(query))
    return labelled("ranking", rng.integers(0, 4, len(query)), np.round(scores, 1) if tied else scores,
                    groups=[f"q{q:03}" for q in query])


OF_BINARY = {
    "log_loss": lambda y, s, w: sk.log_loss(y, s, sample_weight=w),
    "brier": lambda y, s, w: sk.brier_score_loss(y, s, sample_weight=w),
    "roc_auc": lambda y, s, w: sk.roc_auc_score(y, s, sample_weight=w),
    "pr_auc": lambda y, s, w: sk.average_precision_score(y, s, sample_weight=w),
    "accuracy": lambda y, s, w: sk.accuracy_score(y, s >= 0.5, sample_weight=w),
    "balanced_accuracy": lambda y, s, w: sk.balanced_accuracy_score(y, s >= 0.5, sample_weight=w),
    "f1": lambda y, s, w: sk.f1_score(y, s >= 0.5, sample_weight=w),
    "precision": lambda y, s, w: sk.precision_score(y, s >= 0.5, sample_weight=w),
    "recall": lambda y, s, w: sk.recall_score(y, s >= 0.5, sample_weight=w),
}


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("name", names("binary"))
def test_a_binary_metric_is_scikit_learns(name, weights):
    data = binary(weights=weights)
    assert measure(name, data) == pytest.approx(OF_BINARY[name](data.labels, data.scores, data.weights))


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("name, of", [
    ("log_loss", lambda y, s, w: sk.log_loss(y, s, sample_weight=w)),
    ("brier", lambda y, s, w: sk.brier_score_loss(y, s, sample_weight=w)),
    ("accuracy", lambda y, s, w: sk.accuracy_score(y, s.argmax(1), sample_weight=w)),
    ("balanced_accuracy", lambda y, s, w: sk.balanced_accuracy_score(y, s.argmax(1), sample_weight=w)),
    ("f1", lambda y, s, w: sk.f1_score(y, s.argmax(1), average="macro", sample_weight=w)),
    ("roc_auc", lambda y, s, w: sk.roc_auc_score(y, s, multi_class="ovr", sample_weight=w)),
    ("pr_auc", lambda y, s, w: sk.average_precision_score(np.eye(4)[y.astype(int)], s, sample_weight=w)),
])
def test_a_multiclass_metric_is_scikit_learns(name, of, weights):
    data = multiclass(weights=weights)
    assert measure(name, data) == pytest.approx(of(data.labels, data.scores, data.weights))


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("name, of", [
    ("rmse", sk.root_mean_squared_error), ("mae", sk.mean_absolute_error), ("mse", sk.mean_squared_error),
    ("r2", sk.r2_score)])
def test_a_metric_of_quantities_is_scikit_learns(name, of, weights):
    data = regression(weights=weights)
    assert measure(name, data) == pytest.approx(of(data.labels, data.scores, sample_weight=data.weights))


def each_query(data: Labelled):
    for query in range(data.units):
        rows = data.groups == query
        if data.labels[rows].any():
            yield data.labels[rows], data.scores[rows]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("k", [None, 1, 3, 10])
def test_ndcg_is_scikit_learns_mean_over_queries_ties_too(k, tied):
    data = ranked(tied=tied)
    wanted = np.mean([sk.ndcg_score([y], [s], k=k) for y, s in each_query(data)])
    assert measure(f"ndcg@{k}" if k else "ndcg", data) == pytest.approx(wanted)


@pytest.mark.parametrize("tied", [False, True])
def test_map_is_scikit_learns_label_ranking_average_precision_ties_too(tied):
    data = ranked(tied=tied)
    wanted = np.mean([sk.label_ranking_average_precision_score([y > 0], [s]) for y, s in each_query(data)])
    assert measure("map", data) == pytest.approx(wanted)


def naive_at(labels, scores, k):
    """Average precision and reciprocal rank at k, by walking down the list; no ties."""
    order = np.argsort(-scores)[:k]
    hits, total, first = 0, 0.0, 0.0
    for rank, row in enumerate(order, 1):
        if labels[row] > 0:
            hits += 1
            total += hits / rank
            first = first or 1 / rank
    return total / min(k, (labels > 0).sum()), first


@pytest.mark.parametrize("k", [1, 3, 5])
def test_map_and_mrr_at_a_depth_are_what_walking_down_the_list_gives(k):
    data = ranked()
    wanted = np.mean([naive_at(y, s, k) for y, s in each_query(data)], axis=0)
    assert [measure(f"map@{k}", data), measure(f"mrr@{k}", data)] == pytest.approx(wanted)


def test_a_model_that_scores_all_alike_gets_no_credit_for_the_files_order():
    best_first = labelled("ranking", [1, 0, 0, 0], [0.5] * 4, groups=[0] * 4)
    assert (measure("mrr", best_first), measure("map", best_first)) == (0.25, 0.25)
    assert measure("ndcg", best_first) == pytest.approx(np.mean(1 / np.log2(np.arange(2, 6))))


def test_a_query_without_a_relevant_row_counts_nowhere():
    data = labelled("ranking", [1, 0, 0, 0], [2, 1, 2, 1], groups=["a", "a", "b", "b"])
    assert [measure(name, data) for name in ("ndcg", "map", "mrr")] == [1, 1, 1]


@pytest.mark.parametrize("data", [
    binary(60), binary(60, weights=True), binary(60, groups=True), binary(60, weights=True, groups=True),
    multiclass(60), multiclass(60, weights=True), regression(60), regression(60, weights=True)],
    ids=["binary", "weighted", "grouped", "both", "multiclass", "multiclass weighted", "regression",
         "regression weighted"])
def test_a_resampled_value_is_the_metric_of_the_rows_taken_so_often(data):
    """The counts of a plan mean what repeating the rows means, for every metric."""
    rng = np.random.default_rng(1)
    counts = rng.integers(0, 4, (5, data.units)).astype(float)
    for name in names(data.task):
        plan = find(name, data.task).plan(data)
        for each, found in zip(counts, plan.values(counts), strict=True):
            times = each if data.groups is None else each[data.groups]
            taken = np.repeat(np.arange(len(data)), times.astype(int))
            rows = labelled(data.task, data.labels[taken], data.scores[taken], classes=data.classes,
                            weights=None if data.weights is None else data.weights[taken])
            assert found == pytest.approx(value(find(name, data.task).plan(rows))), name


def test_a_resampled_ranking_takes_whole_queries():
    data = ranked(8)
    counts = np.array([[2, 0, 1, 1, 0, 3, 1, 0]], dtype=float)
    each = [measure("ndcg", data.only(data.groups == q)) for q in range(8)]
    assert find("ndcg", "ranking").plan(data).values(counts)[0] == pytest.approx(
        np.average(each, weights=counts[0]))


pairs = st.lists(st.tuples(st.booleans(), st.integers(0, 10).map(lambda v: v / 10)), min_size=2, max_size=40)


@settings(max_examples=60, deadline=None)
@given(pairs)
def test_auc_turned_round_is_its_complement_and_counts_pairs(rows):
    labels, scores = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    if labels.all() or not labels.any():
        return
    forward = measure("roc_auc", labelled("binary", labels, scores))
    assert forward + measure("roc_auc", labelled("binary", labels, 1 - scores)) == pytest.approx(1)
    of = np.subtract.outer(scores[labels], scores[~labels])
    assert forward == pytest.approx(np.mean((of > 0) + (of == 0) / 2))


@settings(max_examples=60, deadline=None)
@given(pairs, st.randoms(use_true_random=False))
def test_no_metric_depends_on_the_order_of_the_rows(rows, random):
    shuffled = rows.copy()
    random.shuffle(shuffled)
    for name in names("binary"):
        found = []
        for some in (rows, shuffled):
            data = labelled("binary", [r[0] for r in some], [r[1] for r in some])
            found.append(value(find(name, "binary").plan(data)))
        assert found[0] == pytest.approx(found[1], nan_ok=True)


@pytest.mark.parametrize("task, labels, scores, more, said", [
    ("binary", [], [], {}, "there are no rows to measure"),
    ("binary", [0, 1, 1], [0.5, 0.5], {}, "there are 3 labels and 2 scores"),
    ("binary", [0, float("nan")], [0.5, 0.5], {}, "the label of row 1 is NaN, and of 1 of 2 rows"),
    ("binary", ["no", None], [0.5, 0.5], {"classes": ["no", "yes"]}, "row 1 has no label"),
    ("binary", ["no", "maybe"], [0.5, 0.5], {"classes": ["no", "yes"]},
     "the label of row 1 is maybe, which is no class"),
    ("binary", [0, 1], [0.5, float("nan")], {}, "the score of row 1 is NaN, and of 1 of 2 rows"),
    ("binary", [0, 1], [0.5, float("inf")], {}, "the score of row 1 is infinite"),
    ("binary", [0, 1], [0.5, 3.2], {}, "the score of row 1 is no probability: 3.2"),
    ("binary", [0, 2], [0.5, 0.5], {}, "the label of row 1 is 2"),
    ("binary", [0, 1], ["a", "b"], {}, "the scores are not numbers"),
    ("binary", [0, 1], [0.5, 0.5], {"weights": [1, -1]}, "the weight of row 1 is -1"),
    ("binary", [0, 1], [0.5, 0.5], {"weights": [0, 0]}, "every weight is 0"),
    ("binary", [0, 1], [0.5, 0.5], {"weights": [1, float("nan")]}, "the weight of row 1 is NaN"),
    ("binary", [0, 1], [0.5, 0.5], {"groups": ["a", None]}, "the group of row 1 is not known"),
    ("binary", [0, 1], [0.5, 0.5], {"groups": ["a"]}, "there are 2 rows and 1 groups"),
    ("binary", [0, 1], [0.5, 0.5], {"threshold": 1.5}, "a threshold lies between 0 and 1"),
    ("multiclass", [0, 1], [[0.5, 0.5], [0.5, 0.1]], {}, "the probabilities of row 1 add up to 0.6"),
    ("multiclass", [0, 1], [0.5, 0.5], {}, "a column for each class"),
    ("ranking", [0, 1], [0.5, 0.5], {}, "a ranking needs the query of each row"),
    ("ranking", [0, -1], [0.5, 0.5], {"groups": [0, 0]}, "the label of row 1 is -1"),
    ("survival", [0, 1], [0.5, 0.5], {}, "there is no task survival"),
])
def test_what_cannot_be_measured_is_refused_in_a_sentence(task, labels, scores, more, said):
    with pytest.raises(UsageError, match=said) as refused:
        labelled(task, labels, scores, **more)
    assert refused.value.hint or task


@pytest.mark.parametrize("name, said", [
    ("roc_auc", "roc_auc needs rows of every class, and of class 1 there is none among 3"),
    ("pr_auc", "of class 1 there is none"), ("recall", "it would divide by 0"),
    ("log_los", "there is no metric")])
def test_a_metric_that_one_class_cannot_give_says_so(name, said):
    with pytest.raises(UsageError, match=said):
        measure(name, labelled("binary", [0, 0, 0], [0.1, 0.6, 0.3]))


def test_the_r2_of_one_value_and_a_ranking_without_relevance_are_undefined():
    with pytest.raises(UsageError, match="every label is 5"):
        measure("r2", labelled("regression", [5, 5], [4, 6]))
    with pytest.raises(UsageError, match="no row is relevant"):
        measure("ndcg@10", labelled("ranking", [0, 0], [4, 6], groups=[1, 1]))


def test_every_task_has_a_metric_it_is_judged_by():
    assert [find(primary(task), task).name for task in ("binary", "multiclass", "regression", "ranking")] == [
        "log_loss", "log_loss", "rmse", "ndcg@10"]
    assert find("log_loss", "binary").better == "lower" and find("ndcg@10", "ranking").better == "higher"


def test_a_certain_mistake_costs_36_nats_not_infinity():
    assert measure("log_loss", labelled("binary", [1, 0], [0.0, 0.0])) == pytest.approx(36.04 / 2, abs=0.01)
