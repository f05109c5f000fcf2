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
from sknas.nets._image import ImageInput, global_average_pool
from sknas.nets._layers import NORMALISATIONS, Dropout, Linear

Layers = list[nn.Module]

IMAGE_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "mish": nn.Mish,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
# Gain of the initial weights that preserves the variance through an activation.
GAINS = {"selu": 1.0, "tanh": 5 / 3, "sigmoid": 4.0}
DEFAULT_GAIN = math.sqrt(2)
MONOTONIC = ("relu", "selu", "tanh", "sigmoid")
HEAD_GAIN = 0.1  # factor on the initial weights of the last layer

EXPANSION = 4  # channels inside an inverted bottleneck, relative to those outside
DENSE_WIDTH = 128  # hidden units of a dense head
MAX_DENSE_SIZE = 4  # maximum height and width of the map of a dense head, in pixels


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation that uses running statistics for one value per channel."""

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
# Normalisation of the channel means: they vary little, which slows down learning.
MEAN_NORMALISATIONS = {"none": "none", "batch": "batch", "group": "layer"}


@dataclass(frozen=True)
class _LayerFactory:
    """Makes layers with the options that the layers of a network share."""

    kernel_size: int
    activation: str
    normalisation: str

    def make_activation(self) -> nn.Module:
        """Return an activation."""
        return IMAGE_ACTIVATIONS[self.activation]()

    def split_pooling(self, pool: Layers) -> tuple[Layers, Layers]:
        """Return the pooling layers before and after the last normalisation.

        Max pooling and a monotonic activation commute, and pooling first is cheaper: a
        step takes two thirds of the time. A normalisation in between then uses the
        statistics of the pooled maps.
        """
        is_max = any(isinstance(layer, nn.MaxPool2d) for layer in pool)
        is_early = is_max and self.activation in MONOTONIC
        return (pool, []) if is_early else ([], pool)

    def convolution(
        self,
        n_in: int,
        n_out: int,
        size: int,
        *,
        is_depthwise: bool = False,
        stride: int = 1,
        pool: Sequence[nn.Module] = (),
    ) -> Layers:
        """Return a convolution that keeps the size of the map, and its normalisation.

        A stride > 1 pools by convolution; `pool` goes before the normalisation.
        """
        normalise = IMAGE_NORMALISATIONS[self.normalisation]
        groups = n_in if is_depthwise else 1
        has_bias = normalise is None  # a normalisation has its own shift
        padding = (size - 1) // 2 if stride == 1 else 0
        options = (n_in, n_out, size, stride, padding, 1, groups, has_bias)
        layers: Layers = [nn.Conv2d(*options)]
        if stride == 1 and size % 2 == 0:  # an even filter needs one more pixel
            layers = [nn.ZeroPad2d((0, 1, 0, 1)), *layers]
        layers += pool
        return layers if normalise is None else [*layers, normalise(n_out)]


class Residual(nn.Module):
    """Adds a branch to its input.

    Parameters
    ----------
    branch : sequence of nn.Module
        Layers. If the last one is a convolution, it is initialised to zero, so that
        sums don't grow with depth. A normalisation bounds them itself; starting it at
        zero would slow down short trainings.
    shortcut : sequence of nn.Module
        Layers that give the input the shape of the branch; empty if they agree.

    Notes
    -----
    **Shape**: (N, channels, height, width) -> the same, with other channels.

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


def _plain(factory: _LayerFactory, n_in: int, n_out: int, pool: Layers) -> nn.Module:
    inside, after = factory.split_pooling(pool)
    layers = factory.convolution(n_in, n_out, factory.kernel_size, pool=inside)
    return nn.Sequential(*layers, factory.make_activation(), *after)


def _residual(factory: _LayerFactory, n_in: int, n_out: int, pool: Layers) -> nn.Module:
    size = factory.kernel_size
    branch = [
        *(factory.make_activation(), *factory.convolution(n_in, n_out, size)),
        *(factory.make_activation(), *factory.convolution(n_out, n_out, size)),
    ]
    shortcut = [] if n_in == n_out else factory.convolution(n_in, n_out, 1)
    return nn.Sequential(Residual(branch, shortcut), *pool)


def _separable(
    factory: _LayerFactory, n_in: int, n_out: int, pool: Layers
) -> nn.Module:
    inside, after = factory.split_pooling(pool)
    return nn.Sequential(
        *factory.convolution(n_in, n_in, factory.kernel_size, is_depthwise=True),
        *(factory.make_activation(), *factory.convolution(n_in, n_out, 1, pool=inside)),
        *(factory.make_activation(), *after),
    )


def _inverted(factory: _LayerFactory, n_in: int, n_out: int, pool: Layers) -> nn.Module:
    inside = EXPANSION * n_in
    branch = [
        *(*factory.convolution(n_in, inside, 1), factory.make_activation()),
        *factory.convolution(inside, inside, factory.kernel_size, is_depthwise=True),
        *(factory.make_activation(), *factory.convolution(inside, n_out, 1)),
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


def _pool(factory: _LayerFactory, pooling: str, size: int, n: int) -> Layers:
    if pooling == "stride":
        return factory.convolution(n, n, size, stride=size)
    return [nn.MaxPool2d(size) if pooling == "max" else nn.AvgPool2d(size)]


class Head(nn.Module):
    """The last layers of a network.

    Parameters
    ----------
    n_channels : int
        Channels of the maps.
    size : (int, int)
        Height and width of the maps, in pixels.
    n_outputs : int
        Number of outputs (C).
    kind : {"average", "dense"}
        Mean of each channel; or a hidden layer on maps of at most 4 x 4 pixels.
    activation : str
        Activation of the hidden layer.
    normalisation : {"none", "batch", "group"}
        Normalisation of the means.
    dropout : float
        Dropout probability before each layer.

    Notes
    -----
    **Shape**: (N, channels, height, width) -> (1, N, C).
    """

    def __init__(
        self,
        n_channels: int,
        size: tuple[int, int],
        n_outputs: int,
        kind: str,
        activation: str,
        normalisation: str,
        dropout: float,
    ) -> None:
        super().__init__()
        max_size = MAX_DENSE_SIZE if kind == "dense" else 1
        self.size = (min(size[0], max_size), min(size[1], max_size))
        width = n_channels * self.size[0] * self.size[1]
        layers: Layers = []
        if kind == "dense":
            activate = IMAGE_ACTIVATIONS[activation]()
            layers += [Dropout([dropout]), Linear(1, width, DENSE_WIDTH), activate]
            width = DENSE_WIDTH
        else:
            name = MEAN_NORMALISATIONS[normalisation]
            layers += [NORMALISATIONS[name](1, width)]
        self.layers = nn.Sequential(*layers, Dropout([dropout]))
        self.output = Linear(1, width, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        if self.size == (1, 1):
            h = global_average_pool(x)
        else:
            h = functional.adaptive_avg_pool2d(x, self.size).flatten(1)
        return self.output(self.layers(h[None]))  # (1, N, C)


class ConvNet(nn.Module):
    """A convolutional network: stages of blocks, with pooling between stages.

    Blocks other than plain ones follow a first convolution, which may be the whole
    first stage.

    Parameters
    ----------
    image : ImageSpec
        Shape and statistics of the images.
    n_outputs : int
        Number of outputs (C).
    blocks : sequence of int, default=(1, 1, 1)
        Blocks of each stage; the first may have 0 if a convolution precedes it.
    channels : sequence of int, default=(32, 64, 128)
        Channels of each stage.
    kernel_size : int, default=3
        Height and width of a filter, in pixels.
    block : {"plain", "residual", "separable", "inverted"}, default="plain"
        A convolution; two convolutions and a shortcut; a depthwise and a pointwise
        convolution (MobileNet); or an inverted bottleneck (MobileNetV2).
    pooling : {"max", "average", "stride"}, default="max"
        Reduction of maps between stages; "stride" is a convolution whose filters do not
        overlap.
    pool_size : int, default=2
        Factor of the reduction.
    activation : str, default="relu"
        "relu", "silu", "selu", "gelu", "mish", "tanh" or "sigmoid".
    normalisation : {"none", "batch", "group"}, default="batch"
        Normalisation after each convolution; "group" takes all channels of an image
        as one group.
    head : {"average", "dense"}, default="average"
        The mean of each channel, normalised as convolutions are; or a hidden layer of
        128 units on maps of at most 4 x 4 pixels.
    dropout : float, default=0.0
        Dropout probability before each layer of the head.
    flip : bool, default=False
        Whether half of the images are mirrored in training, left to right.
    shift : int, default=0
        Maximum shift of images in training, in pixels.
    cutout : bool, default=False
        Whether a square of each image is blanked in training.

    Raises
    ------
    InvalidParameterError
        If a value is unknown, a stage has no blocks, or no pixel of the maps is left.

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
    He, Zhang, Ren, Sun: Delving Deep into Rectifiers. arXiv:1502.01852
    (initial weights).

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
    ...     def build(self, a, task):
    ...         sizes = {"blocks": (a["first"], a["second"]), "channels": (32, 16)}
    ...         return ConvNet(task.image, task.n_outputs, **sizes)
    >>> space = Narrowing()
    >>> image = ImageSpec((1, 28, 28), mean=np.zeros(1), deviation=np.ones(1))
    >>> task = TaskSpec("multiclass", n_outputs=10, n_rows=500, image=image)
    >>> net = space.build(space.default_architecture(), task)
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
        size = _check_map_size(image, blocks, channels, pool_size, has_first)
        self.inputs = ImageInput(image, flip=flip, shift=shift, cutout=cutout)
        factory = _LayerFactory(kernel_size, activation, normalisation)
        pool = (pooling, pool_size)
        layers = _body(factory, block, image.shape[0], blocks, channels, pool)
        self.body = nn.Sequential(*layers)
        options = (head, activation, normalisation, dropout)
        self.head = Head(channels[-1], size, n_outputs, *options)
        init_convolutions(self, GAINS.get(activation, DEFAULT_GAIN))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        # Channels last: a step takes about 0.6 times as long on a CPU.
        x = self.inputs(x).contiguous(memory_format=torch.channels_last)
        return self.head(self.body(x))


def _check_map_size(
    image: ImageSpec,
    blocks: Sequence[int],
    channels: Sequence[int],
    pool_size: int,
    has_first: bool,
) -> tuple[int, int]:
    """Check the stages; return height and width of the last stage's maps."""
    lowest = [0 if has_first and not stage else 1 for stage in range(len(channels))]
    is_valid = len(blocks) == len(channels) > 0
    if not is_valid or any(n < low for n, low in zip(blocks, lowest, strict=True)):
        allowed = f"an int >= 1 for each of {len(channels)} stages"
        reject("ConvNet", "blocks", blocks, allowed)
    size = map_size(image.shape, len(blocks), pool_size)
    if not all(size):
        height, width = image.shape[1:]
        allowed = f"few enough stages for maps of {height} x {width} to keep a pixel"
        reject("ConvNet", "blocks", blocks, allowed)
    return size


def map_size(
    shape: tuple[int, int, int], n_stages: int, pool_size: int
) -> tuple[int, int]:
    """Return height and width of the last stage's maps; 0 if no pixel is left."""
    factor = pool_size ** (n_stages - 1)
    return shape[1] // factor, shape[2] // factor


def _body(
    factory: _LayerFactory,
    block: str,
    n_in: int,
    blocks: Sequence[int],
    channels: Sequence[int],
    pool: tuple[str, int],
) -> Layers:
    """Return the layers between images and the head."""
    layers: Layers = []
    last = len(blocks) - 1
    if block != "plain":
        is_stage = not blocks[0] and last > 0
        pooling = _pool(factory, *pool, channels[0]) if is_stage else []
        inside, after = factory.split_pooling(pooling)
        layers += factory.convolution(
            n_in, channels[0], factory.kernel_size, pool=inside
        )
        if block in ("separable", "inverted"):  # a residual branch begins with one
            layers.append(factory.make_activation())
        layers += after
        n_in = channels[0]
    for stage, (n_blocks, n_out) in enumerate(zip(blocks, channels, strict=True)):
        for number in range(1, n_blocks + 1):
            is_end = number == n_blocks and stage < last
            pooling = _pool(factory, *pool, n_out) if is_end else []
            layers.append(_BLOCKS[block](factory, n_in, n_out, pooling))
            n_in = n_out
    # No activation after the sum of branches: gradients pass the shortcuts unchanged.
    return (
        layers
        if block in ("plain", "separable")
        else [*layers, factory.make_activation()]
    )


@torch.no_grad()
def init_convolutions(net: nn.Module, gain: float) -> None:
    """Draw initial weights from torch's global generator.

    Weights have a standard deviation of gain / sqrt(inputs), biases are zero. The last
    convolution of a branch without normalisation is zero, the last layer scaled down.
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
