"""Scores as losses on a normal scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import norm, rankdata

CLIPPED = (-4.0, 2.5)  # deviations that a loss may lie from the middle one
MIN_SPREAD = 1e-12
LARGEST = 1e150  # of a score: sums and squares of such are still finite


def warp_losses(scores: Sequence[float | None]) -> np.ndarray:
    """Scores as losses about 0, of a deviation of about 1; failures are the worst.

    The mean of two scales: ranks keep one diverged network from flattening all other
    differences, distances tell a gain from a trifle.
    """
    losses = -np.array([np.nan if score is None else score for score in scores])
    is_known = np.isfinite(losses)
    losses = losses.clip(-LARGEST, LARGEST)
    losses[~is_known] = losses[is_known].max() if is_known.any() else 0.0
    ranks = norm.ppf((rankdata(losses) - 0.5) / len(losses))
    middle = np.median(losses)
    # By the better half: the worse one may go anywhere.
    better = (middle - np.quantile(losses, 0.1)) / -norm.ppf(0.1)
    spread = max(better or losses.std(), MIN_SPREAD)
    distances = np.clip((losses - middle) / spread, *CLIPPED)
    return (ranks + distances - distances.mean()) / 2
