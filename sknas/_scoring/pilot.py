"""The cost of a call of the scorer, measured before a search is planned."""

from __future__ import annotations

import numpy as np

from sknas._scoring.scorer import RowScorer

FOLD_SHARE = 3  # a call for one in so many rows, about those of a fold
MIN_SECONDS = 1e-3  # per second of the search, a cost that planning takes notice of
REPEATED_SHARE = 0.02  # share of the time up to which a call is measured again


def seconds_of_a_call(scorer: RowScorer, max_time: float) -> float:
    """Return the seconds of a call of a scorer; 0 if they do not matter.

    Parameters
    ----------
    scorer : RowScorer
        Scores predictions that are right, for some of its rows.
    max_time : float
        Seconds of the whole fit.
    """
    if scorer.is_vectorised:
        return 0.0
    rows = np.arange(0, len(scorer.y), FOLD_SHARE)
    predictions = _right_predictions(scorer, rows)
    scorer.score(predictions, rows)
    seconds = scorer.call_seconds
    if MIN_SECONDS * max_time < seconds < REPEATED_SHARE * max_time:
        scorer.score(predictions, rows)  # the first call may load modules
        seconds = min(seconds, scorer.call_seconds)
    return seconds if seconds > MIN_SECONDS * max_time else 0.0


def _right_predictions(scorer: RowScorer, rows: np.ndarray) -> np.ndarray:
    """Return probabilities or values (N', C) that are equal to the targets."""
    targets = scorer.y if scorer.codes is None else scorer.codes
    if isinstance(scorer.classes, np.ndarray):
        return np.eye(len(scorer.classes), dtype=np.float32)[targets[rows]]
    return targets[rows].reshape(len(rows), -1)
