"""Scorers of scikit-learn that know all classes, also those that the rows lack."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import label_binarize


def reads_probabilities(scorer: Callable[..., float]) -> bool:
    """Return True if a scorer calls for probabilities or decision values."""
    # No version of scikit-learn has a public attribute for the response method, but
    # every supported one names it in the repr of a scorer.
    text = repr(scorer)
    return "response_method=" in text and "response_method='predict'" not in text


def with_classes(scorer: Callable[..., float], classes: Any) -> Callable[..., float]:
    """Return a scorer that reads a column of probabilities as that of its class.

    A metric of scikit-learn takes the classes from the rows. If these lack a class, it
    refuses the probabilities of the others, unless it is told all classes.

    Parameters
    ----------
    scorer : callable
        (estimator, X, y[, sample_weight]) -> float, greater is better. It is returned
        as it is, unless it calls a metric of scikit-learn with probabilities.
    classes : ndarray, list of ndarray or None
        The classes; a list for multi-label targets, None for regression.
    """
    metric: Any = getattr(scorer, "_score_func", None)
    options = getattr(scorer, "_kwargs", None)
    is_known = getattr(metric, "__module__", "").startswith("sklearn.")
    if not isinstance(classes, np.ndarray) or not is_known or options is None:
        return scorer
    if not reads_probabilities(scorer):  # there, `labels` are the classes to average
        return scorer
    known: Any = copy.copy(scorer)
    known._kwargs = {**_class_options(metric, classes), **options}
    if metric is average_precision_score and len(classes) > 2:
        known._score_func = _average_precision
        known._kwargs["classes"] = classes
    return known


def _class_options(metric: Callable[..., float], classes: np.ndarray) -> dict[str, Any]:
    """Return arguments of a metric that tell it all classes."""
    parameters = inspect.signature(metric).parameters
    options: dict[str, Any] = {}
    if "labels" in parameters:
        options["labels"] = classes
    has_no_default = (
        "pos_label" in parameters and parameters["pos_label"].default is None
    )
    if has_no_default and len(classes) == 2:
        options["pos_label"] = classes[1]
    return options


def _average_precision(
    y_true: np.ndarray,
    y_score: np.ndarray,
    *,
    classes: np.ndarray,
    **options: Any,
) -> float:
    """Return the average precision of several classes, 0 for one without rows."""
    is_class = label_binarize(y_true, classes=classes)
    return float(average_precision_score(is_class, y_score, **options))
