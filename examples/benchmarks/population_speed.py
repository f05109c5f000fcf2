"""Training speed of networks, side by side and one by one.

    python examples/benchmarks/population_speed.py

The population trainer and the skorch trainer train the same networks, with the same
batches, both on all cores. A profile of the population trainer shows its share of the
peak of matrix products, and how the rest of its time is spent.
"""

import time
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from _lines import Lines, parse_arguments
from sklearn.datasets import make_classification
from torch.profiler import ProfilerActivity, profile

from sknas import NASClassifier
from sknas._problem import RunContext
from sknas.spaces import TableSpace
from sknas.trainers import PopulationTrainer, SkorchTrainer, Trainer
from sknas.trainers._advance import advance
from sknas.trainers._group import NetworkGroup, TrialState
from sknas.trainers._loop import train_stacked
from sknas.trainers._schedule import Schedule

SEEDS = (0, 1, 2)
N_STEPS = 1_500
N_SKORCH = 4  # architectures trained one by one
PEAK = 2_048  # rows and columns of the matrices that the peak is measured with
CODED = {
    "depth": (2, 2),
    "width": (128,),
    "activation": ("silu",),
    "numeric_embedding": ("piecewise",),
    "n_bins": (48,),
    "batch_size": (256,),
}
CASES = {
    "64 x 2, batch 64": {
        "side_by_side": 16,
        "rows": 1_500,
        "columns": 19,
        "space": {
            "depth": (2, 2),
            "width": (64,),
            "activation": ("relu",),
            "numeric_embedding": ("none",),
            "batch_size": (64,),
        },
    },
    "128 x 2, piecewise-linear, batch 256": {
        "side_by_side": 4,
        "rows": 3_900,
        "columns": 8,
        "space": CODED,
    },
    "128 x 2, piecewise-linear, batch 256, half precision": {
        "side_by_side": 4,
        "rows": 10_000,
        "columns": 8,
        "space": CODED,
    },
}
FIXED = {
    "block": ("plain",),
    "normalisation": ("none",),
    "packing": (1,),
    "numeric_scale": ("robust",),
    "optimizer": ("adamw",),
    "recipe": ("fitted",),
    "dropout": (0.25,),
}


class Timed(Trainer):
    """Call another trainer twice with all proposals, and time the second call."""

    n_proposals = 64
    seconds, trained = 0.0, (None, (), None)

    def __init__(self, trainer):
        self.trainer = trainer

    def setup(self, space, problem, context):
        self.trainer.setup(space, problem, context)
        self.space_, self.problem_ = space, problem

    def train(self, proposals):
        self.trainer.train(proposals)  # starts the workers
        started = time.perf_counter()
        trials = self.trainer.train(proposals)
        seconds = time.perf_counter() - started
        if len(proposals) >= len(Timed.trained[1]):  # keep the largest cohort
            Timed.seconds = seconds
            Timed.trained = (self.space_, proposals, self.problem_)
        return trials


def main():
    arguments = parse_arguments(__doc__)
    profiles = Lines(arguments.results / "population_profile.jsonl")
    for case in CASES:
        profiles.measure({"case": case}, lambda c=case: shares(CASES[c]))
    lines = Lines(arguments.results / "population_speed.jsonl")
    for seed in SEEDS:
        for case in CASES:
            key = {"case": case, "seed": seed}
            lines.measure(key, lambda c=case, s=seed: compare(CASES[c], s))


def fit(case, trainer, seed, n_architectures, max_epochs=None):
    """Return steps of all networks, and architectures, per second."""
    X, y = make_classification(
        case["rows"], case["columns"], n_informative=6, random_state=0
    )
    space = TableSpace(**case["space"], **FIXED)
    model = NASClassifier(
        space,
        "random",
        Timed(trainer),
        max_trials=n_architectures,
        max_epochs=max_epochs,
        cv=5,
        ensemble_size=1,
        random_state=seed,
    )
    Timed.trained = (None, (), None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X.astype(np.float32), y)
    _, proposals, problem = Timed.trained
    schedule = Schedule.of(proposals[0].architecture, problem)
    n_steps = len(proposals) * len(problem.folds) * schedule.n_steps
    return n_steps / Timed.seconds, len(proposals) / Timed.seconds


def compare(case, seed):
    n = case["side_by_side"]
    population, ranked = fit(case, PopulationTrainer(halving=False), seed, n)
    single, _ = fit(case, SkorchTrainer(halving=False), seed, N_SKORCH)
    with_halving = fit(case, PopulationTrainer(), seed, n)[1]
    return {
        "population_steps_a_second": round(population),
        "skorch_steps_a_second": round(single),
        "ratio": round(population / single, 2),
        "architectures_a_minute": round(60 * ranked, 1),
        "architectures_a_minute_halved": round(60 * with_halving, 1),
    }


def shares(case):
    """Return the share of the peak, and of the time by kind of work, in one process."""
    fit(case, PopulationTrainer(), 0, 3, max_epochs=1)
    space, proposals, problem = Timed.trained
    problem = replace(problem, max_epochs=None, n_steps=N_STEPS)
    torch.set_num_threads(1)
    schedule = Schedule.of(proposals[0].architecture, problem)
    group = NetworkGroup([TrialState(proposal, schedule) for proposal in proposals])
    train_to = partial(advance, problem, RunContext(), train_stacked)
    (group,) = train_to(group, space, 0)
    first_step, started = group.step, time.perf_counter()
    (group,) = train_to(group, space, 1)
    seconds = time.perf_counter() - started
    n_networks = len(proposals) * len(problem.folds)
    steps = (group.step - first_step) * n_networks / seconds
    state = group.networks[0].parameters
    weights = sum(t[0].numel() for n, t in state.items() if n.endswith("weight"))
    flops = 6 * proposals[0].architecture["batch_size"] * weights * steps
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        train_to(group, space, 2)
    kinds = {"products": ("bmm", "addmm", "mm"), "optimiser": ("adam", "addcmul")}
    kinds |= {"gathering": ("index", "cat", "stack", "copy"), "random": ("uniform",)}
    spent = dict.fromkeys([*kinds, "other"], 0.0)
    for event in profiled.key_averages():
        names = (
            k
            for k, words in kinds.items()
            if any(w in event.key.lower() for w in words)
        )
        spent[next(names, "other")] += event.self_cpu_time_total
    total = sum(spent.values())
    return {
        "gflops": round(flops / 1e9, 1),
        "share_of_peak": round(flops / peak(problem), 3),
        "time_shares": {name: round(t / total, 3) for name, t in spent.items()},
    }


def peak(problem):
    """Return products per second of one core, in the precision of the training."""
    from sknas.trainers._batches import half_precision

    kind = half_precision(problem, "cpu") or torch.float32
    a = torch.randn(PEAK, PEAK).to(kind)
    a @ a
    started = time.perf_counter()
    for _ in range(5):
        a @ a
    return 5 * 2 * PEAK**3 / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
