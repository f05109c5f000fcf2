"""Searches by gradient that are broken off, short of time, or short of memory."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from planted import PlantedSpace, planted_problem
from sklearn.base import clone

from sknas import NASClassifier
from sknas._checkpoint.store import FileStore
from sknas._problem import Fold, ImageSpec, Problem, Rows, Store, TaskSpec
from sknas.exceptions import SearchWarning
from sknas.spaces import CellSpace, TableSpace
from sknas.strategies import GradientStrategy
from sknas.strategies.gradient import resume as _snapshots
from sknas.strategies.gradient.discretize import DISCRETISATIONS, _above_least, _harm
from sknas.strategies.gradient.presets import PRESETS
from sknas.strategies.gradient.resume import SNAPSHOT, Snapshots
from sknas.strategies.gradient.split import BilevelSplit
from sknas.strategies.gradient.supernet_trainer import SupernetTrainer
from sknas.strategies.gradient.time_budget import TimeBudget

N_STEPS = 9


def problem_of(task, x, y, **changes):
    n = len(x)
    rows = Rows(x, y, np.ones(n))
    fold = Fold(task, rows, Rows(x[:1], y[:1], np.ones(1)), np.arange(1), np.asarray)
    told = {"task": task, "folds": (fold,), "n_rows": n, "n_steps": N_STEPS}
    return Problem(**told | changes)


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


WORK = {
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
    """The end of a process."""


class Mortal(Store):
    """A journal in a folder; the process ends with some snapshot."""

    def __init__(self, folder, n_left):
        self.store, self.n_left = FileStore(folder), n_left
        self.n_put = 0

    def get(self, key):
        return self.store.get(key)

    def put(self, key, value):
        self.n_put += 1
        is_last = self.n_put == self.n_left
        if key != SNAPSHOT or is_last:  # the others would be replaced
            self.store.put(key, value)
        if is_last:
            raise KilledError

    def drop(self, key):
        self.store.drop(key)


@pytest.fixture
def trainings(monkeypatch):
    """All relaxed trainings, and a snapshot at each step of them."""
    begun, usual = [], SupernetTrainer.__init__

    def begin(training, *args, **told):
        usual(training, *args, **told)
        begun.append(training)

    monkeypatch.setattr(SupernetTrainer, "__init__", begin)
    monkeypatch.setattr(_snapshots, "SECONDS_APART", 0.0)
    return begun


def proposed(strategy, space, problem):
    """A strategy after a search, and what it proposed."""
    strategy = clone(strategy)
    strategy.setup(space, problem, np.random.default_rng(0))
    keys = [p.architecture.key for n in (2, 9) for p in strategy.propose(n)]
    return strategy, keys


def lived(folder, most, strategy, space, problem):
    """What comes of a search whose process dies after some snapshots each time."""
    rng = np.random.default_rng(0)
    for _ in range(100):
        store = Mortal(folder, int(rng.integers(1, most)))
        try:
            return proposed(strategy, space, replace(problem, store=store))
        except KilledError:
            pass
    raise AssertionError("it never ends")


def assert_same(one, other):
    for name in ("entropy_", "sharpness_"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name, shares in one.trajectory_.items():
        np.testing.assert_array_equal(shares, other.trajectory_[name])
    assert one.derived_ == other.derived_
    assert one.is_undecided_ == other.is_undecided_


def check_resumed(folder, trainings, strategy, work):
    (folder / "whole").mkdir(), (folder / "broken").mkdir()
    space, make_problem = WORK[work]
    problem = make_problem(n_steps=N_STEPS)
    space = space.for_task(problem.task)
    store = Mortal(folder / "whole", np.inf)
    whole, keys = proposed(strategy, space, replace(problem, store=store))
    most = store.n_put // 2
    broken, again = lived(folder / "broken", most, strategy, space, problem)
    assert len(trainings) > 3  # it was broken off
    assert again == keys
    assert_same(broken, whole)
    first, last = trainings[0], trainings[-1]
    for name, value in first.net.state_dict().items():
        assert torch.equal(last.net.state_dict()[name], value), name
    assert torch.equal(first.logits.flat, last.logits.flat)
    assert first.clock.step == last.clock.step == N_STEPS
    assert not list(folder.glob("*/relaxing*"))  # the snapshot is gone


@pytest.mark.parametrize("work", ["planted", "table", "cells"])
@pytest.mark.parametrize("preset", PRESETS)
def test_a_search_that_is_broken_off_ends_as_if_it_was_not(
    tmp_path, trainings, preset, work
):
    strategy = GradientStrategy(preset, dropout=0.1, batch_size=32)
    check_resumed(tmp_path, trainings, strategy, work)


@pytest.mark.parametrize(
    "parameters",
    [
        {"preset": "drnas"},  # the inputs of nodes are decided, too
        {"discretisation": "retrain"},
        {"arch_optimizer": "momentum", "regulariser": "auxiliary-skip"},
        {"arch_optimizer": "rmsprop", "guards": False},
    ],
    ids=lambda parameters: next(iter(parameters.values())),
)
def test_so_do_other_parts(tmp_path, trainings, parameters):
    work = "darts" if "preset" in parameters else "cells"
    strategy = GradientStrategy(**parameters, batch_size=32)
    check_resumed(tmp_path, trainings, strategy, work)


def test_what_was_found_is_not_searched_again(tmp_path, trainings):
    strategy = GradientStrategy("darts")
    problem = planted_problem(n_steps=N_STEPS, store=FileStore(tmp_path))
    first, keys = proposed(strategy, PlantedSpace(), problem)
    problem = replace(problem, store=FileStore(tmp_path))
    again, others = proposed(strategy, PlantedSpace(), problem)
    assert len(trainings) == 1 and others == keys
    assert_same(first, again)


# ------------------------------------------------------------------------ snapshots


class Ticks:
    """A clock that others set."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


class Holder:
    """Attributes to follow."""

    def __init__(self):
        self.tensor, self.word = torch.zeros(2), "new"


def test_snapshots_are_ten_seconds_apart_and_the_last_one_is_kept(
    tmp_path, monkeypatch
):
    clock, held = Ticks(monkeypatch), Holder()
    snapshots = Snapshots(FileStore(tmp_path), "cpu", 8)
    snapshots.follow("held", held, "tensor", "word")
    for second in range(35):
        clock.now = second
        held.tensor += 1
        snapshots.offer()
    assert len((tmp_path / "journal.jsonl").read_text().splitlines()) == 3
    assert len(list(tmp_path.glob("*.pt"))) == 1
    again = Holder()
    tensor = again.tensor
    snapshots = Snapshots(FileStore(tmp_path), "cpu", 8)
    snapshots.follow("held", again, "tensor", "word")
    assert again.tensor is tensor and tensor.tolist() == [31, 31]  # in its place
    assert snapshots.seconds == 30


def test_a_snapshot_of_other_batches_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(_snapshots, "SECONDS_APART", 0.0)
    held = Holder()
    held.word = "old"
    for batch_size, expected in ((8, "old"), (4, "new")):
        snapshots = Snapshots(FileStore(tmp_path), "cpu", 8)
        snapshots.follow("held", held, "word")
        snapshots.offer()
        again = Holder()
        Snapshots(FileStore(tmp_path), "cpu", batch_size).follow("held", again, "word")
        assert again.word == expected


def test_what_was_computed_is_answered_and_forgotten_things_are_not_kept(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(_snapshots, "SECONDS_APART", 0.0)
    held = Holder()
    snapshots = Snapshots(FileStore(tmp_path), "cpu", 8)
    snapshots.follow("held", held, "word")
    assert snapshots.once(lambda: 0.1) == 0.1
    held.word = "old"
    snapshots.forget("held")
    assert snapshots.once(lambda: None) is None
    again = Snapshots(FileStore(tmp_path), "cpu", 8)
    other = Holder()
    again.follow("held", other, "word")
    assert other.word == "new"
    assert [again.once(lambda: 7) for _ in range(3)] == [0.1, None, 7]


def test_chance_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(_snapshots, "SECONDS_APART", 0.0)
    torch.manual_seed(0)
    snapshots = Snapshots(FileStore(tmp_path), "cpu", 8)
    snapshots.follow("held", Holder(), "word")
    torch.rand(3)
    snapshots.offer()
    expected = torch.rand(3)
    Snapshots(FileStore(tmp_path), "cpu", 8).follow("held", Holder(), "word")
    assert torch.equal(torch.rand(3), expected)


def test_the_time_before_counts(tmp_path, monkeypatch, trainings):
    """A third of the time for what was found in two goes."""
    ticks = Ticks(monkeypatch)
    usual = SupernetTrainer._move_weights

    def slow(training, *args):
        ticks.now += 1.0
        return usual(training, *args)

    monkeypatch.setattr(SupernetTrainer, "_move_weights", slow)
    problem = planted_problem(n_steps=10_000, deadline=60.0)
    whole, keys = proposed(GradientStrategy("darts"), PlantedSpace(), problem)
    assert trainings[0].clock.step == 20
    ticks.now = 0.0
    mortal = replace(problem, store=Mortal(tmp_path, 8))
    with pytest.raises(KilledError):
        proposed(GradientStrategy("darts"), PlantedSpace(), mortal)
    again = replace(problem, store=FileStore(tmp_path))
    found, others = proposed(GradientStrategy("darts"), PlantedSpace(), again)
    assert trainings[-1].clock.step == 20 and ticks.now == 20.0
    assert others == keys
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
def test_time_is_kept_by_slow_networks(monkeypatch, parameters):
    """Each loss takes a second; the largest part of a step are five of them."""
    ticks, usual = Ticks(monkeypatch), BilevelSplit.loss

    def slow(halves, answer, rows):
        ticks.now += 1.0
        return usual(halves, answer, rows)

    monkeypatch.setattr(BilevelSplit, "loss", slow)
    strategy = GradientStrategy(**parameters, batch_size=64)
    for deadline in (60.0, 67.0, 79.0, 91.0):
        ticks.now = 0.0
        problem = planted_problem(n=9_000, n_steps=100_000, deadline=deadline)
        proposed(strategy, PlantedSpace(), problem)
        assert 0.85 * deadline / 3 < ticks.now <= deadline / 3 + 5


def short_of_memory(monkeypatch, most, error):
    """Trainings fail with more than so many rows in a batch."""
    usual = BilevelSplit.loss

    def loss(halves, answer, rows):
        if len(rows) > most:
            raise error
        return usual(halves, answer, rows)

    monkeypatch.setattr(BilevelSplit, "loss", loss)


ERRORS = (
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_batches_are_halved_where_memory_runs_out(monkeypatch, trainings, error):
    short_of_memory(monkeypatch, 40, error)
    problem = planted_problem(n_steps=N_STEPS)
    strategy = GradientStrategy("darts", batch_size=64)
    strategy, _ = proposed(strategy, PlantedSpace(), problem)
    assert [t.settings.batch_size for t in trainings] == [64, 32]
    assert strategy.derived_ and len(strategy.entropy_) > 1


def test_architectures_are_drawn_where_memory_does_not_suffice(monkeypatch):
    short_of_memory(monkeypatch, 1, MemoryError())
    strategy = GradientStrategy("darts", batch_size=64)
    problem = planted_problem(n_steps=N_STEPS)
    message = "Memory ran out in the relaxed network, even with batches of 32 rows"
    with pytest.warns(SearchWarning, match=message) as told:
        strategy, keys = proposed(strategy, PlantedSpace(), problem)
    assert len(told) == 1 and len(set(keys)) == 11
    assert strategy.derived_ == [] and strategy.trajectory_ == {}


def test_an_estimator_is_fitted_without_its_relaxed_network(monkeypatch, rng):
    short_of_memory(monkeypatch, 1, MemoryError())
    X = rng.normal(size=(60, 2))
    space = TableSpace(depth=(0, 1), width=(4, 8), n_bins=(8,))
    told = {"max_trials": 3, "max_epochs": 2, "cv": 2, "random_state": 0}
    search = NASClassifier(space, "gradient", **told)
    with pytest.warns(SearchWarning, match="Memory ran out") as warned:
        search.fit(X, X[:, 0] > 0)
    assert search.n_trials_ == 3 and warned[0].filename == __file__


def test_another_error_is_not_about_memory(monkeypatch):
    short_of_memory(monkeypatch, 1, ZeroDivisionError("by design"))
    with pytest.raises(ZeroDivisionError, match="by design"):
        proposed(GradientStrategy("darts"), PlantedSpace(), planted_problem(n_steps=1))


@pytest.mark.parametrize("discretisation", DISCRETISATIONS)
def test_a_loss_that_becomes_nan_ends_the_training_with_a_warning(
    monkeypatch, discretisation
):
    usual = SupernetTrainer._weight_loss

    def loss(training, rows, moment):
        factor = float("nan") if training.clock.step == 4 else 1.0
        return factor * usual(training, rows, moment)

    monkeypatch.setattr(SupernetTrainer, "_weight_loss", loss)
    strategy = GradientStrategy("darts", discretisation=discretisation)
    problem = planted_problem(n_steps=N_STEPS)
    with pytest.warns(SearchWarning, match="After 4 of 9 steps the loss") as told:
        strategy, _ = proposed(strategy, PlantedSpace(), problem)
    assert len(told) == 1 and strategy.derived_ and len(strategy.entropy_) == 5


@pytest.mark.parametrize(
    "losses, expected",
    [
        ([1.0, 1.5, np.nan, 0.5], [0.5, np.inf, -0.5]),
        ([np.nan, 1.0, 1.0, 1.0], None),  # there is nothing to compare
        ([1.0, 1.5, None], None),  # time is over
    ],
)
def test_what_the_removal_of_options_costs(monkeypatch, trainings, losses, expected):
    proposed(GradientStrategy("darts"), PlantedSpace(), planted_problem(n_steps=1))
    (training,) = trainings
    told = iter(losses)
    monkeypatch.setattr(BilevelSplit, "measured", lambda *args: next(told))
    weights = training.logits.expected(training.logits.flat.detach())
    found = _harm(training, weights, "f0", [1, 2, 3], TimeBudget(1, np.inf))
    if expected is None:
        assert found is None
    else:
        assert found.tolist() == [-np.inf, *expected]
        assert np.isfinite(_above_least(found)).all()
