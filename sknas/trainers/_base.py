"""What a trainer is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from sklearn.base import BaseEstimator

from sknas._history import Proposal, Trial
from sknas._problem import Problem
from sknas.spaces import Space


class Trainer(BaseEstimator, ABC):
    """Trains and scores proposals; state lives in a clone, as in a strategy."""

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
