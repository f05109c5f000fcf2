"""Gaussian processes over architectures."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.spatial.distance import cdist
from sklearn.feature_extraction import FeatureHasher

from sknas._history import Architecture
from sknas.spaces import Space
from sknas.strategies.bayesian.surrogates import MIN_STD, Surrogate

NOISES = (1e-3, 1e-2, 1e-1, 0.3)  # variance of a trial beside that of the process
LOG_NOISE = (-9.0, 1.0)  # bounds of its logarithm
JITTER = 1e-8
MAX_JOINT = 2_000  # points that are drawn together: their covariance takes 32 MB
MIN_SCALE = 1e-12


class GaussianProcess(Surrogate):
    """A Gaussian process whose kernel and noise are chosen by marginal likelihood.

    The scale of the process follows from the others, so that a fit is a few Cholesky
    factors of small matrices.

    Parameters
    ----------
    seed : int
        Not used: nothing is random.
    """

    usual_n_initial = 3

    def __init__(self, seed: int = 0) -> None:
        pass

    @abstractmethod
    def kernels(self) -> Sequence[Any]:
        """Parameters of the kernel to choose among."""

    @abstractmethod
    def kernel(self, A: np.ndarray, B: np.ndarray, scales: Any) -> np.ndarray:
        """Correlations of points (n, d) and (m, d), (n, m)."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> GaussianProcess:
        self.X_, self.y_ = X, y
        best, self.scales_, self.noise_ = math.inf, self.kernels()[0], NOISES[-1]
        for scales in self.kernels():
            K = self.kernel(X, X, scales)
            for noise in NOISES:
                value = _negative_log_likelihood(K, y, noise)
                if value < best:
                    best, self.scales_, self.noise_ = value, scales, noise
        self._condition()
        self._rescale()
        return self

    def _condition(self) -> None:
        """Bring what predicts up to date with the observations."""
        K = self.kernel(self.X_, self.X_, self.scales_)
        K[np.diag_indices(len(K))] += self.noise_ + JITTER
        self.factor_ = cholesky(K, lower=True)
        self.weights_ = cho_solve((self.factor_, True), self.y_)

    def _rescale(self) -> None:
        """The scale that suits the observations best."""
        self.scale_ = max(float(self.y_ @ self.weights_) / len(self.y_), MIN_SCALE)

    def predict(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        K = self.kernel(self.X_, X, self.scales_)  # (observed, n)
        explained = solve_triangular(self.factor_, K, lower=True)
        variance = self.scale_ * (1 - (explained**2).sum(axis=0))
        return self.weights_ @ K, np.sqrt(np.maximum(variance, MIN_STD**2))

    def draw(self, X: np.ndarray, rng: np.random.Generator, n: int) -> np.ndarray:
        """Functions drawn from the process, each at up to `MAX_JOINT` points together.

        More points than those are dealt into parts that know nothing of each other.
        """
        parts = np.array_split(X, -(-len(X) // MAX_JOINT))
        return np.hstack([self._drawn_jointly(part, rng, n) for part in parts])

    def _drawn_jointly(
        self, X: np.ndarray, rng: np.random.Generator, n: int
    ) -> np.ndarray:
        K = self.kernel(self.X_, X, self.scales_)
        explained = solve_triangular(self.factor_, K, lower=True)
        covariance = self.kernel(X, X, self.scales_) - explained.T @ explained
        covariance[np.diag_indices(len(X))] += 1e-6
        factor = cholesky(covariance, lower=True)
        noise = rng.standard_normal((n, len(X))) @ factor.T
        return self.weights_ @ K + math.sqrt(self.scale_) * noise

    def fantasise(self, x: np.ndarray, y: float) -> GaussianProcess:
        other = copy.copy(self)
        other.X_ = np.vstack([self.X_, x])
        other.y_ = np.append(self.y_, y)
        other._condition()
        return other


class ExponentialHammingGP(GaussianProcess):
    """A Gaussian process that counts the choices in which architectures differ.

    Its kernel is ``exp(-sum_j w_j |a_j - b_j|)`` over codes in [0, 1]: for categories
    the Hamming distance, for ordered choices the share of the range between them. The
    weights start alike and are then fitted, drawn towards where they started.

    References
    ----------
    Rasmussen, Williams: Gaussian Processes for Machine Learning. MIT Press, 2006.
    Ru, Alvi, Nguyen, Osborne, Roberts: Bayesian Optimisation over Multiple Continuous
    and Categorical Inputs. arXiv:1906.08878 (overlap kernel).
    """

    LENGTHS = (0.5, 1.0, 2.0, 4.0, 8.0)
    MIN_POINTS = 25  # observations from which each column has a weight of its own
    MAX_COLUMNS = 100  # up to which that is affordable
    N_ITERATIONS = 30
    SPREAD = 0.5  # of the logarithms of the weights around where they start

    def encode(self, space: Space, architectures: Sequence[Architecture]) -> np.ndarray:
        # Two categories differ in two of their columns: each counts a half.
        columns = [
            np.full(choice.n_columns, 1.0 if choice.n_columns == 1 else 0.5)
            for choice in space.choices.values()
        ]
        return space.encode(architectures) * np.concatenate([*columns, np.zeros(0)])

    def kernels(self) -> Sequence[np.ndarray]:
        return [np.full(self.X_.shape[1], 1 / length) for length in self.LENGTHS]

    def kernel(self, A: np.ndarray, B: np.ndarray, scales: np.ndarray) -> np.ndarray:
        return np.exp(-cdist(A * scales, B * scales, "cityblock"))

    def fit(self, X: np.ndarray, y: np.ndarray) -> ExponentialHammingGP:
        super().fit(X, y)
        if len(y) >= self.MIN_POINTS and X.shape[1] <= self.MAX_COLUMNS:
            self._fit_weights()
        return self

    def _fit_weights(self) -> None:
        """One weight a column, and the noise, from where they are."""
        used = np.flatnonzero(np.ptp(self.X_, axis=0))
        start = np.log(np.append(self.scales_[used], self.noise_))
        found = minimize(
            self._likelihood(used, start),
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=[(log - 4, log + 4) for log in start[:-1]] + [LOG_NOISE],
            options={"maxiter": self.N_ITERATIONS},
        )
        self.scales_ = self.scales_.copy()
        self.scales_[used] = np.exp(found.x[:-1])
        self.noise_ = math.exp(found.x[-1])
        self._condition()
        self._rescale()

    def _likelihood(
        self, used: np.ndarray, start: np.ndarray
    ) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
        """Logarithms of weights and noise -> what to minimise, and its gradient."""
        X, y, n = self.X_[:, used], self.y_, len(self.y_)
        apart = np.abs(X[:, None] - X[None]).reshape(n * n, -1)  # (n * n, d)

        def loss(logs: np.ndarray) -> tuple[float, np.ndarray]:
            weights, noise = np.exp(logs[:-1]), math.exp(logs[-1])
            K = np.exp(-(apart @ weights)).reshape(n, n)
            factor = cholesky(K + (noise + JITTER) * np.eye(n), lower=True)
            inverse = cho_solve((factor, True), np.eye(n))
            alpha = inverse @ y
            scale = max(float(y @ alpha) / n, MIN_SCALE)
            value = 0.5 * n * math.log(scale) + np.log(np.diag(factor)).sum()
            slope = 0.5 * (inverse - np.outer(alpha, alpha) / scale)  # by the matrix
            by_weight = -weights * ((slope * K).ravel() @ apart)
            by_noise = noise * np.trace(slope)
            away = (logs - start) / self.SPREAD  # a normal prior
            gradient = np.append(by_weight, by_noise) + away / self.SPREAD
            return float(value + 0.5 * away @ away), gradient

        return loss


class WeisfeilerLehmanGP(GaussianProcess):
    """A Gaussian process over graphs, by the parts that they have in common.

    Nodes are named by their operation and, up to two rounds further, by the names of
    the nodes that feed them; the kernel is the normalised product of the counts. For
    spaces with a `graph`, as cells have.

    References
    ----------
    Ru, Wan, Dong, Osborne: Interpretable Neural Architecture Search via Bayesian
    Optimisation with Weisfeiler-Lehman Kernels. arXiv:2006.07556 (NAS-BOWL).
    """

    ROUNDS = (0, 1, 2)
    N_NAMES = 2**10  # columns for the names of a round

    def encode(self, space: Space, architectures: Sequence[Architecture]) -> np.ndarray:
        hasher = FeatureHasher(self.N_NAMES, input_type="string", alternate_sign=False)
        graphs = [space.graph(architecture) for architecture in architectures]
        rounds: list[np.ndarray] = []
        names = [list(labels) for labels, _ in graphs]
        for number in self.ROUNDS:
            if number:
                names = [
                    _renamed(own, edges)
                    for own, (_, edges) in zip(names, graphs, strict=True)
                ]
            rounds.append(hasher.transform(names).toarray())
        return np.hstack(rounds)  # (n, rounds * N_NAMES)

    def kernels(self) -> Sequence[int]:
        return self.ROUNDS

    def kernel(self, A: np.ndarray, B: np.ndarray, scales: int) -> np.ndarray:
        n_columns = (scales + 1) * self.N_NAMES
        A, B = A[:, :n_columns], B[:, :n_columns]
        norms = np.sqrt(np.outer((A**2).sum(axis=1), (B**2).sum(axis=1)))
        return A @ B.T / np.maximum(norms, 1e-12)


def _negative_log_likelihood(K: np.ndarray, y: np.ndarray, noise: float) -> float:
    """Of zero-mean losses, at the scale that suits them best."""
    n = len(y)
    try:
        factor = cholesky(K + (noise + JITTER) * np.eye(n), lower=True)
    except np.linalg.LinAlgError:
        return math.inf
    fit = float(y @ cho_solve((factor, True), y))
    return 0.5 * n * math.log(max(fit / n, MIN_SCALE)) + float(
        np.log(np.diag(factor)).sum()
    )


def _renamed(names: list[str], edges: Sequence[tuple[int, int]]) -> list[str]:
    """Each node's name with those of the nodes that feed it."""
    feeding: list[list[str]] = [[] for _ in names]
    for source, target in edges:
        feeding[target].append(names[source])
    return [
        f"{own}({','.join(sorted(f))})" for own, f in zip(names, feeding, strict=True)
    ]
