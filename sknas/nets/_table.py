"""Networks for tables."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sknas.nets._embeddings import TableInput
from sknas.nets._layers import ACTIVATIONS, NORMALISATIONS, Dropout, Linear


class Block(nn.Module):
    """Linear, normalisation, activation, dropout; with a shortcut where it fits.

    Notes
    -----
    **Shape**: (K, N, n_inputs) -> (K, N, H).
    """

    def __init__(
        self,
        k: int,
        n_inputs: int,
        width: int,
        activation: str,
        normalisation: str,
        dropout: Sequence[float],
        is_residual: bool,
    ) -> None:
        super().__init__()
        self.linear = Linear(k, n_inputs, width)
        self.normalisation = NORMALISATIONS[normalisation](k, width)
        self.activation = activation
        self.dropout = Dropout(dropout)
        self.is_residual = is_residual

    def forward(self, x: Tensor) -> Tensor:
        h = self.normalisation(self.linear(x))
        h = self.dropout(ACTIVATIONS[self.activation](h))
        return x + h if self.is_residual else h


class TableNet(nn.Module):
    """K multi-layer networks of the same shape over one input.

    Parameters
    ----------
    inputs : TableInput
        Turns encoded rows into features (K, N, n_features).
    n_outputs : int
        Columns of the answer (C).
    depth, width : int
        Hidden layers, and the units of each.
    activation : str
        A key of `ACTIVATIONS`.
    normalisation : str
        A key of `NORMALISATIONS`.
    dropout : sequence of float
        Probability of each network.
    residual : bool
        Whether each hidden layer but the first adds its input to its output.

    Notes
    -----
    **Shape**: (N, F) or (K, N, F) -> (K, N, C).
    """

    def __init__(
        self,
        inputs: TableInput,
        n_outputs: int,
        *,
        depth: int,
        width: int,
        activation: str,
        normalisation: str,
        dropout: Sequence[float],
        residual: bool,
    ) -> None:
        super().__init__()
        self.inputs = inputs
        k = inputs.k
        blocks = []
        for layer in range(depth):
            blocks.append(
                Block(
                    k,
                    inputs.n_features if layer == 0 else width,
                    width,
                    activation,
                    normalisation,
                    dropout,
                    is_residual=residual and layer > 0,
                )
            )
        self.blocks = nn.Sequential(*blocks)
        self.head = Linear(k, width, n_outputs)
        # Starting near the mean answer leaves the first steps to the hidden layers.
        with torch.no_grad():
            self.head.weight.mul_(0.1)
            self.head.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.inputs(x)))


class Side(nn.Module):
    """Networks of different shapes side by side, each row of K in its place.

    Parameters
    ----------
    nets : sequence of nn.Module
        Each answers (K_i, N, C).
    places : sequence of sequence of int
        Where the K_i answers of each go.

    Notes
    -----
    **Shape**: (N, F) or (K, N, F) -> (K, N, C).
    """

    def __init__(
        self, nets: Sequence[nn.Module], places: Sequence[Sequence[int]]
    ) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)
        self.places = [list(place) for place in places]

    def forward(self, x: Tensor) -> Tensor:
        answers: dict[int, Tensor] = {}
        for net, places in zip(self.nets, self.places, strict=True):
            own = x if x.ndim == 2 else x[places]
            answers |= dict(zip(places, net(own), strict=True))
        return torch.stack([answers[place] for place in sorted(answers)])
