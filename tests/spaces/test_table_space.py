"""The space of networks for tables."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.base import clone

from sknas._training.optimizer import RECIPES
from sknas.exceptions import InvalidParameterError
from sknas.nets import BLOCKS, NUMERIC_EMBEDDINGS, TABLE_ACTIVATIONS
from sknas.spaces import TableSpace


def raises_error_for(name, allowed, value):
    message = f"The {name!r} parameter of TableSpace must be {allowed}, got {value!r}."
    return pytest.raises(InvalidParameterError, match=re.escape(message))


def drawn(space, n=200):
    return space.sample(n, np.random.default_rng(0))


def values(space, name):
    """Return the sampled values of a choice, with None if it is inactive."""
    return {architecture.get(name) for architecture in drawn(space)}


# ------------------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("width", 3, "a tuple or list of one value or more"),
        ("activation", "relu", "a tuple or list of one value or more"),
        ("dropout", (), "a tuple or list of one value or more"),
        ("width", [0], "a choice of ints from 1 to 8192"),
        ("width", [64.0], "a choice of ints from 1 to 8192"),
        ("dropout", ["a"], "a choice of numbers from 0.0 to 0.95"),
        ("dropout", [0.99], "a choice of numbers from 0.0 to 0.95"),
        ("weight_decay", [-0.1], "a choice of numbers from 0.0 to 10.0"),
        ("n_bins", [5], "a choice of divisors of 48"),
        ("depth", [-1, 2], "two ascending ints from 0 to 32"),
        ("depth", [3, 2], "two ascending ints from 0 to 32"),
        ("depth", [1.5, 2.5], "two ascending ints from 0 to 32"),
        ("depth", [2], "two ascending ints from 0 to 32"),
        ("packing", [0], "a choice of ints from 1 to 64"),
        ("packing", [True], "a choice of ints from 1 to 64"),
        ("scale_speed", [-1], "a choice of numbers from 0.0 to 100.0"),
        ("ntk_lr", [0.4, 0.1], "two ascending numbers from 1e-08 to 10.0"),
        ("sgd_lr", [0.1], "two ascending numbers from 1e-08 to 10.0"),
        ("lr", [0.0, 0.1], "two ascending numbers from 1e-08 to 1.0"),
        ("lr", ["a", "b"], "two ascending numbers from 1e-08 to 1.0"),
        ("batch_size", [32.5], "a choice of ints from 1 to 1000000"),
        ("embedding_size", [np.nan], "a choice of ints from 0 to 512"),
        ("activation", ["relu6"], f"a choice of {TABLE_ACTIVATIONS!r}"),
        ("normalisation", ["group"], "a choice of ('none', 'layer', 'batch')"),
        ("optimizer", ["adam"], "a choice of ('adamw', 'rmsprop', 'momentum', 'sgd')"),
        ("block", ["dense"], "a choice of ('plain', 'skip', 'resnet')"),
        ("recipe", ["slow"], f"a choice of {tuple(RECIPES)!r}"),
        ("numeric_scale", ["log"], "a choice of ('robust', 'normal')"),
        ("numeric_embedding", ["ple"], f"a choice of {NUMERIC_EMBEDDINGS!r}"),
    ],
)
def test_wrong_parameters_raise_an_error(name, value, allowed):
    with raises_error_for(name, allowed, value):
        _ = TableSpace(**{name: value}).choices


def test_wrong_parameters_raise_an_error_only_when_used():
    space = TableSpace(width="wide")
    assert clone(space).width == "wide"


def test_numpy_arrays_and_numbers_are_accepted():
    space = TableSpace(width=list(2 ** np.arange(4, 6)), depth=(np.int64(1), 2))
    for architecture in drawn(space, 20):
        assert architecture["width"] in (16, 32) and type(architecture["width"]) is int
        assert type(architecture["depth"]) is int


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("width", (16,)),
        ("activation", ("tanh", "relu")),
        ("activation", ("parametric-gelu", "silu")),
        ("block", ("skip", "resnet")),
        ("packing", (3,)),
        ("packing", (2, 8)),
        ("numeric_scale", ("normal",)),
        ("numeric_embedding", ("projected",)),
        ("embedding_size", (16, 0)),
        ("scale_speed", (1.0, 6)),
        ("recipe", ("constant",)),
        ("optimizer", ("sgd",)),
        ("weight_decay", (0.5, 0.25)),
    ],
)
def test_only_listed_values_are_drawn(name, options):
    more_options = {"optimizer": ("adamw",)} if name == "recipe" else {}
    space = TableSpace(**{name: options, "depth": (2, 3)} | more_options)
    assert values(space, name) == set(options)
    assert space.default_architecture()[name] in options


def test_samples_lie_within_both_bounds_of_a_range():
    options = {"recipe": ["constant", "fitted"], "ntk_lr": (0.1, 0.2)}
    space = TableSpace(depth=(2, 4), lr=(1e-3, 2e-3), optimizer=["adamw"], **options)
    assert values(space, "depth") == {2, 3, 4}
    assert all(1e-3 <= lr <= 2e-3 for lr in values(space, "lr") - {None})
    assert all(0.1 <= lr <= 0.2 for lr in values(space, "ntk_lr") - {None})


def test_the_default_is_the_listed_value_nearest_to_the_default_of_the_space():
    default = TableSpace(width=(8, 16), depth=(3, 4), dropout=(0.5, 0.3))
    default = default.default_architecture()
    assert (default["width"], default["depth"], default["dropout"]) == (16, 3, 0.3)


def test_set_params_changes_the_choices():
    space = TableSpace().set_params(depth=(1, 1))
    assert space.get_params()["depth"] == (1, 1)
    assert values(space, "depth") == {1}


# ------------------------------------------------------------------------- conditions


def test_conditional_choices_are_active_only_if_they_have_an_effect():
    space = TableSpace(optimizer=("rmsprop", "momentum"), depth=(0, 1))
    for a in [*drawn(space), *drawn(TableSpace())]:
        for name in ("width", "block", "activation", "normalisation", "dropout"):
            assert (name in a) == (a["depth"] > 0)
        coded = a["numeric_embedding"] in ("piecewise", "projected")
        assert ("n_bins" in a) == coded
        is_adaptive = a["optimizer"] in ("adamw", "rmsprop")
        assert ("recipe" in a) == is_adaptive
        is_ntk = a.get("recipe") in ("fitted", "normal")
        assert ("ntk_lr" in a) == is_ntk
        assert ("lr" in a) == (is_adaptive and not is_ntk)
        assert ("sgd_lr" in a) == (a["optimizer"] in ("momentum", "sgd"))


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ({"depth": (0, 0)}, {"width", "block", "activation", "dropout"}),
        ({"optimizer": ("sgd", "momentum")}, {"recipe", "ntk_lr", "lr"}),
        ({"optimizer": ("adamw",)}, {"sgd_lr"}),
        ({"recipe": ("uniform", "constant")}, {"ntk_lr"}),
        ({"recipe": ("normal",)}, {"lr"}),
        ({"numeric_embedding": ("none", "periodic")}, {"n_bins"}),
    ],
    ids=["linear", "sgd", "adamw", "plain", "ntk", "uncoded"],
)
def test_choices_whose_condition_cannot_hold_are_dropped(options, missing):
    space = TableSpace(**options)
    space.check()
    names = set(space.choices)
    assert not names & missing
    assert names | missing | {"normalisation"} == set(TableSpace().choices)


# ------------------------------------------------------------------------------- priors

NEVER = {"width": {512}, "packing": {4, 32}}  # expensive values, drawn only if listed


def test_values_of_weight_zero_are_never_drawn():
    space = TableSpace()
    for name, rare in NEVER.items():
        choice = space.choices[name]
        drawn_values = values(space, name)
        assert not drawn_values & rare
        assert all(choice.contains(value) for value in rare)
        assert drawn_values - {None} == set(choice.values()) - rare


def test_values_of_weight_zero_are_not_reached_by_neighbours(rng):
    space = TableSpace()
    at = [space.default_architecture(), *drawn(space, 4)]
    for _ in range(40):
        near = [space.neighbours(a, 3, rng) for a in at]
        for a, others in zip(at, near, strict=True):
            assert all(other.key != a.key for other in others)
            for name, rare in NEVER.items():
                assert not {other.get(name) for other in others} & rare
        at = [others[0] for others in near]


def test_a_value_of_weight_zero_has_other_values_as_neighbours(rng):
    space = TableSpace()
    packed = space.named("tabm-mini")
    near = space.neighbours(packed, 200, rng)
    assert {a["packing"] for a in near} == {1, 32}
    assert {a["width"] for a in near if "width" in a} == {256, 512}
    assert all(a.key != packed.key for a in near)


def test_listed_values_of_weight_zero_are_drawn_evenly():
    space = TableSpace(packing=(4, 32), width=(512,))
    assert values(space, "packing") == {4, 32}
    assert values(space, "width") == {512, None}
    assert space.choices["packing"].weights is None


def test_samples_follow_the_prior_weights():
    space = TableSpace()
    architectures = drawn(space, 1_000)

    def share(name, value):
        own = [a[name] for a in architectures if name in a]
        return own.count(value) / len(own)

    assert share("optimizer", "adamw") > 0.8
    assert share("block", "plain") > 0.55
    assert share("recipe", "fitted") > 0.55
    assert 0.01 < share("depth", 0) < 0.07
    assert share("normalisation", "none") > 0.6
    assert share("dropout", 0.5) == pytest.approx(1 / 6, abs=0.04)
    for name, choice in space.choices.items():
        if name in ("depth", "block", "activation", "numeric_embedding", "optimizer"):
            known = {a[name] for a in architectures if name in a}
            assert known == set(choice.values())


# ----------------------------------------------------------------------------- for_task


@pytest.mark.parametrize(
    ("changes", "name", "expected"),
    [
        ({"kind": "regression", "n_outputs": 1}, "label_smoothing", [0.0]),
        ({"kind": "multilabel"}, "label_smoothing", [0.0]),
        ({"probabilistic": True}, "label_smoothing", [0.0]),
        ({"kind": "binary", "n_outputs": 2}, "label_smoothing", [0.0, 0.05, 0.1]),
        ({}, "label_smoothing", [0.0, 0.05, 0.1]),
        ({"n_numeric": 0}, "numeric_embedding", ["none"]),
        ({"n_numeric": 0}, "n_bins", [None]),
        ({"n_numeric": 0}, "numeric_scale", ["robust"]),
        ({}, "numeric_scale", ["robust", "normal"]),
        ({}, "numeric_embedding", NUMERIC_EMBEDDINGS),
        ({}, "n_bins", [None, 8, 16, 48]),
        ({"n_rows": 767}, "n_bins", [None, 8, 16]),
        ({"n_rows": 255}, "n_bins", [None, 8]),
        ({"n_rows": 20}, "n_bins", [None, 8]),
        ({"cardinalities": (2, 8)}, "embedding_size", [0]),
        ({"cardinalities": ()}, "embedding_size", [0]),
        ({"cardinalities": (2, 9)}, "embedding_size", [0, 4, 8, 16]),
        ({"n_rows": 100}, "batch_size", [256]),
        ({"n_rows": 1_000}, "batch_size", [32, 64, 128]),
        ({"n_rows": 50_000}, "batch_size", [256, 512, 1024]),
    ],
    ids=str,
)
def test_for_task_restricts_values_to_the_task(task, changes, name, expected):
    own = TableSpace().for_task(replace(task, **changes))
    assert values(own, name) == set(expected)


def test_for_task_drops_listed_values_without_effect(task):
    space = TableSpace(label_smoothing=(0.1,), numeric_embedding=("piecewise",))
    own = space.for_task(replace(task, kind="regression", n_numeric=0))
    assert values(own, "label_smoothing") == {0.0}
    assert values(own, "numeric_embedding") == {"none"}


@pytest.mark.parametrize("n_rows", [10, 1_000, 10**6])
def test_for_task_keeps_listed_batch_sizes(task, n_rows):
    own = TableSpace(batch_size=(48,)).for_task(replace(task, n_rows=n_rows))
    assert values(own, "batch_size") == {48}


def test_portfolio_has_the_batch_size_of_the_table(task):
    first, *others = TableSpace().portfolio(replace(task, n_rows=5_000))
    assert first["batch_size"] == 128
    assert others and all(a["batch_size"] == 128 for a in others)
    defaults = dict(TableSpace().default_architecture()) | {"batch_size": 128}
    assert dict(first) == defaults


def test_portfolio_excludes_known_architectures_outside_the_space(task):
    space = TableSpace(width=(16,), depth=(1, 1))
    (only,) = space.portfolio(task)
    assert (only["width"], only["depth"]) == (16, 1)


# -------------------------------------------------------------------------------- build


def test_architectures_of_the_same_shape_are_one_network(task):
    space = TableSpace()
    one = space.fill({"width": 32, "dropout": 0.1})
    other = {"width": 32, "dropout": 0.5, "ntk_lr": 0.01, "batch_size": 64}
    other |= {"activation": "mish", "recipe": "normal", "scale_speed": 6.0}
    other = space.fill(other)
    wide = space.fill({"width": 64})
    assert space.batch_key(one) == space.batch_key(other) != space.batch_key(wide)
    layout = space.layout(one, [task])
    features = space.features(one, task, layout)(torch.zeros(5, task.n_columns))
    net = space.build_batch([one, other], task, layout)
    assert net(features).shape == (2, 5, task.n_outputs)  # (K, N, C)


def test_parametric_activations_are_not_batched_with_others():
    space = TableSpace(activation=TABLE_ACTIVATIONS)
    kinds = ["selu", "relu", "parametric-selu", "parametric-mish"]
    keys = [space.batch_key(space.fill({"activation": kind})) for kind in kinds]
    assert keys[0] == keys[1] != keys[2] == keys[3]
    linear = [space.fill({"depth": 0, "recipe": r}) for r in ("uniform", "fitted")]
    assert space.batch_key(linear[0]) == space.batch_key(linear[1])


PARAMETERS = {
    "one": ({"depth": 1}, 25 + 25 * 8 + 8),
    "skip": ({"depth": 2, "block": "skip"}, 25 + 25 * 8 + 8 + 8 * 8 + 8),
    "layer": (
        {"numeric_embedding": "piecewise", "n_bins": 16, "normalisation": "layer"},
        73 + 73 * 8 + 8 + 2 * 8,
    ),
    "batch": ({"normalisation": "batch"}, 25 + 25 * 8 + 8 + 2 * 8),
    "parametric": ({"activation": "parametric-selu"}, 25 + 25 * 8 + 8 + 8),
    "resnet": (
        {"depth": 2, "block": "resnet"},
        25 + 25 * 8 + 8 + 2 * (8 * 16 + 16 + 16 * 8 + 8),
    ),
    "normal resnet": (
        {"depth": 1, "block": "resnet", "normalisation": "layer"},
        25 + 25 * 8 + 8 + (8 * 16 + 16 + 16 * 8 + 8) + 2 * (2 * 8),
    ),
    "periodic": (
        {"numeric_embedding": "periodic"},
        34 + 34 * 8 + 8 + 3 * (16 + 16 + 16 * 3 + 3),
    ),
    "projected": (
        {"numeric_embedding": "projected", "n_bins": 8},
        70 + 70 * 8 + 8 + 3 * (16 + 16 + 8 * 16),
    ),
    "packed": ({"packing": 4}, 25 + 25 * 8 + 8 + 4 * 25 + 3 * (8 * 3 + 3)),
    # the head of a linear network reads the inputs
    "linear": ({"depth": 0}, 25 + 25 * 3 + 3 - (8 * 3 + 3)),
    "packed linear": ({"depth": 0, "packing": 2}, 2 * (25 * 4 + 3) - (8 * 3 + 3)),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_number_of_parameters(task, name):
    # 3 numbers, 2 flags, 4 one-hot columns, and 21 vectors of size 16 (with code 0)
    options, expected = PARAMETERS[name]
    space = TableSpace(width=(8,), embedding_size=(16,), packing=(1, 2, 4))
    defaults = {"depth": 1, "embedding_size": 16, "numeric_embedding": "none"}
    architecture = space.fill(defaults | options)
    end = 8 * 3 + 3
    assert space.n_params(architecture, task) == expected + 21 * 16 + end


def test_one_hot_categories_have_no_embedding(task):
    space = TableSpace(width=(8,))
    options = {"depth": 1, "embedding_size": 0, "numeric_embedding": "none"}
    n_inputs = 3 + 2 + 4 + 20
    expected = n_inputs + n_inputs * 8 + 8 + 8 * 3 + 3
    assert space.n_params(space.fill(options), task) == expected


def test_networks_have_the_layers_of_the_architecture(task):
    space = TableSpace()
    options = {"depth": 3, "width": 64, "block": "skip", "normalisation": "layer"}
    options |= {"packing": 4, "numeric_scale": "normal", "n_bins": 8}
    same_shape = [
        options | {"dropout": p, "activation": a} for p, a in [(0.1, "relu")] * 2
    ]
    same_shape += [options | {"dropout": 0.5, "activation": "mish"}]
    net = space.build_batch([space.fill(a) for a in same_shape], task)
    assert len(net.layers) == 3 and net.packing == 4 and net.kind == "multiclass"
    assert net.head.weight.shape == (3, 4, 64, 3)
    assert [layer.has_shortcut for layer in net.layers] == [False, True, True]
    assert net.layers[0].dropout.runs == [(0.1, 2), (0.5, 1)]
    assert net.layers[0].activation.runs == [("relu", 2), ("mish", 1)]
    module = space.build(space.fill(same_shape[0]), task)
    assert module.features.layout.n_bins == 8


def test_a_layout_has_the_columns_of_all_folds(task):
    space = TableSpace()
    other = replace(task, cardinalities=(6, 25), n_binary=4)
    architecture = space.fill({"n_bins": 16, "embedding_size": 8})
    layout = space.layout(architecture, [task, other])
    assert (layout.n_bins, layout.n_binary) == (16, 4)
    assert layout.one_hot == ((0, 6),) and layout.embedded == ((1, 25),)
    net = space.build_batch([architecture], task, layout)
    for own in (task, other):
        features = space.features(architecture, own, layout)
        rows = torch.zeros(5, own.n_columns)
        assert net(features(rows)).shape == (1, 5, 3)


END = ", trained by AdamW at a learning rate of 0.04, batches of 256, weight decay 0.05"
START = "2 hidden layers of 128 SiLU units, dropout 0.15"
DESCRIPTIONS = [
    ({}, f"{START}, piecewise-linear codes of 48 bins{END}"),
    (
        {"depth": 1, "activation": "parametric-mish", "dropout": 0.0},
        f"1 hidden layer of 128 parametric Mish units, piecewise-linear codes of 48 "
        f"bins{END}",
    ),
    (
        {"block": "resnet", "normalisation": "batch", "numeric_embedding": "none"},
        "2 residual blocks of 128 SiLU units, batch normalisation, dropout 0.15" + END,
    ),
    (
        {"depth": 1, "block": "resnet", "numeric_embedding": "periodic"},
        "1 residual block of 128 SiLU units, dropout 0.15, periodic embeddings" + END,
    ),
    (
        {"packing": 32, "numeric_embedding": "projected", "n_bins": 8},
        f"{START}, 32 packed copies, piecewise-linear embeddings of 8 bins{END}",
    ),
    (
        {"depth": 0, "numeric_embedding": "none", "numeric_scale": "normal"},
        f"linear, numbers by their quantiles{END}",
    ),
    (
        {"depth": 0, "packing": 4, "numeric_embedding": "none"},
        f"linear, 4 packed copies{END}",
    ),
    (
        {"numeric_embedding": "none", "recipe": "uniform", "optimizer": "rmsprop"},
        f"{START}, trained by RMSprop at a learning rate of 0.01, batches of 256, "
        "weight decay 0.05",
    ),
    (
        {"numeric_embedding": "none", "optimizer": "momentum", "weight_decay": 0.0},
        f"{START}, trained by SGD with momentum at a learning rate of 0.1, batches of "
        "256, weight decay 0",
    ),
    (
        {
            **{"depth": 2, "width": 64, "activation": "relu", "block": "skip"},
            **{"normalisation": "layer", "dropout": 0.25, "n_bins": 48},
            **{"optimizer": "sgd", "sgd_lr": 0.1, "weight_decay": 0.3},
            **{"label_smoothing": 0.1},
        },
        "2 hidden layers of 64 ReLU units, layer normalisation, residual connections, "
        "dropout 0.25, piecewise-linear codes of 48 bins, trained by SGD at a learning "
        "rate of 0.1, batches of 256, weight decay 0.3, label smoothing 0.1",
    ),
]


@pytest.mark.parametrize(("options", "expected"), DESCRIPTIONS)
def test_descriptions_omit_inactive_choices(options, expected):
    space = TableSpace(activation=TABLE_ACTIVATIONS)
    assert space.describe(space.fill({"activation": "silu"} | options)) == expected


@pytest.mark.parametrize("activation", TABLE_ACTIVATIONS)
@pytest.mark.parametrize("block", BLOCKS)
def test_descriptions_name_the_activation(activation, block):
    space = TableSpace(activation=TABLE_ACTIVATIONS)
    words = space.describe(space.fill({"activation": activation, "block": block}))
    title = activation.removeprefix("parametric-").lower()
    assert f" {title} units" in words.lower()
    assert ("parametric" in words) is activation.startswith("parametric")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widht": 32}, "; did you mean 'width'?"),
        ({"zzz": 32}, "got {'zzz': 32}."),
        ({"width": 33}, "when=('depth', (1, 2, 3, 4))), got 33."),
    ],
)
def test_architectures_outside_the_space_raise_an_error(options, message):
    with pytest.raises(
        InvalidParameterError, match="of TableSpace must be a"
    ) as caught:
        TableSpace().fill(options)
    assert str(caught.value).endswith(message)
