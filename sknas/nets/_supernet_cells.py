"""Cells that hold all operations of all edges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from sknas._problem import ImageSpec
from sknas.nets._cell import (
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
from sknas.nets._operations import PASSING, make_operation
from sknas.nets._supernet import MixedChoice, MixedOperation, MixtureWeights, Supernet

MIN_CHANNELS = 4  # that go through a mixture


class CellSupernet(Supernet):
    """The relaxed network of a cell space: each edge is a mixture of operations.

    With partial channels the inputs of a node of DARTS have weights too.

    Parameters
    ----------
    image : ImageSpec
        Shape and statistics of the images.
    n_outputs : int
        Columns of the answer (C).
    skeleton : Skeleton
        How cells are stacked.
    operations : sequence of str
        Keys of `OPERATIONS`.
    partial : int, default=1
        One of so many channels goes through the mixtures; more of them where channels
        are not divisible by it, or fewer than four would be left: the published
        networks have four, and of two the gradient is noise.

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
        super().__init__(self._decisions(partial > 1))
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

    def _decisions(self, has_inputs: bool) -> dict[str, MixedChoice]:
        names = self.operations
        passing = tuple(j for j, name in enumerate(names) if name in PASSING)
        places = {name: place for place, name in enumerate(names)}
        decisions: dict[str, MixedChoice] = {}
        for cell in CELLS[self.kind]:
            told: Any = {"passing": passing, "group": cell}
            told |= {"identity": places.get("skip"), "absent": places.get("none")}
            for end in NODES[self.kind]:
                for start in range(end):
                    decisions[edge_name(cell, start, end)] = MixedChoice(names, **told)
                if has_inputs and self.kind == "darts":
                    starts = tuple(range(end))
                    name = inputs_name(cell, end)
                    decisions[name] = MixedChoice(starts, group=cell, is_staged=False)
        return decisions

    def _mixed(
        self, cell: str, start: int, end: int, channels: int, stride: int
    ) -> nn.Module:
        partial = self._partial(channels)
        operations = [
            make_operation(name, channels // partial, stride, False)
            for name in self.operations
        ]
        identity = self.decisions[edge_name(cell, start, end)].identity
        # A skip that halves maps has weights, it does not just pass on.
        skips = () if identity is None or stride > 1 else (identity,)
        return MixedOperation(operations, skips, partial)

    def _partial(self, channels: int) -> int:
        """One of how many channels goes through a mixture."""
        shares = range(min(self.partial, channels // MIN_CHANNELS), 1, -1)
        return next((share for share in shares if channels % share == 0), 1)

    def forward(self, x: Tensor, weights: Mapping[str, MixtureWeights]) -> Tensor:
        self.net.dropout = self.dropout
        return self.net(x, weights)

    def architecture(
        self, chosen: Mapping[str, int], shares: Mapping[str, np.ndarray]
    ) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for cell in CELLS[self.kind]:
            for end in NODES[self.kind]:
                starts = self._starts(cell, end, chosen, shares)
                names = [edge_name(cell, start, end) for start in starts]
                options = [self.option(name, chosen) for name in names]
                if self.kind == "darts":
                    values[inputs_name(cell, end)] = ",".join(map(str, starts))
                    names = [operation_name(cell, end, j) for j in range(N_KEPT)]
                values |= dict(zip(names, options, strict=True))
        return values

    def used(
        self, chosen: Mapping[str, int], shares: Mapping[str, np.ndarray]
    ) -> list[str]:
        return [
            edge_name(cell, start, end)
            for cell in CELLS[self.kind]
            for end in NODES[self.kind]
            for start in self._starts(cell, end, chosen, shares)
        ]

    def _starts(
        self,
        cell: str,
        end: int,
        chosen: Mapping[str, int],
        shares: Mapping[str, np.ndarray],
    ) -> list[int]:
        """The inputs of a node: in DARTS the two whose operations count most."""
        if self.kind != "darts":
            return list(range(end))
        inputs = shares.get(inputs_name(cell, end), np.ones(end))
        strength = []
        for start in range(end):
            name = edge_name(cell, start, end)
            strength.append(inputs[start] * shares[name][chosen[name]])
        return sorted(np.argsort(-np.array(strength), kind="stable")[:N_KEPT].tolist())
