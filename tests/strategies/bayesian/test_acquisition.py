"""What acquisitions say of means and deviations."""

import numpy as np
import pytest

from sknas.strategies.bayesian.acquisition import (
    ACQUISITIONS,
    KAPPA,
    MARGIN,
    Hedge,
    expected_improvement,
    lower_confidence_bound,
    probability_of_improvement,
)

MEANS = np.array([-2.0, -0.5, 0.0, 0.4, 3.0])
STDS = np.array([0.1, 1.0, 0.5, 2.0, 1.0])


@pytest.mark.parametrize("best", [-1.0, 0.0, 1.5])
def test_they_are_what_draws_say(best):
    rng = np.random.default_rng(0)
    drawn = MEANS + STDS * rng.standard_normal((400_000, 5))
    gains = np.maximum(best - MARGIN - drawn, 0)
    mine = expected_improvement(MEANS, STDS, best)
    np.testing.assert_allclose(mine, gains.mean(axis=0), atol=0.01)
    mine = probability_of_improvement(MEANS, STDS, best)
    np.testing.assert_allclose(mine, (gains > 0).mean(axis=0), atol=0.005)


def test_the_bound_is_as_low_as_losses_may_be():
    bound = -lower_confidence_bound(MEANS, STDS, 0.0)
    np.testing.assert_allclose(bound, MEANS - KAPPA * STDS)


@pytest.mark.parametrize("name", ACQUISITIONS)
def test_lower_means_and_more_doubt_are_wanted(name):
    acquire = ACQUISITIONS[name]
    by_mean = acquire(np.linspace(-1, 1, 9), np.ones(9), 0.5)
    assert (np.diff(by_mean) < 0).all()
    by_std = acquire(np.ones(9), np.linspace(0.1, 2, 9), 0.5)
    assert (np.diff(by_std) > 0).all()


def test_hedge_follows_who_was_right():
    """Points of the first acquisition turn out low, those of the others high."""
    codes = np.array([[0.0], [1.0], [2.0]])
    hedge = Hedge(np.random.default_rng(0))
    first = [hedge.pick(lambda X: (X[:, 0], None)).__name__ for _ in range(60)]
    assert len(set(first)) == 3  # all alike before anything is known
    for _ in range(3):
        hedge.points = [codes[0], codes[2], codes[2]]
        hedge.pick(lambda X: (3 * X[:, 0], None))
    hedge.points = []
    picked = [hedge.pick(lambda X: (X[:, 0], None)) for _ in range(20)]
    assert set(picked) == {expected_improvement}
    np.testing.assert_allclose(hedge.gains, [0, -18, -18])


def test_hedge_remembers_what_each_would_have_taken():
    hedge = Hedge(np.random.default_rng(0))
    codes = np.array([[0.0], [1.0], [2.0]])
    mean, std = np.array([-0.1, 0.0, 3.0]), np.array([0.01, 1.0, 9.0])
    hedge.remember(codes, mean, std, 0.0)
    assert [point[0] for point in hedge.points] == [2.0, 0.0, 2.0]
