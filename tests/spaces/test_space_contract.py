"""The contract of a space, tested for every space."""

import json
import pickle
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from outside import OutsideSpace
from sklearn.base import clone
from torch import nn

from sknas._problem import ImageSpec
from sknas.nets import Linear, MixtureWeights, TableInput
from sknas.spaces import (
    SPACES,
    Architecture,
    Categorical,
    CellSpace,
    Choice,
    DictSpace,
    ImageSpace,
    Integer,
    Real,
    Space,
    TableSpace,
)

KINDS = {"binary": 2, "multiclass": 3, "multilabel": 4, "regression": 2}


class OwnSpace(Space):
    """A user-defined space, with nested conditions and a choice of one value."""

    def __init__(self, widest=64):
        self.widest = widest

    @property
    def choices(self):
        return {
            "hidden": Categorical([False, True], default=True),
            "width": Integer(
                4, self.widest, log=True, default=8, when=("hidden", [True])
            ),
            "gate": Categorical(
                ["none", "tanh"], default="none", when=("width", [4, 5])
            ),
            "slope": Real(0.1, 1.0, default=0.5, when=("gate", ["tanh"])),
            "bias": Categorical([True], default=True),
        }

    def build(self, architecture, task):
        inputs = TableInput(1, task)
        width, end = inputs.n_features, []
        if architecture["hidden"]:
            width = architecture["width"]
            end = [Linear(1, inputs.n_features, width), nn.ReLU()]
        return nn.Sequential(inputs, *end, Linear(1, width, task.n_outputs))


ONE_ARCHITECTURE = {
    **{"depth": (2, 2), "width": (16,), "block": ("plain",), "activation": ("relu",)},
    **{"normalisation": ("none",), "dropout": (0.0,), "packing": (1,)},
    **{"numeric_scale": ("robust",), "numeric_embedding": ("none",)},
    **{"embedding_size": (4,), "scale_speed": (0.5,), "recipe": ("uniform",)},
    **{"optimizer": ("adamw",), "lr": (1e-3, 1e-3), "batch_size": (64,)},
    **{"weight_decay": (0.0,), "label_smoothing": (0.0,)},
}
SPACES_TESTED = {
    # Spaces for images have their own tests.
    **{name: cls() for name, cls in SPACES.items() if cls.reads == "table"},
    "shallow": TableSpace(depth=(1, 1), numeric_embedding=("none",)),
    "one architecture": TableSpace(**ONE_ARCHITECTURE),
    "sgd": TableSpace(optimizer=["sgd"], depth=(3, 5), block=["skip"], n_bins=(8,)),
    "linear": TableSpace(depth=(0, 0), recipe=["constant", "normal"]),
    "packed": TableSpace(packing=(2, 4), width=(16, 512), block=["resnet", "plain"]),
    "learnt": TableSpace(
        activation=["parametric-selu", "parametric-mish"],
        numeric_embedding=["periodic", "projected"],
        packing=(1, 3),
        width=(8, 16),
    ),
    "own": OwnSpace(),
    "outside": OutsideSpace(),
    "textbook": ImageSpace(
        stages=(1, 5),
        blocks=(2,),
        kernel_size=range(3, 8),
        block=["plain"],
        pooling=["max"],
        activation=["relu", "sigmoid"],
        normalisation=["none"],
        optimizer=["sgd"],
    ),
    "one stage": ImageSpace(stages=(1, 1), channels=(4, 6), head=["dense"]),
}
TABLES = [name for name, space in SPACES_TESTED.items() if space.reads == "table"]


def names_with(capability):
    """Return the names of the spaces for tables that declare a capability."""
    return [name for name in TABLES if getattr(SPACES_TESTED[name], capability)]


BATCHED = names_with("can_build_batches")
FINITE = {
    "own": DictSpace(
        {
            "kind": Categorical(["a", "b"], default="a"),
            "size": Integer(1, 3, default=2, when=("kind", ["b"])),
            "flag": Categorical([True, False], default=True, when=("size", [2, 3])),
            "one": Categorical([0.5], default=0.5),
        }
    ),
    "table": TableSpace(
        **ONE_ARCHITECTURE
        | {"depth": (0, 1), "width": (8, 16), "n_bins": (8, 16)}
        | {"numeric_embedding": ("none", "piecewise"), "recipe": ("fitted", "uniform")}
        | {"optimizer": ("rmsprop", "momentum"), "sgd_lr": (0.1, 0.1)}
        | {"ntk_lr": (0.1, 0.1)}
    ),
}
N_FINITE = {"own": 1 + (1 + 2 * 2), "table": (1 + 2) * (1 + 2) * (2 + 1)}


@pytest.fixture(params=SPACES_TESTED)
def space(request):
    return clone(SPACES_TESTED[request.param])


@pytest.fixture(params=TABLES)
def table_space(request):
    """A space of networks for tables."""
    return clone(SPACES_TESTED[request.param])


@pytest.fixture(params=BATCHED)
def batched_space(request):
    """A space that builds several architectures as one network."""
    return clone(SPACES_TESTED[request.param])


@pytest.fixture
def own_task(space, task):
    """A task of three classes, for tables or images as the space requires."""
    return task_for(space, task)


@pytest.fixture
def own_rows(space, own_task, encoded_rows, rng):
    """Rows (10, ...), of tables or images as the space requires."""
    if space.reads == "table":
        return encoded_rows
    return rng.normal(size=(10, *own_task.row_shape)).astype(np.float32)


@pytest.fixture
def some(space):
    """Architectures drawn from a space."""
    return space.sample(40, np.random.default_rng(0))


def is_in(space, architecture):
    """Return True if exactly the active choices are set, to allowed values."""
    known = {}
    for name, choice in space.choices.items():
        if choice.is_active(known):
            if name not in architecture or not choice.contains(architecture[name]):
                return False
            known[name] = architecture[name]
    return list(known) == list(architecture)


def task_for(space, task):
    """Return the task, changed to images if the space reads images."""
    if space.reads == "table":
        return task
    image = ImageSpec((2, 16, 17), np.zeros(2), np.ones(2))
    none = {"n_numeric": 0, "n_binary": 0, "cardinalities": ()}
    return replace(task, **none, edges=np.zeros((0, 49), np.float32), image=image)


def buildable(space, task, n, seed):
    """Return n random architectures that can be built."""
    drawn = space.sample(4 * n, np.random.default_rng(seed))
    return [a for a in drawn if space.is_buildable(a, task)][:n]


def keys(architectures):
    return [architecture.key for architecture in architectures]


# ------------------------------------------------------------------------ the choices


def test_conditions_refer_to_preceding_choices(space):
    choices = space.choices
    assert isinstance(choices, Mapping) and choices
    names = list(choices)
    for index, (name, choice) in enumerate(choices.items()):
        assert isinstance(name, str) and isinstance(choice, Choice)
        if choice.when is not None:
            assert choice.when[0] in names[:index]
    assert {name: repr(c) for name, c in space.choices.items()} == {
        name: repr(c) for name, c in choices.items()
    }


def test_clones_and_pickles_equal_the_space(space):
    again = clone(space)
    assert repr(again) == repr(space)
    unpickled = pickle.loads(pickle.dumps(space))
    rng = np.random.default_rng
    assert keys(unpickled.sample(5, rng(1))) == keys(space.sample(5, rng(1)))


def test_samples_are_in_the_space(space, some):
    assert len(some) == 40
    assert all(isinstance(a, Architecture) and is_in(space, a) for a in some)
    assert keys(some) == keys(space.sample(40, np.random.default_rng(0)))
    assert space.sample(0, np.random.default_rng(0)) == []


def test_architectures_survive_json(some):
    for architecture in some:
        for value in architecture.values():
            assert type(value) in (bool, int, float, str, type(None))
        back = Architecture(json.loads(json.dumps(dict(architecture))))
        assert back == architecture and back.key == architecture.key
        assert json.loads(architecture.key) == dict(architecture)


def test_key_does_not_depend_on_the_order_of_choices(some):
    for architecture in some:
        backwards = Architecture(dict(reversed(list(architecture.items()))))
        assert backwards.key == architecture.key and backwards == architecture
    different = {tuple(sorted(a.items(), key=str)) for a in some}
    assert len(set(keys(some))) == len(different)


def test_decode_inverts_encode(space, some):
    codes = space.encode(some)
    assert codes.ndim == 2 and len(codes) == len(some)
    assert ((codes >= 0) & (codes <= 1)).all()
    assert keys(space.decode(codes)) == keys(some)
    width = sum(choice.n_columns for choice in space.choices.values())
    assert codes.shape[1] == space.encode([]).shape[1] == width


def test_any_code_decodes_to_an_architecture_of_the_space(space, rng):
    width = space.encode([]).shape[1]
    for architecture in space.decode(rng.uniform(-0.2, 1.2, (20, width))):
        assert is_in(space, architecture)


def test_choices_of_one_value_have_no_column(space):
    for choice in space.choices.values():
        assert (choice.n_columns == 0) == (choice.n_values == 1)


def test_inactive_choices_are_constant_in_the_code(space, some):
    codes, at = space.encode(some), 0
    for name, choice in space.choices.items():
        columns = codes[:, at : at + choice.n_columns]
        at += choice.n_columns
        inactive = columns[[name not in a for a in some]]
        assert (inactive == inactive[:1]).all()
        active = [a for a in some if name in a]
        if choice.n_columns and active:
            own = [choice.encode(a[name]) for a in active]
            assert_allclose(columns[[name in a for a in some]], own)


def test_neighbours_differ_and_are_in_the_space(space, some, rng):
    choices = space.choices
    for architecture in some[:15]:
        near = space.neighbours(architecture, 12, rng)
        if all(choices[name].n_values == 1 for name in architecture):
            assert near == []
            continue
        assert len(near) == 12
        for other in near:
            assert is_in(space, other) and other.key != architecture.key
            both = [name for name in other if name in architecture]
            assert sum(other[name] != architecture[name] for name in both) <= 2


def test_the_default_architecture_is_in_the_space(space, own_task):
    default = space.default_architecture()
    assert is_in(space, default)
    assert space.fill({}) == default
    portfolio = space.portfolio(own_task)
    assert portfolio and len(set(keys(portfolio))) == len(portfolio)


@pytest.mark.parametrize("kind", KINDS)
def test_the_portfolio_is_in_the_space_of_the_task(space, own_task, kind):
    task = replace(own_task, kind=kind, n_outputs=KINDS[kind])
    own = space.for_task(task)
    assert all(is_in(own, architecture) for architecture in own.portfolio(task))
    assert keys(own.portfolio(task)) == keys(own.for_task(task).portfolio(task))


def test_fill_keeps_the_given_choices(space, some):
    for architecture in some[:10]:
        assert space.fill(architecture).key == architecture.key
        first = next(iter(architecture))
        filled = space.fill({first: architecture[first]})
        assert is_in(space, filled) and filled[first] == architecture[first]


def test_describe_returns_a_string(space, some):
    for architecture in some[:5]:
        assert isinstance(space.describe(architecture), str)


# ----------------------------------------------------------------------- finite spaces


@pytest.mark.parametrize("name", FINITE)
def test_a_finite_space_is_enumerated_and_sampled_completely(name, rng):
    space = FINITE[name]
    assert space.is_finite
    listed = keys(space.enumerate())
    assert len(listed) == len(set(listed)) == N_FINITE[name]
    assert all(is_in(space, a) for a in space.enumerate())
    assert set(keys(space.sample(2_000, rng))) == set(listed)


@pytest.mark.parametrize("name", FINITE)
def test_neighbours_connect_a_finite_space(name, rng):
    space = FINITE[name]
    reached, new = set(), [next(space.enumerate())]
    while new:
        reached |= set(keys(new))
        near = [b for a in new for b in space.neighbours(a, 30, rng)]
        new = list({b.key: b for b in near if b.key not in reached}.values())
    assert reached == set(keys(space.enumerate()))


def test_a_space_with_a_range_of_reals_is_not_finite():
    assert not TableSpace().is_finite


# ---------------------------------------------------------------------------- networks


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_maps_rows_to_outputs(space, own_task, own_rows, kind):
    task = replace(own_task, kind=kind, n_outputs=KINDS[kind])
    own = space.for_task(task)
    for architecture in buildable(own, task, 5, 2):
        outputs = own.build(architecture, task).eval()(torch.from_numpy(own_rows))
        assert outputs.shape == (1, len(own_rows), KINDS[kind])
        assert outputs.dtype == torch.float32 and torch.isfinite(outputs).all()


def batches(space, rng):
    """Return architectures near the default one, grouped by batch key."""
    default = space.default_architecture()
    groups = {}
    for architecture in [default, default, *space.neighbours(default, 60, rng)]:
        groups.setdefault(space.batch_key(architecture), []).append(architecture)
    return list(groups.values())


@pytest.mark.parametrize("kind", KINDS)
def test_network_k_of_a_batch_reads_table_k(
    batched_space, task, encoded_rows, kind, rng
):
    task = replace(task, kind=kind, n_outputs=KINDS[kind])
    own = batched_space.for_task(task)
    x = torch.from_numpy(encoded_rows)
    for batch in batches(own, rng):
        k = len(batch)
        layout = own.layout(batch[0], [task])
        features = own.features(batch[0], task, layout)
        net = own.build_batch(batch, task, layout).eval()
        with torch.no_grad():
            shared = net(features(x))
            tables = [features(x.roll(j, dims=0)) for j in range(k)]
            each = net(torch.stack(tables))
        assert shared.shape == (k, len(x), KINDS[kind])
        assert shared.dtype == torch.float32 and torch.isfinite(shared).all()
        for j, outputs in enumerate(each):  # network j reads table j
            assert_allclose(outputs.roll(-j, dims=0), shared[j], atol=1e-5)


def test_a_batch_has_the_parameters_of_its_networks(batched_space, task, rng):
    own = batched_space.for_task(task)
    for batch in batches(own, rng):
        net = own.build_batch(batch, task)
        alone = [own.n_params(architecture, task) for architecture in batch]
        assert sum(p.numel() for p in net.parameters()) == sum(alone)


def test_a_space_without_batches_raises_an_error(task):
    own = OwnSpace()
    architecture = own.default_architecture()
    assert not own.can_build_batches
    for build in (own.batch_key, lambda a: own.build_batch([a], task)):
        with pytest.raises(NotImplementedError, match="OwnSpace builds no batches"):
            build(architecture)


@pytest.mark.parametrize("name", names_with("has_graph"))
def test_graphs_have_labelled_nodes_and_forward_edges(name):
    space = clone(SPACES_TESTED[name])
    for architecture in space.sample(5, np.random.default_rng(0)):
        labels, edges = space.graph(architecture)
        assert labels and all(isinstance(label, str) for label in labels)
        assert all(0 <= start < end < len(labels) for start, end in edges)


@pytest.mark.parametrize("name", names_with("has_supernet"))
def test_supernet_architectures_are_in_the_space(name, task, encoded_rows):
    space = clone(SPACES_TESTED[name]).for_task(task)
    net = space.supernet(task)
    weights, chosen, shares = {}, {}, {}
    for choice_name, choice in net.choices.items():
        n = len(choice.options)
        weights[choice_name] = MixtureWeights(torch.full((n,), 1 / n))
        chosen[choice_name], shares[choice_name] = n - 1, np.full(n, 1 / n)
    outputs = net(torch.from_numpy(encoded_rows), weights)
    assert outputs.shape == (1, len(encoded_rows), task.n_outputs)
    assert is_in(space, space.fill(net.architecture(chosen, shares)))


def test_costs_are_positive_and_finite(space, own_task):
    own = space.for_task(own_task)
    (architecture,) = buildable(own, own_task, 1, 5)
    for name in own.costs:
        assert 0 < getattr(own, name)(architecture, own_task) < np.inf


class Mixin:
    def build(self, architecture, task):
        return super().build(architecture, task)


@pytest.mark.parametrize("base", [TableSpace, ImageSpace, CellSpace, OutsideSpace])
def test_a_class_that_overrides_build_must_redeclare_its_capabilities(base):
    class Mixed(Mixin, base):
        pass

    class Own(base):
        build = Mixin.build

    class Declared(Own):
        build = Mixin.build
        cost_free = ("lr",)
        can_build_batches = has_supernet = measures_memory = True

    class Renamed(base):
        pass

    for cls, parent in [(Mixed, Space), (Own, Space), (Renamed, base)]:
        for name in ("can_build_batches", "has_supernet", "measures_memory"):
            assert getattr(cls, name) == getattr(parent, name)
        assert cls.cost_free == parent.cost_free and cls.reads == base.reads
        assert cls.has_graph == base.has_graph  # a graph needs no network
    assert Declared.can_build_batches and Declared.has_supernet
    assert Declared.measures_memory and Declared.cost_free == ("lr",)


@pytest.mark.parametrize("n_rows", [1, 2])
def test_networks_accept_one_or_two_rows(space, own_task, own_rows, n_rows):
    own = space.for_task(own_task)
    net = own.build(buildable(own, own_task, 1, 3)[0], own_task)
    x = torch.from_numpy(own_rows[:n_rows])
    for is_training in (True, False):
        assert torch.isfinite(net.train(is_training)(x)).all()


def test_the_same_seed_builds_the_same_network(space, own_task, own_rows):
    own = space.for_task(own_task)
    (architecture,) = buildable(own, own_task, 1, 4)
    outputs = []
    for _ in range(2):
        torch.manual_seed(5)
        net = own.build(architecture, own_task).eval()
        outputs.append(net(torch.from_numpy(own_rows)).detach())
    assert torch.equal(*outputs)


def test_all_trainable_parameters_have_gradients(space, own_task, own_rows):
    own = space.for_task(own_task)
    for architecture in buildable(own, own_task, 4, 6):
        net = own.build(architecture, own_task)
        net(torch.from_numpy(own_rows)).square().sum().backward()
        assert all(p.grad is not None for p in net.parameters() if p.requires_grad)


def test_n_params_is_exact_and_leaves_the_random_state_unchanged(space, own_task):
    own = space.for_task(own_task)
    before = torch.random.get_rng_state()
    for architecture in buildable(own, own_task, 6, 7):
        counted = own.n_params(architecture, own_task)
        assert own.n_params(architecture, own_task) == counted
        torch.manual_seed(0)
        net = own.build(architecture, own_task)
        assert counted == sum(p.numel() for p in net.parameters() if p.requires_grad)
        torch.random.set_rng_state(before)
        own.n_params(architecture, own_task)
        assert torch.equal(torch.random.get_rng_state(), before)


LAYOUTS = {
    "numbers": {"n_binary": 0, "cardinalities": ()},
    "flags": {
        "n_numeric": 0,
        "cardinalities": (),
        "edges": np.zeros((0, 49), np.float32),
    },
    "words": {"n_numeric": 0, "n_binary": 0, "edges": np.zeros((0, 49), np.float32)},
    "large words": {"cardinalities": (255,)},
    "small words": {"cardinalities": (3, 8)},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_networks_accept_tables_of_any_layout(table_space, task, layout, rng):
    task = replace(task, **LAYOUTS[layout])
    own = table_space.for_task(task)
    codes = [rng.integers(0, c + 1, (6, 1)) for c in task.cardinalities]
    plain = rng.normal(size=(6, task.n_numeric + task.n_binary))
    x = torch.tensor(np.hstack([plain, *codes]), dtype=torch.float32)
    assert x.shape[1] == task.n_columns
    for architecture in own.sample(3, rng):
        net = own.build(architecture, task).eval()
        assert net(x).shape == (1, 6, task.n_outputs)


def test_portfolio_can_be_built(space, own_task):
    for architecture in space.portfolio(own_task):
        assert space.is_buildable(architecture, own_task)


def test_for_task_keeps_a_valid_space_default_and_portfolio(space, own_task):
    for layout in LAYOUTS.values():
        for kind in KINDS:
            own = replace(own_task, kind=kind, n_outputs=KINDS[kind], **layout)
            smaller = space.for_task(own)
            smaller.check()
            assert is_in(smaller, smaller.default_architecture())
            portfolio = space.portfolio(own)
            assert len(set(keys(portfolio))) == len(portfolio) > 0
            assert all(is_in(smaller, architecture) for architecture in portfolio)


def test_conditions_can_be_satisfied(space):
    space.check()


def test_for_task_and_portfolio_do_not_change_the_space(space, own_task):
    before = repr(space)
    space.for_task(replace(own_task, kind="regression", n_outputs=1, n_rows=50))
    space.portfolio(own_task)
    assert repr(space) == before


def test_build_of_a_dict_space_raises_an_error(task):
    space = FINITE["own"]
    with pytest.raises(TypeError, match="A dict of choices builds no network"):
        space.build(space.default_architecture(), task)


def test_default_architecture_is_none_if_a_choice_has_no_default():
    space = DictSpace({"a": [1, 2], "b": (0.0, 1.0)})
    assert space.default_architecture() is None
    assert space.portfolio(None) == []
    assert_array_equal(space.encode([Architecture({"a": 1, "b": 1.0})]), [[0, 1]])
