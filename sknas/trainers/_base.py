"""What a trainer is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from sklearn.base import BaseEstimator

from sknas._history import Proposal, Trial
from sknas._problem import Problem
from sknas.spaces import Space


class Trainer(BaseEstimator, ABC):
    """Trains and scores proposals; state lives in a clone, as in a strategy.

    Attributes
    ----------
    n_proposals : int
        Proposals it likes to be given at once.
    is_cut : bool
        Whether the end of the time cuts a training short: if so, none is begun that
        does not seem to end in it.
    records : tuple of type
        Dataclasses that it keeps in a checkpoint.

    Examples
    --------
    >>> from sknas.strategies import Trial
    >>> from sknas.trainers import Trainer
    >>> class Largest(Trainer):
    ...     "Trains nothing: the largest network wins."
    ...     def setup(self, space):
    ...         self.space_ = space
    ...     def train(self, proposals, problem):
    ...         task = problem.task
    ...         sizes = [self.space_.n_params(p.architecture, task) for p in proposals]
    ...         return [Trial(p, score=s) for p, s in zip(proposals, sizes)]
    """

    n_proposals = 4
    is_cut = True
    records: tuple[type, ...] = ()

    @abstractmethod
    def setup(self, space: Space) -> None:
        """Begin a search in a space."""

    @abstractmethod
    def train(self, proposals: Sequence[Proposal], problem: Problem) -> list[Trial]:
        """Train proposals and score them on the folds of a problem.

        Parameters
        ----------
        proposals : sequence of Proposal
            What to train; many at once is the rule.
        problem : Problem
            The encoded folds, the score, and the time there is.

        Returns
        -------
        list of Trial
            One a proposal, in the same order. A failure is a trial with a reason,
            never an exception.
        """
