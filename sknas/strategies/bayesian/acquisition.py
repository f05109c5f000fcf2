"""Acquisition functions: the utility of a point, given a surrogate's prediction."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import norm

KAPPA = 1.96  # standard deviations between the mean and the confidence bound
MARGIN = 0.01  # smallest decrease of the loss that counts as an improvement

Acquisition = Callable[[np.ndarray, np.ndarray, float], np.ndarray]


def expected_improvement(mean: np.ndarray, std: np.ndarray, best: float) -> np.ndarray:
    """Return the expected decrease of the loss below the best one.

    Parameters
    ----------
    mean, std : ndarray of shape (n,)
        Predicted losses and their standard deviations.
    best : float
        The lowest loss so far.

    Returns
    -------
    ndarray of shape (n,)
        Utilities; greater is better.

    References
    ----------
    Jones, Schonlau, Welch: Efficient Global Optimization of Expensive Black-Box
    Functions. Journal of Global Optimization 13, 1998.
    """
    gain = best - MARGIN - mean
    z = gain / std
    return gain * norm.cdf(z) + std * norm.pdf(z)


def probability_of_improvement(
    mean: np.ndarray, std: np.ndarray, best: float
) -> np.ndarray:
    """Return the probability of a loss below the best one."""
    return norm.cdf((best - MARGIN - mean) / std)


def lower_confidence_bound(
    mean: np.ndarray, std: np.ndarray, best: float
) -> np.ndarray:
    """Return the negated lower confidence bound of the loss."""
    return KAPPA * std - mean


ACQUISITIONS: dict[str, Acquisition] = {
    "ei": expected_improvement,
    "pi": probability_of_improvement,
    "lcb": lower_confidence_bound,
}


class Hedge:
    """A bandit over acquisition functions, rewarded by the losses of their nominees.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws the acquisition function of each batch.

    References
    ----------
    Hoffman, Brochu, de Freitas: Portfolio Allocation for Bayesian Optimization.
    arXiv:1009.5419.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.gains = np.zeros(len(ACQUISITIONS))
        self.nominees: list[np.ndarray] = []  # the best point of each acquisition

    def choose(self, predict: Callable[[np.ndarray], tuple]) -> Acquisition:
        """Reward the last nominees, and draw the acquisition function of a batch.

        Parameters
        ----------
        predict : callable
            The current model: codes (n, d) -> mean and standard deviation, (n,) each.
        """
        if self.nominees:
            self.gains -= predict(np.array(self.nominees))[0]
        odds = np.exp(self.gains - self.gains.max())
        index = int(self.rng.choice(len(odds), p=odds / odds.sum()))
        return list(ACQUISITIONS.values())[index]

    def nominate(
        self, codes: np.ndarray, mean: np.ndarray, std: np.ndarray, best: float
    ) -> None:
        """Store the best point of `codes` (n, d) by each acquisition function."""
        utilities = [acquire(mean, std, best) for acquire in ACQUISITIONS.values()]
        self.nominees = [codes[int(np.argmax(values))] for values in utilities]
