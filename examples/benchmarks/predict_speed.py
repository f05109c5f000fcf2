"""Predictions for 10,000 numeric rows: one network against MLPClassifier.

    python examples/benchmarks/predict_speed.py

Both have the same hidden layers and predict in turn; the result is the median ratio.
"""

import time
import warnings

import numpy as np
from _lines import Lines, parse_arguments
from sklearn.neural_network import MLPClassifier

from sknas import NASClassifier
from sknas.spaces import TableSpace

LAYERS = ((1, 128), (2, 128), (2, 256), (3, 256))
REPEATS = 15


def main():
    arguments = parse_arguments(__doc__)
    lines = Lines(arguments.results / "predict_speed.jsonl")
    for depth, width in LAYERS:
        for embedding in ("none", "piecewise"):
            for dtype in ("float64", "float32"):
                key = {"depth": depth, "width": width}
                key |= {"embedding": embedding, "dtype": dtype}
                lines.measure(key, lambda key=key: measure(**key))


def measure(depth, width, embedding, dtype):
    """Return the milliseconds of both, and the median of their ratios."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((10_000, 20)).astype(dtype)
    y = X[:, 0] + X[:, 1] > 0
    space = TableSpace(
        depth=(depth, depth),
        width=(width,),
        numeric_embedding=(embedding,),
        activation=("relu",),
        normalisation=("none",),
    )
    ours = NASClassifier(
        search_space=space, max_trials=1, max_epochs=1, cv=2, ensemble_size=1
    ).fit(X, y)
    theirs = MLPClassifier((width,) * depth, max_iter=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.fit(X, y)
    times = np.array([[timed(m, X) for m in (ours, theirs)] for _ in range(REPEATS)])
    return {
        "sknas_ms": round(float(np.median(times[:, 0])), 1),
        "mlp_ms": round(float(np.median(times[:, 1])), 1),
        "ratio": round(float(np.median(times[:, 0] / times[:, 1])), 2),
    }


def timed(model, X):
    started = time.perf_counter()
    model.predict(X)
    return 1e3 * (time.perf_counter() - started)


if __name__ == "__main__":
    main()
