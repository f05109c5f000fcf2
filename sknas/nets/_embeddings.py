"""What the first layer sees of an encoded table."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sknas._problem import TaskSpec

MAX_ONE_HOT = 8  # categories of at most so many levels are one-hot
MAX_BIN_COLUMNS = 512  # columns all piecewise-linear codes together may take
SCALE_SPEED = 6.0  # how much faster than weights the input scale learns


class PiecewiseLinear(nn.Module):
    """Piecewise-linear codes of numeric columns, beside the columns themselves.

    The code of a bin is -1 below it, +1 above it and linear within.

    Parameters
    ----------
    edges : Tensor of shape (F, n_bins + 1)
        Ascending edges of the bins of each column.

    Notes
    -----
    **Shape**: (..., N, F) -> (..., N, F * (n_bins + 1)).

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
        # Columns with ties have empty bins, whose code is constant.
        slope = torch.where(width > 1e-6, 1 / width.clamp(min=1e-6), 0.0)
        self.register_buffer("low", edges[:, :-1].contiguous())
        self.register_buffer("slope", slope)

    def forward(self, x: Tensor) -> Tensor:
        bins = ((x[..., None] - self.low) * self.slope).clamp(0, 1)  # (..., N, F, bins)
        return torch.cat([x, (2 * bins - 1).flatten(-2)], dim=-1)


class OneHot(nn.Module):
    """One-hot columns of category codes; code 0 is all zeros.

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
        # Level 1 of column j is place offsets[j]; code 0 goes to a spare last place.
        place = torch.where(codes > 0, codes - 1 + self.offsets, self.total)
        shape = (*codes.shape[:-1], self.total + 1)
        hot = torch.zeros(shape, dtype=dtype, device=codes.device)
        return hot.scatter_(-1, place, 1.0)[..., : self.total]


class Embedding(nn.Module):
    """K tables of vectors for category codes; code 0 starts at zero.

    Parameters
    ----------
    k : int
        Number of networks.
    cardinalities : list of int
        Levels of each column.
    size : int
        Length of a vector (E).

    Notes
    -----
    **Shape**: codes (N, G) or (K, N, G) int64 -> (K, N, G * E).
    """

    offsets: Tensor

    def __init__(self, k: int, cardinalities: list[int], size: int) -> None:
        super().__init__()
        starts = [sum(cardinalities[:j]) + j for j in range(len(cardinalities))]
        self.register_buffer("offsets", torch.tensor(starts, dtype=torch.long))
        n_slots = sum(cardinalities) + len(cardinalities)
        self.vectors = nn.Parameter(torch.randn(k, n_slots, size))
        with torch.no_grad():
            self.vectors[:, starts] = 0.0

    def forward(self, codes: Tensor) -> Tensor:
        place = codes + self.offsets
        if place.ndim == 2:
            return self.vectors[:, place].flatten(-2)  # (K, N, G, E) -> (K, N, G * E)
        network = torch.arange(len(place), device=place.device)[:, None, None]
        return self.vectors[network, place].flatten(-2)


class TableInput(nn.Module):
    """Encoded rows -> features of the first layer, for K networks.

    Numeric columns pass as they are or with piecewise-linear codes; categories of few
    levels are one-hot, others have an embedding. Each feature has a scale that learns
    fast, so that a network can turn columns down.

    Parameters
    ----------
    k : int
        Number of networks.
    task : TaskSpec
        The layout of the encoded table.
    n_bins : int or None, default=None
        Bins of the piecewise-linear codes, a divisor of 48; None for no codes.
    embedding_size : int, default=8
        Length of the vectors of categories with more than 8 levels.

    Attributes
    ----------
    n_features : int
        Width of the result.

    Notes
    -----
    **Shape**: (N, F) or (K, N, F) -> (K, N, n_features).
    """

    large: Tensor
    small: Tensor

    def __init__(
        self,
        k: int,
        task: TaskSpec,
        n_bins: int | None = None,
        embedding_size: int = 8,
    ) -> None:
        super().__init__()
        self.k = k
        self.n_plain = task.n_numeric + task.n_binary
        self.n_numeric = task.n_numeric
        self.codes: PiecewiseLinear | None = None
        n_features = self.n_plain
        if n_bins is not None and task.n_numeric:
            n_bins = _fitting_bins(n_bins, task.n_numeric)
            step = (task.edges.shape[1] - 1) // n_bins
            self.codes = PiecewiseLinear(torch.tensor(task.edges[:, ::step]))
            n_features += task.n_numeric * n_bins
        few = [j for j, c in enumerate(task.cardinalities) if c <= MAX_ONE_HOT]
        many = [j for j, c in enumerate(task.cardinalities) if c > MAX_ONE_HOT]
        self.register_buffer("small", torch.tensor(few, dtype=torch.long))
        self.register_buffer("large", torch.tensor(many, dtype=torch.long))
        self.one_hot = OneHot([task.cardinalities[j] for j in few])
        sizes = [task.cardinalities[j] for j in many]
        self.embedding = Embedding(k, sizes, embedding_size) if many else None
        n_features += self.one_hot.total + len(many) * embedding_size
        self.n_features = n_features
        self.offset = nn.Parameter(torch.zeros(k, 1, n_features))

    def forward(self, x: Tensor) -> Tensor:
        plain, codes = x[..., : self.n_plain], x[..., self.n_plain :].long()
        parts = [plain]
        if self.codes is not None:
            numeric = self.codes(plain[..., : self.n_numeric])
            parts = [numeric, plain[..., self.n_numeric :]]
        if len(self.small):
            parts.append(self.one_hot(codes[..., self.small], x.dtype))
        features = torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]
        features = features.expand(self.k, *features.shape[-2:])  # (K, N, ...)
        if self.embedding is not None:
            vectors = self.embedding(codes[..., self.large])
            features = torch.cat([features, vectors], dim=-1)
        return features * (1 + SCALE_SPEED * self.offset)  # (K, N, n_features)


def _fitting_bins(n_bins: int, n_numeric: int) -> int:
    """Halve the bins until all columns together are not too many."""
    while n_bins % 2 == 0 and n_bins * n_numeric > MAX_BIN_COLUMNS:
        n_bins //= 2
    return n_bins
