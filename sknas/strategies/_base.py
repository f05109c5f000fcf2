"""The interface of search strategies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

import numpy as np
from sklearn.base import BaseEstimator, clone

from sknas._history import Proposal, Status, Trial
from sknas._problem import Problem, RunContext
from sknas.spaces import Space

MAX_DRAWN = 100_000  # architectures, or values of a choice, held in memory at once


class Strategy(BaseEstimator, ABC):
    """Propose architectures to try next, given the trials so far.

    Subclasses implement `setup`, `propose` and `observe`. The constructor only stores
    parameters. A search works on a clone and keeps its state in attributes with a
    trailing underscore, so that the object can be used again.

    Attributes
    ----------
    needs_initial_design : bool, default=True
        Class attribute. If True, the known architectures of the space are trained
        before the first call of `propose`. If False, only the default architecture is
        trained, and under a time limit the first proposals are trained with it.
    time_share : float, default=0.0
        Class attribute. Share of `max_time` that the strategy uses before its first
        proposal, in [0, 1).
    auto_image_space : str, default="image"
        Class attribute. Name of the space of `search_space="auto"` for images.
    results : tuple of str, default=()
        Class attribute. Names of the attributes that outlive a search, see `summary`.
        They must be small and hold neither data nor networks.

    Examples
    --------
    >>> from sknas.spaces import UnseenSampler
    >>> from sknas.strategies import Proposal, Strategy
    >>> class Neighbours(Strategy):
    ...     "Propose neighbours of the best architecture so far."
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

    needs_initial_design = True
    time_share = 0.0
    auto_image_space = "image"
    context_ = RunContext()  # replaced by `attach`
    results: tuple[str, ...] = ()

    def attach(self, context: RunContext) -> None:
        """Set the device, deadline and store of the search; called before `setup`."""
        self.context_ = context

    @abstractmethod
    def setup(self, space: Space, problem: Problem, rng: np.random.Generator) -> None:
        """Start a search.

        Parameters
        ----------
        space : Space
            The space to search.
        problem : Problem
            The task, its folds and its constraints; `problem.task` is None in
            `sknas.search`.
        rng : numpy.random.Generator
            The only source of randomness.
        """

    @abstractmethod
    def propose(self, n: int) -> list[Proposal]:
        """Return up to `n` new proposals; an empty list ends the search."""

    @abstractmethod
    def observe(self, trials: Sequence[Trial]) -> None:
        """Update the state with finished trials.

        Parameters
        ----------
        trials : sequence of Trial
            Includes failed and stopped trials, and those not proposed by the strategy.
        """

    def rank(self, trials: Sequence[Trial]) -> list[Trial]:
        """Sort the trials that have a score by their expected score, best first.

        The default sorts by the observed score. A strategy with a model of the noise
        can rank a trial with a lucky score lower.
        """
        scored = [trial for trial in trials if trial.status == Status.OK]
        return sorted(scored, key=lambda trial: trial.order)

    def summary(self) -> Self:
        """Return a clone with the attributes named in `results`, and no other state.

        The `strategy_` of a fitted estimator is such a clone.
        """
        summary: Self = clone(self)
        for name in self.results:
            if name in vars(self):
                setattr(summary, name, vars(self)[name])
        return summary
