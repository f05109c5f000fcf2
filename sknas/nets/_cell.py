"""Networks of cells for images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sknas.nets._image import ImageInput, global_average_pool
from sknas.nets._operations import FactorizedReduce, ReluConv, ResidualReduce
from sknas.nets._supernet import Mix

CELL_KINDS = ("nas-bench-201", "darts")
NODES = {"nas-bench-201": range(1, 4), "darts": range(2, 6)}  # inputs excluded
CELLS = {"nas-bench-201": ("edge",), "darts": ("normal", "reduction")}
N_NODE_INPUTS = 2  # edges into a node of a DARTS cell
MIN_MAP_SIZE = 2  # minimum height and width of a map after a reduction, in pixels

# (name of the cell, start, end, channels, stride) -> operation, None for no edge
MakeEdge = Callable[[str, int, int, int, int], nn.Module | None]


def edge_name(cell: str, start: int, end: int) -> str:
    """Return the name of an edge, in an architecture or a supernet."""
    return f"{cell}_{start}_{end}"


def inputs_name(cell: str, node: int) -> str:
    """Return the name of the choice of a node's inputs."""
    return f"{cell}_{node}_inputs"


def operation_name(cell: str, node: int, index: int) -> str:
    """Return the name of the operation on one of a node's two inputs."""
    return f"{cell}_{node}_{('first', 'second')[index]}"


class CellGraph(nn.Module):
    """The nodes of a cell, each the sum of its edges from earlier nodes.

    Parameters
    ----------
    name : str
        Prefix of the names of its edges.
    nodes : range
        Indices of the nodes; smaller indices are the inputs of the cell.
    make_edge : callable
        (start, end) -> operation on an edge, None if there is no edge.

    Notes
    -----
    **Shape**: maps (N, H, height, width), one per input -> maps of all nodes, the
    inputs included.
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
            edges = [self._edge(states, start, end, weights) for start in starts]
            states.append(reduce(add, edges))
        return states

    def _edge(
        self, states: list[Tensor], start: int, end: int, weights: Mix | None
    ) -> Tensor:
        """Return the output of an edge; in a supernet, of its mixture."""
        name = edge_name(self.name, start, end)
        if weights is None:
            return self.edges[name](states[start])
        h = self.edges[name](states[start], weights[name])
        inputs = weights.get(inputs_name(self.name, end))
        return h if inputs is None else h * inputs.values[start]


class BenchCell(nn.Module):
    """A cell of NAS-Bench-201: four nodes, with an edge between every two.

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
        self.graph = CellGraph(
            "edge",
            NODES["nas-bench-201"],
            lambda start, end: make_edge("edge", start, end, channels, 1),
        )

    def forward(self, x: Tensor, weights: Mix | None) -> Tensor:
        return self.graph([x], weights)[-1]


class DartsCell(nn.Module):
    """A cell of DARTS: four nodes that read earlier nodes and the two preceding cells.

    Parameters
    ----------
    n_inputs : (int, int)
        Channels of the two preceding cells, the earlier one first.
    channels : int
        Channels of each node (H).
    make_edge : callable
        See `CellNet`.
    follows_reduction : bool
        True if the later of the two preceding cells halved its maps.
    is_reduction : bool
        True for a reduction cell, False for a normal one.
    stride : {1, 2}
        Stride of edges from the inputs; 2 halves the maps.
    is_affine : bool
        Whether normalisations learn a scale.

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
        follows_reduction: bool,
        is_reduction: bool,
        stride: int,
        is_affine: bool,
    ) -> None:
        super().__init__()
        self.first = (
            FactorizedReduce(n_inputs[0], channels, is_affine=is_affine)
            if follows_reduction
            else ReluConv(n_inputs[0], channels, 1, is_affine=is_affine)
        )
        self.second = ReluConv(n_inputs[1], channels, 1, is_affine=is_affine)
        name = "reduction" if is_reduction else "normal"
        self.graph = CellGraph(
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
    """The macro-architecture of a network: how its cells are stacked.

    Parameters
    ----------
    kind : {"nas-bench-201", "darts"}
        Kind of the cells.
    cells : int
        Number of cells; maps are halved and channels doubled after one and two thirds.
    channels : int
        Channels of the first cells.
    stem_pool : int, default=1
        Factor by which the stem pools the maps, before the first cell.
    """

    kind: str
    cells: int
    channels: int
    stem_pool: int = 1

    @property
    def reductions(self) -> set[int]:
        """Indices of the cells at which maps are halved."""
        return {self.cells // 3, 2 * self.cells // 3} - {0} or {0}


class CellNet(nn.Module):
    """Stem, cells, global average pooling and a linear layer.

    A reduction that would leave less than 2 x 2 pixels keeps the size of its maps, but
    still doubles the channels.

    Parameters
    ----------
    inputs : ImageInput
        Standardises and augments the images.
    shape : (int, int, int)
        Channels, height and width of an image.
    n_outputs : int
        Number of outputs (C).
    skeleton : Skeleton
        The stack of cells.
    make_edge : callable
        (name of the cell, start, end, channels, stride) -> operation on an edge, None
        if there is no edge.
    dropout : float, default=0.0
        Dropout probability before the last layer.
    is_affine : bool, default=True
        Whether normalisations in cells learn a scale.
    is_channels_last : bool, default=True
        Whether maps have the channels-last memory format: faster, unless operations
        work on a part of the channels.

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
        h = global_average_pool(self.stack(x, weights))  # (N, H)
        h = functional.dropout(h, self.dropout, self.training)
        return self.head(h)[None]


class BenchStack(nn.Module):
    """Cells of NAS-Bench-201, with residual blocks at the reductions.

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
        self.stem = make_stem(shape[0], channels, pool)
        size = ceil_divide(shape[1], pool), ceil_divide(shape[2], pool)
        self.parts = nn.ModuleList()
        for number in range(skeleton.cells):
            if number in skeleton.reductions:
                stride, size = halve_map(size)
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
    """Cells of DARTS, each reading the two before it.

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
        self.stem = make_stem(shape[0], last, pool)
        size = ceil_divide(shape[1], pool), ceil_divide(shape[2], pool)
        self.cells = nn.ModuleList()
        follows_reduction = False
        for number in range(skeleton.cells):
            stride, is_reduction = 1, number in skeleton.reductions
            if is_reduction:
                stride, size = halve_map(size)
                channels *= 2
            self.cells.append(
                DartsCell(
                    (before, last),
                    channels,
                    make_edge,
                    follows_reduction=follows_reduction,
                    is_reduction=is_reduction,
                    stride=stride,
                    is_affine=is_affine,
                )
            )
            before, last, follows_reduction = last, 4 * channels, stride > 1
        self.n_outputs = last

    def forward(self, x: Tensor, weights: Mix | None) -> Tensor:
        first = second = self.stem(x)
        for cell in self.cells:
            first, second = second, cell(first, second, weights)
        return second


def make_stem(n_inputs: int, n_outputs: int, pool: int) -> nn.Sequential:
    """Return the first convolution, pooling by a factor, and a normalisation."""
    conv = nn.Conv2d(n_inputs, n_outputs, 3, padding=1, bias=False)
    pooling = [nn.MaxPool2d(pool, ceil_mode=True)] if pool > 1 else []
    return nn.Sequential(conv, *pooling, nn.BatchNorm2d(n_outputs))


def ceil_divide(n: int, divisor: int) -> int:
    """Return n / divisor, rounded up."""
    return -(-n // divisor)


def halve_map(size: tuple[int, int]) -> tuple[int, tuple[int, int]]:
    """Return the stride of a reduction and the map size after it."""
    after = (ceil_divide(size[0], 2), ceil_divide(size[1], 2))
    return (2, after) if min(after) >= MIN_MAP_SIZE else (1, size)
