"""Surrogates of scikit-optimize and scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
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

from sknas.strategies.bayesian.base import MIN_STD, Surrogate


class LibrarySurrogate(Surrogate):
    """A surrogate that wraps the model of another library, `model_`."""

    model_: Any

    def fit(self, X: np.ndarray, y: np.ndarray) -> None:
        with warnings.catch_warnings(action="ignore"):
            self.model_.fit(X, y)


class SkoptGP(LibrarySurrogate):
    """Gaussian process of scikit-optimize, with a Matern kernel.

    Parameters
    ----------
    seed : int, default=0
        Seed of the optimisation of the kernel parameters.
    """

    default_n_initial = 3

    def fit(self, X: np.ndarray, y: np.ndarray) -> None:
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
        super().fit(X, y)

    def predict(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with warnings.catch_warnings(action="ignore"):
            mean, std = self.model_.predict(X, return_std=True)
        return mean, np.maximum(std, MIN_STD)


class SkoptForest(LibrarySurrogate):
    """Random forest or extra trees of scikit-optimize.

    The variance is the sum of that between the trees and that within their leaves.

    Parameters
    ----------
    cls : type
        The class of the forest.
    seed : int, default=0
        Seed of the forest.

    References
    ----------
    Hutter, Xu, Hoos, Leyton-Brown: Algorithm Runtime Prediction: Methods and
    Evaluation. arXiv:1211.0906.
    """

    def __init__(self, cls: type, seed: int = 0) -> None:
        # Larger leaves, such as scikit-optimize's 3, smooth too much for few trials;
        # without bootstrap the trees agree too much, and the variance is too small.
        self.model_ = cls(100, min_samples_leaf=1, bootstrap=True, random_state=seed)

    def predict(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean, std = self.model_.predict(X, return_std=True)
        return mean, np.maximum(std, MIN_STD)


class SkoptQuantiles(LibrarySurrogate):
    """Gradient-boosted quantiles of scikit-optimize.

    The median serves as the mean, half of the distance between the 16 % and 84 %
    quantiles as the standard deviation.

    Parameters
    ----------
    seed : int, default=0
        Seed of the trees.
    """

    def __init__(self, seed: int = 0) -> None:
        boosted = GradientBoostingRegressor(n_estimators=30, loss="quantile")
        self.model_ = GradientBoostingQuantileRegressor(
            base_estimator=boosted, random_state=seed
        )

    def predict(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # Its `return_std` calls a function that numpy 2.4 has removed.
        low, middle, high = self.model_.predict(X, return_quantiles=True).T
        return middle, np.maximum((high - low) / 2, MIN_STD)


class DeepEnsemble(LibrarySurrogate):
    """Small neural networks, each fitted to a bootstrap sample.

    Parameters
    ----------
    seed : int, default=0
        Seed of the networks.

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

    def predict(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        losses = np.array([net.predict(X) for net in self.model_.estimators_])
        return losses.mean(axis=0), np.maximum(losses.std(axis=0), MIN_STD)


SURROGATES: dict[str, Callable[[int], Surrogate]] = {
    "gp": SkoptGP,
    "rf": partial(SkoptForest, RandomForestRegressor),
    "et": partial(SkoptForest, ExtraTreesRegressor),
    "gbrt": SkoptQuantiles,
    "deep-ensemble": DeepEnsemble,
}
