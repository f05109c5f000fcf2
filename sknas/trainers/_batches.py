"""Batches of several folds at once."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sknas._problem import Problem
from sknas._training.batches import mixed_seed
from sknas.nets import Features, TableNet
from sknas.trainers._schedule import Schedule

CHUNK = 2_048  # rows that are answered at once
MAX_STORED = 2**28  # features held ready; those of larger tables are made by batch
N_STARTING = 2**12  # rows, in an order of chance, that weights may start from
MIN_HALF_ROWS = 4_000  # of the table from which products run in half precision


class FoldBatches:
    """Batches of the same size from each fold.

    All networks of a fold read the same rows, whose features are made once. The rows
    of a step depend on the step, the fold and the seed of the problem alone.

    Parameters
    ----------
    problem : Problem
        Its folds hold the rows.
    features : list of Features
        What the networks read of the rows, one a fold.
    net : TableNet
        Says which precision its input wants.
    plan : Plan
        Says how many rows a batch has.
    """

    def __init__(
        self,
        problem: Problem,
        features: list[Features],
        net: TableNet,
        schedule: Schedule,
    ) -> None:
        self.problem, self.features, self.schedule = problem, features, schedule
        self.device = problem.device
        self.precision = half_precision(problem)
        is_learnt = net.inputs.numeric is not None or net.inputs.embedding is not None
        # Embeddings want exact numbers and codes, products do not.
        self.dtype = torch.float32 if is_learnt else self.precision or torch.float32
        # The rows of all folds, one after the other: a step gathers them in one go.
        parts = [fold.train for fold in problem.folds]
        weights = [(part.weight / part.weight.mean()).astype("f4") for part in parts]
        self.y = self._tensor(np.concatenate([part.y for part in parts]))
        self.weight = self._tensor(np.concatenate(weights))
        self.lengths = [len(part) for part in parts]
        self.starts = [sum(self.lengths[:fold]) for fold in range(len(parts))]
        n_features = net.inputs.layout.n_fixed + len(net.inputs.layout.many)
        self.stored: Tensor | None = None
        self.tables: list[Tensor] = []
        if sum(self.lengths) * n_features <= MAX_STORED:
            shape = (sum(self.lengths), n_features)
            self.stored = torch.empty(shape, dtype=self.dtype, device=self.device)
            for part, feature, start in zip(parts, features, self.starts, strict=True):
                for at in range(0, len(part), CHUNK):  # on the way they take more room
                    rows = feature(self._tensor(part.x[at : at + CHUNK]))
                    self.stored[start + at :][: len(rows)] = rows
        else:
            self.tables = [self._tensor(part.x) for part in parts]
        self.size = -(-max(self.lengths) // schedule.n_parts)
        self._orders: dict[tuple[int, int], Tensor] = {}

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.tensor(array, device=self.device)

    def features_of(self, fold: int) -> Tensor:
        """Features of the training rows of a fold that weights may start from."""
        n = min(N_STARTING, self.lengths[fold])
        if self.stored is not None:
            return self.stored[self.starts[fold] :][:n].float()
        return self.features[fold](self.tables[fold][:n])

    def valid_features(self, start: int, stop: int) -> Tensor:
        """Features (G, N, D) of some validation rows of each fold; past its end, 0."""
        parts = [fold.valid.x[start:stop] for fold in self.problem.folds]
        made = [f(self._tensor(x)) for f, x in zip(self.features, parts, strict=True)]
        return pad_sequence(made, batch_first=True)

    def at(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Features (G, B, D), targets (G, B, ...) and weights (G, B) of a step."""
        folds = range(len(self.lengths))
        rows = [self._rows(fold, step) for fold in folds]
        places = torch.cat([rows[g] + self.starts[g] for g in folds])  # (G * B,)

        def gathered(tensor: Tensor) -> Tensor:
            return tensor.index_select(0, places).unflatten(0, (len(rows), -1))

        if self.stored is not None:
            x = gathered(self.stored)
        else:
            made = [self.features[g](self.tables[g][rows[g]]) for g in folds]
            x = torch.stack(made).to(self.dtype)
        weight = gathered(self.weight)
        if self.schedule.n_parts == 1:
            weight = weight * self._is_row()
        return x, gathered(self.y), weight

    def _is_row(self) -> Tensor:
        """Which places of one batch of all rows are rows, scaled to a mean of 1."""
        lengths = torch.tensor(self.lengths, device=self.device)
        places = torch.arange(self.size, device=self.device)
        return (places < lengths[:, None]) * (self.size / lengths[:, None])

    def _rows(self, fold: int, step: int) -> Tensor:
        """Row numbers (B,) of a step: one shuffled epoch after the other."""
        n_rows = self.lengths[fold]
        if self.schedule.n_parts == 1:
            # All rows in their order; smaller folds repeat rows that do not count.
            return torch.arange(self.size, device=self.device) % n_rows
        start = step * self.size
        parts, left = [], self.size
        while left:
            epoch, at = divmod(start, n_rows)
            part = self._order(fold, epoch)[at : at + left]
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


def half_precision(problem: Problem) -> torch.dtype | None:
    """The precision of products where half of it pays, else None."""
    assert problem.task is not None
    if problem.task.n_rows < MIN_HALF_ROWS:
        return None
    if problem.device.startswith("cuda"):
        return torch.bfloat16
    told = (
        torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    )
    is_fast = told.get("avx512_bf16") or told.get("amx_bf16")
    return torch.bfloat16 if is_fast else None
