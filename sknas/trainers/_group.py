"""An architecture in training, and what came of it so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from sknas._history import Proposal

State = dict[str, Tensor]  # parameters and statistics of networks, by name


@dataclass(frozen=True, eq=False)
class BestSnapshot:
    """A network at the best of the points where it was looked at.

    Parameters
    ----------
    value : float
        What points are compared by, greater is better.
    share : float
        Share of the schedule that was done.
    step : int
        Steps that were done.
    score, loss : float
        Mean over the folds.
    fold_scores : tuple of float
        The score of each fold.
    predictions : ndarray of shape (n_rows, C)
        Of the rows that were validated, NaN for others.
    networks : tuple of dict
        The parameters of the network of each fold.
    n_params : int
        Trained parameters of one of them.
    """

    value: float
    share: float
    step: int
    score: float
    loss: float
    fold_scores: tuple[float, ...]
    predictions: np.ndarray
    networks: tuple[State, ...]
    n_params: int


@dataclass(eq=False)
class TrialState:
    """An architecture in training, and what came of it so far.

    Parameters
    ----------
    is_halved : bool, default=False
        Whether each batch is taken in two halves, as memory ran out.
    """

    proposal: Proposal
    best: BestSnapshot | None = None
    rung_scores: tuple[float, ...] = ()
    rung_losses: tuple[float, ...] = ()
    seconds: float = 0.0
    reason: str = ""
    is_halved: bool = False

    @property
    def value(self) -> float:
        """What members are ranked by, -inf before the first look."""
        return -np.inf if self.best is None else self.best.value


class Unit(Protocol):
    """What is trained as one: members, and all that is needed to go on with them."""

    members: list[TrialState]
    step: int
    is_cut: bool

    def kept(self, places: Sequence[int]) -> Self:
        """The unit with some of its members alone."""


def stopped(unit: Any, reason: str) -> Any:
    """A unit that goes no further."""
    members = [replace(m, reason=m.reason or reason) for m in unit.members]
    return replace(unit, members=members, is_cut=True)


@dataclass(eq=False)
class Batched:
    """Members of one shape and what to go on from.

    Networks are ordered by member, then by fold: network k is that of member k // G on
    fold k % G.

    Parameters
    ----------
    members : list of Member
        What is trained.
    step : int
        Steps that are done.
    state : dict of str to Tensor
        Parameters and statistics of all networks, the network axis first; empty before
        the first step.
    moments : list of dict
        What the optimiser remembers.
    """

    members: list[TrialState]
    step: int = 0
    state: State = field(default_factory=dict)
    moments: list[dict[str, Tensor]] = field(default_factory=list)
    is_cut: bool = False

    @property
    def architectures(self) -> list[Any]:
        """One a member."""
        return [member.proposal.architecture for member in self.members]

    @property
    def is_halved(self) -> bool:
        """Whether each batch is taken in two halves."""
        return any(member.is_halved for member in self.members)

    def kept(self, places: Sequence[int]) -> Batched:
        """The unit with some of its members alone."""
        members = [self.members[place] for place in places]
        if not self.state:
            return replace(self, members=members)
        n = len(self.members)

        def chosen(tensor: Tensor) -> Tensor:
            if not tensor.ndim:  # a count of steps
                return tensor.clone()
            return tensor.unflatten(0, (n, -1))[list(places)].flatten(0, 1)

        state = {name: chosen(tensor) for name, tensor in self.state.items()}
        moments = [{n: chosen(t) for n, t in m.items()} for m in self.moments]
        return replace(self, members=members, state=state, moments=moments)

    def joined(self, other: Batched) -> Batched:
        """This unit and another of the same shape and step as one."""

        def both(a: Tensor, b: Tensor) -> Tensor:
            return torch.cat([a, b]) if a.ndim else a

        state = {name: both(t, other.state[name]) for name, t in self.state.items()}
        moments = [
            {name: both(t, n[name]) for name, t in m.items()}
            for m, n in zip(self.moments, other.moments, strict=True)
        ]
        members = [*self.members, *other.members]
        return replace(self, members=members, state=state, moments=moments)
