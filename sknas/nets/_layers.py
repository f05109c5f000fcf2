"""Layers for K networks of the same shape, the network axis first: (K, N, F).

Axes: K architectures, N rows, F features, H hidden units, C outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "silu": functional.silu,
    "selu": functional.selu,
    "gelu": functional.gelu,
    "tanh": torch.tanh,
}


class Linear(nn.Module):
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

    def __init__(self, k: int, n_inputs: int, n_outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(k, n_inputs, n_outputs))
        self.bias = nn.Parameter(torch.empty(k, n_outputs))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights and biases as `torch.nn.Linear` does."""
        bound = 1 / math.sqrt(max(self.weight.shape[1], 1))
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias[:, None], x, self.weight)  # (K, N, n_outputs)


class LayerNorm(nn.Module):
    """Normalises the features of each row, with a scale and a shift a network.

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

    def __init__(self, k: int, n_features: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(k, 1, n_features))
        self.shift = nn.Parameter(torch.zeros(k, 1, n_features))

    def forward(self, x: Tensor) -> Tensor:
        normal = functional.layer_norm(x, x.shape[-1:])
        return torch.addcmul(self.shift, normal, self.scale)


class BatchNorm(nn.Module):
    """Normalises each feature over the rows of a batch, per network.

    Parameters
    ----------
    k : int
        Number of networks.
    n_features : int
        Features of a row (H).
    momentum : float, default=0.1
        Share of a batch in the running statistics.

    Notes
    -----
    **Shape**: (K, N, H) -> (K, N, H).

    References
    ----------
    Ioffe, Szegedy: Batch Normalization. arXiv:1502.03167.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, k: int, n_features: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(k, 1, n_features))
        self.shift = nn.Parameter(torch.zeros(k, 1, n_features))
        self.register_buffer("mean", torch.zeros(k, 1, n_features))
        self.register_buffer("variance", torch.ones(k, 1, n_features))
        self.momentum = momentum

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.shape[1] > 1:
            variance, mean = torch.var_mean(x, dim=1, keepdim=True, correction=0)
            with torch.no_grad():
                self.mean.lerp_(mean, self.momentum)
                self.variance.lerp_(variance, self.momentum)
        else:
            mean, variance = self.mean, self.variance
        normal = (x - mean) * torch.rsqrt(variance + 1e-5)
        return torch.addcmul(self.shift, normal, self.scale)


NORMALISATIONS: dict[str, Callable[[int, int], nn.Module]] = {
    "none": lambda k, n_features: nn.Identity(),
    "layer": LayerNorm,
    "batch": BatchNorm,
}


class Dropout(nn.Module):
    """Drops units, each network with a probability of its own.

    Parameters
    ----------
    p : sequence of float
        Probability of each of the K networks, in [0, 1).

    Notes
    -----
    **Shape**: (K, N, H) -> (K, N, H).
    """

    keep: Tensor

    def __init__(self, p: Sequence[float]) -> None:
        super().__init__()
        self.is_active = any(p)
        self.shared = float(p[0]) if len(set(p)) == 1 else None
        self.register_buffer("keep", 1 - torch.tensor(list(p))[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and self.is_active):
            return x
        if self.shared is not None:
            return functional.dropout(x, self.shared)
        # The networks share the random numbers, which cost more than the product.
        kept = torch.rand(x.shape[1:], device=x.device) < self.keep  # (K, N, H)
        return x * kept / self.keep
