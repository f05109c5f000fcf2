"""A second fit with a warm start adds trials to those of the first."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris

from sknas import NASClassifier
from sknas.exceptions import InvalidParameterError
from sknas.strategies import STRATEGIES, GradientStrategy

X, Y = load_iris(return_X_y=True)


def search(**parameters):
    usual = {
        "max_trials": 3,
        "max_epochs": 10,
        "cv": 2,
        "n_jobs": 1,
        "random_state": 0,
        "warm_start": True,
    }
    return NASClassifier(**{**usual, **parameters})


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_second_fit_adds_trials(strategy):
    if strategy == "gradient":
        strategy = GradientStrategy(n_epochs=1)
    model = search(strategy=strategy).fit(X, Y)
    first = list(model.history_)
    model.fit(X, Y)
    trials = list(model.history_)
    assert trials[: len(first)] == first
    assert len(trials) == 2 * len(first) == model.n_trials_
    assert [t.proposal.number for t in trials] == list(range(len(trials)))
    keys = {trial.architecture.key for trial in trials}
    seeds = {trial.proposal.seed for trial in trials}
    assert len(keys) == len(seeds) == len(trials)
    assert model.best_score_ >= max(t.score for t in first)
    assert model.score(X, Y) > 0.5


def test_the_ensemble_may_hold_old_and_new_trials():
    model = search(ensemble_size=8)
    for _ in range(3):
        model.fit(X, Y)
    found = {m.architecture.key for m in model.ensemble_.members}
    old = {t.architecture.key for t in list(model.history_)[:3]}
    assert found & old or model.best_architecture_.key not in old


def test_a_warm_start_is_reproducible():
    models = [search().fit(X, Y).fit(X, Y) for _ in range(2)]
    one, other = (model.predict_proba(X) for model in models)
    np.testing.assert_array_equal(one, other)


def test_a_pickled_model_can_be_extended():
    model = search().fit(X, Y)
    again = pickle.loads(pickle.dumps(model)).fit(X, Y)
    np.testing.assert_array_equal(
        again.predict_proba(X), model.fit(X, Y).predict_proba(X)
    )


def test_fit_without_warm_start_starts_a_new_search():
    model = search(warm_start=False).fit(X, Y)
    first = model.predict_proba(X)
    assert len(model.fit(X, Y).history_) == 3
    np.testing.assert_array_equal(model.predict_proba(X), first)
    assert not hasattr(model, "_previous")
    assert len(clone(search().fit(X, Y)).fit(X, Y).history_) == 3


@pytest.mark.parametrize(
    ("changes", "rows", "differs"),
    [
        ({"scoring": "neg_log_loss"}, 150, "scoring"),
        ({"max_epochs": 3}, 150, "max_epochs"),
        ({}, 140, "X, y, sample_weight"),
        ({"cv": 3}, 150, "cv"),
    ],
)
def test_changes_that_affect_scores_are_refused_and_keep_the_first_fit(
    changes, rows, differs
):
    model = search().fit(X, Y)
    before = dict(model.get_params())
    model.set_params(**changes)
    with pytest.raises(ValueError, match=rf"this one differs in {differs}: give the"):
        model.fit(X[:rows], Y[:rows])
    model.set_params(**before)
    assert len(model.fit(X, Y).history_) == 6


def test_the_strategy_may_change():
    model = search().fit(X, Y)
    changes = {"strategy": "random", "max_trials": 2, "ensemble_size": 1}
    model.set_params(**changes, random_state=7).fit(X, Y)
    assert len(model.history_) == 5
    assert len(model.ensemble_) == 1


def test_warm_start_is_stored_in_a_checkpoint(tmp_path):
    plain = search().fit(X, Y).fit(X, Y)
    kept = search(checkpoint=tmp_path).fit(X, Y).fit(X, Y)
    np.testing.assert_array_equal(plain.predict_proba(X), kept.predict_proba(X))
    assert len(list(tmp_path.iterdir())) == 2
    again = search(checkpoint=tmp_path).fit(X, Y).fit(X, Y)
    np.testing.assert_array_equal(plain.predict_proba(X), again.predict_proba(X))
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("warm_start", ["yes", 1, None])
def test_warm_start_must_be_a_bool(warm_start):
    with pytest.raises(InvalidParameterError, match="'warm_start' parameter"):
        search(warm_start=warm_start).fit(X, Y)
