"""The space of cell networks."""

import json
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone

from sknas._problem import Fold, ImageSpec, NullStore, Problem, Rows, TaskSpec
from sknas._training.isolation import isolated
from sknas.spaces import SPACES, Architecture, CellSpace, TableSpace
from sknas.spaces._cell import CELL_OPERATIONS
from sknas.spaces._known import PUBLISHED_CELLS
from sknas.strategies import BayesianStrategy, GradientStrategy
from sknas.strategies.gradient.presets import PRESETS
from sknas.strategies.gradient.progress import TimeBudget
from sknas.strategies.gradient.split import BilevelSplit
from sknas.strategies.gradient.supernet_trainer import SupernetTrainer

KINDS = ("nas-bench-201", "darts")


def image_task(shape=(1, 8, 8), kind="multiclass", n_rows=1_000, **changes):
    n = shape[0]
    spec = ImageSpec(shape, np.full(n, 8.0, np.float32), np.full(n, 5.0, np.float32))
    n_outputs = 1 if kind == "regression" else 3
    return TaskSpec(kind, n_outputs, n_rows, image=spec, **changes)


@pytest.fixture(params=KINDS)
def space(request):
    return CellSpace(request.param)


@pytest.fixture
def some(space):
    return space.sample(12, np.random.default_rng(0))


def keys(architectures):
    return [architecture.key for architecture in architectures]


# ------------------------------------------------------------------------ the choices


def test_space_is_registered_and_reads_images():
    assert SPACES["cell"] is CellSpace and CellSpace.reads == "image"
    assert TableSpace.reads == "table"


def test_a_nas_bench_201_cell_has_six_edges_of_five_operations():
    choices = CellSpace("nas-bench-201").choices
    edges = [choice for name, choice in choices.items() if name.startswith("edge")]
    assert [len(edge.options) for edge in edges] == [5] * 6


def test_a_node_of_a_darts_cell_has_two_inputs_and_seven_operations():
    choices = CellSpace("darts").choices
    for cell in ("normal", "reduction"):
        pairs = [choices[f"{cell}_{node}_inputs"].n_values for node in range(2, 6)]
        assert pairs == [1, 3, 6, 10]
        for node in range(2, 6):
            for name in ("first", "second"):
                operations = choices[f"{cell}_{node}_{name}"].options
                assert set(operations) == set(CELL_OPERATIONS["darts"]) - {"none"}


def test_clones_and_pickles_equal_the_space(space, some):
    assert repr(clone(space)) == repr(space)
    again = pickle.loads(pickle.dumps(space))
    assert keys(again.sample(12, np.random.default_rng(0))) == keys(some)


def test_architectures_survive_json_and_encoding(space, some):
    for architecture in some:
        assert Architecture(json.loads(architecture.key)) == architecture
        assert space.fill(architecture) == architecture
    codes = space.encode(some)
    assert ((codes >= 0) & (codes <= 1)).all()
    assert keys(space.decode(codes)) == keys(some)


def test_default_architecture_is_a_published_cell(space):
    default = space.default_architecture()
    known = PUBLISHED_CELLS[space.kind][0]
    assert {name: default[name] for name in known} == known
    assert space.fill({}) == default


def test_the_portfolio_is_in_the_space_of_the_task(space):
    task = image_task()
    own = space.for_task(task)
    portfolio = space.portfolio(task)
    assert len(portfolio) == len(PUBLISHED_CELLS[space.kind])
    assert portfolio[0] == own.fill({"batch_size": 64})
    assert all(own.fill(a) == a for a in portfolio)
    assert space.portfolio(None)[0] == space.default_architecture()


def test_operations_can_be_restricted():
    few = CellSpace(operation=("skip", "conv_1"))
    assert few.choices["edge_0_1"].options == ["skip", "conv_1"]
    default = few.default_architecture()
    assert default["edge_0_1"] == "conv_1" and default["edge_0_3"] == "skip"
    assert few.portfolio(image_task()) == [few.for_task(image_task()).fill({})]
    net = few.supernet(image_task())
    assert {d.options for d in net.choices.values()} == {("skip", "conv_1")}


def test_a_single_value_fixes_a_choice():
    space = CellSpace(cells=(4,), flip=(False,), lr=(0.01, 0.01), optimizer=("adamw",))
    assert "sgd_lr" not in space.choices
    drawn = space.sample(20, np.random.default_rng(0))
    assert {(a["cells"], a["flip"], a["lr"]) for a in drawn} == {(4, False, 0.01)}


def test_for_task_restricts_options_to_the_task(space):
    assert space.for_task(image_task()).choices["shift"].options == [0, 1]
    large = space.for_task(image_task((3, 32, 32)))
    assert large.choices["shift"].options == [0, 1, 2, 4]
    assert large.choices["label_smoothing"].n_values == 2
    assert large.choices["batch_size"].options == [32, 64, 128]
    smaller = space.for_task(image_task(kind="regression"))
    assert smaller.choices["label_smoothing"].options == [0.0]
    far = clone(space).set_params(shift=(4,)).for_task(image_task())
    assert far.choices["shift"].options == [4]


def test_stem_pooling_is_restricted_by_the_image_size(space):
    for side, pools, default_pool in ((8, [1], 1), (28, [1, 2], 2), (48, [1, 2, 4], 2)):
        own = space.for_task(image_task((1, side, side)))
        choice = own.choices["stem_pool"]
        assert (choice.options, choice.default) == (pools, default_pool)
        cost = space.relative_cost((side, 2 * side)) / space.relative_cost((8, 8))
        assert cost == (1 if default_pool == 1 else pytest.approx(1 / 3, rel=0.02))
    large = clone(space).set_params(cells=(6,), channels=(32,))
    assert large.relative_cost((8, 8)) == 4 * space.relative_cost((8, 8))
    fixed = clone(space).set_params(stem_pool=(4,))
    assert fixed.for_task(image_task()).choices["stem_pool"].options == [4]
    words = space.describe(space.fill({"stem_pool": 4}))
    assert "maps pooled by 4 at first" in words


@pytest.mark.parametrize(
    "params, message",
    [
        ({"kind": "dart"}, r"'kind' .* 'nas-bench-201', 'darts', got 'dart'"),
        ({"operation": ("conv_5",)}, r"'operation' .* a choice of \('none', .*conv_5"),
        ({"operation": ("none",)}, r"'operation' .* a choice of \('none', "),
        ({"operation": "skip"}, r"'operation' .* a tuple or list"),
        ({"cells": (0,)}, r"'cells' .* ints from 1 to 60, got \(?\[?0"),
        ({"stem_pool": (0,)}, r"'stem_pool' .* ints from 1 to 64, got \(?\[?0"),
        ({"channels": ()}, r"'channels' .* a tuple or list of one value or more"),
        ({"flip": ("yes",)}, r"'flip' .* a choice of \(False, True\)"),
        ({"optimizer": ("adam",)}, r"'optimizer' .* a choice of \('adamw', "),
        ({"lr": (0.1, 0.01)}, r"'lr' .* two ascending numbers"),
    ],
)
def test_wrong_parameters_raise_an_error(params, message):
    with pytest.raises(ValueError, match=message):
        CellSpace(**params).choices  # noqa: B018


# ---------------------------------------------------------------------- the networks


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 12)])
def test_networks_map_images_to_outputs(space, shape):
    task = image_task(shape)
    x = torch.randint(0, 17, (5, *shape), dtype=torch.uint8)
    own = space.for_task(task)
    for architecture in own.sample(4, np.random.default_rng(1)):
        net = own.build(architecture, task)
        for is_training in (True, False):
            output = net.train(is_training)(x)
            assert output.shape == (1, 5, 3) and torch.isfinite(output).all()


def test_augmentation_and_dropout_are_passed_to_the_network(space):
    default = space.default_architecture()
    options = {"flip": True, "shift": 2, "cutout": True, "dropout": 0.2}
    net = space.build(space.fill({**default, **options}), image_task())
    assert net.inputs.flip and net.inputs.cutout and net.inputs.shift == 2
    assert net.dropout == 0.2
    plain = space.fill({**default, "shift": 0})
    inputs = space.build(plain, image_task()).inputs
    assert (inputs.flip, inputs.shift, inputs.cutout) == (False, 0, False)


def test_n_params_equals_that_of_the_built_network(space, some):
    task = image_task()
    for architecture in some[:3]:
        net = space.build(architecture, task)
        trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
        assert space.n_params(architecture, task) == trained


def test_wider_and_deeper_networks_have_more_parameters(space):
    task, default = image_task(), space.default_architecture()
    sizes = [
        space.n_params(space.fill({**default, **more}), task)
        for more in ({}, {"channels": 32}, {"channels": 32, "cells": 6})
    ]
    assert sizes == sorted(sizes) and len(set(sizes)) == 3


def test_latency_is_positive(space):
    cheap = CellSpace(space.kind, cells=(1,), channels=(1,))
    seconds = cheap.latency(cheap.default_architecture(), image_task((1, 4, 4)))
    assert 0 < seconds < 5


def test_structure_contains_only_choices_that_affect_costs(space):
    default = space.default_architecture()
    changed = space.fill({**default, "lr": 0.002, "flip": True, "dropout": 0.1})
    assert space.structure(changed) == space.structure(default)
    name = "edge_0_1" if space.kind == "nas-bench-201" else "normal_3_first"
    for more in ({"cells": 6}, {"channels": 8}, {"stem_pool": 4}, {name: "skip"}):
        other = space.fill({**default, **more})
        assert space.structure(other) != space.structure(default)
    hash(space.structure(default))


def test_the_same_seed_builds_the_same_network(space):
    x = torch.rand(3, 1, 8, 8)
    outputs = []
    for _ in range(2):
        torch.manual_seed(5)
        net = space.build(space.default_architecture(), image_task())
        outputs.append(net.eval()(x).detach())
    assert torch.equal(*outputs)


def test_tables_raise_an_error(space, task):
    with pytest.raises(ValueError, match="CellSpace reads images: use a TableSpace"):
        space.for_task(task)


# -------------------------------------------------------------- descriptions, graphs


def test_description_is_a_formula_per_node():
    bench, darts = CellSpace(), CellSpace("darts")
    words = bench.describe(bench.default_architecture())
    start = "3 cells of 16 channels: 1 = conv_3(0), 2 = conv_3(0) + conv_3(1), 3 = skip"
    assert words.startswith(start) and "AdamW" in words
    nothing = bench.fill({f"edge_0_{j}": "none" for j in (1, 2, 3)})
    assert "1 = 0, 2 = conv_3(1), " in bench.describe(nothing)
    both = darts.describe(darts.default_architecture())
    assert "normal 3 = sep_conv_3(0) + sep_conv_3(1)" in both
    assert "reduction 5 = max_pool_3(1) + skip(2)" in both


def test_a_graph_has_one_node_per_operation():
    space = CellSpace()
    labels, feeds = space.graph(space.default_architecture())
    assert labels[:6].count("edge conv_3") == 5 and len(labels) == 9
    # Edges 0-1, 0-2, 1-2, 0-3, 1-3, 2-3 in this order.
    assert sorted(feeds) == [(0, 2), (0, 4), (1, 5), (2, 5)]
    darts = CellSpace("darts")
    labels, feeds = darts.graph(darts.default_architecture())
    assert len(labels) == 19
    assert all(labels[i].split()[0] == labels[j].split()[0] for i, j in feeds)


def test_graph_surrogate_proposes_architectures(space):
    strategy = BayesianStrategy("wl", n_initial_points=2)
    strategy.setup(space, Problem(), np.random.default_rng(0))
    assert len(strategy.propose(3)) == 3


def test_edges_have_a_cell_and_ordered_nodes(space):
    edges = space.edges(space.default_architecture())
    assert len(edges) == (6 if space.kind == "nas-bench-201" else 16)
    assert {cell for cell, _, _, _ in edges} <= {"edge", "normal", "reduction"}
    assert all(start < end for _, start, end, _ in edges)


# ------------------------------------------------------------------ search by gradient


@pytest.mark.parametrize("partial", [1, 4])
def test_supernet_architectures_are_in_the_space(space, partial):
    net = space.supernet(image_task(), partial)
    rng = np.random.default_rng(0)
    for _ in range(20):
        sizes = {name: len(d.options) for name, d in net.choices.items()}
        shares = {name: rng.random(size) for name, size in sizes.items()}
        chosen = {
            name: int(rng.integers(1, size)) if size > 2 else 0
            for name, size in sizes.items()
        }
        for name, choice in net.choices.items():
            if chosen[name] == choice.none_op:
                chosen[name] += 1
        architecture = space.fill(net.architecture(chosen, shares))
        assert architecture["cells"] == 3 and len(net.used(chosen, shares)) >= 6


def stripes(n, side=8, seed=0):
    """Return noisy images of horizontal or vertical stripes, and their classes."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    waves = np.where(np.arange(side) % 2, 12.0, 2.0)
    x = np.where(y[:, None, None], waves[None, :], waves[:, None])
    x = np.clip(x + rng.normal(0, 2, (n, side, side)), 0, 255).astype(np.uint8)
    return x[:, None], y


def image_problem(n=700, **changes):
    x, y = stripes(n)
    task = image_task(n_rows=n)
    train, valid = np.arange(n) < n - 100, np.arange(n) >= n - 100
    weight = np.ones(n)
    fold = Fold(
        task,
        Rows(x[train], y[train], weight[train]),
        Rows(x[valid], y[valid], weight[valid]),
        np.flatnonzero(valid),
        np.asarray,
    )
    settings = {"task": task, "folds": (fold,), "n_rows": n, "n_steps": 6}
    return Problem(**settings | changes)


@pytest.mark.parametrize(
    "kind, preset", [("nas-bench-201", "drnas"), ("darts", "gdas")]
)
def test_search_by_gradient_proposes_cells(kind, preset):
    space = CellSpace(kind, cells=(3,), channels=(4,))
    strategy = GradientStrategy(preset, batch_size=32)
    strategy.setup(space, image_problem(), np.random.default_rng(0))
    first, *others = [p.architecture for p in strategy.propose(4)]
    assert len(others) == 3 and space.fill(first) == first
    cell = {n: v for n, v in first.items() if n.split("_")[0] in ("edge", "normal")}
    assert list(cell.values()).count("skip") <= 2
    assert np.isfinite(strategy.sharpness_).all()


def test_a_supernet_learns_from_uint8_images(rng):
    space = CellSpace(cells=(2,), channels=(4,))
    fold = image_problem().folds[0]
    split = BilevelSplit(fold.train, fold.task, "cpu", rng, False)
    assert split.x.dtype == torch.uint8
    with isolated(0, "cpu"):
        training = SupernetTrainer(
            space.supernet(fold.task),
            PRESETS["darts"],
            split,
            TimeBudget(25, np.inf),
            NullStore(),
            is_adaptive=False,
            arch_lr=None,
        )

        def loss():
            weights = training.alphas.mean(training.alphas.vector)
            return split.evaluate(training.forward_with(weights), training.budget)

        before = loss()
        training.run()
        assert loss() < 0.5 * before
