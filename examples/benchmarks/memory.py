"""Peak memory of a short fit relative to X, and of a training against its estimate.

    python examples/benchmarks/memory.py

One training of one epoch, in one process. Each measurement runs in a process of its
own, after a small fit that imports all libraries.
"""

import json
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
from _lines import Lines, parse_arguments

SIDE = 28  # pixels of an image of one channel
N_WARM_UP = 200  # rows of the small fit
FITS = {  # columns or pixels of X: rows
    10: (1_000, 10_000, 100_000, 1_000_000),
    SIDE**2: (1_000, 4_000, 16_000, 60_000),
}
TRAININGS = (  # trainer, rows, columns, members, choices that differ from the default
    ("population", 10_000, 10, 1, {}),
    ("population", 10_000, 10, 4, {}),
    ("population", 100_000, 10, 1, {}),
    ("population", 4_000, 1_000, 1, {}),
    ("population", 10_000, 10, 1, {"width": 512, "depth": 4, "normalisation": "layer"}),
    ("population", 10_000, 10, 1, {"packing": 32, "width": 256}),
    ("skorch", 4_000, 1_000, 1, {}),
    ("skorch", 2_000, SIDE**2, 1, {}),
    ("skorch", 20_000, SIDE**2, 1, {}),
    ("skorch", 2_000, SIDE**2, 1, {"block": "residual", "channels": 64}),
    ("skorch", 2_000, SIDE**2, 1, {"block": "separable", "channels": 64}),
)
N_STEPS = 4


def main():
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(globals()[sys.argv[2]](*json.loads(sys.argv[3]))))
        return
    folder = parse_arguments(__doc__).results
    lines = Lines(folder / "memory.jsonl")
    for n_columns, sizes in FITS.items():
        for n_rows in sizes:
            key = {"data": kind_of(n_columns), "rows": n_rows, "columns": n_columns}
            lines.measure(key, lambda given=(n_rows, n_columns): apart(fit, *given))
    lines = Lines(folder / "memory_estimate.jsonl")
    for case in TRAININGS:
        trainer, n_rows, n_columns, n_members, choices = case
        key = {"trainer": trainer, "rows": n_rows, "columns": n_columns}
        changes = ", ".join(f"{name} {value}" for name, value in choices.items())
        key |= {"members": n_members, "choices": changes or "default"}
        lines.measure(key, lambda given=case: apart(train, *given))


def kind_of(n_columns):
    return "images" if n_columns == SIDE**2 else "table"


def apart(function, *arguments):
    """Measure in a process of its own."""
    command = [sys.executable, __file__, "--one", function.__name__]
    output = subprocess.run(
        [*command, json.dumps(arguments)], capture_output=True, text=True, check=True
    )
    return json.loads(output.stdout)


def fit(n_rows, n_columns):
    """Measure a fit of one trial."""
    from sknas import NASClassifier

    model = NASClassifier(max_trials=1, max_epochs=1, n_jobs=1, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(*generate(N_WARM_UP, n_columns))
        X, y = generate(n_rows, n_columns)
        started = time.monotonic()
        peak = growth(lambda: model.fit(X, y))
    return {
        "folds": len(model.history_[0].fold_scores),
        "fit_s": round(time.monotonic() - started, 1),
        "x_mb": megabytes(X.nbytes),
        "peak_mb": megabytes(peak),
        "peak_over_x": round(peak / X.nbytes, 1),
    }


def train(name, n_rows, n_columns, n_members, choices):
    """Measure a training of a group of one shape, and estimate its memory."""
    from sknas._problem import RunContext
    from sknas.spaces import ImageSpace, TableSpace
    from sknas.strategies import Proposal
    from sknas.trainers import TRAINERS
    from sknas.trainers._memory_need import bytes_needed

    space = ImageSpace() if kind_of(n_columns) == "images" else TableSpace()
    trainer = TRAINERS[name](halving=False)
    for n in (N_WARM_UP, n_rows):
        problem = make_problem(n, n_columns)
        default = space.for_task(problem.task).default_architecture()
        architecture = space.fill({**default, **choices})
        proposals = [Proposal(architecture, number=j, seed=j) for j in range(n_members)]
        trainer.setup(space, problem, RunContext())
        peak = growth(lambda p=proposals: trainer.train(p))
    is_batched = name == "population"
    needed = bytes_needed(
        space, architecture, problem, n_members, is_batched=is_batched
    )
    return {
        "folds": len(problem.folds),
        "peak_mb": megabytes(peak),
        "estimate_mb": megabytes(needed),
        "ratio": round(needed / peak, 2),
    }


def make_problem(n_rows, n_columns):
    """Return the problem of an estimator, with few steps."""
    from sknas import NASClassifier
    from sknas._data.prepare import prepare
    from sknas._resolve import draw_seed, resolve

    model = NASClassifier(n_jobs=1, random_state=0)
    X, y = generate(n_rows, n_columns)
    parts = resolve(model, X)
    data = prepare(model, parts.reader, X, y, None, None)
    budget = model._plan_budget(parts, data, None)
    scorer = model._make_scorer(parts, data)
    problem = model._make_problem(parts, data, scorer, budget, draw_seed(0))
    return replace(problem, n_steps=N_STEPS)


def generate(n_rows, n_columns):
    """Return rows of floats or images of 8 bits; the first number sets the class."""
    rng = np.random.default_rng(0)
    if kind_of(n_columns) == "table":
        X = rng.standard_normal((n_rows, n_columns))
        return X, X[:, 0] > 0
    X = rng.integers(0, 256, (n_rows, SIDE, SIDE), dtype=np.uint8)
    return X, X[:, 0, 0] > 127


def growth(work):
    """Return the bytes by which this process grows at most during some work."""
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = in_status("VmRSS")
    work()
    return in_status("VmHWM") - before


def in_status(name):
    """Return a field of the status of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(x.split()[1]) for x in lines if x.startswith(name))


def megabytes(n_bytes):
    return round(n_bytes / 2**20, 1)


if __name__ == "__main__":
    main()
