"""What a strategy is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

import numpy as np
from sklearn.base import BaseEstimator, clone

from sknas._history import Proposal, Trial
from sknas._problem import Problem
from sknas.spaces import Space

MAX_DRAWN = 100_000  # architectures, or values of a choice, in memory at once


class Strategy(BaseEstimator, ABC):
    """What to try next, given what was tried.

    Parameters stand in the constructor; the state of a search lives in attributes
    with a trailing underscore of a clone, so that an object can be used again.

    Attributes
    ----------
    needs_initial_design : bool
        Of the class: whether known architectures are trained before the strategy is
        asked, not the default one alone.
    time_share : float
        Of the class: the share of a `max_time` that it takes for itself before it
        first proposes, from 0 to below 1.
    results : tuple of str
        Of the class: names of attributes that outlive a search.

    Examples
    --------
    >>> from sknas.spaces import UnseenSampler
    >>> from sknas.strategies import Proposal, Strategy
    >>> class Neighbours(Strategy):
    ...     "Random changes of the best architecture so far."
    ...     def setup(self, space, problem, rng):
    ...         self.space_, self.rng_ = space, rng
    ...         self.sampler_ = UnseenSampler(space, problem.feasible, rng)
    ...         self.best_ = None
    ...     def propose(self, n):
    ...         near = []
    ...         if self.best_ is not None:
    ...             near = self.space_.neighbours(self.best_.architecture, n, self.rng_)
    ...         near = self.sampler_.unseen(near) or self.sampler_.draw(n)
    ...         self.sampler_.mark(near)
    ...         return [Proposal(architecture) for architecture in near]
    ...     def observe(self, trials):
    ...         self.sampler_.mark(trial.architecture for trial in trials)
    ...         for trial in trials:
    ...             if self.best_ is None or trial.order < self.best_.order:
    ...                 self.best_ = trial
    """

    # Whether known architectures are trained before the strategy is asked, or the
    # default one alone; beside what the strategy proposes first, where time is bounded.
    needs_initial_design = True
    # Share of a bounded time that it takes for itself before it first proposes.
    time_share = 0.0
    # Attributes that outlive a search: small, and none that holds data or networks.
    results: tuple[str, ...] = ()

    @abstractmethod
    def setup(self, space: Space, problem: Problem, rng: np.random.Generator) -> None:
        """Begin a search.

        Parameters
        ----------
        space : Space
            Where to search.
        problem : Problem
            What is known of the work; its task is None in `sknas.search`.
        rng : numpy.random.Generator
            Draws everything random.
        """

    @abstractmethod
    def propose(self, n: int) -> list[Proposal]:
        """Up to `n` new proposals; an empty list ends the search."""

    @abstractmethod
    def observe(self, trials: Sequence[Trial]) -> None:
        """Take note of trials, also of failed ones and of those not proposed here."""

    def rank(self, trials: Sequence[Trial]) -> list[Trial]:
        """Trials with a score by what is expected of them, the best first.

        Here by their scores; a strategy that knows of noise sees through lucky ones.
        """
        scored = [trial for trial in trials if trial.status == "ok"]
        return sorted(scored, key=lambda trial: trial.order)

    def summary(self) -> Self:
        """A copy with the `results` of a search, without the rest of its state.

        It is the `strategy_` of a fitted estimator, which is pickled and kept.
        """
        bare: Self = clone(self)
        for name in self.results:
            if hasattr(self, name):
                setattr(bare, name, getattr(self, name))
        return bare
