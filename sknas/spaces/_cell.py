"""The space of networks of cells for images."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations
from typing import Any, ClassVar

from sklearn.base import clone
from torch import nn

from sknas._history import Architecture
from sknas._problem import ImageSpec, TaskSpec
from sknas._validation import check_word, reject
from sknas.exceptions import InvalidParameterError
from sknas.nets._cell import (
    CELL_KINDS,
    CELLS,
    N_KEPT,
    NODES,
    CellNet,
    Skeleton,
    edge_name,
    inputs_name,
    operation_name,
)
from sknas.nets._image import ImageInput
from sknas.nets._operations import make_operation
from sknas.nets._supernet import Supernet
from sknas.nets._supernet_cells import CellSupernet
from sknas.spaces._base import Graph
from sknas.spaces._choices import Categorical, Choice
from sknas.spaces._training_choices import (
    ListedSpace,
    describe_training,
    is_label_scored,
    possible,
)

CELL_OPERATIONS = {
    "nas-bench-201": ("none", "skip", "conv_1", "conv_3", "avg_pool_3"),
    "darts": (
        "none",
        "max_pool_3",
        "avg_pool_3",
        "skip",
        "sep_conv_3",
        "sep_conv_5",
        "dil_conv_3",
        "dil_conv_5",
    ),
}
# Of a step of the default cells without pooling in the stem, beside one of the default
# network of convolutions.
DEFAULT_SIZE = 3 * 16  # cells times channels
RELATIVE_COSTS = {"nas-bench-201": 3.0, "darts": 8.0}
STEM_COST = 0.3  # of the first convolution, which reads all pixels
SAVED = 1.6  # power of the pooling that a step is shorter by: not the first convolution
SIZES = ("cells", "channels", "stem_pool")
MIN_POOLED = 12  # pixels that pooling in the stem leaves of a side

# The best cell of NAS-Bench-201 on CIFAR-10 (arXiv:2001.00326), and its residual block;
# the cells that DARTS found by second-order gradients (arXiv:1806.09055).
KNOWN_CELLS: dict[str, tuple[dict[str, str], ...]] = {
    "nas-bench-201": (
        {
            "edge_0_1": "conv_3",
            "edge_0_2": "conv_3",
            "edge_1_2": "conv_3",
            "edge_0_3": "skip",
            "edge_1_3": "conv_3",
            "edge_2_3": "conv_3",
        },
        {
            "edge_0_1": "conv_3",
            "edge_0_2": "none",
            "edge_1_2": "conv_3",
            "edge_0_3": "skip",
            "edge_1_3": "none",
            "edge_2_3": "skip",
        },
    ),
    "darts": (
        {
            "normal_2_inputs": "0,1",
            "normal_2_first": "sep_conv_3",
            "normal_2_second": "sep_conv_3",
            "normal_3_inputs": "0,1",
            "normal_3_first": "sep_conv_3",
            "normal_3_second": "sep_conv_3",
            "normal_4_inputs": "0,1",
            "normal_4_first": "skip",
            "normal_4_second": "sep_conv_3",
            "normal_5_inputs": "0,2",
            "normal_5_first": "skip",
            "normal_5_second": "dil_conv_3",
            "reduction_2_inputs": "0,1",
            "reduction_2_first": "max_pool_3",
            "reduction_2_second": "max_pool_3",
            "reduction_3_inputs": "1,2",
            "reduction_3_first": "max_pool_3",
            "reduction_3_second": "skip",
            "reduction_4_inputs": "0,2",
            "reduction_4_first": "max_pool_3",
            "reduction_4_second": "skip",
            "reduction_5_inputs": "1,2",
            "reduction_5_first": "max_pool_3",
            "reduction_5_second": "skip",
        },
    ),
}


class CellSpace(ListedSpace):
    """Convolutional networks of one small cell, repeated, and how to train them.

    A cell is a graph, each edge of which has an operation. Each other parameter lists
    the values a search may take; one value alone fixes the choice.

    Parameters
    ----------
    kind : {"nas-bench-201", "darts"}, default="nas-bench-201"
        One cell of four nodes and six edges, with residual blocks that reduce between
        cells; or two cells, a normal and a reducing one, of four nodes each of which
        reads two of the nodes and cells before it.
    operation : sequence of str or None, default=None
        What an edge may do; None for the published operations of the kind: "none",
        "skip", "conv_1", "conv_3" and "avg_pool_3", or "none", "skip", "max_pool_3",
        "avg_pool_3", "sep_conv_3", "sep_conv_5", "dil_conv_3" and "dil_conv_5". In a
        cell of DARTS "none" is never chosen, it only lets a relaxed network do without.
    cells : sequence of int, default=(3, 6, 9)
        Cells of a network. Maps are halved and channels doubled at one and at two
        thirds of them; a reduction that would leave less than 2 x 2 pixels keeps the
        size.
    channels : sequence of int, default=(8, 16, 32)
        Channels of the first cells.
    stem_pool : sequence of int, default=(1, 2, 4)
        Factor by which maps get smaller before the first cell, where most of the time
        goes; 1 keeps the size, as published for images of 32 x 32. Those that leave
        less than 12 pixels of a side are left out if there are others.
    dropout : sequence of float, default=(0.0, 0.1, 0.2, 0.3)
        Probability that a feature of the last layer is dropped.
    flip : sequence of bool, default=(False, True)
        Whether images are mirrored in training, left to right.
    shift : sequence of int, default=(0, 1, 2, 4)
        Most pixels by which images are moved in training, up to an eighth of a side.
    cutout : sequence of bool, default=(False, True)
        Whether a square of each image is cut out in training.
    optimizer : sequence of str, default=("adamw", "momentum")
        The optimiser, always with decoupled weight decay.
    lr : (float, float), default=(1e-3, 2e-2)
        Range of the peak learning rate of "adamw" and "rmsprop".
    sgd_lr : (float, float), default=(1e-2, 0.3)
        Range of the peak learning rate of "momentum" and "sgd".
    batch_size : sequence of int, default=(32, 64, 128, 256, 512)
        Images of a batch; sizes far from the default of a task are left out.
    weight_decay : sequence of float, default=(0.0, 3e-4, 3e-3, 0.02, 0.1)
        Share that weights lose a step, times the learning rate.
    label_smoothing : sequence of float, default=(0.0, 0.1)
        Share of a class label spread over all classes; only for scores that read
        labels.

    References
    ----------
    Dong, Yang: NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture
    Search. arXiv:2001.00326.
    Liu, Simonyan, Yang: DARTS: Differentiable Architecture Search. arXiv:1806.09055.

    Examples
    --------
    >>> from sknas.spaces import CellSpace
    >>> space = CellSpace(cells=(3,), channels=(16,))
    >>> space.describe(space.default_architecture())
    '3 cells of 16 channels: 1 = conv_3(0), 2 = conv_3(0) + conv_3(1), ...
    """

    reads = "image"
    _limits: ClassVar[Mapping[str, tuple[float, float]]] = {
        "cells": (1, 60),
        "channels": (1, 1024),
        "stem_pool": (1, 64),
        "dropout": (0.0, 0.95),
        "shift": (0, 1024),
        "lr": (1e-8, 1.0),
        "sgd_lr": (1e-8, 10.0),
        "batch_size": (1, 1_000_000),
        "weight_decay": (0.0, 10.0),
        "label_smoothing": (0.0, 0.9),
    }
    _prior: ClassVar[Mapping[str, Mapping[Any, float]]] = {}

    def __init__(
        self,
        kind: str = "nas-bench-201",
        operation: Sequence[str] | None = None,
        cells: Sequence[int] = (3, 6, 9),
        channels: Sequence[int] = (8, 16, 32),
        stem_pool: Sequence[int] = (1, 2, 4),
        dropout: Sequence[float] = (0.0, 0.1, 0.2, 0.3),
        flip: Sequence[bool] = (False, True),
        shift: Sequence[int] = (0, 1, 2, 4),
        cutout: Sequence[bool] = (False, True),
        optimizer: Sequence[str] = ("adamw", "momentum"),
        lr: tuple[float, float] = (1e-3, 2e-2),
        sgd_lr: tuple[float, float] = (1e-2, 0.3),
        batch_size: Sequence[int] = (32, 64, 128, 256, 512),
        weight_decay: Sequence[float] = (0.0, 3e-4, 3e-3, 0.02, 0.1),
        label_smoothing: Sequence[float] = (0.0, 0.1),
    ) -> None:
        self.kind = kind
        self.operation = operation
        self.cells = cells
        self.channels = channels
        self.stem_pool = stem_pool
        self.dropout = dropout
        self.flip = flip
        self.shift = shift
        self.cutout = cutout
        self.optimizer = optimizer
        self.lr = lr
        self.sgd_lr = sgd_lr
        self.batch_size = batch_size
        self.weight_decay = weight_decay
        self.label_smoothing = label_smoothing

    def relative_cost(self, sides: tuple[int, int] | None) -> float:
        pools = self._pools(min(sides or (1, 1)))
        a: Any = clone(self).set_params(stem_pool=pools).default_architecture()
        size = a["cells"] * a["channels"] / DEFAULT_SIZE
        cells = size * RELATIVE_COSTS[self.kind] / float(a["stem_pool"] ** SAVED)
        return max(cells, STEM_COST)

    @property
    def choices(self) -> Mapping[str, Choice]:
        coins, known = (False, True), ("adamw", "rmsprop", "momentum", "sgd")
        adaptive, steep = ("optimizer", known[:2]), ("optimizer", known[2:])
        choices: dict[str, Choice] = {
            **self._cell_choices(),
            "cells": self._sizes("cells", 3),
            "channels": self._sizes("channels", 16),
            "stem_pool": self._sizes("stem_pool", 2),
            "dropout": self._sizes("dropout", 0.0),
            "flip": self._words("flip", coins, False),
            "shift": self._sizes("shift", 2),
            "cutout": self._words("cutout", coins, False),
            "optimizer": self._words("optimizer", known, "adamw"),
            "lr": self._range("lr", 5e-3, when=adaptive),
            "sgd_lr": self._range("sgd_lr", 0.1, when=steep),
            "batch_size": self._sizes("batch_size", 128),
            "weight_decay": self._sizes("weight_decay", 0.02),
            "label_smoothing": self._sizes("label_smoothing", 0.0),
        }
        return possible(choices)

    @property
    def operations(self) -> tuple[str, ...]:
        """What an edge of a relaxed network may do."""
        kind = check_word(type(self).__name__, "kind", self.kind, CELL_KINDS)
        published = CELL_OPERATIONS[kind]
        if self.operation is None:
            return published
        given = tuple(self._values("operation"))
        if any(name not in published for name in given) or set(given) == {"none"}:
            reject(type(self).__name__, "operation", given, f"a choice of {published}")
        return given

    def _cell_choices(self) -> dict[str, Choice]:
        """The choices of a cell; their defaults are a published one's."""
        operations = list(self.operations)
        if self.kind == "darts":
            operations = [name for name in operations if name != "none"]
        known = KNOWN_CELLS[self.kind][0]
        choices: dict[str, Choice] = {}
        for cell in CELLS[self.kind]:
            for node in NODES[self.kind]:
                names = [edge_name(cell, start, node) for start in range(node)]
                if self.kind == "darts":
                    name = inputs_name(cell, node)
                    pairs = combinations(range(node), N_KEPT)
                    options = [",".join(map(str, pair)) for pair in pairs]
                    choices[name] = Categorical(options, default=known[name])
                    names = [operation_name(cell, node, j) for j in range(N_KEPT)]
                for name in names:
                    usual = known[name] if known[name] in operations else operations[-1]
                    choices[name] = Categorical(operations, default=usual)
        return choices

    def for_task(self, task: TaskSpec) -> CellSpace:
        changes: dict[str, Any] = {"batch_size": self._batch_sizes(task)}
        changes["stem_pool"] = self._pools(min(_image(task).shape[1:]))
        changes["shift"] = self._shifts(task)
        if not is_label_scored(task):
            changes["label_smoothing"] = (0.0,)
        return clone(self).set_params(**changes)

    def _pools(self, side: float) -> list[int]:
        """The poolings that leave enough of a side."""
        pools = list(self._values("stem_pool"))
        return [p for p in pools if p == 1 or p * MIN_POOLED <= side] or [min(pools)]

    def portfolio(self, task: TaskSpec | None) -> list[Architecture]:
        return self._known(KNOWN_CELLS[self.kind], task) or super().portfolio(task)

    def build(self, architectures: Sequence[Architecture], task: TaskSpec) -> nn.Module:
        (architecture,) = architectures
        a: Mapping[str, Any] = architecture
        image = _image(task)
        inputs = ImageInput(
            image, is_flipped=a["flip"], shift=a["shift"], is_cut=a["cutout"]
        )

        def make_edge(
            cell: str, start: int, end: int, channels: int, stride: int
        ) -> nn.Module | None:
            name = self._operation_on(a, cell, start, end)
            return name and make_operation(name, channels, stride, True)

        return CellNet(
            inputs,
            image.shape,
            task.n_outputs,
            self._skeleton(a),
            make_edge,
            dropout=a["dropout"],
        )

    def _operation_on(
        self, a: Mapping[str, Any], cell: str, start: int, end: int
    ) -> Any:
        """The operation on an edge, None for an edge that is not there."""
        if self.kind != "darts":
            return a[edge_name(cell, start, end)]
        starts = [int(number) for number in a[inputs_name(cell, end)].split(",")]
        if start not in starts:
            return None
        return a[operation_name(cell, end, starts.index(start))]

    def supernet(self, task: TaskSpec, partial_channels: int = 1) -> Supernet:
        default: Any = self.default_architecture()
        return CellSupernet(
            _image(task),
            task.n_outputs,
            self._skeleton(default),
            self.operations,
            partial_channels,
        )

    def _skeleton(self, a: Mapping[str, Any]) -> Skeleton:
        return Skeleton(self.kind, a["cells"], a["channels"], a["stem_pool"])

    def edges(self, architecture: Architecture) -> list[tuple[str, int, int, str]]:
        """The edges of the cells of an architecture.

        Returns
        -------
        list of (str, int, int, str)
            Name of the cell, first node, second node and operation of each edge.
        """
        return [
            (cell, start, end, name)
            for cell in CELLS[self.kind]
            for end in NODES[self.kind]
            for start in range(end)
            if (name := self._operation_on(architecture, cell, start, end))
        ]

    def graph(self, architecture: Architecture) -> Graph:
        """Operations as nodes: each feeds those that start where it ends."""
        edges = self.edges(architecture)
        labels = [f"{cell} {name}" for cell, _, _, name in edges]
        sizes = [f"{n} {architecture[n]}" for n in SIZES]
        feeds = [
            (i, j)
            for i, (cell, _, end, _) in enumerate(edges)
            for j, (other, start, _, _) in enumerate(edges)
            if cell == other and end == start
        ]
        return labels + sizes, feeds

    def structure(self, architecture: Architecture) -> Hashable:
        cell = [n for n in architecture if n not in self.get_params()]
        names = (*cell, *SIZES)
        return tuple((name, architecture[name]) for name in names)

    def describe(self, architecture: Architecture) -> str:
        a: Mapping[str, Any] = architecture
        words = [f"{a['cells']} cells of {a['channels']} channels: {self._formula(a)}"]
        if a["stem_pool"] > 1:
            words.append(f"maps pooled by {a['stem_pool']} at first")
        if a["dropout"]:
            words.append(f"dropout {a['dropout']:g}")
        words += [name for name in ("flip", "cutout") if a[name]]
        if a["shift"]:
            words.append(f"shift {a['shift']}")
        return ", ".join(words + describe_training(a))

    def _formula(self, a: Mapping[str, Any]) -> str:
        """The nodes of all cells as sums of operations on others."""
        nodes = []
        for cell in CELLS[self.kind]:
            for end in NODES[self.kind]:
                parts = [
                    f"{name}({start})"
                    for start in range(end)
                    if (name := self._operation_on(a, cell, start, end))
                    and name != "none"
                ]
                title = f"{cell} {end}" if self.kind == "darts" else str(end)
                nodes.append(f"{title} = {' + '.join(parts) or 0}")
        return ", ".join(nodes)


def _image(task: TaskSpec) -> ImageSpec:
    """The images of a task.

    Raises
    ------
    InvalidParameterError
        If its rows are no images.
    """
    if task.image is None:
        raise InvalidParameterError("A CellSpace reads images, a TableSpace tables.")
    return task.image
