"""Initialisation of the weights of networks for tables."""

import math

import numpy as np
import pytest
import torch

from sknas._problem import TaskSpec
from sknas.nets import (
    INITS,
    Features,
    InputLinear,
    Inputs,
    Layout,
    Linear,
    TableModule,
    TableNet,
    initialize_weights,
)
from sknas.nets._init import FITTED_CLASSIFIER_GAIN, HEAD_GAIN, MAX_INIT_ROWS

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


def initialised(task, init, seed=0, n_rows=400, **shape):
    """Return a network initialised on random rows, and the features of these rows."""
    torch.manual_seed(seed)
    module = table_net(task, **shape)
    features = module.features(rows_of(task, n_rows))
    initialize_weights(module.net, init, features)
    return module, features


def inputs_and_outputs(module, features):
    """Return each linear layer with its inputs and outputs."""
    seen = []
    layers = [m for m in module.net.modules() if isinstance(m, Linear | InputLinear)]
    hooks = [
        layer.register_forward_hook(lambda *call: seen.append(call)) for layer in layers
    ]
    module.net.eval()(features)
    for hook in hooks:
        hook.remove()
    return [(layer, inputs[0][0], outputs[0]) for layer, inputs, outputs in seen]


# ------------------------------------------------------------------------------- fitted


@pytest.mark.parametrize("shape", SHAPES)
def test_fitted_init_gives_each_unit_unit_variance(task, shape):
    module, features = initialised(task, "fitted", **SHAPES[shape])
    seen = inputs_and_outputs(module, features)
    assert len(seen) == {"linear": 1, "plain": 4, "skip": 4, "resnet": 6}.get(
        shape, 2 if "packing" in SHAPES[shape] else 3
    )
    for layer, _, outputs in seen:
        deviation = outputs.std(dim=0, correction=0)
        gain = FITTED_CLASSIFIER_GAIN if layer is module.net.head else 1.0
        assert torch.allclose(deviation, torch.full_like(deviation, gain), rtol=1e-3)


def test_fitted_init_centres_units_near_rows(task):
    module, features = initialised(task, "fitted", depth=2, width=200)
    for layer, _, outputs in inputs_and_outputs(module, features)[:2]:
        low, high = outputs.min(dim=0).values, outputs.max(dim=0).values
        assert ((low <= 0) & (high >= 0)).all()  # zero lies between the outputs
        centers = outputs.mean(dim=0)
        # An exponentially weighted mean of 5 rows has about a third of their variance.
        assert 0.4 < centers.std().item() < 0.8 and centers.mean().abs() < 0.2
        assert layer.bias.abs().sum() > 0


def test_fitted_init_reads_a_bounded_number_of_rows(task):
    torch.manual_seed(0)
    module = table_net(task, depth=1)
    features = module.features(rows_of(task, 5 * MAX_INIT_ROWS))
    seen = []
    module.net.layers[0].register_forward_hook(
        lambda *a: seen.append(a[1][0].shape[:2])
    )
    initialize_weights(module.net, "fitted", features)
    assert seen == [(1, MAX_INIT_ROWS)]


def test_fitted_init_draws_directions_from_a_normal_distribution(task):
    module, _ = initialised(task, "fitted", depth=2, width=300)
    weight = module.net.layers[1].linear.weight.detach()[0]
    normal = weight / weight.std(dim=0)
    assert abs(normal.mean().item()) < 0.02
    assert (normal**4).mean().item() == pytest.approx(3, rel=0.05)  # normal kurtosis


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel", "regression"])
def test_fitted_init_gives_smaller_outputs_for_regression(task, kind):
    module, features = initialised(task, "fitted", depth=2, kind=kind)
    outputs = module.eval().net(features)[0]
    gain = 0.1 if kind == "regression" else 0.3
    deviation = outputs.std(dim=0, correction=0)
    assert torch.allclose(deviation, torch.full_like(deviation, gain), rtol=1e-3)
    assert not module.net.head.bias.any()


@pytest.mark.parametrize("n_rows", [1, 2])
def test_fitted_init_is_finite_for_few_rows(task, n_rows):
    for shape in SHAPES.values():
        module, features = initialised(task, "fitted", n_rows=n_rows, **shape)
        assert torch.isfinite(module.net(features)).all()
        assert all(torch.isfinite(p).all() for p in module.parameters())


# ------------------------------------------------------------------------------- normal


def test_normal_init_has_variance_one_over_the_number_of_inputs(task):
    module, _ = initialised(task, "normal", depth=2, width=400)
    for layer in module.net.layers:
        weight, bias = layer.linear.weight.detach(), layer.linear.bias.detach()
        expected = 1 / math.sqrt(weight.shape[1])
        assert weight.std().item() == pytest.approx(expected, rel=0.06)
        assert bias.std().item() == pytest.approx(1, rel=0.15)
        assert weight.abs().max() > 2.5 * expected  # not uniform
    first = module.net.layers[0].linear
    assert isinstance(first, InputLinear) and (first.input_scale == 1).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_normal_init_sets_the_head_to_zero(task, shape):
    module, features = initialised(task, "normal", **SHAPES[shape])
    assert not module.net.head.weight.any() and not module.net.head.bias.any()
    outputs = module.eval().net(features)
    assert outputs.std() < 1e-5
    for name, parameter in module.net.named_parameters():
        if name.endswith("weight") and "head" not in name:
            assert parameter.any()


# ------------------------------------------------------------------------------ uniform


@pytest.mark.parametrize("shape", SHAPES)
def test_uniform_init_keeps_the_weights_drawn_by_torch(task, shape):
    torch.manual_seed(0)
    drawn = table_net(task, **SHAPES[shape]).net.state_dict()
    module, _ = initialised(task, "uniform", **SHAPES[shape])
    for name, tensor in module.net.state_dict().items():
        if name == "head.weight":
            torch.testing.assert_close(tensor, HEAD_GAIN * drawn[name])
        elif name == "head.bias":
            assert not tensor.any()
        else:
            assert torch.equal(tensor, drawn[name])


def test_uniform_init_has_the_bounds_of_torch(task):
    module, _ = initialised(task, "uniform", depth=2, width=300)
    for layer in module.net.layers:
        bound = 1 / math.sqrt(layer.linear.weight.shape[1])
        for parameter in (layer.linear.weight, layer.linear.bias):
            assert 0.95 * bound < parameter.abs().max() <= bound
            deviation = parameter.detach().std().item()
            assert deviation == pytest.approx(bound / math.sqrt(3), rel=0.1)


@pytest.mark.parametrize("kind", ["multiclass", "regression"])
def test_uniform_init_gives_outputs_near_zero(task, kind):
    for seed in range(10):
        module, features = initialised(task, "uniform", seed=seed, depth=2, kind=kind)
        outputs = module.eval().net(features)
        assert outputs.abs().max() < 0.15
        assert outputs.std() > 0  # but outputs differ


# -------------------------------------------------------------------------- all methods


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("shape", SHAPES)
def test_initial_weights_depend_only_on_the_random_state_of_torch(task, init, shape):
    one, features = initialised(task, init, **SHAPES[shape])
    again, _ = initialised(task, init, **SHAPES[shape])
    for name, tensor in one.net.state_dict().items():
        assert torch.equal(tensor, again.net.state_dict()[name])
    other, _ = initialised(task, init, seed=1, **SHAPES[shape])
    state, own = one.net.state_dict(), other.net.state_dict()
    assert any(not torch.equal(state[name], own[name]) for name in own)
    assert torch.isfinite(one.net(features)).all()


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("shape", SHAPES)
def test_an_initialised_network_can_be_trained(task, init, shape):
    module, features = initialised(task, init, **SHAPES[shape])
    assert module.net.training
    assert all(not m._forward_pre_hooks for m in module.modules())
    outputs = module.net(features)
    (outputs - torch.randn_like(outputs)).square().mean().backward()
    assert all(p.requires_grad and p.grad is not None for p in module.net.parameters())
    assert module.net.head.weight.grad.any()


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("numeric", ["none", "piecewise", "periodic"])
def test_networks_of_tables_without_features_are_initialised(init, numeric):
    no_columns = TaskSpec("binary", 2, 100, 0)
    for depth in (0, 1):
        module, features = initialised(no_columns, init, depth=depth, numeric=numeric)
        assert torch.isfinite(module.net(features)).all()


@pytest.mark.parametrize("packing", [1, 3])
def test_packed_networks_accept_tables_without_features(packing):
    no_columns = TaskSpec("binary", 2, 100, 0)
    module = table_net(no_columns, depth=1, packing=packing).eval()
    assert module(torch.zeros(4, 0)).shape == (1, 4, 2)
