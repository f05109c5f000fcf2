"""Scorers read each column of probabilities as that of its class."""

import pickle
from inspect import signature

import numpy as np
import pytest
from sklearn import metrics
from sklearn.metrics import get_scorer, make_scorer

from sknas._scoring.class_labels import reads_probabilities, with_classes
from sknas._scoring.metrics import find_metric
from sknas._scoring.scorer import RowScorer

N = 40
CLASSES = {
    "two numbers": np.array([0, 1]),
    "two others": np.array([1, 2]),
    "two words": np.array(["a", "b"]),
    "numbers": np.arange(3),
    "words": np.array(["a", "b", "c"]),
}
PROBABILITY = ["neg_log_loss", "top_k_accuracy", "roc_auc_ovr_weighted", "roc_auc_ovo"]
if "labels" in signature(metrics.brier_score_loss).parameters:
    PROBABILITY.append("neg_brier_score")


def proba(metric, **options):
    return make_scorer(metric, response_method="predict_proba", **options)


OWN = {
    "log loss": proba(metrics.log_loss, greater_is_better=False),
    "top 1": proba(metrics.top_k_accuracy_score, k=1),
    "precision": proba(metrics.average_precision_score, average="weighted"),
}


def score_rows(scorer, classes, rows, y, p):
    """Return the score of some rows, by scikit-learn and for many networks at once."""
    kind = "binary" if len(classes) == 2 else "multiclass"
    metric = find_metric(scorer, kind, classes)
    by_row = RowScorer(scorer, None, classes[y], np.ones(N), classes, metric, y)
    one = by_row.score(p[rows], rows)
    many = by_row.score_many(p[None, rows], rows)[0]
    assert many == pytest.approx(one.value, nan_ok=True)
    return one


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("scoring", [*PROBABILITY, "log loss", "top 1"])
def test_rows_may_lack_a_class(scoring, name, rng):
    classes, scorer = CLASSES[name], OWN.get(scoring) or get_scorer(scoring)
    y = np.arange(N) % len(classes)
    p = rng.dirichlet(np.ones(len(classes)), N)
    for lacking in range(len(classes)):
        rows = np.flatnonzero(y != lacking)
        value, reason, _ = score_rows(scorer, classes, rows, y, p)
        if "roc" in scoring and len(classes) == 2:
            assert np.isnan(value)
            continue
        assert np.isfinite(value) and not reason
        if "log" in scoring:
            assert value == pytest.approx(np.log(p[rows, y[rows]]).mean())
        elif scoring == "top 1":
            assert value == (p[rows].argmax(1) == y[rows]).mean()


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("scoring", [*PROBABILITY, *OWN])
def test_classes_do_not_change_the_score_of_rows_that_have_all(scoring, name, rng):
    classes, scorer = CLASSES[name], OWN.get(scoring) or get_scorer(scoring)
    y = np.arange(N) % len(classes)
    p = rng.dirichlet(np.ones(len(classes)), N)
    informed = with_classes(scorer, classes)
    plain = RowScorer(scorer, None, classes[y], np.ones(N), classes)
    plain.scorer = scorer
    want = plain.score(p, np.arange(N))
    plain.scorer = informed
    found = plain.score(p, np.arange(N))
    if want.reason:  # it needs a positive label, and asks for it
        assert name == "two words" or (scoring == "precision" and name == "two others")
    else:
        assert found == want


def test_average_precision_of_a_class_without_rows_is_zero(rng):
    y, classes = np.arange(N) % 3, CLASSES["words"]
    p = rng.dirichlet(np.ones(3), N)
    rows = np.flatnonzero(y != 2)
    scorer = get_scorer("average_precision")
    value = score_rows(scorer, classes, rows, y, p).value
    each = [metrics.average_precision_score(y[rows] == c, p[rows, c]) for c in (0, 1)]
    assert value == pytest.approx(sum(each) / 3)


@pytest.mark.parametrize("name", ["f1_macro", "accuracy", "neg_mean_squared_error"])
def test_scorers_of_labels_and_values_are_unchanged(name):
    scorer = get_scorer(name)
    assert with_classes(scorer, np.arange(3)) is scorer
    assert with_classes(scorer, None) is scorer


def own(y_true, y_score, labels=None):
    return float(labels is None)


def test_other_metrics_and_arguments_are_unchanged():
    scorer = proba(own)
    assert with_classes(scorer, np.arange(3)) is scorer
    assert with_classes(own, np.arange(3)) is own
    scorer = proba(metrics.log_loss, labels=[2, 1, 0])
    assert with_classes(scorer, np.arange(3))._kwargs["labels"] == [2, 1, 0]
    scorer = get_scorer("roc_auc")
    assert with_classes(scorer, [np.arange(2)] * 3) is scorer


def test_a_class_may_be_called_like_a_method(rng):
    informed = with_classes(OWN["log loss"], np.array(["predict", "x"]))
    assert reads_probabilities(informed)
    assert pickle.loads(pickle.dumps(informed))._kwargs["labels"].tolist() == [
        "predict",
        "x",
    ]
