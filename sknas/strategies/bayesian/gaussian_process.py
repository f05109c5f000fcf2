"""Gaussian processes over architectures.

Symbols, for n observed trials, m other points and d columns of codes. Attributes have
the same names with a trailing underscore. The mean of the prior is zero.

    X             (n, d)  codes of the observed trials
    y             (n,)    their losses
    A, B          (m, d)  codes of other points
    theta                 kernel parameters: the weights (d,) of the columns, or the
                          number of Weisfeiler-Lehman rounds
    variance      scalar  signal variance, that of the process
    noise         scalar  variance of the noise, relative to the signal variance
    kernel(A, B)          correlations: covariances relative to the signal variance
    K             (n, n)  kernel(X, X)
    K_star        (n, m)  kernel(X, A)
    L             (n, n)  lower Cholesky factor of K + (noise + JITTER) I
    alpha         (n,)    inverse of (K + (noise + JITTER) I), times y
    V             (n, m)  inverse of L, times K_star
    mean          (m,)    alpha @ K_star
    std ** 2      (m,)    variance * (1 - (V ** 2).sum(axis=0))
    covariance    (m, m)  kernel(A, A) - V.T @ V, relative to the signal variance
"""

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
from sknas.strategies.bayesian.base import MIN_STD, Surrogate

NOISES = (1e-3, 1e-2, 1e-1, 0.3)  # candidate noise variances
LOG_NOISE_BOUNDS = (-9.0, 1.0)
JITTER = 1e-8  # added to the diagonal of K
DRAW_JITTER = 1e-6  # added to the diagonal of the covariance of draws
MAX_JOINT = 2_000  # points drawn jointly: their covariance takes 32 MB
MIN_VARIANCE = 1e-12


class GaussianProcess(Surrogate):
    """A Gaussian process whose kernel and noise maximise the marginal likelihood.

    The signal variance has a closed form given the other parameters, so a fit takes a
    few Cholesky factorisations of small matrices.

    Parameters
    ----------
    seed : int, default=0
        Ignored: the fit is deterministic.
    """

    default_n_initial = 3

    @abstractmethod
    def kernel_grid(self) -> Sequence[Any]:
        """Return the candidate kernel parameters."""

    @abstractmethod
    def kernel(self, A: np.ndarray, B: np.ndarray, theta: Any) -> np.ndarray:
        """Return the correlations of two sets of points, (len(A), len(B))."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> None:
        self.X_, self.y_ = X, y
        grid = self.kernel_grid()
        best, self.theta_, self.noise_ = math.inf, grid[0], NOISES[-1]
        for theta in grid:
            K = self.kernel(X, X, theta)
            for noise in NOISES:
                loss = _negative_log_likelihood(K, y, noise)
                if loss < best:
                    best, self.theta_, self.noise_ = loss, theta, noise
        self._condition()
        self._fit_variance()

    def _condition(self) -> None:
        """Compute the posterior given the observations and parameters."""
        K = self.kernel(self.X_, self.X_, self.theta_)
        K[np.diag_indices(len(K))] += self.noise_ + JITTER
        self.L_ = cholesky(K, lower=True)
        self.alpha_ = cho_solve((self.L_, True), self.y_)

    def _fit_variance(self) -> None:
        """Set the signal variance that maximises the marginal likelihood."""
        variance = float(self.y_ @ self.alpha_) / len(self.y_)
        self.variance_ = max(variance, MIN_VARIANCE)

    def predict(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        K_star = self.kernel(self.X_, X, self.theta_)  # (n, m)
        V = solve_triangular(self.L_, K_star, lower=True)
        variance = self.variance_ * (1 - (V**2).sum(axis=0))
        return self.alpha_ @ K_star, np.sqrt(np.maximum(variance, MIN_STD**2))

    def draw(self, X: np.ndarray, rng: np.random.Generator, n: int) -> np.ndarray:
        """Draw `n` functions of the posterior, evaluated at m points, (n, m).

        More than `MAX_JOINT` points are drawn in independent parts, to bound memory.
        """
        parts = np.array_split(X, -(-len(X) // MAX_JOINT))
        return np.hstack([self._draw_jointly(part, rng, n) for part in parts])

    def _draw_jointly(
        self, X: np.ndarray, rng: np.random.Generator, n: int
    ) -> np.ndarray:
        K_star = self.kernel(self.X_, X, self.theta_)  # (n, m)
        V = solve_triangular(self.L_, K_star, lower=True)
        covariance = self.kernel(X, X, self.theta_) - V.T @ V  # (m, m)
        covariance[np.diag_indices(len(X))] += DRAW_JITTER
        factor = cholesky(covariance, lower=True)
        deviations = rng.standard_normal((n, len(X))) @ factor.T
        return self.alpha_ @ K_star + math.sqrt(self.variance_) * deviations

    def fantasise(self, x: np.ndarray, y: float) -> GaussianProcess:
        other = copy.copy(self)
        other.X_ = np.vstack([self.X_, x])
        other.y_ = np.append(self.y_, y)
        other._condition()
        return other


class ExponentialHammingGP(GaussianProcess):
    """A Gaussian process with an exponential kernel of a weighted Hamming distance.

    The kernel is ``exp(-sum_j w_j |a_j - b_j|)`` over codes in [0, 1]: the Hamming
    distance for categories, the distance relative to the range for ordered choices.
    The weights start equal; with enough observations each is fitted, with a prior
    around its start.

    References
    ----------
    Rasmussen, Williams: Gaussian Processes for Machine Learning. MIT Press, 2006.
    Ru, Alvi, Nguyen, Osborne, Roberts: Bayesian Optimisation over Multiple Continuous
    and Categorical Inputs. arXiv:1906.08878 (overlap kernel).
    """

    LENGTH_SCALES = (0.5, 1.0, 2.0, 4.0, 8.0)
    MIN_OBSERVATIONS = 25  # minimum number of observations to fit the weights
    MAX_COLUMNS = 100  # maximum number of columns at which fitting is affordable
    MAX_ITER = 30  # iterations of L-BFGS-B
    PRIOR_STD = 0.5  # prior standard deviation of log weights and log noise

    def encode(self, space: Space, architectures: Sequence[Architecture]) -> np.ndarray:
        # Two one-hot codes differ in two columns, so each column counts a half.
        columns = [
            np.full(choice.n_columns, 1.0 if choice.n_columns == 1 else 0.5)
            for choice in space.choices.values()
        ]
        return space.encode(architectures) * np.concatenate([*columns, np.zeros(0)])

    def kernel_grid(self) -> Sequence[np.ndarray]:
        return [np.full(self.X_.shape[1], 1 / scale) for scale in self.LENGTH_SCALES]

    def kernel(self, A: np.ndarray, B: np.ndarray, theta: np.ndarray) -> np.ndarray:
        return np.exp(-cdist(A * theta, B * theta, "cityblock"))

    def fit(self, X: np.ndarray, y: np.ndarray) -> None:
        super().fit(X, y)
        if len(y) >= self.MIN_OBSERVATIONS and X.shape[1] <= self.MAX_COLUMNS:
            self._fit_weights()

    def _fit_weights(self) -> None:
        """Fit one weight per column and the noise, starting from the current ones."""
        used = np.flatnonzero(np.ptp(self.X_, axis=0))
        start = np.log(np.append(self.theta_[used], self.noise_))
        found = minimize(
            self._loss_function(used, start),
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=[(log - 4, log + 4) for log in start[:-1]] + [LOG_NOISE_BOUNDS],
            options={"maxiter": self.MAX_ITER},
        )
        self.theta_ = self.theta_.copy()
        self.theta_[used] = np.exp(found.x[:-1])
        self.noise_ = math.exp(found.x[-1])
        self._condition()
        self._fit_variance()

    def _loss_function(
        self, used: np.ndarray, start: np.ndarray
    ) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
        """Return the negative log posterior of the parameters, with its gradient.

        Parameters
        ----------
        used : ndarray of int
            Columns whose weights are fitted.
        start : ndarray of shape (len(used) + 1,)
            Logarithms of the weights and of the noise: the mean of the prior.
        """
        X, y, n = self.X_[:, used], self.y_, len(self.y_)
        distances = np.abs(X[:, None] - X[None]).reshape(n * n, -1)  # (n * n, d)

        def loss(logs: np.ndarray) -> tuple[float, np.ndarray]:
            weights, noise = np.exp(logs[:-1]), math.exp(logs[-1])
            K = np.exp(-(distances @ weights)).reshape(n, n)
            L = cholesky(K + (noise + JITTER) * np.eye(n), lower=True)
            inverse = cho_solve((L, True), np.eye(n))
            alpha = inverse @ y
            variance = max(float(y @ alpha) / n, MIN_VARIANCE)
            value = 0.5 * n * math.log(variance) + np.log(np.diag(L)).sum()
            by_K = 0.5 * (inverse - np.outer(alpha, alpha) / variance)  # (n, n)
            by_weights = -weights * ((by_K * K).ravel() @ distances)
            by_noise = noise * np.trace(by_K)
            z = (logs - start) / self.PRIOR_STD
            gradient = np.append(by_weights, by_noise) + z / self.PRIOR_STD
            return float(value + 0.5 * z @ z), gradient

        return loss


class WeisfeilerLehmanGP(GaussianProcess):
    """A Gaussian process over graphs with a Weisfeiler-Lehman subtree kernel.

    Nodes are labelled with their operation. Up to two times, each label is extended by
    the labels of the nodes that feed it. The kernel is the cosine similarity of the
    label counts. It needs a space with a `graph`.

    References
    ----------
    Ru, Wan, Dong, Osborne: Interpretable Neural Architecture Search via Bayesian
    Optimisation with Weisfeiler-Lehman Kernels. arXiv:2006.07556 (NAS-BOWL).
    """

    ROUNDS = (0, 1, 2)
    N_FEATURES = 2**10  # number of hashed labels per round

    def encode(self, space: Space, architectures: Sequence[Architecture]) -> np.ndarray:
        hasher = FeatureHasher(
            self.N_FEATURES, input_type="string", alternate_sign=False
        )
        graphs = [space.graph(architecture) for architecture in architectures]
        labels = [list(labels) for labels, _ in graphs]
        counts: list[np.ndarray] = []
        for number in self.ROUNDS:
            if number:
                labels = [
                    _relabel(old, edges)
                    for old, (_, edges) in zip(labels, graphs, strict=True)
                ]
            counts.append(hasher.transform(labels).toarray())
        return np.hstack(counts)  # (n, rounds * N_FEATURES)

    def kernel_grid(self) -> Sequence[int]:
        return self.ROUNDS

    def kernel(self, A: np.ndarray, B: np.ndarray, theta: int) -> np.ndarray:
        n_columns = (theta + 1) * self.N_FEATURES
        A, B = A[:, :n_columns], B[:, :n_columns]
        norms = np.sqrt(np.outer((A**2).sum(axis=1), (B**2).sum(axis=1)))
        return A @ B.T / np.maximum(norms, 1e-12)


def _negative_log_likelihood(K: np.ndarray, y: np.ndarray, noise: float) -> float:
    """Return the loss at the best signal variance, up to a constant."""
    n = len(y)
    try:
        L = cholesky(K + (noise + JITTER) * np.eye(n), lower=True)
    except np.linalg.LinAlgError:
        return math.inf
    variance = max(float(y @ cho_solve((L, True), y)) / n, MIN_VARIANCE)
    return 0.5 * n * math.log(variance) + float(np.log(np.diag(L)).sum())


def _relabel(labels: list[str], edges: Sequence[tuple[int, int]]) -> list[str]:
    """Extend the label of each node by those of the nodes that feed it."""
    sources: list[list[str]] = [[] for _ in labels]
    for source, target in edges:
        sources[target].append(labels[source])
    return [
        f"{label}({','.join(sorted(feeding))})"
        for label, feeding in zip(labels, sources, strict=True)
    ]
