"""Scores and losses of given predictions."""

import copy
import random
import re
import warnings
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from scorers import FunctionScorer
from sklearn import metrics
from sklearn.datasets import load_iris, make_classification, make_regression
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import get_scorer, make_scorer

from sknas._data.target import softmax
from sknas._problem import Fold, Problem, Rows, TaskSpec
from sknas._scoring.folds import score_networks, score_predictions
from sknas._scoring.metrics import find_metric
from sknas._scoring.scorer import (
    LOWEST,
    RowLoss,
    RowScorer,
    as_number,
    find_scorer,
    reads_probabilities,
    takes_weight,
)
from sknas._scoring.stored import UserRows, labels
from sknas.exceptions import InvalidParameterError

BINARY = ["accuracy", "balanced_accuracy", "f1", "precision", "recall", "jaccard"]
BINARY += ["roc_auc", "average_precision", "neg_log_loss", "neg_brier_score"]
BINARY += ["matthews_corrcoef", "f1_macro"]
MULTICLASS = ["accuracy", "balanced_accuracy", "f1_macro", "f1_weighted"]
MULTICLASS += ["recall_micro", "neg_log_loss", "roc_auc_ovr", "roc_auc_ovo_weighted"]
MULTICLASS += ["top_k_accuracy"]
REGRESSION = ["r2", "neg_mean_squared_error", "neg_root_mean_squared_error"]
REGRESSION += ["neg_mean_absolute_error", "neg_median_absolute_error"]
REGRESSION += ["explained_variance", "neg_max_error"]
READ_PROBABILITIES = {
    *("neg_log_loss", "neg_brier_score", "roc_auc", "average_precision"),
    *("roc_auc_ovr", "roc_auc_ovo_weighted", "top_k_accuracy"),
}


def row_scorer(scoring, y, classes, weight=None, X=None):
    scorer = find_scorer("NASClassifier", scoring, classes is not None)
    weight = np.ones(len(y)) if weight is None else weight
    rows = None if X is None else UserRows(X, np.arange(len(y)).astype(np.uint64))
    return RowScorer(scorer, rows, y, weight, classes)


def row_score(*arguments, **options):
    """Return a row scorer as a function that returns a number."""
    scorer = row_scorer(*arguments, **options)
    return lambda *given: scorer.score(*given).value


@pytest.fixture(scope="module")
def fitted():
    """Fitted scikit-learn models: (X, y, classes, predictions, model) by kind."""
    X, y = make_classification(80, random_state=0, flip_y=0.3)
    iris, species = load_iris(return_X_y=True)
    Z, t = make_regression(80, 5, n_targets=2, noise=40, random_state=0)
    cases = {
        "binary": (X, y, LogisticRegression()),
        "multiclass": (iris[:, :2], species, LogisticRegression()),
        "regression": (Z, t[:, 0], Ridge()),
        "targets": (Z, t, Ridge()),
    }
    made = {}
    for name, (X, y, model) in cases.items():
        model.fit(X, y)
        is_classifier = hasattr(model, "classes_")
        output = model.predict_proba(X) if is_classifier else model.predict(X)
        classes = model.classes_ if is_classifier else None
        made[name] = X, y, classes, output.reshape(len(X), -1), model
    return made


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("binary", name) for name in BINARY),
        *(("multiclass", name) for name in MULTICLASS),
        *(("regression", name) for name in REGRESSION),
        *(("targets", name) for name in REGRESSION[:4]),
    ],
)
def test_score_agrees_with_scikit_learn(fitted, kind, name):
    X, y, classes, predictions, model = fitted[kind]
    score = row_score(name, y, classes)
    rows = np.arange(len(y))[::-2]
    expected = get_scorer(name)(model, X[rows], y[rows])
    assert score(predictions[rows], rows) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("accuracy", lambda y, p: metrics.accuracy_score(y, p > 0.5)),
        ("f1_micro", lambda y, p: metrics.f1_score(y, p > 0.5, average="micro")),
        ("roc_auc", metrics.roc_auc_score),
        ("average_precision", metrics.average_precision_score),
    ],
)
def test_multilabel_scores_agree_with_scikit_learn(name, metric, rng):
    y, p = rng.integers(0, 2, (50, 3)), rng.random((50, 3))
    score = row_score(name, y, [np.array([0, 1])] * 3)
    assert score(p, np.arange(50)) == pytest.approx(metric(y, p))


@pytest.mark.parametrize("name", ["accuracy", "roc_auc", "neg_log_loss"])
def test_classes_may_be_strings(fitted, name):
    _, y, _, predictions, _ = fitted["binary"]
    words = np.array(["a", "b"])
    rows = np.arange(len(y))
    score = row_score(name, words[y], words)(predictions, rows)
    assert score == row_score(name, y, np.array([0, 1]))(predictions, rows)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("binary", name) for name in BINARY),
        *(("multiclass", name) for name in MULTICLASS),
        *(("regression", name) for name in REGRESSION),
    ],
)
def test_a_weight_is_a_repetition(fitted, kind, name, rng):
    _, y, classes, predictions, _ = fitted[kind]
    weight = rng.integers(1, 4, len(y))
    repeated = np.repeat(np.arange(len(y)), weight)
    rows = np.arange(len(y))
    one = row_score(name, y, classes, weight.astype(float))(predictions, rows)
    other = row_score(name, y[repeated], classes)
    expected = other(predictions[repeated], np.arange(len(repeated)))
    assert one == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("weighted", [True, False])
def test_a_function_may_take_weights_or_not(weighted, rng):
    y, weight = rng.integers(0, 2, 20), rng.integers(1, 4, 20).astype(float)
    p = rng.random(20)
    predictions = np.column_stack([1 - p, p])

    def plain(estimator, X, y):
        return metrics.accuracy_score(y, estimator.predict(X))

    def with_weight(estimator, X, y, sample_weight=None):
        return metrics.accuracy_score(
            y, estimator.predict(X), sample_weight=sample_weight
        )

    function = with_weight if weighted else plain
    assert takes_weight(find_scorer("N", function, True)) is weighted
    score = row_score(function, y, np.array([0, 1]), weight)
    expected = np.average((p > 0.5) == y, weights=weight)
    assert score(predictions, np.arange(20)) == pytest.approx(expected)


def test_scoring_function_gets_the_scored_rows(rng):
    X, y = rng.normal(size=(10, 2)), np.arange(10.0)
    seen = []
    score = row_score(lambda e, X, y: seen.append(X) or 0.5, y, None, X=X)
    assert score(y[[4, 1], None], np.array([4, 1])) == 0.5
    assert_allclose(seen[0], X[[4, 1]])


def test_score_of_rows_without_a_class_is_undefined():
    y = np.array([0, 1, 1, 1])
    score = row_score("roc_auc", y, np.array([0, 1]))
    assert np.isnan(score(np.full((2, 2), 0.5), np.array([1, 2])))


@pytest.mark.parametrize("scoring", ["r2", "neg_mean_squared_error"])
def test_squares_of_huge_errors_are_the_lowest_score(scoring):
    y = np.array([1.0, 2.0, 3.0])
    scorer = row_scorer(scoring, y, None)
    scorer.metric = find_metric(scorer.scorer, "regression", None)
    predictions = np.full((2, 3, 1), 1e200)
    found = scorer.score_each(predictions, np.arange(3))
    assert [score.value for score in found] == [LOWEST, LOWEST]
    assert scorer.score(predictions[0], np.arange(3)).value == LOWEST


def test_score_of_rows_without_a_weight_is_undefined():
    y = np.array([0, 1, 1, 0])
    scorer = row_scorer("accuracy", y, np.array([0, 1]), weight=np.zeros(4))
    predictions = np.full((4, 2), 0.5)
    assert scorer.score(predictions, np.arange(4)).reason == "all rows have weight 0"


def test_a_scorer_draws_the_same_each_time_and_leaves_generators_alone():
    def states():
        numpy = np.random.get_state()  # noqa: NPY002
        return random.getstate(), [list(numpy[1]), numpy[2:]], torch.get_rng_state()

    drawn = []

    def draws(estimator, X, y):
        np.random.normal()  # noqa: NPY002
        drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))  # noqa: NPY002
        return 0.0

    np.random.normal()  # noqa: NPY002
    before = states()
    scorer, rows = row_scorer(draws, np.array([0, 1]), np.array([0, 1])), np.arange(2)
    scorer.score_many(np.stack([np.eye(2)] * 3), rows)
    scorer.score(np.eye(2), rows)
    assert len(drawn) == 4 and len(set(drawn)) == 1
    after = states()
    assert after[:2] == before[:2] and torch.equal(after[2], before[2])


@pytest.mark.parametrize(
    ("value", "number"),
    [
        *((0.5, 0.5), (1, 1), (True, 1), (np.float32(0.5), 0.5), (np.array(0.5), 0.5)),
        *((np.array([[0.5]]), 0.5), (torch.tensor(0.5), 0.5), (Fraction(1, 2), 0.5)),
        *((Decimal("0.5"), 0.5), (pd.Series([2]), 2), (np.bool_(True), 1)),
    ],
)
def test_a_score_may_be_any_real_number(value, number):
    assert as_number(value) == number and type(as_number(value)) is float


@pytest.mark.parametrize(
    "value",
    [None, "0.5", 1j, np.complex64(1), {"a": 1}, [0.5], np.zeros(2), pd.NA, len, ()],
)
def test_a_score_must_be_a_real_number(value):
    with pytest.raises(TypeError, match="must return one real number, got "):
        as_number(value)


def test_warnings_of_a_scorer_are_shown_once_and_not_in_workers():
    def old(estimator, X, y):
        warnings.warn("loud", UserWarning, stacklevel=1)
        warnings.warn("old", FutureWarning, stacklevel=1)
        return 0.0

    scorer = row_scorer(old, np.array([0, 1]), np.array([0, 1]))
    in_worker = copy.copy(scorer)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for each in (in_worker, scorer, scorer):
            each.score(np.eye(2), np.arange(2))
    assert [str(warning.message) for warning in caught] == ["old"]
    assert caught[0].filename == __file__


def test_an_undefined_score_has_a_reason():
    def refusing(estimator, X, y):
        raise ValueError("no such luck")

    scorer = row_scorer(refusing, np.array([0, 1]), np.array([0, 1]))
    score = scorer.score(np.eye(2), np.arange(2))
    assert np.isnan(score.value) and score.reason == "no such luck"


@pytest.mark.parametrize("name", ["accuracy", "roc_auc_ovo", "neg_log_loss"])
def test_equal_fractional_weights_do_not_change_the_score(fitted, name):
    _, y, classes, predictions, _ = fitted["multiclass"]
    rows = np.arange(len(y))
    one = row_score(name, y, classes, np.full(len(y), 1.5))(predictions, rows)
    assert one == pytest.approx(row_score(name, y, classes)(predictions, rows))


def test_single_rows_have_a_score():
    score = row_score("accuracy", np.array([0, 1]), np.array([0, 1]))
    assert score(np.array([[0.1, 0.9]]), np.array([1])) == 1
    score = row_score("neg_mean_absolute_error", np.array([3.0, 5.0]), None)
    assert score(np.array([[4.0]]), np.array([1])) == -1


@pytest.mark.parametrize("name", sorted({*BINARY, *MULTICLASS, *REGRESSION}))
def test_reads_probabilities_of_each_named_scorer(name):
    assert reads_probabilities(get_scorer(name)) is (name in READ_PROBABILITIES)


def test_reads_probabilities_of_custom_scorers():
    own = make_scorer(metrics.log_loss, response_method="predict_proba")
    assert reads_probabilities(find_scorer("N", own, True))
    own = make_scorer(metrics.fbeta_score, beta=2)
    assert not reads_probabilities(find_scorer("N", own, True))


@pytest.mark.parametrize(("is_classifier", "name"), [(True, "accuracy"), (False, "r2")])
def test_default_score_is_accuracy_or_r2(is_classifier, name):
    assert repr(find_scorer("N", None, is_classifier)) == repr(get_scorer(name))


@pytest.mark.parametrize(
    ("scoring", "message"),
    [
        (
            "acuracy",
            "The 'scoring' parameter of NASClassifier must be a scikit-learn scorer "
            "name, got 'acuracy'; did you mean 'accuracy'?",
        ),
        (
            "zzz",
            "The 'scoring' parameter of NASClassifier must be a scikit-learn scorer "
            "name, got 'zzz'.",
        ),
        (
            3,
            "The 'scoring' parameter of NASClassifier must be a scorer name, a "
            "callable or None, got 3.",
        ),
    ],
)
def test_invalid_scoring(scoring, message):
    with pytest.raises(InvalidParameterError, match=re.escape(message)):
        find_scorer("NASClassifier", scoring, True)


# ------------------------------------------------------------------------------- loss


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel", "regression"])
def test_loss_is_log_loss_or_squared_error(kind, rng):
    n, c = 40, 2 if kind == "binary" else 3
    weight, rows = rng.uniform(0.5, 2, n), np.arange(n)[::-2]
    p = rng.dirichlet(np.ones(c), n)
    if kind in ("binary", "multiclass"):
        y = rng.integers(0, c, n)
        expected = metrics.log_loss(
            y[rows], p[rows], sample_weight=weight[rows], labels=range(c)
        )
    elif kind == "multilabel":
        y = rng.integers(0, 2, (n, c)).astype(float)
        each = [
            metrics.log_loss(y[rows, j], p[rows, j], sample_weight=weight[rows])
            for j in range(c)
        ]
        expected = np.mean(each)
    else:
        y = rng.normal(size=(n, c))
        expected = metrics.mean_squared_error(
            y[rows], p[rows], sample_weight=weight[rows]
        )
    loss = RowLoss(y, weight, kind)
    if kind == "regression":  # equal up to a factor
        half = p[rows] / 2 + y[rows] / 2
        assert loss(half, rows) == pytest.approx(loss(p[rows], rows) / 4)
        expected *= loss(p[:1], np.arange(1)) / ((p[0] - y[0]) ** 2).mean()
    assert loss(p[rows], rows) == pytest.approx(expected, rel=1e-6)
    # Several networks at once, and weights of a single fold.
    several = np.stack([p[rows], p[rows][::-1], p[rows] ** 2])
    each = [loss(own, rows) for own in several]
    assert_allclose(loss(several, rows), each, rtol=1e-12)
    assert_allclose(loss(several[None], rows)[0], each, rtol=1e-12)
    assert_allclose(loss(several, rows, weight[rows]), each, rtol=1e-12)
    other = RowLoss(y, np.arange(1.0, n + 1), kind)
    assert_allclose(loss(several, rows, rows + 1.0), other(several, rows), rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_loss_of_a_confident_error_is_finite(dtype):
    p, rows = np.eye(2, dtype=dtype), np.arange(2)
    for y, kind in ((np.array([1, 0]), "binary"), (1 - np.eye(2), "multilabel")):
        assert 10 < RowLoss(y, np.ones(2), kind)(p, rows) < 100


@pytest.mark.parametrize("size", [1e300, 1e-300, 0.0])
def test_the_loss_of_huge_and_tiny_targets_is_finite(size):
    y = np.array([[size], [-size]])
    loss, rows = RowLoss(y, np.ones(2), "regression"), np.arange(2)
    assert np.isfinite(loss(-y, rows))
    assert loss(y, rows) == 0 and (size == 0 or loss(-y, rows) > loss(y / 2, rows) > 0)


def test_labels_are_the_most_probable_classes():
    words = np.array(["a", "b", "c"])
    p = np.array([[0.2, 0.5, 0.3], [0.6, 0.2, 0.2]])
    assert labels(p, words).tolist() == ["b", "a"]
    several = [np.array([0, 1])] * 3
    assert labels(p, several).tolist() == [[0, 0, 0], [1, 0, 0]]


# ------------------------------------------------------------------------------ folds


def mean_of(predictions, rows, weight=None):
    """Return the mean of the predictions, undefined for row 0 alone."""
    return np.nan if rows.tolist() == [0] else float(predictions.mean())


def scored(predictions, rows, score=mean_of, n_rows=5, unscored=()):
    """Return scores of one model, from its predictions and the rows of each fold."""
    arrays = [np.array(values, dtype=float) for values in predictions]
    arrays = [a[:, None] if a.ndim == 1 else a for a in arrays]
    largest = max(np.abs(a).max() for a in arrays)
    y = np.full((n_rows, arrays[0].shape[1]), largest)
    loss = RowLoss(y, np.ones(n_rows), "regression")
    task = TaskSpec("regression", y.shape[1], n_rows)

    def fold(numbers):
        valid = Rows(y[numbers], y[numbers], np.ones(len(numbers)))
        return Fold(task, valid, valid, np.array(numbers), lambda output: output)

    folds = tuple(map(fold, rows))
    scorer = FunctionScorer(score)
    problem = Problem(
        task, folds, n_rows=n_rows, scorer=scorer, loss=loss, unscored_folds=unscored
    )
    return score_predictions(problem, [a[None] for a in arrays], np.array([True]))


def test_score_of_a_trial_is_the_mean_over_its_folds():
    scores = scored([[1, 3], [6]], [[0, 1], [4]])
    assert (scores.mean.tolist(), scores.by_fold.tolist()) == ([4], [[2, 6]])
    assert scores.predictions(0).dtype == np.float32
    assert_allclose(scores.predictions(0)[:, 0], [1, 3, np.nan, np.nan, 6])


def test_row_validated_by_several_folds_has_the_mean_prediction():
    scores = scored([[1, 3], [6, 7]], [[0, 1], [1, 4]])
    assert_allclose(scores.predictions(0)[:, 0], [1, 4.5, np.nan, np.nan, 7])


def test_folds_in_which_no_model_has_a_score_are_ignored():
    scores = scored([[1], [6, 8]], [[0], [1, 2]], unscored=(0,))
    assert scores.mean == 7 and np.isnan(scores.by_fold[0, 0])
    # Also for a model that has one there: the mean is over the same folds for all.
    scores = scored([[1], [6, 8]], [[3], [1, 2]], unscored=(0,))
    assert scores.mean == 7 and np.isnan(scores.by_fold[0, 0])


def test_a_fold_without_a_score_that_others_have_is_missing():
    scores = scored([[1], [6, 8]], [[0], [1, 2]])
    assert np.isnan(scores.mean) and np.isnan(scores.value(0))
    assert scores.by_fold[0].tolist()[1:] == [7]
    assert scores.means[0].reason == "the scorer returned NaN (in 1 of 2 folds)"


def test_all_rows_are_scored_together_if_no_fold_has_a_score():
    y = np.array([1.0, 2.0, 4.0, 8.0])
    score = row_score("roc_auc", (y > 3).astype(int), np.array([0, 1]))
    shares = [np.array([[1 - p, p]]) for p in (0.1, 0.2, 0.3, 0.4)]
    scores = scored(shares, [[0], [1], [2], [3]], score, n_rows=4, unscored=range(4))
    assert np.isnan(scores.by_fold).all() and scores.mean == 1


def test_score_is_nan_if_it_is_undefined_for_all_rows():
    assert np.isnan(scored([[1]], [[0]], unscored=[0]).mean)


def test_predictions_beyond_single_precision_are_preserved():
    scores = scored([[1e300, -1e300]], [[0, 1]])
    assert_allclose(scores.predictions(0)[:2, 0], [1e300, -1e300])


# ---------------------------------------------------------------------- many networks


def problem_of(kind, scoring, folds, rng, *, n=30, weight=None):
    """Return a problem with folds of given rows, and outputs of 4 networks."""
    n_outputs = {"binary": 2, "multiclass": 3, "regression": 2}[kind]
    weight = np.ones(n) if weight is None else weight
    classes = None if kind == "regression" else np.arange(n_outputs)
    y = rng.normal(size=(n, 2)) if classes is None else rng.integers(0, n_outputs, n)
    task = TaskSpec(kind, n_outputs, n, 1)
    scorer = find_scorer("N", scoring, classes is not None)
    metric = find_metric(scorer, kind, classes)
    x = np.zeros((n, 1), np.float32)

    def fold(rows):
        rows = np.array(rows)
        valid = Rows(x[rows], y[rows], weight[rows])
        restore = (lambda o: 2 * o + 1) if classes is None else softmax
        return Fold(task, valid, valid, rows, restore)

    problem = Problem(
        task=task,
        folds=tuple(map(fold, folds)),
        n_rows=n,
        scorer=RowScorer(scorer, None, y, weight, classes, metric),
        loss=RowLoss(y, weight, kind),
    )
    outputs = [rng.normal(size=(4, len(rows), n_outputs)) for rows in folds]
    return problem, outputs


FOLDS = {
    "parts": [range(0, 30, 2), range(1, 30, 2)],
    "one": [range(5, 20)],
    "overlapping": [range(0, 20), range(10, 25), range(3, 12)],
}


@pytest.mark.parametrize("folds", FOLDS)
@pytest.mark.parametrize(
    ("kind", "scoring"),
    [
        *(("binary", "accuracy"), ("binary", "roc_auc"), ("binary", "f1")),
        *(("multiclass", "neg_log_loss"), ("multiclass", "balanced_accuracy")),
        *(("regression", "r2"), ("regression", "neg_median_absolute_error")),
    ],
)
def test_scores_of_several_networks_equal_those_of_single_networks(
    kind, scoring, folds, rng
):
    weight = rng.integers(1, 4, 30).astype(float)
    problem, outputs = problem_of(kind, scoring, FOLDS[folds], rng, weight=weight)
    found = score_networks(problem, outputs)
    assert found.by_fold.shape == (4, len(problem.folds))
    assert found.finite.all()
    for k in range(4):
        predicted = [
            fold.restore(output[k])
            for fold, output in zip(problem.folds, outputs, strict=True)
        ]
        each = [
            problem.scorer.score(p, fold.valid_rows, fold.valid.weight).value
            for p, fold in zip(predicted, problem.folds, strict=True)
        ]
        assert_allclose(found.by_fold[k], each, rtol=1e-6)
        assert found.mean[k] == pytest.approx(np.mean(each), rel=1e-6)
        losses = [
            problem.loss(p, fold.valid_rows, fold.valid.weight)
            for p, fold in zip(predicted, problem.folds, strict=True)
        ]
        assert found.loss[k] == pytest.approx(np.mean(losses))
        one = score_predictions(problem, [p[None] for p in predicted], found.finite[:1])
        assert one.mean[0] == pytest.approx(found.mean[k], rel=1e-6)
        assert_allclose(one.predictions(0), found.predictions(k), rtol=1e-6)
        assert one.value(0) == pytest.approx(found.value(k), rel=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_network_does_not_change_scores_of_others(bad, rng):
    problem, outputs = problem_of("binary", "accuracy", FOLDS["parts"], rng)
    before = score_networks(problem, outputs)
    outputs[1][2, 3, 0] = bad
    after = score_networks(problem, outputs)
    assert after.finite.tolist() == [True, True, False, True]
    assert after.value(2) == -np.inf
    sound = after.finite
    assert_allclose(after.mean[sound], before.mean[sound])
    assert_allclose(after.loss[sound], before.loss[sound])


def half_of_accuracy(y, y_pred):
    return np.mean(y == y_pred) / 2


@pytest.mark.parametrize("scoring", ["accuracy", make_scorer(half_of_accuracy)])
def test_loss_breaks_ties_of_reproduced_label_scores(scoring, rng):
    problem, _ = problem_of("binary", scoring, FOLDS["parts"], rng)
    right = [np.eye(2)[fold.valid.y] for fold in problem.folds]
    outputs = [np.stack([o, 3 * o, -o, o - 5]) for o in right]
    found = score_networks(problem, outputs)
    best = found.mean.max()
    assert found.mean.tolist() == [best, best, 0, best]
    values = [found.value(k) for k in range(4)]
    assert (values[1] > values[0]) is (scoring == "accuracy")
    assert (values[1] == values[0]) is (scoring != "accuracy")
    assert values[0] == pytest.approx(values[3]) and values[2] == min(values)


def test_networks_without_fold_scores_are_scored_on_all_rows(rng):
    problem, outputs = problem_of("binary", "roc_auc", [[0], [1], [2], [3]], rng, n=5)
    problem.scorer.y[:4] = [0, 0, 1, 1]
    for row, output in enumerate(outputs):
        output[:, 0, 1] = output[:, 0, 0] + row - 1
        output[1, 0, 1] = output[1, 0, 0] - row
    found = score_networks(replace(problem, unscored_folds=range(4)), outputs)
    assert np.isnan(found.by_fold).all()
    assert found.mean.tolist() == [1, 0, 1, 1]


def test_custom_score_is_called_once_per_network(rng):
    problem, outputs = problem_of("binary", "accuracy", FOLDS["one"], rng)
    asked = []

    def own(predictions, rows, weight=None):
        asked.append(predictions.shape)
        return predictions[0, 0]

    plain = replace(problem, scorer=FunctionScorer(own))
    found = score_networks(plain, outputs)
    assert asked == [(15, 2)] * 4
    assert_allclose(found.mean, [softmax(o)[0, 0] for o in outputs[0]])


def test_scores_of_several_networks_on_one_row(rng):
    y = np.array([0, 1])
    scorer = find_scorer("N", "accuracy", True)
    scorer = RowScorer(scorer, None, y, np.ones(2), y, find_metric(scorer, "binary", y))
    shares = np.array([[[0.1, 0.9]], [[0.7, 0.3]]])
    assert scorer.score_many(shares, np.array([1]), np.ones(1)).tolist() == [1, 0]
