"""Local search."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sknas._history import Proposal, Status, Trial
from sknas._problem import Problem
from sknas._validation import check_integer
from sknas.spaces import Space, UnseenSampler
from sknas.strategies._base import Strategy

N_NEIGHBOURS = 20  # neighbours drawn per proposal
PATIENCE = 4  # worse neighbours per free choice before a restart


class LocalStrategy(Strategy):
    """Move to the first better neighbour, and restart at a local optimum.

    A starting point is the best of some random architectures; the first one is the
    best of the initial design.

    Parameters
    ----------
    n_starting : int, default=5
        Minimum number of architectures that a starting point is chosen from.

    References
    ----------
    White, Nolen, Savani: Exploring the Loss Landscape in Neural Architecture Search.
    arXiv:2005.02960.

    Examples
    --------
    >>> import sknas
    >>> history = sknas.search(
    ...     lambda a: -abs(a["x"] - 37), {"x": (0, 99)}, strategy="local",
    ...     max_trials=60, random_state=0,
    ... )
    >>> history.best.score > -10
    True
    """

    def __init__(self, n_starting: int = 5) -> None:
        self.n_starting = n_starting

    def setup(self, space: Space, problem: Problem, rng: np.random.Generator) -> None:
        check_integer(type(self).__name__, "n_starting", self.n_starting, 1)
        self.space_, self.rng_ = space, rng
        self.sampler_ = UnseenSampler(space, problem.feasible, rng)
        self.starts_: list[Trial] = []  # candidates for the next starting point
        self.current_: Trial | None = None
        self.n_worse_ = 0  # neighbours tried since the last move

    def observe(self, trials: Sequence[Trial]) -> None:
        self.sampler_.mark(trial.architecture for trial in trials)
        for trial in trials:
            if trial.status == Status.STOPPED:
                continue
            if trial.score is None:
                self.n_worse_ += 1
            elif self.current_ is None:
                self.starts_.append(trial)
            elif trial.order < self.current_.order:
                self.current_, self.n_worse_ = trial, 0
            else:
                self.n_worse_ += 1

    def propose(self, n: int) -> list[Proposal]:
        if self.current_ is None and len(self.starts_) >= self.n_starting:
            self.current_ = min(self.starts_, key=lambda trial: trial.order)
            self.n_worse_ = 0
        near = []
        if self.current_ is not None:
            here = self.current_.architecture
            choices = self.space_.choices
            n_free = sum(choices[name].can_change(v) for name, v in here.items())
            if self.n_worse_ < PATIENCE * n_free:
                drawn = self.space_.neighbours(here, N_NEIGHBOURS * n, self.rng_)
                near = self.sampler_.unseen(drawn, n)
            if not near:  # a local optimum
                self.current_, self.starts_ = None, []
        near = near or self.sampler_.draw(n)
        self.sampler_.mark(near)
        return [Proposal(architecture) for architecture in near]
