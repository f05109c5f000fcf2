"""The space of networks for tables."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

from sklearn.base import clone
from torch import nn

from sknas._history import Architecture
from sknas._problem import TaskSpec
from sknas._training.optimizer import OPTIMIZERS, RECIPES
from sknas._validation import check_word, reject
from sknas.nets import (
    BLOCKS,
    NORMALISATIONS,
    NUMERIC_EMBEDDINGS,
    NUMERIC_SCALES,
    UNIT_KINDS,
    Features,
    Inputs,
    Layout,
    Side,
    Supernet,
    TableInput,
    TableModule,
    TableNet,
)
from sknas.nets._inputs import MAX_ONE_HOT
from sknas.nets._supernet_table import DECIDED, LAYERS, TableSupernet
from sknas.nets._table import PARAMETRIC
from sknas.spaces._base import count_params
from sknas.spaces._choices import Categorical, Choice, When
from sknas.spaces._known import NAMED, NAMED_REGRESSION, PORTFOLIO
from sknas.spaces._training_choices import (
    TITLES,
    ListedSpace,
    describe_training,
    is_label_scored,
    possible,
)

ADAPTIVE = ("adamw", "rmsprop")  # their steps do not grow with the gradient
BINS = (8, 16, 48)
ROWS_PER_BIN = 16  # finer codes than that would learn rows by heart


class TableSpace(ListedSpace):
    """Multi-layer networks for tables, and how to train them.

    Each parameter lists the values a search may take; one value alone fixes the
    choice. Choices that mean nothing for a table, such as the embedding size where
    there is no large category, are dropped before the search.

    Parameters
    ----------
    depth : (int, int), default=(0, 4)
        Least and most hidden layers, or residual blocks; 0 is a linear network.
    width : sequence of int, default=(32, 64, 128, 256, 512)
        Units of a hidden layer.
    block : sequence of str, default=("plain", "skip", "resnet")
        Layers; layers that add their input to their output; or residual blocks of
        normalisation and two layers.
    activation : sequence of str
        Of "relu", "silu", "selu", "gelu", "mish" and "tanh", each also as
        "parametric-relu" and so on, which mixes it with its input by a share that each
        unit learns. All but tanh and some parametric ones by default.
    normalisation : sequence of str, default=("none", "layer", "batch")
        Between a layer and its activation.
    dropout : sequence of float, default=(0.0, 0.1, 0.15, 0.25, 0.35, 0.5)
        Probability that a hidden unit is dropped.
    packing : sequence of int, default=(1, 4, 32)
        Copies inside a network that share its hidden layers (TabM-mini) and whose
        answers are averaged.
    numeric_scale : sequence of str, default=("robust", "normal")
        Numbers by median and quartiles, or by their quantiles on a normal scale.
    numeric_embedding : sequence of str
        "none" takes numbers as they are, "piecewise" puts piecewise-linear codes
        beside them, "projected" learns a vector of these codes for each number, and
        "periodic" one of learnt frequencies. All four by default.
    n_bins : sequence of int, default=(8, 16, 48)
        Bins of the codes, divisors of 48; only with codes. Those that would hold
        fewer than 16 rows are left out.
    embedding_size : sequence of int, default=(0, 4, 8, 16)
        Length of the vectors of categories with more than 8 levels; 0 makes all
        categories one-hot.
    scale_speed : sequence of float, default=(0.0, 0.5, 6.0)
        Learning rate of the scale of each input, beside that of weights; 0 for none.
    recipe : sequence of str, default=("fitted", "normal", "uniform", "constant")
        How weights start and are trained. "fitted" and "normal" have learning rates
        that fall with the root of a layer's inputs (NTK), weights that start fitted to
        the rows or normal, and annealed cycles; "uniform" starts as torch does and has
        one rate; "constant" does not anneal. Only for "adamw" and "rmsprop".
    optimizer : sequence of str, default=("adamw", "rmsprop", "momentum", "sgd")
        The optimiser, always with decoupled weight decay.
    ntk_lr : (float, float), default=(5e-3, 0.4)
        Range of the peak learning rate of "fitted" and "normal".
    lr : (float, float), default=(3e-4, 3e-2)
        Range of the peak learning rate of "uniform" and "constant".
    sgd_lr : (float, float), default=(1e-2, 0.5)
        Range of the peak learning rate of "momentum" and "sgd".
    batch_size : sequence of int, default=(32, 64, 128, 256, 512, 1024)
        Rows of a batch; sizes far from the default of a table are left out.
    weight_decay : sequence of float, from 0 to 0.3 by default
        Share that weights lose a step, times the learning rate.
    label_smoothing : sequence of float, default=(0.0, 0.05, 0.1)
        Share of a class label spread over all classes; only for scores that read
        labels.

    Notes
    -----
    Values differ in how often they are drawn: costly ones, such as packed copies and
    widths of 512, only serve the published networks that `named` gives.

    References
    ----------
    Gorishniy, Rubachev, Khrulkov, Babenko: Revisiting Deep Learning Models for
    Tabular Data. arXiv:2106.11959.
    Holzmüller, Grinsztajn, Steinwart: Better by Default: Strong Pre-Tuned MLPs and
    Boosted Trees on Tabular Data. arXiv:2407.04491.

    Examples
    --------
    >>> from sknas import NASClassifier
    >>> from sknas.spaces import TableSpace
    >>> shallow = TableSpace(depth=(1, 2), activation=("relu",))
    >>> search = NASClassifier(search_space=shallow)
    >>> TableSpace().named("realmlp-td")["ntk_lr"]
    0.04
    """

    # Where searches start; a subclass may know better ones for its tables.
    points: Sequence[Mapping[str, Any]] = ({}, *PORTFOLIO)

    _limits: ClassVar = {
        "depth": (0, 32),
        "width": (1, 8192),
        "packing": (1, 64),
        "scale_speed": (0.0, 100.0),
        "ntk_lr": (1e-8, 10.0),
        "dropout": (0.0, 0.95),
        "n_bins": (1, 48),
        "embedding_size": (0, 512),
        "lr": (1e-8, 1.0),
        "sgd_lr": (1e-8, 10.0),
        "batch_size": (1, 1_000_000),
        "weight_decay": (0.0, 10.0),
        "label_smoothing": (0.0, 0.9),
    }
    _prior: ClassVar = {
        "depth": {0: 0.1, 1: 0.5, 4: 0.3},
        "width": {32: 0.2, 64: 0.6, 256: 0.4, 512: 0.0},  # wide ones cost their square
        "block": {"skip": 0.25, "resnet": 0.25},
        "activation": {
            "gelu": 0.3,
            "mish": 0.2,
            "parametric-selu": 0.2,
            "parametric-mish": 0.1,
        },
        "normalisation": {"layer": 0.2, "batch": 0.2},
        "packing": {4: 0.0, 32: 0.0},  # copies cost as much as networks
        "numeric_scale": {"normal": 0.25},
        "numeric_embedding": {"none": 0.3, "projected": 0.05, "periodic": 0.15},
        "recipe": {"normal": 0.15, "uniform": 0.3, "constant": 0.05},
        "optimizer": {"rmsprop": 0.05, "momentum": 0.05, "sgd": 0.02},
        "scale_speed": {6.0: 0.5, 0.0: 0.4},
    }

    def __init__(
        self,
        depth: tuple[int, int] = (0, 4),
        width: Sequence[int] = (32, 64, 128, 256, 512),
        block: Sequence[str] = BLOCKS,
        activation: Sequence[str] = (
            "relu",
            "silu",
            "selu",
            "gelu",
            "mish",
            "parametric-selu",
            "parametric-mish",
        ),
        normalisation: Sequence[str] = ("none", "layer", "batch"),
        dropout: Sequence[float] = (0.0, 0.1, 0.15, 0.25, 0.35, 0.5),
        packing: Sequence[int] = (1, 4, 32),
        numeric_scale: Sequence[str] = NUMERIC_SCALES,
        numeric_embedding: Sequence[str] = NUMERIC_EMBEDDINGS,
        n_bins: Sequence[int] = BINS,
        embedding_size: Sequence[int] = (0, 4, 8, 16),
        scale_speed: Sequence[float] = (0.0, 0.5, 6.0),
        recipe: Sequence[str] = tuple(RECIPES),
        optimizer: Sequence[str] = OPTIMIZERS,
        ntk_lr: tuple[float, float] = (5e-3, 0.4),
        lr: tuple[float, float] = (3e-4, 3e-2),
        sgd_lr: tuple[float, float] = (1e-2, 0.5),
        batch_size: Sequence[int] = (32, 64, 128, 256, 512, 1024),
        weight_decay: Sequence[float] = (0.0, 3e-4, 3e-3, 0.01, 0.02, 0.05, 0.1, 0.3),
        label_smoothing: Sequence[float] = (0.0, 0.05, 0.1),
    ) -> None:
        self.depth = depth
        self.width = width
        self.block = block
        self.activation = activation
        self.normalisation = normalisation
        self.dropout = dropout
        self.packing = packing
        self.numeric_scale = numeric_scale
        self.numeric_embedding = numeric_embedding
        self.n_bins = n_bins
        self.embedding_size = embedding_size
        self.scale_speed = scale_speed
        self.recipe = recipe
        self.optimizer = optimizer
        self.ntk_lr = ntk_lr
        self.lr = lr
        self.sgd_lr = sgd_lr
        self.batch_size = batch_size
        self.weight_decay = weight_decay
        self.label_smoothing = label_smoothing

    @property
    def choices(self) -> Mapping[str, Choice]:
        low, high = self._bounds("depth")
        hidden = ("depth", tuple(range(max(1, int(low)), int(high) + 1)))
        coded = ("numeric_embedding", ("piecewise", "projected"))
        steep = ("optimizer", ("momentum", "sgd"))
        ntk = tuple(name for name, recipe in RECIPES.items() if recipe.is_ntk)
        plain = tuple(name for name in RECIPES if name not in ntk)
        choices: dict[str, Choice] = {
            "depth": self._counts("depth", 2),
            "width": self._sizes("width", 128, when=hidden),
            "block": self._words("block", BLOCKS, "plain", when=hidden),
            "activation": self._words("activation", UNIT_KINDS, "silu", when=hidden),
            "normalisation": self._words(
                "normalisation", NORMALISATIONS, "none", when=hidden
            ),
            "dropout": self._sizes("dropout", 0.15, when=hidden),
            "packing": self._sizes("packing", 1),
            "numeric_scale": self._words("numeric_scale", NUMERIC_SCALES, "robust"),
            "numeric_embedding": self._words(
                "numeric_embedding", NUMERIC_EMBEDDINGS, "piecewise"
            ),
            "n_bins": self._bins(coded),
            "embedding_size": self._sizes("embedding_size", 0),
            "scale_speed": self._sizes("scale_speed", 0.5),
            "optimizer": self._words("optimizer", OPTIMIZERS, "adamw"),
            "sgd_lr": self._range("sgd_lr", 0.1, when=steep),
            "recipe": self._words(
                "recipe", RECIPES, "fitted", when=("optimizer", ADAPTIVE)
            ),
            "ntk_lr": self._range("ntk_lr", 0.04, when=("recipe", ntk)),
            "lr": self._range("lr", 1e-2, when=("recipe", plain)),
            "batch_size": self._sizes("batch_size", 256),
            "weight_decay": self._sizes("weight_decay", 0.05),
            "label_smoothing": self._sizes("label_smoothing", 0.0),
        }
        return possible(choices)

    def _bins(self, when: When) -> Categorical:
        bins = self._sizes("n_bins", 48, when=when)
        if any(48 % value for value in bins.options):
            allowed = "a choice of divisors of 48"
            reject(type(self).__name__, "n_bins", self._values("n_bins"), allowed)
        return bins

    def for_task(self, task: TaskSpec) -> TableSpace:
        changes: dict[str, Any] = {"batch_size": self._batch_sizes(task)}
        bins = self._values("n_bins")
        wide = [n for n in bins if n * ROWS_PER_BIN <= task.n_rows]
        changes["n_bins"] = tuple(wide) or (min(bins),)
        if not task.n_numeric:
            changes["numeric_embedding"] = ("none",)
            changes["numeric_scale"] = ("robust",)
        if max(task.cardinalities, default=0) <= MAX_ONE_HOT:
            changes["embedding_size"] = tuple(self.embedding_size)[:1]
        if not is_label_scored(task):
            changes["label_smoothing"] = (0.0,)
        return clone(self).set_params(**changes)

    def portfolio(self, task: TaskSpec | None) -> list[Architecture]:
        default, *others = self.points
        if task is not None and task.n_rows < SMALL_ROWS:
            # On small tables small networks did best, and there are few trials.
            others.sort(
                key=lambda point: (point.get("depth", 2), point.get("width", 0))
            )
        return self._known([default, *others], task)

    def named(self, name: str, task: TaskSpec | None = None) -> Architecture:
        """A published network and its training as an architecture of this space.

        Parameters
        ----------
        name : str
            A key of `NAMED`, such as "realmlp-td".
        task : TaskSpec or None, default=None
            The table it is for; None for a classifier.

        Raises
        ------
        InvalidParameterError
            If there is no such name, or this space does not hold the point.
        """
        check_word(type(self).__name__, "name", name, NAMED)
        is_regression = task is not None and task.kind == "regression"
        point = NAMED[name] | (NAMED_REGRESSION.get(name, {}) if is_regression else {})
        return self.fill(point)

    def _suited(self, point: Mapping[str, Any], task: TaskSpec) -> dict[str, Any]:
        given = super()._suited(point, task)
        if task.kind == "regression" and task.n_rows >= SMALL_ROWS:
            rate = given.get("ntk_lr", 0.04) * REGRESSION_RATE
            given["ntk_lr"] = min(rate, max(self.ntk_lr))
        return given

    def build(self, architectures: Sequence[Architecture], task: TaskSpec) -> nn.Module:
        groups: dict[tuple[Any, ...], list[int]] = {}
        for place, architecture in enumerate(architectures):
            groups.setdefault(self.shape(architecture), []).append(place)
        nets = []
        for places in groups.values():
            alike = [architectures[place] for place in places]
            layout = self.layout(alike[0], [task])
            features = self.features(alike[0], task, layout)
            nets.append(TableModule(features, self.net(alike, layout, task)))
        return nets[0] if len(nets) == 1 else Side(nets, list(groups.values()))

    def supernet(self, task: TaskSpec, partial_channels: int = 1) -> Supernet:
        """An untrained network that holds all architectures, for search by gradient.

        Depth, width, block, activation, normalisation and numeric embedding are
        decided, where there is more than one value that may be drawn; residual blocks
        of two layers and training choices are not. Widths are masks of one layer, of
        which no channels can be left out: `partial_channels` has no meaning.
        """
        if type(self).build is not TableSpace.build:
            return super().supernet(task, partial_channels)
        choices = self.choices
        options = {name: _drawn(choices[name]) for name in DECIDED if name in choices}
        blocks = [block for block in options.pop("block", ()) if block in LAYERS]
        if blocks:
            options["block"] = blocks
        if not task.n_numeric:
            options.pop("numeric_embedding")
        default: Any = self.fill({})
        n_bins: Any = choices["n_bins"].default if "n_bins" in choices else None
        given = (n_bins, default["embedding_size"], default["numeric_scale"])
        kinds = options.get("numeric_embedding", ("none",))
        inputs = [TableInput(1, task, kind, *given) for kind in kinds]
        return TableSupernet(inputs, task.n_outputs, options)

    def n_params(self, architecture: Architecture, task: TaskSpec) -> int:
        if type(self).build is not TableSpace.build:
            return super().n_params(architecture, task)
        # Features have no parameters, and take longer to make than networks.
        layout = self.layout(architecture, [task])
        return count_params(lambda: self.net([architecture], layout, task))

    def shape(self, architecture: Architecture) -> tuple[Any, ...]:
        """What architectures must share to be built as one batched network."""
        is_parametric = architecture.get("activation", "").startswith("parametric")
        return (*(architecture.get(name) for name in SHAPE), is_parametric)

    def structure(self, architecture: Architecture) -> Hashable:
        if type(self).build is not TableSpace.build:
            return super().structure(architecture)
        return *self.shape(architecture), architecture.get("activation")

    def layout(self, architecture: Architecture, tasks: Sequence[TaskSpec]) -> Layout:
        """Where the features of an architecture stand, with room for some tasks."""
        return Layout.of(
            tasks,
            architecture["numeric_embedding"],
            architecture.get("n_bins"),
            architecture["embedding_size"],
        )

    def features(
        self, architecture: Architecture, task: TaskSpec, layout: Layout
    ) -> Features:
        """What an architecture reads of the encoded rows of a task."""
        return Features(task, layout, architecture["numeric_scale"])

    def net(
        self, alike: Sequence[Architecture], layout: Layout, task: TaskSpec
    ) -> TableNet:
        """Networks of one shape, which differ in training choices alone."""
        first: Mapping[str, Any] = alike[0]
        inputs = Inputs(
            len(alike), layout, first["numeric_embedding"], first["embedding_size"]
        )
        return TableNet(
            inputs,
            task.n_outputs,
            task.kind,
            depth=first["depth"],
            width=first.get("width", 1),
            activations=[a.get("activation", "relu") for a in alike],
            dropout=[float(a.get("dropout", 0.0)) for a in alike],
            normalisation=first.get("normalisation", "none"),
            block=first.get("block", "plain"),
            packing=first["packing"],
        )

    def describe(self, architecture: Architecture) -> str:
        a: Mapping[str, Any] = architecture
        if a["depth"]:
            blocks = "residual block" if a["block"] == "resnet" else "hidden layer"
            blocks += "s" * (a["depth"] > 1)
            kind = a["activation"]
            parametric = "parametric " * kind.startswith(PARAMETRIC)
            title = parametric + TITLES[kind.removeprefix(PARAMETRIC)]
            words = [f"{a['depth']} {blocks} of {a['width']} {title} units"]
            if a["normalisation"] != "none":
                words.append(f"{a['normalisation']} normalisation")
            if a["block"] == "skip":
                words.append("residual connections")
            if a["dropout"]:
                words.append(f"dropout {a['dropout']:g}")
        else:
            words = ["linear"]
        if a["packing"] > 1:
            words.append(f"{a['packing']} packed copies")
        words.append(_NUMBERS[a["numeric_embedding"]].format(a.get("n_bins")))
        if a["numeric_scale"] == "normal":
            words.append("numbers by their quantiles")
        return ", ".join([word for word in words if word] + describe_training(a))


# Choices that decide the shape of the tensors, or how all of them are trained:
# architectures alike in these are trained as one batched network.
SHAPE = (
    "depth",
    "width",
    "block",
    "normalisation",
    "packing",
    "numeric_scale",
    "numeric_embedding",
    "n_bins",
    "embedding_size",
)

SMALL_ROWS = 1_000
REGRESSION_RATE = 2.5  # factor on the NTK rates of the points, for larger regressions

_NUMBERS = {
    "none": "",
    "piecewise": "piecewise-linear codes of {} bins",
    "projected": "piecewise-linear embeddings of {} bins",
    "periodic": "periodic embeddings",
}


def _drawn(choice: Choice) -> list[Any]:
    """The values of a choice that may be drawn; costly ones may not."""
    values = choice.values()
    if not isinstance(choice, Categorical) or choice.weights is None:
        return list(values)
    return [value for value, w in zip(values, choice.weights, strict=True) if w > 0]
