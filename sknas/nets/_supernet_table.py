"""A network for tables that holds all depths, widths and kinds of units."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sknas.nets._init import UNIFORM_HEAD_GAIN
from sknas.nets._inputs import TableInput
from sknas.nets._layers import BatchNorm, InputLinear, Linear
from sknas.nets._supernet import (
    MixedChoice,
    MixedOperation,
    MixtureWeights,
    Supernet,
    mixture,
)
from sknas.nets._table import make_activation

DECIDED = (
    "depth",
    "width",
    "block",
    "activation",
    "normalisation",
    "numeric_embedding",
)
OF_INPUTS = ("depth", "numeric_embedding")  # what a linear network depends on
LAYERS = ("plain", "skip")  # blocks of one layer

Options = Mapping[str, Sequence[Any]]


class TableSupernet(Supernet):
    """The relaxed network of a space of tables.

    All widths are masks on one layer of the widest: a narrow layer is the first units
    of a wide one. Numeric embeddings are mixed after the first linear layer of each,
    normalisations and activations in each layer alike, and depths by the answers of a
    last layer at each of them.

    Parameters
    ----------
    inputs : sequence of TableInput
        One for each numeric embedding.
    n_outputs : int
        Columns of the answer (C).
    options : mapping of str to sequence
        Values of the choices of a `TableSpace` that are in `DECIDED`; those of one
        value are no decision, and those left out no part of an architecture.

    Notes
    -----
    **Shape**: (N, F) -> (1, N, C).

    Normalisations have no learnt scale: it would do the work of the weights of
    options. No option is marked as passing: there is one decision of each kind for
    all layers, and so no skips to count.

    References
    ----------
    Wan, Dai, Zhang, He, Tian, Xie, Wu, Yu, Xu, Chen, Vajda, Gonzalez: FBNetV2:
    Differentiable Neural Architecture Search for Spatial and Channel Dimensions.
    arXiv:2004.05565 (channel masks).
    """

    masks: Tensor

    def __init__(
        self, inputs: Sequence[TableInput], n_outputs: int, options: Options
    ) -> None:
        self.options = {name: tuple(values) for name, values in options.items()}
        super().__init__(
            {
                name: MixedChoice(values)
                for name, values in self.options.items()
                if len(values) > 1
            }
        )
        self.depths = self.options["depth"]
        self.n_outputs = n_outputs
        widths = torch.tensor(self.options.get("width", (0,)))
        self.width = int(widths.max())
        masks = torch.arange(self.width) < widths[:, None]  # (options, H)
        self.register_buffer("masks", masks.float(), persistent=False)
        # Columns of the first layer, and of the last one of a linear network.
        n_first = self.width + n_outputs
        firsts = [InputLinear(1, x.n_features, n_first) for x in inputs]
        heads = {str(d): Linear(1, self.width, n_outputs) for d in self.depths if d}
        last: list[Linear | InputLinear] = [*firsts, *heads.values()]
        for layer in last:
            _start_near_mean(layer, n_outputs)
        pairs = zip(inputs, firsts, strict=True)
        self.first = MixedOperation([nn.Sequential(*pair) for pair in pairs])
        self.layers = nn.ModuleList(
            MixedLayer(self.width, self.options, is_first=not number)
            for number in range(max(self.depths))
        )
        self.heads = nn.ModuleDict(heads)

    def forward(self, x: Tensor, weights: Mapping[str, MixtureWeights]) -> Tensor:
        sure = MixtureWeights(x.new_ones(1))
        told = defaultdict(lambda: sure, weights)
        mask = told["width"].values @ self.masks  # (H,)
        first = self.first(x, told["numeric_embedding"])  # (1, N, H + C)
        h, linear = first.split([self.width, self.n_outputs], dim=-1)
        states = [linear]
        deepest = max(self.depths[place] for place in told["depth"].places)
        for layer in self.layers[:deepest]:
            h = layer(h, told, mask)
            states.append(h)
        return mixture(lambda place: self._answer(place, states), told["depth"])

    def _answer(self, place: int, states: Sequence[Tensor]) -> Tensor:
        """The answer at one of the depths, given what each layer answers."""
        depth = self.depths[place]
        if not depth:
            return states[0]
        h = functional.dropout(states[depth], self.dropout, self.training)
        answer: Tensor = self.heads[str(depth)](h)
        return answer

    def architecture(
        self, chosen: Mapping[str, int], shares: Mapping[str, np.ndarray]
    ) -> dict[str, Any]:
        return {
            name: values[chosen.get(name, 0)] for name, values in self.options.items()
        }

    def used(
        self, chosen: Mapping[str, int], shares: Mapping[str, np.ndarray]
    ) -> list[str]:
        if self.depths[chosen.get("depth", 0)]:
            return list(self.decisions)
        return [name for name in self.decisions if name in OF_INPUTS]


class MixedLayer(nn.Module):
    """A hidden layer of all widths, with mixed normalisations and activations.

    Parameters
    ----------
    width : int
        Units of the widest (H).
    options : mapping of str to sequence
        See `TableSupernet`.
    is_first : bool
        The first layer is given its linear part, and has no shortcut.

    Notes
    -----
    **Shape**: (1, N, H) -> (1, N, H).
    """

    def __init__(self, width: int, options: Options, *, is_first: bool) -> None:
        super().__init__()
        self.is_first = is_first
        self.linear = nn.Identity() if is_first else Linear(1, width, width)
        self.normalisations = tuple(options["normalisation"])
        self.batch = BatchNorm(1, width).requires_grad_(False)
        kinds = options["activation"]
        self.activation = MixedOperation([make_activation([k], width) for k in kinds])
        self.blocks = tuple(options.get("block", LAYERS[1:]))

    def forward(
        self, x: Tensor, weights: Mapping[str, MixtureWeights], mask: Tensor
    ) -> Tensor:
        """What the units answer, those beyond the width zero: `mask` is (H,)."""
        h = self.linear(x)

        def normalised(place: int) -> Tensor:
            return self._normalised(h, self.normalisations[place], mask)

        normal = mixture(normalised, weights["normalisation"])
        answer = self.activation(normal, weights["activation"]) * mask
        if self.is_first:
            return answer

        def joined(place: int) -> Tensor:
            return answer if self.blocks[place] == "plain" else x + answer

        return mixture(joined, weights["block"])

    def _normalised(self, h: Tensor, kind: str, mask: Tensor) -> Tensor:
        if kind == "none":
            return h
        return self.batch(h) if kind == "batch" else masked_layer_norm(h, mask)


@torch.no_grad()
def _start_near_mean(layer: Linear | InputLinear, n_outputs: int) -> None:
    """Let the last columns start small, as those of networks of one architecture."""
    layer.weight[..., -n_outputs:] *= UNIFORM_HEAD_GAIN
    layer.bias[..., -n_outputs:] = 0.0


def masked_layer_norm(h: Tensor, mask: Tensor) -> Tensor:
    """Rows (..., H) on a scale of mean 0 and variance 1 of the units in a mask (H,)."""
    share = (mask / mask.sum().clamp(min=1e-6))[:, None]
    centred = h - h @ share
    return centred * torch.rsqrt(centred.square() @ share + 1e-5)
