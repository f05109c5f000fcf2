"""Gradient searches that are interrupted, or run out of time or memory."""

import time
from contextlib import closing

import numpy as np
import pytest
import torch
from planted import PlantedSpace, planted_problem
from sklearn.base import clone

from sknas import NASClassifier
from sknas._checkpoint import keys
from sknas._checkpoint.store import FileStore
from sknas._problem import Fold, ImageSpec, Problem, Rows, RunContext, Store, TaskSpec
from sknas.exceptions import SearchWarning
from sknas.spaces import CellSpace, TableSpace
from sknas.strategies import GradientStrategy
from sknas.strategies.gradient import supernet_trainer
from sknas.strategies.gradient.discretize import (
    DISCRETISATIONS,
    perturbation_scores,
    relative_scores,
)
from sknas.strategies.gradient.presets import PRESETS
from sknas.strategies.gradient.progress import TimeBudget
from sknas.strategies.gradient.split import BilevelSplit
from sknas.strategies.gradient.supernet_trainer import SupernetTrainer

N_STEPS = 9


def problem_of(task, x, y, **changes):
    n = len(x)
    rows = Rows(x, y, np.ones(n))
    fold = Fold(task, rows, Rows(x[:1], y[:1], np.ones(1)), np.arange(1), np.asarray)
    values = {"task": task, "folds": (fold,), "n_rows": n, "n_steps": N_STEPS}
    return Problem(**values | changes)


def table_problem(**changes):
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (700, 2)).astype(np.float32)
    edges = np.quantile(x, np.linspace(0, 1, 49), axis=0).T.astype(np.float32)
    task = TaskSpec("regression", 1, 700, n_numeric=2, edges=edges)
    return problem_of(task, x, np.abs(x).sum(axis=1, keepdims=True), **changes)


def image_problem(**changes):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(160, 1, 4, 4)).astype(np.float32)
    image = ImageSpec((1, 4, 4), np.zeros(1, np.float32), np.ones(1, np.float32))
    task = TaskSpec("multiclass", 2, 160, image=image)
    return problem_of(task, x, (x.mean(axis=(1, 2, 3)) > 0).astype(int), **changes)


SEARCHES = {
    "planted": (PlantedSpace(), planted_problem),
    "table": (TableSpace(depth=(0, 1), width=(4, 8), n_bins=(8,)), table_problem),
    "cells": (
        CellSpace(operation=("skip", "conv_1", "conv_3"), cells=(1,), channels=(4,)),
        image_problem,
    ),
    "darts": (
        CellSpace("darts", ("none", "skip", "dil_conv_3"), cells=(1,), channels=(4,)),
        image_problem,
    ),
}


class KilledError(Exception):
    """Raised in place of the end of a process."""


@pytest.fixture
def store(tmp_path):
    with closing(FileStore(tmp_path)) as store:
        yield store


class MortalStore(Store):
    """A store that raises KilledError at a given write."""

    def __init__(self, store, n_left):
        self.store, self.n_left = store, n_left
        self.n_put = 0

    def get(self, key):
        return self.store.get(key)

    def put(self, key, value):
        self.n_put += 1
        is_last = self.n_put == self.n_left
        # Later states replace the others.
        if not key.startswith(keys.SUPERNET_STATE) or is_last:
            self.store.put(key, value)
        if is_last:
            raise KilledError

    def drop(self, key):
        self.store.drop(key)


@pytest.fixture
def trainers(monkeypatch):
    """List of all trainers that were created; each takes a snapshot at every step."""
    created, original = [], SupernetTrainer.__init__

    def make(trainer, *args, **options):
        original(trainer, *args, **options)
        created.append(trainer)

    monkeypatch.setattr(SupernetTrainer, "__init__", make)
    monkeypatch.setattr(supernet_trainer, "SECONDS_APART", 0.0)
    return created


def proposed(strategy, space, problem, **run):
    """Run a search; return the strategy and the keys of its proposals."""
    strategy = clone(strategy)
    strategy.attach(RunContext(**run))
    strategy.setup(space, problem, np.random.default_rng(0))
    proposals = [p.architecture.key for n in (2, 9) for p in strategy.propose(n)]
    return strategy, proposals


def proposed_when_killed(folder, max_writes, strategy, space, problem):
    """Run a search whose process is killed repeatedly, after a few snapshots."""
    rng = np.random.default_rng(0)
    for _ in range(100):
        with closing(FileStore(folder)) as opened:
            store = MortalStore(opened, int(rng.integers(1, max_writes)))
            try:
                return proposed(strategy, space, problem, store=store)
            except KilledError:
                pass
    raise AssertionError("The search never ends.")


def assert_same(one, other):
    for name in ("entropy_", "sharpness_"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name, shares in one.trajectory_.items():
        np.testing.assert_array_equal(shares, other.trajectory_[name])
    assert one.derived_ == other.derived_
    assert one.is_undecided_ == other.is_undecided_


def check_resumed(folder, trainers, strategy, search):
    (folder / "whole").mkdir(), (folder / "killed").mkdir()
    space, make_problem = SEARCHES[search]
    problem = make_problem(n_steps=N_STEPS)
    space = space.for_task(problem.task)
    with closing(FileStore(folder / "whole")) as opened:
        store = MortalStore(opened, np.inf)
        whole, expected = proposed(strategy, space, problem, store=store)
    max_writes = store.n_put // 2
    killed, again = proposed_when_killed(
        folder / "killed", max_writes, strategy, space, problem
    )
    assert len(trainers) > 3  # the process was killed
    assert again == expected
    assert_same(killed, whole)
    first, last = trainers[0], trainers[-1]
    for name, value in first.net.state_dict().items():
        assert torch.equal(last.net.state_dict()[name], value), name
    assert torch.equal(first.alphas.vector, last.alphas.vector)
    assert first.budget.step == last.budget.step == N_STEPS
    for name in ("whole", "killed"):
        with closing(FileStore(folder / name)) as opened:
            assert opened.get(keys.supernet_state(32)) is None


def cases():
    """Yield all pairs of a preset and a search; one search of each preset is quick."""
    for j, preset in enumerate(PRESETS):
        for k, search in enumerate(SEARCHES):
            marks = [] if j % len(SEARCHES) == k else [pytest.mark.slow]
            yield pytest.param(preset, search, marks=marks)


@pytest.mark.parametrize(("preset", "search"), cases())
def test_a_killed_search_equals_an_unbroken_one(tmp_path, trainers, preset, search):
    strategy = GradientStrategy(preset, dropout=0.1, batch_size=32)
    check_resumed(tmp_path, trainers, strategy, search)


@pytest.mark.parametrize(
    "parameters",
    [
        {"preset": "drnas"},  # nodes also choose their inputs
        {"discretisation": "retrain"},
        {"arch_optimizer": "momentum", "regulariser": "auxiliary-skip"},
        {"arch_optimizer": "rmsprop", "guards": False},
    ],
    ids=lambda parameters: next(iter(parameters.values())),
)
def test_other_options_resume_to_the_same_search(tmp_path, trainers, parameters):
    search = "darts" if "preset" in parameters else "cells"
    strategy = GradientStrategy(**parameters, batch_size=32)
    check_resumed(tmp_path, trainers, strategy, search)


def test_a_finished_search_is_not_repeated(store, trainers):
    strategy = GradientStrategy("darts")
    space, problem = PlantedSpace(), planted_problem(n_steps=N_STEPS)
    first, expected = proposed(strategy, space, problem, store=store)
    again, others = proposed(strategy, space, problem, store=store)
    assert len(trainers) == 1 and others == expected
    assert_same(first, again)


# ------------------------------------------------------------------------ time


class Ticks:
    """A clock set by the test."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def slow_steps(monkeypatch):
    """A clock by which each step of the weights takes a second."""
    ticks, usual = Ticks(monkeypatch), SupernetTrainer._move_weights

    def slow(trainer, *args):
        ticks.now += 1.0
        return usual(trainer, *args)

    monkeypatch.setattr(SupernetTrainer, "_move_weights", slow)
    return ticks


def test_a_supernet_is_saved_every_ten_seconds(slow_steps, store):
    search = GradientStrategy("darts", batch_size=64), PlantedSpace()
    with pytest.raises(KilledError):
        proposed(*search, planted_problem(n_steps=100), store=MortalStore(store, 3))
    assert slow_steps.now == 30
    state = store.get(keys.supernet_state(64))
    assert state["budget"] == {"step": 30, "seconds_used": 30.0}


def test_time_before_an_interruption_is_counted(slow_steps, store, trainers):
    """Two runs together take a third of the time."""
    search = GradientStrategy("darts"), PlantedSpace(), planted_problem(n_steps=10_000)
    whole, expected = proposed(*search, deadline=60.0)
    assert trainers[0].budget.step == 20
    slow_steps.now = 0.0
    with pytest.raises(KilledError):
        proposed(*search, deadline=60.0, store=MortalStore(store, 8))
    found, others = proposed(*search, deadline=60.0, store=store)
    assert trainers[-1].budget.step == 20 and slow_steps.now == 20.0
    assert others == expected
    assert_same(found, whole)


# -------------------------------------------------------------- time, memory, numbers


@pytest.mark.parametrize(
    "parameters",
    [
        {"preset": "darts"},
        {"preset": "darts-2nd"},
        {"discretisation": "perturbation"},
        {"discretisation": "retrain"},
    ],
    ids=lambda parameters: next(iter(parameters.values())),
)
def test_slow_networks_meet_the_deadline(monkeypatch, parameters):
    """Each loss takes a second, and a step at most five of them."""
    ticks, usual = Ticks(monkeypatch), BilevelSplit.loss

    def slow(split, forward, rows):
        ticks.now += 1.0
        return usual(split, forward, rows)

    monkeypatch.setattr(BilevelSplit, "loss", slow)
    strategy = GradientStrategy(**parameters, batch_size=64)
    for deadline in (60.0, 67.0, 79.0, 91.0):
        ticks.now = 0.0
        problem = planted_problem(n=9_000, n_steps=100_000)
        proposed(strategy, PlantedSpace(), problem, deadline=deadline)
        assert 0.85 * deadline / 3 < ticks.now <= deadline / 3 + 5


def limit_memory(monkeypatch, max_rows, error):
    """Let batches of more than `max_rows` rows raise an error."""
    usual = BilevelSplit.loss

    def loss(split, forward, rows):
        if len(rows) > max_rows:
            raise error
        return usual(split, forward, rows)

    monkeypatch.setattr(BilevelSplit, "loss", loss)


ERRORS = (
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_batches_are_smaller_after_running_out_of_memory(monkeypatch, trainers, error):
    limit_memory(monkeypatch, 40, error)
    problem = planted_problem(n_steps=N_STEPS)
    strategy = GradientStrategy("darts", batch_size=64)
    strategy, _ = proposed(strategy, PlantedSpace(), problem)
    assert [t.settings.batch_size for t in trainers] == [64, 32]
    assert strategy.derived_ and len(strategy.entropy_) > 1


def test_a_training_with_smaller_batches_is_resumed(store, monkeypatch, trainers):
    limit_memory(monkeypatch, 40, MemoryError())
    search = GradientStrategy("darts", batch_size=64), PlantedSpace()
    problem = planted_problem(n_steps=N_STEPS)
    whole, expected = proposed(*search, problem)
    for n_writes in (4, 3):
        with pytest.raises(KilledError):
            proposed(*search, problem, store=MortalStore(store, n_writes))
    found, others = proposed(*search, problem, store=store)
    assert others == expected
    assert_same(found, whole)
    assert store.get(keys.supernet_state(32)) is None


def test_random_architectures_are_proposed_if_memory_does_not_suffice(monkeypatch):
    limit_memory(monkeypatch, 1, MemoryError())
    strategy = GradientStrategy("darts", batch_size=64)
    problem = planted_problem(n_steps=N_STEPS)
    message = (
        "Memory ran out in the training of the supernet, even with batches of 32 rows"
    )
    with pytest.warns(SearchWarning, match=message) as warned:
        strategy, found = proposed(strategy, PlantedSpace(), problem)
    assert len(warned) == 1 and len(set(found)) == 11
    assert strategy.derived_ == [] and strategy.trajectory_ == {}


def test_an_estimator_is_fitted_if_the_supernet_cannot_be_trained(monkeypatch, rng):
    limit_memory(monkeypatch, 1, MemoryError())
    X = rng.normal(size=(60, 2))
    space = TableSpace(depth=(0, 1), width=(4, 8), n_bins=(8,))
    parameters = {"max_trials": 3, "max_epochs": 2, "cv": 2, "random_state": 0}
    search = NASClassifier(space, "gradient", **parameters)
    with pytest.warns(SearchWarning, match="Memory ran out") as warned:
        search.fit(X, X[:, 0] > 0)
    assert search.n_trials_ == 3 and warned[0].filename == __file__


def test_other_errors_propagate(monkeypatch):
    limit_memory(monkeypatch, 1, ZeroDivisionError("by design"))
    with pytest.raises(ZeroDivisionError, match="by design"):
        proposed(GradientStrategy("darts"), PlantedSpace(), planted_problem(n_steps=1))


@pytest.mark.parametrize("discretisation", DISCRETISATIONS)
def test_a_loss_that_becomes_nan_ends_the_training_with_a_warning(
    monkeypatch, discretisation
):
    usual = SupernetTrainer._weight_loss

    def loss(trainer, rows, progress):
        factor = float("nan") if trainer.budget.step == 4 else 1.0
        return factor * usual(trainer, rows, progress)

    monkeypatch.setattr(SupernetTrainer, "_weight_loss", loss)
    strategy = GradientStrategy("darts", discretisation=discretisation)
    problem = planted_problem(n_steps=N_STEPS)
    with pytest.warns(SearchWarning, match="After 4 of 9 steps the loss") as warned:
        strategy, _ = proposed(strategy, PlantedSpace(), problem)
    assert len(warned) == 1 and strategy.derived_ and len(strategy.entropy_) == 5


@pytest.mark.parametrize(
    "losses, expected",
    [
        ([1.0, 1.5, np.nan, 0.5], [0.5, np.inf, -0.5]),
        ([np.nan, 1.0, 1.0, 1.0], None),  # no baseline
        ([1.0, 1.5, None], None),  # time ran out
    ],
)
def test_perturbation_scores_are_increases_of_the_loss(
    monkeypatch, trainers, losses, expected
):
    proposed(GradientStrategy("darts"), PlantedSpace(), planted_problem(n_steps=1))
    (trainer,) = trainers
    remaining = iter(losses)
    monkeypatch.setattr(BilevelSplit, "evaluate", lambda *args: next(remaining))
    weights = trainer.alphas.mean(trainer.alphas.vector.detach())
    found = perturbation_scores(
        trainer, weights, "f0", [1, 2, 3], TimeBudget(1, np.inf)
    )
    if expected is None:
        assert found is None
    else:
        assert found.tolist() == [-np.inf, *expected]
        assert np.isfinite(relative_scores(found)).all()
