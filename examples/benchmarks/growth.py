"""Seconds per trial and peak memory, against rows and columns.

    python examples/benchmarks/growth.py --data DIR

DIR holds ``skin_segmentation.parquet``. Each fit runs in a process of its own.
"""

import json
import resource
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from _lines import Lines, parse_arguments

ROWS = (1_000, 4_000, 16_000, 64_000, 245_057)
COLUMNS = (10, 100, 1_000)
TRIALS = 4


def main():
    if sys.argv[1] == "--one":
        print(json.dumps(measure(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
        return
    arguments = parse_arguments(__doc__, data={"type": Path, "required": True})
    lines = Lines(arguments.results / "growth.jsonl")
    for n_rows in ROWS:
        key = {"data": "skin_segmentation", "rows": n_rows, "columns": 3}
        lines.measure(key, lambda n=n_rows: apart(arguments.data, n, 3))
    for n_columns in COLUMNS:
        key = {"data": "generated", "rows": 4_000, "columns": n_columns}
        lines.measure(key, lambda c=n_columns: apart("generated", 4_000, c))


def apart(folder, n_rows, n_columns):
    """Measure in a process of its own."""
    command = [sys.executable, __file__, "--one", str(folder), str(n_rows)]
    output = subprocess.run(
        [*command, str(n_columns)], capture_output=True, text=True, check=True
    )
    return json.loads(output.stdout)


def measure(folder, n_rows, n_columns):
    from sknas import NASClassifier

    if folder == "generated":
        rng = np.random.default_rng(0)
        X = rng.standard_normal((n_rows, n_columns), dtype=np.float32)
        y = X[:, 0] * X[:, 1] > X[:, 2]
    else:
        data = pd.read_parquet(Path(folder) / "skin_segmentation.parquet")
        data = data.sample(n_rows, random_state=0)
        X, y = data.drop(columns="target").to_numpy(), data["target"].to_numpy()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = NASClassifier(max_trials=TRIALS, n_jobs=1, random_state=0).fit(X, y)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "fit_s": round(model.search_time_, 1),
        "trial_s": round(float(np.mean(model.cv_results_["seconds"])), 2),
        "folds": len(model.history_[0].fold_scores),
        "peak_mb": round((after - before) / 1024),
        "x_mb": round(X.nbytes / 2**20, 1),
        "best_score": round(model.best_score_, 4),
    }


if __name__ == "__main__":
    main()
