"""Overhead of a search: encoding, proposing, scoring, bookkeeping.

    python examples/benchmarks/search_overhead.py --data DIR

DIR holds ``adult.parquet``. A search of 60 s on 10,000 rows runs in one process, so
that the seconds of all trainings can be summed; the rest is overhead.
"""

import time
from pathlib import Path

import pandas as pd
from _lines import Lines, parse_arguments
from sklearn.model_selection import train_test_split

import sknas._ensemble.refit
import sknas.trainers._skorch
from sknas import NASClassifier
from sknas.trainers import train_network

SEEDS = (0, 1, 2)


def main():
    arguments = parse_arguments(
        __doc__,
        data={"type": Path, "required": True},
        budget={"type": float, "default": 60.0},
    )
    data = pd.read_parquet(arguments.data / "adult.parquet")
    X, y = data.drop(columns="target"), data["target"]
    X, _, y, _ = train_test_split(X, y, train_size=10_000, random_state=0, stratify=y)
    lines = Lines(arguments.results / "search_overhead.jsonl")
    for seed in SEEDS:
        key = {
            "data": "adult",
            "rows": 10_000,
            "budget": arguments.budget,
            "seed": seed,
        }
        lines.measure(key, lambda seed=seed: measure(X, y, arguments.budget, seed))


def measure(X, y, budget, seed):
    """Return the seconds of a fit, and of the trainings in it."""
    inside = []

    def timed(*args, **kwargs):
        started = time.perf_counter()
        try:
            return train_network(*args, **kwargs)
        finally:
            inside.append(time.perf_counter() - started)

    sknas.trainers._skorch.train_network = timed
    sknas._ensemble.refit.train_network = timed
    started = time.perf_counter()
    model = NASClassifier(max_time=budget, n_jobs=1, random_state=seed).fit(X, y)
    seconds = time.perf_counter() - started
    overhead = seconds - sum(inside)
    return {
        "fit_s": round(seconds, 2),
        "training_s": round(sum(inside), 2),
        "trials": model.n_trials_,
        "overhead_share": round(overhead / seconds, 4),
        "overhead_s_per_trial": round(overhead / model.n_trials_, 3),
    }


if __name__ == "__main__":
    main()
