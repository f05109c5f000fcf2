"""Peak memory of a short fit, beside the size of X.

    python examples/benchmarks/memory.py

One training of one epoch, in one process. Each fit runs in a process of its own, after
a small one that brings in all libraries.
"""

import json
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from _lines import Lines, parse_arguments

N_COLUMNS, SIDE = 10, 28
N_FIRST = 200  # rows of the small fit
SIZES = {
    "table": (1_000, 10_000, 100_000, 1_000_000),
    "images": (1_000, 4_000, 16_000, 60_000),
}


def main():
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(sys.argv[2], int(sys.argv[3]))))
        return
    lines = Lines(parse_arguments(__doc__).results / "memory.jsonl")
    for data, sizes in SIZES.items():
        for n_rows in sizes:
            key = {"data": data, "rows": n_rows}
            lines.measure(key, lambda d=data, n=n_rows: apart(d, n))


def apart(data, n_rows):
    """A measurement in a process of its own."""
    command = [sys.executable, __file__, "--one", data, str(n_rows)]
    output = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(output.stdout)


def measure(data, n_rows):
    fit(*generate(data, N_FIRST))
    X, y = generate(data, n_rows)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = in_status("VmRSS")
    started = time.monotonic()
    model = fit(X, y)
    peak = in_status("VmHWM") - before
    return {
        "folds": len(model.history_[0].fold_scores),
        "fit_s": round(time.monotonic() - started, 1),
        "x_mb": round(X.nbytes / 2**20, 1),
        "peak_mb": round(peak / 2**20),
        "peak_over_x": round(peak / X.nbytes, 1),
    }


def generate(data, n_rows):
    """Rows of ten floats, or images of 8 bits, whose first number tells the class."""
    rng = np.random.default_rng(0)
    if data == "table":
        X = rng.standard_normal((n_rows, N_COLUMNS))
        return X, X[:, 0] > 0
    X = rng.integers(0, 256, (n_rows, SIDE, SIDE), dtype=np.uint8)
    return X, X[:, 0, 0] > 127


def fit(X, y):
    from sknas import NASClassifier

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = NASClassifier(max_trials=1, max_epochs=1, n_jobs=1, random_state=0)
        return model.fit(X, y)


def in_status(name):
    """Bytes that the system says of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(x.split()[1]) for x in lines if x.startswith(name))


if __name__ == "__main__":
    main()
