"""The space of networks for tables."""

import re
from dataclasses import replace

import numpy as np
import pytest
from sklearn.base import clone

from sknas.exceptions import InvalidParameterError
from sknas.nets import Side, TableNet
from sknas.spaces import TableSpace


def refused(name, allowed, value):
    message = f"The {name!r} parameter of TableSpace must be {allowed}, got {value!r}."
    return pytest.raises(InvalidParameterError, match=re.escape(message))


def drawn(space, n=200):
    return space.sample(n, np.random.default_rng(0))


def values(space, name):
    """All values of a choice that come up, None where it is not active."""
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
        ("depth", [0, 2], "two ascending ints from 1 to 32"),
        ("depth", [3, 2], "two ascending ints from 1 to 32"),
        ("depth", [1.5, 2.5], "two ascending ints from 1 to 32"),
        ("depth", [2], "two ascending ints from 1 to 32"),
        ("lr", [0.0, 0.1], "two ascending numbers from 1e-08 to 1.0"),
        ("lr", ["a", "b"], "two ascending numbers from 1e-08 to 1.0"),
        ("batch_size", [32.5], "a choice of ints from 1 to 1000000"),
        ("embedding_size", [np.nan], "a choice of ints from 1 to 512"),
        (
            "activation",
            ["relu6"],
            "a choice of ('relu', 'silu', 'selu', 'gelu', 'tanh')",
        ),
        ("normalisation", ["group"], "a choice of ('none', 'layer', 'batch')"),
        ("optimizer", ["adam"], "a choice of ('adamw', 'rmsprop', 'momentum', 'sgd')"),
        ("residual", ["yes"], "a choice of (False, True)"),
        ("numeric_embedding", ["ple"], "a choice of ('none', 'piecewise')"),
    ],
)
def test_wrong_parameters(name, value, allowed):
    with refused(name, allowed, value):
        _ = TableSpace(**{name: value}).choices


def test_wrong_parameters_are_only_refused_when_used():
    space = TableSpace(width="wide")
    assert clone(space).width == "wide"


def test_arrays_and_numpy_numbers_are_fine():
    space = TableSpace(width=list(2 ** np.arange(4, 6)), depth=(np.int64(1), 2))
    for architecture in drawn(space, 20):
        assert architecture["width"] in (16, 32) and type(architecture["width"]) is int
        assert type(architecture["depth"]) is int


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("width", (16,)),
        ("activation", ("tanh", "relu")),
        ("residual", (True,)),
        ("optimizer", ("sgd",)),
        ("weight_decay", (0.5, 0.25)),
    ],
)
def test_a_search_takes_the_values_given_and_no_others(name, given):
    space = TableSpace(**{name: given}, depth=(2, 3))
    assert values(space, name) == set(given)
    assert space.default_architecture()[name] in given


def test_ranges_are_kept_with_both_bounds():
    space = TableSpace(depth=(2, 4), lr=(1e-3, 2e-3), optimizer=["adamw"])
    assert values(space, "depth") == {2, 3, 4}
    assert all(1e-3 <= lr <= 2e-3 for lr in values(space, "lr"))


def test_the_default_is_the_value_nearest_to_the_usual_one():
    default = TableSpace(width=(8, 16), depth=(3, 4), dropout=(0.5, 0.3))
    default = default.default_architecture()
    assert (default["width"], default["depth"], default["dropout"]) == (16, 3, 0.3)


def test_spaces_are_searched_by_name():
    space = TableSpace().set_params(depth=(1, 1))
    assert space.get_params()["depth"] == (1, 1)
    assert values(space, "depth") == {1}


# ------------------------------------------------------------------------- conditions


def test_conditional_choices_are_there_only_where_they_mean_something():
    for a in drawn(TableSpace()):
        assert ("residual" in a) == (a["depth"] >= 2)
        assert ("n_bins" in a) == (a["numeric_embedding"] == "piecewise")
        assert ("lr" in a) == (a["optimizer"] in ("adamw", "rmsprop"))
        assert ("sgd_lr" in a) == (a["optimizer"] in ("momentum", "sgd"))


def test_one_hidden_layer_has_nothing_to_add():
    assert values(TableSpace(depth=(1, 1)), "residual") == {None}


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
        ({}, "numeric_embedding", ["none", "piecewise"]),
        ({"cardinalities": (2, 8)}, "embedding_size", [4]),
        ({"cardinalities": ()}, "embedding_size", [4]),
        ({"cardinalities": (2, 9)}, "embedding_size", [4, 8, 16]),
        ({"n_rows": 100}, "batch_size", [256]),
        ({"n_rows": 1_000}, "batch_size", [32, 64, 128]),
        ({"n_rows": 50_000}, "batch_size", [256, 512, 1024]),
    ],
    ids=str,
)
def test_choices_that_mean_nothing_for_a_task_are_dropped(
    task, changes, name, expected
):
    own = TableSpace().for_task(replace(task, **changes))
    assert values(own, name) == set(expected)


def test_a_choice_of_the_user_that_means_nothing_is_dropped_too(task):
    space = TableSpace(label_smoothing=(0.1,), numeric_embedding=("piecewise",))
    own = space.for_task(replace(task, kind="regression", n_numeric=0))
    assert values(own, "label_smoothing") == {0.0}
    assert values(own, "numeric_embedding") == {"none"}


@pytest.mark.parametrize("n_rows", [10, 1_000, 10**6])
def test_batch_sizes_of_the_user_are_kept(task, n_rows):
    own = TableSpace(batch_size=(48,)).for_task(replace(task, n_rows=n_rows))
    assert values(own, "batch_size") == {48}


def test_the_portfolio_begins_with_the_default_at_the_batch_size_of_the_table(task):
    first, *others = TableSpace().portfolio(replace(task, n_rows=5_000))
    assert first["batch_size"] == 128
    assert others and all(a["batch_size"] == 128 for a in others)
    usual = dict(TableSpace().default_architecture()) | {"batch_size": 128}
    assert dict(first) == usual


def test_known_points_outside_the_space_are_left_out(task):
    space = TableSpace(width=(16,), depth=(1, 1))
    (only,) = space.portfolio(task)
    assert (only["width"], only["depth"]) == (16, 1)


# -------------------------------------------------------------------------------- build


def test_architectures_of_the_same_shape_are_one_network(task):
    space = TableSpace()
    one = space.fill({"width": 32, "dropout": 0.1})
    other = space.fill({"width": 32, "dropout": 0.5, "lr": 1e-3, "batch_size": 64})
    wide = space.fill({"width": 64})
    assert isinstance(space.build([one, other], task), TableNet)
    mixed = space.build([one, wide, other], task)
    assert isinstance(mixed, Side) and mixed.places == [[0, 2], [1]]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"depth": 1, "width": 8, "numeric_embedding": "none"}, 25 + 25 * 8 + 8),
        (
            {"depth": 2, "width": 8, "numeric_embedding": "none", "residual": True},
            25 + 25 * 8 + 8 + 8 * 8 + 8,
        ),
        (
            {"depth": 1, "width": 8, "n_bins": 16, "normalisation": "layer"},
            73 + 73 * 8 + 8 + 2 * 8,
        ),
    ],
)
def test_parameters(task, given, expected):
    # 3 numbers, 2 flags, 4 one-hot columns, and vectors of 16 for 20 levels and code 0
    space = TableSpace(width=(8,), embedding_size=(16,))
    architecture = space.fill({"embedding_size": 16, **given})
    end = 8 * 3 + 3
    assert space.n_params(architecture, task) == expected + 21 * 16 + end


def test_descriptions_name_what_matters():
    space = TableSpace()
    given = {"depth": 2, "width": 64, "activation": "relu", "normalisation": "layer"}
    given |= {"residual": True, "dropout": 0.2, "n_bins": 48, "optimizer": "sgd"}
    given |= {"sgd_lr": 0.1, "weight_decay": 0.3, "label_smoothing": 0.1}
    assert space.describe(space.fill(given)) == (
        "2 hidden layers of 64 ReLU units, layer normalisation, residual connections, "
        "dropout 0.2, piecewise-linear codes of 48 bins, trained by SGD at a learning "
        "rate of 0.1, batches of 256, weight decay 0.3, label smoothing 0.1"
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"widht": 32}, "; did you mean 'width'?"),
        ({"zzz": 32}, "got {'zzz': 32}."),
        ({"width": 33}, "default=128), got 33."),
    ],
)
def test_points_that_are_not_there(given, message):
    with pytest.raises(
        InvalidParameterError, match="of TableSpace must be a"
    ) as caught:
        TableSpace().fill(given)
    assert str(caught.value).endswith(message)
