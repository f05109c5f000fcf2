"""The space of convolutional networks for images."""

import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from torch import nn

from sknas._problem import ImageSpec, Problem, Rows, RunContext, TaskSpec
from sknas._search.constraints import make_feasible
from sknas._search.function import FunctionTrainer
from sknas._search.loop import Search
from sknas._search.proposals import initial_design
from sknas.exceptions import InvalidParameterError
from sknas.nets import ConvNet, Dropout, ImageInput
from sknas.nets._conv import map_size
from sknas.spaces import SPACES, ImageSpace, Space, TableSpace
from sknas.spaces._image import MAX_WEIGHTS, channels_of
from sknas.strategies import STRATEGIES
from sknas.trainers import Training, train_network


def make_task(shape=(1, 8, 8), **changes):
    n_channels = shape[0]
    image = ImageSpec(
        shape, np.zeros(n_channels, np.float32), np.ones(n_channels, np.float32)
    )
    defaults = {"kind": "multiclass", "n_outputs": 3, "n_rows": 1_000}
    return TaskSpec(**defaults | changes, image=image)


def drawn(space, n=200, seed=0):
    return space.sample(n, np.random.default_rng(seed))


def buildable(space, task, n, seed=0):
    own = drawn(space, 4 * n, seed)
    return [a for a in own if space.is_buildable(a, task)][:n]


def values(space, name):
    return {architecture.get(name) for architecture in drawn(space)}


def raises_error_for(name, allowed, value):
    message = f"The {name!r} parameter of ImageSpace must be {allowed}, got {value!r}."
    return pytest.raises(InvalidParameterError, match=re.escape(message))


# ------------------------------------------------------------------------- parameters


def test_space_is_registered_and_reads_images():
    assert SPACES["image"] is ImageSpace
    assert (ImageSpace.reads, TableSpace.reads, Space.reads) == (
        "image",
        "table",
        "table",
    )
    with pytest.raises(InvalidParameterError, match="ImageSpace reads images"):
        ImageSpace().for_task(TaskSpec("binary", 2, 100, 3))


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("stages", [0, 2], "two ascending ints from 1 to 8"),
        ("stages", [3, 2], "two ascending ints from 1 to 8"),
        ("blocks", 2, "a tuple or list of one value or more"),
        ("blocks", [0], "a choice of ints from 1 to 16"),
        ("channels", [2.5], "a choice of ints from 1 to 2048"),
        ("growth", ["a"], "a choice of numbers from 0.25 to 8.0"),
        ("kernel_size", [0], "a choice of ints from 1 to 15"),
        ("pool_size", [1], "a choice of ints from 2 to 8"),
        ("shift", [-1], "a choice of ints from 0 to 64"),
        ("dropout", [1.0], "a choice of numbers from 0.0 to 0.95"),
        ("lr", [0.1, 0.01], "two ascending numbers from 1e-08 to 1.0"),
        ("pooling", ["mean"], "a choice of ('max', 'average', 'stride')"),
        ("head", ["flat"], "a choice of ('average', 'dense')"),
        ("flip", ["yes"], "a choice of (False, True)"),
        ("normalisation", ["layer"], "a choice of ('none', 'batch', 'group')"),
        (
            "block",
            ["dense"],
            "a choice of ('plain', 'residual', 'separable', 'inverted')",
        ),
    ],
)
def test_wrong_parameters_raise_an_error(name, value, allowed):
    with raises_error_for(name, allowed, value):
        _ = ImageSpace(**{name: value}).choices


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("blocks", (2,)),
        ("channels", (24, 12)),
        ("growth", (1, 1.25)),
        ("kernel_size", (3, 4, 5, 6, 7)),
        ("stem", (False,)),
        ("block", ("inverted", "plain")),
        ("pooling", ("stride",)),
        ("activation", ("tanh", "sigmoid")),
        ("flip", (True,)),
        ("cutout", (True, False)),
        ("optimizer", ("sgd", "rmsprop")),
    ],
)
def test_only_listed_values_are_drawn(name, options):
    space = ImageSpace(**{name: options, "stages": (2, 3)})
    assert values(space, name) == set(options)
    assert space.default_architecture()[name] in options


def test_choices_are_active_only_if_they_have_an_effect():
    space = ImageSpace(optimizer=("adamw", "momentum"))
    for a in drawn(space):
        for name in ("stem", "growth", "pooling", "pool_size"):
            assert (name in a) == (a["stages"] > 1)
        assert ("lr" in a) == (a["optimizer"] == "adamw")
        assert ("sgd_lr" in a) == (a["optimizer"] == "momentum")
    assert not {"growth", "pooling"} & set(ImageSpace(stages=(1, 1)).choices)
    assert "sgd_lr" not in ImageSpace(optimizer=("adamw",)).choices


def test_listed_values_have_equal_weights():
    usual, own = ImageSpace().choices, ImageSpace(kernel_size=(7, 5, 3)).choices
    assert usual["kernel_size"].weights == [1.0, 0.5, 0.2]
    assert own["kernel_size"].weights is None
    assert own["block"].weights == usual["block"].weights == [1.0, 1.0, 1.0, 0.6]
    sigmoid = [a["activation"] for a in drawn(ImageSpace(), 500)].count("sigmoid")
    assert 0 < sigmoid < 50


def test_portfolio_has_no_flips():
    for task in (None, make_task(), make_task((3, 64, 64))):
        for a in ImageSpace().portfolio(task):
            assert (a["flip"], a["cutout"]) == (False, False) and a["shift"] > 0
    assert values(ImageSpace(), "flip") == {False, True}


def test_networks_of_2_to_10_convolutions_are_drawn():
    task, reached = make_task((1, 32, 32)), set()
    space = ImageSpace(channels=(4,), growth=(1.0,), pool_size=(2,))
    for a in drawn(space, 150):
        net = space.build(a, task)
        reached.add(sum(isinstance(m, nn.Conv2d) for m in net.modules()))
    assert set(range(2, 11)) <= reached


# ------------------------------------------------------------------------- for_task


@pytest.mark.parametrize(
    ("shape", "options", "stages", "sizes", "shifts"),
    [
        ((1, 8, 8), {}, (1, 4), [2, 3, 4], [0, 1]),
        ((1, 7, 30), {}, (1, 3), [2, 3, 4], [0]),
        ((1, 28, 28), {}, (1, 4), [2, 3, 4], [0, 1, 2]),
        ((3, 32, 32), {}, (1, 4), [2, 3, 4], [0, 1, 2, 4]),
        ((1, 3, 3), {}, (1, 2), [2, 3], [0]),
        ((1, 1, 1), {}, (1, 1), (2, 3, 4), [0]),
        ((1, 8, 8), {"stages": (3, 6)}, (3, 4), [2], [0, 1]),
        ((1, 8, 8), {"shift": (2, 3), "pool_size": (3,)}, (1, 2), [3], [2]),
    ],
)
def test_for_task_drops_stages_and_pool_sizes_that_leave_no_pixel(
    shape, options, stages, sizes, shifts
):
    own = ImageSpace(**options).for_task(make_task(shape))
    assert own.stages == stages
    assert list(own.pool_size) == list(sizes) and list(own.shift) == shifts
    default = own.default_architecture()
    assert own.is_buildable(default, make_task(shape))
    assert repr(own.for_task(make_task(shape))) == repr(own)


def test_images_too_small_for_all_stages_raise_an_error():
    allowed = "stages that leave a pixel of images of 8 x 9"
    with raises_error_for("stages", allowed, (5, 6)):
        ImageSpace(stages=(5, 6)).for_task(make_task((1, 8, 9)))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (0.0, 0.05, 0.1)),
        ({"probabilistic": True}, (0.0,)),
        ({"kind": "multilabel"}, (0.0,)),
        ({"kind": "regression"}, (0.0,)),
    ],
)
def test_label_smoothing_is_only_used_for_scores_of_labels(changes, expected):
    own = ImageSpace().for_task(make_task(**changes))
    assert tuple(own.label_smoothing) == expected


@pytest.mark.parametrize(
    ("n_rows", "sizes"), [(50, (64,)), (1_000, (32, 64, 128)), (60_000, (64, 128, 256))]
)
def test_batch_sizes_are_near_the_default_for_the_number_of_rows(n_rows, sizes):
    own = ImageSpace(batch_size=(32, 64, 128, 256, 512)).for_task(
        make_task(n_rows=n_rows)
    )
    assert own.batch_size == sizes


def test_portfolio_consists_of_the_default_and_known_architectures():
    task = make_task((1, 28, 28), n_rows=10_000)
    portfolio = ImageSpace().portfolio(task)
    words = [ImageSpace().describe(a) for a in portfolio]
    default = dict(ImageSpace().default_architecture())
    assert portfolio[0] == default | {"batch_size": 128}
    assert [text.split(",")[0] for text in words] == [
        "3 stages of 2 convolutions",
        "3 stages of 1 residual block",
        "3 stages of 2 convolutions",
        "3 stages of 1 convolution",
        "3 stages of 2 separable convolutions",
        "2 stages of 1 convolution",
    ]
    assert [channels_of(a)[0] for a in portfolio] == [32, 16, 16, 32, 32, 32]
    assert {a["batch_size"] for a in portfolio} == {128}
    assert portfolio[-1]["head"] == "dense" and portfolio[-1]["kernel_size"] == 5
    narrow = ImageSpace(block=("residual",), channels=(8,), stages=(1, 2))
    # Known architectures outside the space are excluded.
    assert len(narrow.portfolio(task)) == 1


# ---------------------------------------------------------------------- is_buildable


def test_architectures_with_empty_maps_are_not_buildable():
    space, task = ImageSpace(), make_task((1, 8, 20))
    for a in drawn(space, 300):
        side = map_size((1, 8, 20), a["stages"], a.get("pool_size", 1))
        if min(side) == 0:
            assert not space.is_buildable(a, task)
            with pytest.raises(InvalidParameterError, match="keep a pixel"):
                space.build(a, task)
    assert not space.is_buildable(space.fill({"stages": 4, "pool_size": 3}), task)
    assert space.is_buildable(space.fill({"stages": 4, "pool_size": 2}), task)


def test_buildable_networks_have_at_most_about_3_million_weights():
    space, task = ImageSpace(), make_task((3, 32, 32))
    large = {"stages": 4, "blocks": 3, "channels": 64, "kernel_size": 7}
    for block in space.block:
        sizes = []
        for a in buildable(clone(space).set_params(block=(block,)), task, 20):
            sizes.append(space.n_params(a, task))
        assert max(sizes) < 1.3 * MAX_WEIGHTS
    assert not space.is_buildable(space.fill(large | {"block": "residual"}), task)
    assert space.is_buildable(space.fill(large | {"block": "separable"}), task)
    # The limit does not apply if all listed networks are larger.
    own = {name: [value] for name, value in large.items() if name != "stages"}
    own = ImageSpace(stages=(4, 4), block=("residual",), pool_size=(2,), **own)
    assert all(own.is_buildable(a, task) for a in drawn(own, 20))


@pytest.mark.parametrize("strategy", sorted(set(STRATEGIES) - {"gradient"}))
def test_unbuildable_architectures_are_never_proposed(strategy):
    space, task = ImageSpace(pool_size=(2, 3, 4, 5)), make_task((1, 8, 8))
    assert np.mean([space.is_buildable(a, task) for a in drawn(space)]) < 0.8
    feasible = make_feasible("NASClassifier", None, space, task)
    tried = []
    search = Search(
        space=space,
        strategy=STRATEGIES[strategy](),
        trainer=FunctionTrainer(lambda a: tried.append(a) or a["stages"]),
        problem=Problem(feasible=feasible),
        context=RunContext(),
        max_trials=20,
        deadline=lambda history: None,
    )
    history = search.run(initial_design(space, task, feasible))
    assert len(history) == len(tried) == 20
    assert all(space.is_buildable(a, task) for a in tried)


def test_costs_of_unbuildable_architectures_are_not_computed(monkeypatch):
    space, task = ImageSpace(), make_task((1, 8, 8))
    asked = []
    monkeypatch.setattr(ImageSpace, "latency", lambda self, a, t: asked.append(a) or 0)
    for constraints in ({"latency": 1}, lambda a: asked.append(a) or True):
        feasible = make_feasible("NASClassifier", constraints, space, task)
        large = space.fill({"stages": 4, "pool_size": 4})
        assert not feasible(large) and feasible(space.default_architecture())
        assert large not in asked and asked
    # Without a task, the image size is unknown.
    assert make_feasible("search", None, space, None)(large)


# ---------------------------------------------------------------------------- networks


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 16, 16)], ids=str)
def test_outputs_and_gradients_of_buildable_networks_are_finite(shape):
    task = make_task(shape, n_outputs=4)
    own = ImageSpace(channels=(4, 8)).for_task(task)
    x = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (4, *shape), dtype=np.uint8)
    )
    architectures = buildable(own, task, 50)
    assert len(architectures) == 50
    for architecture in architectures:
        torch.manual_seed(0)
        net = own.build(architecture, task)
        outputs = net(x)
        assert outputs.shape == (1, 4, 4) and torch.isfinite(outputs).all()
        outputs.square().sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in net.parameters())


def test_networks_have_the_layers_of_the_architecture():
    space, task = ImageSpace(), make_task((3, 32, 32))
    options = {"stages": 2, "blocks": 3, "channels": 8, "growth": 1.5, "block": "plain"}
    options |= {"stem": False}
    options |= {"kernel_size": 5, "pooling": "average", "pool_size": 3, "dropout": 0.25}
    options |= {"activation": "gelu", "normalisation": "group", "head": "dense"}
    options |= {"flip": True, "shift": 4, "cutout": True}
    net = space.build(space.fill(options), task)
    assert isinstance(net, ConvNet) and isinstance(net.inputs, ImageInput)

    def layers_of(kind):
        return [m for m in net.modules() if isinstance(m, kind)]

    inside = [
        (c.in_channels, c.out_channels, *c.kernel_size) for c in layers_of(nn.Conv2d)
    ]
    assert inside == [
        *((3, 8, 5, 5), (8, 8, 5, 5), (8, 8, 5, 5)),
        *((8, 12, 5, 5), (12, 12, 5, 5), (12, 12, 5, 5)),
    ]
    assert [m.kernel_size for m in layers_of(nn.AvgPool2d)] == [3]
    assert len(layers_of(nn.GELU)) == 7 and len(layers_of(nn.GroupNorm)) == 6
    assert [m.runs for m in layers_of(Dropout)] == [[(0.25, 1)]] * 2
    assert (net.inputs.flip, net.inputs.shift, net.inputs.cutout) == (1, 4, 1)


def test_structure_contains_only_choices_that_affect_costs():
    space, task = ImageSpace(), make_task((1, 16, 16))
    default = space.default_architecture()
    cheap = {"dropout": 0.5, "flip": True, "shift": 0, "lr": 0.02, "batch_size": 32}
    assert space.structure(space.fill(cheap)) == space.structure(default)
    sizes = {}
    for a in buildable(ImageSpace(channels=(4, 8)).for_task(task), task, 60):
        sizes.setdefault(space.structure(a), set()).add(space.n_params(a, task))
    assert all(len(each) == 1 for each in sizes.values()) and len(sizes) > 40

    class Own(ImageSpace):
        def build(self, architecture, task):
            return super().build(architecture, task)

    assert Own().structure(space.fill(cheap)) != Own().structure(default)


def test_latency_grows_with_the_network():
    space, task = ImageSpace(channels=(2, 32), stages=(1, 1)), make_task((1, 12, 12))
    small, large = (space.fill({"channels": c, "blocks": c // 16 + 1}) for c in (2, 32))
    assert 0 < space.latency(small, task) < space.latency(large, task)


@pytest.mark.parametrize("block", ImageSpace().block)
def test_stem_replaces_the_first_stage_by_one_convolution(block):
    task = make_task((1, 16, 16))
    options = {"block": block, "blocks": 2, "stages": 3, "channels": 4}
    space, sides = ImageSpace(channels=(4,)), {}
    for stem in (False, True):
        net = space.build(space.fill(options | {"stem": stem}), task).eval()
        maps = []
        note = partial(lambda maps, m, x, y: maps.append(y.shape[-1]), maps)
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d):
                layer.register_forward_hook(note)
        net(torch.zeros(2, 1, 16, 16))
        sides[stem] = [maps.count(side) for side in (16, 8, 4)]
    assert sides[True][0] == 1 < sides[False][0]
    assert sides[True][1:] == sides[False][1:]


END = ", trained by AdamW at a learning rate of 0.01, batches of 64, weight decay 0.05"
DESCRIPTIONS = [
    (
        {},
        "3 stages of 2 convolutions, the first of one convolution, 32-64-128 channels, "
        "kernel 3, max pooling by 2, ReLU, batch normalisation, average head, images "
        f"shifted by 2{END}",
    ),
    (
        {
            **{"stages": 2, "blocks": 2, "block": "residual", "channels": 16},
            **{
                "stem": False,
                "growth": 1.5,
                "pooling": "stride",
                "pool_size": 4,
                "flip": True,
            },
            **{"normalisation": "none", "head": "dense", "dropout": 0.25, "shift": 0},
        },
        "2 stages of 2 residual blocks, 16-24 channels, kernel 3, strided convolutions "
        f"by 4, ReLU, dense head, dropout 0.25, images flipped{END}",
    ),
    (
        {
            **{"stages": 1, "block": "inverted", "kernel_size": 7, "channels": 8},
            **{"activation": "sigmoid", "normalisation": "group", "cutout": True},
            **{"optimizer": "momentum", "batch_size": 32, "label_smoothing": 0.1},
        },
        "1 stage of 2 inverted bottlenecks, 8 channels, kernel 7, sigmoid, group "
        "normalisation, average head, images shifted by 2 and cut out, trained by SGD "
        "with momentum at a learning rate of 0.3, batches of 32, weight decay 0.05, "
        "label smoothing 0.1",
    ),
]


@pytest.mark.parametrize(("options", "expected"), DESCRIPTIONS)
def test_descriptions_omit_inactive_choices(options, expected):
    space = ImageSpace()
    assert space.describe(space.fill(options)) == expected


# ---------------------------------------------------------------------------- learning


@pytest.fixture(scope="module")
def digits():
    """Return 400 training rows, the other images and labels, and the task."""
    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(X))
    X, y = X[order].reshape(-1, 1, 8, 8).astype(np.uint8), y[order]
    train = Rows(X[:400], y[:400], np.ones(400))
    mean, deviation = np.float32(train.x.mean()), np.float32(train.x.std())
    image = ImageSpec((1, 8, 8), np.array([mean]), np.array([deviation]))
    return train, X[400:], y[400:], TaskSpec("multiclass", 10, 400, image=image)


def trained(task, train, x, n_steps=150, **choices):
    space = ImageSpace(activation=("relu", "sigmoid")).for_task(task)
    architecture = space.fill(choices)
    training = Training(space, architecture, task, n_steps, None, seed=0)
    return train_network(training, train, x).snapshots[-1].output


def test_the_default_network_learns_digits(digits):
    train, x, y, task = digits
    outputs = trained(task, train, x)
    assert (outputs.argmax(axis=1) == y).mean() > 0.93


@pytest.mark.parametrize(
    "choices",
    [
        {"block": "residual"},
        {"block": "inverted", "optimizer": "momentum"},
        {"block": "separable", "normalisation": "group", "pooling": "average"},
        {"activation": "sigmoid", "pooling": "stride", "dropout": 0.25},
        {"normalisation": "none", "head": "dense"},
    ],
    ids=str,
)
def test_networks_of_each_kind_learn_digits(digits, choices):
    train, x, y, task = digits
    usual = {"channels": 16}
    outputs = trained(task, train, x, n_steps=100, **usual | choices)
    assert (outputs.argmax(axis=1) == y).mean() > 0.7


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_networks_learn_regression(digits, activation):
    train, x, y, task = digits
    task = replace(task, kind="regression", n_outputs=1)
    numbers = ((train.y - 4.5) / 2.9).astype(np.float32)[:, None]
    train = Rows(train.x, numbers, train.weight)
    outputs = trained(task, train, x, 100, activation=activation, channels=16)[:, 0]
    assert np.corrcoef(outputs, y)[0, 1] > 0.7
