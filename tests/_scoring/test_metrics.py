"""Batched metrics for several networks agree with scikit-learn."""

import pickle
from functools import cache
from inspect import signature
from itertools import product

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn import metrics
from sklearn.metrics import get_scorer, make_scorer

from sknas._scoring.metrics import METRICS, _row_sums, find_metric
from sknas._scoring.scorer import RowScorer

N = 60
BRIER = signature(metrics.brier_score_loss).parameters
CLASSES = {
    "binary": np.array([0, 1]),
    "multiclass": np.arange(4),
    "multilabel": [np.array([0, 1])] * 3,
    "regression": None,
    "targets": None,
}
SINGLE = ("binary", "multiclass")
WEIGHTS = ["ones", "halves", "whole", "fractions", "zeros"]

# Every reproduced scorer, with each kind of target.
CASES = [
    (name, case)
    for name, (_, kinds) in sorted(METRICS.items())
    for case in (*kinds, *(("targets",) if "regression" in kinds else ()))
    # The Brier score of several classes needs scikit-learn 1.7.
    if (name, case) != ("neg_brier_score", "multiclass") or "scale_by_half" in BRIER
]


@cache
def metric_of(name, case):
    kind = "regression" if case == "targets" else case
    return find_metric(get_scorer(name), kind, CLASSES[case])


def weights(name, rng, n=N):
    return {
        "ones": np.ones(n),
        "halves": np.full(n, 0.5),
        "whole": rng.integers(1, 5, n).astype(float),
        "fractions": rng.uniform(0.1, 3, n),
        "zeros": np.where(rng.random(n) < 0.2, 0.0, rng.integers(1, 3, n)),
    }[name]


def make(case, rng, k=3, n=N, dtype=np.float32, digits=None):
    """Return targets, and predictions of k networks, with ties if `digits` is given."""
    if case in SINGLE:
        c = len(CLASSES[case])
        y = rng.permutation(np.arange(n) % c)
        p = rng.dirichlet(np.ones(c), (k, n)) + 0.3 * np.eye(c)[y]
        p = p if digits is None else np.round(p, digits) + 10.0**-digits
        return y, (p / p.sum(-1, keepdims=True)).astype(dtype)
    if case == "multilabel":
        y, p = rng.integers(0, 2, (n, 3)).astype(float), rng.random((k, n, 3))
        return y, (p if digits is None else np.round(p, digits)).astype(dtype)
    shape = (n, 2 if case == "targets" else 1)
    y = rng.exponential(size=shape)
    p = y + rng.uniform(-0.9, 0.9, (k, *shape))
    return y, (p if digits is None else np.round(p, digits)).astype(dtype)


def expected(scorer, y, p, weight, classes):
    """Return the scores of each network by scikit-learn."""
    target = classes[y] if isinstance(classes, np.ndarray) else y
    if isinstance(classes, list):
        target = y.astype(int)
    elif classes is None and y.shape[1] == 1:
        target = y[:, 0]
    # Pretend more rows: R2 of a table of one row is defined differently.
    twice = np.concatenate([target, target]), np.concatenate([weight, weight])
    by_row = RowScorer(scorer, None, *twice, classes)
    return by_row.score_many(p, np.arange(len(y)))


def found(metric, y, p, weight):
    scores = metric(torch.tensor(p), torch.tensor(y), torch.tensor(weight))
    assert scores.shape == (len(p),) and scores.dtype == torch.float64
    return scores.numpy()


def compare(name, case, y, p, weight, classes=None, atol=1e-12):
    metric = metric_of(name, case)
    if classes is None:
        classes = CLASSES[case]
    else:
        metric = find_metric(get_scorer(name), case, classes)
    want = expected(get_scorer(name), y, p, weight, classes)
    assert_allclose(found(metric, y, p, weight), want, rtol=1e-9, atol=atol)
    return want


@pytest.mark.parametrize(("name", "case"), CASES)
def test_scores_agree_with_scikit_learn(name, case, rng):
    is_undefined = name == "neg_max_error" and case == "targets"
    for digits, dtype, k in ((None, "f4", 1), (2, "f8", 2), (1, "f4", 2)):
        y, p = make(case, rng, k, dtype=dtype, digits=digits)
        for weight in WEIGHTS:
            want = compare(name, case, y, p, weights(weight, rng))
            assert np.isnan(want).all() == is_undefined


@pytest.mark.parametrize(("name", "case"), CASES)
def test_few_rows_and_missing_classes(name, case, rng):
    for n, weight in product((1, 2, 5), ("whole", "fractions")):
        y, p = make(case, rng, 2, n=12)
        for rows in (
            np.arange(n),
            np.flatnonzero(y.reshape(12, -1)[:, 0] == y.flat[0]),
        ):
            w = weights(weight, rng, len(rows))
            compare(name, case, y[rows], p[:, rows], w)


@pytest.mark.parametrize(("name", "case"), CASES)
def test_constant_targets_and_predictions(name, case, rng):
    y, p = make(case, rng, 4, dtype=np.float64)
    if name == "explained_variance":  # zeros are rounded differently
        y, p = np.round(y * 8) / 8, np.round(p * 8) / 8
    p[1:] = p[1:, :1]
    if y.ndim == 2:
        y[:] = y[:1]
        p[2] = y
    else:
        y[:] = 1
    for weight in ("ones", "whole"):
        compare(name, case, y, p, weights(weight, rng))


@pytest.mark.parametrize("name", [name for name, case in CASES if case == "binary"])
@pytest.mark.parametrize(
    "classes", [[1, 2], [-1, 1], [False, True], ["a", "b"], [3, 7]]
)
def test_other_classes_of_two(name, classes, rng):
    classes = np.array(classes)
    metric = find_metric(get_scorer(name), "binary", classes)
    if metric is None:  # scikit-learn refuses them too, or reads them from the rows
        assert name.startswith(("f1", "prec", "rec", "jacc", "average", "neg_brier"))
        assert classes.tolist() != [-1, 1]
        return
    for rows in (slice(None), [0, 1, 2], [0]):
        y, p = make("binary", rng)
        compare(name, "binary", y[rows], p[:, rows], np.ones(N)[rows], classes)


@pytest.mark.parametrize("name", [n for n, case in CASES if case == "multiclass"])
@pytest.mark.parametrize("classes", [list("abcd"), [2, 3, 5, 8], [1.0, 2.0, 3.0, 4.0]])
def test_other_classes_of_several(name, classes, rng):
    classes = np.array(classes)
    if find_metric(get_scorer(name), "multiclass", classes) is not None:
        y, p = make("multiclass", rng)
        compare(name, "multiclass", y, p, np.ones(N), classes)
    else:
        assert name in ("average_precision", "neg_brier_score") and 1 not in classes


@pytest.mark.parametrize("n_classes", [3, 7, 8, 9, 21, 130])
@pytest.mark.parametrize("name", ["roc_auc_ovr", "average_precision", "neg_log_loss"])
def test_many_classes_with_scores_that_nearly_tie(name, n_classes, rng):
    y = rng.permutation(np.arange(4 * n_classes) % n_classes)
    logits = np.round(rng.normal(size=(2, len(y), n_classes)) * 4) * 4
    p = torch.tensor(logits, dtype=torch.float32).softmax(-1).numpy()
    compare(name, "multiclass", y, p, np.ones(len(y)), np.arange(n_classes))


@pytest.mark.parametrize("n", [2, 3, 7, 8, 15, 16, 100, 129, 300])
def test_sums_are_rounded_like_those_of_numpy(n, rng):
    values = np.exp(rng.normal(size=(2, 50, n)) * 10)
    assert (_row_sums(torch.tensor(values)).numpy() == values.sum(2)).all()


@pytest.mark.parametrize(("name", "case"), CASES)
def test_bad_predictions_of_one_network_do_not_change_other_scores(name, case, rng):
    y, p = make(case, rng)
    metric = metric_of(name, case)
    before = found(metric, y, p, np.ones(N))
    p[1, 4] = np.nan
    after = found(metric, y, p, np.ones(N))
    assert_allclose(after[[0, 2]], before[[0, 2]], rtol=1e-14)
    compare(name, case, y, p, np.ones(N))


@pytest.mark.parametrize("name", ["neg_mean_squared_log_error", "r2", "neg_max_error"])
def test_scores_of_values_outside_the_domain_agree_with_scikit_learn(name, rng):
    y, p = make("regression", rng)
    p[0, 3], p[1, 5] = -1, -2
    compare(name, "regression", y, p, np.ones(N))
    y[0] = -1.5
    compare(name, "regression", y, p, np.ones(N))


@pytest.mark.parametrize("name", ["roc_auc_ovo", "roc_auc_ovo_weighted"])
def test_weights_are_repetitions_for_metrics_without_weights(name, rng):
    y, p = make("multiclass", rng)
    weight = rng.integers(1, 5, N).astype(float) * 3
    scorer, rows = get_scorer(name), np.repeat(np.arange(N), weight.astype(int))
    metric = find_metric(scorer, "multiclass", np.arange(4))
    want = expected(scorer, y[rows], p[:, rows], np.ones(len(rows)), np.arange(4))
    assert_allclose(found(metric, y, p, weight), want, rtol=1e-9)
    weight[:3] = [2e6, 1e6, 3e6]
    compare(name, "multiclass", y, p, weight)


@pytest.mark.parametrize(("name", "case"), CASES)
def test_shares_of_whole_weights_and_views_of_predictions(name, case, rng):
    y, p = make(case, rng)
    wide = torch.tensor(p).permute(1, 2, 0).contiguous().permute(2, 0, 1)
    whole = weights("whole", rng)
    metric = metric_of(name, case)
    scores = metric(wide, torch.tensor(y), torch.tensor(whole / 3 * 0.1 * 30))
    want = expected(get_scorer(name), y, p, whole, CLASSES[case])
    assert_allclose(scores, want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("size", [1e-30, 1e30])
@pytest.mark.parametrize("name", ["r2", "neg_mean_squared_error", "neg_max_error"])
def test_scores_of_tiny_and_huge_values_agree_with_scikit_learn(name, size, rng):
    y, p = make("regression", rng, dtype=np.float64)
    weight = weights("fractions", rng)
    compare(name, "regression", y * size, p * size, weight, atol=0)


@pytest.mark.parametrize("part", ["_score_func", "_sign", "_kwargs"])
def test_scorer_without_the_private_attributes_is_not_reproduced(part):
    scorer = get_scorer("accuracy")
    delattr(scorer, part)
    assert find_metric(scorer, "binary", CLASSES["binary"]) is None


def test_a_metric_can_be_pickled(rng):
    y, p = make("multiclass", rng)
    for name in ("f1_macro", "roc_auc_ovr_weighted"):
        metric = find_metric(get_scorer(name), "multiclass", np.arange(4))
        twin = pickle.loads(pickle.dumps(metric))
        assert_allclose(*(found(one, y, p, np.ones(N)) for one in (metric, twin)))


def test_predictions_with_gradients_are_scored(rng):
    y, p = make("binary", rng)
    metric = find_metric(get_scorer("neg_log_loss"), "binary", np.arange(2))
    predictions = torch.tensor(p, requires_grad=True)
    scores = metric(predictions, torch.tensor(y), torch.ones(N, dtype=torch.float64))
    assert not scores.requires_grad


def own(estimator, X, y):
    return 0.5


@pytest.mark.parametrize(
    ("scorer", "kind"),
    [
        (own, "binary"),
        (make_scorer(metrics.log_loss, response_method="predict_proba"), "binary"),
        (make_scorer(metrics.accuracy_score, greater_is_better=False), "binary"),
        (make_scorer(metrics.accuracy_score, normalize=False), "binary"),
        (make_scorer(metrics.f1_score, average="binary", pos_label=0), "binary"),
        (make_scorer(metrics.roc_auc_score), "binary"),
        (make_scorer(metrics.fbeta_score, beta=2), "binary"),
        (make_scorer(metrics.r2_score, multioutput="variance_weighted"), "regression"),
        (make_scorer(own), "regression"),
        (get_scorer("neg_mean_gamma_deviance"), "regression"),
        (get_scorer("accuracy"), "regression"),
        (get_scorer("r2"), "binary"),
        (get_scorer("f1"), "multiclass"),
        (get_scorer("f1"), "multilabel"),
        (get_scorer("f1_samples"), "multilabel"),
        (get_scorer("roc_auc"), "multiclass"),
        (get_scorer("balanced_accuracy"), "multilabel"),
        (get_scorer("neg_log_loss"), "multilabel"),
        (get_scorer("top_k_accuracy"), "multiclass"),
    ],
)
def test_scorers_that_are_not_reproduced(scorer, kind):
    assert find_metric(scorer, kind, CLASSES[kind]) is None


def test_scorer_that_equals_a_named_one_is_reproduced():
    scorer = make_scorer(metrics.mean_absolute_error, greater_is_better=False)
    assert find_metric(scorer, "regression", None) is not None


@pytest.mark.parametrize(
    ("kind", "classes"),
    [
        ("binary", np.array([0.5, 1.5])),
        ("binary", np.array([0])),
        ("binary", np.array([0, 1, 2])),
        ("multiclass", np.array([0, 1, "a"], dtype=object)),
        ("multilabel", [np.array([0, 1])]),
        ("multilabel", [np.array([0, 1]), np.array([0])]),
    ],
)
def test_classes_that_scikit_learn_reads_differently_are_not_reproduced(kind, classes):
    assert find_metric(get_scorer("accuracy"), kind, classes) is None
