"""How far `fit` goes over `max_time`: 10, 30 and 120 s on 10,000 rows.

    python examples/benchmarks/time_bound.py --data DIR

DIR holds ``adult.parquet``.
"""

import time
import warnings
from pathlib import Path

import pandas as pd
from _lines import Lines, parse_arguments
from sklearn.model_selection import train_test_split

from sknas import NASClassifier

SECONDS = (10, 30, 120)
SEEDS = (0, 1)


def main():
    arguments = parse_arguments(__doc__, data={"type": Path, "required": True})
    data = pd.read_parquet(arguments.data / "adult.parquet")
    X, y = data.drop(columns="target"), data["target"]
    parts = train_test_split(X, y, train_size=10_000, random_state=0, stratify=y)
    lines = Lines(arguments.results / "time_bound.jsonl")
    for seconds in SECONDS:
        for seed in SEEDS:
            key = {"data": "adult", "rows": 10_000, "max_time": seconds, "seed": seed}
            lines.measure(key, lambda s=seconds, r=seed: measure(*parts, s, r))


def measure(X_train, X_test, y_train, y_test, seconds, seed):
    """Seconds of a fit, and the held-out accuracy it reached."""
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = NASClassifier(max_time=seconds, random_state=seed).fit(X_train, y_train)
    taken = time.perf_counter() - started
    return {
        "fit_s": round(taken, 2),
        "over_s": round(taken - seconds, 2),
        "trials": model.n_trials_,
        "members": len(model.ensemble_),
        "held_out_accuracy": round(model.score(X_test, y_test), 4),
        "best_score": round(model.best_score_, 4),
        "baselines": {k: round(v, 4) for k, v in model.baseline_scores_.items()},
    }


if __name__ == "__main__":
    main()
