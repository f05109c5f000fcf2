"""Which architectures to start a search with, learnt on the open tables.

    python examples/benchmarks/portfolio.py --data DIR

Trains a library of architectures on each table, one JSON line a trial; picks a small
complementary set greedily, and judges the rule by leaving each table out. Writes
``portfolios.json`` beside the lines, and into the package: what is picked on all
tables, which is what the package ships, and what is picked without each of them, which
is what a benchmark on that table must start from.
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
MODULE = """\"\"\"Where a search starts, after the default architecture.

Written by examples/benchmarks/portfolio.py, which learnt it on twelve open tables.
Learning rates are those of a classifier.
\"\"\"

from __future__ import annotations

from typing import Any

PORTFOLIO: tuple[dict[str, Any], ...] = (
{})
"""
FIRST = (1, 4, 8, 12)  # how many of the portfolio are looked at
SIZE = 12  # architectures that are picked
FOLDS = 4
SMALL = 5_000  # rows below which two folds are used, else one: ranks need no more
CHUNK = 10  # architectures of one fit
LONG = 36_000.0  # seconds: a bound for which full trainings are planned


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
    everything = pick(errors)
    result = {"all": [LIBRARY[place] for place in everything]}
    held_out = []
    for row, name in enumerate(names):
        others = np.delete(errors, row, axis=0)
        places = pick(others)
        result[name] = [LIBRARY[place] for place in places]
        best = [round(float(errors[row, places[:n]].min()), 3) for n in FIRST]
        told = {f"first {n}": value for n, value in zip(FIRST, best, strict=True)}
        held_out.append({"table": name, **told, "machine": machine()})
    path = arguments.results / "portfolio_held_out.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in held_out))
    path = arguments.results / "portfolios.json"
    path.write_text(json.dumps(result, indent=1))
    SHIPPED.write_text(MODULE.format("".join(f"    {p!r},\n" for p in result["all"])))


def measure(lines, path, places):
    """Train some architectures of the library on a table."""
    done = {row["point"] for row in lines.rows if row["data"] == path.stem}
    if done.issuperset(places):
        return
    table = read_table(path)
    cls = NASClassifier if table.is_classification else NASRegressor
    model = cls(
        search_space=starting_from([LIBRARY[place] for place in places]),
        trainer=PopulationTrainer(halving=False),
        max_trials=len(places),
        max_time=LONG,
        cv=list(splits(table)),
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(table.X_train, table.y_train)
    for place, trial in zip(places, model.history_, strict=True):
        told = {
            "score": trial.score,
            "loss": trial.loss,
            "stop": trial.stop,
            "seconds": round(trial.seconds, 2),
            "rungs": trial.rung_scores,
            "is_r2": not table.is_classification,
        }
        lines.measure({"data": path.stem, "point": place}, lambda told=told: told)


def splits(table):
    """The first folds of a table."""
    cls = StratifiedKFold if table.is_classification else KFold
    folds = cls(FOLDS, shuffle=True, random_state=0)
    n_used = 2 if len(table.X_train) < SMALL else 1
    return islice(folds.split(table.X_train, table.y_train), n_used)


def error_matrix(rows):
    """Errors (tables, architectures), beside the lowest of each table."""
    names = list(dict.fromkeys(row["data"] for row in rows))
    errors = np.full((len(names), len(LIBRARY)), np.inf)
    for row in rows:
        if row["score"] is not None:
            error = 1 - row["score"]
            error = np.sqrt(error) if row["is_r2"] else error + 0.1 * row["loss"]
            errors[names.index(row["data"]), row["point"]] = error
    return errors / errors.min(axis=1, keepdims=True), names


def pick(errors):
    """Places of a complementary set, greedily, the best single one first."""
    chosen = []
    for _ in range(SIZE):
        values = []
        for place in set(range(errors.shape[1])) - set(chosen):
            own = np.sort(errors[:, [*chosen, place]], axis=1)
            # The best of them on each table; an ensemble wants others near it.
            worth = 0.6 * own[:, 0] + 0.4 * own[:, :4].mean(axis=1)
            values.append((float(np.log(worth).mean()), place))
        chosen.append(min(values)[1])
    return chosen


if __name__ == "__main__":
    main()
