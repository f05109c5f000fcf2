"""Batches of several folds at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from sknas._problem import Problem
from sknas._training.seeds import mixed_seed
from sknas.nets import HalfPrecisionModule
from sknas.trainers._schedule import Schedule

CHUNK = 2_048  # rows that are evaluated at once
MAX_STORED = 2**28  # features kept in memory; larger tables are encoded batch by batch
N_STARTING = 2**12  # rows, which are in random order, for the initialisation
MIN_HALF_ROWS = 4_000  # rows of a table from which half precision is used


class FoldBatches:
    """Batches of the same size from each fold.

    All networks of a fold read the same rows, whose features are computed once. The
    rows of a step depend only on the step, the fold and the seed of the problem.

    Parameters
    ----------
    problem : Problem
        Its folds hold the rows.
    device : str
        The device of the networks.
    features : sequence of nn.Module
        Turns rows into features, for each fold.
    net : nn.Module
        Decides the precision of the features.
    schedule : Schedule
        Decides the rows of a batch.
    """

    def __init__(
        self,
        problem: Problem,
        device: str,
        features: Sequence[nn.Module],
        net: nn.Module,
        schedule: Schedule,
    ) -> None:
        self.problem, self.features, self.schedule = problem, features, schedule
        self.device = device
        self.precision: torch.dtype | None = None
        self.dtype = torch.float32
        if isinstance(net, HalfPrecisionModule):
            self.precision = half_precision(problem, device)
            self.dtype = (net.reads_half and self.precision) or torch.float32
        # The rows of all folds, concatenated: a step needs a single `index_select`.
        parts = [fold.train for fold in problem.folds]
        weights = [(part.weight / part.weight.mean()).astype("f4") for part in parts]
        self.y = self._tensor(np.concatenate([part.y for part in parts]))
        self.weight = self._tensor(np.concatenate(weights))
        self.lengths = [len(part) for part in parts]
        self.starts = [sum(self.lengths[:fold]) for fold in range(len(parts))]
        row = features[0](self._tensor(parts[0].x[:1]))[0]
        self.stored: Tensor | None = None
        self.tables: list[Tensor] = []
        if sum(self.lengths) * row.numel() <= MAX_STORED:
            shape = (sum(self.lengths), *row.shape)
            self.stored = torch.empty(shape, dtype=self.dtype, device=self.device)
            for part, feature, start in zip(parts, features, self.starts, strict=True):
                for first in range(0, len(part), CHUNK):  # they need temporary memory
                    rows = feature(self._tensor(part.x[first : first + CHUNK]))
                    self.stored[start + first :][: len(rows)] = rows
        else:
            self.tables = [self._tensor(part.x) for part in parts]
        self.size = -(-max(self.lengths) // schedule.n_distinct_batches)
        self._orders: dict[tuple[int, int], Tensor] = {}

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.tensor(array, device=self.device)

    def features_of(self, fold: int) -> Tensor:
        """Return features (N, D) of training rows of a fold, for the initialisation."""
        n = min(N_STARTING, self.lengths[fold])
        if self.stored is not None:
            return self.stored[self.starts[fold] :][:n].float()
        return self.features[fold](self.tables[fold][:n])

    def valid_features(self, start: int, stop: int) -> Tensor:
        """Return features (G, N, D) of validation rows, zero past the end of a fold."""
        parts = [fold.valid.x[start:stop] for fold in self.problem.folds]
        made = [f(self._tensor(x)) for f, x in zip(self.features, parts, strict=True)]
        return pad_sequence(made, batch_first=True)

    def at(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return features (G, B, D), targets (G, B, ...), weights (G, B) of a step."""
        folds = range(len(self.lengths))
        rows = [self._rows(fold, step) for fold in folds]
        indices = torch.cat([rows[g] + self.starts[g] for g in folds])  # (G * B,)

        def gather(tensor: Tensor) -> Tensor:
            return tensor.index_select(0, indices).unflatten(0, (len(rows), -1))

        if self.stored is not None:
            x = gather(self.stored)
        else:
            made = [self.features[g](self.tables[g][rows[g]]) for g in folds]
            x = torch.stack(made).to(self.dtype)
        weight = gather(self.weight)
        if self.schedule.n_distinct_batches == 1:
            weight = weight * self._is_row()
        return x, gather(self.y), weight

    def _is_row(self) -> Tensor:
        """Return weights (G, B) of a batch of all rows: 0 past the end, mean 1."""
        lengths = torch.tensor(self.lengths, device=self.device)
        indices = torch.arange(self.size, device=self.device)
        return (indices < lengths[:, None]) * (self.size / lengths[:, None])

    def _rows(self, fold: int, step: int) -> Tensor:
        """Return row indices (B,) of a step: one shuffled epoch after another."""
        n_rows = self.lengths[fold]
        if self.schedule.n_distinct_batches == 1:
            # All rows in their order; smaller folds are padded with rows of weight 0.
            return torch.arange(self.size, device=self.device) % n_rows
        start = step * self.size
        parts, left = [], self.size
        while left:
            epoch, first = divmod(start, n_rows)
            part = self._order(fold, epoch)[first : first + left]
            parts.append(part)
            start, left = start + len(part), left - len(part)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _order(self, fold: int, epoch: int) -> Tensor:
        if (fold, epoch) not in self._orders:
            self._orders = {k: v for k, v in self._orders.items() if k[1] >= epoch - 1}
            seed = mixed_seed(self.problem.seed, fold, epoch)
            generator = torch.Generator().manual_seed(seed)
            order = torch.randperm(self.lengths[fold], generator=generator)
            self._orders[fold, epoch] = order.to(self.device)
        return self._orders[fold, epoch]


def half_precision(problem: Problem, device: str) -> torch.dtype | None:
    """Return the dtype of half precision if products are faster in it, else None."""
    assert problem.task is not None
    if problem.task.n_rows < MIN_HALF_ROWS:
        return None
    if device.startswith("cuda"):
        return torch.bfloat16
    if not hasattr(torch.cpu, "get_capabilities"):  # before torch 2.11
        return None
    cpu = torch.cpu.get_capabilities()
    is_fast = cpu.get("avx512_bf16") or cpu.get("amx_bf16")
    return torch.bfloat16 if is_fast else None
