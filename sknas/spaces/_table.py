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
    TABLE_ACTIVATIONS,
    Features,
    Inputs,
    Layout,
    Supernet,
    TableInput,
    TableModule,
    TableNet,
)
from sknas.nets._inputs import MAX_ONE_HOT
from sknas.nets._supernet_table import LAYER_BLOCKS, MIXED_CHOICES, TableSupernet
from sknas.nets._table import PARAMETRIC
from sknas.spaces._choices import Categorical, Choice, When
from sknas.spaces._known import LEARNT, PUBLISHED, PUBLISHED_REGRESSION
from sknas.spaces._parametrized import ParametrizedSpace, drop_unreachable
from sknas.spaces._training_choices import (
    ADAPTIVE,
    TITLES,
    TRAINING,
    TRAINING_LIMITS,
    describe_training,
    training_choices,
    training_for_task,
)

BINS = (8, 16, 48)
MIN_BIN_ROWS = 16  # with fewer rows in a bin, codes overfit
SMALL_ROWS = 1_000  # tables with fewer rows start with small networks
REGRESSION_LR_FACTOR = 2.5  # factor on ntk_lr for regression, from SMALL_ROWS on


class TableSpace(ParametrizedSpace):
    """Multi-layer networks for tables, and how to train them.

    Each parameter lists the values a search may take; a single value fixes the
    choice. Choices that do not apply to a table, such as the embedding size where no
    column has many levels, are dropped before the search.

    Parameters
    ----------
    depth : (int, int), default=(0, 4)
        Minimum and maximum number of hidden layers or residual blocks; 0 is a linear
        network.
    width : sequence of int, default=(32, 64, 128, 256, 512)
        Hidden width: units of a hidden layer.
    block : sequence of str, default=("plain", "skip", "resnet")
        "plain" stacks layers, "skip" adds the input of a layer to its output, "resnet"
        stacks residual blocks of normalisation and two layers.
    activation : sequence of str
        Any of "relu", "silu", "selu", "gelu", "mish" and "tanh", each also as
        "parametric-relu" and so on, where each unit learns how to mix the activation
        with its input. By default all plain ones but "tanh", and two parametric ones.
    normalisation : sequence of str, default=("none", "layer", "batch")
        Normalisation between a layer and its activation.
    dropout : sequence of float, default=(0.0, 0.1, 0.15, 0.25, 0.35, 0.5)
        Dropout probability of hidden units.
    packing : sequence of int, default=(1, 4, 32)
        Members of a network that share its hidden layers (TabM-mini) and whose outputs
        are averaged.
    numeric_scale : sequence of str, default=("robust", "normal")
        "robust" scales numbers by median and quartiles, "normal" maps their quantiles
        to a normal distribution.
    numeric_embedding : sequence of str
        "none" takes numbers as they are, "piecewise" adds piecewise-linear codes,
        "projected" learns a vector of these codes for each number, and "periodic" one
        of learnt frequencies. All four by default.
    n_bins : sequence of int, default=(8, 16, 48)
        Bins of the codes, divisors of 48; only with codes. Numbers of bins that leave
        fewer than 16 rows in a bin are left out.
    embedding_size : sequence of int, default=(0, 4, 8, 16)
        Length of the vectors of columns with more than 8 levels; with 0, all columns
        are one-hot.
    scale_speed : sequence of float, default=(0.0, 0.5, 6.0)
        Learning rate of the scale of each input, relative to that of weights; 0 to
        train no scales.
    recipe : sequence of str, default=("fitted", "normal", "uniform", "constant")
        Initial weights and schedule. "fitted" and "normal" have learning rates that
        fall with the root of a layer's inputs (NTK), initial weights that are fitted
        to the rows or normal, and a rate that is annealed in cycles; "uniform" has
        torch's initial weights and one rate for all layers, annealed too; "constant" is
        "uniform" at a constant rate. Only for "adamw" and "rmsprop".
    optimizer : sequence of str, default=("adamw", "rmsprop", "momentum", "sgd")
        Any of these optimisers, with decoupled weight decay.
    ntk_lr : (float, float), default=(5e-3, 0.4)
        Range of the peak learning rate of "fitted" and "normal".
    lr : (float, float), default=(3e-4, 3e-2)
        Range of the peak learning rate of "uniform" and "constant".
    sgd_lr : (float, float), default=(1e-2, 0.5)
        Range of the peak learning rate of "momentum" and "sgd".
    batch_size : sequence of int, default=(32, 64, 128, 256, 512, 1024)
        Rows in a batch; sizes far from the default for a table are left out.
    weight_decay : sequence of float
        Decoupled weight decay per step, as a factor on the learning rate. From 0 to 0.3
        by default.
    label_smoothing : sequence of float, default=(0.0, 0.05, 0.1)
        Share of a class label that is spread over all classes; only for scores that
        read labels.

    Attributes
    ----------
    known_architectures : sequence of mapping
        Architectures that a search starts with, given by the choices that are not at
        their defaults. A subclass may list others.

    Notes
    -----
    By default, values have different prior probabilities. Costly ones, such as packing
    and widths of 512, are never drawn: they serve the published networks of `named`.

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

    can_build_batches = True
    has_supernet = True
    measures_memory = True
    cost_free = ("dropout", "scale_speed", "recipe", "ntk_lr", *TRAINING)

    known_architectures: Sequence[Mapping[str, Any]] = ({}, *LEARNT)

    _limits: ClassVar = {
        "depth": (0, 32),
        "width": (1, 8192),
        "packing": (1, 64),
        "scale_speed": (0.0, 100.0),
        "ntk_lr": (1e-8, 10.0),
        "dropout": (0.0, 0.95),
        "n_bins": (1, 48),
        "embedding_size": (0, 512),
        **TRAINING_LIMITS,
    }
    _prior: ClassVar = {
        "depth": {0: 0.1, 1: 0.5, 4: 0.3},
        "width": {32: 0.2, 64: 0.6, 256: 0.4, 512: 0.0},  # costs grow with its square
        "block": {"skip": 0.25, "resnet": 0.25},
        "activation": {
            "gelu": 0.3,
            "mish": 0.2,
            "parametric-selu": 0.2,
            "parametric-mish": 0.1,
        },
        "normalisation": {"layer": 0.2, "batch": 0.2},
        "packing": {4: 0.0, 32: 0.0},  # each member costs as much as a network
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
        choices: dict[str, Choice] = {
            "depth": self._integers("depth", 2),
            "width": self._ordered("width", 128, when=hidden),
            "block": self._categorical("block", BLOCKS, "plain", when=hidden),
            "activation": self._categorical(
                "activation", TABLE_ACTIVATIONS, "silu", when=hidden
            ),
            "normalisation": self._categorical(
                "normalisation", NORMALISATIONS, "none", when=hidden
            ),
            "dropout": self._ordered("dropout", 0.15, when=hidden),
            "packing": self._ordered("packing", 1),
            "numeric_scale": self._categorical(
                "numeric_scale", NUMERIC_SCALES, "robust"
            ),
            "numeric_embedding": self._categorical(
                "numeric_embedding", NUMERIC_EMBEDDINGS, "piecewise"
            ),
            "n_bins": self._bins(coded),
            "embedding_size": self._ordered("embedding_size", 0),
            "scale_speed": self._ordered("scale_speed", 0.5),
            **self._training_choices(),
        }
        return drop_unreachable(choices)

    def _training_choices(self) -> dict[str, Choice]:
        """Return the training choices, with a recipe for adaptive optimisers."""
        ntk = tuple(name for name, recipe in RECIPES.items() if recipe.is_ntk)
        others = tuple(name for name in RECIPES if name not in ntk)
        shared = training_choices(
            self,
            lr=1e-2,
            sgd_lr=0.1,
            batch_size=256,
            weight_decay=0.05,
            lr_when=("recipe", others),
        )
        return {
            "optimizer": shared.pop("optimizer"),
            "sgd_lr": shared.pop("sgd_lr"),
            "recipe": self._categorical("recipe", RECIPES, "fitted", when=ADAPTIVE),
            "ntk_lr": self._log_range("ntk_lr", 0.04, when=("recipe", ntk)),
            **shared,
        }

    def _bins(self, when: When) -> Categorical:
        """Return the choice of a number of bins."""
        bins = self._ordered("n_bins", 48, when=when)
        if any(48 % value for value in bins.options):
            allowed = "a choice of divisors of 48"
            reject(type(self).__name__, "n_bins", self._values("n_bins"), allowed)
        return bins

    def for_task(self, task: TaskSpec) -> TableSpace:
        changes = training_for_task(self, task)
        bins = self._values("n_bins")
        filled = tuple(n for n in bins if n * MIN_BIN_ROWS <= task.n_rows)
        changes["n_bins"] = filled or (min(bins),)
        if not task.n_numeric:
            changes["numeric_embedding"] = ("none",)
            changes["numeric_scale"] = ("robust",)
        if max(task.cardinalities, default=0) <= MAX_ONE_HOT:
            changes["embedding_size"] = tuple(self.embedding_size)[:1]
        return clone(self).set_params(**changes)

    def portfolio(self, task: TaskSpec | None) -> list[Architecture]:
        default, *others = self.known_architectures
        if task is not None and task.n_rows < SMALL_ROWS:
            # On small tables small networks did best, and there are few trials.
            others.sort(key=lambda a: (a.get("depth", 2), a.get("width", 0)))
        return self._fill_known([default, *others], task)

    def named(self, name: str, task: TaskSpec | None = None) -> Architecture:
        """Return a published network and its training as an architecture.

        Parameters
        ----------
        name : {"realmlp-td-s", "realmlp-td", "tabm-mini", "resnet", "mlp", "linear"}
            The name of the network.
        task : TaskSpec or None, default=None
            The task it is for; None for classification.

        Raises
        ------
        InvalidParameterError
            If the name is unknown, or this space lacks one of the network's values.
        """
        check_word(type(self).__name__, "name", name, PUBLISHED)
        given = PUBLISHED[name]
        if task is not None and task.kind == "regression":
            given = given | PUBLISHED_REGRESSION.get(name, {})
        return self.fill(given)

    def _fit_known(self, given: Mapping[str, Any], task: TaskSpec) -> dict[str, Any]:
        fitted = super()._fit_known(given, task)
        if task.kind == "regression" and task.n_rows >= SMALL_ROWS:
            rate = fitted.get("ntk_lr", 0.04) * REGRESSION_LR_FACTOR
            fitted["ntk_lr"] = min(rate, max(self.ntk_lr))
        return fitted

    def build(self, architecture: Architecture, task: TaskSpec) -> nn.Module:
        layout = self.layout(architecture, [task])
        features = self.features(architecture, task, layout)
        return TableModule(features, self.build_batch([architecture], task, layout))

    def supernet(self, task: TaskSpec, partial_channels: int = 1) -> Supernet:
        """Build an untrained network that holds all options, for search by gradient.

        It searches depth, width, block, activation, normalisation and numeric
        embedding, where more than one value can be drawn, but neither residual blocks
        of two layers nor training choices. Widths are masks of one layer, so no
        channels can be left out: `partial_channels` has no effect.
        """
        if not self.has_supernet:
            return super().supernet(task, partial_channels)
        choices = self.choices
        options = {
            name: list(choices[name].drawn_values())
            for name in MIXED_CHOICES
            if name in choices
        }
        blocks = [block for block in options.pop("block", ()) if block in LAYER_BLOCKS]
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

    def batch_key(self, architecture: Architecture) -> Hashable:
        # A batch may mix activations, but not parametric ones with others.
        mixed = (*self.cost_free, "activation")
        shared = frozenset(i for i in architecture.items() if i[0] not in mixed)
        return shared, architecture.get("activation", "").startswith(PARAMETRIC)

    def batch_load(self, architecture: Architecture) -> tuple[int, int]:
        return architecture["packing"], architecture.get("width", 1)

    def batch_order(self, architecture: Architecture) -> tuple[Any, ...]:
        return architecture.get("activation", ""), architecture.get("dropout", 0.0)

    def layout(self, architecture: Architecture, tasks: Sequence[TaskSpec]) -> Layout:
        return Layout.of(
            tasks,
            architecture["numeric_embedding"],
            architecture.get("n_bins"),
            architecture["embedding_size"],
        )

    def features(
        self, architecture: Architecture, task: TaskSpec, layout: Layout
    ) -> Features:
        return Features(task, layout, architecture["numeric_scale"])

    def build_batch(
        self,
        architectures: Sequence[Architecture],
        task: TaskSpec,
        layout: Layout | None = None,
    ) -> TableNet:
        first: Mapping[str, Any] = architectures[0]
        inputs = Inputs(
            len(architectures),
            self.layout(architectures[0], [task]) if layout is None else layout,
            first["numeric_embedding"],
            first["embedding_size"],
        )
        return TableNet(
            inputs,
            task.n_outputs,
            task.kind,
            depth=first["depth"],
            width=first.get("width", 1),
            activations=[a.get("activation", "relu") for a in architectures],
            dropout=[float(a.get("dropout", 0.0)) for a in architectures],
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
        words.append(_EMBEDDING_TITLES[a["numeric_embedding"]].format(a.get("n_bins")))
        if a["numeric_scale"] == "normal":
            words.append("numbers by their quantiles")
        return ", ".join([word for word in words if word] + describe_training(a))


_EMBEDDING_TITLES = {
    "none": "",
    "piecewise": "piecewise-linear codes of {} bins",
    "projected": "piecewise-linear embeddings of {} bins",
    "periodic": "periodic embeddings",
}
