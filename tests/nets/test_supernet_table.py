"""The supernet for tables, which contains all depths, widths and activations."""

from itertools import product

import numpy as np
import pytest
import torch
from torch.nn import functional

from sknas._problem import TaskSpec
from sknas.nets import MixtureWeights, TableInput
from sknas.nets._supernet_table import MIXED_CHOICES, TableSupernet, masked_layer_norm
from sknas.spaces import CellSpace, TableSpace
from sknas.strategies.gradient.alphas import Alphas
from sknas.strategies.gradient.relaxations import RELAXATIONS

SMALL = {"width": (4, 8, 16), "depth": (0, 3)}
CHOICES = {
    "depth": (0, 1, 2, 3),
    "width": (4, 8, 16),
    "block": ("plain", "skip"),
    "activation": ("relu", "tanh", "parametric-selu"),
    "normalisation": ("none", "layer", "batch"),
    "numeric_embedding": ("none", "piecewise", "projected", "periodic"),
}


def small_space(**changes):
    activation = CHOICES["activation"]
    return TableSpace(**{**SMALL, "activation": activation, **changes})


@pytest.fixture
def make(task):
    """Return a function that builds the supernet of a space from a fixed seed."""

    def make(task=task, **changes):
        torch.manual_seed(0)
        return small_space(**changes).supernet(task)

    return make


@pytest.fixture
def x(encoded_rows):
    return torch.from_numpy(encoded_rows)


def uniform_weights(net):
    """Return uniform mixture weights."""
    return {
        name: MixtureWeights(torch.full((len(d.options),), 1 / len(d.options)))
        for name, d in net.choices.items()
    }


def one_hot_weights(net, **chosen):
    """Return one-hot weights of the chosen options; the default is the first option."""
    weights = {}
    for name, choice in net.choices.items():
        index = choice.options.index(chosen.get(name, choice.options[0]))
        values = torch.zeros(len(choice.options))
        values[index] = 1.0
        weights[name] = MixtureWeights(values, computed=(index,))
    return weights


def all_computed(weights):
    """Return the same weights with all options computed."""
    return {name: MixtureWeights(w.values) for name, w in weights.items()}


# ----------------------------------------------------------------------- the choices


def test_supernet_has_the_choices_with_several_values(make):
    net = make()
    assert {name: d.options for name, d in net.choices.items()} == CHOICES
    assert not any(d.parameter_free or d.cell for d in net.choices.values())
    few = make(activation=("relu",), depth=(2, 2), block=("plain",))
    assert set(few.choices) == {"width", "normalisation", "numeric_embedding"}
    linear = make(depth=(0, 0))
    assert set(linear.choices) == {"numeric_embedding"}


def test_widths_of_weight_zero_are_excluded(task):
    net = TableSpace(depth=(1, 1)).supernet(task)
    assert net.choices["width"].options == (32, 64, 128, 256)
    assert TableSpace(width=(8, 512)).supernet(task).width == 512  # listed explicitly


def test_tables_without_numbers_have_no_numeric_embedding():
    task = TaskSpec("binary", 2, 100, n_binary=2, cardinalities=(3,))
    for embeddings in (CHOICES["numeric_embedding"], ("periodic",)):
        net = small_space(numeric_embedding=embeddings).supernet(task)
        assert "numeric_embedding" not in net.options
        assert net(torch.ones(5, 3), uniform_weights(net)).shape == (1, 5, 2)


def test_partial_channels_have_no_effect(task):
    torch.manual_seed(0)
    one = small_space().supernet(task)
    torch.manual_seed(0)
    four = small_space().supernet(task, partial_channels=4)
    pairs = zip(one.parameters(), four.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_space_that_overrides_build_has_no_supernet(task):
    class Own(TableSpace):
        def build(self, architecture, task):
            return super().build(architecture, task)

    with pytest.raises(ValueError, match="Own has no supernet"):
        Own().supernet(task)
    with pytest.raises(ValueError, match="CellSpace reads images"):
        CellSpace().supernet(task)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"depth": (0, 0)},
        {"depth": (2, 3), "block": ("resnet", "skip")},
        {"block": ("resnet",), "normalisation": ("layer",)},
        {"width": (8,), "numeric_embedding": ("projected",), "embedding_size": (4,)},
        {"numeric_scale": ("normal",), "n_bins": (8,)},
    ],
)
def test_every_combination_is_in_the_space(make, task, x, changes):
    net, space = make(**changes), small_space(**changes).for_task(task)
    assert net(x, uniform_weights(net)).shape == (1, len(x), 3)
    sizes = [range(len(d.options)) for d in net.choices.values()]
    for indices in product(*sizes):
        chosen = dict(zip(net.choices, indices, strict=True))
        values = net.architecture(chosen, {})
        architecture = space.fill(values)
        for name in net.choices:
            if name in architecture:
                assert architecture[name] == net.option(name, chosen)


def test_a_linear_network_uses_no_choices_of_hidden_layers(make):
    net = make()
    chosen = dict.fromkeys(net.choices, 0)
    assert set(net.used(chosen, {})) == {"depth", "numeric_embedding"}
    assert set(net.used({**chosen, "depth": 1}, {})) == set(CHOICES)


# ------------------------------------------------------------------------ the channels


def hidden(net, x, weights):
    """Return the outputs of the hidden layers and of the network."""
    seen = []
    hooks = [
        layer.register_forward_hook(lambda m, i, o: seen.append(o))
        for layer in net.layers
    ]
    output = net(x, weights)
    for hook in hooks:
        hook.remove()
    return seen, output


@pytest.mark.parametrize("normalisation", CHOICES["normalisation"])
@pytest.mark.parametrize("block", ["plain", "skip"])
def test_masks_change_only_the_masked_units(make, x, normalisation, block):
    net = make()
    options = {"depth": 3, "block": block, "normalisation": normalisation}
    options |= {"activation": "tanh"}
    narrow, _ = hidden(net, x, one_hot_weights(net, width=4, **options))
    wide, _ = hidden(net, x, one_hot_weights(net, width=8, **options))
    for layer in narrow:
        assert (layer[..., 4:] == 0).all() and (layer[..., :4] != 0).any()
    for layer in wide:
        assert (layer[..., 8:] == 0).all() and (layer[..., 4:8] != 0).any()
    if normalisation != "layer":  # layer normalisation depends on the width
        torch.testing.assert_close(narrow[0][..., :4], wide[0][..., :4])


def test_masked_units_have_no_gradient(make, x):
    net = make()
    _, output = hidden(
        net, x, one_hot_weights(net, depth=3, width=8, normalisation="layer")
    )
    output.square().sum().backward()
    for layer in net.layers[1:]:
        gradient = layer.linear.weight.grad[0]
        assert (gradient[8:] == 0).all() and (gradient[:, 8:] == 0).all()
        assert (gradient[:8, :8] != 0).any()
    gradient = net.heads["3"].weight.grad[0]
    assert (gradient[8:] == 0).all() and (gradient[:8] != 0).any()


def test_a_unit_is_weighted_by_the_widths_that_contain_it(make, x):
    net = make()
    weights = one_hot_weights(net, depth=1)
    weights["width"] = MixtureWeights(torch.tensor([0.5, 0.3, 0.2]))
    mixed, _ = hidden(net, x, weights)
    whole, _ = hidden(net, x, one_hot_weights(net, depth=1, width=16))
    share = torch.tensor([1.0] * 4 + [0.5] * 4 + [0.2] * 8)
    torch.testing.assert_close(mixed[0], whole[0] * share)


def test_masked_layer_norm_equals_that_of_a_narrow_layer():
    h = torch.randn(1, 7, 6, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0, 0.0])
    found = masked_layer_norm(h, mask)[..., :4]
    torch.testing.assert_close(found, functional.layer_norm(h[..., :4], (4,)))
    assert torch.isfinite(masked_layer_norm(h, torch.zeros(6))).all()


# ------------------------------------------------------------- one of its architectures


def plain_copy(net, space, task, **chosen):
    """Return the network of one architecture with the weights of the supernet."""
    architecture = space.fill(chosen)
    module = space.build(architecture, task).eval()
    index = net.options["numeric_embedding"].index(chosen["numeric_embedding"])
    inputs, first = net.first.operations[index]
    kind = net.options["activation"].index(chosen["activation"])
    c, depth = chosen["width"], chosen["depth"]
    plain = module.net
    with torch.no_grad():
        plain.inputs.load_state_dict(inputs.learnt.state_dict())
        columns = slice(net.width, None) if not depth else slice(0, c)
        linear = plain.layers[0].linear if depth else plain.head
        linear.weight.copy_(first.weight[..., columns])
        linear.bias.copy_(first.bias[..., columns])
        linear.input_scale.copy_(first.input_scale)
        for number, layer in enumerate(plain.layers):
            own = net.layers[number]
            if number:
                layer.linear.weight.copy_(own.linear.weight[:, :c, :c])
                layer.linear.bias.copy_(own.linear.bias[..., :c])
            if chosen["activation"].startswith("parametric"):
                share = own.activation.operations[kind].share
                layer.activation.share.copy_(share[..., :c])
        if depth:
            head = net.heads[str(depth)]
            plain.head.weight.copy_(head.weight[:, :c])
            plain.head.bias.copy_(head.bias)
    return module


@pytest.mark.parametrize("embedding", CHOICES["numeric_embedding"])
@pytest.mark.parametrize(
    "depth, width, block, activation, normalisation",
    [
        (0, 4, "plain", "relu", "none"),
        (1, 4, "plain", "relu", "none"),
        (2, 8, "plain", "tanh", "layer"),
        (3, 16, "skip", "parametric-selu", "batch"),
        (3, 4, "skip", "parametric-selu", "layer"),
        (2, 8, "plain", "parametric-selu", "none"),
    ],
)
def test_supernet_with_one_hot_weights_equals_the_network_of_the_architecture(
    make, task, x, embedding, depth, width, block, activation, normalisation
):
    space = small_space(n_bins=(8,), embedding_size=(4,), numeric_scale=("normal",))
    torch.manual_seed(0)
    net = space.supernet(task).eval()
    chosen = {
        "numeric_embedding": embedding,
        "depth": depth,
        "width": width,
        "block": block,
        "activation": activation,
        "normalisation": normalisation,
    }
    with torch.no_grad():  # so that no parameter is zero
        for parameter in (p for p in net.parameters() if p.requires_grad):
            parameter.add_(0.1 * torch.randn_like(parameter))
    plain = plain_copy(net, space, task, **chosen)
    weights = one_hot_weights(net, **chosen)
    torch.testing.assert_close(net(x, weights), plain(x), atol=1e-5, rtol=1e-4)
    all_options = net(x, all_computed(weights))
    torch.testing.assert_close(all_options, plain(x), atol=1e-5, rtol=1e-4)


def test_only_chosen_options_are_computed(make, x):
    net = make()
    n_calls = []
    parts = [*net.first.operations, *net.layers]
    for layer in net.layers:
        parts += layer.activation.operations
    for part in parts:
        part.register_forward_hook(lambda m, i, o: n_calls.append(m))
    net(x, one_hot_weights(net, depth=2))
    assert len(n_calls) == 1 + 2 + 2  # an embedding, two layers and their activations
    n_calls.clear()
    net(x, one_hot_weights(net, depth=0))
    assert len(n_calls) == 1
    n_calls.clear()
    net(x, uniform_weights(net))
    assert len(n_calls) == 4 + 3 + 3 * 3


# ------------------------------------------------------------------------- the training


def test_all_parameters_and_mixture_weights_have_gradients(make, x):
    net = make()
    weights = {
        name: MixtureWeights(w.values.requires_grad_())
        for name, w in uniform_weights(net).items()
    }
    net(x, weights).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        if parameter.requires_grad:
            assert torch.isfinite(parameter.grad).all() and (parameter.grad != 0).any()
    for w in weights.values():
        assert (w.values.grad != 0).all()


def test_normalisations_have_no_trainable_scale(make):
    net = make()
    fixed = [n for n, p in net.named_parameters() if not p.requires_grad]
    assert len(fixed) == 6 and all(".batch." in name for name in fixed)


@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_alphas_of_all_relaxations_have_gradients(make, x, relaxation):
    net = make()
    alphas = Alphas(net.choices, RELAXATIONS[relaxation], "cpu")
    torch.manual_seed(1)
    output = net(x, alphas.sample(alphas.vector, 1.0))
    (gradient,) = torch.autograd.grad(output.square().sum(), alphas.vector)
    assert torch.isfinite(gradient).all()
    depth = alphas.split(gradient)["depth"]
    assert (depth != 0).all()


def test_dropout_precedes_the_head(make, x):
    net = make(normalisation=("none",))
    weights = one_hot_weights(net, depth=1, activation="tanh")
    usual = net(x, weights)
    net.dropout = 0.9
    torch.manual_seed(0)
    assert not torch.equal(net(x, weights), usual)
    assert torch.equal(
        net(x, one_hot_weights(net, depth=0)), net(x, one_hot_weights(net, depth=0))
    )
    assert torch.equal(net.eval()(x, weights), usual)


def test_initial_outputs_are_near_zero(make, x):
    net = make()
    for depth in CHOICES["depth"]:
        output = net(x, one_hot_weights(net, depth=depth, width=16, activation="tanh"))
        assert 0 < output.abs().max() < 0.5


def test_supernet_can_be_built_from_inputs_and_options(task, x):
    inputs = [TableInput(1, task, numeric_scale="normal")]
    options = {name: CHOICES[name][-1:] for name in MIXED_CHOICES}
    net = TableSupernet(inputs, 2, options)
    assert not net.choices and net(x, {}).shape == (1, len(x), 2)
    options = net.architecture({}, {})
    assert options["width"] == 16 and options["block"] == "skip"


def test_a_small_supernet_learns(task, x):
    """100 steps of Adam bring the training loss of 10 rows near zero."""
    torch.manual_seed(0)
    net = small_space().supernet(task)
    y = torch.from_numpy(np.arange(10) % 3)
    weights = uniform_weights(net)
    parameters = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=3e-3)
    for _ in range(100):
        loss = functional.cross_entropy(net(x, weights)[0], y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
