"""Inputs of the first layer, computed from an encoded table."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from sknas._problem import TaskSpec
from sknas.nets import NUMERIC_EMBEDDINGS, Features, Inputs, Layout, TableInput
from sknas.nets._embeddings import Embedding, Periodic, Projected, QuantileNormal
from sknas.nets._inputs import PERIODIC_SIZE, PROJECTED_SIZE

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


def table_input(k, task, n_bins=None, embedding_size=8):
    embedding = "none" if n_bins is None else "piecewise"
    return TableInput(k, task, embedding, n_bins, embedding_size)


def random_edges(n_columns, rng, n_bins=48):
    """Return random bin edges of columns."""
    return np.sort(rng.normal(size=(n_columns, n_bins + 1)), axis=1).astype(np.float32)


def rows_of(task, rng, n=12):
    """Return encoded rows of a task, with unknown levels."""
    codes = [rng.integers(0, c + 1, n) for c in task.cardinalities]
    numbers = rng.normal(size=(n, task.n_numeric))
    flags = rng.choice([-1.0, 0.0, 1.0], (n, task.n_binary))
    x = np.column_stack([numbers, flags, *codes]).astype(np.float32)
    return torch.from_numpy(x)


# ------------------------------------------------------------------------------ layout


def test_layout_of_one_task(task):
    layout = Layout.of([task], "none", 48, 8)
    assert layout == Layout(3, 0, 2, ((0, 4),), ((1, 20),))
    assert layout.n_one_hot == 4 and layout.n_fixed == 3 + 2 + 4
    for name in ("piecewise", "projected"):
        coded = Layout.of([task], name, 16, 8)
        assert coded == replace(layout, n_bins=16)
        assert coded.n_fixed == 3 * 17 + 2 + 4
        assert Layout.of([task], name, None, 8).n_bins == 8
    assert Layout.of([task], "periodic", 48, 8) == layout
    assert hash(layout) == hash(Layout.of([task], "periodic", 48, 8))


def test_without_embeddings_all_categories_are_one_hot(task):
    layout = Layout.of([task], "none", None, 0)
    assert layout.one_hot == ((0, 4), (1, 20)) and layout.embedded == ()
    assert layout.n_one_hot == 24


def test_layout_of_several_tasks_is_their_union(task, rng):
    other = TaskSpec("multiclass", 3, 800, 5, 1, (7, 8, 30), random_edges(5, rng))
    small = replace(task, cardinalities=(9,))
    layout = Layout.of([task, other, small], "piecewise", 8, 4)
    assert layout == Layout(5, 8, 2, (), ((0, 9), (1, 20), (2, 30)))
    without = Layout.of([task, other], "piecewise", 8, 4)
    assert without.one_hot == ((0, 7),) and without.embedded == ((1, 20), (2, 30))
    assert Layout.of([other, task], "piecewise", 8, 4) == without


def test_layout_without_numbers_has_no_bins(task):
    without_numbers = replace(task, n_numeric=0, edges=np.zeros((0, 49), np.float32))
    assert Layout.of([without_numbers], "piecewise", 48, 8).n_bins == 0
    assert Layout.of([without_numbers, task], "piecewise", 48, 8).n_bins == 48
    nothing = TaskSpec("binary", 2, 100, 0)
    assert Layout.of([nothing], "piecewise", 48, 8) == Layout(0, 0, 0, (), ())


# ---------------------------------------------------------------------------- features


@pytest.mark.parametrize(
    ("n_bins", "expected"), [(None, 5), (8, 5 + 3 * 8), (16, 5 + 3 * 16), (48, 5 + 144)]
)
def test_order_of_the_features(task, encoded_rows, n_bins, expected):
    inputs = table_input(K, task, n_bins, embedding_size=6)
    assert inputs.n_features == expected + 4 + 6  # 4 one-hot columns, vector of size 6
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
def test_bin_edges_are_quantiles_of_the_task(task, encoded_rows, n_bins):
    inputs = table_input(1, task, n_bins)
    got = inputs(torch.from_numpy(encoded_rows))[0, :, 3 : 3 + 3 * n_bins]
    edges = task.edges[:, :: 48 // n_bins]
    expected = [
        [c for j in range(3) for c in reference_codes(float(row[j]), edges[j].tolist())]
        for row in encoded_rows
    ]
    close(got, torch.tensor(expected))


def test_total_number_of_codes_is_bounded(task):
    edges = np.tile(np.linspace(-2, 2, 49, dtype=np.float32), (2_000, 1))
    wide = replace(task, n_numeric=2_000, edges=edges)
    assert table_input(1, wide, 48).n_features < 3 * 2_000 + 5_000
    few = table_input(1, task, 48)
    assert few.n_features == table_input(1, task).n_features + 3 * 48
    assert few(rows_of(task, np.random.default_rng(0))).shape[-1] == few.n_features


@pytest.mark.parametrize("n_numeric", [11, 22, 43, 171])
def test_number_of_bins_is_reduced_for_many_columns(task, rng, n_numeric):
    wide = replace(task, n_numeric=n_numeric, edges=random_edges(n_numeric, rng))
    layout = Layout.of([wide], "piecewise", 48, 8)
    assert layout.n_bins == {11: 24, 22: 12, 43: 6, 171: 3}[n_numeric]
    x = rows_of(wide, rng)
    codes = Features(wide, layout)(x)[:, n_numeric : n_numeric * (1 + layout.n_bins)]
    edges = wide.edges[-1, :: 48 // layout.n_bins].tolist()
    last = torch.tensor(
        [reference_codes(v, edges) for v in x[:, n_numeric - 1].tolist()]
    )
    close(codes[:, -layout.n_bins :], last)


def test_normal_scale_transforms_numbers_but_not_codes(task, encoded_rows):
    x = torch.from_numpy(encoded_rows)
    layout = Layout.of([task], "piecewise", 8, 8)
    plain, normal = Features(task, layout), Features(task, layout, "normal")
    scaled = QuantileNormal(torch.from_numpy(task.edges))(x[:, :3])
    close(normal(x)[:, :3], scaled)
    assert torch.equal(normal(x)[:, 3:], plain(x)[:, 3:])  # codes are unscaled
    assert torch.equal(plain(x)[:, :3], x[:, :3])


def test_codes_of_embedded_categories_come_last(task, encoded_rows):
    x = torch.from_numpy(encoded_rows)
    layout = Layout.of([task], "none", None, 8)
    features = Features(task, layout)(x)
    assert features.shape == (10, layout.n_fixed + 1)
    assert torch.equal(features[:, -1], x[:, -1])
    one_hot = Features(task, Layout.of([task], "none", None, 0))(x)
    close(one_hot[:, -20:], torch.eye(21)[encoded_rows[:, -1].astype(int)][:, 1:])


@pytest.mark.parametrize("scale", ["robust", "normal"])
@pytest.mark.parametrize("name", NUMERIC_EMBEDDINGS)
@pytest.mark.parametrize("embedding_size", [0, 4])
def test_features_of_missing_columns_are_zero(task, rng, scale, name, embedding_size):
    large = TaskSpec("multiclass", 3, 800, 5, 4, (7, 20, 30), random_edges(5, rng))
    layout = Layout.of([task, large], name, 8, embedding_size)
    x = rows_of(task, rng)
    alone = Layout.of([replace(task, cardinalities=(7, 20))], name, 8, embedding_size)
    own = Features(replace(task, cardinalities=(7, 20)), alone, scale)(x)
    padded = Features(task, layout, scale)(x)
    assert padded.shape == (len(x), layout.n_features)
    assert Features(large, layout, scale)(rows_of(large, rng)).shape == padded.shape
    n_bins = layout.n_bins
    used = [*range(3), *range(5, 5 + 3 * n_bins)]
    at = 5 * (1 + n_bins)
    used += [*range(at, at + 2), *range(at + 4, at + 4 + alone.n_one_hot)]
    if embedding_size:
        used.append(layout.n_fixed)
    assert torch.equal(padded[:, used], own)
    unused = sorted(set(range(padded.shape[1])) - set(used))
    assert len(unused) == padded.shape[1] - own.shape[1] and unused
    assert not padded[:, unused].any()


def test_features_of_a_table_without_numbers_in_a_larger_layout(task, rng):
    without_numbers = TaskSpec("multiclass", 3, 800, 0, 2, (4, 20))
    for name in NUMERIC_EMBEDDINGS:
        layout = Layout.of([task, without_numbers], name, 8, 8)
        features = Features(without_numbers, layout, "normal")(
            rows_of(without_numbers, rng)
        )
        assert not features[:, : 3 * (1 + layout.n_bins)].any()
        assert Inputs(1, layout, name)(features[None]).ndim == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NUMERIC_EMBEDDINGS)
def test_features_have_the_dtype_of_the_rows(task, encoded_rows, name, dtype):
    inputs = TableInput(K, task, name, 8).to(dtype)
    assert inputs(torch.from_numpy(encoded_rows).to(dtype)).dtype == dtype


# ----------------------------------------------------------------------- learnt inputs


WIDTHS = {"none": 1, "piecewise": 9, "projected": PROJECTED_SIZE, "periodic": 4}


@pytest.mark.parametrize("name", NUMERIC_EMBEDDINGS)
@pytest.mark.parametrize("embedding_size", [0, 6])
def test_n_outputs_and_columns_of_the_inputs(task, rng, name, embedding_size):
    layout = Layout.of([task], name, 8, embedding_size)
    inputs = Inputs(K, layout, name, embedding_size)
    words = 4 + (embedding_size or 20)
    assert inputs.n_outputs == 3 * WIDTHS[name] + 2 + words
    features = Features(task, layout)(rows_of(task, rng))[None]
    assert inputs(features).shape[1:] == (12, inputs.n_outputs)
    assert len(inputs.columns) == inputs.n_outputs
    last = embedding_size or 20
    counts = [inputs.columns.count(column) for column in range(7)]
    assert counts == [*[WIDTHS[name]] * 3, 1, 1, 4, last]


@pytest.mark.parametrize("name", NUMERIC_EMBEDDINGS)
@pytest.mark.parametrize("embedding_size", [0, 6])
def test_each_input_depends_only_on_its_column(task, rng, name, embedding_size):
    layout = Layout.of([task], name, 8, embedding_size)
    features, inputs = (
        Features(task, layout),
        Inputs(1, layout, name, embedding_size),
    )
    for parameter in inputs.parameters():
        torch.nn.init.normal_(parameter)
    x = rows_of(task, rng, 60)
    before = inputs(features(x)[None])[0]
    order = [*range(3), 3, 4, 5, 6]  # numbers, flags, small and large categories
    for column in order:
        shuffled = x.clone()
        shuffled[:, column] = x[:, column].roll(1)
        changed = (inputs(features(shuffled)[None])[0] != before).any(dim=0)
        own = torch.tensor([c == column for c in inputs.columns])
        assert not changed[~own].any() and changed[own].any()


def test_fixed_features_are_not_copied(task, rng):
    layout = Layout.of([task], "piecewise", 8, 0)
    features = Features(task, layout)(rows_of(task, rng))[None]
    inputs = Inputs(6, layout, "piecewise", 0)
    assert inputs(features) is features and not list(inputs.parameters())


@pytest.mark.parametrize("name", NUMERIC_EMBEDDINGS)
@pytest.mark.parametrize("g", [1, 2, 3, 6])
def test_network_k_reads_table_k_modulo_g(task, rng, name, g):
    layout = Layout.of([task], name, 8, 6)
    inputs = Inputs(6, layout, name, 6)
    for parameter in inputs.parameters():
        torch.nn.init.normal_(parameter)
    features = Features(task, layout)
    tables = torch.stack([features(rows_of(task, rng)) for _ in range(g)])
    got = inputs(tables)
    assert len(got) == 6
    for k in range(6):
        alone = Inputs(1, layout, name, 6)
        alone.load_state_dict({n: t[[k]] for n, t in inputs.state_dict().items()})
        close(alone(tables[[k % g]])[0], got[k])


def test_inputs_concatenate_numeric_embeddings_flags_and_vectors(task, rng):
    features = {
        name: Features(task, Layout.of([task], name, 8, 6))(rows_of(task, rng))[None]
        for name in ("periodic", "projected")
    }
    layout = Layout.of([task], "periodic", 8, 6)
    inputs = Inputs(1, layout, "periodic", 6)
    assert isinstance(inputs.numeric, Periodic)
    assert isinstance(inputs.embedding, Embedding)
    encoded = features["periodic"]
    parts = inputs(encoded).split([3 * PERIODIC_SIZE, 2 + 4, 6], dim=-1)
    close(parts[0], inputs.numeric(encoded[..., :3]))
    close(parts[1], encoded[..., 3:9])
    close(parts[2], inputs.embedding(encoded[..., 9:].long()))
    layout = Layout.of([task], "projected", 8, 6)
    inputs = Inputs(1, layout, "projected", 6)
    assert isinstance(inputs.numeric, Projected)
    torch.nn.init.normal_(inputs.numeric.mixing)
    encoded = features["projected"]
    parts = inputs(encoded).split([3 * PROJECTED_SIZE, 2 + 4, 6], dim=-1)
    close(parts[0], inputs.numeric(encoded[..., :3], encoded[..., 3:27]))
    close(parts[1], encoded[..., 27:33])


# ------------------------------------------------------------------------- whole input


def test_networks_have_different_initial_vectors(task, encoded_rows):
    torch.manual_seed(0)
    features = table_input(K, task)(torch.from_numpy(encoded_rows))
    assert torch.equal(features[0, :, :9], features[1, :, :9])
    assert not torch.equal(features[0, 1:, 9:], features[1, 1:, 9:])


def test_only_categories_of_more_than_8_levels_are_embedded(task):
    for cardinality, is_large in ((8, False), (9, True)):
        inputs = TableInput(1, replace(task, cardinalities=(cardinality,)))
        assert (inputs.learnt.embedding is not None) is is_large


@pytest.mark.parametrize("name", NUMERIC_EMBEDDINGS)
def test_table_input_accepts_one_table_per_network(task, encoded_rows, name):
    torch.manual_seed(0)
    inputs = TableInput(K, task, name, 8, embedding_size=0)
    x = torch.from_numpy(encoded_rows)
    got = inputs(x)
    assert got.shape == (K, len(x), inputs.n_features)
    each = inputs(torch.stack([x, x.flip(0)]))
    close(each[0], got[0])
    close(each[1], got[1].flip(0))


def test_table_input_accepts_a_table_without_columns():
    inputs = TableInput(K, TaskSpec("binary", 2, 100, 0), "piecewise", 8)
    assert inputs.n_features == 0
    assert inputs(torch.zeros(4, 0)).shape == (K, 4, 0)
