"""Convolutional networks for images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from sknas._problem import ImageSpec
from sknas._validation import check_word, reject
from sknas.nets._image import ImageInput, means
from sknas.nets._layers import NORMALISATIONS, Dropout, Linear

IMAGE_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "mish": nn.Mish,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
# Factors on the deviation of weights by which the activations keep their variance.
GAINS = {"selu": 1.0, "tanh": 5 / 3, "sigmoid": 4.0}
DEFAULT_GAIN = math.sqrt(2)
RISING = ("relu", "selu", "tanh", "sigmoid")  # the others fall below zero for a while
HEAD_GAIN = 0.1

EXPANSION = 4  # of the channels inside an inverted bottleneck
N_HIDDEN = 128  # units of a dense head
MAX_DENSE_SIDE = 4  # of the map that a dense head reads, in pixels


class BatchNorm2d(nn.BatchNorm2d):
    """Normalises each channel over a batch; a single number by what was learnt."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() > x.shape[1]:
            return super().forward(x)
        mean, variance = self.running_mean, self.running_var
        return functional.batch_norm(
            x, mean, variance, self.weight, self.bias, eps=self.eps
        )


IMAGE_NORMALISATIONS: dict[str, Callable[[int], nn.Module] | None] = {
    "none": None,
    "batch": BatchNorm2d,
    "group": lambda n_channels: nn.GroupNorm(1, n_channels),
}
# That of the means of channels, which vary little and would be learnt from slowly.
MEAN_NORMALISATIONS = {"none": "none", "batch": "batch", "group": "layer"}


@dataclass(frozen=True)
class _Parts:
    """What the layers of a network have in common."""

    kernel_size: int
    activation: str
    normalisation: str

    def bend(self) -> nn.Module:
        """An activation."""
        return IMAGE_ACTIVATIONS[self.activation]()

    def placed(self, pool: list[nn.Module]) -> tuple[list[nn.Module], list[nn.Module]]:
        """What of pooling stands before the last normalisation of a block, and after.

        The largest pixel is the same before an activation that only rises and after
        it, and before it pooling leaves less to do: a step takes two thirds of the
        time. A normalisation in between has the statistics of the largest pixels then.
        """
        is_max = any(isinstance(layer, nn.MaxPool2d) for layer in pool)
        is_early = is_max and self.activation in RISING
        return (pool, []) if is_early else ([], pool)

    def convolution(
        self,
        n_in: int,
        n_out: int,
        size: int,
        *,
        is_deep: bool = False,
        stride: int = 1,
        pool: Sequence[nn.Module] = (),
    ) -> list[nn.Module]:
        """A convolution that keeps the size of the map, and its normalisation.

        `is_deep` gives each channel a filter of its own, `stride` is that of pooling,
        `pool` stands in between.
        """
        normalise = IMAGE_NORMALISATIONS[self.normalisation]
        groups = n_in if is_deep else 1
        is_shifted = normalise is None  # else the normalisation shifts
        padding = (size - 1) // 2 if stride == 1 else 0
        told = (n_in, n_out, size, stride, padding, 1, groups, is_shifted)
        layers: list[nn.Module] = [nn.Conv2d(*told)]
        if stride == 1 and size % 2 == 0:  # an even filter reads one pixel more
            layers = [nn.ZeroPad2d((0, 1, 0, 1)), *layers]
        layers += pool
        return layers if normalise is None else [*layers, normalise(n_out)]


class Residual(nn.Module):
    """What a branch adds to its input, at first nothing if it is not normalised.

    Parameters
    ----------
    branch : sequence of nn.Module
        Layers. A convolution that is the last one starts at zero, so that sums don't
        grow with depth; a normalisation, which bounds them, does not: short trainings
        would pay for it.
    shortcut : sequence of nn.Module
        What brings the input to the shape of the branch; nothing if it has it.

    Notes
    -----
    **Shape**: (N, channels, height, width) -> the same of other channels.

    References
    ----------
    He, Zhang, Ren, Sun: Identity Mappings in Deep Residual Networks. arXiv:1603.05027.
    """

    def __init__(
        self, branch: Sequence[nn.Module], shortcut: Sequence[nn.Module] = ()
    ) -> None:
        super().__init__()
        self.branch = nn.Sequential(*branch)
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.branch(x)


def _plain(parts: _Parts, n_in: int, n_out: int, pool: list[nn.Module]) -> nn.Module:
    inside, after = parts.placed(pool)
    layers = parts.convolution(n_in, n_out, parts.kernel_size, pool=inside)
    return nn.Sequential(*layers, parts.bend(), *after)


def _residual(parts: _Parts, n_in: int, n_out: int, pool: list[nn.Module]) -> nn.Module:
    size = parts.kernel_size
    branch = [
        *(parts.bend(), *parts.convolution(n_in, n_out, size)),
        *(parts.bend(), *parts.convolution(n_out, n_out, size)),
    ]
    shortcut = [] if n_in == n_out else parts.convolution(n_in, n_out, 1)
    return nn.Sequential(Residual(branch, shortcut), *pool)


def _separable(
    parts: _Parts, n_in: int, n_out: int, pool: list[nn.Module]
) -> nn.Module:
    inside, after = parts.placed(pool)
    return nn.Sequential(
        *parts.convolution(n_in, n_in, parts.kernel_size, is_deep=True),
        *(parts.bend(), *parts.convolution(n_in, n_out, 1, pool=inside)),
        *(parts.bend(), *after),
    )


def _inverted(parts: _Parts, n_in: int, n_out: int, pool: list[nn.Module]) -> nn.Module:
    inside = EXPANSION * n_in
    branch = [
        *(*parts.convolution(n_in, inside, 1), parts.bend()),
        *parts.convolution(inside, inside, parts.kernel_size, is_deep=True),
        *(parts.bend(), *parts.convolution(inside, n_out, 1)),
    ]
    block = Residual(branch) if n_in == n_out else nn.Sequential(*branch)
    return nn.Sequential(block, *pool)


_BLOCKS = {
    "plain": _plain,
    "residual": _residual,
    "separable": _separable,
    "inverted": _inverted,
}
IMAGE_BLOCKS = tuple(_BLOCKS)
POOLINGS = ("max", "average", "stride")
HEADS = ("average", "dense")


def _pool(parts: _Parts, pooling: str, size: int, n: int) -> list[nn.Module]:
    if pooling == "stride":
        return parts.convolution(n, n, size, stride=size)
    return [nn.MaxPool2d(size) if pooling == "max" else nn.AvgPool2d(size)]


class Head(nn.Module):
    """Maps of one network -> its answers.

    Parameters
    ----------
    n_channels : int
        Channels of the maps.
    side : (int, int)
        Height and width of the maps.
    n_outputs : int
        Columns of the answer (C).
    kind : {"average", "dense"}
        Mean of each channel; or a hidden layer on maps of at most 4 x 4 pixels.
    activation : str
        Of the hidden layer.
    normalisation : {"none", "batch", "group"}
        Of the means.
    dropout : float
        Probability that an input of a layer is dropped.

    Notes
    -----
    **Shape**: (N, channels, height, width) -> (1, N, C).
    """

    def __init__(
        self,
        n_channels: int,
        side: tuple[int, int],
        n_outputs: int,
        kind: str,
        activation: str,
        normalisation: str,
        dropout: float,
    ) -> None:
        super().__init__()
        most = MAX_DENSE_SIDE if kind == "dense" else 1
        self.side = (min(side[0], most), min(side[1], most))
        width = n_channels * self.side[0] * self.side[1]
        layers: list[nn.Module] = []
        if kind == "dense":
            bend = IMAGE_ACTIVATIONS[activation]()
            layers += [Dropout([dropout]), Linear(1, width, N_HIDDEN), bend]
            width = N_HIDDEN
        else:
            name = MEAN_NORMALISATIONS[normalisation]
            layers += [NORMALISATIONS[name](1, width)]
        self.layers = nn.Sequential(*layers, Dropout([dropout]))
        self.output = Linear(1, width, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        if self.side == (1, 1):
            pooled = means(x)
        else:
            pooled = functional.adaptive_avg_pool2d(x, self.side).flatten(1)
        return self.output(self.layers(pooled[None]))  # (1, N, C)


class ConvNet(nn.Module):
    """A convolutional network: stages of blocks, with pooling between stages.

    All blocks but plain ones follow a first convolution, which may be all of the first
    stage.

    Parameters
    ----------
    image : ImageSpec
        Shape and statistics of the images.
    n_outputs : int
        Columns of the answer (C).
    blocks : sequence of int, default=(1, 1, 1)
        Blocks of each stage; none in the first one where a convolution goes before.
    channels : sequence of int, default=(32, 64, 128)
        Channels of each stage.
    kernel_size : int, default=3
        Side of a filter, in pixels.
    block : {"plain", "residual", "separable", "inverted"}, default="plain"
        A convolution; two convolutions and a shortcut; a filter for each channel and a
        mixture of channels (MobileNet); or that in between of more channels, with a
        shortcut (MobileNetV2).
    pooling : {"max", "average", "stride"}, default="max"
        What makes maps smaller; "stride" is a convolution whose filters do not overlap.
    pool_size : int, default=2
        Factor by which they get smaller.
    activation : str, default="relu"
        "relu", "silu", "selu", "gelu", "mish", "tanh" or "sigmoid".
    normalisation : {"none", "batch", "group"}, default="batch"
        After each convolution; "group" is that of all channels of an image together.
    head : {"average", "dense"}, default="average"
        The mean of each channel, normalised as convolutions are; or a hidden layer of
        128 units on maps of at most 4 x 4 pixels.
    dropout : float, default=0.0
        Probability that an input of a layer of the head is dropped.
    flip : bool, default=False
        Whether half of the images are mirrored in training, left to right.
    shift : int, default=0
        Most pixels by which images are moved in training.
    cutout : bool, default=False
        Whether a square of each image is blanked in training.

    Raises
    ------
    InvalidParameterError
        If a word is unknown, a stage has no channels, or maps would get smaller than a
        pixel.

    Notes
    -----
    **Shape**: (N, channels, height, width), 8 bits or floats -> (1, N, C).

    References
    ----------
    He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition.
    arXiv:1512.03385.
    Howard et al.: MobileNets. arXiv:1704.04861.
    Sandler et al.: MobileNetV2: Inverted Residuals and Linear Bottlenecks.
    arXiv:1801.04381.
    Wu, He: Group Normalization. arXiv:1803.08494.
    He, Zhang, Ren, Sun: Delving Deep into Rectifiers. arXiv:1502.01852 (first weights).

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from sknas.nets import ConvNet
    >>> from sknas.spaces import ImageSpec, Integer, Space, TaskSpec
    >>> class Narrowing(Space):
    ...     reads = "image"
    ...     @property
    ...     def choices(self):
    ...         blocks = Integer(1, 5, default=2)
    ...         return {"first": blocks, "second": blocks}
    ...     def build(self, architectures, task):
    ...         (a,) = architectures
    ...         sizes = {"blocks": (a["first"], a["second"]), "channels": (32, 16)}
    ...         return ConvNet(task.image, task.n_outputs, **sizes)
    >>> space = Narrowing()
    >>> image = ImageSpec((1, 28, 28), mean=np.zeros(1), deviation=np.ones(1))
    >>> task = TaskSpec("multiclass", n_outputs=10, n_rows=500, image=image)
    >>> net = space.build([space.default_architecture()], task)
    >>> net(torch.zeros(5, 1, 28, 28)).shape
    torch.Size([1, 5, 10])
    """

    def __init__(
        self,
        image: ImageSpec,
        n_outputs: int,
        *,
        blocks: Sequence[int] = (1, 1, 1),
        channels: Sequence[int] = (32, 64, 128),
        kernel_size: int = 3,
        block: str = "plain",
        pooling: str = "max",
        pool_size: int = 2,
        activation: str = "relu",
        normalisation: str = "batch",
        head: str = "average",
        dropout: float = 0.0,
        flip: bool = False,
        shift: int = 0,
        cutout: bool = False,
    ) -> None:
        super().__init__()
        check_word("ConvNet", "block", block, _BLOCKS)
        check_word("ConvNet", "pooling", pooling, POOLINGS)
        check_word("ConvNet", "activation", activation, IMAGE_ACTIVATIONS)
        check_word("ConvNet", "normalisation", normalisation, IMAGE_NORMALISATIONS)
        check_word("ConvNet", "head", head, HEADS)
        has_first = block != "plain"
        side = _checked_side(image, blocks, channels, pool_size, has_first)
        self.inputs = ImageInput(image, is_flipped=flip, shift=shift, is_cut=cutout)
        parts = _Parts(kernel_size, activation, normalisation)
        pool = (pooling, pool_size)
        layers = _body(parts, block, image.shape[0], blocks, channels, pool)
        self.body = nn.Sequential(*layers)
        told = (head, activation, normalisation, dropout)
        self.head = Head(channels[-1], side, n_outputs, *told)
        start_convolutions(self, GAINS.get(activation, DEFAULT_GAIN))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        # Channels last: a step takes about 0.6 times as long on a CPU.
        x = self.inputs(x).contiguous(memory_format=torch.channels_last)
        return self.head(self.body(x))


def _checked_side(
    image: ImageSpec,
    blocks: Sequence[int],
    channels: Sequence[int],
    pool_size: int,
    has_first: bool,
) -> tuple[int, int]:
    """Height and width of the maps of the last stage, of stages that are right."""
    least = [0 if has_first and not stage else 1 for stage in range(len(channels))]
    is_right = len(blocks) == len(channels) > 0
    if not is_right or any(n < low for n, low in zip(blocks, least, strict=True)):
        allowed = f"an int >= 1 for each of {len(channels)} stages"
        reject("ConvNet", "blocks", blocks, allowed)
    side = map_side(image.shape, len(blocks), pool_size)
    if not all(side):
        height, width = image.shape[1:]
        allowed = f"so few stages that maps of {height} x {width} keep a pixel"
        reject("ConvNet", "blocks", blocks, allowed)
    return side


def map_side(
    shape: tuple[int, int, int], n_stages: int, pool_size: int
) -> tuple[int, int]:
    """Height and width of the maps of the last stage; 0 where none is left."""
    factor = pool_size ** (n_stages - 1)
    return shape[1] // factor, shape[2] // factor


def _body(
    parts: _Parts,
    block: str,
    n_in: int,
    blocks: Sequence[int],
    channels: Sequence[int],
    pool: tuple[str, int],
) -> list[nn.Module]:
    """The layers between images and the head."""
    layers: list[nn.Module] = []
    last = len(blocks) - 1
    if block != "plain":
        is_stage = not blocks[0] and last > 0
        pooling = _pool(parts, *pool, channels[0]) if is_stage else []
        inside, after = parts.placed(pooling)
        layers += parts.convolution(n_in, channels[0], parts.kernel_size, pool=inside)
        if block in ("separable", "inverted"):  # residual branches begin with one
            layers.append(parts.bend())
        layers += after
        n_in = channels[0]
    for stage, (n_blocks, n_out) in enumerate(zip(blocks, channels, strict=True)):
        for number in range(1, n_blocks + 1):
            is_end = number == n_blocks and stage < last
            pooling = _pool(parts, *pool, n_out) if is_end else []
            layers.append(_BLOCKS[block](parts, n_in, n_out, pooling))
            n_in = n_out
    # Sums of branches are not bent, so that gradients pass through shortcuts alone.
    return layers if block in ("plain", "separable") else [*layers, parts.bend()]


@torch.no_grad()
def start_convolutions(net: nn.Module, gain: float) -> None:
    """Draw first weights by torch's random state.

    Weights have a deviation of `gain` over the root of their inputs, biases are zero.
    Residual branches without normalisation start at zero, and the last layer near it.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            n_inputs = module.weight[0].numel()
        elif isinstance(module, Linear):
            n_inputs = module.weight.shape[1]
        else:
            continue
        bound = gain * math.sqrt(3 / n_inputs)
        nn.init.uniform_(module.weight, -bound, bound)
        if module.bias is not None:
            module.bias.zero_()
    for module in net.modules():
        if isinstance(module, Residual) and isinstance(module.branch[-1], nn.Conv2d):
            nn.init.zeros_(module.branch[-1].weight)
        elif isinstance(module, Head):
            module.output.weight.mul_(HEAD_GAIN)
