"""What a search gains over the default network, and over random search.

    python examples/benchmarks/search_pays.py

Tables that ship with scikit-learn: half of the rows train, at most 300, and all others
test. A search starts with a portfolio of architectures that did well on other tables;
random search starts with the default network alone. Both train 16 architectures. A fit
predicts with one network, trained on all rows, or with an ensemble of the networks of
the folds.
"""

import time
import warnings

from _lines import Lines, parse_arguments
from sklearn import datasets
from sklearn.model_selection import train_test_split

from sknas import NASClassifier, NASRegressor
from sknas.strategies import RandomStrategy

TABLES = ("iris", "wine", "breast_cancer", "digits", "diabetes")
SEEDS = (0, 1, 2)
MAX_ROWS = 300  # of a training set
SIZES = {"network": 1, "ensemble": None}


class PlainRandom(RandomStrategy):
    """Random search without the portfolio."""

    needs_initial_design = False


STRATEGIES = {"default": "random", "random": PlainRandom(), "search": "bayesian"}


def main():
    trials = {"type": int, "default": 16}
    tables = {"nargs": "+", "choices": TABLES, "default": TABLES}
    arguments = parse_arguments(__doc__, trials=trials, tables=tables)
    lines = Lines(arguments.results / "search_pays.jsonl")
    for seed in SEEDS:
        for table in arguments.tables:
            for model in STRATEGIES:
                n_trials = 1 if model == "default" else arguments.trials
                for size in SIZES:
                    key = {"table": table, "seed": seed, "model": model}
                    key |= {"predicts": size, "trials": n_trials}
                    lines.measure(key, lambda k=key: measure(**k))


def measure(table, seed, model, predicts, trials):
    """Return the score on the rows held out, accuracy or R2, and the seconds."""
    X, y = getattr(datasets, f"load_{table}")(return_X_y=True)
    is_regression = table == "diabetes"
    X_train, X_test, y_train, y_test = train_test_split(
        X,
        y,
        train_size=min(len(y) // 2, MAX_ROWS),
        random_state=seed,
        stratify=None if is_regression else y,
    )
    fitted = (NASRegressor if is_regression else NASClassifier)(
        strategy=STRATEGIES[model],
        max_trials=trials,
        ensemble_size=SIZES[predicts],
        random_state=seed,
    )
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted.fit(X_train, y_train)
    return {
        "score": round(fitted.score(X_test, y_test), 4),
        "best_score": round(fitted.best_score_, 4),
        "fit_s": round(time.perf_counter() - started, 1),
    }


if __name__ == "__main__":
    main()
