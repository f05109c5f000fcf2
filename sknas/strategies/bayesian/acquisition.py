"""How much an architecture is wanted, from what a surrogate expects of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import norm

KAPPA = 1.96  # deviations below the mean that a lower bound lies
MARGIN = 0.01  # by which a loss must be lower to be an improvement

Acquisition = Callable[[np.ndarray, np.ndarray, float], np.ndarray]


def expected_improvement(mean: np.ndarray, std: np.ndarray, best: float) -> np.ndarray:
    """By how much losses are expected to be lower than the best.

    Parameters
    ----------
    mean, std : ndarray of shape (n,)
        Of the losses.
    best : float
        The lowest loss so far.

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
    """How probably losses are lower than the best."""
    return norm.cdf((best - MARGIN - mean) / std)


def lower_confidence_bound(
    mean: np.ndarray, std: np.ndarray, best: float
) -> np.ndarray:
    """How low losses may be: the bound with its sign changed."""
    return KAPPA * std - mean


ACQUISITIONS: dict[str, Acquisition] = {
    "ei": expected_improvement,
    "pi": probability_of_improvement,
    "lcb": lower_confidence_bound,
}


class Hedge:
    """A bandit over acquisitions: those whose points turn out well are taken more.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws which one decides.

    References
    ----------
    Hoffman, Brochu, de Freitas: Portfolio Allocation for Bayesian Optimization.
    arXiv:1009.5419.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.gains = np.zeros(len(ACQUISITIONS))
        self.points: list[np.ndarray] = []  # what each of them would have taken

    def pick(self, predict: Callable[[np.ndarray], tuple]) -> Acquisition:
        """The acquisition of a batch, after a look at the points of the last one.

        Parameters
        ----------
        predict : callable
            Codes -> mean and deviation, by the model of today.
        """
        if self.points:
            self.gains -= predict(np.array(self.points))[0]
        odds = np.exp(self.gains - self.gains.max())
        place = int(self.rng.choice(len(odds), p=odds / odds.sum()))
        return list(ACQUISITIONS.values())[place]

    def remember(
        self, codes: np.ndarray, mean: np.ndarray, std: np.ndarray, best: float
    ) -> None:
        """Note which of the points (n, d) each acquisition would have taken."""
        wanted = [acquire(mean, std, best) for acquire in ACQUISITIONS.values()]
        self.points = [codes[int(np.argmax(values))] for values in wanted]
