"""Layers of several networks trained as one group."""

import pytest
import torch
from torch import nn

from sknas.nets import (
    ACTIVATIONS,
    NORMALISATIONS,
    Activation,
    BatchNorm,
    Dropout,
    InputLinear,
    LayerNorm,
    Linear,
    ParametricActivation,
)

K, N, H = 3, 50, 8


@pytest.fixture
def x():
    return torch.randn(K, N, H, generator=torch.Generator().manual_seed(0)) * 3 + 1


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_linear_layers_equal_one_torch_layer_per_network(x):
    layer = Linear(K, H, 4)
    for k in range(K):
        single = nn.Linear(H, 4)
        single.weight.data, single.bias.data = layer.weight[k].T, layer.bias[k]
        close(layer(x)[k], single(x[k]))


@pytest.mark.parametrize("cls", [Linear, InputLinear])
def test_linear_layers_are_initialised_like_torch_layers(cls):
    torch.manual_seed(0)
    layer, bound = cls(400, 16, 4), 0.25
    for parameter in (layer.weight, layer.bias):
        assert parameter.abs().max() <= bound
        assert float(parameter.detach().std()) == pytest.approx(
            bound / 3**0.5, rel=0.05
        )
    assert not torch.equal(layer.weight[0], layer.weight[1])


def test_linear_layers_accept_zero_inputs():
    assert Linear(K, 0, 2)(torch.zeros(K, 5, 0)).shape == (K, 5, 2)


def test_linear_layers_compute_in_the_dtype_of_their_input(x):
    layer = Linear(K, H, 4)
    for dtype in (torch.float64, torch.bfloat16):
        got = layer(x.to(dtype))
        assert got.dtype == dtype and layer.weight.dtype == torch.float32
        torch.testing.assert_close(got.float(), layer(x), rtol=0.05, atol=0.1)
        got.float().sum().backward()
        assert layer.weight.grad.dtype == torch.float32


# -------------------------------------------------------------------------- first layer


def scaled(k, n_inputs, n_outputs):
    """Return first layers with random input scales."""
    layer = InputLinear(k, n_inputs, n_outputs)
    with torch.no_grad():
        layer.input_scale.normal_()
    return layer


@pytest.mark.parametrize("g", [1, 2, 3, 4, 6, 12])
def test_first_layers_read_table_k_modulo_g(g):
    layer, tables = scaled(12, H, 4), torch.randn(g, N, H)
    got = layer(tables)
    assert got.shape == (12, N, 4)
    for k in range(12):
        single = nn.Linear(H, 4)
        single.weight.data, single.bias.data = layer.weight[k].T, layer.bias[k]
        close(got[k], single(tables[k % g] * layer.input_scale[k, :, 0]))


@pytest.mark.parametrize("g", [1, 2, 6])
def test_gradients_of_shared_tables_equal_those_of_copied_tables(g):
    layer, tables = scaled(6, H, 4), torch.randn(g, N, H, requires_grad=True)
    target = torch.randn(6, N, 4)
    (layer(tables) * target).sum().backward()
    got = [tables.grad, *(p.grad for p in layer.parameters())]
    copied = tables.detach()[torch.arange(6) % g].requires_grad_()
    layer.zero_grad()
    (layer(copied) * target).sum().backward()
    shared = copied.grad.unflatten(0, (6 // g, g)).sum(dim=0)
    for one, other in zip(
        got, [shared, *(p.grad for p in layer.parameters())], strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_each_feature_has_a_trainable_scale(x):
    layer = InputLinear(K, H, 4)
    assert (layer.input_scale == 1).all() and layer.input_scale.shape == (K, H, 1)
    plain = Linear(K, H, 4)
    plain.weight.data, plain.bias.data = layer.weight.data, layer.bias.data
    close(layer(x), plain(x))
    with torch.no_grad():
        layer.input_scale[1, 0] = 4.0
    wider = x.clone()
    wider[1, :, 0] *= 4
    close(layer(x), plain(wider))
    layer(x).square().sum().backward()
    assert (layer.input_scale.grad != 0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("g", [1, 2, 4])
def test_first_layers_compute_in_the_dtype_of_their_input(dtype, g):
    layer, tables = scaled(4, H, 4), torch.randn(g, N, H)
    got = layer(tables.to(dtype))
    assert got.dtype == dtype
    torch.testing.assert_close(got.float(), layer(tables), rtol=0.05, atol=0.1)


@pytest.mark.parametrize("g", [1, 2, 4])
def test_first_layers_accept_zero_inputs(g):
    layer = InputLinear(4, 0, 2)
    close(layer(torch.zeros(g, 5, 0)), layer.bias.expand(4, 5, 2))


# ---------------------------------------------------------------------- normalisations


def test_layer_norm_equals_one_torch_layer_per_network(x):
    layer = LayerNorm(K, H)
    nn.init.normal_(layer.scale)
    nn.init.normal_(layer.shift)
    for k in range(K):
        single = nn.LayerNorm(H)
        single.weight.data, single.bias.data = layer.scale[k, 0], layer.shift[k, 0]
        close(layer(x)[k], single(x[k]))


def test_batch_norm_equals_one_torch_layer_per_network(x):
    layer = BatchNorm(K, H)
    nn.init.normal_(layer.scale)
    nn.init.normal_(layer.shift)
    for k in range(K):
        single = nn.BatchNorm1d(H)
        single.weight.data, single.bias.data = layer.scale[k, 0], layer.shift[k, 0]
        close(layer.train()(x)[k], single(x[k]))


def test_batch_norm_uses_running_statistics_in_evaluation(x):
    layer = BatchNorm(K, H).train()
    for _ in range(200):
        layer(x)
    layer.eval()
    normal = layer(x)
    close(normal.mean(dim=1), torch.zeros(K, H))
    close(normal.var(dim=1, correction=0), torch.ones(K, H))
    before = [buffer.clone() for buffer in layer.buffers()]
    for row in range(3):  # the output of a row does not depend on the other rows
        close(layer(x[:, [row]]), normal[:, [row]])
    assert all(map(torch.equal, before, layer.buffers()))


def test_batch_norm_is_finite_for_one_row_or_zero_variance():
    layer = BatchNorm(K, H).train()
    assert torch.isfinite(layer(torch.full((K, 1, H), 5.0))).all()
    assert torch.isfinite(layer(torch.full((K, 7, H), 5.0))).all()  # no variance


@pytest.mark.parametrize("name", NORMALISATIONS)
@pytest.mark.parametrize("is_training", [True, False])
def test_networks_are_normalised_independently(name, is_training, x):
    layer = NORMALISATIONS[name](K, H).train(is_training)
    before = layer(x)[0].clone()
    layer = NORMALISATIONS[name](K, H).train(is_training)
    x = x.clone()
    x[1:] = 1e3
    close(layer(x)[0], before)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_non_linear_and_zero_at_zero(name, x):
    activated = ACTIVATIONS[name](x)
    assert activated.shape == x.shape and torch.isfinite(activated).all()
    close(ACTIVATIONS[name](torch.zeros(3)), torch.zeros(3))
    assert not torch.allclose(activated, x)


def test_activations_equal_those_of_torch(x):
    modules = {"relu": nn.ReLU, "silu": nn.SiLU, "selu": nn.SELU, "gelu": nn.GELU}
    modules |= {"mish": nn.Mish, "tanh": nn.Tanh}
    assert set(modules) == set(ACTIVATIONS)
    for name, module in modules.items():
        close(ACTIVATIONS[name](x), module()(x))


MIXED = [
    ["relu", "relu", "relu"],
    ["relu", "relu", "mish"],
    ["selu", "relu", "selu"],
    ["tanh", "gelu", "silu"],
]


@pytest.mark.parametrize("names", MIXED, ids=str)
def test_each_network_has_its_own_activation(names, x):
    got = Activation(names)(x)
    assert not list(Activation(names).parameters())
    for k, name in enumerate(names):
        assert torch.equal(got[k], ACTIVATIONS[name](x[k]))


@pytest.mark.parametrize("names", MIXED, ids=str)
def test_parametric_activations_are_mixed_with_their_input(names, x):
    layer = ParametricActivation(names, H)
    close(layer(x), Activation(names)(x))  # initially the input has no share
    nn.init.normal_(layer.share)
    got = layer(x)
    for k, name in enumerate(names):
        share = layer.share[k]
        close(got[k], share * ACTIVATIONS[name](x[k]) + (1 - share) * x[k])
    got.square().sum().backward()
    assert layer.share.shape == (K, 1, H) and (layer.share.grad != 0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_layers_keep_the_dtype_of_their_input(x, dtype):
    layers = [LayerNorm(K, H), BatchNorm(K, H), Dropout([0.1, 0.0, 0.5])]
    layers += [Activation(MIXED[1]), ParametricActivation(MIXED[1], H)]
    for layer in layers:
        assert layer.train()(x.to(dtype)).dtype == dtype
        assert layer.eval()(x.to(dtype)).dtype == dtype
        assert all(t.dtype == torch.float32 for t in layer.state_dict().values())


def test_running_statistics_are_single_precision(x):
    layer = BatchNorm(K, H, momentum=1.0).train()
    layer((x + 100).bfloat16())
    expected = (x + 100).bfloat16().float()
    torch.testing.assert_close(layer.mean, expected.mean(dim=1, keepdim=True))
    variance = expected.var(dim=1, keepdim=True, correction=0)
    torch.testing.assert_close(layer.variance, variance, rtol=1e-3, atol=1e-3)


# ---------------------------------------------------------------------------- dropout


@pytest.mark.parametrize("p", [[0.0, 0.2, 0.8], [0.3, 0.3, 0.3]])
def test_each_network_has_its_own_dropout_probability(p):
    torch.manual_seed(0)
    dropout = Dropout(p).train()
    x = torch.ones(3, 200, 100)
    out = dropout(x)
    for k, own in enumerate(p):
        assert (out[k] == 0).float().mean() == pytest.approx(own, abs=0.02)
        assert out[k].mean() == pytest.approx(1, abs=0.05)
        kept = out[k][out[k] != 0]
        close(kept, torch.full_like(kept, 1 / (1 - own)))


def test_dropout_is_inactive_in_evaluation():
    x = torch.randn(2, 5, 4)
    assert torch.equal(Dropout([0.5, 0.9]).eval()(x), x)


def test_zero_dropout_draws_no_random_numbers():
    before = torch.random.get_rng_state()
    x = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Dropout([0.0, 0.0]).train()(x), x)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    "p", [[0.3, 0.3, 0.3], [0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.1, 0.2, 0.4]], ids=str
)
def test_dropout_of_a_group_equals_that_of_its_networks(p, x):
    group = Dropout(p).train()
    group.set_generator(torch.Generator().manual_seed(3))
    got = group(x)
    for k, own in enumerate(p):
        alone = Dropout([own]).train()
        alone.set_generator(torch.Generator().manual_seed(3))
        assert torch.equal(alone(x[[k]])[0], got[k])


def test_networks_of_the_same_probability_drop_the_same_units():
    x = torch.ones(3, 40, 30)
    got = Dropout([0.4, 0.2, 0.4]).train()(x)
    assert torch.equal(got[0], got[2])
    # A larger probability drops a superset of the units.
    assert ((got[1] == 0) <= (got[0] == 0)).all()
    again = Dropout([0.4, 0.2, 0.4]).train()(x)
    assert not torch.equal(got, again)


@pytest.mark.parametrize("strength", [0.0, 0.25, 1.0])
def test_strength_multiplies_all_dropout_probabilities(strength):
    torch.manual_seed(0)
    dropout = Dropout([0.4, 0.8]).train()
    dropout.set_strength(strength)
    out = dropout(torch.ones(2, 200, 100))
    for k, p in enumerate([0.4, 0.8]):
        dropped = (out[k] == 0).float().mean().item()
        assert dropped == pytest.approx(strength * p, abs=0.02)
        assert out[k].mean().item() == pytest.approx(1, abs=0.05)


def test_a_generator_leaves_the_global_random_state_unchanged(x):
    dropout = Dropout([0.5] * K).train()
    dropout.set_generator(torch.Generator().manual_seed(0))
    before = torch.random.get_rng_state()
    dropout(x)
    assert torch.equal(torch.random.get_rng_state(), before)
