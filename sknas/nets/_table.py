"""Networks for tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

from sknas._training.parameter_groups import GroupedModule, LRGroup
from sknas.nets._base import HalfPrecisionModule, InitializedModule
from sknas.nets._init import initialize_weights
from sknas.nets._inputs import Inputs
from sknas.nets._layers import (
    ACTIVATIONS,
    NORMALISATIONS,
    Activation,
    Dropout,
    Heads,
    InputLinear,
    Linear,
    ParametricActivation,
)

BLOCKS = ("plain", "skip", "resnet")
PARAMETRIC = "parametric-"
TABLE_ACTIVATIONS = (*ACTIVATIONS, *(PARAMETRIC + name for name in ACTIVATIONS))
BRANCH_DROPOUT = 0.4  # dropout of a residual branch, relative to its hidden units'


@dataclass(frozen=True)
class LayerOptions:
    """Options that the hidden layers of K networks share; see `TableNet`."""

    normalisation: str
    activations: Sequence[str]
    dropout: Sequence[float]

    def normalise(self, width: int) -> nn.Module:
        """Return the normalisation of hidden units."""
        return NORMALISATIONS[self.normalisation](len(self.dropout), width)

    def activate(self, width: int) -> nn.Module:
        """Return the activation of hidden units."""
        return make_activation(self.activations, width)


class Layer(nn.Module):
    """Linear, normalisation, activation and dropout, with an optional shortcut.

    Notes
    -----
    **Shape**: (K, N, n_inputs) -> (K, N, H).
    """

    def __init__(
        self,
        linear: Linear | InputLinear,
        options: LayerOptions,
        has_shortcut: bool,
    ) -> None:
        super().__init__()
        width = linear.weight.shape[2]
        self.linear = linear
        self.normalisation = options.normalise(width)
        self.activation = options.activate(width)
        self.dropout = Dropout(options.dropout)
        self.has_shortcut = has_shortcut

    def forward(self, x: Tensor) -> Tensor:
        h = self.normalisation(self.linear(x))
        h = self.dropout(self.activation(h))
        return x + h if self.has_shortcut else h


class ResidualBlock(nn.Module):
    """Adds a branch of normalisation and two layers to its input.

    Notes
    -----
    **Shape**: (K, N, H) -> (K, N, H).

    References
    ----------
    Gorishniy, Rubachev, Khrulkov, Babenko: Revisiting Deep Learning Models for
    Tabular Data. arXiv:2106.11959 (ResNet).
    """

    def __init__(self, width: int, options: LayerOptions) -> None:
        super().__init__()
        dropout = options.dropout
        k = len(dropout)
        self.normalisation = options.normalise(width)
        self.first = Linear(k, width, 2 * width)
        self.activation = options.activate(2 * width)
        self.inner = Dropout(dropout)
        self.second = Linear(k, 2 * width, width)
        self.outer = Dropout([BRANCH_DROPOUT * p for p in dropout])

    def forward(self, x: Tensor) -> Tensor:
        h = self.inner(self.activation(self.first(self.normalisation(x))))
        return x + self.outer(self.second(h))


class Adapters(GroupedModule):
    """Copies rows for the M members of each network, and scales their features.

    Parameters
    ----------
    k, m : int
        Number of networks, and of members of each.
    columns : list of int
        Column of the table that each feature comes from: features of one column start
        with the same factor.
    is_normal : bool
        Whether factors are drawn from a normal distribution, or from -1 and 1.

    Notes
    -----
    **Shape**: (G, N, F), G a divisor of K -> (K, M * N, F).

    References
    ----------
    Gorishniy, Kotelnikov, Babenko: TabM: Advancing Tabular Deep Learning with
    Parameter-Efficient Ensembling. arXiv:2410.24210 (TabM-mini).
    """

    lr_groups = MappingProxyType({"factor": LRGroup.PLAIN})

    def __init__(self, k: int, m: int, columns: list[int], is_normal: bool) -> None:
        super().__init__()
        factor = torch.randn(k, m, 1, max(columns, default=0) + 1)
        if not is_normal:
            factor = torch.where(factor < 0, -1.0, 1.0)
        self.factor = nn.Parameter(factor[..., columns])  # (K, M, 1, F)

    def forward(self, x: Tensor) -> Tensor:
        k = len(self.factor)
        x = x[torch.arange(k, device=x.device) % len(x)]  # (K, N, F)
        return (x[:, None] * self.factor.to(x.dtype)).flatten(1, 2)


class TableNet(InitializedModule, HalfPrecisionModule):
    """K multi-layer perceptrons of the same shape.

    Parameters
    ----------
    inputs : Inputs
        Embeddings of the features, learnt with the network.
    n_outputs : int
        Number of outputs (C).
    kind : {"binary", "multiclass", "multilabel", "regression"}
        Kind of target: it decides how the outputs of members are averaged.
    depth, width : int
        Number of hidden layers or blocks, and hidden units of each (H); at depth 0 the
        network is linear.
    activations : sequence of str
        Names in `TABLE_ACTIVATIONS`, one per network; all are parametric, or none.
    dropout : sequence of float
        Dropout probability of each network.
    normalisation : str, default="none"
        A key of `NORMALISATIONS`.
    block : {"plain", "skip", "resnet"}, default="plain"
        Layers; layers that add their input; or residual blocks of two layers.
    packing : int, default=1
        Number of members (M) of each network, which share the hidden layers.

    Notes
    -----
    **Shape**: (N, F) or (G, N, F), G a divisor of K -> (K, N, C); in training with
    several members (K, M * N, C).
    """

    def __init__(
        self,
        inputs: Inputs,
        n_outputs: int,
        kind: str,
        *,
        depth: int,
        width: int,
        activations: Sequence[str],
        dropout: Sequence[float],
        normalisation: str = "none",
        block: str = "plain",
        packing: int = 1,
    ) -> None:
        super().__init__()
        k = inputs.k
        self.k, self.n_features = k, inputs.layout.n_features
        self.inputs = inputs
        self.kind = kind
        self.packing = packing
        self._precision: torch.dtype | None = None
        if packing > 1:
            is_normal = inputs.numeric is not None
            self.adapters = Adapters(k, packing, inputs.columns, is_normal)
        options = LayerOptions(normalisation, activations, dropout)
        layers = _hidden_layers(inputs.n_outputs, depth, width, block, options)
        self.layers = nn.Sequential(*layers)
        if packing > 1:
            n_inputs = width if depth else inputs.n_outputs
            self.head: Heads | Linear | InputLinear = Heads(
                k, packing, n_inputs, n_outputs
            )
        elif depth:
            self.head = Linear(k, width, n_outputs)
        else:
            self.head = InputLinear(k, inputs.n_outputs, n_outputs)

    def initialize(self, init: str, rows: Tensor) -> None:
        initialize_weights(self, init, rows)

    @property
    def reads_half(self) -> bool:
        # Embeddings need exact numbers and codes, products do not.
        return self.inputs.numeric is None and self.inputs.embedding is None

    def set_precision(self, precision: torch.dtype | None) -> None:
        self._precision = precision

    def forward(self, features: Tensor) -> Tensor:
        if features.ndim == 2:
            features = features[None]
        if features.shape[-1] != self.n_features or self.k % len(features):
            raise ValueError(
                f"TableNet reads features of shape (G, N, {self.n_features}), G a "
                f"divisor of K = {self.k}, got {tuple(features.shape)}."
            )
        x = self.inputs(features)
        if self.packing > 1:
            x = self.adapters(x)
        outputs = self.head(
            self.layers(x if self._precision is None else x.to(self._precision))
        )
        if self.packing == 1 or self.training:
            return outputs
        return self._average(outputs.unflatten(1, (self.packing, -1)))

    def _average(self, outputs: Tensor) -> Tensor:
        """Average the outputs of the M members, (K, M, N, C) -> (K, N, C).

        Probabilities are averaged, not logits; the result is a logit again.
        """
        if self.kind == "regression":
            return outputs.mean(dim=1)
        if self.kind == "multilabel":
            return torch.logit(torch.sigmoid(outputs).mean(dim=1), eps=1e-7)
        log_probabilities = torch.log_softmax(outputs, dim=-1)
        return torch.logsumexp(log_probabilities, dim=1) - torch.log(
            torch.tensor(float(self.packing))
        )


def _hidden_layers(
    n_inputs: int, depth: int, width: int, block: str, options: LayerOptions
) -> list[nn.Module]:
    """Return the layers before the last one; none if the depth is 0."""
    k = len(options.dropout)
    if depth and block == "resnet":
        return [
            InputLinear(k, n_inputs, width),
            *(ResidualBlock(width, options) for _ in range(depth)),
            options.normalise(width),
            options.activate(width),
        ]
    layers: list[nn.Module] = []
    for number in range(depth):
        linear = Linear(k, width, width) if number else InputLinear(k, n_inputs, width)
        layers.append(Layer(linear, options, block == "skip" and number > 0))
    return layers


class TableModule(InitializedModule):
    """K networks on encoded rows: fixed features, and the networks that read them.

    Parameters
    ----------
    features : nn.Module
        Encoded rows -> features.
    net : nn.Module
        Features -> outputs.

    Notes
    -----
    **Shape**: (N, F) or (K, N, F) -> (K, N, C).
    """

    def __init__(self, features: nn.Module, net: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.net = net

    def initialize(self, init: str, rows: Tensor) -> None:
        if isinstance(self.net, InitializedModule):
            self.net.initialize(init, self.features(rows))

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.net(self.features(x))
        return outputs


def make_activation(
    kinds: Sequence[str], width: int
) -> Activation | ParametricActivation:
    """Return the activation of K networks; all are parametric, or none."""
    names = [kind.removeprefix(PARAMETRIC) for kind in kinds]
    if kinds[0].startswith(PARAMETRIC):
        return ParametricActivation(names, width)
    return Activation(names)
