"""Random numbers for a batch that comes whole, or in two halves."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor, nn

LEAST = 2  # rows of a part: normalisations take no single one


class BatchRNG:
    """Draws random numbers for rows; those of a whole batch with its first part.

    So each row gets the numbers that it gets where the batch comes as a whole.

    Attributes
    ----------
    part : (int, int, int) or None
        First and last row of a part, and the rows of its batch; None for all of it.
    """

    def __init__(self) -> None:
        self.part: tuple[int, int, int] | None = None
        self._drawn: list[Tensor] = []  # what later parts still need

    def __call__(self, n: int, draw: Callable[[int], Tensor]) -> Tensor:
        """Numbers (n, ...) that a function draws for so many rows.

        Where n is a multiple of the rows of the part, those are repeated as a whole.
        """
        if self.part is None:
            return draw(n)
        start, stop, n_rows = self.part
        copies = n // (stop - start)
        drawn = self._drawn.pop(0) if start else draw(copies * n_rows)
        if stop < n_rows:
            self._drawn.append(drawn)
        return drawn.unflatten(0, (copies, n_rows))[:, start:stop].flatten(0, 1)


def micro_batches(net: nn.Module, n_rows: int, n_parts: int) -> Iterator[slice]:
    """Rows of each part of a batch, while a network draws for the whole of it."""
    if n_parts == 1 or n_rows < LEAST * n_parts:
        yield slice(0, n_rows)
        return
    found = [getattr(module, "draws", None) for module in net.modules()]
    draws = [each for each in found if isinstance(each, BatchRNG)]
    size = -(-n_rows // n_parts)
    for start in range(0, n_rows, size):
        stop = min(start + size, n_rows)
        for each in draws:
            each.part = (start, stop, n_rows)
        yield slice(start, stop)
    for each in draws:
        each.part = None
