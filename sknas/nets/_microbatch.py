"""Random numbers that do not depend on the micro-batches a batch is split into."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

from torch import Tensor, nn

MIN_MICRO_BATCH_ROWS = 2  # batch normalisation needs more than one row


class BatchRNG:
    """Draws random numbers for rows, independent of the split into micro-batches.

    The numbers of the whole batch are drawn with its first micro-batch.

    Attributes
    ----------
    micro_batch : (int, int, int) or None
        Start and stop in the batch, and rows of the batch; None if it is not split.
    """

    def __init__(self) -> None:
        self.micro_batch: tuple[int, int, int] | None = None
        self._drawn: list[Tensor] = []  # numbers that later micro-batches will need

    def __call__(self, n: int, draw: Callable[[int], Tensor]) -> Tensor:
        """Return `draw(n)`, or the part of it that belongs to the micro-batch.

        If n is a multiple of the micro-batch's rows, these are repeated as a whole.
        """
        if self.micro_batch is None:
            return draw(n)
        start, stop, n_rows = self.micro_batch
        copies = n // (stop - start)
        drawn = self._drawn.pop(0) if start else draw(copies * n_rows)
        if stop < n_rows:
            self._drawn.append(drawn)
        return drawn.unflatten(0, (copies, n_rows))[:, start:stop].flatten(0, 1)


class RandomModule(nn.Module, ABC):
    """A module that draws random numbers for each row from its `rng`."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = BatchRNG()

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return the output for rows."""


def micro_batches(net: nn.Module, n_rows: int, n_micro_batches: int) -> Iterator[slice]:
    """Yield the rows of each micro-batch, while `net` draws for the whole batch."""
    if n_micro_batches == 1 or n_rows < MIN_MICRO_BATCH_ROWS * n_micro_batches:
        yield slice(0, n_rows)
        return
    rngs = [module.rng for module in net.modules() if isinstance(module, RandomModule)]
    size = -(-n_rows // n_micro_batches)
    for start in range(0, n_rows, size):
        stop = min(start + size, n_rows)
        for rng in rngs:
            rng.micro_batch = (start, stop, n_rows)
        yield slice(start, stop)
    for rng in rngs:
        rng.micro_batch = None
