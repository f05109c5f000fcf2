"""Regularised evolution."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from sknas._history import Architecture, Proposal, Trial
from sknas._problem import Problem
from sknas._validation import check_integer
from sknas.spaces import Space, UnseenSampler
from sknas.strategies._base import Strategy

N_MUTATIONS = 20  # neighbours drawn per parent to find an unseen child


class EvolutionStrategy(Strategy):
    """Mutate the best of a random sample, and drop the oldest of the population.

    Parameters
    ----------
    population_size : int, default=10
        Number of latest successful trials that can become parents. Searches of more
        than a few dozen trials need a larger population.
    sample_size : int, default=3
        Number of trials drawn from the population; the best one is the parent.

    References
    ----------
    Real, Aggarwal, Huang, Le: Regularized Evolution for Image Classifier Architecture
    Search. arXiv:1802.01548.

    Examples
    --------
    >>> import sknas
    >>> history = sknas.search(
    ...     lambda a: -abs(a["x"] - 37), {"x": (0, 99)}, strategy="evolution",
    ...     max_trials=60, random_state=0,
    ... )
    >>> history.best.score > -10
    True
    """

    def __init__(self, population_size: int = 10, sample_size: int = 3) -> None:
        self.population_size = population_size
        self.sample_size = sample_size

    def setup(self, space: Space, problem: Problem, rng: np.random.Generator) -> None:
        caller_name = type(self).__name__
        size = check_integer(caller_name, "population_size", self.population_size, 2)
        check_integer(caller_name, "sample_size", self.sample_size, 1)
        self.space_, self.rng_ = space, rng
        self.sampler_ = UnseenSampler(space, problem.feasible, rng)
        self.population_: deque[Trial] = deque(maxlen=size)

    def observe(self, trials: Sequence[Trial]) -> None:
        self.sampler_.mark(trial.architecture for trial in trials)
        self.population_ += [trial for trial in trials if trial.score is not None]

    def propose(self, n: int) -> list[Proposal]:
        missing = self.population_size - len(self.population_)
        chosen = self.sampler_.fill_up([], min(n, max(missing, 0)))
        while len(chosen) < n:
            child = self._child() if self.population_ else []
            new = self.sampler_.fill_up(child, 1)
            if not new:  # the space is exhausted
                break
            chosen += new
        return [Proposal(architecture) for architecture in chosen]

    def _child(self) -> list[Architecture]:
        """Return one unseen neighbour of a tournament's winner, or none."""
        n_drawn = min(self.sample_size, len(self.population_))
        indices = self.rng_.choice(len(self.population_), n_drawn, replace=False)
        drawn = [self.population_[int(index)] for index in indices]
        parent = min(drawn, key=lambda trial: trial.order)
        near = self.space_.neighbours(parent.architecture, N_MUTATIONS, self.rng_)
        return self.sampler_.unseen(near, 1)
