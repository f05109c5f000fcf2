"""What fits leave behind in this process."""

import gc

import numpy as np
import torch

from sknas import NASClassifier, NASRegressor

TINY = {"max_trials": 2, "max_epochs": 1, "cv": 2, "n_jobs": 1, "random_state": 0}

_rng = np.random.default_rng(0)
TABLE = _rng.normal(size=(60, 5))
IMAGES = _rng.integers(0, 256, size=(30, 8, 8)).astype(np.uint8)
LABELS = {len(X): np.arange(len(X)) % 2 for X in (TABLE, IMAGES)}

# Kinds of fits: the rows, and the parameters that differ.
KINDS = {
    "table": (TABLE, {}),
    "table, one by one": (TABLE, {"trainer": "skorch"}),
    "table, one network": (TABLE, {"ensemble_size": 1}),
    "table, by gradient": (TABLE, {"strategy": "gradient"}),
    "images": (IMAGES, {}),
    "images, cells": (IMAGES, {"search_space": "cell"}),
    "images, by gradient": (IMAGES, {"strategy": "gradient"}),
}


def fit(kind):
    """Return a fitted estimator of a kind, and its rows."""
    X, parameters = KINDS[kind]
    model = NASClassifier(**TINY, **parameters)
    return model.fit(X, LABELS[len(X)]), X


def fit_values():
    """Return a fitted regressor of two targets, and its rows."""
    return NASRegressor(**TINY).fit(TABLE, TABLE[:, :2]), TABLE


def count_tensors():
    """Return how many tensors are alive."""
    # `isinstance` would ask objects of others for their class, and some then warn.
    return sum(issubclass(type(value), torch.Tensor) for value in gc.get_objects())


def resident_mb():
    """Return the memory of this process in MB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20
