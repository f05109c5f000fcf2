"""Searches of targets in which a class has few rows."""

import re
import warnings

import numpy as np
import pytest
from sklearn.metrics import f1_score, log_loss, make_scorer
from sklearn.model_selection import KFold, LeaveOneOut, StratifiedKFold

from sknas import NASClassifier
from sknas.exceptions import InvalidParameterError, SearchWarning

PROBABILITY = ["roc_auc", "neg_log_loss", "average_precision", "neg_brier_score"]
OWN = make_scorer(log_loss, response_method="predict_proba", greater_is_better=False)
WORDS = np.array(["many", "few", "more"])


def table(*counts, words=False):
    """Return a table whose first column tells the classes of given counts apart."""
    rng = np.random.default_rng(0)
    y = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    X = rng.normal(size=(len(y), 3))
    X[:, 0] += 5 * y
    return X, WORDS[y] if words else y


def fit(X, y, *, fit_options=None, **options):
    """Return an estimator, and the messages of its warnings."""
    options = {"max_trials": 1, "max_epochs": 3, "random_state": 0, **options}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SearchWarning)
        estimator = NASClassifier(**options).fit(X, y, **(fit_options or {}))
    return estimator, [str(w.message) for w in caught if w.category is SearchWarning]


def fold_scores(estimator):
    results = estimator.cv_results_
    return np.array([results[n] for n in results if re.match(r"split\d+_test", n)])


def few(name):
    return (
        f"Scores say little about some classes: there are few rows of {name}. Give "
        "more rows of them, or merge them with others."
    )


@pytest.mark.parametrize("scoring", PROBABILITY)
@pytest.mark.parametrize("n_positive", [2, 3, 4])
def test_few_positive_rows_are_scored_in_each_fold(n_positive, scoring):
    X, y = table(450 - n_positive, n_positive)
    estimator, messages = fit(X, y, scoring=scoring)
    assert fold_scores(estimator).shape == (5, 1)
    assert np.isfinite(fold_scores(estimator)).all()
    assert messages == [few(f"class 1 ({n_positive} rows)")]


@pytest.mark.parametrize("trainer", ["population", "skorch"])
@pytest.mark.filterwarnings("ignore:Scores say little")
def test_trainers_and_refits_of_a_rare_class(trainer, tmp_path):
    X, y = table(90, 2, words=True)
    options = {"trainer": trainer, "scoring": "roc_auc", "checkpoint": tmp_path / "run"}
    first, messages = fit(X, y, ensemble_size=1, **options)
    assert np.isfinite(fold_scores(first)).all()
    assert messages == [few("class 'few' (2 rows)")]
    resumed, _ = fit(X, y, ensemble_size=1, **options)
    np.testing.assert_array_equal(first.predict_proba(X), resumed.predict_proba(X))
    warm, _ = fit(X, y, scoring="roc_auc", warm_start=True)
    assert np.isfinite(fold_scores(warm.fit(X, y))).all()
    assert fold_scores(warm).shape == (3, 2)


def test_gradient_search_of_a_rare_class():
    X, y = table(90, 2)
    estimator, messages = fit(X, y, strategy="gradient", scoring="roc_auc")
    assert np.isfinite(fold_scores(estimator)).all() and len(messages) == 1


def test_a_weight_of_a_rare_row_is_a_repetition():
    X, y = table(90, 2)
    weight = np.where((y == 1) & (np.cumsum(y) == 1), 2.0, 1.0)
    row = np.repeat(np.arange(len(y)), weight.astype(int))
    options = {"scoring": "roc_auc", "class_weight": "balanced"}
    weighted, messages = fit(X, y, fit_options={"sample_weight": weight}, **options)
    repeated, again = fit(X[row], y[row], **options)
    assert messages == again == []  # as many rows as folds
    np.testing.assert_array_equal(weighted.predict_proba(X), repeated.predict_proba(X))
    weight[(y == 1) & (np.cumsum(y) == 1)] = 0
    message = "class 1 (1 row), which no fold validates"
    with pytest.raises(InvalidParameterError, match=re.escape(message)):
        fit(X, y, fit_options={"sample_weight": weight}, **options)


@pytest.mark.parametrize(
    ("scoring", "groups"),
    [
        *[("roc_auc", None), ("roc_auc", "one"), ("roc_auc_ovr", None)],
        *[("f1", None), ("f1", "one"), ("precision", None), ("recall", None)],
        *[("jaccard", None), ("average_precision", None)],
        *[("matthews_corrcoef", None), ("d2_log_loss_score", None)],
    ],
)
def test_a_score_that_needs_a_class_of_one_row_is_refused(scoring, groups):
    X, y = table(60, 1)
    fit_options, name, more = {}, "class 1 (1 row)", "more rows"
    if groups:
        y[np.flatnonzero(y == 0)[:4]] = 1
        groups = np.where(y == 1, 0, np.arange(len(y)) % 7)
        fit_options, name = {"groups": groups}, "class 1 (5 rows in 1 group)"
        more = "more groups"
    message = (
        "The 'scoring' parameter of NASClassifier must be defined without "
        f"{name}, which no fold validates, got {scoring!r}; give {more}, merge "
        "classes, or take another score, such as 'neg_log_loss'."
    )
    with pytest.raises(InvalidParameterError) as caught:
        fit(X, y, scoring=scoring, fit_options=fit_options)
    assert str(caught.value) == message


@pytest.mark.parametrize("cv", ["auto", LeaveOneOut()])
def test_a_score_that_does_not_fit_y_is_refused_for_that(cv):
    # The validated rows alone have two classes.
    X, y = table(9, 9, 1)
    with pytest.raises(ValueError, match="must fit y, got 'f1': Target is multiclass"):
        fit(X, y, scoring="f1", cv=cv)


@pytest.mark.parametrize("scoring", ["neg_log_loss", OWN, "top_k_accuracy", "f1_macro"])
def test_a_class_of_one_row_is_trained(scoring):
    X, y = table(40, 40, 1, words=True)
    estimator, messages = fit(X, y, scoring=scoring)
    assert np.isfinite(fold_scores(estimator)).all()
    assert list(estimator.classes_) == sorted(WORDS)
    assert messages == [
        "Scores say little about some classes: no fold validates class 'more' (1 row). "
        "Give more rows of them, or merge them with others."
    ]


def test_a_label_without_positive_rows():
    X, _ = table(30)
    y = np.zeros((30, 2), dtype=int)
    y[::2, 0] = 1
    message = "defined without value 1 of label 1 (0 rows), which no fold validates"
    with pytest.raises(InvalidParameterError, match=re.escape(message)):
        fit(X, y, scoring="roc_auc")
    assert fit(X, y, scoring="f1_macro")[1] == []  # nothing to learn
    y[:2, 1] = 1
    estimator, messages = fit(X, y, scoring="roc_auc")
    assert np.isfinite(fold_scores(estimator)).all()
    assert messages == [few("value 1 of label 1 (2 rows)")]


@pytest.mark.parametrize("scoring", ["f1", "balanced_accuracy", None])
def test_trials_that_never_predict_a_class_have_a_warning(scoring):
    X, y = table(190, 5)
    X[:, 0] = 0
    _, messages = fit(X, y, scoring=scoring)
    value = {"f1": "0", "balanced_accuracy": "0.5", None: "0.974"}[scoring]
    assert messages == [
        f"All trials score {value}, like a model that always predicts the most "
        "frequent class, and never class 1 (5 rows). Take a scoring of probabilities, "
        "such as 'average_precision' or 'neg_log_loss', or class_weight='balanced'."
    ]


def custom(text, name="class 1 (3 rows)"):
    return (
        f"Scores say little about some classes: {text} {name}. Give other splits, or "
        "merge them with others."
    )


@pytest.mark.filterwarnings("ignore:The least populated class")
def test_splits_of_the_user_are_unchanged():
    X, y = table(57, 3)
    rows, negative = np.arange(60), np.flatnonzero(y == 0)
    estimator, messages = fit(X, y, scoring="neg_log_loss", cv=StratifiedKFold(5))
    assert (
        np.isfinite(fold_scores(estimator)).all() and len(fold_scores(estimator)) == 5
    )
    assert messages == [custom("some folds do not validate")]
    pairs = [(np.setdiff1d(rows, part), part) for part in np.split(negative[:54], 3)]
    estimator, messages = fit(X, y, cv=pairs, scoring="neg_brier_score")
    assert messages == [custom("no fold validates")]
    with pytest.raises(InvalidParameterError, match="which no fold validates"):
        fit(X, y, cv=pairs, scoring="roc_auc")
    pairs = [(negative[:30], np.setdiff1d(rows, negative[:30]))]
    _, messages = fit(X, y, cv=pairs, scoring="roc_auc")
    assert messages == [custom("some folds do not train")]
    _, messages = fit(
        X, y, cv=KFold(2, shuffle=True, random_state=0), scoring="roc_auc"
    )
    assert messages == []
    # Folds of one row can't have all classes.
    assert fit(*table(5, 5), cv=LeaveOneOut(), scoring="neg_log_loss")[1] == []


def test_a_hold_out_of_a_rare_class():
    # Time is short for folds.
    X, y = table(5_998, 2)
    estimator, messages = fit(X, y, scoring="roc_auc", max_time=2)
    assert fold_scores(estimator).shape == (1, 1)
    assert messages == [few("class 1 (2 rows)")]


def test_an_int_keeps_its_number_of_folds():
    estimator, messages = fit(*table(57, 3), cv=6, scoring="roc_auc")
    assert fold_scores(estimator).shape == (6, 1)
    assert np.isfinite(fold_scores(estimator)).all()
    assert messages == [few("class 1 (3 rows)")]


def test_a_message_names_the_rarest_classes():
    _, messages = fit(*table(30, 2, 2, 2, 1, 1, 2), cv=3)
    assert messages == [
        "Scores say little about some classes: no fold validates class 4 (1 row), "
        "class 5 (1 row); there are few rows of class 1 (2 rows), class 2 (2 rows), "
        "class 3 (2 rows) and 1 more. Give more rows of them, or merge them with "
        "others."
    ]


def test_a_class_of_weight_zero_has_no_rows():
    X, y = table(20, 20)
    message = (
        "must be defined without class 1 (20 rows), which 'class_weight' leaves out, "
        "got 'roc_auc'; give it a weight above 0, or take another score, such as "
        "'neg_log_loss'."
    )
    with pytest.raises(InvalidParameterError, match=re.escape(message)):
        fit(X, y, scoring="roc_auc", class_weight={1: 0})
    assert fit(X, y, class_weight={1: 0})[1] == []  # as it was ordered


@pytest.mark.parametrize(
    "scoring",
    ["accuracy", "balanced_accuracy", "f1_macro", "f1_weighted", "neg_brier_score"],
)
def test_a_score_of_the_other_class_runs_with_a_warning(scoring):
    X, y = table(60, 1)
    estimator, messages = fit(X, y, scoring=scoring)
    assert np.isfinite(fold_scores(estimator)).all()
    assert len(messages) == 1 and "no fold validates class 1 (1 row)" in messages[0]


def test_a_score_of_a_class_that_folds_validate_is_accepted():
    X, y = table(60, 1)
    score = make_scorer(f1_score, pos_label=0)
    assert fit(X, y, scoring=score)[0].best_score_ > 0.9
    X, y = table(1, 60)  # the only negative row is trained
    assert fit(X, y, scoring="f1")[0].best_score_ > 0.9


def test_new_rows_may_lack_a_class():
    X, y = table(20, 20, 20, words=True)
    estimator, messages = fit(X, y, scoring="neg_log_loss")
    rows = y != "more"
    score = estimator.scorer_(estimator, X[rows], y[rows])
    shares = estimator.predict_proba(X[rows])
    expected = -log_loss(y[rows], shares, labels=estimator.classes_)
    assert score == pytest.approx(expected) and messages == []


def test_images_of_a_rare_class():
    images = np.random.default_rng(0).integers(0, 255, (30, 8, 8), dtype=np.uint8)
    y = np.repeat([0, 1], [28, 2])
    images[y == 1] //= 4
    estimator, messages = fit(images, y, scoring="roc_auc", max_epochs=1)
    assert np.isfinite(fold_scores(estimator)).all()
    assert messages == [few("class 1 (2 rows)")]
