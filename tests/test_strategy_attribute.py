"""A fitted estimator keeps the results of its strategy, but no other state."""

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
def gradient_model(digits):
    given = GradientStrategy("darts", n_epochs=2, batch_size=50)
    return NASClassifier(CELLS, given, max_trials=4, **TINY).fit(*digits)


def test_gradient_search_has_trajectories(gradient_model):
    strategy = gradient_model.strategy_
    assert isinstance(strategy, GradientStrategy)
    assert set(strategy.trajectory_) == {
        name for name in CELLS.choices if name.startswith("edge")
    }
    n_records = len(strategy.entropy_)
    assert n_records > 2
    for shares in strategy.trajectory_.values():
        assert shares.shape == (n_records, 3)
        np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-5)
        assert np.ptp(shares, axis=0).max() > 0
    assert len(strategy.sharpness_) >= 1
    tried = [t.architecture for t in gradient_model.history_]
    assert strategy.derived_[0] in tried


def test_fit_does_not_change_the_strategy_parameter(gradient_model):
    given = gradient_model.get_params()["strategy"]
    assert gradient_model.strategy_ is not given
    assert set(vars(given)) == set(given.get_params())
    assert gradient_model.strategy_.get_params() == given.get_params()


def test_strategy_attribute_holds_no_data_and_no_network(gradient_model, digits):
    strategy = gradient_model.strategy_
    state = set(vars(strategy)) - set(strategy.get_params())
    assert state == set(GradientStrategy.results)
    size = len(pickle.dumps(strategy))
    assert size < 100_000
    without = pickle.loads(pickle.dumps(gradient_model))
    del without.strategy_
    assert len(pickle.dumps(gradient_model)) - len(pickle.dumps(without)) < size + 100
    again = pickle.loads(pickle.dumps(gradient_model))
    np.testing.assert_array_equal(again.strategy_.entropy_, strategy.entropy_)
    np.testing.assert_array_equal(
        again.predict(digits[0]), gradient_model.predict(digits[0])
    )


def test_search_that_ends_in_the_initial_design_has_no_trajectory(digits):
    fitted = NASClassifier(CELLS, "gradient", max_trials=1, **TINY).fit(*digits)
    assert fitted.strategy_.derived_ is None
    assert not hasattr(fitted.strategy_, "trajectory_")


@pytest.mark.parametrize("word", sorted(set(STRATEGIES) - {"gradient"}))
def test_strategy_given_by_name_is_an_instance_without_state(word):
    fitted = NASClassifier(strategy=word, max_trials=2, **TINY)
    fitted.fit(*load_iris(return_X_y=True))
    assert type(fitted.strategy_) is STRATEGIES[word]
    assert set(vars(fitted.strategy_)) == set(fitted.strategy_.get_params())


class Counting(RandomStrategy):
    """Count observed trials, and hold state that can't be pickled."""

    results = ("n_seen_",)

    def setup(self, space, problem, rng):
        super().setup(space, problem, rng)
        self.problem_, self.secret_ = problem, lambda: rng
        self.n_seen_ = 0

    def observe(self, trials):
        super().observe(trials)
        self.n_seen_ += len(trials)


def test_only_results_of_a_custom_strategy_are_kept():
    X = load_iris().data
    fitted = NASRegressor(strategy=Counting(), max_trials=3, **TINY)
    fitted.fit(X[:, :3], X[:, 3])
    assert fitted.strategy_.n_seen_ == fitted.n_trials_ == 3
    assert not hasattr(fitted.strategy_, "problem_")
    again = pickle.loads(pickle.dumps(fitted))
    assert again.strategy_.n_seen_ == 3
    fitted.set_params(max_trials=2).fit(X[:, :3], X[:, 3])
    assert fitted.strategy_.n_seen_ == 2
