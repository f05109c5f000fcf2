"""Encodings of table columns: fixed codes, and learnt embeddings."""

from __future__ import annotations

import math
from types import MappingProxyType

import torch
from torch import Tensor, nn

from sknas._training.parameter_groups import GroupedModule, LRGroup
from sknas.nets._layers import uniform


class PiecewiseLinear(nn.Module):
    """Piecewise-linear encoding of numeric columns.

    The code of a bin is -1 below it, +1 above it and linear within.

    Parameters
    ----------
    edges : Tensor of shape (F, n_bins + 1)
        Ascending bin edges of each column.

    Notes
    -----
    **Shape**: (..., N, F) -> (..., N, F, n_bins).

    References
    ----------
    Gorishniy, Rubachev, Babenko: On Embeddings for Numerical Features in Tabular Deep
    Learning. arXiv:2203.05556.
    """

    low: Tensor
    slope: Tensor

    def __init__(self, edges: Tensor) -> None:
        super().__init__()
        width = edges[:, 1:] - edges[:, :-1]
        # Columns with ties have empty bins; their codes are constant.
        slope = torch.where(width > 1e-6, 1 / width.clamp(min=1e-6), 0.0)
        self.register_buffer("low", edges[:, :-1].contiguous())
        self.register_buffer("slope", slope)

    def forward(self, x: Tensor) -> Tensor:
        bins = ((x[..., None] - self.low) * self.slope).clamp(0, 1)  # (..., N, F, bins)
        return 2 * bins - 1


class QuantileNormal(nn.Module):
    """Maps numeric columns to a normal distribution by their quantiles.

    Parameters
    ----------
    edges : Tensor of shape (F, n_bins + 1)
        Quantiles of each column, ascending.

    Notes
    -----
    **Shape**: (..., N, F) -> (..., N, F).
    """

    def __init__(self, edges: Tensor) -> None:
        super().__init__()
        self.codes = PiecewiseLinear(edges)
        filled = (self.codes.slope > 0).sum(dim=1)
        self.register_buffer("n_filled", filled.clamp(min=1).to(edges.dtype))

    def forward(self, x: Tensor) -> Tensor:
        passed = (self.codes(x) + 1) / 2  # 1 for a bin below x: (..., N, F, n_bins)
        probability = passed.sum(dim=-1) / self.n_filled
        return torch.special.ndtri(probability.clamp(0.005, 0.995))


class OneHot(nn.Module):
    """One-hot encoding of category codes; code 0 is all zeros.

    Notes
    -----
    **Shape**: codes (..., N, G) int64 -> (..., N, sum of cardinalities).
    """

    offsets: Tensor

    def __init__(self, cardinalities: list[int]) -> None:
        super().__init__()
        self.total = sum(cardinalities)
        starts = [sum(cardinalities[:j]) for j in range(len(cardinalities))]
        self.register_buffer("offsets", torch.tensor(starts, dtype=torch.long))

    def forward(self, codes: Tensor, dtype: torch.dtype) -> Tensor:
        # Level 1 of column j has index offsets[j]; code 0 the last index.
        indices = torch.where(codes > 0, codes - 1 + self.offsets, self.total)
        shape = (*codes.shape[:-1], self.total + 1)
        hot = torch.zeros(shape, dtype=dtype, device=codes.device)
        return hot.scatter_(-1, indices, 1.0)[..., : self.total]


class Embedding(GroupedModule):
    """K embeddings of category codes; the vector of code 0 starts at zero.

    Parameters
    ----------
    k : int
        Number of networks.
    cardinalities : list of int
        Number of levels of each column.
    size : int
        Length of a vector (E).

    Notes
    -----
    **Shape**: codes (G, N, columns) int64, G a divisor of K -> (K, N, columns * E).
    """

    offsets: Tensor

    lr_groups = MappingProxyType({"vectors": LRGroup.PLAIN})

    def __init__(self, k: int, cardinalities: list[int], size: int) -> None:
        super().__init__()
        starts = [sum(cardinalities[:j]) + j for j in range(len(cardinalities))]
        offsets = torch.tensor(starts, dtype=torch.long)
        self.register_buffer("offsets", offsets, persistent=False)  # no axis K
        n_vectors = sum(cardinalities) + len(cardinalities)
        self.vectors = nn.Parameter(torch.randn(k, n_vectors, size))
        with torch.no_grad():
            self.vectors.index_fill_(1, torch.tensor(starts), 0.0)

    def forward(self, codes: Tensor) -> Tensor:
        k = len(self.vectors)
        indices = codes + self.offsets
        network = torch.arange(k, device=indices.device)[:, None, None]
        indices = indices[network.flatten() % len(indices)]  # (K, N, columns)
        return self.vectors[network, indices].flatten(-2)


class Periodic(GroupedModule):
    """K learnt periodic embeddings of each numeric column, with the column itself.

    Parameters
    ----------
    k : int
        Number of networks.
    n_columns : int
        Number of numeric columns (F).
    sigma : float, default=0.1
        Standard deviation of the initial frequencies.
    n_frequencies : int, default=16
        Number of frequencies of each column.
    size : int, default=4
        Length of a vector (E), the column itself included.

    Notes
    -----
    **Shape**: (K, N, F) -> (K, N, F * E).

    References
    ----------
    Gorishniy, Rubachev, Babenko: On Embeddings for Numerical Features in Tabular Deep
    Learning. arXiv:2203.05556.
    Holzmüller, Grinsztajn, Steinwart: Better by Default. arXiv:2407.04491 (PBLD).
    """

    lr_groups = dict.fromkeys(("frequency", "phase", "mixing", "shift"), LRGroup.SLOW)

    def __init__(
        self,
        k: int,
        n_columns: int,
        sigma: float = 0.1,
        n_frequencies: int = 16,
        size: int = 4,
    ) -> None:
        super().__init__()
        shape = (k, 1, n_columns, n_frequencies)
        self.frequency = nn.Parameter(torch.normal(0.0, sigma, shape))
        self.phase = uniform(shape, math.pi)
        bound = 1 / math.sqrt(n_frequencies)
        self.mixing = uniform((k, n_columns, n_frequencies, size - 1), bound)
        self.shift = uniform((k, n_columns, 1, size - 1), bound)

    def forward(self, x: Tensor) -> Tensor:
        angle = 2 * math.pi * x[..., None] * self.frequency + self.phase
        waves = torch.cos(angle).transpose(1, 2)  # (K, F, N, frequencies)
        vectors = (waves @ self.mixing + self.shift).transpose(1, 2)  # (K, N, F, E - 1)
        return torch.cat([x[..., None], vectors], dim=-1).flatten(-2)


class Projected(GroupedModule):
    """K learnt embeddings of each numeric column, from its piecewise-linear codes.

    Parameters
    ----------
    k : int
        Number of networks.
    n_columns, n_bins : int
        Number of numeric columns (F), and of codes of each.
    size : int, default=16
        Length of a vector (E).

    Notes
    -----
    **Shape**: x (K, N, F), codes (K, N, F * n_bins) -> (K, N, F * E).

    References
    ----------
    Gorishniy, Kotelnikov, Babenko: TabM: Advancing Tabular Deep Learning with
    Parameter-Efficient Ensembling. arXiv:2410.24210 (piecewise-linear embeddings).
    """

    lr_groups = MappingProxyType(
        {"slope": LRGroup.PLAIN, "shift": LRGroup.SLOW, "mixing": LRGroup.SLOW}
    )

    def __init__(self, k: int, n_columns: int, n_bins: int, size: int = 16) -> None:
        super().__init__()
        bound = 1 / math.sqrt(size)
        shape = (k, 1, n_columns, size)
        self.slope = uniform(shape, bound)
        self.shift = uniform(shape, bound)
        # Weights of codes start at zero, so a column starts as a straight line.
        self.mixing = nn.Parameter(torch.zeros(k, n_columns, n_bins, size))

    def forward(self, x: Tensor, codes: Tensor) -> Tensor:
        bins = codes.unflatten(-1, (x.shape[-1], -1)).transpose(1, 2)  # (K, F, N, bins)
        curve = (bins @ self.mixing).transpose(1, 2)  # (K, N, F, E)
        return (x[..., None] * self.slope + self.shift + curve).flatten(-2)
