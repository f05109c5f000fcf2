"""Output warping: from scores to losses on a normal scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import norm, rankdata

CLIP = (-4.0, 2.5)  # bounds of a loss around the median, in standard deviations
MIN_SPREAD = 1e-12
MAX_SCORE = 1e150  # sums and squares of scores up to here are finite


def warp_losses(scores: Sequence[float | None]) -> np.ndarray:
    """Turn scores into losses of mean 0 and standard deviation 1, approximately.

    The result is the mean of two scales. Normal quantiles of the ranks keep an outlier
    from flattening all other differences; clipped distances from the median tell a
    large improvement from a small one.

    Parameters
    ----------
    scores : sequence of float or None, of length n
        Greater is better. None and non-finite scores become the worst loss.

    Returns
    -------
    ndarray of shape (n,)
        Losses; lower is better.
    """
    losses = -np.array([np.nan if score is None else score for score in scores])
    is_finite = np.isfinite(losses)
    losses = losses.clip(-MAX_SCORE, MAX_SCORE)
    losses[~is_finite] = losses[is_finite].max() if is_finite.any() else 0.0
    ranks = norm.ppf((rankdata(losses) - 0.5) / len(losses))
    median = np.median(losses)
    # Estimate the spread from the better half only: bad losses have no upper bound.
    better = (median - np.quantile(losses, 0.1)) / -norm.ppf(0.1)
    spread = max(better or losses.std(), MIN_SPREAD)
    distances = np.clip((losses - median) / spread, *CLIP)
    return (ranks + distances - distances.mean()) / 2
