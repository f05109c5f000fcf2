"""The space of networks for tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import clone
from torch import nn

from sknas._budget import default_batch_size
from sknas._checks import reject
from sknas._history import Architecture
from sknas._optim import OPTIMIZERS
from sknas._problem import TaskSpec
from sknas.nets import ACTIVATIONS, NORMALISATIONS, Side, TableInput, TableNet
from sknas.nets._embeddings import MAX_ONE_HOT
from sknas.spaces._base import Space
from sknas.spaces._choices import Categorical, Choice, Integer, Real, When

ADAPTIVE = ("adamw", "rmsprop")  # their steps do not grow with the gradient
BINS = (8, 16, 48)
ROWS_PER_BIN = 16  # finer codes than that would learn rows by heart


class TableSpace(Space):
    """Multi-layer networks for tables, and how to train them.

    Each parameter lists the values a search may take; one value alone fixes the
    choice. Choices that mean nothing for a table, such as the embedding size where
    there is no large category, are dropped before the search.

    Parameters
    ----------
    depth : (int, int), default=(1, 4)
        Least and most hidden layers.
    width : sequence of int, default=(32, 64, 128, 256)
        Units of a hidden layer.
    activation : sequence of str, default=("relu", "silu", "selu", "gelu")
        Of "relu", "silu", "selu", "gelu" and "tanh".
    normalisation : sequence of str, default=("none", "layer", "batch")
        Between a layer and its activation.
    residual : sequence of bool, default=(False, True)
        Whether hidden layers add their input to their output; only from two hidden
        layers on.
    dropout : sequence of float, default=(0.0, 0.1, 0.2, 0.35, 0.5)
        Probability that a hidden unit is dropped.
    numeric_embedding : sequence of str, default=("none", "piecewise")
        Numbers as they are, or with piecewise-linear codes beside them.
    n_bins : sequence of int, default=(8, 16, 48)
        Bins of the codes, divisors of 48; only with "piecewise". Those that would hold
        fewer than 16 rows are left out.
    embedding_size : sequence of int, default=(4, 8, 16)
        Length of the vectors of categories with more than 8 levels.
    optimizer : sequence of str, default=("adamw", "rmsprop", "momentum", "sgd")
        The optimiser, always with decoupled weight decay.
    lr : (float, float), default=(3e-4, 3e-2)
        Range of the peak learning rate of "adamw" and "rmsprop".
    sgd_lr : (float, float), default=(1e-2, 0.5)
        Range of the peak learning rate of "momentum" and "sgd".
    batch_size : sequence of int, default=(32, 64, 128, 256, 512, 1024)
        Rows of a batch; sizes far from the default of a table are left out.
    weight_decay : sequence of float, default=(0.0, 0.003, 0.01, 0.03, 0.1, 0.3)
        Share that weights lose a step, times the learning rate.
    label_smoothing : sequence of float, default=(0.0, 0.05, 0.1)
        Share of a class label spread over all classes; only for scores that read
        labels.

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
    """

    def __init__(
        self,
        depth: tuple[int, int] = (1, 4),
        width: Sequence[int] = (32, 64, 128, 256),
        activation: Sequence[str] = ("relu", "silu", "selu", "gelu"),
        normalisation: Sequence[str] = ("none", "layer", "batch"),
        residual: Sequence[bool] = (False, True),
        dropout: Sequence[float] = (0.0, 0.1, 0.2, 0.35, 0.5),
        numeric_embedding: Sequence[str] = ("none", "piecewise"),
        n_bins: Sequence[int] = BINS,
        embedding_size: Sequence[int] = (4, 8, 16),
        optimizer: Sequence[str] = OPTIMIZERS,
        lr: tuple[float, float] = (3e-4, 3e-2),
        sgd_lr: tuple[float, float] = (1e-2, 0.5),
        batch_size: Sequence[int] = (32, 64, 128, 256, 512, 1024),
        weight_decay: Sequence[float] = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3),
        label_smoothing: Sequence[float] = (0.0, 0.05, 0.1),
    ) -> None:
        self.depth = depth
        self.width = width
        self.activation = activation
        self.normalisation = normalisation
        self.residual = residual
        self.dropout = dropout
        self.numeric_embedding = numeric_embedding
        self.n_bins = n_bins
        self.embedding_size = embedding_size
        self.optimizer = optimizer
        self.lr = lr
        self.sgd_lr = sgd_lr
        self.batch_size = batch_size
        self.weight_decay = weight_decay
        self.label_smoothing = label_smoothing

    @property
    def choices(self) -> Mapping[str, Choice]:
        adaptive = ("optimizer", ADAPTIVE)
        piecewise = ("numeric_embedding", ("piecewise",))
        low, high = self._bounds("depth")
        deep = tuple(range(max(2, int(low)), int(high) + 1))
        choices: dict[str, Choice] = {
            "depth": _range(low, high, 2),
            "width": self._sizes("width", 128),
            "activation": self._words("activation", ACTIVATIONS, "silu"),
            "normalisation": self._words("normalisation", NORMALISATIONS, "none"),
            "residual": self._words("residual", (False, True), False),
            "dropout": self._sizes("dropout", 0.2),
            "numeric_embedding": self._words(
                "numeric_embedding", ("none", "piecewise"), "piecewise"
            ),
            "n_bins": self._sizes("n_bins", 48, when=piecewise),
            "embedding_size": self._sizes("embedding_size", 8),
            "optimizer": self._words("optimizer", OPTIMIZERS, "adamw"),
            "lr": _range(*self._bounds("lr"), 1e-2, log=True, when=adaptive),
            "sgd_lr": _range(
                *self._bounds("sgd_lr"),
                0.1,
                log=True,
                when=("optimizer", ("momentum", "sgd")),
            ),
            "batch_size": self._sizes("batch_size", 256),
            "weight_decay": self._sizes("weight_decay", 0.03),
            "label_smoothing": self._sizes("label_smoothing", 0.0),
        }
        choices["residual"].when = ("depth", deep)
        return {name: c for name, c in choices.items() if _can_be_met(c.when, choices)}

    def _values(self, name: str) -> list[Any]:
        values = getattr(self, name)
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            allowed = "a tuple or list of one value or more"
            reject(type(self).__name__, name, values, allowed)
        return [v.item() if isinstance(v, np.generic) else v for v in values]

    def _words(self, name: str, known: Any, default: Any) -> Categorical:
        """A choice among words; the first one is the default if `default` is out."""
        values = self._values(name)
        if any(value not in known for value in values):
            reject(type(self).__name__, name, values, f"a choice of {tuple(known)!r}")
        return Categorical(values, default=default if default in values else values[0])

    def _sizes(self, name: str, default: float, when: Any = None) -> Categorical:
        """A choice among numbers; the one nearest to `default` is the default."""
        values = self._values(name)
        low, high = _SIZES[name]
        if not all(_is_within(v, low, high) for v in values):
            what = "ints" if isinstance(low, int) else "numbers"
            allowed = f"a choice of {what} from {low} to {high}"
            reject(type(self).__name__, name, values, allowed)
        if name == "n_bins" and any(48 % value for value in values):
            reject(type(self).__name__, name, values, "a choice of divisors of 48")
        near = min(values, key=lambda value: abs(value - default))
        return Categorical(sorted(values), ordered=True, default=near, when=when)

    def _bounds(self, name: str) -> tuple[float, float]:
        values = self._values(name)
        low, high = _SIZES[name]
        are_within = len(values) == 2 and all(_is_within(v, low, high) for v in values)
        if not are_within or values[0] > values[1]:
            what = "ints" if isinstance(low, int) else "numbers"
            allowed = f"two ascending {what} from {low} to {high}"
            reject(type(self).__name__, name, values, allowed)
        return values[0], values[1]

    def for_task(self, task: TaskSpec) -> TableSpace:
        changes: dict[str, Any] = {"batch_size": self._batch_sizes(task.n_rows)}
        bins = self._values("n_bins")
        wide = [n for n in bins if n * ROWS_PER_BIN <= task.n_rows]
        changes["n_bins"] = tuple(wide) or (min(bins),)
        if not task.n_numeric:
            changes["numeric_embedding"] = ("none",)
        if max(task.cardinalities, default=0) <= MAX_ONE_HOT:
            changes["embedding_size"] = tuple(self.embedding_size)[:1]
        if task.kind not in ("binary", "multiclass") or task.probabilistic:
            changes["label_smoothing"] = (0.0,)
        return clone(self).set_params(**changes)

    def _batch_sizes(self, n_rows: float) -> tuple[int, ...]:
        """Sizes near the default one of a table; one batch needs no choice."""
        size = default_batch_size(n_rows)
        sizes = self._values("batch_size")
        near = (size,) if n_rows <= size else (size // 2, size, 2 * size)
        nearest = min(sizes, key=lambda value: abs(value - size))
        return tuple(s for s in sizes if s in near) or (nearest,)

    def portfolio(self, task: TaskSpec | None) -> list[Architecture]:
        space = self if task is None else self.for_task(task)
        choices = space.choices
        usual = {} if task is None else {"batch_size": default_batch_size(task.n_rows)}
        points = []
        for point in ({}, *KNOWN):
            given: dict[str, Any] = {**usual, **point}
            inside = {
                name: value
                for name, value in given.items()
                if name in choices and choices[name].contains(value)
            }
            # A known point that is not quite in the space is no known point.
            if inside == given or not point:
                points.append(space.fill(inside))
        return list(dict.fromkeys(points))

    def build(self, architectures: Sequence[Architecture], task: TaskSpec) -> nn.Module:
        groups: dict[tuple[Any, ...], list[int]] = {}
        for place, architecture in enumerate(architectures):
            shape = tuple(architecture.get(name) for name in SHAPE)
            groups.setdefault(shape, []).append(place)
        nets = [
            self._build_alike([architectures[place] for place in places], task)
            for places in groups.values()
        ]
        return nets[0] if len(nets) == 1 else Side(nets, list(groups.values()))

    def _build_alike(self, alike: Sequence[Architecture], task: TaskSpec) -> nn.Module:
        """Networks of the same shape, which differ in training choices alone."""
        first: Mapping[str, Any] = alike[0]
        inputs = TableInput(
            len(alike), task, first.get("n_bins"), first["embedding_size"]
        )
        return TableNet(
            inputs,
            task.n_outputs,
            depth=first["depth"],
            width=first["width"],
            activation=first["activation"],
            normalisation=first["normalisation"],
            dropout=[float(a["dropout"]) for a in alike],
            residual=bool(first.get("residual")),
        )

    def describe(self, architecture: Architecture) -> str:
        a: Mapping[str, Any] = architecture
        layers = "hidden layer" if a["depth"] == 1 else "hidden layers"
        words = [f"{a['depth']} {layers} of {a['width']} {_TITLES[a['activation']]}"]
        words[0] += " units"
        if a["normalisation"] != "none":
            words.append(f"{a['normalisation']} normalisation")
        if a.get("residual"):
            words.append("residual connections")
        if a["dropout"]:
            words.append(f"dropout {a['dropout']:g}")
        if a["numeric_embedding"] == "piecewise":
            words.append(f"piecewise-linear codes of {a['n_bins']} bins")
        lr = a.get("lr", a.get("sgd_lr"))
        words.append(
            f"trained by {_TITLES[a['optimizer']]} at a learning rate of {lr:.2g}, "
            f"batches of {a['batch_size']}, weight decay {a['weight_decay']:g}"
        )
        if a["label_smoothing"]:
            words.append(f"label smoothing {a['label_smoothing']:g}")
        return ", ".join(words)


# Choices that decide the shape of the tensors: architectures alike in these are
# built as one batched network.
SHAPE = (
    "depth",
    "width",
    "activation",
    "normalisation",
    "residual",
    "numeric_embedding",
    "n_bins",
    "embedding_size",
)

# Points that did well on other tables, tried after the default one.
KNOWN: tuple[dict[str, Any], ...] = (
    {"width": 256, "activation": "relu", "n_bins": 16, "lr": 5e-3},
    {
        "depth": 3,
        "activation": "selu",
        "numeric_embedding": "none",
        "dropout": 0.1,
        "lr": 3e-3,
    },
)

_SIZES = {
    "depth": (1, 32),
    "width": (1, 8192),
    "dropout": (0.0, 0.95),
    "n_bins": (1, 48),
    "embedding_size": (1, 512),
    "lr": (1e-8, 1.0),
    "sgd_lr": (1e-8, 10.0),
    "batch_size": (1, 1_000_000),
    "weight_decay": (0.0, 10.0),
    "label_smoothing": (0.0, 0.9),
}

_TITLES = {
    "relu": "ReLU",
    "silu": "SiLU",
    "selu": "SELU",
    "gelu": "GELU",
    "tanh": "tanh",
    "adamw": "AdamW",
    "rmsprop": "RMSprop",
    "momentum": "SGD with momentum",
    "sgd": "SGD",
}


def _can_be_met(when: When | None, choices: Mapping[str, Choice]) -> bool:
    """Whether a condition can hold, given the values that are left to choose from."""
    return when is None or any(choices[when[0]].contains(value) for value in when[1])


def _is_within(value: Any, low: float, high: float) -> bool:
    """Whether a value is a number within bounds; an int if the bounds are ints."""
    kinds = int if isinstance(low, int) else int | float
    return isinstance(value, kinds) and value is not True and low <= value <= high


def _range(
    low: float, high: float, default: float, *, log: bool = False, when: Any = None
) -> Choice:
    """A range, or the one value it has."""
    if low == high:
        return Categorical([low], default=low, when=when)
    kind = Integer if isinstance(low, int) and isinstance(high, int) else Real
    near = min(max(default, low), high)
    return kind(low, high, log=log, default=near, when=when)
