"""Seconds of scikit-learn's estimator checks at default parameters.

python examples/benchmarks/estimator_checks.py
"""

import time
import warnings

from _lines import Lines, parse_arguments
from sklearn.utils.estimator_checks import check_estimator

from sknas import NASClassifier, NASRegressor


def main():
    arguments = parse_arguments(__doc__)
    lines = Lines(arguments.results / "estimator_checks.jsonl")
    for estimator in (NASClassifier(), NASRegressor()):
        key = {"estimator": type(estimator).__name__}
        lines.measure(key, lambda estimator=estimator: measure(estimator))


def measure(estimator):
    """Return the seconds and the counts of outcomes."""
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(estimator, on_fail=None, on_skip=None)
    statuses = [result["status"] for result in results]
    counts = {s: statuses.count(s) for s in ("passed", "failed", "skipped")}
    return {"seconds": round(time.perf_counter() - started, 1), **counts}


if __name__ == "__main__":
    main()
