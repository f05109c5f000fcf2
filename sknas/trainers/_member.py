"""An architecture in training, and what came of it so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import numpy as np
from torch import Tensor

from sknas._history import Proposal

State = dict[str, Tensor]  # parameters and statistics of networks, by name


@dataclass(frozen=True, eq=False)
class Best:
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
class Member:
    """An architecture in training, and what came of it so far.

    Parameters
    ----------
    is_halved : bool, default=False
        Whether each batch is taken in two halves, as memory ran out.
    """

    proposal: Proposal
    best: Best | None = None
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

    members: list[Member]
    step: int
    is_cut: bool

    def kept(self, places: Sequence[int]) -> Self:
        """The unit with some of its members alone."""


def stopped(unit: Any, reason: str) -> Any:
    """A unit that goes no further."""
    members = [replace(m, reason=m.reason or reason) for m in unit.members]
    return replace(unit, members=members, is_cut=True)
