"""Fit the same small searches with two source trees and compare the results.

    python tests/compare_trees.py BEFORE AFTER [--only NAME ...] [--atol 0.0]
                                  [--ignore KEY ...]

BEFORE and AFTER are folders that contain `sknas/`, such as two checkouts. Each tree
runs in its own process with the libraries of this Python, both at once. Everything a
user can read from a fitted search is compared, except times. Values must be equal to
the last bit; NaN equals NaN, and 0.0 equals -0.0. The exit status is 1 if a case
differs by more than `--atol` or raises an error. `--ignore` names keys that only one
tree has on purpose.

A case must not depend on the clock: `max_trials` and `max_epochs` bound it, never
`max_time`, a latency or the acquisition "eips".
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import pickle
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from joblib.externals.loky import get_reusable_executor
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
    load_wine,
    make_classification,
    make_multilabel_classification,
    make_regression,
)
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GroupKFold, ShuffleSplit
from sklearn.utils import shuffle
from torch import nn

import sknas
from sknas import NASClassifier, NASRegressor
from sknas.nets import Linear, TableInput
from sknas.spaces import Categorical, CellSpace, ImageSpace, Integer, Space, TableSpace
from sknas.strategies import (
    BayesianStrategy,
    EvolutionStrategy,
    GradientStrategy,
    LocalStrategy,
    RandomStrategy,
    ReinforceStrategy,
)

USUAL = {"n_jobs": 1, "random_state": 0, "device": "cpu"}
SHORT = {**USUAL, "max_trials": 3, "max_epochs": 4}
TABLE = TableSpace(depth=(1, 2), width=(16, 32), block=("plain", "resnet"))
IMAGE = ImageSpace(stages=(1, 2), blocks=(1,), channels=(8, 16), kernel_size=(3,))
CELL = CellSpace(cells=(1, 2), channels=(8,))
TRAINERS = ("population", "skorch")
# Thresholds below which work stays in the parent process.
THRESHOLDS = ("WORTH_WORKERS", "ROOM_FOR_WORKERS")
TIMES = ("mean_fit_time", "std_fit_time", "mean_score_time", "std_score_time")
FITTED = (
    "best_architecture_",
    "best_score_",
    "stop_reason_",
    "n_trials_",
    "baseline_scores_",
    "n_features_in_",
    "feature_names_in_",
    "classes_",
)
SEARCHED = (
    "trajectory_",
    "entropy_",
    "sharpness_",
    "derived_",
)  # results of a gradient strategy
N_WRITES = 8  # writes to a checkpoint before the process is killed
N_SHOWN = 5  # number of differences printed for a case


# Values that are compared


def plain(value):
    """Return a value as dicts, lists, numbers, strings and arrays, without sknas."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(value)
        return {"mask": mask, "values": plain(value.tolist())}
    if isinstance(value, np.ndarray):
        return plain(value.tolist()) if value.dtype.hasobject else value
    if isinstance(value, np.generic):  # keeps its dtype
        return np.asarray(value)
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bool | int | float | None):
        return value
    raise TypeError(f"{type(value).__name__} is no plain value")


def untimed(value):
    """Return a plain value without the entries that hold seconds."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if "seconds" not in k and k not in TIMES}
        return {key: untimed(part) for key, part in kept.items()}
    return [untimed(part) for part in value] if isinstance(value, list) else value


def describe_model(model, X, y, X_train, y_train):
    """Return everything a user can read from a fitted model, except times."""
    found = {name: getattr(model, name) for name in FITTED if hasattr(model, name)}
    found["predict"] = model.predict(X)
    if hasattr(model, "predict_proba"):
        found["predict_proba"] = model.predict_proba(X)
    found["score_train"] = model.score(X_train, y_train)
    found["score_all"] = model.score(X, y)
    found["cv_results_"] = model.cv_results_
    found["history_"] = json.loads(model.history_.to_json())
    found["words"] = model.search_space_.describe(model.best_architecture_)
    found["strategy_"] = {n: getattr(model.strategy_, n, None) for n in SEARCHED}
    return untimed(plain(found))


def fit(model, X, y, n_new=30, n_fits=1, **given):
    """Fit a model to all rows but the last `n_new` and describe it."""
    X_train, y_train = X[:-n_new], y[:-n_new]
    for _ in range(n_fits):
        model.fit(X_train, y_train, **given)
    return describe_model(model, X, y, X_train, y_train)


def searched(objective, space, **parameters):
    """Describe the history that `sknas.search` returns."""
    history = sknas.search(objective, space, random_state=0, **parameters)
    best = history.best
    found = {"history": json.loads(history.to_json()), "best_score": best.score}
    return untimed(plain(found | {"best": best.architecture, "number": len(history)}))


# Data


def sample(load, n_rows, **options):
    """Return a sample of rows of a scikit-learn dataset."""
    return shuffle(*load(return_X_y=True, **options), random_state=0, n_samples=n_rows)


def digits(n_rows):
    """Return images (n, 8, 8) and labels of ten classes."""
    bunch = load_digits()
    return shuffle(bunch.images, bunch.target, random_state=0, n_samples=n_rows)


def frame(n_rows):
    """Return a frame with every kind of column and gaps, and labels of two strings."""
    rng = np.random.default_rng(0)
    number, word = rng.normal(size=n_rows), rng.choice(["red", "green", "blue"], n_rows)
    level = pd.Categorical(rng.choice(["low", "middle", "high"], n_rows), ordered=True)
    is_high = number + (word == "red") + rng.normal(size=n_rows) / 2 > 0.3
    X = pd.DataFrame(
        {
            "number": np.where(rng.random(n_rows) < 0.1, np.nan, number),
            "integer": pd.array(rng.integers(0, 9, n_rows), dtype="Int64"),
            "word": np.where(rng.random(n_rows) < 0.1, None, word),
            "level": level,
            "flag": rng.random(n_rows) < 0.5,
            "many": [f"id{code}" for code in rng.integers(0, 25, n_rows)],
            "float32": rng.normal(size=n_rows).astype(np.float32),
        }
    )
    X.loc[::7, "integer"] = pd.NA
    X.loc[3::9, "level"] = None
    return X, np.where(is_high, "yes", "no")


# Cases: tables


def table_binary():
    X, y = sample(load_breast_cancer, 230)
    return fit(NASClassifier(max_trials=24, max_epochs=20, **USUAL), X, y)


def table_multiclass():
    X, y = sample(load_wine, 170)
    model = NASClassifier(
        TABLE,
        "random",
        "skorch",
        max_trials=10,
        max_epochs=30,
        class_weight="balanced",
        **USUAL,
    )
    return fit(model, X, y)


def table_multilabel():
    X, y = make_multilabel_classification(200, 8, n_classes=3, random_state=0)
    strategy = EvolutionStrategy(population_size=6, sample_size=2)
    model = NASClassifier(TABLE, strategy, max_trials=30, max_epochs=20, **USUAL)
    return fit(model, X, y)


def table_regression():
    X, y = sample(load_diabetes, 260)
    strategy = LocalStrategy(n_starting=3)
    model = NASRegressor(TABLE, strategy, max_trials=30, max_epochs=40, **USUAL)
    return fit(model, X, y)


def table_outputs():
    X, y = make_regression(220, 7, n_targets=2, noise=5.0, random_state=0)
    strategy = ReinforceStrategy(n_estimating=32)
    model = NASRegressor(TABLE, strategy, max_trials=30, max_epochs=30, **USUAL)
    return fit(model, X, y)


def table_dropped():
    """Trials that are dropped before the highest rung."""
    X, y = make_classification(330, 6, n_informative=3, flip_y=0.2, random_state=0)
    model = NASClassifier(TABLE, "evolution", max_trials=20, max_epochs=60, **USUAL)
    found = fit(model, X, y)
    assert len(set(found["cv_results_"]["rung"].tolist())) > 1
    return found


def table_packed():
    """Packed networks for each kind of target."""
    space = TableSpace(depth=(0, 1), width=(16,), packing=(4, 32))
    usual = {"max_trials": 6, "max_epochs": 10, **USUAL}
    classifier, regressor = NASClassifier(space, **usual), NASRegressor(space, **usual)
    labels = make_multilabel_classification(150, 6, n_classes=2, random_state=0)
    return {
        "classes": fit(classifier, *sample(load_wine, 170)),
        "labels": fit(classifier, *labels),
        "values": fit(regressor, *sample(load_diabetes, 200)),
    }


SCORINGS = {
    "binary": "balanced_accuracy matthews_corrcoef neg_brier_score average_precision "
    "roc_auc f1 jaccard precision_macro recall_weighted",
    "multiclass": "accuracy neg_log_loss roc_auc_ovo roc_auc_ovr_weighted f1_macro "
    "jaccard_micro",
    "multilabel": "accuracy roc_auc average_precision f1_macro recall_micro",
    "regression": "explained_variance neg_max_error neg_root_mean_squared_error "
    "neg_mean_squared_log_error neg_mean_absolute_error neg_median_absolute_error "
    "neg_mean_absolute_percentage_error",
}


def scoring():
    """Scorers for each kind of target, with weights and with splits of the user."""
    data = {
        "binary": make_classification(150, 6, flip_y=0.3, random_state=0),
        "multiclass": sample(load_iris, 150),
        "multilabel": make_multilabel_classification(150, 6, random_state=0),
        "regression": sample(load_diabetes, 150),
    }
    weight = np.random.default_rng(0).integers(1, 4, 120).astype(float)
    cv = list(ShuffleSplit(3, test_size=0.3, random_state=0).split(weight))
    found = {}
    for kind, names in SCORINGS.items():
        cls = NASRegressor if kind == "regression" else NASClassifier
        for name in names.split():
            model = cls(TABLE, cv=cv, scoring=name, **SHORT)
            found[f"{kind} {name}"] = fit(model, *data[kind], sample_weight=weight)
    return found


def data_frame():
    X, y = frame(240)
    usual = {"max_trials": 14, "max_epochs": 20, **USUAL}
    named = NASClassifier(categorical_features=["integer", "level", "word"], **usual)
    array, mask = X[["number", "integer", "flag"]].to_numpy(object), [False, True, True]
    masked = NASClassifier(categorical_features=mask, **usual)
    return {
        "dtypes": fit(NASClassifier(**usual), X, y),
        "names": fit(named, X.drop(columns="many"), pd.Series(y, dtype="category")),
        "mask": fit(masked, array, y == "yes"),
    }


def weights_and_groups():
    (X, y), rng = frame(200), np.random.default_rng(1)
    values = (y == "yes") + rng.normal(size=200)
    weights = {"sample_weight": rng.integers(0, 4, 170) / 2}
    groups = {"groups": rng.integers(0, 20, 170)}
    usual = {"max_trials": 8, "max_epochs": 20, **USUAL}
    classifier, regressor = NASClassifier(TABLE, **usual), NASRegressor(TABLE, **usual)
    grouped = NASClassifier(TABLE, cv=GroupKFold(3), **usual)
    weighted = NASClassifier(TABLE, class_weight={"yes": 3.0, "no": 1.0}, **usual)
    return {
        "weights": fit(classifier, X, y, **weights),
        "groups": fit(grouped, X, y, **groups),
        "both": fit(regressor, X, values, **weights, **groups),
        "classes": fit(weighted, X, y),
    }


def constraints():
    X, y = sample(load_wine, 170)
    usual = {"max_trials": 20, "max_epochs": 10, **USUAL}
    bounds = ({"n_params": 3_000}, lambda a: a["depth"] < 2 or a["width"] == 16)
    models = [NASClassifier(TABLE, constraints=bound, **usual) for bound in bounds]
    return {str(number): fit(model, X, y) for number, model in enumerate(models)}


def one_network():
    """The top k trials are re-evaluated, and the best is trained on all rows."""
    X, y = sample(load_diabetes, 230)
    usual = {"max_trials": 16, "max_epochs": 20, "ensemble_size": 1, **USUAL}
    found = fit(NASRegressor(TABLE, "random", **usual), X, y)
    assert "re-score" in found["cv_results_"]["origin"]
    model = NASRegressor(TABLE, "random", "skorch", **usual)
    return {"population": found, "skorch": fit(model, X, y)}


def refitted():
    """Ensemble members trained on half of the rows are refitted on all rows."""
    X, y = sample(load_wine, 170)
    usual = {"max_trials": 8, "max_epochs": 20, "cv": 2, **USUAL}
    models = {name: NASClassifier(TABLE, trainer=name, **usual) for name in TRAINERS}
    return {name: fit(model, X, y) for name, model in models.items()}


# Cases: images


def images():
    X, y = digits(150)
    return fit(NASClassifier(max_trials=8, max_epochs=2, **USUAL), X, y)


def images_flat():
    X, y = digits(150)
    X, y = X.reshape(len(X), -1).astype(np.uint8), y + 0.5
    usual = {"image_shape": (8, 8), "max_trials": 12, "max_epochs": 3, **USUAL}
    return fit(NASRegressor(IMAGE, EvolutionStrategy(3, 2), **usual), X, y)


def images_channels():
    X, y = digits(130)
    X = np.stack([X, X[:, ::-1], X.swapaxes(1, 2)], axis=-1).astype(np.float32)
    y = np.column_stack([y % 2, y > 4]).astype(int)
    usual = {"max_trials": 5, "max_epochs": 3, "ensemble_size": 1, **USUAL}
    return fit(NASClassifier(IMAGE, "random", **usual), X, y)


def cells():
    X, y = digits(120)
    darts = CellSpace("darts", cells=(1, 2), channels=(8,))
    usual = {"max_trials": 4, "max_epochs": 1, **USUAL}
    return {
        "nas-bench-201": fit(NASClassifier(CellSpace(), **usual), X, y),
        "darts": fit(NASClassifier(darts, **usual), X, y),
    }


# Cases: strategies


def surrogate(kind, **parameters):
    """A search with one surrogate, over networks and over a function."""
    X, y = sample(load_iris, 150)
    strategy = BayesianStrategy(kind, n_initial_points=3, n_draws=100, **parameters)
    model = NASClassifier(TABLE, strategy, max_trials=36, max_epochs=8, **USUAL)
    return {
        "fit": fit(model, X, y),
        "search": searched(height, HILLS, strategy=strategy, max_trials=12),
    }


def surrogate_of_graphs():
    X, y = digits(100)
    strategy = BayesianStrategy("wl", n_initial_points=3, n_draws=50)
    usual = {"max_trials": 12, "max_epochs": 1, "cv": 2, **USUAL}
    return fit(NASClassifier(CELL, strategy, **usual), X, y)


def gradient_table(*presets, **parameters):
    """Gradient searches with published methods, for classification and regression."""
    classes, values = sample(load_wine, 170), sample(load_diabetes, 200)
    found = {}
    for preset in presets:
        strategy = GradientStrategy(preset, **parameters)
        classifier = NASClassifier(TABLE, strategy, **SHORT)
        regressor = NASRegressor(strategy=strategy, **SHORT)
        found[f"{preset} classes"] = fit(classifier, *classes)
        found[f"{preset} values"] = fit(regressor, *values)
    return found


def gradient_parts():
    """Options that no preset uses, and the default strategy."""
    X, y = sample(load_wine, 170)
    strategies = {
        "usual": "gradient",
        "retrain": GradientStrategy(discretisation="retrain", n_epochs=4),
        "skip": GradientStrategy("darts", regulariser="auxiliary-skip", n_epochs=4),
        "sgd": GradientStrategy("darts", arch_optimizer="sgd", guards=False),
    }
    usual = {"max_trials": 6, "max_epochs": 20, **USUAL}
    return {
        name: fit(NASClassifier(strategy=strategy, **usual), X, y)
        for name, strategy in strategies.items()
    }


def gradient_splits():
    """Tables large enough for a bilevel split, with and without groups."""
    X, y = make_classification(1_000, 6, n_informative=4, random_state=0)
    groups = {"groups": np.arange(970) // 4}
    strategy = GradientStrategy("gdas", n_epochs=2)
    model = NASClassifier(TABLE, strategy, **SHORT)
    return {"rows": fit(model, X, y), "groups": fit(model, X, y, **groups)}


def gradient_images():
    X, y = digits(130)
    found = {"usual": fit(NASClassifier(strategy="gradient", **SHORT), X, y)}
    for preset in ("pc-darts", "p-darts", "darts-pt"):
        model = NASClassifier(CELL, GradientStrategy(preset, n_epochs=2), **SHORT)
        found[preset] = fit(model, X, y)
    return found


# Cases: resumed searches


def warm_start():
    X, y = sample(load_iris, 150)
    usual = {"max_trials": 10, "max_epochs": 20, "warm_start": True, **USUAL}
    strategies = ("bayesian", "local", GradientStrategy(n_epochs=2))
    models = [NASClassifier(TABLE, strategy, **usual) for strategy in strategies]
    return {str(j): fit(model, X, y, n_fits=2) for j, model in enumerate(models)}


_n_left = 0  # calls of `interrupted_accuracy` until it raises KeyboardInterrupt


def interrupted_accuracy(model, X, y):
    global _n_left
    _n_left -= 1
    if _n_left == 0:
        raise KeyboardInterrupt
    return accuracy_score(y, model.predict(X))


def checkpoint_interrupted():
    """A search that Ctrl-C in a scorer interrupts twice, then runs to its end."""
    global _n_left
    X, y = sample(load_wine, 170)
    usual = {"scoring": interrupted_accuracy, "max_epochs": 40, **USUAL}
    model = NASClassifier(TABLE, max_trials=20, **usual)
    _n_left, reasons = 0, []
    unbroken = fit(model, X, y)
    n_calls = -_n_left
    with tempfile.TemporaryDirectory() as folder:
        model.set_params(checkpoint=folder)
        for n_calls_before in (n_calls // 4, n_calls // 3):
            _n_left = n_calls_before
            with suppress(KeyboardInterrupt):  # raised if no trial has finished
                reasons.append(model.fit(X[:-30], y[:-30]).stop_reason_)
        _n_left = 0
        resumed = fit(model, X, y)
    assert "interrupted" in plain(reasons)
    return {"unbroken": unbroken, "resumed": resumed}


def checkpoint_killed():
    """Searches whose process is killed midway, then resumed to their end."""
    X, y = sample(load_wine, 170)
    usual = {"max_trials": 24, "max_epochs": 60, **USUAL}
    settings = {
        "population": {"strategy": "bayesian", "trainer": "population"},
        "skorch": {"strategy": "evolution", "trainer": "skorch"},
        "gradient": {"strategy": "gradient"},
    }
    found = {}
    for name, setting in settings.items():
        model = NASClassifier(TABLE, **usual).set_params(**setting)
        with tempfile.TemporaryDirectory() as folder:
            model.set_params(checkpoint=folder)
            kill_midway(model, X[:-30], y[:-30], Path(folder))
            found[name] = fit(model, X, y)
            found[f"{name} again"] = fit(model, X, y)  # all trials are read
    return found


def kill_midway(model, X, y, folder):
    """Fit in another process and kill it after `N_WRITES` writes."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=model.fit, args=(X, y))
    process.start()
    n_writes, before = 0, 0
    while n_writes < N_WRITES and process.is_alive():
        time.sleep(0.002)
        size = size_of(folder)
        n_writes, before = n_writes + (size != before), size
    process.kill()
    process.join()
    assert process.exitcode < 0, "it had ended before it was killed"


def size_of(folder):
    """Return the size of all files in a folder, in bytes."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # the file was renamed or removed
            total += path.stat().st_size
    return total


# Cases: custom code and workers


class OneLayer(Space):
    """A custom space: networks of one hidden layer."""

    @property
    def choices(self):
        return {
            "width": Integer(4, 32, log=True, default=8),
            "is_smooth": Categorical([False, True]),
        }

    def build(self, architecture, task):
        if not isinstance(
            architecture, Mapping
        ):  # older trees pass a sequence of one architecture
            (architecture,) = architecture
        inputs, width = TableInput(1, task), architecture["width"]
        hidden = Linear(1, inputs.n_features, width)
        output = Linear(1, width, task.n_outputs)
        activation = nn.SiLU() if architecture["is_smooth"] else nn.ReLU()
        return nn.Sequential(inputs, hidden, activation, output)


class Fragile(OneLayer):
    """A space with some architectures that can't be built."""

    def build(self, architecture, task):
        net = super().build(architecture, task)
        if net[1].weight.shape[-1] > 16:
            raise ValueError("too wide")
        return net


def own_space():
    usual = {"max_trials": 12, "max_epochs": 20, **USUAL}
    values = sample(load_diabetes, 200)
    return {
        "frame": fit(NASClassifier(OneLayer(), **usual), *frame(200)),
        "values": fit(NASRegressor(OneLayer(), "local", **usual), *values),
        "fragile": fit(NASRegressor(Fragile(), "random", **usual), *values),
    }


def workers():
    """The same searches in one process and in two workers."""
    force_workers()
    table, pictures = sample(load_wine, 170), digits(120)
    usual = {**USUAL, "max_trials": 8, "max_epochs": 10}
    found = {}
    for n_jobs in (1, 2):
        usual["n_jobs"] = n_jobs
        found[f"table {n_jobs}"] = fit(NASClassifier(TABLE, **usual), *table)
        found[f"own {n_jobs}"] = fit(NASClassifier(OneLayer(), **usual), *table)
        model = NASClassifier(IMAGE, "random", **usual).set_params(max_epochs=2)
        found[f"images {n_jobs}"] = fit(model, *pictures)
        has_workers = len(multiprocessing.active_children()) > 0
        assert has_workers == (n_jobs > 1), f"{n_jobs=}, {has_workers=}"
    get_reusable_executor().shutdown()
    return found


def force_workers():
    """Use workers even for short work, in whichever module the thresholds are."""
    modules = [m for name, m in sys.modules.items() if name.startswith("sknas.")]
    for name in THRESHOLDS:
        holding = [module for module in modules if hasattr(module, name)]
        assert holding, f"no module of sknas holds {name}: was it renamed?"
        for module in holding:
            setattr(module, name, 0.0)


# Cases: functions

HILLS = {
    "x": (-5.0, 5.0),
    "rate": (1e-4, 1.0, "log"),
    "n": (1, 20),
    "shape": ["round", "square", "flat"],
    "corner": Categorical([1, 2, 4, 8], ordered=True, when=("shape", ("square",))),
}


def height(a):
    score = -((a["x"] - 1.5) ** 2) - abs(math.log10(a["rate"]) + 2) - abs(a["n"] - 7)
    if a["shape"] == "flat" and a["n"] > 15:
        raise ValueError("too flat")
    return score + {"round": 0.0, "square": a.get("corner", 0), "flat": -3}[a["shape"]]


def functions():
    """Each strategy for functions, with a constraint."""
    strategies = {
        "bayesian": "bayesian",
        "evolution": EvolutionStrategy(population_size=5),
        "local": "local",
        "random": RandomStrategy(),
        "reinforce": "reinforce",
    }
    usual = {"constraints": lambda a: a["n"] % 3 > 0, "max_trials": 40}
    found = {}
    for name, strategy in strategies.items():
        found[name] = searched(height, HILLS, strategy=strategy, **usual)
        few = {"x": [1, 2, 3, 4], "y": (1, 3)}  # a space that the search exhausts
        found[f"{name} over"] = searched(
            lambda a: a["x"] * a["y"], few, strategy=strategy, max_trials=50
        )
    return found


def functions_noisy():
    found = {}
    for strategy in ("bayesian", "evolution", "random"):
        rng = np.random.default_rng(0)

        def noisy_height(a, rng=rng):
            return height(a) + rng.normal()

        found[strategy] = searched(
            noisy_height, HILLS, strategy=strategy, max_trials=25, noisy=True
        )
    return found


CASES = {
    "table-binary": table_binary,
    "table-multiclass": table_multiclass,
    "table-multilabel": table_multilabel,
    "table-regression": table_regression,
    "table-outputs": table_outputs,
    "table-dropped": table_dropped,
    "table-packed": table_packed,
    "scoring": scoring,
    "data-frame": data_frame,
    "weights-groups": weights_and_groups,
    "constraints": constraints,
    "one-network": one_network,
    "refitted": refitted,
    "images": images,
    "images-flat": images_flat,
    "images-channels": images_channels,
    "cells": cells,
    "surrogate-hamming": partial(surrogate, "hamming", batch="thompson"),
    "surrogate-gp": partial(surrogate, "gp", acquisition="gp_hedge"),
    "surrogate-rf": partial(surrogate, "rf", acquisition="lcb"),
    "surrogate-et": partial(surrogate, "et", acquisition="thompson"),
    "surrogate-gbrt": partial(surrogate, "gbrt", acquisition="pi"),
    "surrogate-deep": partial(surrogate, "deep-ensemble"),
    "surrogate-wl": surrogate_of_graphs,
    "gradient-first": partial(
        gradient_table, "darts", "darts-2nd", "snas", "gdas", "pc-darts", n_epochs=5
    ),
    "gradient-later": partial(
        gradient_table,
        *("p-darts", "fair-darts", "smooth-darts", "drnas", "beta-darts", "darts-pt"),
        n_epochs=5,
    ),
    "gradient-parts": gradient_parts,
    "gradient-splits": gradient_splits,
    "gradient-images": gradient_images,
    "warm-start": warm_start,
    "interrupted": checkpoint_interrupted,
    "killed": checkpoint_killed,
    "own-space": own_space,
    "functions": functions,
    "functions-noisy": functions_noisy,
    "workers": workers,  # last: it changes the thresholds of workers
}


# The child process of one tree


def run_cases(tree, folder, names):
    """Write the outcome of each case to a file, in a child process."""
    if not Path(sknas.__file__).resolve().is_relative_to(Path(tree).resolve()):
        raise SystemExit(f"sknas was imported from {sknas.__file__}, not from {tree}")
    for name in names:
        part = Path(folder) / f"{name}.part"
        part.write_bytes(pickle.dumps(outcome(CASES[name])))
        os.replace(part, part.with_suffix(".pickle"))


def outcome(case):
    """Run a case; return its values or error, the warnings of sknas, and seconds."""
    started, values, error = time.monotonic(), None, None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            values = case()
        except Exception:
            error = traceback.format_exc()
    warned = [
        f"{warning.category.__name__}: {warning.message}"
        for warning in caught
        if warning.category.__module__.startswith("sknas")
    ]
    seconds = time.monotonic() - started
    return {
        "values": {"cases": values, "warnings": warned},
        "error": error,
        "seconds": seconds,
    }


# The parent process


def start(tree, folder, names):
    """Start a process that runs cases with the sknas of a tree."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--run", str(tree), str(folder), *names]
    return subprocess.Popen(command, env=environment)


def wait_for(process, path):
    """Return the outcome in a file, once it is written."""
    while not path.exists():
        if process.poll() is not None and not path.exists():
            error = f"no outcome, the process ended with status {process.returncode}"
            return {"values": None, "error": error, "seconds": math.nan}
        time.sleep(0.05)
    return pickle.loads(path.read_bytes())


def differences(before, after, path=""):
    """Yield (path, distance, description) for each difference of two plain values."""
    if type(before) is not type(after):
        yield path, math.inf, f"{type(before).__name__}, {type(after).__name__}"
    elif isinstance(before, dict):
        for key in {**before, **after}:
            where = f"{path}.{key}" if path else str(key)
            if key not in before or key not in after:
                side = "before" if key in before else "after"
                yield where, math.inf, f"only {side}"
            else:
                yield from differences(before[key], after[key], where)
        if before.keys() == after.keys() and list(before) != list(after):
            yield path, math.inf, "the keys have another order"
    elif isinstance(before, list):
        if len(before) != len(after):
            yield path, math.inf, f"lengths {len(before)}, {len(after)}"
        for index, pair in enumerate(zip(before, after, strict=False)):
            yield from differences(*pair, f"{path}[{index}]")
    else:
        gap = distance(before, after)
        if gap:
            yield path, gap, describe(before, after)


def distance(before, after):
    """Return the largest difference of two values of one type, 0 if they are equal."""
    one, other = np.asarray(before), np.asarray(after)
    if one.dtype != other.dtype or one.shape != other.shape:
        return math.inf
    if one.dtype.kind not in "bif":  # such as strings and None
        return 0.0 if np.array_equal(one, other) else math.inf
    is_same = same(one, other)
    if is_same.all():
        return 0.0
    gap = np.abs(one.astype(float) - other.astype(float))[~is_same]
    return math.inf if np.isnan(gap).any() else float(gap.max())


def same(one, other):
    """Return a mask of the equal entries of two arrays."""
    return (one == other) | ((one != one) & (other != other))


def describe(before, after):
    """Describe two values; for arrays, count the entries that differ."""
    if isinstance(before, np.ndarray):
        if before.shape != after.shape or before.dtype != after.dtype:
            shapes = (before.dtype, before.shape, after.dtype, after.shape)
            return "{} {}, {} {}".format(*shapes)
        if before.ndim:
            n_unequal = np.sum(~same(before, after))
            return f"{n_unequal} of {before.size} entries"
    return f"{shortened(before)}, {shortened(after)}"


def shortened(value):
    text = str(value) if isinstance(value, np.ndarray) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def compare(name, sides, atol, ignored):
    """Print a row of the table; return True if the distance is within `atol`."""
    seconds = "".join(f"{side['seconds']:9.1f}" for side in sides)
    errors = [(w, s["error"]) for w, s in zip(("before", "after"), sides, strict=True)]
    errors = [(when, error) for when, error in errors if error]
    if errors:
        print(f"{name:20}{'error':>12}{seconds}")
        for when, error in errors:
            print(f"    {when}: {error.strip()}".replace("\n", "\n    "))
        return False
    found = [
        (path, gap, text)
        for path, gap, text in differences(*(side["values"] for side in sides))
        if path.rpartition(".")[2] not in ignored
    ]
    largest = max((gap for _, gap, _ in found), default=0.0)
    verdict = f"{largest:.3g}" if found else "equal"
    print(f"{name:20}{verdict:>12}{seconds}", flush=True)
    for path, gap, text in found[:N_SHOWN]:
        print(f"    {path}: {gap:.3g} ({text})")
    if len(found) > N_SHOWN:
        print(f"    and {len(found) - N_SHOWN} more")
    return largest <= atol


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("before", type=Path, help="a folder that holds sknas/")
    parser.add_argument("after", type=Path, help="another one")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--atol", type=float, default=0.0, help="distance allowed")
    parser.add_argument("--ignore", nargs="+", default=[], help="keys left out")
    given = parser.parse_args()
    trees = given.before.resolve(), given.after.resolve()
    names = [name for name in CASES if name in given.only]
    print(f"{'case':20}{'difference':>12}{'s before':>9}{'s after':>9}", flush=True)
    n_same = 0
    with tempfile.TemporaryDirectory() as root:
        folders = [Path(root) / side for side in ("before", "after")]
        for folder in folders:
            folder.mkdir()
        processes = [start(*both, names) for both in zip(trees, folders, strict=True)]
        try:
            for name in names:
                paths = [folder / f"{name}.pickle" for folder in folders]
                sides = list(map(wait_for, processes, paths))
                n_same += compare(name, sides, given.atol, given.ignore)
        finally:
            for process in processes:
                process.terminate()
                process.wait()
    print(f"{n_same} of {len(names)} cases are the same")
    return int(n_same < len(names))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        run_cases(sys.argv[2], sys.argv[3], sys.argv[4:])
    else:
        sys.exit(main())
