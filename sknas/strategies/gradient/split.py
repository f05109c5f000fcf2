"""The split of training rows: those for the weights and those for the alphas."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from sknas._problem import Rows, TaskSpec
from sknas._training.batches import Batches
from sknas._training.loss import WeightedLoss
from sknas.strategies.gradient.progress import TimeBudget

MIN_ROWS = 600  # rows below which weights and alphas share all rows
MIN_EVEN_ROWS = 2_000  # rows below which the weights get more rows than the alphas
WEIGHT_SHARES = (0.7, 0.5)  # share of the weights below and from `MIN_EVEN_ROWS` on
MIN_PART_ROWS = 150  # rows of a part below which, as groups are large, both share all
EVALUATION_BATCH = 256  # rows in a batch of an evaluation
MAX_EVALUATED_ROWS = 2_000

Forward = Callable[[Tensor], Tensor]  # rows (N, ...) -> outputs (1, N, C)


class BilevelSplit:
    """Training rows, split into those of the weights and those of the alphas.

    Parameters
    ----------
    rows : Rows
        Training rows of a fold.
    task : TaskSpec
        Their task.
    device : str
        Device of the tensors.
    rng : numpy.random.Generator
        Splits the rows, and seeds the order of batches.
    is_single_level : bool
        True if both get all rows, as they also do where rows or groups of rows are few.
    """

    def __init__(
        self,
        rows: Rows,
        task: TaskSpec,
        device: str,
        rng: np.random.Generator,
        is_single_level: bool,
    ) -> None:
        # Images stay 8 bits: the network scales them.
        weight = (rows.weight / rows.weight.mean()).astype(np.float32)
        # Copy read-only arrays: torch warns about them.
        self.x, self.y, self.weight = (
            torch.from_numpy(np.require(array, requirements="W")).to(device)
            for array in (rows.x, rows.y, weight)
        )
        self.loss_of = WeightedLoss(task.kind).to(device)
        self.rng = rng
        n = len(rows)
        everything = rng.permutation(n)
        parts = (everything, everything)
        if not is_single_level and n >= MIN_ROWS:
            share = WEIGHT_SHARES[n >= MIN_EVEN_ROWS]
            is_class = task.kind in ("binary", "multiclass")
            labels = rows.y if is_class else np.zeros(n)
            divided = stratified_split(labels, share, rng, rows.groups)
            if min(map(len, divided)) >= MIN_PART_ROWS:
                parts = divided
        self.weight_rows, self.arch_rows = (
            torch.as_tensor(part, device=device) for part in parts
        )

    def batches(self, rows: Tensor, batch_size: int) -> Batches:
        """Return batches of row indices, in a new order each epoch."""
        seed = int(self.rng.integers(2**31))
        return Batches((rows,), self.n_batches(rows, batch_size), seed)

    def n_batches(self, rows: Tensor, batch_size: int) -> int:
        """Return the number of batches per epoch."""
        return -(-len(rows) // batch_size)

    def loss(self, forward: Forward, rows: Tensor) -> Tensor:
        """Return the training loss of some rows."""
        return self.loss_of(forward(self.x[rows]), self.y[rows], self.weight[rows])

    @torch.no_grad()
    def evaluate(self, forward: Forward, budget: TimeBudget) -> float | None:
        """Return the mean loss of up to 2,000 alphas' rows, None if time runs out."""
        rows = self.arch_rows[:MAX_EVALUATED_ROWS]
        total = 0.0
        for part in rows.tensor_split(self.n_batches(rows, EVALUATION_BATCH)):
            if budget.seconds_left <= 0:
                return None
            total += float(self.loss(forward, part)) * len(part)
        return total / len(rows)


def endless(batches: Batches) -> Iterator[Tensor]:
    """Yield the row indices of batches, epoch after epoch."""
    while True:
        for (rows,) in batches:
            yield rows


def stratified_split(
    y: np.ndarray,
    share: float,
    rng: np.random.Generator,
    groups: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Split rows into a share and the rest, with the same class frequencies in both.

    Rows are sorted by class and every 1/share-th row goes to the first part. Groups are
    not divided; those of a class are sorted by size.
    """
    groups = np.arange(len(y)) if groups is None else groups
    _, first_rows, group_of, sizes = np.unique(
        groups, return_index=True, return_inverse=True, return_counts=True
    )
    order = rng.permutation(len(first_rows))
    order = order[np.lexsort((sizes[order], y[first_rows][order]))]
    is_first = np.empty(len(first_rows), bool)
    steps = share * np.arange(len(first_rows) + 1) + rng.random()
    is_first[order] = np.diff(np.floor(steps))
    is_in_first = is_first[group_of]
    first, rest = np.flatnonzero(is_in_first), np.flatnonzero(~is_in_first)
    return rng.permutation(first), rng.permutation(rest)
