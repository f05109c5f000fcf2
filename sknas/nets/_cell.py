"""Networks of cells for images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sknas.nets._image import ImageInput, means
from sknas.nets._operations import FactorizedReduce, ReluConv, ResidualReduce
from sknas.nets._supernet import MixtureWeights

CELL_KINDS = ("nas-bench-201", "darts")
NODES = {"nas-bench-201": range(1, 4), "darts": range(2, 6)}  # those that are computed
CELLS = {"nas-bench-201": ("edge",), "darts": ("normal", "reduction")}
N_KEPT = 2  # inputs of a node of DARTS
MIN_SIDE = 2  # pixels that a reduction leaves of a side

# (name of the cell, from, to, channels, stride) -> what an edge does, None for nothing
MakeEdge = Callable[[str, int, int, int, int], nn.Module | None]
Mix = Mapping[str, MixtureWeights]


def edge_name(cell: str, start: int, end: int) -> str:
    """The name of an edge in an architecture or a relaxed network."""
    return f"{cell}_{start}_{end}"


def inputs_name(cell: str, node: int) -> str:
    """The name of the choice of a node's inputs."""
    return f"{cell}_{node}_inputs"


def operation_name(cell: str, node: int, place: int) -> str:
    """The name of the operation on one of a node's two inputs."""
    return f"{cell}_{node}_{('first', 'second')[place]}"


class Graph(nn.Module):
    """Nodes that are sums of edges from nodes before them.

    Parameters
    ----------
    name : str
        Begins the names of its decisions.
    nodes : range
        Numbers of the nodes; those below are inputs.
    make_edge : callable
        Called with start and end of each edge; None for an edge that is not there.

    Notes
    -----
    **Shape**: maps (N, H, height, width), one an input -> maps of all nodes, inputs
    too.
    """

    def __init__(
        self,
        name: str,
        nodes: range,
        make_edge: Callable[[int, int], nn.Module | None],
    ) -> None:
        super().__init__()
        self.name = name
        self.edges = nn.ModuleDict()
        self.starts: dict[int, list[int]] = {}
        for end in nodes:
            self.starts[end] = []
            for start in range(end):
                edge = make_edge(start, end)
                if edge is not None:
                    self.edges[edge_name(name, start, end)] = edge
                    self.starts[end].append(start)

    def forward(self, inputs: list[Tensor], weights: Mix | None) -> list[Tensor]:
        states = list(inputs)
        for end, starts in self.starts.items():
            parts = [self._along(states, start, end, weights) for start in starts]
            states.append(reduce(add, parts))
        return states

    def _along(
        self, states: list[Tensor], start: int, end: int, weights: Mix | None
    ) -> Tensor:
        """What comes along an edge; in a relaxed network by its weights."""
        name = edge_name(self.name, start, end)
        if weights is None:
            return self.edges[name](states[start])
        h = self.edges[name](states[start], weights[name])
        inputs = weights.get(inputs_name(self.name, end))
        return h if inputs is None else h * inputs.values[start]


class BenchCell(nn.Module):
    """A cell of NAS-Bench-201: four nodes, an edge between each two of them.

    Notes
    -----
    **Shape**: (N, H, height, width) -> the same.

    References
    ----------
    Dong, Yang: NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture
    Search. arXiv:2001.00326.
    """

    def __init__(self, channels: int, make_edge: MakeEdge) -> None:
        super().__init__()
        self.graph = Graph(
            "edge",
            NODES["nas-bench-201"],
            lambda start, end: make_edge("edge", start, end, channels, 1),
        )

    def forward(self, x: Tensor, weights: Mix | None) -> Tensor:
        return self.graph([x], weights)[-1]


class DartsCell(nn.Module):
    """A cell of DARTS: four nodes that read two earlier cells and each other.

    Parameters
    ----------
    n_inputs : (int, int)
        Channels of the cell before the last one, and of the last.
    channels : int
        Channels of each node (H).
    is_late : bool
        Whether maps of the cell before the last one are larger than those of the last.
    is_reduction : bool
        Which of the two kinds of cells it is.
    stride : {1, 2}
        Whether it halves its maps.
    make_edge : callable
        Makes its edges.

    Notes
    -----
    **Shape**: two maps -> (N, 4 H, height, width), halved by a stride of 2.

    References
    ----------
    Liu, Simonyan, Yang: DARTS: Differentiable Architecture Search. arXiv:1806.09055.
    """

    def __init__(
        self,
        n_inputs: tuple[int, int],
        channels: int,
        make_edge: MakeEdge,
        *,
        is_late: bool,
        is_reduction: bool,
        stride: int,
        is_affine: bool,
    ) -> None:
        super().__init__()
        told = {"is_affine": is_affine}
        self.first = (
            FactorizedReduce(n_inputs[0], channels, **told)
            if is_late
            else ReluConv(n_inputs[0], channels, 1, **told)
        )
        self.second = ReluConv(n_inputs[1], channels, 1, **told)
        name = "reduction" if is_reduction else "normal"
        self.graph = Graph(
            name,
            NODES["darts"],
            lambda start, end: make_edge(
                name, start, end, channels, stride if start < 2 else 1
            ),
        )

    def forward(self, first: Tensor, second: Tensor, weights: Mix | None) -> Tensor:
        inputs = [self.first(first), self.second(second)]
        return torch.cat(self.graph(inputs, weights)[2:], dim=1)


@dataclass(frozen=True)
class Skeleton:
    """How cells are stacked.

    Parameters
    ----------
    kind : {"nas-bench-201", "darts"}
        The kind of cells.
    cells : int
        Cells; maps are halved, and channels doubled, at one and at two thirds of them.
    channels : int
        Channels of the first cells.
    stem_pool : int, default=1
        Factor by which maps get smaller before them.
    """

    kind: str
    cells: int
    channels: int
    stem_pool: int = 1

    @property
    def reductions(self) -> set[int]:
        """Numbers of the cells that reduce, or before which a block does."""
        return {self.cells // 3, 2 * self.cells // 3} - {0} or {0}


class CellNet(nn.Module):
    """Images -> stem -> cells -> global average -> linear layer.

    A reduction that would leave less than 2 x 2 pixels keeps the size of its maps, and
    doubles the channels all the same.

    Parameters
    ----------
    inputs : ImageInput
        Brings images to one scale.
    shape : (int, int, int)
        Channels, height and width of an image.
    n_outputs : int
        Columns of the answer (C).
    skeleton : Skeleton
        How cells are stacked.
    make_edge : callable
        (name of the cell, start, end, channels, stride) -> what an edge does, None for
        an edge that is not there.
    dropout : float, default=0.0
        Probability with which features before the last layer are dropped.
    is_affine : bool, default=True
        Whether normalisations in cells learn a scale.
    is_channels_last : bool, default=True
        Whether maps lie in memory channels last: quicker, unless operations work on
        parts of the channels.

    Notes
    -----
    **Shape**: (N, channels, height, width), 8 bits or floats -> (1, N, C).
    """

    def __init__(
        self,
        inputs: ImageInput,
        shape: tuple[int, int, int],
        n_outputs: int,
        skeleton: Skeleton,
        make_edge: MakeEdge,
        *,
        dropout: float = 0.0,
        is_affine: bool = True,
        is_channels_last: bool = True,
    ) -> None:
        super().__init__()
        self.inputs = inputs
        self.dropout = dropout
        stacks = {"nas-bench-201": BenchStack, "darts": DartsStack}
        stack: Any = stacks[skeleton.kind]
        self.stack = stack(shape, skeleton, make_edge, is_affine)
        self.head = nn.Linear(self.stack.n_outputs, n_outputs)
        self.is_channels_last = is_channels_last
        if is_channels_last:
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor, weights: Mix | None = None) -> Tensor:
        x = self.inputs(x)
        if self.is_channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        h = means(self.stack(x, weights))  # (N, H)
        h = functional.dropout(h, self.dropout, self.training)
        return self.head(h)[None]


class BenchStack(nn.Module):
    """Cells of NAS-Bench-201, with residual blocks that reduce between them.

    Notes
    -----
    **Shape**: (N, channels, height, width) -> (N, H, height, width), smaller.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        skeleton: Skeleton,
        make_edge: MakeEdge,
        is_affine: bool,
    ) -> None:
        super().__init__()
        channels, pool = skeleton.channels, skeleton.stem_pool
        self.stem = stem(shape[0], channels, pool)
        sides = pooled(shape[1], pool), pooled(shape[2], pool)
        self.parts = nn.ModuleList()
        for number in range(skeleton.cells):
            if number in skeleton.reductions:
                stride, sides = halved(sides)
                self.parts.append(ResidualReduce(channels, 2 * channels, stride))
                channels *= 2
            self.parts.append(BenchCell(channels, make_edge))
        self.end = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())
        self.n_outputs = channels

    def forward(self, x: Tensor, weights: Mix | None) -> Tensor:
        h = self.stem(x)
        for part in self.parts:
            h = part(h, weights) if isinstance(part, BenchCell) else part(h)
        return self.end(h)


class DartsStack(nn.Module):
    """Cells of DARTS, each of which reads the two before it.

    Notes
    -----
    **Shape**: (N, channels, height, width) -> (N, H, height, width), smaller.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        skeleton: Skeleton,
        make_edge: MakeEdge,
        is_affine: bool,
    ) -> None:
        super().__init__()
        channels, pool = skeleton.channels, skeleton.stem_pool
        before, last = 3 * channels, 3 * channels
        self.stem = stem(shape[0], last, pool)
        sides = pooled(shape[1], pool), pooled(shape[2], pool)
        self.cells = nn.ModuleList()
        is_late = False
        for number in range(skeleton.cells):
            stride, is_reduction = 1, number in skeleton.reductions
            if is_reduction:
                stride, sides = halved(sides)
                channels *= 2
            self.cells.append(
                DartsCell(
                    (before, last),
                    channels,
                    make_edge,
                    is_late=is_late,
                    is_reduction=is_reduction,
                    stride=stride,
                    is_affine=is_affine,
                )
            )
            before, last, is_late = last, 4 * channels, stride > 1
        self.n_outputs = last

    def forward(self, x: Tensor, weights: Mix | None) -> Tensor:
        first = second = self.stem(x)
        for cell in self.cells:
            first, second = second, cell(first, second, weights)
        return second


def stem(n_inputs: int, n_outputs: int, pool: int) -> nn.Sequential:
    """The first convolution and its normalisation, of maps that are pooled between."""
    conv = nn.Conv2d(n_inputs, n_outputs, 3, padding=1, bias=False)
    pooling = [nn.MaxPool2d(pool, ceil_mode=True)] if pool > 1 else []
    return nn.Sequential(conv, *pooling, nn.BatchNorm2d(n_outputs))


def pooled(side: int, pool: int) -> int:
    """What pooling leaves of a side, in pixels."""
    return -(-side // pool)


def halved(sides: tuple[int, int]) -> tuple[int, tuple[int, int]]:
    """The stride of a reduction and the sides after it; 1 where they are too small."""
    after = (pooled(sides[0], 2), pooled(sides[1], 2))
    return (2, after) if min(after) >= MIN_SIDE else (1, sides)
