"""Supernets: networks that compute mixtures of several options."""

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
    """One choice of a supernet.

    Parameters
    ----------
    options : tuple of str or int
        Options to choose from, in order.
    parameter_free : tuple of int, default=()
        Indices of options without weights, such as skips. They need no training, so
        search by gradient is biased towards them.
    skip_op : int or None, default=None
        Index of the parameter-free option that returns its input.
    none_op : int or None, default=None
        Index of the option without a connection; it is never chosen.
    cell : str, default=""
        Name of the cell; the number of parameter-free options in a cell is limited.
    is_staged : bool, default=True
        True if a search in stages prunes the weakest options.
    """

    options: tuple[str | int, ...]
    parameter_free: tuple[int, ...] = ()
    skip_op: int | None = None
    none_op: int | None = None
    cell: str = ""
    is_staged: bool = True


@dataclass(frozen=True, eq=False)
class MixtureWeights:
    """The weights of the options of a choice.

    Parameters
    ----------
    values : Tensor of shape (n_options,)
        They need not sum to 1.
    computed : tuple of int or None, default=None
        Indices of the options that are computed, None for all. The values of others
        are zero, but may carry a gradient (straight-through).
    dropout : float, default=0.0
        Dropout probability of skips in training.
    """

    values: Tensor
    computed: tuple[int, ...] | None = None
    dropout: float = 0.0

    @property
    def indices(self) -> tuple[int, ...]:
        """Indices of the options that are computed."""
        return (
            tuple(range(len(self.values))) if self.computed is None else self.computed
        )

    @property
    def straight_through_term(self) -> Tensor | None:
        """Zero, with the gradient of options that are not computed; None if all are."""
        others = [j for j in range(len(self.values)) if j not in self.indices]
        return self.values[others].sum() if others else None


Mix = Mapping[str, MixtureWeights]  # weights of the options of each choice
Chosen = Mapping[str, int]  # index of the chosen option of each choice
Shares = Mapping[str, np.ndarray]  # weight of each option, (n_options,) per choice


class Supernet(nn.Module, ABC):
    """A network that holds all architectures of a space, for search by gradient.

    A choice has options: the operation of an edge, the input of a node, the width of a
    layer. The network takes the weights of all options, and computes their mixture.

    Parameters
    ----------
    choices : mapping of str to MixedChoice
        The choices by name, in order.

    Attributes
    ----------
    dropout : float
        Dropout probability before the last layer.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from sknas.nets import MixedChoice, MixedOperation, MixtureWeights, Supernet
    >>> class Shape(Supernet):
    ...     def __init__(self):
    ...         super().__init__({"activation": MixedChoice(("relu", "tanh"))})
    ...         self.mixed = MixedOperation([nn.ReLU(), nn.Tanh()])
    ...     def forward(self, x, weights):
    ...         return self.mixed(x, weights["activation"])[None]
    ...     def architecture(self, chosen, shares):
    ...         return {"activation": self.option("activation", chosen)}
    >>> net = Shape()
    >>> even = {"activation": MixtureWeights(torch.tensor([0.5, 0.5]))}
    >>> net(torch.zeros(4, 3), even).shape
    torch.Size([1, 4, 3])
    """

    def __init__(self, choices: Mapping[str, MixedChoice]) -> None:
        super().__init__()
        self.choices = dict(choices)
        self.dropout = 0.0

    @abstractmethod
    def forward(self, x: Tensor, weights: Mix) -> Tensor:
        """Return outputs (1, N, C) for rows (N, ...) and the weights of all choices."""

    @abstractmethod
    def architecture(self, chosen: Chosen, shares: Shares) -> dict[str, Any]:
        """Return the architecture that consists of the chosen options.

        Parameters
        ----------
        chosen : mapping of str to int
            Index of the chosen option of each choice.
        shares : mapping of str to ndarray of shape (n_options,)
            Weight of each option. A node that reads only some of its inputs keeps those
            whose chosen options have the largest.

        Returns
        -------
        dict
            Values by the space's choices; choices left out take their defaults.
        """

    def used(self, chosen: Chosen, shares: Shares) -> list[str]:
        """Return the names of the choices that the architecture depends on."""
        return list(self.choices)

    def option(self, name: str, chosen: Chosen) -> str | int:
        """Return the chosen option of a choice."""
        return self.choices[name].options[chosen[name]]


class MixedOperation(nn.Module):
    """A weighted sum of operations.

    Parameters
    ----------
    operations : sequence of nn.Module
        One per option, all with the same output shape. With `partial` > 1 they work on
        1 / `partial` of the channels.
    skips : tuple of int, default=()
        Indices of operations that return their input; dropout applies to them.
    partial : int, default=1
        1 / `partial` of the channels go through the operations, the others bypass
        them; then channels are shuffled, so that others go through the next mixture.

    Notes
    -----
    **Shape**: (N, H, ...) -> the shape of the operations' outputs.

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
        return channel_shuffle(torch.cat([mixed, rest], dim=1), self.partial)

    def _mixed(self, x: Tensor, weights: MixtureWeights) -> Tensor:
        def compute(index: int) -> Tensor:
            output: Tensor = self.operations[index](x)
            if weights.dropout and index in self.skips:
                return functional.dropout(output, weights.dropout, self.training)
            return output

        return mixture(compute, weights)


def mixture(compute: Callable[[int], Tensor], weights: MixtureWeights) -> Tensor:
    """Return the weighted sum of the outputs of options, computed by index."""
    total: Tensor | None = None
    for index in weights.indices:
        output = weights.values[index] * compute(index)
        total = output if total is None else total + output
    assert total is not None
    term = weights.straight_through_term
    return total if term is None else total + term


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Reorder channels (N, H, ...): the first of each group, then the second, ..."""
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)
