"""Batches of rows in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from sknas._training.seeds import mixed_seed


class Batches:
    """Batches of rows in memory, in a new order each epoch.

    Indexing a whole tensor with the row numbers of a batch takes a seventh of the time
    of a `torch.utils.data.DataLoader` on small networks. One batch of all rows is never
    shuffled, so that no random number depends on the rows. The order depends only on
    the seed and the epoch, so a training that is resumed sees the same batches.

    Parameters
    ----------
    tensors : tuple of Tensor
        x, y, weight, ...: tensors of the same length (N, ...).
    n_batches : int
        Batches per epoch; their sizes differ by at most one.
    seed : int
        Seed of the orders of rows.
    step : int, default=0
        Number of batches already seen.
    """

    def __init__(
        self, tensors: tuple[Tensor, ...], n_batches: int, seed: int, step: int = 0
    ) -> None:
        self.tensors = tensors
        self.n_batches = min(n_batches, len(tensors[0]))
        self.seed = seed
        self.step = step

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        """Yield the remaining batches of the epoch."""
        epoch, first = divmod(self.step, self.n_batches)
        if self.n_batches == 1:
            self.step += 1
            yield self.tensors
            return
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, epoch))
        order = torch.randperm(len(self.tensors[0]), generator=generator)
        order = order.to(self.tensors[0].device)
        for rows in torch.tensor_split(order, self.n_batches)[first:]:
            self.step += 1
            yield tuple(tensor[rows] for tensor in self.tensors)


def count_batches(n_rows: int, total: float, batch_size: int) -> int:
    """Return the number of batches per epoch, for distinct rows with repetitions.

    A batch has as many distinct rows as `batch_size` draws from the repeated rows would
    have: `batch_size` if none is repeated, nearly all if each is repeated often.

    Parameters
    ----------
    n_rows : int
        Number of distinct rows.
    total : float
        Sum of their weights: the number of rows with repetitions.
    batch_size : int
        Rows per batch, with repetitions.
    """
    repeats = max(total / n_rows, 1.0)
    share = 1 - (1 - min(batch_size / total, 1.0)) ** repeats  # of the distinct rows
    return max(1, math.ceil(1 / share - 1e-9))
