"""Searches with a scorer of the user: what it may ask for, and how it may fail."""

import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from fits import problem_of
from sklearn.inspection import permutation_importance
from sklearn.metrics import accuracy_score, get_scorer, make_scorer

from sknas import NASClassifier, NASRegressor
from sknas.exceptions import SearchFailedError, SearchWarning

TINY = {"max_trials": 3, "max_epochs": 3, "cv": 3, "random_state": 0, "n_jobs": 1}
RNG = np.random.default_rng(0)
N = 90
X = pd.DataFrame({"a": RNG.normal(size=N), "b": RNG.choice(["u", "v"], N)})
X["c"] = RNG.normal(size=N)
Y = (X["a"] + 0.3 * X["c"] > 0).astype(int).to_numpy()
VALUES = X["a"].to_numpy() + 0.1 * X["c"].to_numpy()
FIRST = X["a"].iloc[0]  # only one fold validates the first row


def accuracy(estimator, X, y):
    return accuracy_score(y, estimator.predict(X))


def shuffled(estimator, X, y):
    order = np.random.permutation(len(y))  # noqa: NPY002
    return accuracy(estimator, X.iloc[order], y[order])


def as_numbers(estimator, X, y):
    return accuracy(estimator, X.to_numpy(), y)


def changing_its_arguments(estimator, X, y):
    score = accuracy(estimator, X, y)
    X["a"], y[:] = 0.0, 0
    return score


def parts_of(model):
    results = model.cv_results_
    splits = [results[f"split{fold}_test_score"] for fold in range(3)]
    return np.stack(splits, axis=1), results["mean_test_score"], results["status"]


@pytest.mark.parametrize(
    "scorer",
    [
        *(shuffled, as_numbers, changing_its_arguments),
        lambda e, X, y: e.score(pl.from_pandas(X), y),
        lambda e, X, y: get_scorer("accuracy")(e, X[::-1], y[::-1]),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_scorer_may_read_its_rows_in_any_order(scorer, passed_on):
    before = X.copy()
    found = parts_of(NASClassifier(scoring=scorer, **TINY).fit(X, Y))
    pd.testing.assert_frame_equal(X, before)
    for one, other in zip(found, passed_on, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def passed_on():
    return parts_of(NASClassifier(scoring=accuracy, **TINY).fit(X, Y))


def disturbed(estimator, X, y):
    return accuracy(estimator, X.assign(a=X["a"] + 1e-9), y)


def overwritten(estimator, X, y):
    X["a"] = X["a"].to_numpy()[::-1]
    return accuracy(estimator, X, y)


def swallowing(estimator, X, y):
    try:
        return disturbed(estimator, X, y)
    except Exception:
        return 0.5


def importance(estimator, X, y):
    return permutation_importance(estimator, X, y, n_repeats=1).importances_mean[0]


@pytest.mark.parametrize("strategy", ["random", "gradient"])
@pytest.mark.parametrize("scorer", [disturbed, overwritten, swallowing, importance])
def test_rows_that_were_not_given_are_refused_before_training(scorer, strategy):
    model = NASClassifier(scoring=scorer, strategy=strategy, **TINY)
    message = (
        r"^The 'scoring' parameter of NASClassifier must score only the rows and the "
        r"estimator it is given, got <function \w+ at \w+>: it predicts rows that it "
        r"was not given, and a search has predictions of the validation rows only: "
        r"score rows of X unchanged, in any order or in part, and try changed rows, as "
        r"in a permutation importance, after fit\.$"
    )
    with pytest.raises(ValueError, match=message):
        model.fit(X, Y)
    assert not hasattr(model, "history_")


class Stop(BaseException):
    """Ends a fit."""


def test_rows_are_those_of_the_user():
    found = set()

    def score(estimator, X, y):
        found.add(type(X))
        raise Stop

    numbers = X[["a", "c"]].to_numpy()
    for rows in (X, pl.from_pandas(X), numbers, numbers.tolist()):
        with pytest.raises(Stop):
            NASClassifier(scoring=score, **TINY).fit(rows, Y)
    assert found == {pd.DataFrame, pl.DataFrame, np.ndarray, list}


# ---------------------------------------------------------------------------- failures

PARTS = [{"trainer": "population"}, {"trainer": "skorch"}, {"strategy": "gradient"}]


def flaky(share):
    """Return a scorer that fails now and then."""
    rng = np.random.default_rng(3)

    def score(estimator, X, y):
        if rng.random() < share:
            raise RuntimeError("flaky")
        return accuracy(estimator, X, y)

    return score


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
def test_trials_are_compared_on_the_same_folds(share, parts):
    model = NASClassifier(scoring=flaky(share), **TINY, **parts)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model.fit(X, Y)
        except (SearchFailedError, ValueError) as error:
            assert "RuntimeError: flaky" in str(error)
            return
    splits, means, status = parts_of(model)
    is_scored = np.isfinite(splits).all(axis=1)
    assert (status[is_scored] == "ok").all() and (status[~is_scored] == "failed").all()
    np.testing.assert_allclose(means[is_scored], splits[is_scored].mean(axis=1))
    assert np.isnan(means[~is_scored]).all()
    assert np.isnan(model.cv_results_["std_test_score"][~is_scored]).all()
    reasons = list(filter(None, model.cv_results_["reason"]))
    assert len(reasons) >= (~is_scored).sum()
    texts = [str(w.message) for w in caught if w.category is SearchWarning]
    assert len(texts) == bool(reasons)
    for text in texts:
        assert "flaky (in " in text and all(reason in text for reason in reasons)


@pytest.mark.parametrize("parts", PARTS)
def test_a_fold_in_which_every_model_fails_is_left_out(parts):
    def score(estimator, X, y):
        if FIRST in set(X["a"]):
            raise ZeroDivisionError("no such rows")
        return accuracy(estimator, X, y)

    message = (
        "^No model has a score in 1 of 3 folds, and scores are means over the others: "
        "ZeroDivisionError: no such rows.$"
    )
    with pytest.warns(SearchWarning, match=message) as caught:
        model = NASClassifier(scoring=score, **TINY, **parts).fit(X, Y)
    assert len(caught) == 1
    splits, means, status = parts_of(model)
    assert (status == "ok").all() and np.isnan(splits).sum(axis=1).tolist() == [1] * 3
    assert len(set(np.argwhere(np.isnan(splits))[:, 1])) == 1
    np.testing.assert_allclose(means, np.nanmean(splits, axis=1))
    assert np.isfinite(model.baseline_scores_["dummy"])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("fails", [True, False])
def test_a_scorer_may_be_undefined_for_the_dummy_alone(fails, monkeypatch):
    def correlation(estimator, X, y):
        predicted = estimator.predict(X)
        if fails and not np.ptp(predicted):
            raise ZeroDivisionError("constant")
        return np.corrcoef(y, predicted)[0, 1]

    # Without a linear model, too.
    monkeypatch.setattr("sknas._scoring.baselines._has_time", lambda *_: fails)
    model = NASRegressor(scoring=correlation, **TINY | {"max_epochs": 9})
    model.fit(X, VALUES)
    splits, _, status = parts_of(model)
    assert (status == "ok").all() and np.isfinite(splits).all()
    assert np.isnan(model.baseline_scores_["dummy"])
    assert np.isfinite(model.baseline_scores_["linear"]) == fails


@pytest.mark.parametrize(
    ("score", "reason"),
    [
        (lambda e, X, y: {}["k"], "KeyError: 'k'"),
        (lambda e, X, y: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda e, X, y: np.nan, "the scorer returned NaN"),
        (lambda e, X, y: -np.inf, "the scorer returned -inf"),
        (lambda e, X, y: None, "TypeError: .* must return one real number, got None"),
        (lambda e, X, y: {"a": 1.0}, "TypeError: .* one real number, got {'a': 1.0}"),
        (lambda e, X, y: "0.5", "TypeError: .* one real number, got '0.5'"),
        (lambda e, X, y: (_ for _ in ()).throw(MemoryError), "MemoryError"),
        (lambda e, X, y: e.fit(X, y).score(X, y), "it clones or fits the estimator"),
    ],
)
def test_a_scorer_that_scores_no_model_is_refused_before_training(score, reason):
    model = NASClassifier(scoring=score, **TINY)
    with pytest.raises(ValueError, match=f"got <function .*>: {reason}"):
        model.fit(X, Y)
    assert not hasattr(model, "history_")


def test_ctrl_c_in_a_scorer_ends_the_search():
    n_calls = 0

    def score(estimator, X, y):
        nonlocal n_calls
        n_calls += 1
        if n_calls > 30:
            raise KeyboardInterrupt
        return accuracy(estimator, X, y)

    model = NASClassifier(scoring=score, **TINY).fit(X, Y)
    assert model.stop_reason_ == "interrupted" and model.best_score_ > 0
    with pytest.raises(SystemExit):
        NASClassifier(scoring=lambda e, X, y: sys.exit(3), **TINY).fit(X, Y)


def test_a_warning_of_a_scorer_is_shown_once():
    def score(estimator, X, y):
        warnings.warn(
            f"old {estimator.predict_proba(X).sum()}", FutureWarning, stacklevel=1
        )
        return accuracy(estimator, X, y)

    with pytest.warns(FutureWarning, match="old") as caught:
        NASClassifier(scoring=score, **TINY).fit(X, Y)
    assert len(caught) == 1 and caught[0].filename == __file__


def test_the_labels_of_a_made_scorer_are_its_own():
    made = make_scorer(lambda y, p: np.mean(y == p))
    found, wanted = (
        parts_of(NASClassifier(scoring=scoring, **TINY).fit(X, Y))
        for scoring in (made, accuracy)
    )
    np.testing.assert_array_equal(found[0], wanted[0])


@pytest.mark.parametrize("trainer", ["population", "skorch"])
def test_scorers_in_threads_do_not_disturb_a_training(trainer):
    """Generators and filters of warnings are those of the whole process."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3))
    y = (X[:, 0] > 0).astype(int)

    def slow_accuracy(estimator, X, y):
        time.sleep(0.001)
        return float(np.mean(estimator.predict(X) == y))

    def fit(_):
        model = NASClassifier(
            max_trials=2,
            max_epochs=4,
            trainer=trainer,
            scoring=slow_accuracy,
            n_jobs=1,
            random_state=0,
        )
        return model.fit(X, y).predict_proba(X)

    alone, filters, state = fit(0), list(warnings.filters), torch.get_rng_state()
    with ThreadPoolExecutor(3) as pool:
        for together in pool.map(fit, range(3)):
            np.testing.assert_array_equal(together, alone)
    assert warnings.filters == filters
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (lambda e: {}["a"], "KeyError: 'a'"),
        (lambda e: e.fancy, "AttributeError: 'NASClassifier' object has no attribute"),
        (lambda e: e.predict(), r"TypeError: NASClassifier.predict\(\) missing 1"),
    ],
)
def test_errors_of_a_scorer_are_not_blamed_on_y(error, reason):
    def score(estimator, X, y):
        return error(estimator)

    message = f"of NASClassifier must return a score, got <function .*: {reason}"
    with pytest.raises(ValueError, match=message):
        NASClassifier(scoring=score, **TINY).fit(X, Y)


def test_a_scorer_that_is_refused_is_so_without_time_for_baselines(
    monkeypatch, tmp_path
):
    monkeypatch.setattr("sknas._scoring.baselines._can_score", lambda *_: False)
    model = NASClassifier(scoring=disturbed, max_time=9, checkpoint=tmp_path, **TINY)
    for _ in range(2):  # a search that is resumed, too
        with pytest.raises(ValueError, match="must score only the rows"):
            model.fit(X, Y)


def test_infinite_scores_of_baselines_are_nan():
    def score(estimator, X, y):
        predicted = estimator.predict(X)
        return accuracy_score(y, predicted) if np.ptp(predicted) else np.inf

    model = NASClassifier(scoring=score, **TINY).fit(X, Y)
    assert np.isnan(model.baseline_scores_["dummy"])
    assert np.isfinite(model.baseline_scores_["linear"])


def test_one_slow_call_does_not_decide_how_slow_a_scorer_is():
    seconds = [0.0, 0.0, 0.2, 0.0]

    def score(estimator, X, y):
        time.sleep(seconds.pop(0))
        return accuracy(estimator, X, y)

    _, problem = problem_of(NASClassifier(scoring=score), X, Y)
    for _ in range(4):
        problem.scorer.score(np.eye(2)[Y], np.arange(N))
    assert problem.scorer.call_seconds < 0.1
