"""Overhead of a search: reading, encoding, proposing, selecting members.

    python examples/benchmarks/search_overhead.py --data DIR

DIR holds ``adult.parquet``. A search of 60 s on 10,000 rows runs in one process, so
that the seconds of all trainings can be summed; the rest is overhead.
"""

from pathlib import Path

import pandas as pd
from _lines import Lines, parse_arguments
from sklearn.model_selection import train_test_split

from sknas import NASClassifier

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
        key = {"rows": 10_000, "budget": arguments.budget, "seed": seed}
        lines.measure(key, lambda seed=seed: measure(X, y, arguments.budget, seed))


def measure(X, y, budget, seed):
    """Return the seconds of a fit, and of the trainings in it."""
    model = NASClassifier(max_time=budget, n_jobs=1, random_state=seed).fit(X, y)
    training = sum(sum(trial.fold_seconds) for trial in model.history_)
    overhead = model.search_time_ - training
    return {
        "fit_s": round(model.search_time_, 2),
        "training_s": round(training, 2),
        "trials": model.n_trials_,
        "overhead_share": round(overhead / model.search_time_, 4),
        "overhead_s_per_trial": round(overhead / model.n_trials_, 3),
    }


if __name__ == "__main__":
    main()
