"""What successive halving and a surrogate save: scores against epochs.

    python examples/benchmarks/fidelity.py --data DIR

DIR holds ``phoneme.parquet`` and ``segment.parquet``; digits are scikit-learn's. The
arms are full trainings of random architectures, the same with successive halving, and
successive halving with a surrogate that starts early or late. No portfolio, networks of
width up to 256 without packing, one process. Epochs are counted over all folds, dropped
trials included.
"""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from _lines import Lines, parse_arguments
from sklearn.datasets import load_digits

from sknas import NASClassifier
from sknas.spaces import TableSpace
from sknas.strategies import BayesianStrategy, RandomStrategy
from sknas.trainers import PopulationTrainer

SETS = ("digits", "phoneme", "segment")
SEEDS = (0, 1, 2)
MAX_ROWS, N_FOLDS = 1_000, 2
# All arms take about as many epochs: successive halving saves half of them.
ARMS = {
    "full": (RandomStrategy(), PopulationTrainer(halving=False), 24),
    "halving": (RandomStrategy(), PopulationTrainer(), 48),
    "halving, early model": (
        BayesianStrategy(n_initial_points=3),
        PopulationTrainer(),
        48,
    ),
    "halving, late model": (
        BayesianStrategy(n_initial_points=27),
        PopulationTrainer(),
        48,
    ),
}


class WithoutPortfolio(TableSpace):
    """Start from the default network alone."""

    known_architectures = ({},)


def main():
    arguments = parse_arguments(__doc__, data={"type": Path, "required": True})
    lines = Lines(arguments.results / "fidelity.jsonl")
    for seed in SEEDS:
        for data in SETS:
            for arm in ARMS:
                key = {"arm": arm, "data": data, "seed": seed}
                lines.measure(key, lambda k=key: run(**k, folder=arguments.data))


def run(arm, data, seed, folder):
    """Run a search; return epochs and the best score so far after each batch."""
    X, y = rows(data, folder)
    strategy, trainer, n_trials = ARMS[arm]
    model = NASClassifier(
        WithoutPortfolio(packing=(1,), width=(32, 64, 128, 256)),
        strategy,
        trainer,
        max_trials=n_trials,
        cv=N_FOLDS,
        n_jobs=1,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X, y)
    trials = list(model.history_)
    n_rungs = max(len(trial.rung_scores) for trial in trials)
    epochs, best, curve = 0.0, -np.inf, []
    for number, trial in enumerate(trials, 1):
        if trial.score is not None:
            whole = len(trial.fold_scores) * trial.n_epochs / trial.stop
            share = (2 ** len(trial.rung_scores) - 1) / (2**n_rungs - 1)
            epochs += whole * share
            if len(trial.rung_scores) == n_rungs:
                best = max(best, trial.score)
        if number % trainer.n_proposals == 0 or number == len(trials):
            curve.append([round(epochs), round(best, 5)])
    return {"curve": curve, "seconds": round(model.search_time_, 1)}


def rows(data, folder):
    """Return X and y of a table, at most `MAX_ROWS` rows."""
    if data == "digits":
        return load_digits(return_X_y=True)
    frame = pd.read_parquet(folder / f"{data}.parquet")
    frame = frame.sample(min(len(frame), MAX_ROWS), random_state=0)
    return frame.drop(columns="target"), frame["target"]


if __name__ == "__main__":
    main()
