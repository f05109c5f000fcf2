"""Local search."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sknas._history import Proposal, Trial
from sknas._problem import Problem
from sknas._validation import check_integer
from sknas.spaces import Space, UnseenSampler
from sknas.strategies._base import Strategy

DRAWS = 20  # neighbours drawn for each one that is asked for
PATIENCE = 4  # neighbours a free choice, none of them better, after which it moves on


class LocalStrategy(Strategy):
    """Moves to the first neighbour that is better, and starts anew where none is.

    A start is the best of some random architectures, the first one the best of what
    the search began with.

    Parameters
    ----------
    n_starting : int, default=5
        Random architectures a start is chosen from.

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
        self.start_: list[Trial] = []  # what this climb started from
        self.current_: Trial | None = None
        self.n_worse_ = 0  # neighbours since the last move

    def observe(self, trials: Sequence[Trial]) -> None:
        self.sampler_.mark(trial.architecture for trial in trials)
        for trial in trials:
            if trial.status == "stopped":
                continue
            if trial.score is None:
                self.n_worse_ += 1
            elif self.current_ is None:
                self.start_.append(trial)
            elif trial.order < self.current_.order:
                self.current_, self.n_worse_ = trial, 0
            else:
                self.n_worse_ += 1

    def propose(self, n: int) -> list[Proposal]:
        if self.current_ is None and len(self.start_) >= self.n_starting:
            self.current_ = min(self.start_, key=lambda trial: trial.order)
            self.n_worse_ = 0
        near = []
        if self.current_ is not None:
            here = self.current_.architecture
            choices = self.space_.choices
            n_free = sum(choices[name].can_change(v) for name, v in here.items())
            if self.n_worse_ < PATIENCE * n_free:
                drawn = self.space_.neighbours(here, DRAWS * n, self.rng_)
                near = self.sampler_.unseen(drawn, n)
            if not near:  # the top of a hill
                self.current_, self.start_ = None, []
        near = near or self.sampler_.draw(n)
        self.sampler_.mark(near)
        return [Proposal(architecture) for architecture in near]
