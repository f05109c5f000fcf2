"""Bayesian optimisation of architectures."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from sknas._history import Architecture, Origin, Proposal, Status, Trial
from sknas._problem import Problem
from sknas._validation import check_integer, check_word, reject
from sknas.spaces import Space, UnseenSampler
from sknas.strategies._base import MAX_DRAWN, Strategy
from sknas.strategies.bayesian.acquisition import (
    ACQUISITIONS,
    Hedge,
    expected_improvement,
)
from sknas.strategies.bayesian.base import MIN_STD, Surrogate
from sknas.strategies.bayesian.gaussian_process import (
    ExponentialHammingGP,
    WeisfeilerLehmanGP,
)
from sknas.strategies.bayesian.warping import warp_losses

LIBRARY_SURROGATES = ("gp", "rf", "et", "gbrt", "deep-ensemble")


def _library_surrogate(name: str, seed: int) -> Surrogate:
    # scikit-optimize is imported by the first of its surrogates, not by sknas.
    from sknas.strategies.bayesian import surrogates

    return surrogates.SURROGATES[name](seed)


SURROGATES: dict[str, Callable[[int], Surrogate]] = {
    "hamming": ExponentialHammingGP,
    **{name: partial(_library_surrogate, name) for name in LIBRARY_SURROGATES},
    "wl": WeisfeilerLehmanGP,
}
Utility = Callable[[Surrogate, np.ndarray], np.ndarray]

ACQUISITION_NAMES = (*ACQUISITIONS, "eips", "thompson", "gp_hedge")
BATCHES = ("liar", "thompson")
N_INCUMBENTS = 8  # best trials whose neighbours are drawn
MAX_FITTED = 300  # trials a surrogate is fitted to
MIN_AT_RUNG = 12  # scores needed to model a rung rather than the one below it
N_INITIAL_WITH_RUNGS = 27  # default of n_initial_points with successive halving
RANDOM_SHARE = 0.2  # random share of a batch, with successive halving
COST_AWARE_SHARE = 0.6  # share of the time budget in which "eips" weighs seconds
MIN_TIMED = 3  # timed trials needed to model training seconds
TIE_BREAK = 1e-12  # weight of the standard deviation, added to the acquisition


class BayesianStrategy(Strategy):
    """Fit a surrogate to the scores and propose where its acquisition is highest.

    The surrogate is fitted once per batch, to the scores at the highest rung that
    enough trials have reached and to their ranks. It chooses among architectures drawn
    from the space and from the neighbourhoods of the best trials.

    Parameters
    ----------
    surrogate : str, default="hamming"
        "hamming", a Gaussian process with a Hamming distance of choices;
        scikit-optimize's "gp" (Gaussian process), "rf" (random forest), "et" (extra
        trees) and "gbrt" (gradient-boosted quantiles); "deep-ensemble", small neural
        networks; or "wl", a Gaussian process on graphs, for spaces that have them.
    acquisition : str, default="ei"
        "ei", expected improvement; "eips", expected improvement per second of training,
        so that proposals depend on measured times; "pi", probability of improvement;
        "lcb", lower confidence bound; "thompson", the best of a draw from the
        surrogate; or "gp_hedge", a bandit over "ei", "pi" and "lcb".
    batch : {"liar", "thompson"}, default="liar"
        How the proposals after the first are chosen: "liar" (constant liar) pretends
        that the previous one is as good as the best; "thompson" takes the best of a
        draw from the surrogate each time. Trees and networks, which would need a new
        fit for each lie, always draw.
    n_initial_points : int or None, default=None
        Number of scored trials before the surrogate is used. Until then proposals are
        random; with successive halving, half of them are neighbours of the initial
        design. None means 3 for Gaussian processes and 8 for other surrogates, or 27
        with successive halving, as scores of short trainings mislead.
    n_draws : int, default=500
        Number of architectures the acquisition chooses among, up to 100,000.

    References
    ----------
    Jones, Schonlau, Welch: Efficient Global Optimization of Expensive Black-Box
    Functions. Journal of Global Optimization 13, 1998.
    Ginsbourger, Le Riche, Carraro: Kriging Is Well-Suited to Parallelize Optimization.
    Computational Intelligence in Expensive Optimization Problems, 2010 (constant
    liar).
    Kandasamy, Krishnamurthy, Schneider, Poczos: Parallelised Bayesian Optimisation via
    Thompson Sampling. AISTATS 2018, arXiv:1705.09236.
    Snoek, Larochelle, Adams: Practical Bayesian Optimization of Machine Learning
    Algorithms. arXiv:1206.2944 (expected improvement per second).

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
        surrogate: str = "hamming",
        acquisition: str = "ei",
        batch: str = "liar",
        n_initial_points: int | None = None,
        n_draws: int = 500,
    ) -> None:
        self.surrogate = surrogate
        self.acquisition = acquisition
        self.batch = batch
        self.n_initial_points = n_initial_points
        self.n_draws = n_draws

    def setup(self, space: Space, problem: Problem, rng: np.random.Generator) -> None:
        caller_name = type(self).__name__
        check_word(caller_name, "surrogate", self.surrogate, SURROGATES)
        check_word(caller_name, "acquisition", self.acquisition, ACQUISITION_NAMES)
        check_word(caller_name, "batch", self.batch, BATCHES)
        check_integer(
            caller_name, "n_initial_points", self.n_initial_points, 1, optional=True
        )
        check_integer(caller_name, "n_draws", self.n_draws, 1, MAX_DRAWN)
        if self.surrogate == "wl" and not space.has_graph:
            allowed = "another one for a space whose architectures have no graphs"
            reject(caller_name, "surrogate", self.surrogate, allowed)
        self.space_, self.rng_ = space, rng
        self.sampler_ = UnseenSampler(space, problem.feasible, rng)
        self.trials_: list[Trial] = []
        self.started_ = time.monotonic()
        self.hedge_ = Hedge(rng)

    def observe(self, trials: Sequence[Trial]) -> None:
        self.sampler_.mark(trial.architecture for trial in trials)
        # A failed trial is informative about its architecture, a stopped one is not.
        self.trials_ += [trial for trial in trials if trial.status != Status.STOPPED]

    def propose(self, n: int) -> list[Proposal]:
        model = SURROGATES[self.surrogate](int(self.rng_.integers(2**31)))
        scored = [trial for trial in self.trials_ if trial.score is not None]
        has_rungs = len({trial.proposal.rung for trial in scored}) > 1
        default = N_INITIAL_WITH_RUNGS if has_rungs else model.default_n_initial
        if len(scored) < (self.n_initial_points or default):
            initial = [t for t in scored if t.proposal.origin != Origin.PROPOSED]
            chosen = self._unseen_near(initial, n // 2) if has_rungs else []
        else:
            n_random = int(RANDOM_SHARE * n) if has_rungs else 0
            chosen = self._choose(model, n - n_random)
        filled = self.sampler_.fill_up(chosen, n)
        return [Proposal(architecture) for architecture in filled]

    def rank(self, trials: Sequence[Trial]) -> list[Trial]:
        by_score = super().rank(trials)
        if not by_score:
            return by_score
        model = SURROGATES[self.surrogate](0)
        scored = [trial for trial in trials if trial.status == Status.OK]
        fitted, scores, _ = _comparable(_best_and_latest(scored))
        codes = self._encode(model, fitted)
        if len(fitted) < model.default_n_initial or not codes.shape[1]:
            return by_score
        model.fit(codes, warp_losses(scores))
        mean, _ = model.predict(self._encode(model, by_score))
        # A higher rung is better evidence than a model of a lower one.
        rungs = np.array([-trial.proposal.rung for trial in by_score])
        return [by_score[index] for index in np.lexsort((mean, rungs))]

    def _encode(self, model: Surrogate, trials: Sequence[Trial]) -> np.ndarray:
        """Return the codes of the architectures of trials, (n, d)."""
        return model.encode(self.space_, [trial.architecture for trial in trials])

    def _choose(self, model: Surrogate, n: int) -> list[Architecture]:
        """Return the `n` architectures of highest utility, or fewer."""
        trials, scores, rung = _comparable(_best_and_latest(self.trials_))
        codes = self._encode(model, trials)
        if not codes.shape[1]:
            return []
        model.fit(codes, warp_losses(scores))
        # The lowest mean, not the lowest loss, which may be lucky.
        best = float(model.predict(codes)[0].min())
        utility = self._utility(model, best, trials, codes, rung)
        drawn = self._draw_pool()
        if not drawn:
            return []
        codes = model.encode(self.space_, drawn)
        if self.acquisition == "gp_hedge":
            self.hedge_.nominate(codes, *model.predict(codes), best)
        pool = _Pool(drawn, self.sampler_.feasible)
        if self.acquisition != "thompson":
            model = self._take(pool, model, utility, codes, best, n)
        n_left = n - len(pool.taken)
        if n_left:
            for draw in model.draw(codes, self.rng_, n_left):
                pool.take(-draw)
        return [drawn[index] for index in pool.taken]

    def _take(
        self,
        pool: _Pool,
        model: Surrogate,
        utility: Utility,
        codes: np.ndarray,
        best: float,
        n: int,
    ) -> Surrogate:
        """Take up to `n` architectures, as long as the model can fantasise.

        Returns
        -------
        Surrogate
            The model with the fantasies, for further draws.
        """
        while pool.take(utility(model, codes)) and len(pool.taken) < n:
            fantasy = None
            if self.batch == "liar":
                fantasy = model.fantasise(codes[pool.taken[-1]], best)
            if fantasy is None:
                break
            model = fantasy
        return model

    def _utility(
        self,
        model: Surrogate,
        best: float,
        trials: Sequence[Trial],
        codes: np.ndarray,
        rung: int,
    ) -> Utility:
        """Return the acquisition as a function of a model and codes: (m, d) -> (m,).

        `model` is fitted to the `codes` of `trials`; `best` is its lowest mean there.
        """
        if self.acquisition == "gp_hedge":
            acquisition = self.hedge_.choose(model.predict)
        else:
            acquisition = ACQUISITIONS.get(self.acquisition, expected_improvement)
        cost_weight = None
        if self.acquisition == "eips":
            cost_weight = self._cost_weight(trials, codes, rung)

        def utility(model: Surrogate, codes: np.ndarray) -> np.ndarray:
            mean, std = model.predict(codes)
            values = acquisition(mean, std, best)
            if cost_weight is not None:
                values = values * cost_weight(codes)
            return values + TIE_BREAK * std

        return utility

    def _cost_weight(
        self, trials: Sequence[Trial], codes: np.ndarray, rung: int
    ) -> Callable[[np.ndarray], np.ndarray] | None:
        """Return a function: codes -> expected trainings per second, up to a factor.

        Return None late in the search, or if too few trials are timed.
        """
        seconds = np.array([trial.seconds for trial in trials], dtype=float)
        # Trainings to other rungs are longer or shorter; failed ones are too short.
        is_timed = np.isfinite(seconds) & (seconds > 0)
        is_timed &= [t.status == Status.OK and t.proposal.rung == rung for t in trials]
        started, deadline = self.started_, self.context_.deadline
        is_late = deadline is not None and (
            time.monotonic() - started > COST_AWARE_SHARE * (deadline - started)
        )
        if is_late or is_timed.sum() < MIN_TIMED:
            return None
        logs = np.log(seconds[is_timed])
        spread = max(float(logs.std()), MIN_STD)
        model = SURROGATES[self.surrogate](0)
        model.fit(codes[is_timed], (logs - logs.mean()) / spread)

        def cost_weight(codes: np.ndarray) -> np.ndarray:
            mean, std = model.predict(codes)
            return np.exp(-spread * mean + (spread * std) ** 2 / 2)

        return cost_weight

    def _draw_pool(self) -> list[Architecture]:
        """Draw new architectures: half near the best trials, half from the prior."""
        scored = [trial for trial in self.trials_ if trial.score is not None]
        near = self._near(scored, self.n_draws // 2)
        sampled = self.space_.sample(self.n_draws - len(near), self.rng_)
        return self.sampler_.new([*near, *sampled])

    def _unseen_near(self, trials: Sequence[Trial], n: int) -> list[Architecture]:
        """Return up to `n` unseen and feasible neighbours of the best trials."""
        near = self._near(trials, N_INCUMBENTS * n)
        order = self.rng_.permutation(len(near))
        return self.sampler_.unseen([near[index] for index in order], n)

    def _near(self, trials: Sequence[Trial], n: int) -> list[Architecture]:
        """Draw up to `n` neighbours of the best trials."""
        best = sorted(trials, key=lambda trial: trial.order)[:N_INCUMBENTS]
        n_each = -(-n // len(best)) if best else 0
        near = [
            neighbour
            for trial in best
            for neighbour in self.space_.neighbours(
                trial.architecture, n_each, self.rng_
            )
        ]
        return near[:n]


class _Pool:
    """Architectures from which a batch is taken.

    An architecture is checked for feasibility only when it would be taken, since the
    check may build its network.
    """

    def __init__(
        self,
        architectures: list[Architecture],
        feasible: Callable[[Architecture], bool],
    ) -> None:
        self.architectures, self.feasible = architectures, feasible
        self.is_available = np.ones(len(architectures), dtype=bool)
        self.taken: list[int] = []  # indices

    def take(self, utilities: np.ndarray) -> bool:
        """Take the feasible architecture of highest utility; False if none is left."""
        while self.is_available.any():
            index = int(np.argmax(np.where(self.is_available, utilities, -np.inf)))
            self.is_available[index] = False
            if self.feasible(self.architectures[index]):
                self.taken.append(index)
                return True
        return False


def _best_and_latest(trials: Sequence[Trial]) -> list[Trial]:
    """Return at most `MAX_FITTED` trials: the best half and the latest others."""
    if len(trials) <= MAX_FITTED:
        return list(trials)
    best = sorted(trials, key=lambda trial: trial.order)[: MAX_FITTED // 2]
    taken = {id(trial) for trial in best}
    latest = [trial for trial in trials if id(trial) not in taken]
    return best + latest[-MAX_FITTED // 2 :]


def _comparable(
    trials: Sequence[Trial],
) -> tuple[list[Trial], list[float | None], int]:
    """Select the trials that can be compared at one rung.

    Returns
    -------
    trials : list of Trial
        Those that reached the rung, and failed ones.
    scores : list of float or None
        Their scores at the rung.
    rung : int
        The highest rung that enough trials have reached.
    """
    scored = [trial for trial in trials if trial.score is not None]
    rung = max(trial.proposal.rung for trial in scored)
    enough = min(MIN_AT_RUNG, len(scored))
    while rung and sum(t.proposal.rung >= rung for t in scored) < enough:
        rung -= 1
    reached = [t for t in trials if t.score is None or t.proposal.rung >= rung]
    return reached, [_score_at_rung(trial, rung) for trial in reached], rung


def _score_at_rung(trial: Trial, rung: int) -> float | None:
    """Return the score of a trial when it reached a rung."""
    scores = trial.rung_scores
    is_known = rung < len(scores) and np.isfinite(scores[rung])
    return scores[rung] if is_known else trial.score
