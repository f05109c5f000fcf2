"""The interface of surrogates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from sknas._history import Architecture
from sknas.spaces import Space

MIN_STD = 1e-6  # lower bound of predicted standard deviations


class Surrogate(ABC):
    """A model that predicts the loss of an architecture, with its uncertainty.

    Losses are warped: their mean is about 0 and their standard deviation about 1.
    """

    default_n_initial = 8  # minimum number of observations for useful predictions

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def encode(self, space: Space, architectures: Sequence[Architecture]) -> np.ndarray:
        """Return the codes of architectures, (n, d)."""
        return space.encode(architectures)

    @abstractmethod
    def fit(self, X: np.ndarray, y: np.ndarray) -> None:
        """Fit the model to codes (n, d) and losses (n,)."""

    @abstractmethod
    def predict(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of the noise-free losses, (n,) each."""

    def draw(self, X: np.ndarray, rng: np.random.Generator, n: int) -> np.ndarray:
        """Draw `n` times from the predictive distribution of m points, (n, m)."""
        mean, std = self.predict(X)
        return mean + std * rng.standard_normal((n, len(mean)))

    def fantasise(self, x: np.ndarray, y: float) -> Surrogate | None:
        """Return a copy with one more observation; None if that needs a new fit."""
        return None
