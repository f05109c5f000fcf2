"""Batches, schedules and optimisers."""

import math
from types import MappingProxyType

import numpy as np
import pytest
import torch
from torch import nn

from sknas._training.batches import Batches, count_batches
from sknas._training.optimizer import (
    DEFAULT_LR,
    MAX_NORM,
    OPTIMIZERS,
    RECIPES,
    SLOW_LR_MULTIPLIER,
    Optimizer,
    find_recipe,
    peak_rate,
)
from sknas._training.parameter_groups import GroupedModule, LRGroup
from sknas._training.schedules import coslog, distinct_cycle_ends, flat_cos, n_cycles
from sknas.exceptions import InvalidParameterError
from sknas.nets import INITS


def batches(n_rows, n_batches, seed=0, step=0):
    x = torch.arange(n_rows)
    return Batches((x, 10 * x), n_batches, seed, step)


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


def test_single_batch_is_not_shuffled():
    loader = batches(9, 1)
    for _ in range(2):
        ((x, _),) = loader
        assert x.tolist() == list(range(9))
    assert loader.step == 2


@pytest.mark.parametrize("step", [1, 3, 4, 6])
def test_batches_continue_from_a_step(step):
    whole = batches(10, 3)
    expected = [x.tolist() for _ in range(4) for x, _ in whole]
    left = batches(10, 3, step=step)
    got = [x.tolist() for _ in range(4) for x, _ in left][: 12 - step]
    assert got == expected[step:]
    assert [x.tolist() for x, _ in batches(10, 3, seed=1)] != expected[:3]


def test_there_are_no_more_batches_than_rows():
    assert len(batches(3, 10)) == 3


def test_batches_do_not_use_the_global_generator():
    before = torch.random.get_rng_state()
    list(batches(20, 4))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("n_rows", "total", "batch_size", "expected"),
    [
        (100, 100.0, 32, 4),
        (96, 96.0, 32, 3),
        (10, 10.0, 256, 1),
        (10, 1_000.0, 500, 1),  # nearly every batch draws each row
        (100, 200.0, 50, 3),  # a batch draws 1 - 0.75 ** 2 = 0.44 of the rows
    ],
)
def test_number_of_batches_of_weighted_rows(n_rows, total, batch_size, expected):
    assert count_batches(n_rows, total, batch_size) == expected


# -------------------------------------------------------------------------- schedules


@pytest.mark.parametrize(
    ("n_steps", "expected"),
    [(1, 1), (100, 1), (200, 2), (400, 3), (800, 4), (9_999, 4)],
)
def test_number_of_cycles(n_steps, expected):
    assert n_cycles(n_steps) == expected


@pytest.mark.parametrize("cycles", [1, 2, 3, 4])
def test_coslog_is_zero_at_both_ends_of_each_cycle(cycles):
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
    assert len(inner) == cycles  # one peak per cycle


@pytest.mark.parametrize("n_steps", [1, 5, 60, 333, 1_500])
def test_cycles_end_at_the_lowest_rate(n_steps):
    cycles = n_cycles(n_steps)
    steps = distinct_cycle_ends(n_steps, cycles)
    assert steps == sorted(set(steps)) and steps[-1] == n_steps and steps[0] >= 1
    assert len(steps) == cycles
    for step in steps:
        assert coslog(step / n_steps, cycles) < 0.01


def test_flat_cos_is_constant_and_then_a_cosine():
    assert [flat_cos(p) for p in (0, 0.25, 0.49)] == [1, 1, 1]
    assert flat_cos(0.75) == pytest.approx(0.5)
    assert flat_cos(1) == pytest.approx(0)


# ---------------------------------------------------------------------------- recipes


def test_recipes_have_their_documented_properties():
    assert {recipe.init for recipe in RECIPES.values()} == set(INITS)
    assert [name for name, r in RECIPES.items() if r.is_ntk] == ["fitted", "normal"]
    assert [name for name, r in RECIPES.items() if not r.is_scheduled] == ["constant"]
    assert [name for name, r in RECIPES.items() if r.is_clipped] == ["constant"]
    for name, recipe in RECIPES.items():
        assert find_recipe({"recipe": name, "optimizer": "adamw"}) == recipe
        assert find_recipe({"recipe": name}) == recipe
    assert find_recipe({}) == RECIPES["uniform"]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_only_sgd_and_momentum_recipes_are_clipped(name):
    recipe = find_recipe({"optimizer": name})
    assert recipe.is_clipped is (name in ("momentum", "sgd"))
    assert recipe.init == "uniform" and not recipe.is_ntk


def test_peak_rate_is_the_learning_rate_of_the_recipe():
    assert peak_rate({"ntk_lr": 0.2}) == 0.2
    assert peak_rate({"lr": 0.3}) == 0.3
    assert peak_rate({"sgd_lr": 1}) == 1.0
    assert peak_rate({"width": 8}) == DEFAULT_LR


# -------------------------------------------------------------------------- optimisers

PEAK = math.sqrt(2) - 1  # maximum of one cycle of coslog

ARCHITECTURES = {
    "uniform": {"recipe": "uniform", "lr": 0.02},
    "constant": {"recipe": "constant", "lr": 0.02},
    "fitted": {"recipe": "fitted", "ntk_lr": 0.02},
    "normal": {"recipe": "normal", "ntk_lr": 0.02},
    "rmsprop": {"optimizer": "rmsprop", "recipe": "uniform", "lr": 0.02},
    "rmsprop normal": {"optimizer": "rmsprop", "recipe": "normal", "ntk_lr": 0.02},
    "momentum": {"optimizer": "momentum", "sgd_lr": 0.02},
    "sgd": {"optimizer": "sgd", "sgd_lr": 0.02},
}


class Net(GroupedModule):
    """Parameters of K networks, in every parameter group."""

    lr_groups = MappingProxyType(
        {
            "weight": LRGroup.WEIGHT,
            "bias": LRGroup.SLOW,
            "scale": LRGroup.PLAIN,
            "vectors": LRGroup.PLAIN,
            "input_scale": LRGroup.INPUT_SCALE,
            "phase": LRGroup.SLOW,
        }
    )

    def __init__(self, k=1, seed=None):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(k, 4, 2))
        self.bias = nn.Parameter(torch.ones(k, 1, 2))
        self.scale = nn.Parameter(torch.ones(k, 1, 2))
        self.vectors = nn.Parameter(torch.ones(k, 5, 2))
        self.input_scale = nn.Parameter(torch.ones(k, 4, 1))
        self.phase = nn.Parameter(torch.ones(k, 1, 3, 2))
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
            for parameter in self.parameters():
                parameter.data.normal_(generator=generator)


def set_gradients(net, seed, scale=1.0):
    """Draw gradients; those of network k don't depend on the other networks."""
    for index, parameter in enumerate(net.parameters()):
        generator = torch.Generator().manual_seed(1_000 * seed + index)
        noise = torch.randn((8, *parameter.shape[1:]), generator=generator)
        parameter.grad = scale * noise[net.indices].to(parameter.dtype)


def train(net, architectures, n_steps=4, optimizer=None, first=0, scale=1.0):
    optimizer = optimizer or Optimizer(net, architectures)
    for step in range(first, first + n_steps):
        optimizer.prepare((step + 0.5) / 10, 2)
        optimizer.zero_grad()
        set_gradients(net, step, scale)
        optimizer.step()
    return optimizer


def with_indices(net, indices):
    net.indices = indices
    return net


def assert_equal_networks(net, others):
    """Assert that networks train together equal those train one by one."""
    for name, parameter in net.named_parameters():
        own = torch.cat([dict(other.named_parameters())[name] for other in others])
        torch.testing.assert_close(parameter, own, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_networks_trained_together_equal_those_trained_one_by_one(kind, scale):
    rate = next(n for n in ("lr", "ntk_lr", "sgd_lr") if n in ARCHITECTURES[kind])
    architectures = [
        ARCHITECTURES[kind] | {rate: lr, "weight_decay": decay, "scale_speed": speed}
        for lr, decay, speed in [(0.02, 0.3, 0.5), (0.3, 0.0, 6.0), (0.001, 2.0, 0.0)]
    ]
    net = with_indices(Net(3, seed=7), [0, 1, 2])
    singles = []
    for k, architecture in enumerate(architectures):
        alone = with_indices(Net(), [k])
        state = {name: tensor[[k]] for name, tensor in net.state_dict().items()}
        alone.load_state_dict(state)
        train(alone, [architecture], scale=scale)
        singles.append(alone)
    before = [p.detach().clone() for p in net.parameters()]
    train(net, architectures, scale=scale)
    assert_equal_networks(net, singles)
    assert not any(map(torch.equal, before, net.parameters()))


def torch_optimizer(parameters, kind, lr):
    """Return the optimizer of torch that is reproduced."""
    if kind in ("momentum", "sgd"):
        momentum = 0.9 * (kind == "momentum")
        nesterov = kind == "momentum"
        return torch.optim.SGD(parameters, lr=lr, momentum=momentum, nesterov=nesterov)
    if kind.startswith("rmsprop"):
        return torch.optim.RMSprop(parameters, lr=lr, alpha=0.95)
    return torch.optim.Adam(parameters, lr=lr, betas=(0.9, RECIPES[kind].beta2))


@pytest.mark.parametrize("kind", ["uniform", "constant", "rmsprop", "momentum", "sgd"])
def test_steps_agree_with_torch_at_the_scheduled_rate(kind):
    net, other = with_indices(Net(seed=1), [0]), with_indices(Net(seed=1), [0])
    architecture = ARCHITECTURES[kind] | {"scale_speed": 1.0}
    own = torch_optimizer(other.parameters(), kind, 1.0)
    optimizer = Optimizer(net, [architecture])
    for step in range(6):
        progress = (step + 0.5) / 6
        optimizer.prepare(progress, 2)
        set_gradients(net, step, 0.01)  # small gradients are not clipped
        optimizer.step()
        share = 1.0 if kind == "constant" else coslog(progress, 2)
        own.param_groups[0]["lr"] = 0.02 * share
        set_gradients(other, step, 0.01)
        own.step()
    assert_equal_networks(net, [other])


@pytest.mark.parametrize("kind", ["uniform", "fitted", "normal", "rmsprop normal"])
def test_rates_of_ntk_recipes(kind):
    # The first step of Adam has the length of its rate; RMSprop: 1 / sqrt(0.05).
    architecture = ARCHITECTURES[kind] | {"scale_speed": 6.0}
    net = Net()
    optimizer = Optimizer(net, [architecture])
    optimizer.prepare(PEAK, 1)
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, -3.0)
    optimizer.step()
    first = 1 / math.sqrt(0.05) if kind.startswith("rmsprop") else 1.0
    is_ntk = kind != "uniform"
    for name, parameter in net.named_parameters():
        factor = {"input_scale": 6.0}.get(name, 1.0)
        if name == "weight":
            factor = 1 / math.sqrt(4) if is_ntk else 1.0
        elif name in ("bias", "phase"):
            factor = SLOW_LR_MULTIPLIER if is_ntk else 1.0
        expected = torch.full_like(parameter, 1 + 0.02 * factor * first)
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-4, atol=0)


def test_rates_count_the_inputs_of_packed_heads():
    net = nn.Module()
    net.weight = nn.Parameter(torch.zeros(2, 7, 25, 3))
    rates = Optimizer(net, [{"recipe": "fitted", "ntk_lr": lr} for lr in (1, 2)]).rates
    assert rates[0].shape == (2, 1, 1, 1)
    torch.testing.assert_close(rates[0].flatten(), torch.tensor([0.2, 0.4]))


def test_scale_speed_of_zero_keeps_the_scales():
    net = with_indices(Net(2), [0, 1])
    speeds = [{"recipe": "fitted", "ntk_lr": 0.1, "scale_speed": s} for s in (0.0, 1.0)]
    train(net, speeds)
    assert (net.input_scale[0] == 1).all() and (net.input_scale[1] != 1).all()


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_only_weights_decay(kind):
    architecture = ARCHITECTURES[kind] | {"weight_decay": 0.5}
    net = Net()
    optimizer = Optimizer(net, [architecture])
    assert optimizer.is_decaying
    optimizer.prepare(0.6, 1)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    # Decoupled: decays by the peak rate without its NTK factor.
    strength = 1.0 if kind == "constant" else coslog(0.6, 1) * flat_cos(0.6)
    expected = torch.full_like(net.weight, 1 - 0.5 * 0.02 * strength)
    torch.testing.assert_close(net.weight.detach(), expected)
    for name, free in net.named_parameters():
        if name != "weight":
            assert torch.equal(free, torch.ones_like(free))


def test_decay_decreases_to_zero():
    net = Net()
    optimizer = Optimizer(net, [{"lr": 0.1, "weight_decay": 1.0}])
    losses = []
    for progress in (0.4, 0.6, 0.8, 0.95, 1.0):
        before = net.weight.detach().clone()
        optimizer.prepare(progress, 1)
        for parameter in net.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        losses.append((1 - net.weight / before).max().item())
    assert losses == sorted(losses, reverse=True) and losses[-1] < 1e-7


def test_decay_does_not_change_the_sign_of_weights():
    net = Net()
    optimizer = Optimizer(net, [{"optimizer": "sgd", "sgd_lr": 10, "weight_decay": 10}])
    for progress in np.linspace(0, 1, 8):
        optimizer.prepare(float(progress), 1)
        for parameter in net.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        assert (net.weight >= 0).all()


def test_optimizer_without_decay_is_not_decaying():
    assert not Optimizer(Net(), [{"lr": 0.1}]).is_decaying
    net = with_indices(Net(2), [0, 1])
    optimizer = Optimizer(net, [{"lr": 0.1}, {"lr": 0.1, "weight_decay": 0.1}])
    assert optimizer.is_decaying
    optimizer.prepare(0.5, 1)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert (net.weight[0] == 1).all() and (net.weight[1] < 1).all()


def test_gradients_are_clipped_per_network():
    net = with_indices(Net(3), [0, 1, 2])
    optimizer = Optimizer(net, [ARCHITECTURES["sgd"] | {"sgd_lr": 1.0}] * 3)
    optimizer.prepare(PEAK, 1)
    set_gradients(net, 0)
    for parameter in net.parameters():
        parameter.grad *= torch.tensor([1e-3, 1.0, 1e6]).view(
            -1, *[1] * (parameter.ndim - 1)
        )
    raw = torch.cat([p.grad.flatten(1) for p in net.parameters()], dim=1)
    optimizer.step()
    moved = torch.cat([(1 - p).flatten(1) for p in net.parameters()], dim=1).detach()
    assert raw[0].norm() < MAX_NORM < raw[1].norm()
    torch.testing.assert_close(moved[0], raw[0], rtol=0.01, atol=1e-6)
    for k in (1, 2):
        expected = raw[k] * MAX_NORM / raw[k].norm()
        torch.testing.assert_close(moved[k], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["constant", "sgd", "fitted"])
def test_nan_gradient_does_not_change_other_networks(kind):
    net, other = with_indices(Net(2), [0, 1]), with_indices(Net(2), [0, 1])
    for one in (net, other):
        optimizer = Optimizer(one, [ARCHITECTURES[kind]] * 2)
        optimizer.prepare(0.5, 1)
        set_gradients(one, 0)
        if one is net:
            one.weight.grad[1, 0, 0] = torch.nan
        optimizer.step()
    for parameter, expected in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(parameter[0], expected[0])


def test_constant_recipes_have_a_constant_rate():
    optimizer = Optimizer(Net(), [ARCHITECTURES["constant"]])
    for progress in (0.0, 0.3, 1.0):
        optimizer.prepare(progress, 3)
        assert optimizer.lr_multiplier == optimizer.regularisation_multiplier == 1.0
    optimizer = Optimizer(Net(), [ARCHITECTURES["uniform"]])
    for progress in (0.0, 0.3, 1.0):
        optimizer.prepare(progress, 3)
        assert optimizer.lr_multiplier == coslog(progress, 3)
        assert optimizer.regularisation_multiplier == flat_cos(progress)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_training_continues_from_a_state_dict(kind):
    architectures = [ARCHITECTURES[kind] | {"weight_decay": 0.1}] * 2
    whole = with_indices(Net(2, seed=2), [0, 1])
    train(whole, architectures, 6)
    part = with_indices(Net(2, seed=2), [0, 1])
    first = train(part, architectures, 3)
    states = first.state_dict()
    assert len(states) == len(list(part.parameters()))
    resumed = with_indices(Net(2), [0, 1])
    resumed.load_state_dict(part.state_dict())
    second = Optimizer(resumed, architectures)
    second.load_state_dict(states)
    train(resumed, architectures, 3, optimizer=second, first=3)
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_single_network_continues_from_its_part_of_the_state(kind):
    architectures = [ARCHITECTURES[kind]] * 3
    net = with_indices(Net(3, seed=2), [0, 1, 2])
    optimizer = train(net, architectures, 3)
    alone = with_indices(Net(), [1])
    alone.load_state_dict({name: t[[1]] for name, t in net.state_dict().items()})
    second = Optimizer(alone, architectures[:1])
    second.load_state_dict(
        [
            {name: t[[1]].clone() if t.ndim else t.clone() for name, t in m.items()}
            for m in optimizer.state_dict()
        ]
    )
    train(net, architectures, 3, optimizer=optimizer, first=3)
    train(alone, architectures[:1], 3, optimizer=second, first=3)
    for one, other in zip(net.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(one[[1]], other, rtol=1e-5, atol=1e-6)


class AnyNet(nn.Module):
    """A custom module: parameters of any shape, one of them not train."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))
        self.layer = nn.Linear(3, 5)
        self.norm = nn.LayerNorm(5)
        self.grid = nn.Parameter(torch.ones(2, 3, 4, 5))
        self.fixed = nn.Parameter(torch.ones(3), requires_grad=False)
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, x):
        bent = torch.tanh(self.norm(self.layer(x)) * self.factor)
        return bent.square().sum() + self.grid.square().mean() + self.fixed.sum()


@pytest.mark.parametrize("kind", ["none", *ARCHITECTURES])
def test_one_module_may_have_parameters_of_any_shape(kind):
    torch.manual_seed(0)
    net, x = AnyNet(), torch.randn(6, 3)
    architecture = ARCHITECTURES.get(kind, {}) | {"weight_decay": 0.1}
    optimizer = Optimizer(net, [architecture])
    before = {name: t.clone() for name, t in net.state_dict().items()}
    loss = net(x).item()
    for _ in range(5):
        optimizer.prepare(0.5, 1)
        optimizer.zero_grad()
        net(x).backward()
        optimizer.step()
    assert net(x).item() < loss
    for name, tensor in net.state_dict().items():
        is_still = name in ("fixed", "unused")
        assert torch.equal(tensor, before[name]) is is_still, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_parameters_keep_their_precision(dtype):
    net = with_indices(Net(2).to(dtype), [0, 1])
    train(net, [ARCHITECTURES["fitted"] | {"weight_decay": 0.1}] * 2)
    assert all(p.dtype == dtype for p in net.parameters())


def test_zero_grad_removes_the_gradients():
    net = with_indices(Net(), [0])
    optimizer = Optimizer(net, [{}])
    set_gradients(net, 0)
    optimizer.zero_grad()
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_parameter_is_trained_at_the_rate_of_the_step(name):
    net = Net()
    optimizer = Optimizer(net, [{"optimizer": name, "lr": 0.1}])
    optimizer.prepare(0.7, 1)
    assert optimizer.lr_multiplier == pytest.approx(coslog(0.7, 1))
    for rate in optimizer.rates:
        torch.testing.assert_close(rate.flatten(), torch.tensor([0.1]))
    sum((p**2).sum() for p in net.parameters()).backward()
    optimizer.step()
    assert all((p < 1).all() for p in net.parameters())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_reduce_the_loss(name):
    torch.manual_seed(0)
    x = nn.Parameter(torch.tensor([[[3.0, -2.0]]]))
    net = nn.Module()
    net.weight = x
    n_steps = 100
    lr = 0.3 if name in ("adamw", "rmsprop") else 0.1
    optimizer = Optimizer(net, [{"optimizer": name, "lr": lr}])
    for step in range(n_steps):
        optimizer.prepare((step + 0.5) / n_steps, 1)
        optimizer.zero_grad()
        (x**2).sum().backward()
        optimizer.step()
    assert (x**2).sum() < 0.1


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_step_is_longer_than_a_few_learning_rates(name):
    net = Net()
    optimizer = Optimizer(net, [{"optimizer": name, "lr": 0.1}])
    optimizer.prepare(0.5, 1)
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, 1e6)
    optimizer.step()
    assert all(((1 - p).abs() < 1).all() for p in net.parameters())


def test_unknown_optimizer_is_refused():
    message = "The 'optimizer' parameter of Architecture must be"
    with pytest.raises(InvalidParameterError, match=message):
        Optimizer(Net(), [{"optimizer": "adam"}])


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_steps_agree_with_the_classes_of_torch(kind):
    """`make_step` passes the same options as the classes of torch."""
    torch.manual_seed(0)
    net, lr = nn.Linear(4, 3), 0.01
    options = {"lr": lr, "optimizer": kind, "recipe": "uniform"}
    theirs = nn.Linear(4, 3)
    theirs.load_state_dict(net.state_dict())
    mine = Optimizer(net, [options])
    own = {
        "adamw": lambda p: torch.optim.Adam(p, lr=lr, betas=(0.9, 0.95)),
        "rmsprop": lambda p: torch.optim.RMSprop(p, lr=lr, alpha=0.95),
        "momentum": lambda p: torch.optim.SGD(p, lr=lr, momentum=0.9, nesterov=True),
        "sgd": lambda p: torch.optim.SGD(p, lr=lr),
    }[kind](theirs.parameters())
    for step in range(5):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        for module, optimizer in ((net, mine), (theirs, own)):
            optimizer.zero_grad()
            (
                0.1 * module(x)
            ).square().mean().backward()  # small gradients are not clipped
            optimizer.step()
    for one, other in zip(net.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
