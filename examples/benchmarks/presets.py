"""Presets of search by gradient: the architecture each derives, and its cost.

    python examples/benchmarks/presets.py --data DIR

DIR holds ``fashion_mnist.npz``, ``phoneme.parquet`` and ``segment.parquet``; digits are
scikit-learn's. A preset searches a small cell space, or the table space; the
architecture that it derives is trained alone, and scored on rows that neither saw.
`random` draws architectures that differ in the mixed choices alone, trains them for the
median total time of the presets, and takes the best validation score. Fashion-MNIST is
scaled down to 14 x 14 pixels. One process, one thread. Then the seconds and memory of
one step of each supernet, and of one network of the space.
"""

import resource
import time
import warnings
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from _lines import Lines, parse_arguments
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sknas import NASClassifier
from sknas._budget import Budget
from sknas._data.prepare import prepare
from sknas._history import Proposal
from sknas._problem import RunContext
from sknas._resolve import draw_seed, resolve
from sknas.nets._supernet_table import MIXED_CHOICES
from sknas.spaces import CellSpace, TableSpace
from sknas.strategies import GradientStrategy
from sknas.strategies.gradient.presets import PRESETS
from sknas.strategies.gradient.progress import TimeBudget
from sknas.strategies.gradient.split import BilevelSplit
from sknas.strategies.gradient.supernet_trainer import SupernetTrainer
from sknas.trainers import SkorchTrainer
from sknas.trainers._snapshot import evaluate

ALL = [*PRESETS, "random"]
SEEDS = (0, 1, 2)
N_TRAIN, N_TEST = 3_000, 3_000  # images of Fashion-MNIST
IMAGES, TABLES = ("digits", "fashion_mnist"), ("phoneme", "segment")
SETS = (*IMAGES, *TABLES)
N_STEPS = {"images": 300, "tables": 500}  # of the supernet, and of a training
SECONDS = 600.0  # more than any search takes
N_TIMED = 60  # steps that are timed
# Choices that are not mixed are fixed, so that `random` varies the same choices.
SPACE = {
    "cells": (3,),
    "channels": (8,),
    "stem_pool": (1,),
    "dropout": (0.0,),
    "flip": (False,),
    "shift": (1,),
    "cutout": (False,),
    "lr": (5e-3, 5e-3),
    "batch_size": (64,),
    "optimizer": ("adamw",),
    "weight_decay": (0.02,),
    "label_smoothing": (0.0,),
}


def main():
    arguments = parse_arguments(
        __doc__,
        data={"type": Path, "required": True},
        sets={"nargs": "+", "choices": SETS, "default": SETS},
        presets={"nargs": "+", "choices": ALL, "default": ALL},
        seeds={"nargs": "+", "type": int, "default": list(SEEDS)},
    )
    lines = Lines(arguments.results / "presets.jsonl")
    for seed in arguments.seeds:
        for data in arguments.sets:
            for preset in arguments.presets:
                key = {"preset": preset, "data": data, "seed": seed}
                lines.measure(key, lambda k=key: run(k, lines.rows, arguments.data))
    steps = Lines(arguments.results / "presets_step.jsonl")
    for preset in (*PRESETS, "one network"):
        steps.measure({"preset": preset}, lambda p=preset: apart(step, p))


def run(key, rows, folder):
    """Run one search, or train random architectures for as long."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    space, problem, test = make_problem(read(key["data"], folder), key)
    if key["preset"] != "random":
        return by_gradient(key, space, problem, test)
    taken = [
        row["search_s"] + row["train_s"]
        for row in rows
        if row["data"] == key["data"] and "search_s" in row
    ]
    return at_random(key, space, problem, test, float(np.median(taken or [60.0])))


def read(name, folder):
    """Return rows and labels to search on, and others to test on."""
    if name in TABLES:
        frame = pd.read_parquet(folder / f"{name}.parquet")
        X, y = frame.drop(columns="target"), frame["target"].astype(int).to_numpy()
        return train_test_split(X, y, test_size=0.25, random_state=0, stratify=y)
    if name == "digits":
        X, y = load_digits(return_X_y=True)
        X = X.reshape(-1, 8, 8).astype(np.uint8)
        return train_test_split(X, y, test_size=0.25, random_state=0, stratify=y)
    data = np.load(folder / "fashion_mnist.npz")
    X, y = data["X_train"], data["y_train"].astype(int)
    X = X.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)).round().astype(np.uint8)
    sizes = {"train_size": N_TRAIN, "test_size": N_TEST}
    return train_test_split(X, y, stratify=y, random_state=0, **sizes)


def make_problem(split, key):
    """Return the space, a problem with one hold-out of a fifth, and test rows."""
    X, X_test, y, y_test = split
    order = np.random.default_rng(0).permutation(len(X))
    cv = [(order[len(X) // 5 :], order[: len(X) // 5])]
    model = NASClassifier(
        TableSpace() if key["data"] in TABLES else CellSpace(**SPACE),
        cv=cv,
        max_time=SECONDS,
        random_state=key["seed"],
    )
    parts = resolve(model, X)
    data = prepare(model, parts.reader, X, y, None, None)
    n_steps = N_STEPS["tables" if key["data"] in TABLES else "images"]
    budget = Budget(None, n_steps, 1)
    scorer = model._make_scorer(parts, data)
    problem = model._make_problem(
        parts, data, scorer, budget, draw_seed(model.random_state)
    )
    space = parts.for_task(problem.task).space
    x = problem.folds[0].encoder.transform(parts.reader.read(X_test))
    x = torch.tensor(x, dtype=torch.float32)
    return space, problem, (x, np.searchsorted(np.unique(y), y_test))


def by_gradient(key, space, problem, test):
    strategy = GradientStrategy(key["preset"])
    started = time.perf_counter()
    strategy.setup(space, problem, np.random.default_rng(key["seed"]))
    (proposal,) = strategy.propose(1)
    searched = time.perf_counter()
    accuracy, _ = trained(proposal.architecture, space, problem, test)
    return {
        "search_s": round(searched - started, 1),
        "train_s": round(time.perf_counter() - searched, 1),
        "accuracy": accuracy,
        **skips_of(proposal.architecture),
        "entropy": round(float(strategy.entropy_[-1]), 3),
    }


def at_random(key, space, problem, test, seconds):
    default, rng = space.default_architecture(), np.random.default_rng(key["seed"])
    end = time.perf_counter() + seconds
    tried = []
    while time.perf_counter() < end:
        (drawn,) = space.sample(1, rng)
        decided = {
            name: value
            for name, value in drawn.items()
            if name in MIXED_CHOICES or name.startswith("edge")
        }
        architecture = space.fill({**default, **decided})
        tried.append(trained(architecture, space, problem, test))
    best = max(tried, key=lambda both: both[1])
    return {
        "accuracy": best[0],
        "mean_accuracy": round(float(np.mean([a for a, _ in tried])), 4),
        "n_trained": len(tried),
    }


def trained(architecture, space, problem, test):
    """Return the accuracy of a network on the test rows, and its validation score."""
    trainer = SkorchTrainer(halving=False)
    trainer.setup(space, problem, RunContext())
    proposal = Proposal(architecture, number=0, seed=problem.seed)
    (trial,) = trainer.train([proposal])
    (net,) = trainer.to_networks(trial)
    x, y = test
    predictions = problem.folds[0].restore(evaluate(net.module_, x))
    return round(float((predictions.argmax(axis=1) == y).mean()), 4), trial.score


def skips_of(architecture):
    """Return the share of skips among the edges of a cell; tables have none."""
    edges = [value for name, value in architecture.items() if name.startswith("edge")]
    return {"skips": round(edges.count("skip") / len(edges), 3)} if edges else {}


def apart(function, *arguments):
    """Call a function in a process of its own."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


class Steps(SupernetTrainer):
    """Train weights and alphas without eigenvalues of the Hessian."""

    _n_eigenvalues = 0


def step(preset):
    """Return seconds of a step on 64 images of 28 x 28, and growth of the process."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    X = rng.integers(0, 255, (2_000, 28, 28)).astype(np.uint8)
    y = rng.integers(0, 10, 2_000)
    key = {"data": "fashion_mnist", "seed": 0}
    space, problem, _ = make_problem((X, X, y, y), key)
    problem = replace(problem, n_steps=N_TIMED)
    fold = problem.folds[0]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if preset == "one network":
        trainer = SkorchTrainer(halving=False)
        trainer.setup(space, problem, RunContext())
        proposal = Proposal(space.default_architecture(), seed=0)
        started = time.perf_counter()
        trainer.train([proposal])
    else:
        # Train weights and alphas in all steps, and drop no option.
        settings = replace(PRESETS[preset], batch_size=64, warmup=0.0, stages=(1.0,))
        net = space.supernet(fold.task, settings.partial_channels)
        split = BilevelSplit(
            fold.train, fold.task, "cpu", rng, settings.is_single_level
        )
        training = Steps(
            net,
            settings,
            split,
            TimeBudget(N_TIMED, SECONDS),
            RunContext().store,
            is_adaptive=False,
            arch_lr=None,
        )
        started = time.perf_counter()
        training.run()
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "step_s": round(seconds / N_TIMED, 4),
        "peak_mb": round((after - before) / 1024),
    }


if __name__ == "__main__":
    main()
