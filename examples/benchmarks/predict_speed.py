"""Milliseconds to predict 10,000 rows of 20 numbers, in one thread.

    python examples/benchmarks/predict_speed.py

A network with and without piecewise-linear codes, and the ensemble of a fit at default
parameters, beside MLPClassifier with the same hidden layers as the network, and
HistGradientBoostingClassifier. All predict in turn; each figure is a median.
"""

import time
import warnings

import numpy as np
from _lines import Lines, parse_arguments
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from sknas import NASClassifier
from sknas.spaces import TableSpace

N_TRAIN, N_ROWS, N_COLUMNS = 500, 10_000, 20
DEPTH, WIDTH = 2, 128
REPEATS = 15


def main():
    repeats = {"type": int, "default": REPEATS}
    arguments = parse_arguments(__doc__, repeats=repeats)
    lines = Lines(arguments.results / "predict_speed.jsonl")
    for dtype in ("float32", "float64"):
        for model in ("network", "network, piecewise", "ensemble"):
            key = {"model": model, "dtype": dtype}
            lines.measure(key, lambda k=key: measure(**k, repeats=arguments.repeats))


def measure(model, dtype, repeats):
    """Return the milliseconds of all models, and the number of our networks."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N_ROWS, N_COLUMNS)).astype(dtype)
    y = X[:, 0] + X[:, 1] > 0
    ours = NASClassifier(random_state=0)
    if model != "ensemble":
        embedding = "piecewise" if "piecewise" in model else "none"
        space = one_network(embedding)
        ours.set_params(search_space=space, max_trials=1, max_epochs=1, ensemble_size=1)
    mlp = MLPClassifier((WIDTH,) * DEPTH, max_iter=2, random_state=0)
    models = (ours, mlp, HistGradientBoostingClassifier(random_state=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for each in models:
            each.fit(X[:N_TRAIN], y[:N_TRAIN])
    with threadpool_limits(1):
        times = np.array([[timed(m, X) for m in models] for _ in range(repeats)])
    sknas_ms, mlp_ms, hgb_ms = np.median(times, axis=0).round(1).tolist()
    return {
        "networks": sum(len(member.networks) for member in ours.ensemble_.members),
        "sknas_ms": sknas_ms,
        "mlp_ms": mlp_ms,
        "hgb_ms": hgb_ms,
        "ratio": round(float(np.median(times[:, 0] / times[:, 1])), 2),
    }


def one_network(embedding):
    """Return a space of networks of the hidden layers that MLPClassifier has."""
    return TableSpace(
        depth=(DEPTH, DEPTH),
        width=(WIDTH,),
        numeric_embedding=(embedding,),
        activation=("relu",),
        normalisation=("none",),
    )


def timed(model, X):
    started = time.perf_counter()
    model.predict(X)
    return 1e3 * (time.perf_counter() - started)


if __name__ == "__main__":
    main()
