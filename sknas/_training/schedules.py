"""How long to train, and the learning rate at each step."""

from __future__ import annotations

import math


def n_cycles(n_steps: int) -> int:
    """Cycles of `coslog` that `n_steps` have room for: 1 to 4."""
    return int(min(max(math.log2(n_steps / 100) + 1, 1), 4))


def coslog(progress: float, cycles: int) -> float:
    """Learning rate factor of cosine cycles on a logarithmic clock.

    Parameters
    ----------
    progress : float in [0, 1]
        Share of the training that is done.
    cycles : int
        Number of cycles; each is about twice as long as the one before.

    References
    ----------
    Holzmüller, Grinsztajn, Steinwart: Better by Default: Strong Pre-Tuned MLPs and
    Boosted Trees on Tabular Data. arXiv:2407.04491, section 3.
    """
    clock = math.log2(1 + (2**cycles - 1) * progress)
    return 0.5 * (1 - math.cos(2 * math.pi * clock))


def cycle_ends(n_steps: int, cycles: int) -> list[int]:
    """The step after which `coslog` is at zero, for each cycle."""
    shares = [(2**c - 1) / (2**cycles - 1) for c in range(1, cycles + 1)]
    return [max(1, round(share * n_steps)) for share in shares]


def distinct_cycle_ends(n_steps: int, cycles: int) -> list[int]:
    """Steps after which `coslog` is at zero, where networks may be compared."""
    return sorted(set(cycle_ends(n_steps, cycles)))


def flat_cos(progress: float) -> float:
    """1 for the first half, then half a cosine down to 0."""
    return 1.0 if progress < 0.5 else 0.5 * (1 + math.cos(math.pi * (2 * progress - 1)))
