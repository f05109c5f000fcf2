"""Where the weights of a network start."""

import math

import numpy as np
import pytest
import torch

from sknas._problem import TaskSpec
from sknas.nets import (
    STARTS,
    Features,
    InputLinear,
    Inputs,
    Layout,
    Linear,
    TableModule,
    TableNet,
    initialize_weights,
)
from sknas.nets._init import HEAD_GAIN, N_ROWS, UNIFORM_HEAD_GAIN

SHAPES = {
    "linear": {"depth": 0},
    "plain": {"depth": 3},
    "skip": {"depth": 3, "block": "skip", "normalisation": "layer"},
    "resnet": {"depth": 2, "block": "resnet", "normalisation": "batch"},
    "packed": {"depth": 2, "packing": 4},
    "periodic": {"depth": 2, "numeric": "periodic", "activation": "parametric-selu"},
    "projected": {"depth": 2, "numeric": "projected", "packing": 2},
}


def table_net(task, numeric="none", activation="relu", kind=None, width=32, **shape):
    layout = Layout.of([task], numeric, 8, 4)
    net = TableNet(
        Inputs(1, layout, numeric, 4),
        task.n_outputs,
        kind or task.kind,
        width=width,
        activations=[activation],
        dropout=[0.5],
        **shape,
    )
    return TableModule(Features(task, layout), net)


def rows_of(task, n=400, seed=0):
    rng = np.random.default_rng(seed)
    codes = [rng.integers(0, c + 1, n) for c in task.cardinalities]
    numbers = rng.normal(size=(n, task.n_numeric))
    flags = rng.choice([-1.0, 1.0], (n, task.n_binary))
    return torch.tensor(np.column_stack([numbers, flags, *codes]), dtype=torch.float32)


def started(task, start, seed=0, n_rows=400, **shape):
    """A network that was started on its rows, and their features."""
    torch.manual_seed(seed)
    module = table_net(task, **shape)
    features = module.features(rows_of(task, n_rows))
    initialize_weights(module.net, start, features)
    return module, features


def products(module, features):
    """What each linear layer reads and gives."""
    seen = []
    layers = [m for m in module.net.modules() if isinstance(m, Linear | InputLinear)]
    hooks = [
        layer.register_forward_hook(lambda *seeing: seen.append(seeing))
        for layer in layers
    ]
    module.net.eval()(features)
    for hook in hooks:
        hook.remove()
    return [(layer, inputs[0][0], given[0]) for layer, inputs, given in seen]


# ------------------------------------------------------------------------------- fitted


@pytest.mark.parametrize("shape", SHAPES)
def test_fitted_units_have_variance_one_on_the_rows(task, shape):
    module, features = started(task, "fitted", **SHAPES[shape])
    seen = products(module, features)
    assert len(seen) == {"linear": 1, "plain": 4, "skip": 4, "resnet": 6}.get(
        shape, 2 if "packing" in SHAPES[shape] else 3
    )
    for layer, _, given in seen:
        deviation = given.std(dim=0, correction=0)
        gain = HEAD_GAIN[True] if layer is module.net.head else 1.0
        assert torch.allclose(deviation, torch.full_like(deviation, gain), rtol=1e-3)


def test_fitted_units_are_centered_near_the_rows(task):
    module, features = started(task, "fitted", depth=2, width=200)
    for layer, _, given in products(module, features)[:2]:
        low, high = given.min(dim=0).values, given.max(dim=0).values
        assert ((low <= 0) & (high >= 0)).all()  # zero is a mixture of what is given
        centers = given.mean(dim=0)
        # A mean of five rows by exponential shares has about the third of a variance.
        assert 0.4 < centers.std().item() < 0.8 and centers.mean().abs() < 0.2
        assert layer.bias.abs().sum() > 0


def test_fitted_weights_look_at_few_rows_of_large_tables(task):
    torch.manual_seed(0)
    module = table_net(task, depth=1)
    features = module.features(rows_of(task, 5 * N_ROWS))
    seen = []
    module.net.layers[0].register_forward_hook(
        lambda *a: seen.append(a[1][0].shape[:2])
    )
    initialize_weights(module.net, "fitted", features)
    assert seen == [(1, N_ROWS)]


def test_fitted_directions_are_drawn_alike(task):
    module, _ = started(task, "fitted", depth=2, width=300)
    weight = module.net.layers[1].linear.weight.detach()[0]
    normal = weight / weight.std(dim=0)
    assert abs(normal.mean().item()) < 0.02
    assert (normal**4).mean().item() == pytest.approx(3, rel=0.05)  # as of a normal one


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel", "regression"])
def test_fitted_answers_are_smaller_for_a_regressor(task, kind):
    module, features = started(task, "fitted", depth=2, kind=kind)
    answers = module.eval().net(features)[0]
    gain = 0.1 if kind == "regression" else 0.3
    deviation = answers.std(dim=0, correction=0)
    assert torch.allclose(deviation, torch.full_like(deviation, gain), rtol=1e-3)
    assert not module.net.head.bias.any()


@pytest.mark.parametrize("n_rows", [1, 2])
def test_fitted_weights_of_few_rows_are_finite(task, n_rows):
    for shape in SHAPES.values():
        module, features = started(task, "fitted", n_rows=n_rows, **shape)
        assert torch.isfinite(module.net(features)).all()
        assert all(torch.isfinite(p).all() for p in module.parameters())


# ------------------------------------------------------------------------------- normal


def test_normal_weights_have_a_variance_of_one_over_inputs(task):
    module, _ = started(task, "normal", depth=2, width=400)
    for layer in module.net.layers:
        weight, bias = layer.linear.weight.detach(), layer.linear.bias.detach()
        expected = 1 / math.sqrt(weight.shape[1])
        assert weight.std().item() == pytest.approx(expected, rel=0.06)
        assert bias.std().item() == pytest.approx(1, rel=0.15)
        assert weight.abs().max() > 2.5 * expected  # not uniform
    first = module.net.layers[0].linear
    assert isinstance(first, InputLinear) and (first.input_scale == 1).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_normal_networks_start_with_a_last_layer_of_zeros(task, shape):
    module, features = started(task, "normal", **SHAPES[shape])
    assert not module.net.head.weight.any() and not module.net.head.bias.any()
    answers = module.eval().net(features)
    assert answers.std() < 1e-5
    for name, parameter in module.net.named_parameters():
        if name.endswith("weight") and "head" not in name:
            assert parameter.any()


# ------------------------------------------------------------------------------ uniform


@pytest.mark.parametrize("shape", SHAPES)
def test_uniform_weights_stay_as_torch_draws_them(task, shape):
    torch.manual_seed(0)
    drawn = table_net(task, **SHAPES[shape]).net.state_dict()
    module, _ = started(task, "uniform", **SHAPES[shape])
    for name, tensor in module.net.state_dict().items():
        if name == "head.weight":
            torch.testing.assert_close(tensor, UNIFORM_HEAD_GAIN * drawn[name])
        elif name == "head.bias":
            assert not tensor.any()
        else:
            assert torch.equal(tensor, drawn[name])


def test_uniform_weights_have_the_bounds_of_torch(task):
    module, _ = started(task, "uniform", depth=2, width=300)
    for layer in module.net.layers:
        bound = 1 / math.sqrt(layer.linear.weight.shape[1])
        for parameter in (layer.linear.weight, layer.linear.bias):
            assert 0.95 * bound < parameter.abs().max() <= bound
            deviation = parameter.detach().std().item()
            assert deviation == pytest.approx(bound / math.sqrt(3), rel=0.1)


@pytest.mark.parametrize("kind", ["multiclass", "regression"])
def test_a_uniform_network_answers_near_zero(task, kind):
    for seed in range(10):
        module, features = started(task, "uniform", seed=seed, depth=2, kind=kind)
        answers = module.eval().net(features)
        assert answers.abs().max() < 0.15
        assert answers.std() > 0  # but not all alike


# --------------------------------------------------------------------------- all starts


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_start_is_decided_by_the_random_state_of_torch(task, start, shape):
    one, features = started(task, start, **SHAPES[shape])
    again, _ = started(task, start, **SHAPES[shape])
    for name, tensor in one.net.state_dict().items():
        assert torch.equal(tensor, again.net.state_dict()[name])
    other, _ = started(task, start, seed=1, **SHAPES[shape])
    state, own = one.net.state_dict(), other.net.state_dict()
    assert any(not torch.equal(state[name], own[name]) for name in own)
    assert torch.isfinite(one.net(features)).all()


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_started_network_is_ready_to_be_trained(task, start, shape):
    module, features = started(task, start, **SHAPES[shape])
    assert module.net.training
    assert all(not m._forward_pre_hooks for m in module.modules())
    answers = module.net(features)
    (answers - torch.randn_like(answers)).square().mean().backward()
    assert all(p.requires_grad and p.grad is not None for p in module.net.parameters())
    assert module.net.head.weight.grad.any()


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("numeric", ["none", "piecewise", "periodic"])
def test_tables_without_features_start_too(start, numeric):
    bare = TaskSpec("binary", 2, 100, 0)
    for depth in (0, 1):
        module, features = started(bare, start, depth=depth, numeric=numeric)
        assert torch.isfinite(module.net(features)).all()


@pytest.mark.parametrize("packing", [1, 3])
def test_copies_of_tables_without_features_answer(packing):
    bare = TaskSpec("binary", 2, 100, 0)
    module = table_net(bare, depth=1, packing=packing).eval()
    assert module(torch.zeros(4, 0)).shape == (1, 4, 2)
