"""The supernet of a cell space: all operations on all edges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from sknas._problem import ImageSpec
from sknas.nets._cell import (
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
from sknas.nets._operations import PARAMETER_FREE, make_operation
from sknas.nets._supernet import (
    Chosen,
    Mix,
    MixedChoice,
    MixedOperation,
    Shares,
    Supernet,
)

MIN_CHANNELS = 4  # minimum number of channels that go through a mixture


class CellSupernet(Supernet):
    """The supernet of a cell space: each edge is a mixture of operations.

    With partial channels the inputs of a DARTS node have weights too.

    Parameters
    ----------
    image : ImageSpec
        Shape and statistics of the images.
    n_outputs : int
        Number of outputs (C).
    skeleton : Skeleton
        The stack of cells.
    operations : sequence of str
        Keys of `OPERATIONS`.
    partial : int, default=1
        1 / `partial` of the channels go through the mixtures. It is reduced where
        channels are not divisible by it, or where fewer than four would be left: the
        published networks have four, and with two the gradient is noise.

    Notes
    -----
    **Shape**: (N, channels, height, width) -> (1, N, C).

    References
    ----------
    Liu, Simonyan, Yang: DARTS: Differentiable Architecture Search. arXiv:1806.09055.
    Xu, Xie, Zhang, Chen, Qi, Tian, Xiong: PC-DARTS: Partial Channel Connections for
    Memory-Efficient Architecture Search. arXiv:1907.05737.
    """

    def __init__(
        self,
        image: ImageSpec,
        n_outputs: int,
        skeleton: Skeleton,
        operations: Sequence[str],
        partial: int = 1,
    ) -> None:
        self.kind = skeleton.kind
        self.operations = tuple(operations)
        super().__init__(self._choices(partial > 1))
        self.partial = partial
        self.net = CellNet(
            ImageInput(image),
            image.shape,
            n_outputs,
            skeleton,
            self._mixed,
            is_affine=False,
            is_channels_last=partial == 1,
        )

    def _choices(self, has_inputs: bool) -> dict[str, MixedChoice]:
        names = self.operations
        parameter_free = [j for j, name in enumerate(names) if name in PARAMETER_FREE]
        indices = {name: index for index, name in enumerate(names)}
        choices: dict[str, MixedChoice] = {}
        for cell in CELLS[self.kind]:
            mixed = MixedChoice(
                options=names,
                parameter_free=tuple(parameter_free),
                skip_op=indices.get("skip"),
                none_op=indices.get("none"),
                cell=cell,
            )
            for end in NODES[self.kind]:
                for start in range(end):
                    choices[edge_name(cell, start, end)] = mixed
                if has_inputs and self.kind == "darts":
                    starts = tuple(range(end))
                    name = inputs_name(cell, end)
                    choices[name] = MixedChoice(starts, cell=cell, is_staged=False)
        return choices

    def _mixed(
        self, cell: str, start: int, end: int, channels: int, stride: int
    ) -> nn.Module:
        partial = self._partial(channels)
        operations = [
            make_operation(name, channels // partial, stride, False)
            for name in self.operations
        ]
        skip_op = self.choices[edge_name(cell, start, end)].skip_op
        # A skip that halves the maps is a convolution.
        skips = () if skip_op is None or stride > 1 else (skip_op,)
        return MixedOperation(operations, skips, partial)

    def _partial(self, channels: int) -> int:
        """Return the divisor of the channels that go through a mixture."""
        shares = range(min(self.partial, channels // MIN_CHANNELS), 1, -1)
        return next((share for share in shares if channels % share == 0), 1)

    def forward(self, x: Tensor, weights: Mix) -> Tensor:
        self.net.dropout = self.dropout
        return self.net(x, weights)

    def architecture(self, chosen: Chosen, shares: Shares) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for cell in CELLS[self.kind]:
            for end in NODES[self.kind]:
                starts = self._starts(cell, end, chosen, shares)
                names = [edge_name(cell, start, end) for start in starts]
                options = [self.option(name, chosen) for name in names]
                if self.kind == "darts":
                    values[inputs_name(cell, end)] = ",".join(map(str, starts))
                    names = [operation_name(cell, end, j) for j in range(N_NODE_INPUTS)]
                values |= dict(zip(names, options, strict=True))
        return values

    def used(self, chosen: Chosen, shares: Shares) -> list[str]:
        return [
            edge_name(cell, start, end)
            for cell in CELLS[self.kind]
            for end in NODES[self.kind]
            for start in self._starts(cell, end, chosen, shares)
        ]

    def _starts(self, cell: str, end: int, chosen: Chosen, shares: Shares) -> list[int]:
        """Return the inputs of a node: in DARTS the two with the largest weights."""
        if self.kind != "darts":
            return list(range(end))
        inputs = shares.get(inputs_name(cell, end), np.ones(end))
        weights = []
        for start in range(end):
            name = edge_name(cell, start, end)
            weights.append(inputs[start] * shares[name][chosen[name]])
        order = np.argsort(-np.array(weights), kind="stable")
        return sorted(order[:N_NODE_INPUTS].tolist())
