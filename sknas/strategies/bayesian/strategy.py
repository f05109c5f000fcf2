"""Bayesian optimisation of architectures."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from sknas._history import Architecture, Proposal, Trial
from sknas._problem import Problem
from sknas._validation import check_integer, check_word, reject
from sknas.spaces import Space, UnseenSampler
from sknas.strategies._base import MAX_DRAWN, Strategy
from sknas.strategies.bayesian.acquisition import (
    ACQUISITIONS,
    Hedge,
    expected_improvement,
)
from sknas.strategies.bayesian.gaussian_process import (
    ExponentialHammingGP,
    WeisfeilerLehmanGP,
)
from sknas.strategies.bayesian.surrogates import (
    MIN_STD,
    DeepEnsemble,
    SkoptGP,
    SkoptQuantiles,
    Surrogate,
    extra_trees,
    random_forest,
)
from sknas.strategies.bayesian.warping import warp_losses

SURROGATES: dict[str, Callable[[int], Surrogate]] = {
    "hamming": ExponentialHammingGP,
    "gp": SkoptGP,
    "rf": random_forest,
    "et": extra_trees,
    "gbrt": SkoptQuantiles,
    "deep-ensemble": DeepEnsemble,
    "wl": WeisfeilerLehmanGP,
}
Acquire = Callable[[Surrogate, np.ndarray], np.ndarray]

WORDS = (*ACQUISITIONS, "eips", "thompson", "gp_hedge")
BATCHES = ("liar", "thompson")
N_NEAR = 8  # best architectures whose neighbours are drawn
MAX_POINTS = 300  # trials a surrogate is fitted on at most: the best and the latest
N_COMPARED = 12  # trials that a rung must have to be the one that is modelled
LATE = 27  # trials before a surrogate of short trainings is used
ANYWHERE = 0.2  # of a batch, drawn from the space, where trainings are short
COSTLY_SHARE = 0.6  # of the time, in which seconds count
MIN_TIMED = 3  # trials with a time from which others are guessed
TIE = 1e-12  # what a deviation counts beside an acquisition


class BayesianStrategy(Strategy):
    """Fits a surrogate to the scores so far and proposes where it expects most.

    The surrogate is fitted once a batch, on scores and their ranks: those at the
    highest rung that enough trials have reached. Architectures are drawn from the space
    and from the neighbourhood of the best ones, and the most wanted are proposed.

    Parameters
    ----------
    surrogate : str, default="hamming"
        "hamming", a Gaussian process on the choices in which architectures differ;
        scikit-optimize's "gp" (Gaussian process), "rf" (random forest), "et" (extra
        trees) and "gbrt" (gradient-boosted quantiles); "deep-ensemble", small neural
        networks; or "wl", a Gaussian process on graphs, for spaces that have them.
    acquisition : str, default="ei"
        "ei", expected improvement; "eips", that a second of training, so that what is
        proposed depends on the time that trainings took; "pi",
        probability of improvement; "lcb", lower confidence bound; "thompson", the best
        of a draw from the surrogate; or "gp_hedge", a bandit over the first three.
    batch : {"liar", "thompson"}, default="liar"
        How a batch is filled after its first architecture: as if that one had come out
        as good as the best, and so on; or by draws from the surrogate. Trees and
        networks, which each lie would have to be fitted to, always draw.
    n_initial_points : int or None, default=None
        Trials observed before the surrogate is used; until then proposals are random,
        or near what the search began with. None takes 3 for Gaussian processes and 8
        for others, which say little before; and 27 where trials are dropped on the
        way, since scores of short trainings mislead.
    n_draws : int, default=500
        Architectures the acquisition chooses among; no more than 100,000.

    References
    ----------
    Jones, Schonlau, Welch: Efficient Global Optimization of Expensive Black-Box
    Functions. Journal of Global Optimization 13, 1998.
    Ginsbourger, Le Riche, Carraro: Kriging Is Well-Suited to Parallelize Optimization.
    Computational Intelligence in Expensive Optimization Problems, 2010 (liars).
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
        check_word(caller_name, "acquisition", self.acquisition, WORDS)
        check_word(caller_name, "batch", self.batch, BATCHES)
        check_integer(
            caller_name, "n_initial_points", self.n_initial_points, 1, optional=True
        )
        check_integer(caller_name, "n_draws", self.n_draws, 1, MAX_DRAWN)
        if self.surrogate == "wl" and type(space).graph is Space.graph:
            allowed = "another one for a space whose architectures have no graph"
            reject(caller_name, "surrogate", self.surrogate, allowed)
        self.space_, self.problem_, self.rng_ = space, problem, rng
        self.sampler_ = UnseenSampler(space, problem.feasible, rng)
        self.trials_: list[Trial] = []
        self.begun_ = time.monotonic()
        self.hedge_ = Hedge(rng)

    def observe(self, trials: Sequence[Trial]) -> None:
        self.sampler_.mark(trial.architecture for trial in trials)
        # A stopped trial says nothing about its architecture; a failed one does.
        self.trials_ += [trial for trial in trials if trial.status != "stopped"]

    def propose(self, n: int) -> list[Proposal]:
        model = SURROGATES[self.surrogate](int(self.rng_.integers(2**31)))
        scored = [trial for trial in self.trials_ if trial.score is not None]
        is_short = len({trial.proposal.rung for trial in scored}) > 1
        usual = LATE if is_short else model.usual_n_initial
        if len(scored) < (self.n_initial_points or usual):
            # Half around what the search began with, half from all over.
            known = [t for t in scored if t.proposal.origin != "proposed"]
            chosen = self._around(known, n // 2) if is_short else []
        else:
            n_chosen = n - int(ANYWHERE * n) if is_short else n
            chosen = self._choose(model, n_chosen)
        self.sampler_.mark(chosen)
        others = self.sampler_.draw(n - len(chosen))
        self.sampler_.mark(others)
        return [Proposal(architecture) for architecture in chosen + others]

    def rank(self, trials: Sequence[Trial]) -> list[Trial]:
        by_score = super().rank(trials)
        if not by_score:
            return by_score
        model = SURROGATES[self.surrogate](0)
        scored = [trial for trial in trials if trial.status == "ok"]
        kept, scores, _ = _comparable(_some(scored))
        encode = partial(model.encode, self.space_)
        codes = encode([trial.architecture for trial in kept])
        if len(kept) < model.usual_n_initial or not codes.shape[1]:
            return by_score
        model.fit(codes, warp_losses(scores))
        mean, _ = model.predict(encode([trial.architecture for trial in by_score]))
        # A higher rung says more than any model of a lower one.
        rungs = np.array([-trial.proposal.rung for trial in by_score])
        return [by_score[place] for place in np.lexsort((mean, rungs))]

    def _choose(self, model: Surrogate, n: int) -> list[Architecture]:
        """The `n` most wanted architectures, or fewer."""
        kept, scores, rung = _comparable(_some(self.trials_))
        codes = model.encode(self.space_, [trial.architecture for trial in kept])
        if not codes.shape[1]:
            return []
        model.fit(codes, warp_losses(scores))
        # The lowest mean, not the lowest loss: that one may have had luck.
        best = float(model.predict(codes)[0].min())
        acquire = self._acquisition(model, best, kept, codes, rung)
        drawn = self._drawn()
        if not drawn:
            return []
        codes = model.encode(self.space_, drawn)
        if self.acquisition == "gp_hedge":
            self.hedge_.remember(codes, *model.predict(codes), best)
        pool = _Pool(drawn, self.problem_.feasible)
        if self.acquisition != "thompson":
            model = self._take(pool, model, acquire, codes, best, n)
        n_left = n - len(pool.places)
        if n_left:
            pool.take_each(-model.draw(codes, self.rng_, n_left))
        return pool.taken

    def _take(
        self,
        pool: _Pool,
        model: Surrogate,
        acquire: Acquire,
        codes: np.ndarray,
        best: float,
        n: int,
    ) -> Surrogate:
        """Take the most wanted, and more as far as the model can be lied to."""
        while pool.take(acquire(model, codes)) and len(pool.places) < n:
            fantasise = None
            if self.batch == "liar":
                fantasise = model.fantasise(codes[pool.places[-1]], best)
            if fantasise is None:
                break
            model = fantasise
        return model

    def _acquisition(
        self,
        model: Surrogate,
        best: float,
        kept: Sequence[Trial],
        codes: np.ndarray,
        rung: int,
    ) -> Acquire:
        """How much architectures are wanted, by a fitted model and their codes."""
        if self.acquisition == "gp_hedge":
            usual = self.hedge_.pick(model.predict)
        else:
            usual = ACQUISITIONS.get(self.acquisition, expected_improvement)
        faster = None
        if self.acquisition == "eips":
            # A training to a higher rung took longer, a failed one not long enough.
            timed = [
                j
                for j, trial in enumerate(kept)
                if trial.status == "ok" and trial.proposal.rung == rung
            ]
            faster = self._faster([kept[j].seconds for j in timed], codes[timed])

        def acquire(model: Surrogate, codes: np.ndarray) -> np.ndarray:
            mean, std = model.predict(codes)
            wanted = usual(mean, std, best)
            if faster is not None:
                wanted = wanted * faster(codes)
            return wanted + TIE * std  # nothing expected anywhere: look where unsure

        return acquire

    def _faster(
        self, seconds: Sequence[float], codes: np.ndarray
    ) -> Callable[[np.ndarray], np.ndarray] | None:
        """Codes -> expected trainings a second, up to a factor; None where unknown."""
        taken = np.asarray(seconds, dtype=float)
        begun, deadline = self.begun_, self.problem_.deadline
        is_late = deadline is not None and (
            time.monotonic() - begun > COSTLY_SHARE * (deadline - begun)
        )
        timed = np.isfinite(taken) & (taken > 0)
        if is_late or timed.sum() < MIN_TIMED:
            return None
        logs = np.log(taken[timed])
        spread = max(float(logs.std()), MIN_STD)
        model = SURROGATES[self.surrogate](0)
        model.fit(codes[timed], (logs - logs.mean()) / spread)

        def faster(codes: np.ndarray) -> np.ndarray:
            mean, std = model.predict(codes)
            return np.exp(-spread * mean + (spread * std) ** 2 / 2)

        return faster

    def _drawn(self) -> list[Architecture]:
        """New architectures: half around the best so far, half from all over."""
        scored = [trial for trial in self.trials_ if trial.score is not None]
        best = sorted(scored, key=lambda trial: trial.order)[:N_NEAR]
        near = self._near([t.architecture for t in best], self.n_draws // 2)
        anywhere = self.space_.sample(self.n_draws - len(near), self.rng_)
        return self.sampler_.new([*near, *anywhere])

    def _around(self, trials: Sequence[Trial], n: int) -> list[Architecture]:
        """Up to `n` new and feasible neighbours of the best of some trials."""
        best = sorted(trials, key=lambda trial: trial.order)[:N_NEAR]
        near = self._near([t.architecture for t in best], N_NEAR * n)
        order = self.rng_.permutation(len(near))
        return self.sampler_.unseen([near[place] for place in order], n)

    def _near(self, around: Sequence[Architecture], n: int) -> list[Architecture]:
        """Up to `n` neighbours of some architectures."""
        each = -(-n // len(around)) if around else 0
        near = [
            near for a in around for near in self.space_.neighbours(a, each, self.rng_)
        ]
        return near[:n]


class _Pool:
    """Architectures that a batch is taken from.

    Whether one is feasible is asked when it is its turn: that may mean to build it.
    """

    def __init__(
        self, drawn: list[Architecture], feasible: Callable[[Architecture], bool]
    ) -> None:
        self.drawn, self.feasible = drawn, feasible
        self.is_open = np.ones(len(drawn), dtype=bool)
        self.places: list[int] = []  # that were taken

    @property
    def taken(self) -> list[Architecture]:
        return [self.drawn[place] for place in self.places]

    def take(self, wanted: np.ndarray) -> bool:
        """Take the most wanted that is there and feasible; False if there is none."""
        while self.is_open.any():
            place = int(np.argmax(np.where(self.is_open, wanted, -np.inf)))
            self.is_open[place] = False
            if self.feasible(self.drawn[place]):
                self.places.append(place)
                return True
        return False

    def take_each(self, draws: np.ndarray) -> None:
        """Take one for each row of draws (n, drawn)."""
        for wanted in draws:
            self.take(wanted)


def _some(trials: Sequence[Trial]) -> list[Trial]:
    """The best and the latest of many trials."""
    if len(trials) <= MAX_POINTS:
        return list(trials)
    best = sorted(trials, key=lambda trial: trial.order)[: MAX_POINTS // 2]
    taken = {id(trial) for trial in best}
    latest = [trial for trial in trials if id(trial) not in taken]
    return best + latest[-MAX_POINTS // 2 :]


def _comparable(
    trials: Sequence[Trial],
) -> tuple[list[Trial], list[float | None], int]:
    """Trials with their scores at the highest rung that enough have reached, and that.

    Scores of different rungs can't be compared. A failed trial has none.
    """
    scored = [trial for trial in trials if trial.score is not None]
    rung = max(trial.proposal.rung for trial in scored)
    enough = min(N_COMPARED, len(scored))
    while rung and sum(t.proposal.rung >= rung for t in scored) < enough:
        rung -= 1
    kept = [t for t in trials if t.score is None or t.proposal.rung >= rung]
    return kept, [_score_at(trial, rung) for trial in kept], rung


def _score_at(trial: Trial, rung: int) -> float | None:
    """The score of a trial when it reached a rung."""
    at_rungs = trial.rung_scores
    return at_rungs[rung] if rung < len(at_rungs) else trial.score
