"""Batches, schedules and optimisers."""

import numpy as np
import pytest
import torch
from torch import nn

from sknas._optim import (
    OPTIMIZERS,
    Batches,
    Schedule,
    coslog,
    decayed_parameters,
    flat_cos,
    make_optimizer,
    n_cycles,
    valleys,
)


def batches(n_rows, n_batches, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.arange(n_rows)
    return Batches((x, 10 * x), n_batches, generator)


@pytest.mark.parametrize(("n_rows", "n_batches"), [(10, 3), (12, 4), (7, 7), (100, 9)])
def test_an_epoch_sees_each_row_once_in_a_new_order(n_rows, n_batches):
    loader = batches(n_rows, n_batches)
    epochs = []
    for _ in range(2):
        parts = list(loader)
        sizes = [len(x) for x, _ in parts]
        assert len(parts) == len(loader) == n_batches
        assert max(sizes) - min(sizes) <= 1
        for x, y in parts:
            assert torch.equal(10 * x, y)
        epochs.append(torch.cat([x for x, _ in parts]).tolist())
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(n_rows))
    assert epochs[0] != epochs[1]
    assert [x.tolist() for x, _ in batches(n_rows, n_batches)] == [
        x.tolist() for x, _ in batches(n_rows, n_batches)
    ]


def test_one_batch_is_never_shuffled_and_draws_nothing():
    loader = batches(9, 1)
    before = loader.generator.get_state()
    ((x, _),) = loader
    assert x.tolist() == list(range(9))
    assert torch.equal(loader.generator.get_state(), before)


def test_there_are_no_more_batches_than_rows():
    assert len(batches(3, 10)) == 3


def test_batches_leave_the_global_generator_alone():
    before = torch.random.get_rng_state()
    list(batches(20, 4))
    assert torch.equal(torch.random.get_rng_state(), before)


# -------------------------------------------------------------------------- schedules


@pytest.mark.parametrize(
    ("n_steps", "expected"),
    [(1, 1), (100, 1), (200, 2), (400, 3), (800, 4), (9_999, 4)],
)
def test_cycles(n_steps, expected):
    assert n_cycles(n_steps) == expected


@pytest.mark.parametrize("cycles", [1, 2, 3, 4])
def test_coslog_starts_ends_and_rests_at_zero(cycles):
    rests = [(2**c - 1) / (2**cycles - 1) for c in range(cycles + 1)]
    for progress in rests:
        assert coslog(progress, cycles) == pytest.approx(0, abs=1e-12)
    values = [coslog(p, cycles) for p in np.linspace(0, 1, 4_001)]
    assert 0.9999 < max(values) <= 1 and min(values) >= 0
    inner = [
        v
        for a, v, b in zip(values, values[1:], values[2:], strict=False)
        if v > max(a, b)
    ]
    assert len(inner) == cycles  # as many peaks


@pytest.mark.parametrize("n_steps", [1, 5, 60, 333, 1_500])
def test_valleys_are_where_the_rate_is_lowest(n_steps):
    cycles = n_cycles(n_steps)
    steps = valleys(n_steps, cycles)
    assert steps == sorted(set(steps)) and steps[-1] == n_steps and steps[0] >= 1
    assert len(steps) == cycles
    for step in steps:
        assert coslog(step / n_steps, cycles) < 0.01


def test_flat_cos():
    assert [flat_cos(p) for p in (0, 0.25, 0.49)] == [1, 1, 1]
    assert flat_cos(0.75) == pytest.approx(0.5)
    assert flat_cos(1) == pytest.approx(0)


# -------------------------------------------------------------------------- optimisers


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 2, 2))
        self.bias = nn.Parameter(torch.ones(1, 2))
        self.scale = nn.Parameter(torch.ones(1, 1, 2))
        self.vectors = nn.Parameter(torch.ones(1, 5, 2))


def scheduled(net, name, lr, weight_decay):
    optimizer = make_optimizer(net, name)
    return Schedule(optimizer, decayed_parameters(net), lr, weight_decay, cycles=1)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_only_matrices_named_weight_decay(name):
    net = Net()
    schedule = scheduled(net, name, 0.1, 0.5)
    schedule.prepare(0.3)
    lr = schedule.optimizer.param_groups[0]["lr"]
    assert 0 < lr <= 0.1
    expected = 1 - 0.5 * lr * flat_cos(0.3)
    assert torch.allclose(net.weight, torch.tensor(expected))
    for free in (net.bias, net.scale, net.vectors):
        assert torch.equal(free, torch.ones_like(free))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_parameter_is_trained_at_the_rate_of_the_step(name):
    net = Net()
    schedule = scheduled(net, name, 0.1, 0.0)
    schedule.prepare(0.7)
    rates = [group["lr"] for group in schedule.optimizer.param_groups]
    assert rates == pytest.approx([0.1 * coslog(0.7, 1)] * len(rates))
    sum((p**2).sum() for p in net.parameters()).backward()
    schedule.optimizer.step()
    assert all((p < 1).all() for p in net.parameters())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimisers_go_downhill(name):
    torch.manual_seed(0)
    x = nn.Parameter(torch.tensor([[[3.0, -2.0]]]))
    net = nn.Module()
    net.weight = x
    n_steps = 100
    lr = 0.3 if name in ("adamw", "rmsprop") else 0.1
    schedule = scheduled(net, name, lr, 0.0)
    for step in range(n_steps):
        schedule.prepare((step + 0.5) / n_steps)
        schedule.optimizer.zero_grad()
        (x**2).sum().backward()
        schedule.optimizer.step()
    assert (x**2).sum() < 0.1


def test_decay_never_turns_weights_round():
    net = Net()
    schedule = scheduled(net, "sgd", 10.0, 10.0)
    for progress in np.linspace(0, 1, 8):
        schedule.prepare(float(progress))
        assert (net.weight >= 0).all()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_step_is_longer_than_a_few_learning_rates(name):
    net = Net()
    schedule = scheduled(net, name, 0.1, 0.0)
    schedule.prepare(0.5)
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, 1e6)
    schedule.optimizer.step()
    assert all(((1 - p).abs() < 1).all() for p in net.parameters())
