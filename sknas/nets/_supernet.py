"""Relaxed networks: several options at once, each with a weight."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class MixedChoice:
    """One decision of a relaxed network.

    Parameters
    ----------
    options : tuple of str or int
        What there is to choose from, in order.
    passing : tuple of int, default=()
        Places of options that have no weights of their own, such as skips: they learn
        from the first step, so that search by gradient is drawn to them.
    identity : int or None, default=None
        Place of the passing option that answers what it is given.
    absent : int or None, default=None
        Place of the option that is no connection; it is never chosen.
    group : str, default=""
        Decisions of one group, such as those of a cell, share a bound on how many of
        them choose a passing option.
    is_staged : bool, default=True
        Whether a search in stages drops the weakest options on its way.
    """

    options: tuple[str | int, ...]
    passing: tuple[int, ...] = ()
    identity: int | None = None
    absent: int | None = None
    group: str = ""
    is_staged: bool = True


@dataclass(frozen=True, eq=False)
class MixtureWeights:
    """The weights of a decision's options.

    Parameters
    ----------
    values : Tensor of shape (n_options,)
        They need not sum to 1.
    computed : tuple of int or None, default=None
        Places of the options that are computed, None for all. The values of others
        are zero, but may carry a gradient (straight-through).
    dropout : float, default=0.0
        Probability with which numbers that a skip passes on are dropped in training.
    """

    values: Tensor
    computed: tuple[int, ...] | None = None
    dropout: float = 0.0

    @property
    def places(self) -> tuple[int, ...]:
        """The options that are computed."""
        return (
            tuple(range(len(self.values))) if self.computed is None else self.computed
        )

    @property
    def ghost(self) -> Tensor | None:
        """Zero, with the gradient of options that are not computed; None if all are."""
        others = [j for j in range(len(self.values)) if j not in self.places]
        return self.values[others].sum() if others else None


class Supernet(nn.Module, ABC):
    """A network that holds all architectures of a space, for search by gradient.

    A decision is anything with options: the operation of an edge, the input of a node,
    the width of a layer. The network takes the weights of all options, and answers as
    a mixture of them.

    Parameters
    ----------
    decisions : mapping of str to Decision
        Names and options, in order.

    Attributes
    ----------
    dropout : float
        Probability with which features before the last layer are dropped in training.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from sknas.nets import Decision, MixedOperation, Relaxed, Weights
    >>> class Shape(Relaxed):
    ...     def __init__(self):
    ...         super().__init__({"activation": Decision(("relu", "tanh"))})
    ...         self.mixed = MixedOperation([nn.ReLU(), nn.Tanh()])
    ...     def forward(self, x, weights):
    ...         return self.mixed(x, weights["activation"])[None]
    ...     def architecture(self, chosen, shares):
    ...         return {"activation": self.option("activation", chosen)}
    >>> net = Shape()
    >>> even = {"activation": Weights(torch.tensor([0.5, 0.5]))}
    >>> net(torch.zeros(4, 3), even).shape
    torch.Size([1, 4, 3])
    """

    def __init__(self, decisions: Mapping[str, MixedChoice]) -> None:
        super().__init__()
        self.decisions = dict(decisions)
        self.dropout = 0.0

    @abstractmethod
    def forward(self, x: Tensor, weights: Mapping[str, MixtureWeights]) -> Tensor:
        """Answers (1, N, C) to rows (N, ...), given the weights of all decisions."""

    @abstractmethod
    def architecture(
        self, chosen: Mapping[str, int], shares: Mapping[str, np.ndarray]
    ) -> dict[str, Any]:
        """The choices of a space that some options make.

        Parameters
        ----------
        chosen : mapping of str to int
            The place of the option of each decision.
        shares : mapping of str to ndarray of shape (n_options,)
            How much each option counts: where a node keeps some of its inputs only,
            those whose chosen option counts most.

        Returns
        -------
        dict
            Names and plain values; choices left out take their defaults.
        """

    def used(
        self, chosen: Mapping[str, int], shares: Mapping[str, np.ndarray]
    ) -> list[str]:
        """Names of the decisions that the architecture depends on; here all."""
        return list(self.decisions)

    def option(self, name: str, chosen: Mapping[str, int]) -> str | int:
        """The option that was chosen for a decision."""
        return self.decisions[name].options[chosen[name]]


class MixedOperation(nn.Module):
    """A weighted sum of operations.

    Parameters
    ----------
    operations : sequence of nn.Module
        One an option, all of the same answer's shape. With `partial` > 1 they work on
        that part of the channels.
    skips : tuple of int, default=()
        Places of operations that answer what they are given, less what is dropped.
    partial : int, default=1
        One of so many channels goes through the operations, the others pass by; then
        they are shuffled, so that others go through the next mixture.

    Notes
    -----
    **Shape**: (N, H, ...) -> the shape that the operations answer.

    References
    ----------
    Liu, Simonyan, Yang: DARTS: Differentiable Architecture Search. arXiv:1806.09055.
    Xu, Xie, Zhang, Chen, Qi, Tian, Xiong: PC-DARTS: Partial Channel Connections for
    Memory-Efficient Architecture Search. arXiv:1907.05737 (partial channels).
    """

    def __init__(
        self,
        operations: Sequence[nn.Module],
        skips: tuple[int, ...] = (),
        partial: int = 1,
    ) -> None:
        super().__init__()
        self.operations = nn.ModuleList(operations)
        self.skips = skips
        self.partial = partial

    def forward(self, x: Tensor, weights: MixtureWeights) -> Tensor:
        if self.partial == 1:
            return self._mixed(x, weights)
        n = x.shape[1] // self.partial
        mixed, rest = self._mixed(x[:, :n], weights), x[:, n:]
        if mixed.shape[2:] != rest.shape[2:]:
            rest = functional.max_pool2d(rest, 2, 2, ceil_mode=True)
        return shuffled(torch.cat([mixed, rest], dim=1), self.partial)

    def _mixed(self, x: Tensor, weights: MixtureWeights) -> Tensor:
        def answer(place: int) -> Tensor:
            answer: Tensor = self.operations[place](x)
            if weights.dropout and place in self.skips:
                return functional.dropout(answer, weights.dropout, self.training)
            return answer

        return mixture(answer, weights)


def mixture(answer: Callable[[int], Tensor], weights: MixtureWeights) -> Tensor:
    """The weighted sum of what options answer, each given by its place."""
    total: Tensor | None = None
    for place in weights.places:
        part = weights.values[place] * answer(place)
        total = part if total is None else total + part
    assert total is not None
    ghost = weights.ghost
    return total if ghost is None else total + ghost


def shuffled(x: Tensor, groups: int) -> Tensor:
    """Channels (N, H, ...) dealt out: the first of each group, then the second ..."""
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)
