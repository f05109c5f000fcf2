"""The base class of trainers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from sklearn.base import BaseEstimator

from sknas._history import Proposal, Trial
from sknas._problem import Problem, RunContext
from sknas.spaces import Space


class Trainer(BaseEstimator, ABC):
    """Trains and scores proposals; a search uses a clone, as of a strategy.

    Attributes
    ----------
    n_proposals : int
        Number of proposals to train at once.
    truncates_trainings : bool
        True if trainings end at the deadline; a search starts none that would be
        truncated.
    is_batched : bool
        True if networks of one shape are trained as one, which is faster.
    keeps_networks : bool
        True if `to_networks` returns the networks of a trial, of which the ensemble is
        then built.
    records : tuple of type
        Dataclasses that the trainer keeps in the store of the context, under keys that
        begin with "cohort:". They are deleted when all proposals of a call are trained.

    Examples
    --------
    >>> from sknas.strategies import Trial
    >>> from sknas.trainers import Trainer
    >>> class Largest(Trainer):
    ...     "Trains nothing: the largest network wins."
    ...     def setup(self, space, problem, context):
    ...         self.space_, self.problem_ = space, problem
    ...     def train(self, proposals):
    ...         task = self.problem_.task
    ...         sizes = [self.space_.n_params(p.architecture, task) for p in proposals]
    ...         return [Trial(p, score=s) for p, s in zip(proposals, sizes)]
    """

    n_proposals = 4
    truncates_trainings = True
    is_batched = False
    keeps_networks = False
    records: tuple[type, ...] = ()

    @abstractmethod
    def setup(self, space: Space, problem: Problem, context: RunContext) -> None:
        """Prepare for a search.

        Parameters
        ----------
        space : Space
            Builds the networks.
        problem : Problem
            The encoded folds and the score.
        context : RunContext
            The device, the workers and the deadline. Keep the object: the search moves
            its deadline before each batch.
        """

    @abstractmethod
    def train(self, proposals: Sequence[Proposal]) -> list[Trial]:
        """Train proposals and score them on the folds of the problem.

        Parameters
        ----------
        proposals : sequence of Proposal
            What to train.

        Returns
        -------
        list of Trial
            One trial per proposal, in the same order. A failure is a trial with a
            cause and a reason, never an exception.
        """

    def to_networks(self, trial: Trial) -> tuple[Any, ...]:
        """Return the network of each fold of a trial, ready to predict.

        Only trainers with `keeps_networks` implement it.
        `sknas.trainers.to_inference_net` makes such networks of trained modules.
        """
        raise NotImplementedError
