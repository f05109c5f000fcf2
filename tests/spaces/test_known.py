"""Known architectures of the table space: published networks and the portfolio."""

import math
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from sknas._training.optimizer import Optimizer, find_recipe
from sknas.exceptions import InvalidParameterError
from sknas.nets import Dropout, initialize_weights
from sknas.spaces import TableSpace
from sknas.spaces._known import PUBLISHED, PUBLISHED_REGRESSION

NAMES = list(PUBLISHED)
DEFAULT = TableSpace().default_architecture()
KNOWN = [p for p in TableSpace.known_architectures if TableSpace().fill(p) != DEFAULT]
N_NUMBERS, N_FLAGS, FEW, MANY = 3, 2, 4, 20  # columns and levels of the `task` fixture


@pytest.fixture
def regression(task):
    return replace(task, kind="regression", n_outputs=1)


@pytest.fixture
def x(encoded_rows):
    return torch.from_numpy(encoded_rows)


def built(name, task, seed=0, is_random=True):
    """Return a published network, by default with random non-zero weights."""
    torch.manual_seed(seed)
    space = TableSpace()
    module = space.build(space.named(name, task), task)
    if is_random:
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.normal_(std=0.2)
    return module


def dense(state, name):
    """Return a linear torch layer with the weights of the named layer."""
    weight = state[f"{name}.weight"][0].T
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight.data, layer.bias.data = weight, state[f"{name}.bias"][0, 0]
    return layer


def one_hot(x, index, size):
    return torch.eye(size + 1)[x[:, index].long()][:, 1:]


def plain_rows(x, task, embedding=None):
    """Return numbers, flags, the small and the large category as inputs."""
    large = one_hot(x, 6, MANY) if embedding is None else embedding(x[:, 6].long())
    return x[:, :3], x[:, 3:5], one_hot(x, 5, FEW), large


def vectors(state):
    """Return the embedding of the large category."""
    table = state["inputs.embedding.vectors"][0]
    return nn.Embedding.from_pretrained(table)


def quantile_normal(x, task):
    """Return numbers on the scale of a normal distribution, column by column."""
    columns = []
    for j in range(N_NUMBERS):
        levels = np.linspace(0, 1, 49)
        share = np.interp(x[:, j].numpy(), task.edges[j], levels)
        columns.append(torch.special.ndtri(torch.tensor(share).clamp(0.005, 0.995)))
    return torch.stack(columns, dim=1).float()


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def n_params(name, task):
    return TableSpace().n_params(TableSpace().named(name, task), task)


# -------------------------------------------------------------------- in the space


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel", "regression"])
def test_published_networks_are_in_the_space(task, name, kind):
    space = TableSpace()
    architecture = space.named(name, replace(task, kind=kind))
    point = PUBLISHED[name]
    if kind == "regression":
        point = point | PUBLISHED_REGRESSION.get(name, {})
    assert point.items() <= dict(architecture).items()  # no published value is missing
    for choice, value in architecture.items():
        assert space.choices[choice].contains(value)
        if choice not in point:
            assert value == space.choices[choice].default
    assert space.fill(architecture) == architecture
    if kind != "regression":
        assert space.named(name) == architecture


def test_unknown_and_excluded_published_networks_raise_an_error():
    allowed = ", ".join(repr(name) for name in NAMES[:1])
    with pytest.raises(InvalidParameterError, match=re.escape(allowed)):
        TableSpace().named("realmlp")
    with pytest.raises(InvalidParameterError, match="'width' parameter of TableSpace"):
        TableSpace(width=(64, 128)).named("realmlp-td")
    with pytest.raises(InvalidParameterError, match="'packing' parameter of"):
        TableSpace(packing=(1,)).named("tabm-mini")
    assert TableSpace(packing=(1,)).named("resnet")["block"] == "resnet"


def test_published_networks_have_other_values_for_regression(regression):
    space = TableSpace()
    for name, changes in PUBLISHED_REGRESSION.items():
        one, other = space.named(name), space.named(name, regression)
        assert {n for n in one if one[n] != other[n]} == set(changes)
        assert set(one) == set(other)
    assert space.named("resnet", regression) == space.named("resnet")


# Both categories one-hot, or the large one embedded, with a vector for code 0.
ONE_HOT = N_NUMBERS + N_FLAGS + FEW + MANY
EMBEDDED, TABLE = N_NUMBERS + N_FLAGS + FEW + 8, (MANY + 1) * 8


def mlp_size(n_inputs, width, depth, n_outputs):
    sizes = [n_inputs, *[width] * depth, n_outputs]
    return sum(a * b + b for a, b in pairwise(sizes))


SIZES = {
    "realmlp-td-s": ONE_HOT + mlp_size(ONE_HOT, 256, 3, 3),
    "realmlp-td": (EMBEDDED + 3 * N_NUMBERS)
    + mlp_size(EMBEDDED + 3 * N_NUMBERS, 256, 3, 3)
    + 3 * 256  # shares of the activations
    + N_NUMBERS * (16 + 16 + 16 * 3 + 3)
    + TABLE,
    "mlp": EMBEDDED + mlp_size(EMBEDDED, 128, 3, 3) + TABLE,
    "linear": ONE_HOT + ONE_HOT * 3 + 3,
    "resnet": EMBEDDED
    + (EMBEDDED * 128 + 128)
    + 2 * (2 * 128 + 128 * 256 + 256 + 256 * 128 + 128)
    + 2 * 128
    + (128 * 3 + 3)
    + TABLE,
    "tabm-mini": N_NUMBERS * (16 + 16 + 48 * 16)
    + 32 * (ONE_HOT + 15 * N_NUMBERS)  # adapters
    + (ONE_HOT + 15 * N_NUMBERS)  # scales
    + mlp_size(ONE_HOT + 15 * N_NUMBERS, 512, 1, 512)
    + 32 * (512 * 3 + 3),
}


@pytest.mark.parametrize("name", NAMES)
def test_published_networks_have_the_published_number_of_parameters(task, name):
    assert n_params(name, task) == SIZES[name]


# ------------------------------------------------------------------ published networks


def test_realmlp_td_s_equals_input_scales_and_three_layers(task, x):
    module = built("realmlp-td-s", task).eval()
    state = module.net.state_dict()
    layers = []
    for j in range(3):
        layers += [dense(state, f"layers.{j}.linear"), nn.SELU()]
    reference = nn.Sequential(*layers, dense(state, "head"))
    rows = torch.cat(plain_rows(x, task), dim=1)
    scale = state["layers.0.linear.input_scale"][0, :, 0]
    close(module(x)[0], reference(rows * scale))


def test_realmlp_td_has_periodic_embeddings_and_parametric_activations(task, x):
    module = built("realmlp-td", task).eval()
    state = module.net.state_dict()
    numbers, *rest = plain_rows(x, task, vectors(state))
    parts = []
    for j in range(N_NUMBERS):
        frequency = state["inputs.numeric.frequency"][0, 0, j]
        phase = state["inputs.numeric.phase"][0, 0, j]
        layer = nn.Linear(16, 3)
        layer.weight.data = state["inputs.numeric.mixing"][0, j].T
        layer.bias.data = state["inputs.numeric.shift"][0, j, 0]
        number = numbers[:, [j]]
        waves = torch.cos(2 * math.pi * number * frequency + phase)
        parts += [number, layer(waves)]
    h = (
        torch.cat([*parts, *rest], dim=1)
        * state["layers.0.linear.input_scale"][0, :, 0]
    )
    for j in range(3):
        h = dense(state, f"layers.{j}.linear")(h)
        share = state[f"layers.{j}.activation.share"][0, 0]
        h = h + share * (nn.SELU()(h) - h)
    close(module(x)[0], dense(state, "head")(h))


def test_realmlp_has_mish_activations_for_regression(regression, x):
    module = built("realmlp-td-s", regression).eval()
    state = module.net.state_dict()
    h = torch.cat(plain_rows(x, regression), dim=1)
    h = h * state["layers.0.linear.input_scale"][0, :, 0]
    for j in range(3):
        h = nn.Mish()(dense(state, f"layers.{j}.linear")(h))
    close(module(x)[0], dense(state, "head")(h))
    units = built("realmlp-td", regression).net.layers[0].activation
    nn.init.ones_(units.share)
    assert units.share.shape == (1, 1, 256)
    rows = torch.randn(1, 5, 256)
    close(units(rows), nn.Mish()(rows))


def test_tabm_mini_equals_one_network_with_adapters_and_heads(task, x):
    module = built("tabm-mini", task).eval()
    state = module.net.state_dict()
    _, *rest = plain_rows(x, task)
    parts = []
    for j in range(N_NUMBERS):
        line = quantile_normal(x, task)[:, [j]] * state["inputs.numeric.slope"][0, 0, j]
        low, high = torch.from_numpy(task.edges[j]).unfold(0, 2, 1).T
        codes = 2 * ((x[:, [j]] - low) / (high - low)).clamp(0, 1) - 1
        projected = codes @ state["inputs.numeric.mixing"][0, j]
        parts.append(line + state["inputs.numeric.shift"][0, 0, j] + projected)
    rows = torch.cat([*parts, *rest], dim=1)
    assert rows.shape[1] == ONE_HOT + 15 * N_NUMBERS
    probabilities = []
    shared = [dense(state, f"layers.{j}.linear") for j in range(2)]
    for m in range(32):
        h = rows * state["adapters.factor"][0, m, 0]
        h = h * state["layers.0.linear.input_scale"][0, :, 0]
        for layer in shared:
            h = nn.ReLU()(layer(h))
        logits = h @ state["head.weight"][0, m] + state["head.bias"][0, m]
        probabilities.append(logits.softmax(dim=1))
    expected = torch.stack(probabilities).mean(dim=0)
    close(module(x)[0].softmax(dim=1), expected)


class Block(nn.Module):
    """A block of the published ResNet, without dropout."""

    def __init__(self, state, name, width):
        super().__init__()
        self.norm = batch_norm(state, f"{name}.normalisation", width)
        self.first = dense(state, f"{name}.first")
        self.second = dense(state, f"{name}.second")

    def forward(self, x):
        return x + self.second(torch.relu(self.first(self.norm(x))))


def batch_norm(state, name, width):
    norm = nn.BatchNorm1d(width)
    norm.weight.data = state[f"{name}.scale"][0, 0]
    norm.bias.data = state[f"{name}.shift"][0, 0]
    return norm


def test_resnet_equals_pre_normalised_blocks(task, x):
    module = built("resnet", task)
    state = {name: t.detach().clone() for name, t in module.net.state_dict().items()}
    reference = nn.Sequential(
        dense(state, "layers.0"),
        Block(state, "layers.1", 128),
        Block(state, "layers.2", 128),
        batch_norm(state, "layers.3", 128),
        nn.ReLU(),
        dense(state, "head"),
    )
    _, *rest = plain_rows(x, task, vectors(state))
    rows = torch.cat([quantile_normal(x, task), *rest], dim=1)
    rows = rows * state["layers.0.input_scale"][0, :, 0]
    for dropout in (m for m in module.modules() if isinstance(m, Dropout)):
        dropout.set_strength(0.0)
    for _ in range(20):  # training mode: batch statistics
        close(module.train()(x)[0], reference.train()(rows))
    # Running variances of torch are unbiased, those of the group are biased.
    for own, other in zip(
        (m for m in module.modules() if hasattr(m, "variance")),
        (m for m in reference.modules() if isinstance(m, nn.BatchNorm1d)),
        strict=True,
    ):
        close(own.mean[0, 0], other.running_mean)
        other.running_var = own.variance[0, 0].clone()
    close(module.eval()(x)[0], reference.eval()(rows))


def test_resnet_drops_hidden_units_and_branches(task):
    blocks = built("resnet", task).net.layers[1:3]
    for block in blocks:
        assert block.inner.runs == [(0.25, 1)]
        assert block.outer.runs == [(pytest.approx(0.1), 1)]


def test_mlp_equals_three_layers(task, x):
    module = built("mlp", task).eval()
    state = module.net.state_dict()
    _, *rest = plain_rows(x, task, vectors(state))
    rows = torch.cat([quantile_normal(x, task), *rest], dim=1)
    layers = []
    for j in range(3):
        layers += [dense(state, f"layers.{j}.linear"), nn.ReLU()]
    reference = nn.Sequential(*layers, dense(state, "head"))
    scale = state["layers.0.linear.input_scale"][0, :, 0]
    close(module(x)[0], reference(rows * scale))


def test_linear_is_linear(task, x):
    module = built("linear", task).eval()
    state = module.net.state_dict()
    rows = torch.cat(plain_rows(x, task), dim=1)
    close(module(x)[0], dense(state, "head")(rows * state["head.input_scale"][0, :, 0]))


# ------------------------------------------------------------------ published training


def rates(name, task):
    """Return the optimizer of a published network and its rate per parameter."""
    architecture = TableSpace().named(name, task)
    module = built(name, task)
    optimizer = Optimizer(module.net, [architecture])
    names = [name for name, _ in module.net.named_parameters()]
    return optimizer, dict(zip(names, map(float, optimizer.rates), strict=True))


@pytest.mark.parametrize("name", ["realmlp-td-s", "realmlp-td"])
@pytest.mark.parametrize("kind", ["multiclass", "regression"])
def test_realmlp_has_the_published_learning_rates(task, name, kind):
    task = replace(task, kind=kind)
    optimizer, own = rates(name, task)
    lr = {"multiclass": 0.04, "regression": 0.2 if name == "realmlp-td" else 0.07}[kind]
    n_inputs = ONE_HOT if name == "realmlp-td-s" else EMBEDDED + 9
    assert own["layers.0.linear.input_scale"] == pytest.approx(6 * lr)
    assert own["layers.0.linear.weight"] == pytest.approx(lr / math.sqrt(n_inputs))
    assert own["layers.1.linear.weight"] == pytest.approx(lr / 16)
    assert own["head.weight"] == pytest.approx(lr / 16)
    for layer in ("layers.0.linear", "layers.2.linear", "head"):
        assert own[f"{layer}.bias"] == pytest.approx(lr / 10)
    if name == "realmlp-td":
        assert own["layers.0.activation.share"] == pytest.approx(lr / 10)
        for part in ("frequency", "phase", "mixing", "shift"):
            assert own[f"inputs.numeric.{part}"] == pytest.approx(lr / 10)
        assert own["inputs.embedding.vectors"] == pytest.approx(lr)
    assert (optimizer.kind, optimizer.recipe.beta2) == ("adamw", 0.95)
    assert optimizer.recipe.is_scheduled and not optimizer.recipe.is_clipped
    assert optimizer.is_decaying is (name == "realmlp-td")


@pytest.mark.parametrize("name", ["tabm-mini", "resnet", "mlp"])
def test_other_published_networks_have_a_constant_learning_rate(task, name):
    optimizer, own = rates(name, task)
    lr = 2e-3 if name == "tabm-mini" else 1e-3
    scale = next(n for n in own if n.endswith("input_scale"))
    assert own.pop(scale) == 0.0  # these networks have no input scales
    assert list(own.values()) == pytest.approx([lr] * len(own))
    assert (optimizer.kind, optimizer.recipe.beta2) == ("adamw", 0.999)
    assert optimizer.recipe.is_clipped and not optimizer.recipe.is_scheduled
    assert optimizer.is_decaying


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["multiclass", "regression"])
def test_training_reduces_the_loss_of_published_networks(task, x, name, kind):
    task = replace(task, kind=kind)
    architecture = TableSpace().named(name, task)
    torch.manual_seed(0)
    module = built(name, task, is_random=False)
    initialize_weights(module.net, find_recipe(architecture).init, module.features(x))
    if name == "realmlp-td-s":
        assert not module(x).any()
    optimizer = Optimizer(module.net, [architecture])
    target = torch.randn(1, len(x), 3)
    target = target.repeat(1, architecture["packing"], 1)
    losses = []
    for step in range(30):
        optimizer.prepare((step + 0.5) / 30, 1)
        optimizer.zero_grad()
        loss = (module.train()(x) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(map(math.isfinite, losses)) and losses[-1] < losses[0]


# --------------------------------------------------------------------------- portfolio


def keys(architectures):
    return [architecture.key for architecture in architectures]


def test_known_architectures_are_in_the_space():
    space = TableSpace()
    for point in KNOWN:
        assert point.items() <= dict(space.fill(point)).items()
        assert set(point) <= set(space.fill(point))
    listed = keys(map(space.fill, KNOWN))
    assert len(set(listed)) == len(listed)


def test_portfolio_without_a_task_is_the_default_and_known_architectures():
    space = TableSpace()
    default, *others = space.portfolio(None)
    assert default == space.default_architecture()
    assert keys(others) == keys(map(space.fill, KNOWN))


def test_portfolio_has_the_batch_size_of_the_task(task):
    task = replace(task, n_rows=50_000)
    space = TableSpace()
    default, *others = space.portfolio(task)
    batches = {"batch_size": 512}
    assert default == space.for_task(task).fill(batches)
    assert keys(others) == keys(space.fill(p | batches) for p in KNOWN)


@pytest.mark.parametrize(
    ("n_rows", "n_bins"), [(20, {8}), (300, {8, 16}), (767, {16}), (768, {16, 48})]
)
def test_small_tables_have_fewer_bins(task, n_rows, n_bins):
    task = replace(task, n_rows=n_rows)
    own = TableSpace().for_task(task)
    portfolio = TableSpace().portfolio(task)
    used = {a["n_bins"] for a in portfolio if "n_bins" in a}
    assert used == (n_bins if n_rows != 300 else {16})
    assert len(set(keys(portfolio))) == len(portfolio) > 10
    for architecture in portfolio:
        assert architecture == own.fill(architecture)
        assert architecture["batch_size"] == (256 if n_rows <= 256 else 64)


def test_known_architectures_that_become_equal_are_merged(task):
    minimal = replace(task, n_numeric=0, edges=np.zeros((0, 49), np.float32))
    one, other = ({**KNOWN[0], "n_bins": n_bins} for n_bins in (16, 48))

    class Own(TableSpace):
        known_architectures = ({}, one, other, {}, one)

    assert len(Own().portfolio(None)) == 3
    portfolio = Own().portfolio(minimal)
    assert len(portfolio) == 2
    assert all(a["numeric_embedding"] == "none" for a in portfolio)
    assert all("n_bins" not in a for a in portfolio)


def test_portfolio_has_larger_learning_rates_for_regression(task, regression):
    space = TableSpace()
    pairs = zip(space.portfolio(task), space.portfolio(regression), strict=True)
    for one, other in pairs:
        if "ntk_lr" in one:
            expected = min(2.5 * one["ntk_lr"], 0.4)
            assert other["ntk_lr"] == pytest.approx(expected)
        else:
            assert other["lr"] == one["lr"]
        assert other["label_smoothing"] == 0.0
        same = set(one) - {"ntk_lr", "label_smoothing"}
        assert all(one[name] == other[name] for name in same)
    slow = TableSpace(ntk_lr=(5e-3, 0.05)).portfolio(regression)
    rates = [a["ntk_lr"] for a in slow if "ntk_lr" in a]
    assert max(rates) == 0.05 and len(rates) > 5
    (fixed, *_) = TableSpace(ntk_lr=(0.3, 0.4)).portfolio(regression)
    assert fixed["ntk_lr"] == 0.3
    (fixed, *_) = TableSpace(ntk_lr=(0.01, 0.01)).portfolio(regression)
    assert fixed["ntk_lr"] == 0.01


@pytest.mark.parametrize(
    "changes", [{"probabilistic": True}, {"kind": "multilabel"}, {"kind": "regression"}]
)
def test_label_smoothing_is_only_used_for_scores_of_labels(task, changes):
    class Own(TableSpace):
        known_architectures = ({}, {"label_smoothing": 0.1, "depth": 3})

    assert [a["label_smoothing"] for a in Own().portfolio(task)] == [0.0, 0.1]
    plain = Own().portfolio(replace(task, **changes))
    assert [a["label_smoothing"] for a in plain] == [0.0, 0.0]


def test_portfolio_of_small_tables_begins_with_small_networks(task, regression):
    small = TableSpace().portfolio(replace(task, n_rows=999))
    depths = [a["depth"] for a in small[1:]]
    assert small[0]["depth"] == 2 and depths == sorted(depths) and depths[0] == 0
    large = TableSpace().portfolio(replace(task, n_rows=1_000))
    assert [a["depth"] for a in large[1:]] != depths
    slow, fast = (
        TableSpace().portfolio(replace(regression, n_rows=n))[0] for n in (999, 1_000)
    )
    assert slow["ntk_lr"] == small[0]["ntk_lr"] < fast["ntk_lr"]


@pytest.mark.parametrize("kind", ["multiclass", "regression"])
@pytest.mark.parametrize(
    "options",
    [
        {"recipe": ("uniform",)},
        {"recipe": ("constant", "normal")},
        {"optimizer": ("sgd",)},
        {"optimizer": ("rmsprop", "momentum")},
        {"depth": (0, 0)},
        {"depth": (3, 3)},
        {"numeric_embedding": ("none",)},
        {"numeric_embedding": ("periodic",)},
        {"n_bins": (8,)},
        {"activation": ("tanh",)},
        {"width": (64,), "dropout": (0.0, 0.25)},
        {"packing": (32,)},
        {"batch_size": (48,)},
    ],
    ids=str,
)
def test_portfolio_is_in_a_restricted_space(task, kind, options):
    task = replace(task, kind=kind)
    space = TableSpace(**options)
    portfolio = space.portfolio(task)
    assert 1 <= len(portfolio) == len(set(keys(portfolio)))
    own = space.for_task(task)
    for architecture in portfolio:
        assert own.fill(architecture) == architecture
    first = dict(own.default_architecture()) | {
        name: portfolio[0][name]
        for name in ("batch_size", "ntk_lr")
        if name in portfolio[0]
    }
    assert dict(portfolio[0]) == first
    held = [
        p
        for p in KNOWN
        if all(
            name in space.choices and space.choices[name].contains(value)
            for name, value in p.items()
        )
    ]
    assert len(portfolio) <= 1 + len(held)
    if "n_bins" not in options and "packing" not in options:
        assert len(portfolio) == 1 + len(held)
