"""Batches of several folds, stacked."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from cohorts import make_problem, proposals, space_of

import sknas.trainers._batches as batches_module
from sknas.trainers._batches import FoldBatches, half_precision
from sknas.trainers._schedule import Schedule


def make_batches(problem, **choices):
    """Return the batches of a problem, and the features of its folds."""
    space = space_of(problem)
    architecture = proposals(problem, [choices], space)[0].architecture
    tasks = [fold.task for fold in problem.folds]
    layout = space.layout(architecture, tasks)
    features = [space.features(architecture, task, layout) for task in tasks]
    net = space.build_batch([architecture] * len(tasks), tasks[0], layout)
    schedule = Schedule.of(architecture, problem)
    return FoldBatches(problem, "cpu", features, net, schedule), features


def rows_in(table, batch):
    """Return the indices in a table of the rows of a batch."""
    batch, table = batch.float(), table.float()
    distance = (batch[:, None] - table).abs().sum(dim=2)
    assert distance.min(dim=1).values.max() < 1e-3
    return distance.argmin(dim=1).tolist()


@pytest.mark.parametrize("batch_size", [32, 64, 128])
def test_an_epoch_contains_each_row_once(batch_size):
    problem = make_problem(n=300, n_folds=3)
    batches, features = make_batches(problem, batch_size=batch_size)
    n_parts = batches.schedule.n_distinct_batches
    assert batches.size == -(-200 // n_parts)
    tables = [
        f(torch.tensor(o.train.x)) for f, o in zip(features, problem.folds, strict=True)
    ]
    seen = [[], [], []]
    n_steps = -(-400 // batches.size)
    for step in range(n_steps):
        x, y, weight = batches.at(step)
        assert x.shape[:2] == y.shape == weight.shape == (3, batches.size)
        for fold in range(3):
            rows = rows_in(tables[fold], x[fold])
            seen[fold] += rows
            np.testing.assert_array_equal(y[fold], problem.folds[fold].train.y[rows])
    for rows in seen:
        assert sorted(rows[:200]) == sorted(rows[200:400]) == list(range(200))
        assert rows[:200] != rows[200:400] != list(range(200))
    assert seen[0] != seen[1]


def test_the_rows_of_a_step_depend_only_on_the_step_the_fold_and_the_seed():
    problem = make_problem(n=300)
    first, _ = make_batches(problem, batch_size=64)
    other, _ = make_batches(problem, batch_size=64, depth=1, ntk_lr=0.3)
    forwards = [first.at(step)[0] for step in range(8)]
    for step in (7, 0, 5, 5, 3):  # in any order, as after a pause
        assert torch.equal(other.at(step)[0], forwards[step])
    again, _ = make_batches(replace(problem, seed=4), batch_size=64)
    assert not torch.equal(again.at(0)[0], forwards[0])
    assert not torch.equal(forwards[0], forwards[1])


def test_a_single_batch_keeps_the_order_of_the_rows():
    problem = make_problem(n=100)
    batches, features = make_batches(problem)
    x, y, weight = batches.at(0)
    assert batches.schedule.n_distinct_batches == 1 and x.shape[1] == 50
    for fold, (own, feature) in enumerate(zip(problem.folds, features, strict=True)):
        assert torch.equal(x[fold], feature(torch.tensor(own.train.x)))
        np.testing.assert_array_equal(y[fold], own.train.y)
    assert torch.equal(weight, torch.ones(2, 50))
    assert torch.equal(batches.at(9)[0], x)


def test_smaller_folds_are_padded_with_rows_of_weight_zero():
    weight = np.tile([1.0, 2.0, 3.0, 2.0], 25)
    splits = [(np.arange(60), np.arange(60, 100)), (np.arange(45), np.arange(60, 90))]
    problem = make_problem("regression", n=100, splits=splits, weight=weight)
    batches, _ = make_batches(problem)
    x, y, weight = batches.at(0)
    assert x.shape[:2] == (2, 60)
    assert (weight[1, 45:] == 0).all() and (weight[1, :45] > 0).all()
    # The weighted mean is that of the fold's own rows.
    for fold, own in enumerate(problem.folds):
        expected = np.average(own.train.y[:, 0], weights=own.train.weight)
        found = (y[fold, :, 0] * weight[fold]).mean()
        assert found == pytest.approx(expected, rel=1e-4)


def test_epochs_of_smaller_folds_have_fewer_steps():
    splits = [(np.arange(200), np.arange(200, 300)), (np.arange(90), np.arange(90, 99))]
    problem = make_problem(n=300, splits=splits)
    batches, features = make_batches(problem, batch_size=32)
    table = features[1](torch.tensor(problem.folds[1].train.x))
    steps = -(-270 // batches.size)
    parts = [batches.at(step)[0][1] for step in range(steps)]
    rows = rows_in(table, torch.cat(parts))
    for epoch in range(3):
        own = rows[90 * epoch : 90 * (epoch + 1)]
        assert sorted(own) == list(range(90))


def test_weights_have_a_mean_of_one():
    weight = np.linspace(1, 3, 100)
    batches, _ = make_batches(make_problem(n=100, weight=weight))
    assert batches.at(0)[2].mean(dim=1).tolist() == pytest.approx([1, 1], rel=1e-5)


@pytest.mark.parametrize("batch_size", [64, 256])
def test_features_computed_by_batch_are_the_same(batch_size, monkeypatch):
    n = 300 if batch_size == 64 else 100
    problem = make_problem(n=n)
    stored, _ = make_batches(problem, batch_size=batch_size)
    monkeypatch.setattr(batches_module, "MAX_STORED", 0)
    made, _ = make_batches(problem, batch_size=batch_size)
    assert stored.stored is not None and made.stored is None
    for step in (0, 3):
        for one, other in zip(stored.at(step), made.at(step), strict=True):
            torch.testing.assert_close(one, other)
    for fold in range(2):
        torch.testing.assert_close(stored.features_of(fold), made.features_of(fold))
    assert torch.equal(stored.valid_features(0, 50), made.valid_features(0, 50))


def test_features_computed_in_chunks_are_the_same(monkeypatch):
    problem = make_problem(n=100)
    whole, _ = make_batches(problem)
    monkeypatch.setattr(batches_module, "CHUNK", 7)
    parted, _ = make_batches(problem)
    assert torch.equal(parted.stored, whole.stored)


def test_half_precision_is_used_for_large_tables_if_supported(monkeypatch):
    problem = make_problem()
    assert half_precision(problem, "cpu") is None
    large = replace(problem, task=replace(problem.task, n_rows=4_000))
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False
    )
    assert half_precision(large, "cpu") is torch.bfloat16
    assert half_precision(problem, "cpu") is None
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    assert half_precision(large, "cpu") is None
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert half_precision(large, "cpu") is None
    assert half_precision(large, "cuda:0") is torch.bfloat16


@pytest.mark.parametrize(
    ("choices", "dtype"),
    [
        ({"numeric_embedding": "piecewise", "embedding_size": 0}, torch.bfloat16),
        ({"numeric_embedding": "periodic", "embedding_size": 0}, torch.float32),
        ({"numeric_embedding": "none", "embedding_size": 8}, torch.float32),
    ],
)
def test_inputs_of_embeddings_stay_single_precision(choices, dtype, monkeypatch):
    monkeypatch.setattr(batches_module, "half_precision", lambda *_: torch.bfloat16)
    batches, _ = make_batches(make_problem(n=100), **choices)
    assert batches.precision is torch.bfloat16
    assert batches.at(0)[0].dtype == dtype
    assert batches.features_of(0).dtype == torch.float32
    assert batches.valid_features(0, 9).dtype == torch.float32


def test_validation_rows_are_encoded_in_chunks():
    problem = make_problem(n=100, n_folds=3)  # folds of 34, 33 and 33 rows
    batches, features = make_batches(problem)
    whole = [
        f(torch.tensor(o.valid.x)) for f, o in zip(features, problem.folds, strict=True)
    ]
    first, last = batches.valid_features(0, 20), batches.valid_features(20, 40)
    assert first.shape[:2] == (3, 20) and last.shape[:2] == (3, 14)
    for g, table in enumerate(whole):
        n_left = len(table) - 20
        torch.testing.assert_close(torch.cat([first[g], last[g][:n_left]]), table)
        assert not last[g][n_left:].any()
