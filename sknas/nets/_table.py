"""Networks for tables."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sknas.nets._inputs import Features, Inputs
from sknas.nets._layers import (
    ACTIVATIONS,
    NORMALISATIONS,
    Activation,
    Dropout,
    InputLinear,
    Linear,
    ParametricActivation,
)

BLOCKS = ("plain", "skip", "resnet")
PARAMETRIC = "parametric-"
UNIT_KINDS = (*ACTIVATIONS, *(PARAMETRIC + name for name in ACTIVATIONS))
RESNET_SHARE = 0.4  # dropout on a residual branch, beside that of its hidden units


class Layer(nn.Module):
    """Linear, normalisation, activation, dropout; with a shortcut where it fits.

    Notes
    -----
    **Shape**: (K, N, n_inputs) -> (K, N, H).
    """

    def __init__(
        self,
        linear: Linear | InputLinear,
        normalisation: str,
        activations: Sequence[str],
        dropout: Sequence[float],
        is_skipped: bool,
    ) -> None:
        super().__init__()
        k, _, width = linear.weight.shape
        self.linear = linear
        self.normalisation = NORMALISATIONS[normalisation](k, width)
        self.activation = make_activation(activations, width)
        self.dropout = Dropout(dropout)
        self.is_skipped = is_skipped

    def forward(self, x: Tensor) -> Tensor:
        h = self.normalisation(self.linear(x))
        h = self.dropout(self.activation(h))
        return x + h if self.is_skipped else h


class ResidualBlock(nn.Module):
    """Normalisation and two layers, added to the input.

    Notes
    -----
    **Shape**: (K, N, H) -> (K, N, H).

    References
    ----------
    Gorishniy, Rubachev, Khrulkov, Babenko: Revisiting Deep Learning Models for
    Tabular Data. arXiv:2106.11959 (ResNet).
    """

    def __init__(
        self,
        width: int,
        normalisation: str,
        activations: Sequence[str],
        dropout: Sequence[float],
    ) -> None:
        super().__init__()
        k = len(dropout)
        self.normalisation = NORMALISATIONS[normalisation](k, width)
        self.first = Linear(k, width, 2 * width)
        self.activation = make_activation(activations, 2 * width)
        self.inner = Dropout(dropout)
        self.second = Linear(k, 2 * width, width)
        self.outer = Dropout([RESNET_SHARE * p for p in dropout])

    def forward(self, x: Tensor) -> Tensor:
        h = self.inner(self.activation(self.first(self.normalisation(x))))
        return x + self.outer(self.second(h))


class Adapters(nn.Module):
    """M copies of the rows of each network, every column scaled by a learnt factor.

    Parameters
    ----------
    k, m : int
        Networks, and copies of each.
    columns : list of int
        The column of the table that each feature comes from: features of one column
        start with the same factor.
    is_normal : bool
        Whether factors start normal, or at -1 and 1.

    Notes
    -----
    **Shape**: (G, N, F), G a divisor of K -> (K, M * N, F).

    References
    ----------
    Gorishniy, Kotelnikov, Babenko: TabM: Advancing Tabular Deep Learning with
    Parameter-Efficient Ensembling. arXiv:2410.24210 (TabM-mini).
    """

    def __init__(self, k: int, m: int, columns: list[int], is_normal: bool) -> None:
        super().__init__()
        drawn = torch.randn(k, m, 1, max(columns, default=0) + 1)
        start = drawn if is_normal else torch.where(drawn < 0, -1.0, 1.0)
        self.factor = nn.Parameter(start[..., columns])  # (K, M, 1, F)

    def forward(self, x: Tensor) -> Tensor:
        k = len(self.factor)
        x = x[torch.arange(k, device=x.device) % len(x)]  # (K, N, F)
        return (x[:, None] * self.factor.to(x.dtype)).flatten(1, 2)


class Heads(nn.Module):
    """A last layer for each of the M copies of K networks.

    Notes
    -----
    **Shape**: (K, M * N, H) -> (K, M * N, C).
    """

    def __init__(self, k: int, m: int, n_inputs: int, n_outputs: int) -> None:
        super().__init__()
        single = Linear(k * m, n_inputs, n_outputs)
        self.weight = nn.Parameter(single.weight.detach().unflatten(0, (k, m)))
        self.bias = nn.Parameter(single.bias.detach().unflatten(0, (k, m)))

    def forward(self, x: Tensor) -> Tensor:
        k, m = self.weight.shape[:2]
        weight, bias = self.weight.flatten(0, 1), self.bias.flatten(0, 1)
        rows = x.unflatten(1, (m, -1)).flatten(0, 1)  # (K * M, N, H)
        answers = torch.baddbmm(bias.to(x.dtype), rows, weight.to(x.dtype))
        return answers.unflatten(0, (k, m)).flatten(1, 2)


class TableNet(nn.Module):
    """K multi-layer networks of the same shape over features.

    Parameters
    ----------
    inputs : Inputs
        Its embeddings are learnt with the network.
    n_outputs : int
        Columns of the answer (C).
    kind : {"binary", "multiclass", "multilabel", "regression"}
        What is answered: how the answers of copies are averaged.
    depth, width : int
        Hidden layers, or blocks, and the units of each; without any the network is
        linear.
    activations : sequence of str
        Of `UNIT_KINDS`, one a network; all parametric ones or none.
    dropout : sequence of float
        Probability of each network.
    normalisation : str, default="none"
        A key of `NORMALISATIONS`.
    block : {"plain", "skip", "resnet"}, default="plain"
        Layers; layers that add their input; or residual blocks of two layers.
    packing : int, default=1
        Copies (M) of each network, which share the hidden layers.

    Attributes
    ----------
    precision : torch.dtype or None
        Of the products of layers, for training in half of the parameters' precision.

    Notes
    -----
    **Shape**: (N, F) or (G, N, F), G a divisor of K -> (K, N, C); while training with
    copies (K, M * N, C).
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
        self.inputs = inputs
        self.kind = kind
        self.packing = packing
        self.precision: torch.dtype | None = None
        if packing > 1:
            is_normal = inputs.numeric is not None
            self.adapters = Adapters(k, packing, inputs.columns, is_normal)
        layers: list[nn.Module] = []
        if depth and block == "resnet":
            layers.append(InputLinear(k, inputs.n_outputs, width))
            layers += [
                ResidualBlock(width, normalisation, activations, dropout)
                for _ in range(depth)
            ]
            layers.append(NORMALISATIONS[normalisation](k, width))
            layers.append(make_activation(activations, width))
        elif depth:
            for number in range(depth):
                n_inputs = width if number else inputs.n_outputs
                cls = Linear if number else InputLinear
                linear = cls(k, n_inputs, width)
                is_skipped = block == "skip" and number > 0
                layers.append(
                    Layer(linear, normalisation, activations, dropout, is_skipped)
                )
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

    def forward(self, features: Tensor) -> Tensor:
        if features.ndim == 2:
            features = features[None]
        x = self.inputs(features)
        if self.packing > 1:
            x = self.adapters(x)
        answers = self.head(
            self.layers(x if self.precision is None else x.to(self.precision))
        )
        if self.packing == 1 or self.training:
            return answers
        return self._averaged(answers.unflatten(1, (self.packing, -1)))

    def _averaged(self, answers: Tensor) -> Tensor:
        """The mean answer of the copies, (K, M, N, C) -> (K, N, C).

        Probabilities are averaged, not logits; the result is a logit again.
        """
        if self.kind == "regression":
            return answers.mean(dim=1)
        if self.kind == "multilabel":
            return torch.logit(torch.sigmoid(answers).mean(dim=1), eps=1e-7)
        log_shares = torch.log_softmax(answers, dim=-1)
        return torch.logsumexp(log_shares, dim=1) - torch.log(
            torch.tensor(float(self.packing))
        )


class TableModule(nn.Module):
    """Encoded rows -> answers: fixed features, and K networks that read them.

    Parameters
    ----------
    features : Features
        What the networks read of a row.
    net : TableNet
        The networks.

    Notes
    -----
    **Shape**: (N, F) or (K, N, F) -> (K, N, C).
    """

    def __init__(self, features: Features, net: TableNet) -> None:
        super().__init__()
        self.features = features
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.features(x))


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


def make_activation(
    kinds: Sequence[str], width: int
) -> Activation | ParametricActivation:
    """The activation of networks that are all parametric, or none of them."""
    names = [kind.removeprefix(PARAMETRIC) for kind in kinds]
    if kinds[0].startswith(PARAMETRIC):
        return ParametricActivation(names, width)
    return Activation(names)
