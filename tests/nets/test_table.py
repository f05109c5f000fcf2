"""Networks for tables."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from sknas.nets import (
    ACTIVATIONS,
    BLOCKS,
    NORMALISATIONS,
    NUMERIC_EMBEDDINGS,
    TABLE_ACTIVATIONS,
    Dropout,
    Features,
    Inputs,
    Layout,
    TableModule,
    TableNet,
)
from sknas.nets._layers import Heads
from sknas.nets._table import BRANCH_DROPOUT, Adapters

SHAPES = {
    "linear": {"depth": 0},
    "plain": {"depth": 1, "n_bins": None},
    "deep": {"depth": 3, "block": "skip", "activations": ["gelu", "gelu", "mish"]},
    "layer": {"depth": 2, "normalisation": "layer", "block": "skip"},
    "batch": {"depth": 2, "normalisation": "batch", "activations": ["relu"] * 3},
    "resnet": {"depth": 2, "block": "resnet", "normalisation": "batch"},
    "single resnet": {"depth": 1, "block": "resnet", "activations": ["relu"] * 3},
    "parametric": {
        "depth": 2,
        "activations": ["parametric-selu", "parametric-mish", "parametric-selu"],
        "numeric": "periodic",
    },
    "parametric resnet": {
        "depth": 1,
        "block": "resnet",
        "activations": ["parametric-tanh", "parametric-mish", "parametric-mish"],
    },
    "projected": {"depth": 1, "numeric": "projected", "embedding_size": 0},
    "packed": {"depth": 2, "packing": 3, "numeric": "projected"},
    "packed linear": {"depth": 0, "packing": 4},
    "packed resnet": {
        "depth": 1,
        "packing": 2,
        "block": "resnet",
        "normalisation": "layer",
    },
    "packed skip": {"depth": 2, "packing": 2, "block": "skip", "numeric": "periodic"},
}


def table_net(
    k,
    task,
    *,
    n_bins=8,
    numeric="piecewise",
    embedding_size=5,
    activations=("silu", "relu", "silu"),
    dropout=None,
    index=None,
    **shape,
):
    """Return a group of k small networks, or only the network at `index`."""
    numeric = "none" if n_bins is None else numeric
    layout = Layout.of([task], numeric, n_bins, embedding_size)
    dropout = list(dropout or [0.0] * k)
    activations = [activations[j % len(activations)] for j in range(k)]
    if index is not None:
        k, dropout, activations = 1, [dropout[index]], [activations[index]]
    net = TableNet(
        Inputs(k, layout, numeric, embedding_size),
        task.n_outputs,
        task.kind,
        activations=activations,
        dropout=dropout,
        **({"depth": 2, "width": 12} | shape),
    )
    return TableModule(Features(task, layout), net)


def single_network(group, index, task, **shape):
    """Return the network at `index` of a group of three as a group of one."""
    single = table_net(3, task, index=index, **shape)
    state = {name: t[[index]].clone() for name, t in group.net.state_dict().items()}
    single.net.load_state_dict(state)
    return single


def randomise(module):
    """Draw random weights, so that networks differ and no parameter is zero."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.3)
    return module


def close(one, other, atol=1e-5):
    torch.testing.assert_close(one, other, rtol=1e-4, atol=atol)


def learn(module, x, rates):
    """Take three steps of gradient descent, with one learning rate per network."""
    module.train()
    for step in range(3):
        for layer in module.modules():
            if isinstance(layer, Dropout):
                layer.set_generator(torch.Generator().manual_seed(step))
        module.zero_grad()
        module(x).square().mean(dim=(1, 2)).sum().backward()
        with torch.no_grad():
            for p in module.parameters():
                p -= torch.tensor(rates).view(-1, *[1] * (p.ndim - 1)) * p.grad
    module.eval()


# ------------------------------------------------------------- single and grouped


@pytest.mark.parametrize("shape", SHAPES)
def test_outputs_of_a_group_equal_those_of_its_networks(task, encoded_rows, shape):
    x, shape = torch.from_numpy(encoded_rows), SHAPES[shape]
    group = randomise(table_net(3, task, **shape)).eval()
    for index in range(3):
        single = single_network(group, index, task, **shape).eval()
        close(single(x)[0], group(x)[index])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dropout", [[0.0] * 3, [0.2, 0.0, 0.5]], ids=["", "dropped"])
def test_a_group_is_trained_like_its_networks(task, encoded_rows, shape, dropout):
    rates = [0.02, 0.005, 0.05]
    x, shape = torch.from_numpy(encoded_rows), SHAPES[shape] | {"dropout": dropout}
    group = randomise(table_net(3, task, **shape))
    singles = [single_network(group, index, task, **shape) for index in range(3)]
    before = group.eval()(x).detach()
    learn(group, x, rates)
    for single, rate in zip(singles, rates, strict=True):
        learn(single, x, [rate])
    for index, single in enumerate(singles):
        close(single(x)[0], group(x)[index], atol=1e-4)
        assert not torch.allclose(before[index], group(x)[index], atol=1e-3)


def test_a_diverging_network_does_not_affect_the_others(task, encoded_rows):
    x = torch.from_numpy(encoded_rows)
    group = randomise(table_net(3, task, normalisation="batch"))
    expected = group.train()(x).detach()
    with torch.no_grad():
        group.net.head.weight[1] = torch.nan
        group.net.layers[0].linear.weight[1] = torch.inf
    outputs = group(x)
    assert not torch.isfinite(outputs[1]).any()
    close(outputs[[0, 2]], expected[[0, 2]])
    outputs[[0, 2]].sum().backward()
    for parameter in group.parameters():
        assert torch.isfinite(parameter.grad[[0, 2]]).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("g", [1, 2, 6])
def test_network_k_reads_table_k_modulo_g(task, encoded_rows, shape, g):
    shape = SHAPES[shape]
    module = randomise(table_net(6, task, **shape)).eval()
    x = torch.from_numpy(encoded_rows)
    tables = torch.stack([module.features(x.roll(j, 0)) for j in range(g)])
    got = module.net(tables)
    for k in range(6):
        close(got[k], module.net(tables[k % g])[k])
    close(module.net(tables[torch.arange(6) % g]), got)


@pytest.mark.parametrize("shape", SHAPES)
def test_network_axis_is_first_in_the_state_dict(task, shape):
    group = table_net(3, task, **SHAPES[shape]).net
    single = table_net(3, task, index=0, **SHAPES[shape]).net.state_dict()
    state = group.state_dict()
    assert list(state) == list(single)
    assert {n for n, _ in group.named_parameters()} <= set(state)
    for name, tensor in state.items():
        assert len(tensor) == 3 and single[name].shape == (1, *tensor.shape[1:])


# ---------------------------------------------------------------- the computation


def reference(module, x, k):
    """Return the parameters, layers and inputs of network k for a reference."""
    net = module.net
    state = {name: t[k] for name, t in net.state_dict().items()}

    def dense(h, name):
        if f"{name}.input_scale" in state:
            h = h * state[f"{name}.input_scale"][:, 0]
        return h @ state[f"{name}.weight"] + state[f"{name}.bias"][0]

    def normal(h, name, kind):
        if kind == "layer":
            scale, shift = state[f"{name}.scale"][0], state[f"{name}.shift"][0]
            return nn.functional.layer_norm(h, h.shape[-1:], scale, shift)
        if kind == "batch":
            mean, variance = state[f"{name}.mean"][0], state[f"{name}.variance"][0]
            scale, shift = state[f"{name}.scale"][0], state[f"{name}.shift"][0]
            return (h - mean) / torch.sqrt(variance + 1e-5) * scale + shift
        return h

    return state, dense, normal, net.inputs(module.features(x)[None])[0]


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_outputs_equal_a_reference_implementation(
    task, encoded_rows, normalisation, block, depth
):
    shape = {"depth": depth, "block": block, "normalisation": normalisation}
    module = randomise(table_net(3, task, embedding_size=0, **shape))
    x = torch.from_numpy(encoded_rows)
    module.train()(x)  # updates the running statistics
    module.eval()
    for k, name in enumerate(["silu", "relu", "silu"]):
        act = ACTIVATIONS[name]
        _, dense, normal, h = reference(module, x, k)
        if depth and block == "resnet":
            h = dense(h, "layers.0")
            for j in range(1, depth + 1):
                inner = normal(h, f"layers.{j}.normalisation", normalisation)
                inner = act(dense(inner, f"layers.{j}.first"))
                h = h + dense(inner, f"layers.{j}.second")
            h = act(normal(h, f"layers.{depth + 1}", normalisation))
        else:
            for j in range(depth):
                inner = dense(h, f"layers.{j}.linear")
                inner = act(normal(inner, f"layers.{j}.normalisation", normalisation))
                h = h + inner if block == "skip" and j else inner
        close(module(x)[k], dense(h, "head"))


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel", "regression"])
@pytest.mark.parametrize("depth", [0, 2])
def test_packed_copies_share_the_hidden_layers(task, encoded_rows, kind, depth):
    task = replace(task, kind=kind)
    shape = {"depth": depth, "packing": 4, "embedding_size": 0, "n_bins": None}
    module = randomise(table_net(3, task, **shape))
    x = torch.from_numpy(encoded_rows)
    trained, averaged = module.train()(x), module.eval()(x)
    assert trained.shape == (3, 4 * 10, 3) and averaged.shape == (3, 10, 3)
    for k, name in enumerate(["silu", "relu", "silu"]):
        state, dense, _, rows = reference(module, x, k)
        outputs = []
        for m in range(4):
            h = rows * state["adapters.factor"][m, 0]
            for j in range(depth):
                h = ACTIVATIONS[name](dense(h, f"layers.{j}.linear"))
            outputs.append(h @ state["head.weight"][m] + state["head.bias"][m, 0])
            close(trained[k, 10 * m : 10 * (m + 1)], outputs[m])
        copies = torch.stack(outputs)
        if kind == "regression":
            close(averaged[k], copies.mean(dim=0))
        elif kind == "multilabel":
            close(averaged[k].sigmoid(), copies.sigmoid().mean(dim=0))
        else:
            close(averaged[k].softmax(dim=-1), copies.softmax(dim=-1).mean(dim=0))
            close(averaged[k].exp().sum(dim=-1), torch.ones(10))


def test_logits_of_confident_copies_are_finite(task, encoded_rows):
    x = torch.from_numpy(encoded_rows)
    for kind in ("multiclass", "multilabel"):
        module = randomise(table_net(2, replace(task, kind=kind), packing=3))
        with torch.no_grad():
            module.net.head.bias.mul_(1e4)
        assert torch.isfinite(module.eval()(x)).all()


@pytest.mark.parametrize("g", [1, 2, 4])
def test_adapters_scale_the_columns_of_each_copy(g):
    adapters = Adapters(4, 3, [0, 0, 1], is_normal=True)
    tables = torch.randn(g, 5, 3)
    got = adapters(tables).unflatten(1, (3, 5))
    for k in range(4):
        for m in range(3):
            close(got[k, m], tables[k % g] * adapters.factor[k, m])


def test_initial_adapter_factors_are_equal_within_a_column():
    torch.manual_seed(0)
    columns = [0, 1, 1, 1, 2]
    signs = Adapters(50, 8, columns, is_normal=False).factor
    normal = Adapters(50, 8, columns, is_normal=True).factor.detach()
    assert signs.shape == (50, 8, 1, 5)
    assert set(signs.flatten().tolist()) == {-1.0, 1.0}
    assert abs(signs.mean().item()) < 0.1
    assert normal.std().item() == pytest.approx(1, abs=0.1)
    for factor in (signs, normal):
        assert torch.equal(factor[..., 1], factor[..., 2])
        assert torch.equal(factor[..., 1], factor[..., 3])
        assert not torch.equal(factor[..., 0], factor[..., 1])


def test_adapter_factors_are_normal_only_with_trained_embeddings(task):
    for name in NUMERIC_EMBEDDINGS:
        factor = table_net(1, task, numeric=name, packing=2).net.adapters.factor
        are_signs = bool((factor.abs() == 1).all())
        assert are_signs is (name in ("none", "piecewise"))


def test_heads_are_initialised_like_linear_layers():
    torch.manual_seed(0)
    heads = Heads(20, 4, 25, 3)
    assert heads.weight.shape == (20, 4, 25, 3) and heads.bias.shape == (20, 4, 1, 3)
    for parameter in heads.parameters():
        assert parameter.requires_grad and parameter.abs().max() <= 0.2
        deviation = parameter.detach().std().item()
        assert deviation == pytest.approx(0.2 / math.sqrt(3), rel=0.05)


@pytest.mark.parametrize("block", ["plain", "skip"])
def test_residual_layers_add_their_input(task, encoded_rows, block):
    x = torch.from_numpy(encoded_rows)
    module = randomise(table_net(2, task, depth=3, block=block)).eval()
    net = module.net
    h = net.layers[0](net.inputs(module.features(x)[None]))
    with torch.no_grad():
        for layer in net.layers[1:]:
            layer.linear.weight.zero_()
            layer.linear.bias.zero_()
    # With zero weights, a layer returns its input if it has a shortcut, else zeros.
    close(module(x), net.head(h if block == "skip" else 0 * h))


def test_dropout_probability_of_each_layer(task):
    dropout = [0.5, 0.25, 0.0]
    runs = [(p, 1) for p in dropout]
    plain = table_net(3, task, dropout=dropout, depth=2).net
    assert [layer.dropout.runs for layer in plain.layers] == [runs, runs]
    resnet = table_net(3, task, dropout=dropout, depth=1, block="resnet").net
    block = resnet.layers[1]
    assert block.inner.runs == runs
    assert [p for p, _ in block.outer.runs] == [BRANCH_DROPOUT * p for p in dropout]
    assert sum(isinstance(m, Dropout) for m in resnet.modules()) == 2


@pytest.mark.parametrize("activation", TABLE_ACTIVATIONS)
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("block", BLOCKS)
def test_gradients_of_all_blocks_are_finite(
    task, encoded_rows, activation, normalisation, block
):
    shape = {"normalisation": normalisation, "block": block}
    module = table_net(2, task, activations=[activation], **shape)
    module(torch.from_numpy(encoded_rows)).square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters())


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_reach_every_parameter(task, encoded_rows, shape):
    module = randomise(table_net(3, task, **SHAPES[shape]))
    outputs = module(torch.from_numpy(encoded_rows))
    (outputs * torch.randn_like(outputs)).sum().backward()
    for parameter in module.parameters():
        assert torch.isfinite(parameter.grad).all()
        assert (parameter.grad.flatten(1) != 0).any(dim=1).all()


def test_the_output_of_a_row_does_not_depend_on_other_rows(task, encoded_rows):
    x = torch.from_numpy(encoded_rows)
    for name, shape in SHAPES.items():
        module = randomise(table_net(2, task, **shape)).eval()
        rows = torch.cat([module(row[None]) for row in x], dim=1)
        torch.testing.assert_close(rows, module(x), rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize(("g", "n_more"), [(2, 0), (1, 1), (1, -1)])
def test_features_of_a_wrong_shape_raise_an_error(task, encoded_rows, g, n_more):
    module = table_net(3, task)
    n_features = module.features(torch.from_numpy(encoded_rows)).shape[1]
    message = rf"shape \(G, N, {n_features}\), G a divisor of K = 3, got \({g}, 10, "
    with pytest.raises(ValueError, match=message):
        module.net(torch.zeros(g, 10, n_features + n_more))


# --------------------------------------------------------------------------- precision


@pytest.mark.parametrize("shape", SHAPES)
def test_double_precision_equals_single_precision(task, encoded_rows, shape):
    x = torch.from_numpy(encoded_rows)
    module = randomise(table_net(3, task, **SHAPES[shape])).eval()
    expected = module(x)
    got = module.double()(x.double())
    assert got.dtype == torch.float64
    torch.testing.assert_close(got.float(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_half_precision_is_close_to_single_precision(task, encoded_rows, shape):
    x = torch.from_numpy(encoded_rows)
    module = randomise(table_net(3, task, **SHAPES[shape])).train()
    expected = module(x)
    module.net.set_precision(torch.bfloat16)
    got = module(x)
    assert got.dtype == torch.bfloat16
    scale = expected.abs().max().item()
    torch.testing.assert_close(got.float(), expected, rtol=0.1, atol=0.05 * scale)
    got.float().square().mean().backward()
    for parameter in module.parameters():
        assert parameter.dtype == parameter.grad.dtype == torch.float32
        assert torch.isfinite(parameter.grad).all()
