"""Acquisition functions against Monte Carlo estimates."""

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
def test_acquisitions_equal_monte_carlo_estimates(best):
    rng = np.random.default_rng(0)
    drawn = MEANS + STDS * rng.standard_normal((400_000, 5))
    gains = np.maximum(best - MARGIN - drawn, 0)
    mine = expected_improvement(MEANS, STDS, best)
    np.testing.assert_allclose(mine, gains.mean(axis=0), atol=0.01)
    mine = probability_of_improvement(MEANS, STDS, best)
    np.testing.assert_allclose(mine, (gains > 0).mean(axis=0), atol=0.005)


def test_lower_confidence_bound_equals_its_formula():
    bound = -lower_confidence_bound(MEANS, STDS, 0.0)
    np.testing.assert_allclose(bound, MEANS - KAPPA * STDS)


@pytest.mark.parametrize("name", ACQUISITIONS)
def test_utility_rises_with_lower_means_and_more_uncertainty(name):
    acquire = ACQUISITIONS[name]
    by_mean = acquire(np.linspace(-1, 1, 9), np.ones(9), 0.5)
    assert (np.diff(by_mean) < 0).all()
    by_std = acquire(np.ones(9), np.linspace(0.1, 2, 9), 0.5)
    assert (np.diff(by_std) > 0).all()


def test_hedge_prefers_the_acquisition_with_the_best_nominees():
    """Nominees of the first acquisition have low losses, all others have high ones."""
    codes = np.array([[0.0], [1.0], [2.0]])
    hedge = Hedge(np.random.default_rng(0))
    first = [hedge.choose(lambda X: (X[:, 0], None)).__name__ for _ in range(60)]
    assert len(set(first)) == 3  # uniform at first
    for _ in range(3):
        hedge.nominees = [codes[0], codes[2], codes[2]]
        hedge.choose(lambda X: (3 * X[:, 0], None))
    hedge.nominees = []
    picked = [hedge.choose(lambda X: (X[:, 0], None)) for _ in range(20)]
    assert set(picked) == {expected_improvement}
    np.testing.assert_allclose(hedge.gains, [0, -18, -18])


def test_hedge_remembers_the_nominee_of_each_acquisition():
    hedge = Hedge(np.random.default_rng(0))
    codes = np.array([[0.0], [1.0], [2.0]])
    mean, std = np.array([-0.1, 0.0, 3.0]), np.array([0.01, 1.0, 9.0])
    hedge.nominate(codes, mean, std, 0.0)
    assert [point[0] for point in hedge.nominees] == [2.0, 0.0, 2.0]
