"""What a search gains over its default network, on rows that neither has seen.

    python examples/benchmarks/search_pays.py

Tables that ship with scikit-learn; a quarter of the rows is held out. Compared are the
default network, the best network of a search at default parameters, and its ensemble.
"""

import time
import warnings

import numpy as np
from _lines import Lines, parse_arguments
from sklearn import datasets
from sklearn.model_selection import train_test_split

from sknas import NASClassifier, NASRegressor

TABLES = ("iris", "wine", "breast_cancer", "diabetes", "digits")
SEEDS = (0, 1, 2)
SETTINGS = {
    "default": {"max_trials": 1, "ensemble_size": 1},
    "search": {"ensemble_size": 1},
    "ensemble": {},
}


def main():
    arguments = parse_arguments(__doc__)
    lines = Lines(arguments.results / "search_pays.jsonl")
    for table in TABLES:
        for seed in SEEDS:
            for name in SETTINGS:
                key = {"table": table, "seed": seed, "model": name}
                lines.measure(key, lambda key=key: measure(**key))
    show(lines.rows)


def measure(table, seed, model):
    """Return the held-out accuracy or R2, and seconds."""
    X, y = getattr(datasets, f"load_{table}")(return_X_y=True)
    is_regression = table == "diabetes"
    X_train, X_test, y_train, y_test = train_test_split(
        X, y, random_state=seed, stratify=None if is_regression else y
    )
    cls = NASRegressor if is_regression else NASClassifier
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = cls(random_state=seed, **SETTINGS[model]).fit(X_train, y_train)
    return {
        "score": round(fitted.score(X_test, y_test), 4),
        "best_score": round(fitted.best_score_, 4),
        "trials": fitted.n_trials_,
        "fit_s": round(time.perf_counter() - started, 1),
    }


def show(rows):
    """Print means over the seeds."""
    print(f"{'table':<16}" + "".join(f"{name:>12}" for name in SETTINGS))
    for table in TABLES:
        means = [
            np.mean(
                [r["score"] for r in rows if (r["table"], r["model"]) == (table, m)]
            )
            for m in SETTINGS
        ]
        print(f"{table:<16}" + "".join(f"{mean:>12.4f}" for mean in means))


if __name__ == "__main__":
    main()
