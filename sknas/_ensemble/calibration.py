"""Temperature scaling of probabilities."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize_scalar

TEMPERATURES = (0.25, 4.0)  # lowest and highest temperature
MIN_PROBABILITY = 1e-12  # keeps logarithms finite


def apply_temperature(
    predictions: np.ndarray, temperature: float, kind: str
) -> np.ndarray:
    """Return probabilities (..., C) at a temperature; above 1 they get flatter.

    Predictions of a regressor are returned unchanged.
    """
    if kind == "regression" or temperature == 1.0:
        return predictions
    logs = np.log(np.maximum(predictions, MIN_PROBABILITY)) / temperature
    if kind == "multilabel":
        others = np.log(np.maximum(1 - predictions, MIN_PROBABILITY)) / temperature
        return np.exp(logs - np.logaddexp(logs, others))
    shares = np.exp(logs - logs.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


def fit_temperature(
    predictions: np.ndarray, loss: Callable[[np.ndarray], float], kind: str
) -> float:
    """Return the temperature with the lowest log-loss, 1 for a regressor.

    Parameters
    ----------
    predictions : ndarray of shape (N, C)
        Out-of-fold probabilities.
    loss : callable
        Predictions -> mean loss.
    kind : {"binary", "multiclass", "multilabel", "regression"}
        Kind of the target.

    References
    ----------
    Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks.
    arXiv:1706.04599.
    """
    if kind == "regression":
        return 1.0
    found = minimize_scalar(
        lambda log: loss(apply_temperature(predictions, float(np.exp(log)), kind)),
        bounds=np.log(TEMPERATURES),
        method="bounded",
        options={"xatol": 0.02},
    )
    is_better = found.fun < loss(predictions)
    return float(np.exp(found.x)) if is_better else 1.0
