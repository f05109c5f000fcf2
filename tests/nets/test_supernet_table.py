"""The network for tables that holds all depths, widths and kinds of units."""

from itertools import product

import numpy as np
import pytest
import torch
from torch.nn import functional

from sknas._problem import TaskSpec
from sknas.nets import MixtureWeights, TableInput
from sknas.nets._supernet_table import DECIDED, TableSupernet, masked_layer_norm
from sknas.spaces import CellSpace, TableSpace
from sknas.strategies.gradient.alphas import Alphas
from sknas.strategies.gradient.relaxations import RELAXATIONS

SMALL = {"width": (4, 8, 16), "depth": (0, 3)}
DECISIONS = {
    "depth": (0, 1, 2, 3),
    "width": (4, 8, 16),
    "block": ("plain", "skip"),
    "activation": ("relu", "tanh", "parametric-selu"),
    "normalisation": ("none", "layer", "batch"),
    "numeric_embedding": ("none", "piecewise", "projected", "periodic"),
}


def small_space(**changes):
    activation = DECISIONS["activation"]
    return TableSpace(**{**SMALL, "activation": activation, **changes})


@pytest.fixture
def make(task):
    """A relaxed network of a space, from a fixed seed."""

    def make(task=task, **changes):
        torch.manual_seed(0)
        return small_space(**changes).supernet(task)

    return make


@pytest.fixture
def x(encoded_rows):
    return torch.from_numpy(encoded_rows)


def even(net):
    """The same weight for all options."""
    return {
        name: MixtureWeights(torch.full((len(d.options),), 1 / len(d.options)))
        for name, d in net.decisions.items()
    }


def only(net, **chosen):
    """All weight on one option of each decision, the first where none is given."""
    weights = {}
    for name, decision in net.decisions.items():
        place = decision.options.index(chosen.get(name, decision.options[0]))
        values = torch.zeros(len(decision.options))
        values[place] = 1.0
        weights[name] = MixtureWeights(values, computed=(place,))
    return weights


def dense(weights):
    """The same weights, all options computed."""
    return {name: MixtureWeights(w.values) for name, w in weights.items()}


# ----------------------------------------------------------------------- the decisions


def test_decisions_are_the_choices_of_more_than_one_value(make):
    net = make()
    assert {name: d.options for name, d in net.decisions.items()} == DECISIONS
    assert not any(d.passing or d.group for d in net.decisions.values())
    few = make(activation=("relu",), depth=(2, 2), block=("plain",))
    assert set(few.decisions) == {"width", "normalisation", "numeric_embedding"}
    linear = make(depth=(0, 0))
    assert set(linear.decisions) == {"numeric_embedding"}


def test_widths_that_are_never_drawn_are_left_out(task):
    net = TableSpace(depth=(1, 1)).supernet(task)
    assert net.decisions["width"].options == (32, 64, 128, 256)
    assert TableSpace(width=(8, 512)).supernet(task).width == 512  # asked for


def test_tables_without_numbers_have_no_embedding_of_them():
    task = TaskSpec("binary", 2, 100, n_binary=2, cardinalities=(3,))
    for embeddings in (DECISIONS["numeric_embedding"], ("periodic",)):
        net = small_space(numeric_embedding=embeddings).supernet(task)
        assert "numeric_embedding" not in net.options
        assert net(torch.ones(5, 3), even(net)).shape == (1, 5, 2)


def test_partial_channels_have_no_meaning(task):
    torch.manual_seed(0)
    one = small_space().supernet(task)
    torch.manual_seed(0)
    four = small_space().supernet(task, partial_channels=4)
    pairs = zip(one.parameters(), four.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_space_with_networks_of_its_own_needs_its_own_relaxed_one(task):
    class Own(TableSpace):
        def build(self, architectures, task):
            return super().build(architectures, task)

    with pytest.raises(ValueError, match="Own has no relaxed network"):
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
    assert net(x, even(net)).shape == (1, len(x), 3)
    sizes = [range(len(d.options)) for d in net.decisions.values()]
    for places in product(*sizes):
        chosen = dict(zip(net.decisions, places, strict=True))
        values = net.architecture(chosen, {})
        architecture = space.fill(values)
        for name in net.decisions:
            if name in architecture:
                assert architecture[name] == net.option(name, chosen)


def test_what_a_linear_network_does_not_depend_on_is_not_used(make):
    net = make()
    chosen = dict.fromkeys(net.decisions, 0)
    assert set(net.used(chosen, {})) == {"depth", "numeric_embedding"}
    assert set(net.used({**chosen, "depth": 1}, {})) == set(DECISIONS)


# ------------------------------------------------------------------------ the channels


def hidden(net, x, weights):
    """What each hidden layer answers."""
    seen = []
    hooks = [
        layer.register_forward_hook(lambda m, i, o: seen.append(o))
        for layer in net.layers
    ]
    answer = net(x, weights)
    for hook in hooks:
        hook.remove()
    return seen, answer


@pytest.mark.parametrize("normalisation", DECISIONS["normalisation"])
@pytest.mark.parametrize("block", ["plain", "skip"])
def test_masks_change_only_the_masked_units(make, x, normalisation, block):
    net = make()
    told = {"depth": 3, "block": block, "normalisation": normalisation}
    told |= {"activation": "tanh"}
    narrow, _ = hidden(net, x, only(net, width=4, **told))
    wide, _ = hidden(net, x, only(net, width=8, **told))
    for layer in narrow:
        assert (layer[..., 4:] == 0).all() and (layer[..., :4] != 0).any()
    for layer in wide:
        assert (layer[..., 8:] == 0).all() and (layer[..., 4:8] != 0).any()
    if normalisation != "layer":  # which depends on how many units there are
        torch.testing.assert_close(narrow[0][..., :4], wide[0][..., :4])


def test_masked_units_have_no_gradient(make, x):
    net = make()
    _, answer = hidden(net, x, only(net, depth=3, width=8, normalisation="layer"))
    answer.square().sum().backward()
    for layer in net.layers[1:]:
        gradient = layer.linear.weight.grad[0]
        assert (gradient[8:] == 0).all() and (gradient[:, 8:] == 0).all()
        assert (gradient[:8, :8] != 0).any()
    gradient = net.heads["3"].weight.grad[0]
    assert (gradient[8:] == 0).all() and (gradient[:8] != 0).any()


def test_a_unit_counts_as_much_as_the_widths_that_have_it(make, x):
    net = make()
    weights = only(net, depth=1)
    weights["width"] = MixtureWeights(torch.tensor([0.5, 0.3, 0.2]))
    mixed, _ = hidden(net, x, weights)
    whole, _ = hidden(net, x, only(net, depth=1, width=16))
    share = torch.tensor([1.0] * 4 + [0.5] * 4 + [0.2] * 8)
    torch.testing.assert_close(mixed[0], whole[0] * share)


def test_a_masked_layer_norm_is_that_of_a_narrow_layer():
    h = torch.randn(1, 7, 6, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0, 0.0])
    found = masked_layer_norm(h, mask)[..., :4]
    torch.testing.assert_close(found, functional.layer_norm(h[..., :4], (4,)))
    assert torch.isfinite(masked_layer_norm(h, torch.zeros(6))).all()


# ------------------------------------------------------------- one of its architectures


def plain_copy(net, space, task, **chosen):
    """The network of one architecture, with the weights of the relaxed one."""
    architecture = space.fill(chosen)
    module = space.build([architecture], task).eval()
    place = net.options["numeric_embedding"].index(chosen["numeric_embedding"])
    inputs, first = net.first.operations[place]
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


@pytest.mark.parametrize("embedding", DECISIONS["numeric_embedding"])
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
def test_one_option_each_is_a_plain_network(
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
    with torch.no_grad():  # all that was drawn, not what starts at zero alone
        for parameter in (p for p in net.parameters() if p.requires_grad):
            parameter.add_(0.1 * torch.randn_like(parameter))
    plain = plain_copy(net, space, task, **chosen)
    weights = only(net, **chosen)
    torch.testing.assert_close(net(x, weights), plain(x), atol=1e-5, rtol=1e-4)
    everything = net(x, dense(weights))
    torch.testing.assert_close(everything, plain(x), atol=1e-5, rtol=1e-4)


def test_only_what_is_chosen_is_computed(make, x):
    net = make()
    n_calls = []
    parts = [*net.first.operations, *net.layers]
    for layer in net.layers:
        parts += layer.activation.operations
    for part in parts:
        part.register_forward_hook(lambda m, i, o: n_calls.append(m))
    net(x, only(net, depth=2))
    assert len(n_calls) == 1 + 2 + 2  # an embedding, two layers and their activations
    n_calls.clear()
    net(x, only(net, depth=0))
    assert len(n_calls) == 1
    n_calls.clear()
    net(x, even(net))
    assert len(n_calls) == 4 + 3 + 3 * 3


# ------------------------------------------------------------------------- the training


def test_all_parameters_and_all_weights_have_gradients(make, x):
    net = make()
    weights = {
        name: MixtureWeights(w.values.requires_grad_()) for name, w in even(net).items()
    }
    net(x, weights).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        if parameter.requires_grad:
            assert torch.isfinite(parameter.grad).all() and (parameter.grad != 0).any()
    for w in weights.values():
        assert (w.values.grad != 0).all()


def test_normalisations_have_no_scale_of_their_own(make):
    net = make()
    fixed = [n for n, p in net.named_parameters() if not p.requires_grad]
    assert len(fixed) == 6 and all(".batch." in name for name in fixed)


@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_logits_of_all_relaxations_have_gradients(make, x, relaxation):
    net = make()
    logits = Alphas(net.decisions, RELAXATIONS[relaxation], "cpu")
    torch.manual_seed(1)
    answer = net(x, logits.drawn(logits.flat, 1.0))
    (gradient,) = torch.autograd.grad(answer.square().sum(), logits.flat)
    assert torch.isfinite(gradient).all()
    depth = logits.split(gradient)["depth"]
    assert (depth != 0).all()


def test_features_before_the_last_layer_are_dropped(make, x):
    net = make(normalisation=("none",))
    weights = only(net, depth=1, activation="tanh")
    usual = net(x, weights)
    net.dropout = 0.9
    torch.manual_seed(0)
    assert not torch.equal(net(x, weights), usual)
    assert torch.equal(net(x, only(net, depth=0)), net(x, only(net, depth=0)))
    assert torch.equal(net.eval()(x, weights), usual)


def test_it_starts_near_the_mean_answer(make, x):
    net = make()
    for depth in DECISIONS["depth"]:
        answer = net(x, only(net, depth=depth, width=16, activation="tanh"))
        assert 0 < answer.abs().max() < 0.5


def test_it_can_be_made_of_inputs_alone(task, x):
    inputs = [TableInput(1, task, numeric_scale="normal")]
    options = {name: DECISIONS[name][-1:] for name in DECIDED}
    net = TableSupernet(inputs, 2, options)
    assert not net.decisions and net(x, {}).shape == (1, len(x), 2)
    told = net.architecture({}, {})
    assert told["width"] == 16 and told["block"] == "skip"


def test_a_small_one_learns(task, x):
    """A hundred steps of Adam bring the loss of ten rows near zero."""
    torch.manual_seed(0)
    net = small_space().supernet(task)
    y = torch.from_numpy(np.arange(10) % 3)
    weights = even(net)
    parameters = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=3e-3)
    for _ in range(100):
        loss = functional.cross_entropy(net(x, weights)[0], y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
