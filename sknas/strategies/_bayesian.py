"""Bayesian optimisation on the surrogates and acquisitions of scikit-optimize."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import norm, rankdata
from sklearn.ensemble import GradientBoostingRegressor
from skopt.acquisition import gaussian_ei, gaussian_lcb, gaussian_pi
from skopt.learning import (
    ExtraTreesRegressor,
    GaussianProcessRegressor,
    GradientBoostingQuantileRegressor,
    RandomForestRegressor,
)
from skopt.learning.gaussian_process.kernels import ConstantKernel, Matern

from sknas._checks import check_integer, check_word
from sknas._history import Architecture, Proposal, Trial
from sknas._problem import Problem
from sknas.spaces import Space, UnseenSampler
from sknas.strategies._base import Strategy

ACQUISITIONS = ("ei", "pi", "lcb", "gp_hedge")
N_NEAR = 8  # best architectures whose neighbours are drawn
MAX_POINTS = 300  # trials a surrogate is fitted on at most: the best and the latest
N_COMPARED = 8  # trials that a rung must have to be the one that is modelled
SPACING = 0.05  # squared distance a dimension within which proposals repel each other


class BayesianStrategy(Strategy):
    """Fits a surrogate to the scores so far and proposes where it expects most.

    The surrogate is fitted once a batch, on rank-normalised scores: those at the
    highest rung that enough trials have reached. Architectures are drawn from the space
    and from the neighbourhood of the best architectures; a batch is picked by the
    acquisition, lowered near what the batch already has.

    Parameters
    ----------
    surrogate : {"gp", "rf", "et", "gbrt"}, default="gp"
        Gaussian process, random forest, extra trees, or gradient-boosted trees.
    acquisition : {"ei", "pi", "lcb", "gp_hedge"}, default="ei"
        Expected improvement, probability of improvement, lower confidence bound, or
        a bandit over the three.
    n_initial_points : int or None, default=None
        Trials observed before the surrogate is used; random proposals until then.
        None takes 3 for the Gaussian process and 8 for trees, which say little before.
    n_draws : int, default=500
        Architectures the acquisition chooses among.

    References
    ----------
    Jones, Schonlau, Welch: Efficient Global Optimization of Expensive Black-Box
    Functions. Journal of Global Optimization 13, 1998.
    Hoffman, Brochu, de Freitas: Portfolio Allocation for Bayesian Optimization.
    arXiv:1009.5419 (gp_hedge).

    Examples
    --------
    >>> import sknas
    >>> from sknas.strategies import BayesianStrategy
    >>> history = sknas.search(
    ...     lambda a: -abs(a["x"] - 37) - (a["kind"] == "b"),
    ...     {"x": (0, 99), "kind": ["a", "b"]},
    ...     strategy=BayesianStrategy(surrogate="et"), max_trials=30, random_state=0,
    ... )
    >>> history.best.architecture["kind"]
    'a'
    """

    def __init__(
        self,
        surrogate: str = "gp",
        acquisition: str = "ei",
        n_initial_points: int | None = None,
        n_draws: int = 500,
    ) -> None:
        self.surrogate = surrogate
        self.acquisition = acquisition
        self.n_initial_points = n_initial_points
        self.n_draws = n_draws

    def setup(self, space: Space, problem: Problem, rng: np.random.Generator) -> None:
        owner = type(self).__name__
        check_word(owner, "surrogate", self.surrogate, SURROGATES)
        check_word(owner, "acquisition", self.acquisition, ACQUISITIONS)
        check_integer(
            owner, "n_initial_points", self.n_initial_points, 1, optional=True
        )
        check_integer(owner, "n_draws", self.n_draws, 1)
        self.space_ = space
        self.rng_ = rng
        self.sampler_ = UnseenSampler(space, problem.feasible, rng)
        self.trials_: list[Trial] = []
        self.gains_ = np.zeros(3)  # of EI, PI and LCB, for gp_hedge
        self.hedged_: list[np.ndarray] = []  # the point each of them would have taken

    def observe(self, trials: Sequence[Trial]) -> None:
        self.sampler_.mark(trial.architecture for trial in trials)
        # A stopped trial says nothing about its architecture; a failed one does.
        self.trials_ += [trial for trial in trials if trial.status != "stopped"]

    def propose(self, n: int) -> list[Proposal]:
        chosen: list[Architecture] = []
        scored = [trial for trial in self.trials_ if trial.score is not None]
        usual = 3 if self.surrogate == "gp" else 8
        if len(scored) >= (self.n_initial_points or usual):
            chosen = self._choose(n)
        if len(chosen) < n:
            self.sampler_.mark(chosen)
            chosen += self.sampler_.draw(n - len(chosen))
        self.sampler_.mark(chosen)
        return [Proposal(architecture) for architecture in chosen]

    def _choose(self, n: int) -> list[Architecture]:
        drawn = self._drawn()
        if not drawn:
            return []
        kept, scores = self._comparable(self._kept_trials())
        X = self.space_.encode([trial.architecture for trial in kept])
        y = _losses(scores)
        if not X.shape[1]:
            return drawn[:n]
        seed = int(self.rng_.integers(2**31))
        model = SURROGATES[self.surrogate](X.shape[1], seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of kernel bounds met, and the like
            model.fit(X, y)
            Z = self.space_.encode(drawn)
            wanted = self._acquire(model, Z, float(y.min()))
        return [drawn[place] for place in _spread(wanted, Z, n)]

    def _drawn(self) -> list[Architecture]:
        """New architectures: half around the best so far, half from all over."""
        best = sorted(self.trials_, key=lambda trial: trial.order)[:N_NEAR]
        per_best = max(1, self.n_draws // (2 * len(best)))
        near = [
            architecture
            for trial in best
            for architecture in self.space_.neighbours(
                trial.architecture, per_best, self.rng_
            )
        ]
        anywhere = self.space_.sample(self.n_draws - len(near), self.rng_)
        return self.sampler_.unseen([*near, *anywhere])

    def _kept_trials(self) -> list[Trial]:
        if len(self.trials_) <= MAX_POINTS:
            return self.trials_
        by_order = sorted(self.trials_, key=lambda trial: trial.order)
        best = by_order[: MAX_POINTS // 2]
        latest = [trial for trial in self.trials_ if trial not in best]
        return best + latest[-MAX_POINTS // 2 :]

    def _comparable(
        self, trials: Sequence[Trial]
    ) -> tuple[list[Trial], list[float | None]]:
        """Trials with their scores at the highest rung that enough have reached.

        Scores of different rungs can't be compared. A failed trial has none.
        """
        scored = [trial for trial in trials if trial.score is not None]
        rung = max(trial.proposal.rung for trial in scored)
        while rung and sum(t.proposal.rung >= rung for t in scored) < N_COMPARED:
            rung -= 1
        kept = [t for t in trials if t.score is None or t.proposal.rung >= rung]
        return kept, [_score_at(trial, rung) for trial in kept]

    def _acquire(self, model: Any, Z: np.ndarray, y_best: float) -> np.ndarray:
        """How much each architecture is wanted, (n,), greater is better."""
        if self.acquisition != "gp_hedge":
            return _ACQUIRE[self.acquisition](model, Z, y_best)
        if self.hedged_:  # what the points of the last time are worth by now
            self.gains_ -= model.predict(np.array(self.hedged_))
        values = [acquire(model, Z, y_best) for acquire in _ACQUIRE.values()]
        self.hedged_ = [Z[int(np.argmax(value))] for value in values]
        odds = np.exp(self.gains_ - self.gains_.max())
        return values[int(self.rng_.choice(3, p=odds / odds.sum()))]


class _Quantiles:
    """Gradient-boosted quantiles as mean and deviation.

    scikit-optimize's own deviation calls a function that numpy 2.4 has removed, and
    its optimiser refuses the class as no regressor; its quantiles work.
    """

    def __init__(self, seed: int) -> None:
        boosted = GradientBoostingRegressor(n_estimators=30, loss="quantile")
        self.model = GradientBoostingQuantileRegressor(
            base_estimator=boosted, random_state=seed
        )

    def fit(self, X: np.ndarray, y: np.ndarray) -> None:
        self.model.fit(X, y)

    def predict(self, X: np.ndarray, return_std: bool = False) -> Any:
        low, middle, high = self.model.predict(X, return_quantiles=True).T
        return (middle, np.maximum(high - low, 1e-6) / 2) if return_std else middle


def _gaussian_process(n_columns: int, seed: int) -> GaussianProcessRegressor:
    bounds = [(0.05, 20.0)] * n_columns
    matern = Matern(np.ones(n_columns), length_scale_bounds=bounds, nu=2.5)
    return GaussianProcessRegressor(
        kernel=ConstantKernel(1.0, (0.01, 100.0)) * matern,
        normalize_y=True,
        noise="gaussian",
        n_restarts_optimizer=0,
        random_state=seed,
    )


def _forest(cls: type, n_columns: int, seed: int) -> Any:
    # Larger leaves, such as scikit-optimize's 3, are too smooth for few trials.
    return cls(n_estimators=100, min_samples_leaf=1, random_state=seed)


SURROGATES = {
    "gp": _gaussian_process,
    "rf": lambda n_columns, seed: _forest(RandomForestRegressor, n_columns, seed),
    "et": lambda n_columns, seed: _forest(ExtraTreesRegressor, n_columns, seed),
    "gbrt": lambda n_columns, seed: _Quantiles(seed),
}

_ACQUIRE = {
    "ei": lambda model, Z, y_best: gaussian_ei(Z, model, y_best),
    "pi": lambda model, Z, y_best: gaussian_pi(Z, model, y_best),
    "lcb": lambda model, Z, y_best: -gaussian_lcb(Z, model),
}


def _score_at(trial: Trial, rung: int) -> float | None:
    """The score of a trial when it reached a rung."""
    at_rungs = trial.rung_scores
    return at_rungs[rung] if rung < len(at_rungs) else trial.score


def _losses(given: Sequence[float | None]) -> np.ndarray:
    """Scores as losses on a normal scale by their ranks; failures are the worst.

    Ranks keep one diverged network from flattening all other differences.
    """
    worst = min((score for score in given if score is not None), default=0.0)
    scores = np.array([worst if score is None else score for score in given])
    return norm.ppf((rankdata(-scores) - 0.5) / len(scores))


def _spread(wanted: np.ndarray, Z: np.ndarray, n: int) -> list[int]:
    """Pick `n` places one by one, each lowering what is near it."""
    worth = wanted - wanted.min()
    places: list[int] = []
    for _ in range(min(n, len(worth))):
        place = int(
            np.argmax(np.where(np.isin(np.arange(len(worth)), places), -1, worth))
        )
        places.append(place)
        distance = ((Z - Z[place]) ** 2).sum(axis=1)
        worth = worth * (1 - np.exp(-distance / (SPACING * Z.shape[1])))
    return places
