"""A fitted estimator tells of its strategy, and holds nothing else of it."""

import pickle

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_iris

from sknas import NASClassifier, NASRegressor
from sknas.spaces import CellSpace
from sknas.strategies import STRATEGIES, GradientStrategy, RandomStrategy

TINY = {"max_epochs": 1, "cv": 2, "n_jobs": 1, "random_state": 0}
CELLS = CellSpace(cells=(1,), channels=(4,), operation=("skip", "conv_1", "conv_3"))
N_IMAGES = 200


@pytest.fixture(scope="module")
def digits():
    images, y = load_digits().images, load_digits().target
    return images[:N_IMAGES].astype(np.uint8), y[:N_IMAGES]


@pytest.fixture(scope="module")
def by_gradient(digits):
    given = GradientStrategy("darts", n_epochs=2, batch_size=50)
    return NASClassifier(CELLS, given, max_trials=4, **TINY).fit(*digits)


def test_trajectories_of_a_search_by_gradient_are_there(by_gradient):
    told = by_gradient.strategy_
    assert isinstance(told, GradientStrategy)
    assert set(told.trajectory_) == {
        name for name in CELLS.choices if name.startswith("edge")
    }
    n_records = len(told.entropy_)
    assert n_records > 2
    for shares in told.trajectory_.values():
        assert shares.shape == (n_records, 3)
        np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-5)
        assert np.ptp(shares, axis=0).max() > 0
    assert len(told.sharpness_) >= 1
    tried = [t.architecture for t in by_gradient.history_]
    assert told.derived_[0] in tried


def test_given_strategy_stays_as_it_was(by_gradient):
    given = by_gradient.get_params()["strategy"]
    assert by_gradient.strategy_ is not given
    assert set(vars(given)) == set(given.get_params())
    assert by_gradient.strategy_.get_params() == given.get_params()


def test_no_data_and_no_network_is_kept(by_gradient, digits):
    told = by_gradient.strategy_
    state = set(vars(told)) - set(told.get_params())
    assert state == set(GradientStrategy.results)
    size = len(pickle.dumps(told))
    assert size < 100_000
    without = pickle.loads(pickle.dumps(by_gradient))
    del without.strategy_
    assert len(pickle.dumps(by_gradient)) - len(pickle.dumps(without)) < size + 100
    again = pickle.loads(pickle.dumps(by_gradient))
    np.testing.assert_array_equal(again.strategy_.entropy_, told.entropy_)
    np.testing.assert_array_equal(
        again.predict(digits[0]), by_gradient.predict(digits[0])
    )


def test_search_that_ends_with_known_architectures_has_no_trajectory(digits):
    fitted = NASClassifier(CELLS, "gradient", max_trials=1, **TINY).fit(*digits)
    assert fitted.strategy_.derived_ is None
    assert not hasattr(fitted.strategy_, "trajectory_")


@pytest.mark.parametrize("word", sorted(set(STRATEGIES) - {"gradient"}))
def test_words_give_their_strategy_without_state(word):
    fitted = NASClassifier(strategy=word, max_trials=2, **TINY)
    fitted.fit(*load_iris(return_X_y=True))
    assert type(fitted.strategy_) is STRATEGIES[word]
    assert set(vars(fitted.strategy_)) == set(fitted.strategy_.get_params())


class Counting(RandomStrategy):
    """Counts what it is told of, and holds what can't be pickled."""

    results = ("n_seen_",)

    def setup(self, space, problem, rng):
        super().setup(space, problem, rng)
        self.problem_, self.secret_ = problem, lambda: rng
        self.n_seen_ = 0

    def observe(self, trials):
        super().observe(trials)
        self.n_seen_ += len(trials)


def test_results_of_own_strategy_outlive_the_search_and_nothing_else_does():
    X = load_iris().data
    fitted = NASRegressor(strategy=Counting(), max_trials=3, **TINY)
    fitted.fit(X[:, :3], X[:, 3])
    assert fitted.strategy_.n_seen_ == fitted.n_trials_ == 3
    assert not hasattr(fitted.strategy_, "problem_")
    again = pickle.loads(pickle.dumps(fitted))
    assert again.strategy_.n_seen_ == 3
    fitted.set_params(max_trials=2).fit(X[:, :3], X[:, 3])
    assert fitted.strategy_.n_seen_ == 2
