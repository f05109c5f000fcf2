"""The rows of a relaxed network: those of its weights and those of its logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from sknas._problem import Rows, TaskSpec
from sknas._training.batches import Batches
from sknas._training.loss import WeightedLoss
from sknas.strategies.gradient.time_budget import TimeBudget

SINGLE_BELOW = 600  # rows below which one half would be too few for either
UNEVEN_BELOW = 2_000
SHARES = (0.7, 0.5)  # of the weights, below that and above
MIN_PART = 150  # rows of either, where groups are so large that one gets few
CHUNK = 256  # rows that are answered at once
MAX_MEASURED = 2_000  # rows that a loss is measured on

Answer = Callable[[Tensor], Tensor]  # rows (N, ...) -> answers (1, N, C)


class BilevelSplit:
    """Training rows, dealt out to weights and logits.

    Parameters
    ----------
    rows : Rows
        Rows that nothing is validated on.
    task : TaskSpec
        What they are.
    device : str
        Where they are kept.
    rng : numpy.random.Generator
        Deals them out, and seeds the order of batches.
    is_single_level : bool
        Whether both get all rows; they do where rows, or groups of rows, are few.
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
        # Arrays that may not be written to are copied: torch warns of them.
        self.x, self.y, self.weight = (
            torch.from_numpy(np.require(array, requirements="W")).to(device)
            for array in (rows.x, rows.y, weight)
        )
        self.loss_of = WeightedLoss(task.kind).to(device)
        self.rng = rng
        n = len(rows)
        everything = rng.permutation(n)
        if is_single_level or n < SINGLE_BELOW:
            parts = (everything, everything)
        else:
            share = SHARES[n >= UNEVEN_BELOW]
            is_class = task.kind in ("binary", "multiclass")
            parts = deal(rows.y if is_class else np.zeros(n), share, rng, rows.groups)
            if min(map(len, parts)) < MIN_PART:
                parts = (everything, everything)
        self.weight_rows, self.arch_rows = (
            torch.as_tensor(part, device=device) for part in parts
        )

    def batches(self, rows: Tensor, batch_size: int) -> Batches:
        """Some rows in batches, in a new order each epoch."""
        seed = int(self.rng.integers(2**31))
        return Batches((rows,), self.n_batches(rows, batch_size), seed)

    def n_batches(self, rows: Tensor, batch_size: int) -> int:
        """Batches of an epoch."""
        return -(-len(rows) // batch_size)

    def loss(self, answer: Answer, rows: Tensor) -> Tensor:
        """The loss of some rows."""
        return self.loss_of(answer(self.x[rows]), self.y[rows], self.weight[rows])

    @torch.no_grad()
    def measured(self, answer: Answer, clock: TimeBudget) -> float | None:
        """The loss on the logits' rows, or on some of them; None if time is over."""
        rows = self.arch_rows[:MAX_MEASURED]
        total = 0.0
        for part in rows.tensor_split(self.n_batches(rows, CHUNK)):
            if clock.seconds_left <= 0:
                return None
            total += float(self.loss(answer, part)) * len(part)
        return total / len(rows)


def endless(batches: Batches) -> Iterator[Tensor]:
    """The rows of batches, epoch after epoch."""
    while True:
        for (rows,) in batches:
            yield rows


def deal(
    y: np.ndarray,
    share: float,
    rng: np.random.Generator,
    groups: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of rows, a share and the rest, with the same mixture of classes each.

    The rows of each class stand one after another, and every so manieth of all goes
    into the first set. Groups go there as a whole, in the order of their size.
    """
    groups = np.arange(len(y)) if groups is None else groups
    _, at, place, sizes = np.unique(
        groups, return_index=True, return_inverse=True, return_counts=True
    )
    order = rng.permutation(len(at))
    order = order[np.lexsort((sizes[order], y[at][order]))]
    is_first = np.empty(len(at), bool)
    is_first[order] = np.diff(np.floor(share * np.arange(len(at) + 1) + rng.random()))
    is_taken = is_first[place]
    first, rest = np.flatnonzero(is_taken), np.flatnonzero(~is_taken)
    return rng.permutation(first), rng.permutation(rest)
