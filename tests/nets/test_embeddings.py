"""Encodings of table columns: fixed codes and learnt vectors."""

import math
from itertools import pairwise
from statistics import NormalDist

import numpy as np
import pytest
import torch
from torch import nn

from sknas.nets._embeddings import (
    Embedding,
    OneHot,
    Periodic,
    PiecewiseLinear,
    Projected,
    QuantileNormal,
)

K = 2


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def reference_codes(x, edges):
    """Return piecewise-linear codes of a number: -1 below a bin, +1 above it."""
    codes = []
    for low, high in pairwise(edges):
        if high - low <= 1e-6:
            codes.append(-1.0)
        else:
            codes.append(2 * min(max((x - low) / (high - low), 0.0), 1.0) - 1)
    return codes


def edges_of(x, n_bins=48):
    """Return the quantiles of numeric columns (N, F), as a task has them."""
    return torch.quantile(x, torch.linspace(0, 1, n_bins + 1, dtype=x.dtype), dim=0).T


# ------------------------------------------------------------------- piecewise linear


@pytest.mark.parametrize("n_bins", [1, 4, 8])
def test_piecewise_linear_codes_equal_the_reference(n_bins, rng):
    edges = np.sort(rng.normal(size=(3, n_bins + 1)), axis=1).astype(np.float32)
    edges[1] = np.round(edges[1])  # ties: empty bins
    edges[2] = 0.5  # all bins are empty
    x = rng.normal(scale=2, size=(40, 3)).astype(np.float32)
    x[0], x[1] = edges[:, 0], edges[:, -1]
    got = PiecewiseLinear(torch.from_numpy(edges))(torch.from_numpy(x))
    assert got.shape == (40, 3, n_bins)
    expected = [
        [reference_codes(v, e) for v, e in zip(row, edges, strict=True)]
        for row in x.tolist()
    ]
    close(got, torch.tensor(expected))


def test_piecewise_linear_codes_accept_one_table_per_network(rng):
    edges = torch.from_numpy(np.sort(rng.normal(size=(2, 5)), axis=1))
    codes = PiecewiseLinear(edges)
    x = torch.from_numpy(rng.normal(size=(K, 6, 2)))
    close(codes(x)[1], codes(x[1]))
    assert codes(x).dtype == torch.float64


def test_piecewise_linear_codes_accept_no_columns():
    codes = PiecewiseLinear(torch.zeros(0, 9))
    assert codes(torch.zeros(5, 0)).shape == (5, 0, 8)


# --------------------------------------------------------------------- normal quantiles


@pytest.mark.parametrize("shape", ["normal", "exponential", "uniform"])
def test_quantile_normal_maps_any_distribution_to_a_normal_one(shape, rng):
    sample = getattr(rng, shape)(size=(4_000, 2))
    x = torch.from_numpy(sample)
    got = QuantileNormal(edges_of(x))(x)
    assert got.shape == x.shape and got.dtype == x.dtype
    assert torch.allclose(got.mean(dim=0), torch.zeros(2, dtype=x.dtype), atol=0.02)
    assert torch.allclose(got.std(dim=0), torch.ones(2, dtype=x.dtype), atol=0.05)
    for share in (0.1, 0.25, 0.5, 0.75, 0.9):
        expected = NormalDist().inv_cdf(share)
        quantile = torch.quantile(got, share, dim=0)
        assert torch.allclose(quantile, torch.full_like(quantile, expected), atol=0.05)


def test_quantile_normal_hardly_changes_a_normal_sample(rng):
    x = torch.from_numpy(rng.normal(size=(20_000, 1)))
    inner = x[x.abs() < 1.8][:, None]
    got = QuantileNormal(edges_of(x))(inner)
    assert (got - inner).abs().max() < 0.1


def test_quantile_normal_is_increasing_and_bounded(rng):
    edges = edges_of(torch.from_numpy(rng.exponential(size=(500, 1))))
    x = torch.linspace(-5, 50, 2_001, dtype=torch.float64)[:, None]
    got = QuantileNormal(edges)(x)[:, 0]
    assert (got.diff() >= 0).all()
    inside = (x[:, 0] > edges[0, 1]) & (x[:, 0] < edges[0, -2])
    assert (got[inside].diff() > 0).all()
    end = NormalDist().inv_cdf(0.995)
    assert got[0].item() == pytest.approx(-end)
    assert got[-1].item() == pytest.approx(end)


def test_quantile_normal_of_columns_with_ties():
    steps = torch.tensor([0.0, 0, 0, 1, 2, 2, 3, 3, 3])  # three bins are filled
    flat = torch.full((9,), 0.5)
    normal = QuantileNormal(torch.stack([steps, flat]))
    x = torch.tensor([[0.0, 0.5], [0.5, -9.0], [1.0, 9.0], [2.5, 0.5], [3.0, 0.0]])
    got = normal(x)
    shares = [0.005, 0.5 / 3, 1 / 3, 2.5 / 3, 0.995]
    expected = torch.tensor([NormalDist().inv_cdf(share) for share in shares])
    close(got[:, 0], expected)
    assert torch.isfinite(got).all() and (got[:, 1] == got[0, 1]).all()


def test_quantile_normal_treats_columns_independently(rng):
    x = torch.from_numpy(rng.normal(size=(100, 3)))
    edges = edges_of(x, 8)
    got = QuantileNormal(edges)(x)
    for j in range(3):
        close(QuantileNormal(edges[[j]])(x[:, [j]]), got[:, [j]])
    close(QuantileNormal(edges)(x.expand(K, -1, -1)), got.expand(K, -1, -1))


# -------------------------------------------------------------------------- categories


def test_one_hot_encodes_unknown_levels_as_zeros():
    codes = torch.tensor([[1, 1], [3, 2], [0, 2], [2, 0], [0, 0]])
    expected = [
        [1, 0, 0, 1, 0],
        [0, 0, 1, 0, 1],
        [0, 0, 0, 0, 1],  # unknown levels are encoded as zeros
        [0, 1, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]
    got = OneHot([3, 2])(codes, torch.float32)
    assert got.tolist() == expected
    several = OneHot([3, 2])(codes.expand(K, 5, 2), torch.float64)
    assert several.tolist() == [expected] * K and several.dtype == torch.float64


def test_each_network_has_its_own_embedding_vectors():
    torch.manual_seed(0)
    embedding = Embedding(K, [3, 4], size=2)
    codes = torch.tensor([[0, 0], [3, 1], [1, 4]])
    got = embedding(codes[None])
    assert got.shape == (K, 3, 4)
    starts = [0, 4]  # each column has one vector more than levels
    for k in range(K):
        for row, pair in enumerate(codes.tolist()):
            parts = [
                embedding.vectors[k, s + c] for s, c in zip(starts, pair, strict=True)
            ]
            close(got[k, row], torch.cat(parts))
    close(embedding(codes.expand(K, 3, 2)), got)
    rows = torch.stack([codes, codes.flip(0)])
    close(embedding(rows)[1], got[1].flip(0))


@pytest.mark.parametrize("g", [1, 2, 6])
def test_network_k_embeds_table_k_modulo_g(g, rng):
    embedding = Embedding(6, [3, 4], size=2)
    codes = torch.from_numpy(rng.integers(0, 4, (g, 5, 2)))
    got = embedding(codes)
    for k in range(6):
        alone = Embedding(1, [3, 4], size=2)
        alone.vectors.data = embedding.vectors.data[[k]]
        close(got[[k]], alone(codes[[k % g]]))


def test_the_vector_of_an_unknown_level_starts_at_zero():
    embedding = Embedding(K, [3, 4], size=2)
    assert not embedding(torch.zeros(1, 1, 2, dtype=torch.long)).any()
    levels = embedding(torch.tensor([[[1, 1], [2, 2], [3, 3]]]))
    assert (levels != 0).all()


def test_state_dict_of_an_embedding_holds_only_its_vectors():
    embedding = Embedding(K, [3, 4], size=2)
    assert list(embedding.state_dict()) == ["vectors"]
    assert embedding.vectors.shape == (K, 3 + 1 + 4 + 1, 2)


# ------------------------------------------------------------------ numeric embeddings


@pytest.mark.parametrize("size", [2, 4])
def test_periodic_embedding_is_the_number_and_a_linear_layer_of_cosines(size):
    torch.manual_seed(0)
    periodic = Periodic(K, 3, sigma=0.5, n_frequencies=6, size=size)
    x = torch.randn(K, 7, 3)
    got = periodic(x)
    assert got.shape == (K, 7, 3 * size)
    for k in range(K):
        for j in range(3):
            layer = nn.Linear(6, size - 1)
            layer.weight.data = periodic.mixing.data[k, j].T
            layer.bias.data = periodic.shift.data[k, j, 0]
            waves = torch.cos(
                2 * math.pi * x[k, :, [j]] * periodic.frequency[k, 0, j]
                + periodic.phase[k, 0, j]
            )
            expected = torch.cat([x[k, :, [j]], layer(waves)], dim=1)
            close(got[k, :, j * size : (j + 1) * size], expected)


def test_periodic_embedding_has_the_published_initial_distribution():
    torch.manual_seed(0)
    periodic = Periodic(40, 20)
    assert periodic.frequency.shape == periodic.phase.shape == (40, 1, 20, 16)
    assert periodic.frequency.detach().std().item() == pytest.approx(0.1, rel=0.05)
    phase = periodic.phase.detach()
    assert phase.abs().max() <= math.pi
    assert phase.std().item() == pytest.approx(math.pi / 3**0.5, rel=0.05)
    for parameter in (periodic.mixing, periodic.shift):
        assert parameter.abs().max() <= 0.25
        deviation = parameter.detach().std().item()
        assert deviation == pytest.approx(0.25 / 3**0.5, rel=0.05)


@pytest.mark.parametrize("n_bins", [1, 8])
def test_projected_embedding_is_a_line_plus_a_linear_layer_of_codes(n_bins):
    torch.manual_seed(0)
    projected = Projected(K, 3, n_bins, size=4)
    nn.init.normal_(projected.mixing)
    x, codes = torch.randn(K, 7, 3), torch.randn(K, 7, 3 * n_bins)
    got = projected(x, codes)
    assert got.shape == (K, 7, 3 * 4)
    for k in range(K):
        for j in range(3):
            own = codes[k, :, j * n_bins : (j + 1) * n_bins]
            line = x[k, :, [j]] * projected.slope[k, 0, j] + projected.shift[k, 0, j]
            projection = nn.functional.linear(own, projected.mixing[k, j].T)
            close(got[k, :, j * 4 : (j + 1) * 4], line + projection)


def test_projected_embedding_is_initially_linear():
    projected = Projected(K, 2, 8)
    x = torch.linspace(-1, 1, 5)[:, None].expand(K, 5, 2)
    got = projected(x, torch.randn(K, 5, 16))
    assert got.shape == (K, 5, 2 * 16)
    close(got.diff(dim=1).diff(dim=1), torch.zeros(K, 3, 32))
    assert got[:, 0].std() > 0.1


@pytest.mark.parametrize(
    "make", [lambda: Periodic(K, 3), lambda: Projected(K, 3, 8)], ids=["wave", "line"]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numeric_embeddings_train_all_parameters_and_keep_the_dtype(make, dtype):
    layer = make().to(dtype)
    inputs = [torch.randn(K, 7, 3, dtype=dtype)]
    if isinstance(layer, Projected):
        inputs.append(torch.randn(K, 7, 24, dtype=dtype))
    output = layer(*inputs)
    assert output.dtype == dtype
    output.square().sum().backward()
    for parameter in layer.parameters():
        assert len(parameter) == K
        assert torch.isfinite(parameter.grad).all() and (parameter.grad != 0).all()


@pytest.mark.parametrize("index", range(K))
def test_numeric_embeddings_of_a_group_equal_those_of_its_networks(index):
    x, codes = torch.randn(K, 7, 3), torch.randn(K, 7, 24)
    for group, alone, inputs in (
        (Periodic(K, 3), Periodic(1, 3), [x]),
        (Projected(K, 3, 8), Projected(1, 3, 8), [x, codes]),
    ):
        state = {name: t[[index]] for name, t in group.state_dict().items()}
        alone.load_state_dict(state)
        expected = alone(*[tensor[[index]] for tensor in inputs])
        close(group(*inputs)[[index]], expected)
