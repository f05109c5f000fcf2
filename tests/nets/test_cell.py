"""Operations, cells, and networks of cells."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from sknas._problem import ImageSpec
from sknas.nets import MixedOperation, MixtureWeights
from sknas.nets._cell import CellGraph, CellNet, Skeleton, halve_map
from sknas.nets._image import ImageInput
from sknas.nets._operations import (
    OPERATIONS,
    PARAMETER_FREE,
    FactorizedReduce,
    ResidualReduce,
    make_operation,
)
from sknas.nets._supernet_cells import CellSupernet

BENCH = ("none", "skip", "conv_1", "conv_3", "avg_pool_3")
SHAPES = [(1, 8, 8), (3, 7, 9), (2, 5, 16)]


def image(shape):
    n = shape[0]
    return ImageSpec(shape, np.full(n, 0.3, np.float32), np.full(n, 2.0, np.float32))


def maps(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def uniform_weights(net):
    """Return uniform mixture weights."""
    return {
        name: MixtureWeights(torch.full((len(d.options),), 1 / len(d.options)))
        for name, d in net.choices.items()
    }


# --------------------------------------------------------------------- the operations


@pytest.mark.parametrize("size", [8, 7, 2])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", OPERATIONS)
def test_all_operations_return_the_same_shape(name, stride, size):
    operation = make_operation(name, 6, stride, True)
    side = -(-size // stride)
    output = operation(maps(3, 6, size, size))
    assert output.shape == (3, 6, side, side) and torch.isfinite(output).all()


@pytest.mark.parametrize("name", OPERATIONS)
def test_normalisations_in_a_mixture_have_no_parameters(name):
    for stride in (1, 2):
        norms = [
            module
            for module in make_operation(name, 4, stride, False).modules()
            if isinstance(module, nn.BatchNorm2d)
        ]
        assert all(norm.weight is None for norm in norms)
        assert all(norm.running_mean is None for norm in norms)
        assert norms or name in ("none", "skip")


def test_parameter_free_operations_have_no_weights():
    for name in OPERATIONS:
        parameters = list(make_operation(name, 4, 1, False).parameters())
        assert (len(parameters) == 0) == (name in (*PARAMETER_FREE, "none"))


def test_none_operation_returns_zeros_and_keeps_the_autograd_graph():
    x = maps(2, 4, 5, 5).requires_grad_()
    output = make_operation("none", 4, 2, True)(x)
    assert output.shape == (2, 4, 3, 3) and not output.any()
    output.sum().backward()
    assert x.grad is not None and not x.grad.any()


def test_pooling_ignores_the_padding():
    x = torch.ones(1, 1, 4, 4)
    torch.testing.assert_close(make_operation("avg_pool_3", 1, 1, True)(x), x)
    x[0, 0, 1, 1] = 5.0
    largest = make_operation("max_pool_3", 1, 1, True)(x)[0, 0]
    assert largest[:3, :3].eq(5).all() and largest[3].eq(1).all()


def test_factorised_reduction_reads_all_pixels():
    reduce = FactorizedReduce(1, 2).eval()
    for size in (6, 7):
        x = torch.full((1, 1, size, size), 0.5, requires_grad=True)
        reduce(x).square().sum().backward()
        seen = x.grad[0, 0] != 0
        assert seen[::2, ::2].all() and seen[1::2, 1::2].all()


def test_residual_reduction_adds_two_branches():
    block = ResidualReduce(3, 6, 2).eval()
    x = maps(2, 3, 6, 6)
    pooled = functional.avg_pool2d(x, 2, 2)
    expected = block.shortcut(pooled) + block.second(block.first(x))
    torch.testing.assert_close(block(x), expected)
    assert ResidualReduce(3, 6, 1)(x).shape == (2, 6, 6, 6)


# -------------------------------------------------------------------------- the cells


def test_a_node_is_the_sum_of_its_edges():
    class Times(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def forward(self, x):
            return self.factor * x

    factors = {(0, 1): 2.0, (0, 2): 3.0, (1, 2): 5.0}
    graph = CellGraph("edge", range(1, 3), lambda i, j: Times(factors[i, j]))
    x = maps(1, 1, 2, 2)
    states = graph([x], None)
    torch.testing.assert_close(states[1], 2 * x)
    torch.testing.assert_close(states[2], (3 + 5 * 2) * x)
    without = CellGraph(
        "edge", range(1, 3), lambda i, j: Times(7.0) if i == j - 1 else None
    )
    torch.testing.assert_close(without([x], None)[2], 49 * x)


def test_inputs_of_a_node_are_weighted():
    graph = CellGraph(
        "normal", range(2, 3), lambda i, j: MixedOperation([nn.Identity()])
    )
    one = MixtureWeights(torch.ones(1))
    weights = {"normal_0_2": one, "normal_1_2": one}
    weights["normal_2_inputs"] = MixtureWeights(torch.tensor([0.25, 0.75]))
    first, second = maps(1, 1, 2, 2), maps(1, 1, 2, 2, seed=1)
    node = graph([first, second], weights)[-1]
    torch.testing.assert_close(node, 0.25 * first + 0.75 * second)


def test_maps_of_two_pixels_are_not_reduced():
    assert halve_map((8, 9)) == (2, (4, 5))
    assert halve_map((3, 4)) == (2, (2, 2))
    assert halve_map((2, 8)) == (1, (2, 8))


@pytest.mark.parametrize(
    "cells, reductions", [(1, {0}), (2, {1}), (3, {1, 2}), (6, {2, 4}), (20, {6, 13})]
)
def test_reduction_cells_are_at_one_and_two_thirds_of_the_depth(cells, reductions):
    assert Skeleton("darts", cells, 8).reductions == reductions


def make_net(
    kind, shape=(1, 8, 8), cells=3, channels=4, n_outputs=5, pool=1, **options
):
    def make_edge(cell, start, end, channels, stride):
        if kind == "darts" and start not in (end - 1, end - 2):
            return None
        return make_operation("conv_3", channels, stride, True)

    spec = image(shape)
    skeleton = Skeleton(kind, cells, channels, pool)
    return CellNet(ImageInput(spec), shape, n_outputs, skeleton, make_edge, **options)


@pytest.mark.parametrize("kind", ["nas-bench-201", "darts"])
@pytest.mark.parametrize("shape", SHAPES)
def test_networks_accept_images_of_any_size(kind, shape):
    for cells in (1, 3, 7):
        net = make_net(kind, shape, cells)
        output = net(torch.rand(4, *shape))
        assert output.shape == (1, 4, 5) and torch.isfinite(output).all()


@pytest.mark.parametrize("kind", ["nas-bench-201", "darts"])
def test_uint8_and_float_images_give_equal_outputs(kind):
    net = make_net(kind).eval()
    x = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)
    torch.testing.assert_close(net(x), net(x.float()))


@pytest.mark.parametrize("kind, width", [("nas-bench-201", 16), ("darts", 64)])
def test_channels_double_at_reduction_cells(kind, width):
    net = make_net(kind)
    assert net.head.in_features == width  # 4 channels, doubled twice
    side = net.stack(net.inputs(torch.rand(2, 1, 8, 8)), None).shape
    assert side == (2, width, 2, 2)
    small = net.stack(net.inputs(torch.rand(2, 1, 8, 8)[..., :8]), None)
    assert small.shape == side
    tiny = make_net(kind, (1, 3, 3))
    assert tiny.stack(tiny.inputs(torch.rand(2, 1, 3, 3)), None).shape[2:] == (2, 2)
    assert tiny.head.in_features == width


@pytest.mark.parametrize("kind", ["nas-bench-201", "darts"])
def test_maps_are_pooled_before_the_first_cell(kind):
    x = torch.rand(2, 1, 26, 13)
    for pool, sides in ((1, (7, 4)), (2, (4, 2)), (4, (4, 2))):
        net = make_net(kind, (1, 26, 13), pool=pool)
        assert net.stack(net.inputs(x), None).shape[2:] == sides
    net = make_net(kind, (1, 26, 13), pool=2).eval()
    conv, pooling, norm = net.stack.stem
    torch.testing.assert_close(net.stack.stem(x), pooling(norm(conv(x))))


def test_dropout_is_active_only_in_training():
    net = make_net("nas-bench-201", dropout=0.9)
    x = torch.rand(64, 1, 8, 8)
    torch.manual_seed(0)
    assert not torch.allclose(net(x), net(x))
    net.eval()
    torch.testing.assert_close(net(x), net(x))


@pytest.mark.parametrize("kind", ["nas-bench-201", "darts"])
def test_all_weights_have_a_gradient(kind):
    net = make_net(kind)
    net(torch.rand(4, 1, 8, 8)).square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())


# ------------------------------------------------------------------ supernets


def supernet(kind, partial=1, operations=BENCH, shape=(1, 8, 8)):
    return CellSupernet(image(shape), 5, Skeleton(kind, 3, 8), operations, partial)


@pytest.mark.parametrize("partial", [1, 4])
@pytest.mark.parametrize("kind, n_edges", [("nas-bench-201", 6), ("darts", 28)])
def test_a_supernet_holds_all_operations_of_all_edges(kind, n_edges, partial):
    net = supernet(kind, partial)
    edges = [name for name in net.choices if not name.endswith("inputs")]
    assert len(edges) == n_edges
    n_inputs = 8 if kind == "darts" and partial > 1 else 0
    assert len(net.choices) == n_edges + n_inputs
    for name in edges:
        choice = net.choices[name]
        assert choice.options == BENCH
        assert (choice.none_op, choice.skip_op) == (0, 1)
        assert choice.parameter_free == (1, 4)
    for shape in SHAPES:
        net = supernet(kind, partial, shape=shape)
        output = net(torch.rand(4, *shape), uniform_weights(net))
        assert output.shape == (1, 4, 5) and torch.isfinite(output).all()


def test_a_mixture_reads_at_least_four_channels():
    for channels, expected in ((4, 4), (6, 6), (8, 4), (9, 9), (12, 4), (32, 8)):
        skeleton = Skeleton("nas-bench-201", 1, channels)
        net = CellSupernet(image((1, 8, 8)), 5, skeleton, ("skip", "conv_3"), 4)
        edge = net._mixed("edge", 0, 1, channels, 1)
        assert edge.operations[1][1].in_channels == expected


def test_dropout_applies_to_skips_only():
    """Pooling and strided skips are never dropped: strided skips have weights."""
    net = supernet("darts")
    skips = {}
    for name, mixed in net.named_modules():
        if isinstance(mixed, MixedOperation):
            skips[name.rpartition(".")[2]] = mixed.skips
    assert skips["normal_0_2"] == skips["reduction_2_3"] == (1,)
    assert skips["reduction_0_2"] == skips["reduction_1_5"] == ()
    none = supernet("darts", operations=("none", "max_pool_3"))
    assert not any(getattr(module, "skips", ()) for module in none.modules())

    mixed = supernet("nas-bench-201").net.stack.parts[0].graph.edges["edge_0_1"]
    x = maps(2, 8, 4, 4).abs() + 1
    for index, name in enumerate(BENCH):
        values = torch.eye(len(BENCH))[index]
        is_dropped = (mixed(x, MixtureWeights(values, dropout=0.5)) == 0).any()
        plain = (mixed(x, MixtureWeights(values)) == 0).any()
        assert bool(is_dropped != plain) == (name == "skip")


def count_calls(net):
    """Return a list that grows by one at each call of an operation."""
    calls = []
    for mixed in net.modules():
        if isinstance(mixed, MixedOperation):
            for operation in mixed.operations:
                operation.register_forward_hook(lambda *args: calls.append(1))
    return calls


@pytest.mark.parametrize("kind, n_edges", [("nas-bench-201", 6), ("darts", 14)])
def test_one_operation_per_edge_is_computed_with_one_hot_weights(kind, n_edges):
    net = supernet(kind)
    calls = count_calls(net)
    hard = {
        name: MixtureWeights(torch.eye(5)[3], computed=(3,)) for name in net.choices
    }
    net(torch.rand(2, 1, 8, 8), hard)
    assert len(calls) == 3 * n_edges  # 3 cells
    calls.clear()
    net(torch.rand(2, 1, 8, 8), uniform_weights(net))
    assert len(calls) == 3 * n_edges * len(BENCH)


@pytest.mark.parametrize("kind", ["nas-bench-201", "darts"])
def test_every_mixture_weight_has_a_gradient(kind):
    net = supernet(kind, 2)
    weights = uniform_weights(net)
    for one in weights.values():
        one.values.requires_grad_()
    net(torch.rand(8, 1, 8, 8), weights).square().sum().backward()
    for name, one in weights.items():
        none_op = net.choices[name].none_op
        counts = [j for j in range(len(one.values)) if j != none_op]
        assert (one.values.grad[counts] != 0).all(), name


def test_the_two_inputs_with_the_largest_operation_shares_are_kept():
    net = supernet("darts")
    shares = {name: np.full(5, 0.1) for name in net.choices}
    chosen = {name: 3 for name in net.choices}
    for start, share in ((0, 0.3), (1, 0.9), (2, 0.2), (3, 0.6)):
        shares[f"normal_{start}_5"] = np.array([0.95, 0, 0, share, 0])
    found = net.architecture(chosen, shares)
    assert found["normal_5_inputs"] == "1,3" and found["normal_2_inputs"] == "0,1"
    assert found["normal_5_first"] == found["normal_5_second"] == "conv_3"
    used = net.used(chosen, shares)
    assert len(used) == 16 and {"normal_1_5", "normal_3_5"} <= set(used)
    assert "normal_0_5" not in used


def test_input_weights_decide_which_inputs_are_kept():
    net = supernet("darts", 4)
    shares = {name: np.full(len(d.options), 0.2) for name, d in net.choices.items()}
    shares["reduction_4_inputs"] = np.array([0.5, 0.1, 0.1, 0.4])
    found = net.architecture(dict.fromkeys(net.choices, 1), shares)
    assert found["reduction_4_inputs"] == "0,3"


def test_nas_bench_201_architecture_has_one_operation_per_edge():
    net = supernet("nas-bench-201")
    chosen = {name: j % 5 for j, name in enumerate(net.choices)}
    found = net.architecture(chosen, {})
    assert list(found) == list(net.choices) == net.used(chosen, {})
    assert list(found.values()) == [*BENCH, "none"]
