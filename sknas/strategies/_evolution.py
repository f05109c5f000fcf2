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

N_CHILDREN = 20  # of a parent, among which one that is new is looked for


class EvolutionStrategy(Strategy):
    """Changes the best of a few, and lets the oldest die.

    Parameters
    ----------
    population_size : int, default=10
        Architectures that live; more than some tens of trials want more.
    sample_size : int, default=3
        Architectures drawn from them, of which the best is the parent.

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
        chosen = self.sampler_.draw(min(n, max(missing, 0)))
        self.sampler_.mark(chosen)
        while len(chosen) < n:
            child = self._child() if self.population_ else None
            new = self.sampler_.draw(1) if child is None else [child]
            if not new:  # the space has no more
                break
            self.sampler_.mark(new)
            chosen += new
        return [Proposal(architecture) for architecture in chosen]

    def _child(self) -> Architecture | None:
        """A new neighbour of the best of some; None where it has none."""
        n_drawn = min(self.sample_size, len(self.population_))
        places = self.rng_.choice(len(self.population_), n_drawn, replace=False)
        drawn = [self.population_[int(place)] for place in places]
        parent = min(drawn, key=lambda trial: trial.order)
        near = self.space_.neighbours(parent.architecture, N_CHILDREN, self.rng_)
        return next(iter(self.sampler_.unseen(near, 1)), None)
