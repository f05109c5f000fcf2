"""Batches of several folds at once."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sknas._problem import Problem
from sknas.nets import Features, TableNet
from sknas.trainers._plan import Plan

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
        self, problem: Problem, features: list[Features], net: TableNet, plan: Plan
    ) -> None:
        self.problem, self.features, self.plan = problem, features, plan
        self.device = problem.device
        self.precision = half_precision(problem)
        is_learnt = net.inputs.numeric is not None or net.inputs.embedding is not None
        # Embeddings want exact numbers and codes, products do not.
        self.dtype = torch.float32 if is_learnt else self.precision or torch.float32
        self.tables = [self._tensor(fold.train.x) for fold in problem.folds]
        self.targets = [self._tensor(fold.train.y) for fold in problem.folds]
        self.weights = [
            self._tensor((fold.train.weight / fold.train.weight.mean()).astype("f4"))
            for fold in problem.folds
        ]
        n_features = net.inputs.layout.n_fixed + len(net.inputs.layout.many)
        n_rows = sum(len(table) for table in self.tables)
        self.stored: list[Tensor] | None = None
        if n_rows * n_features <= MAX_STORED:
            self.stored = [
                feature(table).to(self.dtype)
                for feature, table in zip(self.features, self.tables, strict=True)
            ]
        longest = max(len(table) for table in self.tables)
        self.size = -(-longest // plan.n_parts)
        self._orders: dict[tuple[int, int], Tensor] = {}

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.tensor(array, device=self.device)

    def features_of(self, fold: int) -> Tensor:
        """Features of the training rows of a fold that weights may start from."""
        if self.stored is not None:
            return self.stored[fold][:N_STARTING].float()
        return self.features[fold](self.tables[fold][:N_STARTING])

    def valid_features(self, fold: int) -> Tensor:
        """Features of the validation rows of a fold (N, D)."""
        return self.features[fold](self._tensor(self.problem.folds[fold].valid.x))

    def at(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Features (G, B, D), targets (G, B, ...) and weights (G, B) of a step."""
        rows = [self._rows(fold, step) for fold in range(len(self.tables))]
        if self.stored is not None:
            x = torch.stack([t[r] for t, r in zip(self.stored, rows, strict=True)])
        else:
            x = torch.stack(
                [
                    feature(table[r])
                    for feature, table, r in zip(
                        self.features, self.tables, rows, strict=True
                    )
                ]
            ).to(self.dtype)
        y = torch.stack([t[r] for t, r in zip(self.targets, rows, strict=True)])
        weight = torch.stack([w[r] for w, r in zip(self.weights, rows, strict=True)])
        if self.plan.n_parts == 1:
            weight = weight * self._is_row()
        return x, y, weight

    def _is_row(self) -> Tensor:
        """Which places of one batch of all rows are rows, scaled to a mean of 1."""
        lengths = torch.tensor([len(t) for t in self.tables], device=self.device)
        places = torch.arange(self.size, device=self.device)
        return (places < lengths[:, None]) * (self.size / lengths[:, None])

    def _rows(self, fold: int, step: int) -> Tensor:
        """Row numbers (B,) of a step: one shuffled epoch after the other."""
        n_rows = len(self.tables[fold])
        if self.plan.n_parts == 1:
            # All rows in their order; smaller folds repeat rows that do not count.
            return torch.arange(self.size, device=self.device) % n_rows
        start = step * self.size
        parts, left = [], self.size
        while left:
            epoch, at = divmod(start, n_rows)
            part = self._order(fold, epoch)[at : at + left]
            parts.append(part)
            start, left = start + len(part), left - len(part)
        return torch.cat(parts)

    def _order(self, fold: int, epoch: int) -> Tensor:
        if (fold, epoch) not in self._orders:
            self._orders = {k: v for k, v in self._orders.items() if k[1] >= epoch - 1}
            seeds = np.random.SeedSequence([self.problem.seed, fold, epoch])
            generator = torch.Generator().manual_seed(int(seeds.generate_state(1)[0]))
            order = torch.randperm(len(self.tables[fold]), generator=generator)
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
