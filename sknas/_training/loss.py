"""The training loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class WeightedLoss(nn.Module):
    """Weighted mean of the row losses, summed over the K networks.

    The sum gives each network the gradient that it would have alone.

    Parameters
    ----------
    kind : {"binary", "multiclass", "multilabel", "regression"}
        Cross-entropy, binary cross-entropy or squared error.
    label_smoothing : sequence of float, default=(0.0,)
        Share of a label that is spread over all classes, for each network or for all.

    Notes
    -----
    **Shape**: output (K, M * N, C) of the M members of each network; y (N,) classes or
    (N, C), or (G, N) and (G, N, C) for G tables, of which network k reads table k
    modulo G; weight (N,) or (G, N) -> ().
    """

    smoothing: Tensor

    def __init__(self, kind: str, label_smoothing: Sequence[float] = (0.0,)) -> None:
        super().__init__()
        self.kind = kind
        self.is_smooth = any(label_smoothing)
        smoothing = torch.tensor(list(label_smoothing))[:, None]
        self.register_buffer("smoothing", smoothing)

    def forward(self, output: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        k, n = output.shape[:2]
        if weight.ndim == 1:
            y, weight = y[None], weight[None]
        tiles = (k // len(weight), n // weight.shape[1])
        weight = weight.repeat(tiles)  # (K, M * N)
        y = y.repeat(*tiles, *[1] * (y.ndim - 2))
        return (self._row_losses(output.float(), y) * weight).mean(dim=1).sum()

    def _row_losses(self, output: Tensor, y: Tensor) -> Tensor:
        """Return the loss of each row, (K, M * N)."""
        if self.kind in ("binary", "multiclass"):
            log_probabilities = functional.log_softmax(output, dim=2)
            losses = -log_probabilities.gather(2, y[..., None]).squeeze(2)
            if self.is_smooth:
                uniform = -log_probabilities.mean(dim=2)
                losses = losses + self.smoothing * (uniform - losses)
            return losses
        if self.kind == "multilabel":
            return functional.binary_cross_entropy_with_logits(
                output, y, reduction="none"
            ).mean(dim=2)
        return (output - y).square().mean(dim=2)
