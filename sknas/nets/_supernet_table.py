"""The supernet of a table space: all depths, widths and kinds of layers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sknas.nets._init import HEAD_GAIN
from sknas.nets._inputs import TableInput
from sknas.nets._layers import BatchNorm, InputLinear, Linear
from sknas.nets._supernet import (
    Chosen,
    Mix,
    MixedChoice,
    MixedOperation,
    MixtureWeights,
    Shares,
    Supernet,
    mixture,
)
from sknas.nets._table import make_activation

MIXED_CHOICES = (
    "depth",
    "width",
    "block",
    "activation",
    "normalisation",
    "numeric_embedding",
)
LINEAR_CHOICES = ("depth", "numeric_embedding")  # choices of a linear network
LAYER_BLOCKS = ("plain", "skip")  # blocks of a single layer

Options = Mapping[str, Sequence[Any]]


class TableSupernet(Supernet):
    """The supernet of a table space.

    All widths are masks on one layer of the largest width: a narrow layer is the first
    hidden units of a wide one. Numeric embeddings are mixed after the first linear
    layer of each, normalisations and activations in each layer by the same weights, and
    depths by the outputs of a last layer at each depth.

    Parameters
    ----------
    inputs : sequence of TableInput
        One for each numeric embedding.
    n_outputs : int
        Number of outputs (C).
    options : mapping of str to sequence
        Values of those choices of a `TableSpace` that are in `MIXED_CHOICES`. A choice
        of one value is not mixed; one left out is not part of an architecture.

    Notes
    -----
    **Shape**: (N, F) -> (1, N, C).

    Normalisations learn no scale: the weights of options would compete with it. No
    option is marked as parameter-free: each choice holds for all layers, so there are
    no skips to count.

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
        masks = torch.arange(self.width) < widths[:, None]  # (n_options, H)
        self.register_buffer("masks", masks.float(), persistent=False)
        # The first layers compute hidden units and the outputs of a linear network.
        n_first = self.width + n_outputs
        firsts = [InputLinear(1, x.n_features, n_first) for x in inputs]
        heads = {str(d): Linear(1, self.width, n_outputs) for d in self.depths if d}
        last: list[Linear | InputLinear] = [*firsts, *heads.values()]
        for layer in last:
            _scale_outputs(layer, n_outputs)
        pairs = zip(inputs, firsts, strict=True)
        self.first = MixedOperation([nn.Sequential(*pair) for pair in pairs])
        self.layers = nn.ModuleList(
            MixedLayer(self.width, self.options, is_first=not number)
            for number in range(max(self.depths))
        )
        self.heads = nn.ModuleDict(heads)

    def forward(self, x: Tensor, weights: Mix) -> Tensor:
        single = MixtureWeights(x.new_ones(1))  # for a choice with one option
        weights = defaultdict(lambda: single, weights)
        mask = weights["width"].values @ self.masks  # (H,)
        first = self.first(x, weights["numeric_embedding"])  # (1, N, H + C)
        h, linear = first.split([self.width, self.n_outputs], dim=-1)
        states = [linear]
        max_depth = max(self.depths[index] for index in weights["depth"].indices)
        for layer in self.layers[:max_depth]:
            h = layer(h, weights, mask)
            states.append(h)
        return mixture(lambda index: self._output(index, states), weights["depth"])

    def _output(self, index: int, states: Sequence[Tensor]) -> Tensor:
        """Return the output of a depth option, given the states of all layers."""
        depth = self.depths[index]
        if not depth:
            return states[0]
        h = functional.dropout(states[depth], self.dropout, self.training)
        output: Tensor = self.heads[str(depth)](h)
        return output

    def architecture(self, chosen: Chosen, shares: Shares) -> dict[str, Any]:
        return {
            name: values[chosen.get(name, 0)] for name, values in self.options.items()
        }

    def used(self, chosen: Chosen, shares: Shares) -> list[str]:
        if self.depths[chosen.get("depth", 0)]:
            return list(self.choices)
        return [name for name in self.choices if name in LINEAR_CHOICES]


class MixedLayer(nn.Module):
    """A hidden layer of all widths, normalisations and activations.

    Parameters
    ----------
    width : int
        The largest width (H).
    options : mapping of str to sequence
        See `TableSupernet`.
    is_first : bool
        True for the first layer: it reads a linear layer's output, without a shortcut.

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
        self.blocks = tuple(options.get("block", LAYER_BLOCKS[1:]))

    def forward(self, x: Tensor, weights: Mix, mask: Tensor) -> Tensor:
        """Return hidden units; those outside the `mask` (H,) are zero."""
        h = self.linear(x)

        def normalise(index: int) -> Tensor:
            return self._normalise(h, self.normalisations[index], mask)

        normal = mixture(normalise, weights["normalisation"])
        output = self.activation(normal, weights["activation"]) * mask
        if self.is_first:
            return output

        def join(index: int) -> Tensor:
            return output if self.blocks[index] == "plain" else x + output

        return mixture(join, weights["block"])

    def _normalise(self, h: Tensor, kind: str, mask: Tensor) -> Tensor:
        if kind == "none":
            return h
        return self.batch(h) if kind == "batch" else masked_layer_norm(h, mask)


@torch.no_grad()
def _scale_outputs(layer: Linear | InputLinear, n_outputs: int) -> None:
    """Scale down the initial weights of the outputs, the last units of a layer."""
    layer.weight[..., -n_outputs:] *= HEAD_GAIN
    layer.bias[..., -n_outputs:] = 0.0


def masked_layer_norm(h: Tensor, mask: Tensor) -> Tensor:
    """Normalise rows (..., H) over the hidden units in a mask (H,)."""
    share = (mask / mask.sum().clamp(min=1e-6))[:, None]
    centred = h - h @ share
    return centred * torch.rsqrt(centred.square() @ share + 1e-5)
