"""Layers for several networks side by side."""

import pytest
import torch
from torch import nn

from sknas.nets import (
    ACTIVATIONS,
    NORMALISATIONS,
    BatchNorm,
    Dropout,
    LayerNorm,
    Linear,
)

K, N, H = 3, 50, 8


@pytest.fixture
def x():
    return torch.randn(K, N, H, generator=torch.Generator().manual_seed(0)) * 3 + 1


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_linear_layers_do_what_torch_does_one_by_one(x):
    layer = Linear(K, H, 4)
    for k in range(K):
        single = nn.Linear(H, 4)
        single.weight.data, single.bias.data = layer.weight[k].T, layer.bias[k]
        close(layer(x)[k], single(x[k]))


def test_linear_layers_start_as_torch_does():
    torch.manual_seed(0)
    layer, bound = Linear(400, 16, 4), 0.25
    for parameter in (layer.weight, layer.bias):
        assert parameter.abs().max() <= bound
        assert float(parameter.detach().std()) == pytest.approx(
            bound / 3**0.5, rel=0.05
        )
    assert not torch.equal(layer.weight[0], layer.weight[1])


def test_linear_layers_may_have_no_input():
    assert Linear(K, 0, 2)(torch.zeros(K, 5, 0)).shape == (K, 5, 2)


def test_layer_norm_does_what_torch_does_one_by_one(x):
    layer = LayerNorm(K, H)
    nn.init.normal_(layer.scale)
    nn.init.normal_(layer.shift)
    for k in range(K):
        single = nn.LayerNorm(H)
        single.weight.data, single.bias.data = layer.scale[k, 0], layer.shift[k, 0]
        close(layer(x)[k], single(x[k]))


def test_batch_norm_does_what_torch_does_one_by_one(x):
    layer = BatchNorm(K, H)
    nn.init.normal_(layer.scale)
    nn.init.normal_(layer.shift)
    for k in range(K):
        single = nn.BatchNorm1d(H)
        single.weight.data, single.bias.data = layer.scale[k, 0], layer.shift[k, 0]
        close(layer.train()(x)[k], single(x[k]))


def test_batch_norm_answers_by_running_statistics(x):
    layer = BatchNorm(K, H).train()
    for _ in range(200):
        layer(x)
    layer.eval()
    normal = layer(x)
    close(normal.mean(dim=1), torch.zeros(K, H))
    close(normal.var(dim=1, correction=0), torch.ones(K, H))
    before = [buffer.clone() for buffer in layer.buffers()]
    for row in range(3):  # a row's answer does not depend on the others
        close(layer(x[:, [row]]), normal[:, [row]])
    assert all(map(torch.equal, before, layer.buffers()))


def test_batch_norm_of_one_row_stays_finite():
    layer = BatchNorm(K, H).train()
    assert torch.isfinite(layer(torch.full((K, 1, H), 5.0))).all()
    assert torch.isfinite(layer(torch.full((K, 7, H), 5.0))).all()  # no variance


@pytest.mark.parametrize("name", NORMALISATIONS)
@pytest.mark.parametrize("is_training", [True, False])
def test_networks_are_normalised_apart(name, is_training, x):
    layer = NORMALISATIONS[name](K, H).train(is_training)
    before = layer(x)[0].clone()
    layer = NORMALISATIONS[name](K, H).train(is_training)
    x = x.clone()
    x[1:] = 1e3
    close(layer(x)[0], before)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_bend(name, x):
    bent = ACTIVATIONS[name](x)
    assert bent.shape == x.shape and torch.isfinite(bent).all()
    close(ACTIVATIONS[name](torch.zeros(3)), torch.zeros(3))
    assert not torch.allclose(bent, x)


# ---------------------------------------------------------------------------- dropout


@pytest.mark.parametrize("p", [[0.0, 0.2, 0.8], [0.3, 0.3, 0.3]])
def test_each_network_drops_with_a_probability_of_its_own(p):
    torch.manual_seed(0)
    dropout = Dropout(p).train()
    x = torch.ones(3, 200, 100)
    out = dropout(x)
    for k, own in enumerate(p):
        assert (out[k] == 0).float().mean() == pytest.approx(own, abs=0.02)
        assert out[k].mean() == pytest.approx(1, abs=0.05)
        kept = out[k][out[k] != 0]
        close(kept, torch.full_like(kept, 1 / (1 - own)))


def test_nothing_is_dropped_when_predicting():
    x = torch.randn(2, 5, 4)
    assert torch.equal(Dropout([0.5, 0.9]).eval()(x), x)


def test_no_dropout_draws_no_random_number():
    before = torch.random.get_rng_state()
    x = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Dropout([0.0, 0.0]).train()(x), x)
    assert torch.equal(torch.random.get_rng_state(), before)
