"""The operations of cells, on maps of shape (N, H, height, width).

`make_operation` builds them. They keep the number of channels (H); a stride of 2
halves height and width, rounded up.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


class Zero(nn.Module):
    """No connection: zeros of the shape of other operations' outputs.

    They are a product with zero, so that preceding layers still have a gradient.
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
    """Two times ReLU, depthwise and pointwise convolution and batch normalisation."""

    def __init__(self, channels: int, kernel: int, stride: int, is_affine: bool):
        super().__init__(
            *_separable(channels, kernel, stride, 1, is_affine),
            *_separable(channels, kernel, 1, 1, is_affine),
        )


class DilatedConv(nn.Sequential):
    """ReLU, dilated depthwise and pointwise convolution, batch normalisation."""

    def __init__(self, channels: int, kernel: int, stride: int, is_affine: bool):
        super().__init__(*_separable(channels, kernel, stride, 2, is_affine))


class Pool(nn.Module):
    """The mean or the maximum of 3 x 3 pixels.

    In a mixture, where no scale is learnt, it is normalised as other operations are.
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
    """Halves maps by two pointwise convolutions, one of them shifted by a pixel."""

    def __init__(self, n_inputs: int, n_outputs: int, *, is_affine: bool = True):
        super().__init__()
        half = n_outputs // 2
        self.even = _conv(n_inputs, n_outputs - half, 1, 2)
        self.odd = _conv(n_inputs, half, 1, 2)
        self.norm = batch_norm(n_outputs, is_affine)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(x)
        # Padding gives both outputs the same size if that of the maps is odd.
        shifted = functional.pad(x[:, :, 1:, 1:], [0, 1, 0, 1])
        return self.norm(torch.cat([self.even(x), self.odd(shifted)], dim=1))


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
    "none": lambda channels, stride, is_affine: Zero(stride),
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
PARAMETER_FREE = ("skip", "max_pool_3", "avg_pool_3")


def make_operation(name: str, channels: int, stride: int, is_affine: bool) -> nn.Module:
    """Return an operation of `OPERATIONS`.

    Parameters
    ----------
    name : str
        Its key.
    channels : int
        Channels before and after (H).
    stride : {1, 2}
        2 halves the maps.
    is_affine : bool
        Whether normalisations learn a scale; in a mixture its weights do.
    """
    return OPERATIONS[name](channels, stride, is_affine)


def batch_norm(channels: int, is_affine: bool) -> nn.BatchNorm2d:
    """Return a batch normalisation; in a mixture, one without running statistics.

    Its inputs change with the weights of preceding mixtures, so running means would be
    those of other networks.
    """
    return nn.BatchNorm2d(channels, affine=is_affine, track_running_stats=is_affine)


def _conv(n_inputs: int, n_outputs: int, kernel: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(
        n_inputs, n_outputs, kernel, stride, padding=kernel // 2, bias=False
    )


def _separable(
    channels: int, kernel: int, stride: int, dilation: int, is_affine: bool
) -> tuple[nn.Module, ...]:
    """Return ReLU, depthwise and pointwise convolution, and batch normalisation."""
    depthwise = nn.Conv2d(
        channels,
        channels,
        kernel,
        stride,
        padding=dilation * (kernel // 2),
        dilation=dilation,
        groups=channels,
        bias=False,
    )
    pointwise = _conv(channels, channels, 1, 1)
    return nn.ReLU(), depthwise, pointwise, batch_norm(channels, is_affine)
