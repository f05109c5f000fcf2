"""What a surrogate is, and those of scikit-optimize and scikit-learn."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from sklearn.ensemble import BaggingRegressor, GradientBoostingRegressor
from sklearn.neural_network import MLPRegressor
from skopt.learning import (
    ExtraTreesRegressor,
    GaussianProcessRegressor,
    GradientBoostingQuantileRegressor,
    RandomForestRegressor,
)
from skopt.learning.gaussian_process.kernels import ConstantKernel, Matern

from sknas._history import Architecture
from sknas.spaces import Space

MIN_STD = 1e-6


class Surrogate(ABC):
    """A model of the losses of architectures, with its doubt.

    Losses are on a normal scale: about 0 in the mean, with a deviation of about 1.
    """

    usual_n_initial = 8  # observations before which it says little

    def encode(self, space: Space, architectures: Sequence[Architecture]) -> np.ndarray:
        """Architectures as rows of what the surrogate reads, (n, d)."""
        return space.encode(architectures)

    @abstractmethod
    def fit(self, X: np.ndarray, y: np.ndarray) -> Surrogate:
        """Learn from codes (n, d) and losses (n,)."""

    @abstractmethod
    def predict(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of the loss, without the noise of a trial, (n,) each."""

    def draw(self, X: np.ndarray, rng: np.random.Generator, n: int) -> np.ndarray:
        """Draws of the losses (n, points), each by its own mean and deviation."""
        mean, std = self.predict(X)
        return mean + std * rng.standard_normal((n, len(mean)))

    def fantasise(self, x: np.ndarray, y: float) -> Surrogate | None:
        """The same model with one more observation; None where that means a new fit."""
        return None


class SkoptGP(Surrogate):
    """Gaussian process with a Matern kernel, of scikit-optimize.

    Parameters
    ----------
    seed : int
        Seeds the search for its kernel's parameters.
    """

    usual_n_initial = 3

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def fit(self, X: np.ndarray, y: np.ndarray) -> SkoptGP:
        n_columns = X.shape[1]
        bounds = [(0.05, 20.0)] * n_columns
        matern = Matern(np.ones(n_columns), length_scale_bounds=bounds, nu=2.5)
        self.model_ = GaussianProcessRegressor(
            kernel=ConstantKernel(1.0, (0.01, 100.0)) * matern,
            normalize_y=True,
            noise="gaussian",
            n_restarts_optimizer=0,
            random_state=self.seed,
        )
        with _silence():
            self.model_.fit(X, y)
        return self

    def predict(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with _silence():
            mean, std = self.model_.predict(X, return_std=True)
        return mean, np.maximum(std, MIN_STD)


class SkoptForest(Surrogate):
    """Random forest or extra trees of scikit-optimize.

    The variance is that of the means of the leaves, and within them.

    Parameters
    ----------
    cls : type
        The class of the forest.
    seed : int
        Seeds it.

    References
    ----------
    Hutter, Xu, Hoos, Leyton-Brown: Algorithm Runtime Prediction: Methods and
    Evaluation. arXiv:1211.0906.
    """

    def __init__(self, cls: type, seed: int = 0) -> None:
        # Larger leaves, such as scikit-optimize's 3, are too smooth for few trials;
        # trees that have all seen the same rows are too sure of each other.
        self.model_ = cls(100, min_samples_leaf=1, bootstrap=True, random_state=seed)

    def fit(self, X: np.ndarray, y: np.ndarray) -> SkoptForest:
        self.model_.fit(X, y)
        return self

    def predict(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean, std = self.model_.predict(X, return_std=True)
        return mean, np.maximum(std, MIN_STD)


class SkoptQuantiles(Surrogate):
    """Gradient-boosted quantiles of scikit-optimize as mean and deviation.

    Parameters
    ----------
    seed : int
        Seeds the trees.
    """

    def __init__(self, seed: int = 0) -> None:
        boosted = GradientBoostingRegressor(n_estimators=30, loss="quantile")
        self.model_ = GradientBoostingQuantileRegressor(
            base_estimator=boosted, random_state=seed
        )

    def fit(self, X: np.ndarray, y: np.ndarray) -> SkoptQuantiles:
        self.model_.fit(X, y)
        return self

    def predict(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # Its own deviation calls a function that numpy 2.4 has removed.
        quantiles: Any = self.model_.predict(X, return_quantiles=True)
        low, middle, high = quantiles.T
        return middle, np.maximum((high - low) / 2, MIN_STD)


class DeepEnsemble(Surrogate):
    """Small neural networks, each on rows drawn with replacement.

    Parameters
    ----------
    seed : int
        Seeds the networks.

    References
    ----------
    White, Neiswanger, Savani: BANANAS: Bayesian Optimization with Neural Architectures
    for Neural Architecture Search. arXiv:1910.11858.
    Lakshminarayanan, Pritzel, Blundell: Simple and Scalable Predictive Uncertainty
    Estimation using Deep Ensembles. arXiv:1612.01474.
    """

    N_NETWORKS = 10

    def __init__(self, seed: int = 0) -> None:
        network = MLPRegressor(
            hidden_layer_sizes=(32, 32), solver="lbfgs", alpha=0.01, max_iter=100
        )
        self.model_ = BaggingRegressor(network, self.N_NETWORKS, random_state=seed)

    def fit(self, X: np.ndarray, y: np.ndarray) -> DeepEnsemble:
        with _silence():
            self.model_.fit(X, y)
        return self

    def predict(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        answers = np.array([net.predict(X) for net in self.model_.estimators_])
        return answers.mean(axis=0), np.maximum(answers.std(axis=0), MIN_STD)


@contextmanager
def _silence() -> Iterator[None]:
    """No warnings of bounds that were met, or of a fit that was long enough for us."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def random_forest(seed: int = 0) -> SkoptForest:
    """A random forest."""
    return SkoptForest(RandomForestRegressor, seed)


def extra_trees(seed: int = 0) -> SkoptForest:
    """Extra trees."""
    return SkoptForest(ExtraTreesRegressor, seed)
