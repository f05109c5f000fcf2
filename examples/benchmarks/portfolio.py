"""Learn the portfolio, with which a search starts, on the open tables.

    python examples/benchmarks/portfolio.py --data DIR

Trains a library of architectures on each table, one JSON line per trial; picks a small
complementary set greedily, and judges the rule by leaving each table out.
``portfolios.json`` holds the set of all tables, which is also written into the package,
and the sets without one table, which benchmarks on that table start from.
"""

import json
import warnings
from itertools import islice
from pathlib import Path

import numpy as np
from _library import LIBRARY, starting_from
from _lines import Lines, machine, parse_arguments
from _peers import read_table
from sklearn.model_selection import KFold, StratifiedKFold
from tables import SETS

import sknas
from sknas import NASClassifier, NASRegressor
from sknas.trainers import PopulationTrainer

SHIPPED = Path(sknas.__file__).parent / "spaces" / "_known.py"
LEARNT = "LEARNT: tuple[dict[str, Any], ...] = (\n"  # until the end of the file
FIRST = (1, 4, 8, 12)  # sizes of the portfolio that are judged
SIZE = 12  # architectures of the portfolio
FOLDS = 4
SMALL = 5_000  # rows below which two folds are used instead of one
CHUNK = 10  # architectures per fit
LONG = 36_000.0  # seconds, enough for full trainings


def main():
    arguments = parse_arguments(
        __doc__,
        data={"type": Path, "required": True},
        sets={"nargs": "*", "default": SETS},
    )
    lines = Lines(arguments.results / "portfolio.jsonl")
    for first in range(0, len(LIBRARY), CHUNK):
        for name in arguments.sets:
            path = arguments.data / f"{name}.parquet"
            measure(lines, path, range(first, min(first + CHUNK, len(LIBRARY))))
    errors, names = error_matrix(lines.rows)
    result = {"all": [LIBRARY[index] for index in pick(errors)]}
    held_out = []
    for row, name in enumerate(names):
        others = np.delete(errors, row, axis=0)
        indices = pick(others)
        result[name] = [LIBRARY[index] for index in indices]
        best = [round(float(errors[row, indices[:n]].min()), 3) for n in FIRST]
        cells = {f"first {n}": value for n, value in zip(FIRST, best, strict=True)}
        held_out.append({"table": name, **cells, "machine": machine()})
    path = arguments.results / "portfolio_held_out.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in held_out))
    path = arguments.results / "portfolios.json"
    path.write_text(json.dumps(result, indent=1))
    head = SHIPPED.read_text().partition(LEARNT)[0]
    learnt = "".join(f"    {a!r},\n" for a in result["all"])
    SHIPPED.write_text(f"{head}{LEARNT}{learnt})\n")


def measure(lines, path, indices):
    """Train some architectures of the library on a table."""
    done = {row["point"] for row in lines.rows if row["data"] == path.stem}
    if done.issuperset(indices):
        return
    table = read_table(path)
    cls = NASClassifier if table.is_classification else NASRegressor
    model = cls(
        search_space=starting_from([LIBRARY[index] for index in indices]),
        trainer=PopulationTrainer(halving=False),
        max_trials=len(indices),
        max_time=LONG,
        cv=list(splits(table)),
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(table.X_train, table.y_train)
    for index, trial in zip(indices, model.history_, strict=True):
        outcome = {
            "score": trial.score,
            "loss": trial.loss,
            "stop": trial.stop,
            "seconds": round(trial.seconds, 2),
            "rungs": trial.rung_scores,
            "is_r2": not table.is_classification,
        }
        lines.measure({"data": path.stem, "point": index}, lambda o=outcome: o)


def splits(table):
    """Return the first folds of a table."""
    cls = StratifiedKFold if table.is_classification else KFold
    folds = cls(FOLDS, shuffle=True, random_state=0)
    n_used = 2 if len(table.X_train) < SMALL else 1
    return islice(folds.split(table.X_train, table.y_train), n_used)


def error_matrix(rows):
    """Return errors (tables, architectures), relative to the lowest of each table."""
    names = list(dict.fromkeys(row["data"] for row in rows))
    errors = np.full((len(names), len(LIBRARY)), np.inf)
    for row in rows:
        if row["score"] is not None:
            error = 1 - row["score"]
            error = np.sqrt(error) if row["is_r2"] else error + 0.1 * row["loss"]
            errors[names.index(row["data"]), row["point"]] = error
    return errors / errors.min(axis=1, keepdims=True), names


def pick(errors):
    """Return the indices of a complementary set, chosen greedily, the best first."""
    chosen = []
    for _ in range(SIZE):
        values = []
        for index in set(range(errors.shape[1])) - set(chosen):
            own = np.sort(errors[:, [*chosen, index]], axis=1)
            # The best on each table, and others near it for the ensemble.
            worth = 0.6 * own[:, 0] + 0.4 * own[:, :4].mean(axis=1)
            values.append((float(np.log(worth).mean()), index))
        chosen.append(min(values)[1])
    return chosen


if __name__ == "__main__":
    main()
