"""Seconds by which `fit` exceeds `max_time` with a scorer that is slow.

    python examples/benchmarks/slow_scorer.py

A scorer that sleeps 0, 0.1, 0.5 and 2 s at each call, at 5 s three times and at 30 s
once, about 6 minutes in all: 1,000 rows of 20 columns, and 1,000 digits of
scikit-learn, scaled up by 3. The bound is 1.1 x `max_time` + 2 s + one call.
"""

import time
import warnings

from _lines import Lines, parse_arguments
from sklearn.metrics import accuracy_score
from time_bound import read

from sknas import NASClassifier

REPEATS = {5: 3, 30: 1}
SLEEPS = (0.0, 0.1, 0.5, 2.0)
N_ROWS = 1_000


def main():
    arguments = parse_arguments(
        __doc__,
        seconds={"nargs": "+", "type": int, "default": list(REPEATS)},
    )
    lines = Lines(arguments.results / "slow_scorer.jsonl")
    for max_time in arguments.seconds:
        for seed in range(REPEATS[max_time]):
            for data in ("1,000 rows", "images"):
                for call_s in SLEEPS:
                    key = {"data": data, "max_time": max_time}
                    key |= {"call_s": call_s, "seed": seed}
                    lines.measure(key, lambda k=key: measure(**k))


def measure(data, max_time, call_s, seed):
    """Return the seconds of a fit, by how much they exceed its limit, and its calls."""
    X, y = (each[:N_ROWS] for each in read(data, seed))
    started_at = []

    def score(estimator, X, y):
        started_at.append(time.perf_counter())
        time.sleep(call_s)
        return accuracy_score(y, estimator.predict(X))

    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = NASClassifier(max_time=max_time, scoring=score, random_state=seed)
        model.fit(X, y)
    taken = time.perf_counter() - started
    has_score = model.best_score_ == model.best_score_
    return {
        "fit_s": round(taken, 2),
        "over_s": round(taken - max_time, 2),
        "calls": len(started_at),  # of this process; workers have calls of their own
        "trials": model.n_trials_,
        "members": len(model.ensemble_),
        "best_score": round(model.best_score_, 4) if has_score else None,
    }


if __name__ == "__main__":
    main()
