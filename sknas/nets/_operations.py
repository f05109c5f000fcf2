"""The operations that cells are made of, on maps of shape (N, H, height, width).

Each is made by ``make_operation(name, channels, stride, is_affine)`` and keeps the
number of channels (H); a stride of 2 halves height and width, rounded up.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


class Nothing(nn.Module):
    """No connection: zeros of the shape that others answer.

    A product with zero, so that whatever feeds it still has a gradient.
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :: self.stride, :: self.stride] * 0.0


class ReluConv(nn.Sequential):
    """ReLU, convolution and batch normalisation."""

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int,
        kernel: int,
        stride: int = 1,
        *,
        is_affine: bool = True,
    ) -> None:
        super().__init__(
            nn.ReLU(),
            _conv(n_inputs, n_outputs, kernel, stride),
            batch_norm(n_outputs, is_affine),
        )


class SeparableConv(nn.Sequential):
    """Twice: ReLU, a convolution of each channel, one of each pixel, normalisation."""

    def __init__(self, channels: int, kernel: int, stride: int, is_affine: bool):
        super().__init__(
            *_separable(channels, kernel, stride, 1, is_affine),
            *_separable(channels, kernel, 1, 1, is_affine),
        )


class DilatedConv(nn.Sequential):
    """ReLU, a dilated convolution of each channel, one of each pixel, normalisation."""

    def __init__(self, channels: int, kernel: int, stride: int, is_affine: bool):
        super().__init__(*_separable(channels, kernel, stride, 2, is_affine))


class Pool(nn.Module):
    """The mean or the maximum of 3 x 3 pixels.

    Beside other operations, without learnt scales, it is normalised as they are.
    """

    def __init__(self, kind: str, channels: int, stride: int, is_affine: bool) -> None:
        super().__init__()
        self.kind = kind
        self.stride = stride
        self.norm = nn.Identity() if is_affine else batch_norm(channels, False)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "max":
            pooled = functional.max_pool2d(x, 3, self.stride, padding=1)
        else:
            pooled = functional.avg_pool2d(
                x, 3, self.stride, padding=1, count_include_pad=False
            )
        return self.norm(pooled)


class FactorizedReduce(nn.Module):
    """Halves maps by two convolutions of single pixels, one of them a pixel on."""

    def __init__(self, n_inputs: int, n_outputs: int, *, is_affine: bool = True):
        super().__init__()
        half = n_outputs // 2
        self.even = _conv(n_inputs, n_outputs - half, 1, 2)
        self.odd = _conv(n_inputs, half, 1, 2)
        self.norm = batch_norm(n_outputs, is_affine)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(x)
        # The padding gives maps of an odd size as many pixels in both halves.
        moved = functional.pad(x[:, :, 1:, 1:], [0, 1, 0, 1])
        return self.norm(torch.cat([self.even(x), self.odd(moved)], dim=1))


class ResidualReduce(nn.Module):
    """Halves maps by a residual block of two convolutions.

    References
    ----------
    Dong, Yang: NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture
    Search. arXiv:2001.00326.
    """

    def __init__(self, n_inputs: int, n_outputs: int, stride: int) -> None:
        super().__init__()
        self.first = ReluConv(n_inputs, n_outputs, 3, stride)
        self.second = ReluConv(n_outputs, n_outputs, 3)
        self.stride = stride
        self.shortcut = _conv(n_inputs, n_outputs, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.second(self.first(x))
        if self.stride > 1:
            x = functional.avg_pool2d(x, 2, self.stride, ceil_mode=True)
        return self.shortcut(x) + h


def _skip(channels: int, stride: int, is_affine: bool) -> nn.Module:
    if stride == 1:
        return nn.Identity()
    return FactorizedReduce(channels, channels, is_affine=is_affine)


OPERATIONS: dict[str, Callable[[int, int, bool], nn.Module]] = {
    "none": lambda channels, stride, is_affine: Nothing(stride),
    "skip": _skip,
    "max_pool_3": lambda c, stride, is_affine: Pool("max", c, stride, is_affine),
    "avg_pool_3": lambda c, stride, is_affine: Pool("avg", c, stride, is_affine),
    "conv_1": lambda c, stride, a: ReluConv(c, c, 1, stride, is_affine=a),
    "conv_3": lambda c, stride, a: ReluConv(c, c, 3, stride, is_affine=a),
    "sep_conv_3": lambda c, stride, a: SeparableConv(c, 3, stride, a),
    "sep_conv_5": lambda c, stride, a: SeparableConv(c, 5, stride, a),
    "dil_conv_3": lambda c, stride, a: DilatedConv(c, 3, stride, a),
    "dil_conv_5": lambda c, stride, a: DilatedConv(c, 5, stride, a),
}
PASSING = ("skip", "max_pool_3", "avg_pool_3")  # no weights of their own


def make_operation(name: str, channels: int, stride: int, is_affine: bool) -> nn.Module:
    """An operation of `OPERATIONS`.

    Parameters
    ----------
    name : str
        Its key.
    channels : int
        Channels before and after (H).
    stride : {1, 2}
        Whether maps are halved.
    is_affine : bool
        Whether normalisations learn a scale: not where the weights of a mixture do.
    """
    return OPERATIONS[name](channels, stride, is_affine)


def batch_norm(channels: int, is_affine: bool) -> nn.BatchNorm2d:
    """Normalisation over a batch; a part of a mixture keeps no running statistics.

    What feeds it changes with the weights of the mixture, so that means of former
    batches would be those of other networks.
    """
    return nn.BatchNorm2d(channels, affine=is_affine, track_running_stats=is_affine)


def _conv(n_inputs: int, n_outputs: int, kernel: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(
        n_inputs, n_outputs, kernel, stride, padding=kernel // 2, bias=False
    )


def _separable(
    channels: int, kernel: int, stride: int, dilation: int, is_affine: bool
) -> tuple[nn.Module, ...]:
    """ReLU, convolutions of each channel and of each pixel, normalisation."""
    each_channel = nn.Conv2d(
        channels,
        channels,
        kernel,
        stride,
        padding=dilation * (kernel // 2),
        dilation=dilation,
        groups=channels,
        bias=False,
    )
    each_pixel = _conv(channels, channels, 1, 1)
    return nn.ReLU(), each_channel, each_pixel, batch_norm(channels, is_affine)
