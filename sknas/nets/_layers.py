"""Layers for K networks of the same shape, the network axis first: (K, N, F).

Axes: K architectures, N rows, F features, H hidden units, C outputs. Where K networks
read G tables, network k reads table k modulo G.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from sknas._training.parameter_groups import GroupedModule, LRGroup
from sknas.nets._microbatch import RandomModule

T = TypeVar("T")

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "silu": functional.silu,
    "selu": functional.selu,
    "gelu": functional.gelu,
    "mish": functional.mish,
    "tanh": torch.tanh,
}


class Linear(GroupedModule):
    """K linear layers side by side.

    Parameters
    ----------
    k : int
        Number of networks.
    n_inputs, n_outputs : int
        Width before and after.

    Notes
    -----
    **Shape**: (K, N, n_inputs) -> (K, N, n_outputs).

    Examples
    --------
    >>> import torch
    >>> Linear(3, 5, 2)(torch.zeros(3, 7, 5)).shape
    torch.Size([3, 7, 2])
    """

    lr_groups = MappingProxyType({"weight": LRGroup.WEIGHT, "bias": LRGroup.SLOW})

    def __init__(self, k: int, n_inputs: int, n_outputs: int) -> None:
        super().__init__()
        self.weight, self.bias = _uniform(k, n_inputs, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        # Multiply in the precision of x; the weights keep their own.
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return torch.baddbmm(bias, x, weight)  # (K, N, n_outputs)


class Heads(GroupedModule):
    """A last layer for each of the M members of K networks.

    Notes
    -----
    **Shape**: (K, M * N, H) -> (K, M * N, C).
    """

    lr_groups = MappingProxyType({"weight": LRGroup.WEIGHT, "bias": LRGroup.SLOW})

    def __init__(self, k: int, m: int, n_inputs: int, n_outputs: int) -> None:
        super().__init__()
        single = Linear(k * m, n_inputs, n_outputs)
        self.weight = nn.Parameter(single.weight.detach().unflatten(0, (k, m)))
        self.bias = nn.Parameter(single.bias.detach().unflatten(0, (k, m)))

    def forward(self, x: Tensor) -> Tensor:
        k, m = self.weight.shape[:2]
        weight, bias = self.weight.flatten(0, 1), self.bias.flatten(0, 1)
        rows = x.unflatten(1, (m, -1)).flatten(0, 1)  # (K * M, N, H)
        outputs = torch.baddbmm(bias.to(x.dtype), rows, weight.to(x.dtype))
        return outputs.unflatten(0, (k, m)).flatten(1, 2)


class InputLinear(GroupedModule):
    """K first linear layers, each with a scale for every feature.

    The scale is multiplied into the weights, which are smaller than a batch, and a wide
    table that several networks read is not copied for each of them.

    Parameters
    ----------
    k : int
        Number of networks.
    n_inputs, n_outputs : int
        Width before and after.

    Notes
    -----
    **Shape**: (G, N, n_inputs), with G a divisor of K -> (K, N, n_outputs).

    References
    ----------
    Holzmüller, Grinsztajn, Steinwart: Better by Default: Strong Pre-Tuned MLPs and
    Boosted Trees on Tabular Data. arXiv:2407.04491 (scaling layer).
    """

    lr_groups = MappingProxyType(
        {**Linear.lr_groups, "input_scale": LRGroup.INPUT_SCALE}
    )

    def __init__(self, k: int, n_inputs: int, n_outputs: int) -> None:
        super().__init__()
        self.weight, self.bias = _uniform(k, n_inputs, n_outputs)
        self.input_scale = nn.Parameter(torch.ones(k, n_inputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        weight = (self.weight * self.input_scale).to(x.dtype)
        bias = self.bias.to(x.dtype)
        k, g = len(weight), len(x)
        if g < k and weight.shape[1] <= weight.shape[2]:
            x = x.repeat(k // g, 1, 1)  # copies less than stacking the outputs
        if len(x) == k:
            return torch.baddbmm(bias, x, weight)
        # (A, G, ...) -> G times (A, ...), a batch of A = K / G networks per table
        weights = weight.unflatten(0, (k // g, g)).unbind(1)
        biases = bias.unflatten(0, (k // g, g)).unbind(1)
        outputs = [
            torch.baddbmm(b, table.expand(k // g, -1, -1), w)
            for table, w, b in zip(x, weights, biases, strict=True)
        ]
        if g == 1:
            return outputs[0]
        return torch.stack(outputs, dim=1).flatten(0, 1)  # (K, N, n_outputs)


class LayerNorm(GroupedModule):
    """Normalises the features of each row; each network has its own scale and shift.

    Parameters
    ----------
    k : int
        Number of networks.
    n_features : int
        Features of a row (H).

    Notes
    -----
    **Shape**: (K, N, H) -> (K, N, H).

    References
    ----------
    Ba, Kiros, Hinton: Layer Normalization. arXiv:1607.06450.
    """

    lr_groups = MappingProxyType({"scale": LRGroup.PLAIN, "shift": LRGroup.SLOW})

    def __init__(self, k: int, n_features: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(k, 1, n_features))
        self.shift = nn.Parameter(torch.zeros(k, 1, n_features))

    def forward(self, x: Tensor) -> Tensor:
        normal = functional.layer_norm(x, x.shape[-1:])
        return torch.addcmul(self.shift.to(x.dtype), normal, self.scale.to(x.dtype))


class BatchNorm(GroupedModule):
    """Normalises each feature over the rows of a batch, for each network.

    Parameters
    ----------
    k : int
        Number of networks.
    n_features : int
        Features of a row (H).
    momentum : float, default=0.1
        Weight of a batch in the running statistics.

    Notes
    -----
    **Shape**: (K, N, H) -> (K, N, H).

    References
    ----------
    Ioffe, Szegedy: Batch Normalization. arXiv:1502.03167.
    """

    mean: Tensor
    variance: Tensor

    lr_groups = MappingProxyType({"scale": LRGroup.PLAIN, "shift": LRGroup.SLOW})

    def __init__(self, k: int, n_features: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(k, 1, n_features))
        self.shift = nn.Parameter(torch.zeros(k, 1, n_features))
        self.register_buffer("mean", torch.zeros(k, 1, n_features))
        self.register_buffer("variance", torch.ones(k, 1, n_features))
        self.momentum = momentum

    def forward(self, x: Tensor) -> Tensor:
        h = x.to(self.mean.dtype)  # half precision is too coarse for variances
        if self.training and x.shape[1] > 1:
            variance, mean = torch.var_mean(h, dim=1, keepdim=True, correction=0)
            with torch.no_grad():
                self.mean.lerp_(mean, self.momentum)
                self.variance.lerp_(variance, self.momentum)
        else:
            mean, variance = self.mean, self.variance
        normal = (h - mean) * torch.rsqrt(variance + 1e-5)
        return torch.addcmul(self.shift, normal, self.scale).to(x.dtype)


NORMALISATIONS: dict[str, Callable[[int, int], nn.Module]] = {
    "none": lambda k, n_features: nn.Identity(),
    "layer": LayerNorm,
    "batch": BatchNorm,
}


class Activation(nn.Module):
    """Applies its own activation to each network.

    Parameters
    ----------
    names : sequence of str
        Keys of `ACTIVATIONS`, one per network; equal neighbours are computed together.

    Notes
    -----
    **Shape**: (K, N, H) -> (K, N, H).
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.runs = _runs(names)

    def forward(self, x: Tensor) -> Tensor:
        if len(self.runs) == 1:
            return ACTIVATIONS[self.runs[0][0]](x)
        parts = x.split([count for _, count in self.runs])
        pairs = zip(self.runs, parts, strict=True)
        return torch.cat([ACTIVATIONS[name](part) for (name, _), part in pairs])


class ParametricActivation(GroupedModule):
    """Mixes an activation with its input, by a share that each hidden unit learns.

    Parameters
    ----------
    names : sequence of str
        Keys of `ACTIVATIONS`, one per network.
    width : int
        Hidden units (H).

    References
    ----------
    Holzmüller, Grinsztajn, Steinwart: Better by Default: Strong Pre-Tuned MLPs and
    Boosted Trees on Tabular Data. arXiv:2407.04491 (parametric activations).
    """

    lr_groups = MappingProxyType({"share": LRGroup.SLOW})

    def __init__(self, names: Sequence[str], width: int) -> None:
        super().__init__()
        self.plain = Activation(names)
        self.share = nn.Parameter(torch.ones(len(names), 1, width))

    def forward(self, x: Tensor) -> Tensor:
        share = self.share.to(x.dtype)
        return x + share * (self.plain(x) - x)


class Dropout(RandomModule):
    """Drops hidden units, for each network with its own probability.

    The networks share the random numbers: those of the same probability drop the same
    units, and no network depends on the others.

    Parameters
    ----------
    p : sequence of float
        Probability of each of the K networks, in [0, 1).

    Notes
    -----
    **Shape**: (K, N, H) -> (K, N, H).
    """

    def __init__(self, p: Sequence[float]) -> None:
        super().__init__()
        self.runs = _runs(p)
        self.is_active = any(p)
        self._strength = 1.0
        self._generator: torch.Generator | None = None

    def set_strength(self, strength: float) -> None:
        """Multiply all probabilities by a factor in [0, 1], for schedules."""
        self._strength = strength

    def set_generator(self, generator: torch.Generator) -> None:
        """Draw from the given generator, not from torch's global one."""
        self._generator = generator

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and self.is_active and self._strength):
            return x
        n, width = x.shape[1:]
        options: Any = {"generator": self._generator, "device": x.device}
        drawn = self.rng(n, lambda n: torch.rand(n, width, **options))  # (N, H)
        parts = x.split([count for _, count in self.runs])
        pairs = zip(self.runs, parts, strict=True)
        outputs = [part * self._mask(drawn, p).to(x.dtype) for (p, _), part in pairs]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _mask(self, drawn: Tensor, p: float) -> Tensor:
        """Return 0 where a unit is dropped, else 1 / (1 - probability): (N, H)."""
        keep = 1 - p * self._strength
        return (drawn < keep) * (1 / keep)


def uniform(shape: tuple[int, ...], bound: float) -> nn.Parameter:
    """Return a parameter drawn uniformly from [-bound, bound]."""
    # In place: arithmetic on the meta device imports torch's compiler, which is slow.
    return nn.Parameter(nn.init.uniform_(torch.empty(shape), -bound, bound))


def _uniform(
    k: int, n_inputs: int, n_outputs: int
) -> tuple[nn.Parameter, nn.Parameter]:
    """Return weights (K, inputs, outputs) and biases, drawn as by `torch.nn.Linear`."""
    bound = 1 / math.sqrt(max(n_inputs, 1))
    return uniform((k, n_inputs, n_outputs), bound), uniform((k, 1, n_outputs), bound)


def _runs(values: Sequence[T]) -> list[tuple[T, int]]:
    """Return the runs of equal values, with their lengths."""
    return [(value, len(list(run))) for value, run in groupby(values)]
