"""Inputs of the first layer, from encoded rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from sknas._problem import TaskSpec
from sknas.nets._embeddings import (
    Embedding,
    OneHot,
    Periodic,
    PiecewiseLinear,
    Projected,
    QuantileNormal,
)

MAX_ONE_HOT = 8  # maximum number of levels of a one-hot column
PERIODIC_SIZE, PROJECTED_SIZE = 4, 16  # length of the embedding of a number
MAX_CODES = 512  # codes of all columns together; with more, there are fewer bins
NUMERIC_EMBEDDINGS = ("none", "piecewise", "projected", "periodic")
NUMERIC_SCALES = ("robust", "normal")


@dataclass(frozen=True)
class Layout:
    """Order of the features: numbers, their codes, binary, one-hot, category codes.

    Parameters
    ----------
    n_numeric, n_bins, n_binary : int
        Number of numeric columns, codes of each (0 for none), and two-valued columns.
    one_hot, embedded : tuple of (int, int)
        Index and number of levels of each one-hot, and of each embedded column.
    """

    n_numeric: int
    n_bins: int
    n_binary: int
    one_hot: tuple[tuple[int, int], ...]
    embedded: tuple[tuple[int, int], ...]

    @classmethod
    def of(
        cls,
        tasks: Sequence[TaskSpec],
        numeric_embedding: str,
        n_bins: int | None,
        embedding_size: int,
    ) -> Layout:
        """Return a layout that fits each of several tasks.

        The folds of a table may differ: in the training rows of one of them a column
        may be constant, or a rare level missing.
        """
        n_numeric = max(task.n_numeric for task in tasks)
        is_coded = numeric_embedding in ("piecewise", "projected") and n_numeric > 0
        n_bins = _fitting_bins(n_bins or 8, n_numeric) if is_coded else 0
        sizes = [
            max((t.cardinalities[j] if j < len(t.cardinalities) else 0) for t in tasks)
            for j in range(max(len(task.cardinalities) for task in tasks))
        ]
        categories = list(enumerate(sizes))
        one_hot = [c for c in categories if not embedding_size or c[1] <= MAX_ONE_HOT]
        embedded = [c for c in categories if c not in one_hot]
        n_binary = max(task.n_binary for task in tasks)
        return cls(n_numeric, n_bins, n_binary, tuple(one_hot), tuple(embedded))

    @property
    def n_one_hot(self) -> int:
        """Number of one-hot features."""
        return sum(size for _, size in self.one_hot)

    @property
    def n_fixed(self) -> int:
        """Number of features before the codes of embedded columns."""
        return self.n_numeric * (1 + self.n_bins) + self.n_binary + self.n_one_hot

    @property
    def n_features(self) -> int:
        """Number of all features."""
        return self.n_fixed + len(self.embedded)


class Features(nn.Module):
    """Fixed features of encoded rows, which need no training.

    They are numbers, their piecewise-linear codes, two-valued columns, one-hot
    columns, and the category codes of embedded columns.

    Parameters
    ----------
    task : TaskSpec
        Columns of the encoded table.
    layout : Layout
        Order of the features; those that the table lacks are zero.
    numeric_scale : {"robust", "normal"}, default="robust"
        Numbers as they are encoded, or mapped to a normal distribution.

    Notes
    -----
    **Shape**: (..., N, F) -> (..., N, layout.n_features).
    """

    def __init__(
        self, task: TaskSpec, layout: Layout, numeric_scale: str = "robust"
    ) -> None:
        super().__init__()
        self.layout = layout
        self.n_numeric, self.n_binary = task.n_numeric, task.n_binary
        edges = torch.tensor(task.edges)
        self.codes: PiecewiseLinear | None = None
        if layout.n_bins:
            step = (task.edges.shape[1] - 1) // layout.n_bins
            self.codes = PiecewiseLinear(edges[:, ::step])
        is_normal = numeric_scale == "normal" and task.n_numeric > 0
        self.scale = QuantileNormal(edges) if is_normal else nn.Identity()
        self.one_hot = OneHot([size for _, size in layout.one_hot])

    def forward(self, x: Tensor) -> Tensor:
        layout = self.layout
        n_plain = self.n_numeric + self.n_binary
        numeric, binary = x[..., : self.n_numeric], x[..., self.n_numeric : n_plain]
        categories = _pad(
            x[..., n_plain:], len(layout.one_hot) + len(layout.embedded)
        )  # (..., N, categories)
        features = [_pad(self.scale(numeric), layout.n_numeric)]
        if self.codes is not None:
            codes = self.codes(numeric).flatten(-2)  # (..., N, n_numeric * n_bins)
            features.append(_pad(codes, layout.n_numeric * layout.n_bins))
        features.append(_pad(binary, layout.n_binary))
        if layout.one_hot:
            indices = [index for index, _ in layout.one_hot]
            features.append(self.one_hot(categories[..., indices].long(), x.dtype))
        if layout.embedded:
            features.append(categories[..., [index for index, _ in layout.embedded]])
        return torch.cat(features, dim=-1)


class Inputs(nn.Module):
    """Learnt embeddings of features, for the first layers of K networks.

    Parameters
    ----------
    k : int
        Number of networks.
    layout : Layout
        Order of the features.
    numeric_embedding : {"none", "piecewise", "projected", "periodic"}, default="none"
        Numbers as they are, with their codes, or as learnt vectors.
    embedding_size : int, default=8
        Length of the vectors of categories that are not one-hot (E).

    Attributes
    ----------
    n_outputs : int
        Width of the output.

    Notes
    -----
    **Shape**: (G, N, n_features), G a divisor of K -> (G or K, N, n_outputs).
    """

    def __init__(
        self,
        k: int,
        layout: Layout,
        numeric_embedding: str = "none",
        embedding_size: int = 8,
    ) -> None:
        super().__init__()
        self.k = k
        self.layout = layout
        n_numeric = layout.n_numeric
        self.numeric: nn.Module | None = None
        if numeric_embedding == "periodic" and n_numeric:
            self.numeric = Periodic(k, n_numeric, size=PERIODIC_SIZE)
        elif numeric_embedding == "projected" and n_numeric:
            self.numeric = Projected(k, n_numeric, layout.n_bins, PROJECTED_SIZE)
        self.embedding: Embedding | None = None
        if layout.embedded:
            sizes = [size for _, size in layout.embedded]
            self.embedding = Embedding(k, sizes, embedding_size)
        self.columns = self._columns(embedding_size)
        self.n_outputs = len(self.columns)

    def _columns(self, embedding_size: int) -> list[int]:
        """Return the column of the table that each output comes from."""
        layout = self.layout
        numbers = list(range(layout.n_numeric))
        if self.numeric is None:
            columns = numbers + [j for j in numbers for _ in range(layout.n_bins)]
        else:
            is_periodic = isinstance(self.numeric, Periodic)
            size = PERIODIC_SIZE if is_periodic else PROJECTED_SIZE
            columns = [j for j in numbers for _ in range(size)]
        sizes = [1] * layout.n_binary + [size for _, size in layout.one_hot]
        sizes += [embedding_size] * len(layout.embedded)
        others = enumerate(sizes, start=layout.n_numeric)
        return columns + [column for column, size in others for _ in range(size)]

    def forward(self, features: Tensor) -> Tensor:
        if self.numeric is None and self.embedding is None:
            return features
        layout = self.layout
        fixed = features[..., : layout.n_fixed]
        tables = torch.arange(self.k, device=features.device) % len(features)
        fixed = fixed[tables]  # (K, N, n_fixed)
        n_numeric = layout.n_numeric
        n_coded = n_numeric * (1 + layout.n_bins)
        numbers, codes = fixed[..., :n_numeric], fixed[..., n_numeric:n_coded]
        if isinstance(self.numeric, Periodic):
            numeric = self.numeric(numbers)
        elif isinstance(self.numeric, Projected):
            numeric = self.numeric(numbers, codes)
        else:
            numeric = fixed[..., :n_coded]
        outputs = [numeric, fixed[..., n_coded:]]
        if self.embedding is not None:
            outputs.append(self.embedding(features[..., layout.n_fixed :].long()))
        return torch.cat(outputs, dim=-1)


class TableInput(nn.Module):
    """Inputs of K networks from encoded rows, in one module for custom spaces.

    Two-valued columns are passed on as they are, categorical columns of up to 8 levels
    are one-hot, and those with more levels have an embedding.

    Parameters
    ----------
    k : int
        Number of networks.
    task : TaskSpec
        Columns of the encoded table.
    numeric_embedding : {"none", "piecewise", "projected", "periodic"}, default="none"
        Numbers as they are, with piecewise-linear codes, or as learnt vectors.
    n_bins : int or None, default=None
        Number of bins of the codes, a divisor of 48; None for 8.
    embedding_size : int, default=8
        Length of the vectors of columns with more than 8 levels; with 0, all columns
        are one-hot.
    numeric_scale : {"robust", "normal"}, default="robust"
        Numbers as they are encoded, or mapped to a normal distribution.

    Attributes
    ----------
    n_features : int
        Width of the output.

    Notes
    -----
    **Shape**: (N, F) or (K, N, F) -> (K, N, n_features).
    """

    def __init__(
        self,
        k: int,
        task: TaskSpec,
        numeric_embedding: str = "none",
        n_bins: int | None = None,
        embedding_size: int = 8,
        numeric_scale: str = "robust",
    ) -> None:
        super().__init__()
        layout = Layout.of([task], numeric_embedding, n_bins, embedding_size)
        self.fixed = Features(task, layout, numeric_scale)
        self.learnt = Inputs(k, layout, numeric_embedding, embedding_size)
        self.n_features = self.learnt.n_outputs

    def forward(self, x: Tensor) -> Tensor:
        features = self.fixed(x)
        features = self.learnt(features[None] if features.ndim == 2 else features)
        return features.expand(self.learnt.k, -1, -1)


def _pad(x: Tensor, width: int) -> Tensor:
    """Append columns of zeros up to a width."""
    missing = width - x.shape[-1]
    return functional.pad(x, (0, missing)) if missing else x


def _fitting_bins(n_bins: int, n_numeric: int) -> int:
    """Halve the number of bins until codes are at most `MAX_CODES`, or it is odd."""
    while n_bins % 2 == 0 and n_bins * n_numeric > MAX_CODES:
        n_bins //= 2
    return n_bins
