"""The order of rows in the batches of a training."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor


class Batches:
    """Batches of rows that lie in memory, in a new order each epoch.

    Indexing a whole tensor with a batch of row numbers costs a seventh of a
    `torch.utils.data.DataLoader` on small networks. One batch of all rows is never
    shuffled, so that nothing random depends on a row. Each epoch's order depends on
    the seed and its number alone: one that goes on from a step sees the same batches.

    Parameters
    ----------
    tensors : tuple of Tensor
        x, y, weight, ...: tensors of the same length (N, ...).
    n_batches : int
        Batches an epoch; their sizes differ by one at the most.
    seed : int
        Seeds the orders of rows.
    step : int, default=0
        Batches that were seen before.
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
        """The batches that are left of the epoch."""
        epoch, at = divmod(self.step, self.n_batches)
        if self.n_batches == 1:
            self.step += 1
            yield self.tensors
            return
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, epoch))
        order = torch.randperm(len(self.tensors[0]), generator=generator)
        order = order.to(self.tensors[0].device)
        for rows in torch.tensor_split(order, self.n_batches)[at:]:
            self.step += 1
            yield tuple(tensor[rows] for tensor in self.tensors)


def mixed_seed(*parts: int) -> int:
    """One seed of several numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def n_parts(n_rows: int, total: float, batch_size: int) -> int:
    """Batches that `n_rows` different rows with weights of `total` are dealt into.

    As many rows a batch as `batch_size` draws of the repeated rows would hold: all of
    them if each is repeated often, `batch_size` of them if none is.
    """
    repeats = max(total / n_rows, 1.0)
    drawn = 1 - (1 - min(batch_size / total, 1.0)) ** repeats  # share of the rows
    return max(1, math.ceil(1 / drawn - 1e-9))
