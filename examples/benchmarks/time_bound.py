"""Seconds by which `fit` exceeds `max_time`, on tables of three sizes and on images.

    python examples/benchmarks/time_bound.py

5 s twenty times, 30 s five times, 120 s twice, each with another seed. Tables are
generated with 20 columns; images are the digits of scikit-learn, scaled up by 3.
"""

import time
import warnings

import numpy as np
from _lines import Lines, parse_arguments
from sklearn.datasets import load_digits, make_classification

from sknas import NASClassifier

REPEATS = {5: 20, 30: 5, 120: 2}
ROWS = {"1,000 rows": 1_000, "10,000 rows": 10_000, "100,000 rows": 100_000}


def main():
    arguments = parse_arguments(
        __doc__,
        seconds={"nargs": "+", "type": int, "default": list(REPEATS)},
    )
    lines = Lines(arguments.results / "time_bound.jsonl")
    for seconds in arguments.seconds:
        for seed in range(REPEATS[seconds]):
            for data in (*ROWS, "images"):
                key = {"data": data, "max_time": seconds, "seed": seed}
                lines.measure(key, lambda k=key: measure(**k))


def read(data, seed):
    if data == "images":
        images, y = load_digits(return_X_y=True)
        images = images.reshape(-1, 8, 8).astype(np.uint8)
        return np.kron(images, np.ones((1, 3, 3), np.uint8)), y
    return make_classification(ROWS[data], 20, n_informative=8, random_state=seed)


def measure(data, max_time, seed):
    """Return the seconds of a fit, and by how much they exceed its limit."""
    X, y = read(data, seed)
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = NASClassifier(max_time=max_time, random_state=seed).fit(X, y)
    taken = time.perf_counter() - started
    return {
        "fit_s": round(taken, 2),
        "over_s": round(taken - max_time, 2),
        "trials": model.n_trials_,
        "members": len(model.ensemble_),
        "best_score": round(model.best_score_, 4),
    }


if __name__ == "__main__":
    main()
