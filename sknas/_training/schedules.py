"""Schedules of the learning rate, weight decay and dropout."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sknas._budget import defaults_for


@dataclass(frozen=True)
class Length:
    """Length of a training.

    Parameters
    ----------
    n_steps : int
        Optimiser steps.
    n_batches : int
        Batches per epoch, with rows counted by their weights.
    planned : int
        Steps on the whole table at the default batch size. They decide the cycles of
        the learning rate, so that a share of the schedule is the same point for all
        architectures, in every fold and in the refit.
    """

    n_steps: int
    n_batches: int
    planned: int

    @property
    def n_epochs(self) -> int:
        """Number of epochs started."""
        return -(-self.n_steps // self.n_batches)


def training_length(
    n_rows: float,
    n_train: float,
    n_steps: int,
    batch_size: int,
    max_epochs: int | None,
    is_image: bool = False,
) -> Length:
    """Return the length of a training on a part of a table.

    The steps grow with the inverse square root of the batch size: a compromise between
    the same number of steps and the same number of epochs.

    Parameters
    ----------
    n_rows, n_train : float
        Rows of the table and of the part to train on.
    n_steps : int
        Steps of a full training at the default batch size.
    batch_size : int
        Rows per batch.
    max_epochs : int or None
        Maximum number of epochs.
    is_image : bool, default=False
        True if rows are images.
    """
    default_size = defaults_for(is_image).batch_size(n_rows)
    wanted = round(n_steps * math.sqrt(default_size / batch_size))
    planned = _bounded(n_steps, n_rows, default_size, max_epochs)
    n_batches = max(1, math.ceil(n_train / batch_size))
    return Length(_bounded(wanted, n_train, batch_size, max_epochs), n_batches, planned)


def _bounded(
    n_steps: int, n_rows: float, batch_size: int, max_epochs: int | None
) -> int:
    """Return `n_steps`, limited by `max_epochs`, and at least 1."""
    if max_epochs is None:
        return max(1, n_steps)
    return max(1, min(n_steps, max_epochs * max(1, math.ceil(n_rows / batch_size))))


def n_cycles(n_steps: int) -> int:
    """Return the number of cycles of `coslog` in a training of `n_steps`: 1 to 4."""
    return int(min(max(math.log2(n_steps / 100) + 1, 1), 4))


def coslog(progress: float, cycles: int) -> float:
    """Return the factor on the learning rate: cosine cycles in logarithmic time.

    Parameters
    ----------
    progress : float in [0, 1]
        Share of the training that is done.
    cycles : int
        Number of cycles, each about twice as long as the one before.

    References
    ----------
    Holzmüller, Grinsztajn, Steinwart: Better by Default: Strong Pre-Tuned MLPs and
    Boosted Trees on Tabular Data. arXiv:2407.04491, section 3.
    """
    clock = math.log2(1 + (2**cycles - 1) * progress)
    return 0.5 * (1 - math.cos(2 * math.pi * clock))


def cycle_ends(n_steps: int, cycles: int) -> list[int]:
    """Return the step after which `coslog` is zero, for each cycle."""
    shares = [(2**c - 1) / (2**cycles - 1) for c in range(1, cycles + 1)]
    return [max(1, round(share * n_steps)) for share in shares]


def distinct_cycle_ends(n_steps: int, cycles: int) -> list[int]:
    """Return the steps after which `coslog` is zero, each once."""
    return sorted(set(cycle_ends(n_steps, cycles)))


def flat_cos(progress: float) -> float:
    """Return 1 in the first half of the training, then half a cosine down to 0."""
    return 1.0 if progress < 0.5 else 0.5 * (1 + math.cos(math.pi * (2 * progress - 1)))
