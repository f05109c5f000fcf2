"""From encoded rows to what the first layer reads."""

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

MAX_ONE_HOT = 8  # categories of at most so many levels are one-hot
PERIODIC_SIZE, PROJECTED_SIZE = 4, 16  # of the vectors of a number
MAX_BIN_COLUMNS = 512  # columns of all codes together, above which bins are halved
NUMERIC_EMBEDDINGS = ("none", "piecewise", "projected", "periodic")
NUMERIC_SCALES = ("robust", "normal")


@dataclass(frozen=True)
class Layout:
    """Which features stand where: numbers, their codes, pairs, one-hot, other codes.

    Parameters
    ----------
    n_numeric, n_bins, n_binary : int
        Numeric columns, codes of each (0 for none), two-valued columns.
    few, many : tuple of (int, int)
        Place and levels of the categories that are one-hot, and of those embedded.
    """

    n_numeric: int
    n_bins: int
    n_binary: int
    few: tuple[tuple[int, int], ...]
    many: tuple[tuple[int, int], ...]

    @classmethod
    def of(
        cls,
        tasks: Sequence[TaskSpec],
        numeric_embedding: str,
        n_bins: int | None,
        embedding_size: int,
    ) -> Layout:
        """A layout with room for each of some tasks.

        The folds of a table may differ in a column that is constant, or in a level
        that is rare, on the training rows of one of them.
        """
        n_numeric = max(task.n_numeric for task in tasks)
        is_coded = numeric_embedding in ("piecewise", "projected") and n_numeric > 0
        n_bins = _fitting_bins(n_bins or 8, n_numeric) if is_coded else 0
        sizes = [
            max((t.cardinalities[j] if j < len(t.cardinalities) else 0) for t in tasks)
            for j in range(max(len(task.cardinalities) for task in tasks))
        ]
        places = list(enumerate(sizes))
        few = [p for p in places if not embedding_size or p[1] <= MAX_ONE_HOT]
        many = [p for p in places if p not in few]
        n_binary = max(task.n_binary for task in tasks)
        return cls(n_numeric, n_bins, n_binary, tuple(few), tuple(many))

    @property
    def n_one_hot(self) -> int:
        """One-hot columns."""
        return sum(size for _, size in self.few)

    @property
    def n_fixed(self) -> int:
        """Features before the codes of embedded categories."""
        return self.n_numeric * (1 + self.n_bins) + self.n_binary + self.n_one_hot


class Features(nn.Module):
    """Encoded rows -> features, by rules that are fixed before training.

    Numbers, their piecewise-linear codes, two-valued columns, one-hot categories, and
    last the codes of categories that have an embedding.

    Parameters
    ----------
    task : TaskSpec
        The layout of the encoded table.
    layout : Layout
        The layout of the features; what the table lacks is zero.
    numeric_scale : {"robust", "normal"}, default="robust"
        Numbers as they are encoded, or on the scale of a normal distribution.

    Notes
    -----
    **Shape**: (..., N, F) -> (..., N, n_fixed + embedded categories).
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
        self.one_hot = OneHot([size for _, size in layout.few])
        self.n_categories = len(task.cardinalities)

    def forward(self, x: Tensor) -> Tensor:
        layout = self.layout
        n_plain = self.n_numeric + self.n_binary
        numeric, binary = x[..., : self.n_numeric], x[..., self.n_numeric : n_plain]
        categories = _padded(
            x[..., n_plain:], len(layout.few) + len(layout.many)
        )  # (..., N, categories)
        parts = [_padded(self.scale(numeric), layout.n_numeric)]
        if self.codes is not None:
            codes = self.codes(numeric).flatten(-2)  # (..., N, n_numeric * n_bins)
            parts.append(_padded(codes, layout.n_numeric * layout.n_bins))
        parts.append(_padded(binary, layout.n_binary))
        if layout.few:
            places = [place for place, _ in layout.few]
            parts.append(self.one_hot(categories[..., places].long(), x.dtype))
        if layout.many:
            parts.append(categories[..., [place for place, _ in layout.many]])
        return torch.cat(parts, dim=-1)


class Inputs(nn.Module):
    """Features -> what the first layer of K networks reads: embeddings are learnt here.

    Parameters
    ----------
    k : int
        Number of networks.
    layout : Layout
        The layout of the features.
    numeric_embedding : {"none", "piecewise", "projected", "periodic"}, default="none"
        Numbers as they are or with their codes, or a learnt vector for each number.
    embedding_size : int, default=8
        Length of the vectors of categories that are not one-hot.

    Attributes
    ----------
    n_outputs : int
        Width of the result.

    Notes
    -----
    **Shape**: (G, N, features), G a divisor of K -> (G or K, N, n_outputs).
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
        n_numeric, n_coded = layout.n_numeric, layout.n_numeric * (1 + layout.n_bins)
        self.numeric: nn.Module | None = None
        self.n_outputs = layout.n_fixed
        if numeric_embedding == "periodic" and n_numeric:
            self.numeric = Periodic(k, n_numeric, size=PERIODIC_SIZE)
            self.n_outputs += n_numeric * PERIODIC_SIZE - n_coded
        elif numeric_embedding == "projected" and n_numeric:
            self.numeric = Projected(k, n_numeric, layout.n_bins, PROJECTED_SIZE)
            self.n_outputs += n_numeric * PROJECTED_SIZE - n_coded
        self.embedding: Embedding | None = None
        if layout.many:
            sizes = [size for _, size in layout.many]
            self.embedding = Embedding(k, sizes, embedding_size)
            self.n_outputs += len(sizes) * embedding_size
        self.columns = self._columns(embedding_size)

    def _columns(self, embedding_size: int) -> list[int]:
        """The column of the table that each output comes from."""
        layout = self.layout
        numbers = list(range(layout.n_numeric))
        if self.numeric is None:
            columns = numbers + [j for j in numbers for _ in range(layout.n_bins)]
        else:
            is_periodic = isinstance(self.numeric, Periodic)
            size = PERIODIC_SIZE if is_periodic else PROJECTED_SIZE
            columns = [j for j in numbers for _ in range(size)]
        at = layout.n_numeric
        columns += range(at, at + layout.n_binary)
        at += layout.n_binary
        columns += [
            at + j for j, (_, size) in enumerate(layout.few) for _ in range(size)
        ]
        at += len(layout.few)
        n_many = len(layout.many)
        return columns + [at + j for j in range(n_many) for _ in range(embedding_size)]

    def forward(self, features: Tensor) -> Tensor:
        if self.numeric is None and self.embedding is None:
            return features
        layout = self.layout
        fixed = features[..., : layout.n_fixed]
        places = torch.arange(self.k, device=features.device) % len(features)
        fixed = fixed[places]  # (K, N, n_fixed)
        parts = []
        n_coded = layout.n_numeric * (1 + layout.n_bins)
        numbers, codes = fixed.split(
            [layout.n_numeric, fixed.shape[-1] - layout.n_numeric], -1
        )
        if isinstance(self.numeric, Periodic):
            parts.append(self.numeric(numbers))
        elif isinstance(self.numeric, Projected):
            n_codes = layout.n_numeric * layout.n_bins
            parts.append(self.numeric(numbers, codes[..., :n_codes]))
        else:
            parts.append(fixed[..., :n_coded])
        parts.append(fixed[..., n_coded:])
        if self.embedding is not None:
            parts.append(self.embedding(features[..., layout.n_fixed :].long()))
        return torch.cat(parts, dim=-1)


class TableInput(nn.Module):
    """Encoded rows -> features of K networks, in one module: for spaces of your own.

    Two-valued columns and categories of few levels pass as they are, larger ones have
    an embedding.

    Parameters
    ----------
    k : int
        Number of networks.
    task : TaskSpec
        The layout of the encoded table.
    numeric_embedding : {"none", "piecewise", "projected", "periodic"}, default="none"
        Numbers as they are, or with piecewise-linear codes, or a learnt vector for
        each number.
    n_bins : int or None, default=None
        Bins of the codes, a divisor of 48.
    embedding_size : int, default=8
        Length of the vectors of categories with more than 8 levels; 0 makes all of
        them one-hot.
    numeric_scale : {"robust", "normal"}, default="robust"
        Numbers as they are encoded, or on the scale of a normal distribution.

    Attributes
    ----------
    n_features : int
        Width of the result.

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


def _padded(x: Tensor, width: int) -> Tensor:
    """x with columns of zeros up to a width."""
    missing = width - x.shape[-1]
    return functional.pad(x, (0, missing)) if missing else x


def _fitting_bins(n_bins: int, n_numeric: int) -> int:
    """Halve the bins until all columns together are not too many; 3 at the least."""
    while n_bins % 2 == 0 and n_bins * n_numeric > MAX_BIN_COLUMNS:
        n_bins //= 2
    return n_bins
