"""The space of networks of cells for images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, ClassVar

from sklearn.base import clone
from torch import nn

from sknas._history import Architecture
from sknas._problem import TaskSpec
from sknas._validation import check_word, reject
from sknas.nets._cell import (
    CELL_KINDS,
    CELLS,
    N_NODE_INPUTS,
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
from sknas.spaces._image import image_of
from sknas.spaces._known import PUBLISHED_CELLS
from sknas.spaces._parametrized import ParametrizedSpace, drop_unreachable
from sknas.spaces._training_choices import (
    TRAINING,
    TRAINING_LIMITS,
    describe_training,
    training_choices,
    training_for_task,
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
# Costs of a training step, relative to the default network of an ImageSpace.
RELATIVE_COSTS = {"nas-bench-201": 3.0, "darts": 8.0}  # DEFAULT_SIZE, without pooling
STEM_COST = 0.3  # first convolution only
DEFAULT_SIZE = 3 * 16  # number of cells times channels
POOLING_POWER = 1.6  # pooling by p in the stem divides the cost of cells by p**1.6
SIZES = ("cells", "channels", "stem_pool")
MIN_POOLED_SIDE = 12  # minimum side of maps after pooling in the stem, in pixels


class CellSpace(ParametrizedSpace):
    """Convolutional networks of one small cell, repeated, and how to train them.

    A cell is a graph with an operation on each edge. Each parameter but `kind` lists
    the values a search may take; a single value fixes the choice.

    Parameters
    ----------
    kind : {"nas-bench-201", "darts"}, default="nas-bench-201"
        "nas-bench-201" has one cell of four nodes and six edges, and residual blocks
        for reductions between cells. "darts" has two cells, a normal and a reducing
        one, of four nodes, each of which reads two of the nodes and cells before it.
    operation : sequence of str or None, default=None
        Operations of an edge; None for the published ones of the kind: "none", "skip",
        "conv_1", "conv_3" and "avg_pool_3", or "none", "skip", "max_pool_3",
        "avg_pool_3", "sep_conv_3", "sep_conv_5", "dil_conv_3" and "dil_conv_5". In a
        cell of DARTS "none" is an option of the supernet only, and never chosen.
    cells : sequence of int, default=(3, 6, 9)
        Number of cells. Maps are halved and channels doubled after one and after two
        thirds of them; a reduction that would leave less than 2 x 2 pixels keeps the
        size.
    channels : sequence of int, default=(8, 16, 32)
        Number of channels of the first cells.
    stem_pool : sequence of int, default=(1, 2, 4)
        Factor by which maps are reduced before the first cell, which saves most of the
        time; 1 keeps the size, as published for images of 32 x 32. Factors that leave
        sides of less than 12 pixels are left out if there are others.
    dropout : sequence of float, default=(0.0, 0.1, 0.2, 0.3)
        Dropout probability before the last layer.
    flip : sequence of bool, default=(False, True)
        If True, half of the images are mirrored in training, left to right.
    shift : sequence of int, default=(0, 1, 2, 4)
        Maximum shift of images in training, in pixels, up to an eighth of a side.
    cutout : sequence of bool, default=(False, True)
        If True, a square of each image is blanked in training.
    optimizer : sequence of str, default=("adamw", "momentum")
        Any of "adamw", "rmsprop", "momentum" and "sgd", with decoupled weight decay.
    lr : (float, float), default=(1e-3, 2e-2)
        Range of the peak learning rate of "adamw" and "rmsprop".
    sgd_lr : (float, float), default=(1e-2, 0.3)
        Range of the peak learning rate of "momentum" and "sgd".
    batch_size : sequence of int, default=(32, 64, 128, 256, 512)
        Images in a batch; sizes far from the default for a task are left out.
    weight_decay : sequence of float, default=(0.0, 3e-4, 3e-3, 0.02, 0.1)
        Decoupled weight decay per step, as a factor on the learning rate.
    label_smoothing : sequence of float, default=(0.0, 0.1)
        Share of a class label that is spread over all classes; only for scores that
        read labels.

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
    has_supernet = True
    has_graph = True
    measures_memory = True
    cost_free = ("dropout", "flip", "shift", "cutout", *TRAINING)
    _limits: ClassVar[Mapping[str, tuple[float, float]]] = {
        "cells": (1, 60),
        "channels": (1, 1024),
        "stem_pool": (1, 64),
        "dropout": (0.0, 0.95),
        "shift": (0, 1024),
        **TRAINING_LIMITS,
    }

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
        pools = self._pools_for_side(min(sides or (1, 1)))
        a: Any = clone(self).set_params(stem_pool=pools).default_architecture()
        size = a["cells"] * a["channels"] / DEFAULT_SIZE
        saving = float(a["stem_pool"] ** POOLING_POWER)
        return max(size * RELATIVE_COSTS[self.kind] / saving, STEM_COST)

    @property
    def choices(self) -> Mapping[str, Choice]:
        choices: dict[str, Choice] = {
            **self._cell_choices(),
            "cells": self._ordered("cells", 3),
            "channels": self._ordered("channels", 16),
            "stem_pool": self._ordered("stem_pool", 2),
            "dropout": self._ordered("dropout", 0.0),
            "flip": self._categorical("flip", (False, True), False),
            "shift": self._ordered("shift", 2),
            "cutout": self._categorical("cutout", (False, True), False),
            **training_choices(
                self, lr=5e-3, sgd_lr=0.1, batch_size=128, weight_decay=0.02
            ),
        }
        return drop_unreachable(choices)

    @property
    def operations(self) -> tuple[str, ...]:
        """Operations of an edge of the supernet."""
        kind = check_word(type(self).__name__, "kind", self.kind, CELL_KINDS)
        published = CELL_OPERATIONS[kind]
        if self.operation is None:
            return published
        given = tuple(self._values("operation"))
        if any(name not in published for name in given) or set(given) == {"none"}:
            reject(type(self).__name__, "operation", given, f"a choice of {published}")
        return given

    def _cell_choices(self) -> dict[str, Choice]:
        """Return the choices of a cell, a published one by default."""
        operations = list(self.operations)
        if self.kind == "darts":
            operations = [name for name in operations if name != "none"]
        known = PUBLISHED_CELLS[self.kind][0]
        choices: dict[str, Choice] = {}
        for cell in CELLS[self.kind]:
            for node in NODES[self.kind]:
                names = [edge_name(cell, start, node) for start in range(node)]
                if self.kind == "darts":
                    name = inputs_name(cell, node)
                    pairs = combinations(range(node), N_NODE_INPUTS)
                    options = [",".join(map(str, pair)) for pair in pairs]
                    choices[name] = Categorical(options, default=known[name])
                    names = [
                        operation_name(cell, node, j) for j in range(N_NODE_INPUTS)
                    ]
                for name in names:
                    is_listed = known[name] in operations
                    default = known[name] if is_listed else operations[-1]
                    choices[name] = Categorical(operations, default=default)
        return choices

    def for_task(self, task: TaskSpec) -> CellSpace:
        changes = training_for_task(self, task)
        changes["stem_pool"] = self._pools_for_side(min(image_of(self, task).shape[1:]))
        return clone(self).set_params(**changes)

    def _pools_for_side(self, side: int) -> list[int]:
        """Return the factors of pooling in the stem that leave enough pixels."""
        pools = self._values("stem_pool")
        limit = max(1, side // MIN_POOLED_SIDE)
        return [pool for pool in pools if pool <= limit] or [min(pools)]

    def portfolio(self, task: TaskSpec | None) -> list[Architecture]:
        known = self._fill_known(PUBLISHED_CELLS[self.kind], task)
        return known or super().portfolio(task)

    def build(self, architecture: Architecture, task: TaskSpec) -> nn.Module:
        a: Mapping[str, Any] = architecture
        image = image_of(self, task)
        inputs = ImageInput(image, flip=a["flip"], shift=a["shift"], cutout=a["cutout"])

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
        """Return the operation of an edge, None if there is no edge."""
        if self.kind != "darts":
            return a[edge_name(cell, start, end)]
        starts = [int(number) for number in a[inputs_name(cell, end)].split(",")]
        if start not in starts:
            return None
        return a[operation_name(cell, end, starts.index(start))]

    def supernet(self, task: TaskSpec, partial_channels: int = 1) -> Supernet:
        if not self.has_supernet:
            return super().supernet(task, partial_channels)
        default: Any = self.default_architecture()
        return CellSupernet(
            image_of(self, task),
            task.n_outputs,
            self._skeleton(default),
            self.operations,
            partial_channels,
        )

    def _skeleton(self, a: Mapping[str, Any]) -> Skeleton:
        return Skeleton(self.kind, a["cells"], a["channels"], a["stem_pool"])

    def edges(self, architecture: Architecture) -> list[tuple[str, int, int, str]]:
        """Return the edges of all cells of an architecture.

        Returns
        -------
        list of (str, int, int, str)
            Name of the cell, start node, end node and operation of each edge.
        """
        return [
            (cell, start, end, name)
            for cell in CELLS[self.kind]
            for end in NODES[self.kind]
            for start in range(end)
            if (name := self._operation_on(architecture, cell, start, end))
        ]

    def graph(self, architecture: Architecture) -> Graph:
        """Describe an architecture as a graph whose nodes are operations.

        An edge leads from an operation to those of its cell that start at its end node.
        """
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
        """Write each node of a cell as a sum of operations on other nodes."""
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
