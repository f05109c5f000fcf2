"""Probabilities made as sure as they are right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize_scalar

RANGE = (0.25, 4.0)  # of a temperature
TINY = 1e-12


def apply_temperature(
    predictions: np.ndarray, temperature: float, kind: str
) -> np.ndarray:
    """Probabilities (..., C) at a temperature: above 1 they get less sure.

    Predictions of a regressor stay what they are.
    """
    if kind == "regression" or temperature == 1.0:
        return predictions
    logs = np.log(np.maximum(predictions, TINY)) / temperature
    if kind == "multilabel":
        others = np.log(np.maximum(1 - predictions, TINY)) / temperature
        return np.exp(logs - np.logaddexp(logs, others))
    shares = np.exp(logs - logs.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


def fit_temperature(
    predictions: np.ndarray, loss: Callable[[np.ndarray], float], kind: str
) -> float:
    """The temperature of the lowest log-loss.

    Parameters
    ----------
    predictions : ndarray of shape (N, C)
        Probabilities for rows that no network was trained on.
    loss : callable
        Predictions -> mean loss.
    kind : {"binary", "multiclass", "multilabel", "regression"}
        What is predicted.

    References
    ----------
    Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks.
    arXiv:1706.04599.
    """
    if kind == "regression":
        return 1.0
    found = minimize_scalar(
        lambda log: loss(apply_temperature(predictions, float(np.exp(log)), kind)),
        bounds=np.log(RANGE),
        method="bounded",
        options={"xatol": 0.02},
    )
    is_better = found.fun < loss(predictions)
    return float(np.exp(found.x)) if is_better else 1.0
