"""What the first layer sees of an encoded table."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from sknas.nets import TableInput
from sknas.nets._embeddings import Embedding, OneHot, PiecewiseLinear

K = 2


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def slow_codes(x, edges):
    """Piecewise-linear codes of one number: -1 below a bin, +1 above, linear within."""
    codes = []
    for low, high in pairwise(edges):
        if high - low <= 1e-6:
            codes.append(-1.0)
        else:
            codes.append(2 * min(max((x - low) / (high - low), 0.0), 1.0) - 1)
    return codes


# ------------------------------------------------------------------- piecewise linear


@pytest.mark.parametrize("n_bins", [1, 4, 8])
def test_piecewise_linear_codes(n_bins, rng):
    edges = np.sort(rng.normal(size=(3, n_bins + 1)), axis=1).astype(np.float32)
    edges[1] = np.round(edges[1])  # ties: empty bins
    edges[2] = 0.5  # all bins are empty
    x = rng.normal(scale=2, size=(40, 3)).astype(np.float32)
    x[0], x[1] = edges[:, 0], edges[:, -1]
    got = PiecewiseLinear(torch.from_numpy(edges))(torch.from_numpy(x))
    assert got.shape == (40, 3 * (n_bins + 1))
    expected = [
        [*row, *(c for v, e in zip(row, edges, strict=True) for c in slow_codes(v, e))]
        for row in x.tolist()
    ]
    close(got, torch.tensor(expected))


def test_piecewise_linear_codes_of_several_networks(rng):
    edges = torch.from_numpy(np.sort(rng.normal(size=(2, 5)), axis=1))
    codes = PiecewiseLinear(edges)
    x = torch.from_numpy(rng.normal(size=(K, 6, 2)))
    close(codes(x)[1], codes(x[1]))


# -------------------------------------------------------------------------- categories


def test_one_hot_columns():
    codes = torch.tensor([[1, 1], [3, 2], [0, 2], [2, 0], [0, 0]])
    expected = [
        [1, 0, 0, 1, 0],
        [0, 0, 1, 0, 1],
        [0, 0, 0, 0, 1],  # an unknown level is no level
        [0, 1, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]
    got = OneHot([3, 2])(codes, torch.float32)
    assert got.tolist() == expected
    several = OneHot([3, 2])(codes.expand(K, 5, 2), torch.float64)
    assert several.tolist() == [expected] * K and several.dtype == torch.float64


def test_embeddings_are_vectors_of_each_network():
    torch.manual_seed(0)
    embedding = Embedding(K, [3, 4], size=2)
    codes = torch.tensor([[0, 0], [3, 1], [1, 4]])
    got = embedding(codes)
    assert got.shape == (K, 3, 4)
    starts = [0, 4]  # each column has a vector more than levels
    for k in range(K):
        for row, pair in enumerate(codes.tolist()):
            parts = [
                embedding.vectors[k, s + c] for s, c in zip(starts, pair, strict=True)
            ]
            close(got[k, row], torch.cat(parts))
    close(embedding(codes.expand(K, 3, 2)), got)
    rows = torch.stack([codes, codes.flip(0)])
    close(embedding(rows)[1], got[1].flip(0))


def test_the_vector_of_an_unknown_level_starts_at_zero():
    embedding = Embedding(K, [3, 4], size=2)
    assert not embedding(torch.zeros(1, 2, dtype=torch.long)).any()
    levels = embedding(torch.tensor([[1, 1], [2, 2], [3, 3]]))
    assert (levels != 0).all()


# ------------------------------------------------------------------------- whole input


@pytest.mark.parametrize(
    ("n_bins", "expected"), [(None, 5), (8, 5 + 3 * 8), (16, 5 + 3 * 16), (48, 5 + 144)]
)
def test_features(task, encoded_rows, n_bins, expected):
    inputs = TableInput(K, task, n_bins, embedding_size=6)
    assert inputs.n_features == expected + 4 + 6  # one-hot, and a vector
    x = torch.from_numpy(encoded_rows)
    features = inputs(x)
    assert features.shape == (K, len(x), inputs.n_features)
    close(inputs(x.expand(K, *x.shape)), features)
    close(features[..., :3], x[:, :3].expand(K, -1, -1))  # the numbers come first
    flags = x[:, 3:5].expand(K, -1, -1)
    close(features[..., expected - 2 : expected], flags)
    one_hot = features[0, :, expected : expected + 4]
    levels = encoded_rows[:, 5].astype(int)
    close(one_hot, torch.eye(5)[levels][:, 1:])


@pytest.mark.parametrize("n_bins", [8, 16, 48])
def test_bins_are_quantiles_of_the_task(task, encoded_rows, n_bins):
    inputs = TableInput(1, task, n_bins)
    got = inputs(torch.from_numpy(encoded_rows))[0, :, 3 : 3 + 3 * n_bins]
    edges = task.edges[:, :: 48 // n_bins]
    expected = [
        [c for j in range(3) for c in slow_codes(float(row[j]), edges[j].tolist())]
        for row in encoded_rows
    ]
    close(got, torch.tensor(expected))


def test_many_columns_share_a_bounded_number_of_codes(task):
    edges = np.tile(np.linspace(-2, 2, 49, dtype=np.float32), (2_000, 1))
    wide = replace(task, n_numeric=2_000, edges=edges)
    assert TableInput(1, wide, 48).n_features < 3 * 2_000 + 5_000
    few = TableInput(1, task, 48)
    assert few.n_features == TableInput(1, task).n_features + 3 * 48


def test_each_feature_has_a_scale_that_is_trained(task, encoded_rows):
    inputs = TableInput(K, task, 8)
    x = torch.from_numpy(encoded_rows)
    before = inputs(x).detach()
    with torch.no_grad():
        inputs.offset[1, 0, 0] += 0.5
    after = inputs(x).detach()
    changed = (before != after).any(dim=1)
    assert changed[1, 0] and changed.sum() == 1
    ratio = after[1, :, 0] / before[1, :, 0]
    close(ratio, torch.full_like(ratio, 4.0))  # 1 + 6 * 0.5


def test_networks_begin_with_vectors_of_their_own(task, encoded_rows):
    torch.manual_seed(0)
    features = TableInput(K, task)(torch.from_numpy(encoded_rows))
    assert torch.equal(features[0, :, :9], features[1, :, :9])
    assert not torch.equal(features[0, 1:, 9:], features[1, 1:, 9:])


def test_levels_of_many_and_of_few(task):
    for cardinality, is_large in ((8, False), (9, True)):
        inputs = TableInput(1, replace(task, cardinalities=(cardinality,)))
        assert (inputs.embedding is not None) is is_large


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_precision_is_that_of_the_rows(task, encoded_rows, dtype):
    inputs = TableInput(K, task, 8).to(dtype)
    assert inputs(torch.from_numpy(encoded_rows).to(dtype)).dtype == dtype
