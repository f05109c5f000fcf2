"""The space of convolutional networks for images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from sklearn.base import clone
from torch import nn

from sknas._history import Architecture
from sknas._problem import ImageSpec, TaskSpec
from sknas._validation import reject
from sknas.exceptions import InvalidParameterError
from sknas.nets import (
    HEADS,
    IMAGE_ACTIVATIONS,
    IMAGE_BLOCKS,
    IMAGE_NORMALISATIONS,
    POOLINGS,
    ConvNet,
)
from sknas.nets._conv import DENSE_WIDTH, MAX_DENSE_SIZE, map_size
from sknas.spaces._base import Space
from sknas.spaces._choices import Choice
from sknas.spaces._known import IMAGE_NETWORKS
from sknas.spaces._parametrized import ParametrizedSpace, drop_unreachable
from sknas.spaces._training_choices import (
    TITLES,
    TRAINING,
    TRAINING_LIMITS,
    describe_training,
    training_choices,
    training_for_task,
)

MAX_WEIGHTS = 3_000_000
# Choices that are passed to `ConvNet` unchanged.
ARGUMENTS = (
    *("kernel_size", "block", "pooling", "pool_size", "activation"),
    *("normalisation", "head", "dropout", "flip", "shift", "cutout"),
)


class ImageSpace(ParametrizedSpace):
    """Convolutional networks for images, and how to train them.

    Each parameter lists the values a search may take; a single value fixes the
    choice. Choices that do not apply to the images, such as so many stages that no
    pixel is left, are dropped before the search.

    Parameters
    ----------
    stages : (int, int), default=(1, 4)
        Minimum and maximum number of stages, with pooling between two stages.
    blocks : sequence of int, default=(1, 2, 3)
        Number of blocks in a stage.
    stem : sequence of bool, default=(False, True)
        If True, the first of several stages is a single convolution, which saves time
        where maps are large.
    channels : sequence of int, default=(8, 16, 32, 64)
        Number of channels of the first stage.
    growth : sequence of float, default=(1.0, 1.5, 2.0)
        Factor on the channels from one stage to the next.
    kernel_size : sequence of int, default=(3, 5, 7)
        Height and width of a filter, in pixels; even ones are allowed.
    block : sequence of str
        "plain" is a convolution, "residual" two convolutions and a shortcut,
        "separable" a depthwise and a pointwise convolution, "inverted" an inverted
        bottleneck with a shortcut. All four by default.
    pooling : sequence of str, default=("max", "average", "stride")
        Reduction of maps between stages; "stride" is a convolution whose filters do not
        overlap.
    pool_size : sequence of int, default=(2, 3, 4)
        Factor of the reduction.
    activation : sequence of str, default=("relu", "silu", "gelu", "sigmoid")
        Any of "relu", "silu", "selu", "gelu", "mish", "tanh" and "sigmoid".
    normalisation : sequence of str, default=("none", "batch", "group")
        Normalisation after each convolution; "group" has one group of all channels.
    head : sequence of str, default=("average", "dense")
        "average" takes the mean of each channel, "dense" has a hidden layer of 128
        units.
    dropout : sequence of float, default=(0.0, 0.1, 0.25, 0.5)
        Dropout probability before each layer of the head.
    flip : sequence of bool, default=(False, True)
        If True, half of the images are mirrored in training, left to right.
    shift : sequence of int, default=(0, 1, 2, 4)
        Maximum shift of images in training, in pixels, up to an eighth of a side.
    cutout : sequence of bool, default=(False, True)
        If True, a square of each image is blanked in training.
    optimizer : sequence of str, default=("adamw", "momentum")
        Any of "adamw", "rmsprop", "momentum" and "sgd", with decoupled weight decay.
    lr : (float, float), default=(1e-3, 5e-2)
        Range of the peak learning rate of "adamw" and "rmsprop".
    sgd_lr : (float, float), default=(1e-2, 1.0)
        Range of the peak learning rate of "momentum" and "sgd".
    batch_size : sequence of int, default=(32, 64, 128, 256, 512, 1024)
        Images in a batch; sizes far from the default for a task are left out.
    weight_decay : sequence of float, default=(0.0, 0.01, 0.05, 0.1, 0.3)
        Decoupled weight decay per step, as a factor on the learning rate.
    label_smoothing : sequence of float, default=(0.0, 0.05, 0.1)
        Share of a class label that is spread over all classes; only for scores that
        read labels.

    Attributes
    ----------
    known_architectures : sequence of mapping
        Architectures that a search starts with, given by the choices that are not at
        their defaults. A subclass may list others.

    Notes
    -----
    By default, values that are costly or seldom do well have smaller prior
    probabilities. Values that you list are drawn uniformly.

    Networks whose maps would be smaller than a pixel are not built, nor those of more
    than about 3 million weights, unless the default network of the space has more.

    References
    ----------
    He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition.
    arXiv:1512.03385.
    Howard et al.: MobileNets: Efficient Convolutional Neural Networks for Mobile Vision
    Applications. arXiv:1704.04861.
    Sandler et al.: MobileNetV2: Inverted Residuals and Linear Bottlenecks.
    arXiv:1801.04381.

    Examples
    --------
    >>> from sknas.spaces import ImageSpace
    >>> textbook = ImageSpace(
    ...     stages=(1, 5), blocks=(2,), kernel_size=(3, 4, 5, 6, 7), block=("plain",),
    ...     pooling=("max",), activation=("relu", "sigmoid"), normalisation=("none",),
    ... )
    >>> textbook.default_architecture()["kernel_size"]
    3
    """

    reads = "image"
    measures_memory = True
    cost_free = ("dropout", "flip", "shift", "cutout", *TRAINING)

    known_architectures: Sequence[Mapping[str, Any]] = ({}, *IMAGE_NETWORKS)

    _limits: ClassVar = {
        "stages": (1, 8),
        "blocks": (1, 16),
        "channels": (1, 2048),
        "growth": (0.25, 8.0),
        "kernel_size": (1, 15),
        "pool_size": (2, 8),
        "dropout": (0.0, 0.95),
        "shift": (0, 64),
        **TRAINING_LIMITS,
    }
    _prior: ClassVar = {
        "stages": {1: 0.2, 4: 0.5},
        "blocks": {3: 0.4},
        "channels": {8: 0.5, 64: 0.3},
        "growth": {1.0: 0.4},
        "kernel_size": {5: 0.5, 7: 0.2},
        "block": {"inverted": 0.6},
        "pooling": {"average": 0.6, "stride": 0.5},
        "pool_size": {3: 0.3, 4: 0.1},
        "activation": {"sigmoid": 0.1},
        "normalisation": {"none": 0.2, "group": 0.4},
        "head": {"dense": 0.5},
        "flip": {True: 0.5},
        "cutout": {True: 0.5},
        "optimizer": {"momentum": 0.3},
    }

    def __init__(
        self,
        stages: tuple[int, int] = (1, 4),
        blocks: Sequence[int] = (1, 2, 3),
        stem: Sequence[bool] = (False, True),
        channels: Sequence[int] = (8, 16, 32, 64),
        growth: Sequence[float] = (1.0, 1.5, 2.0),
        kernel_size: Sequence[int] = (3, 5, 7),
        block: Sequence[str] = IMAGE_BLOCKS,
        pooling: Sequence[str] = POOLINGS,
        pool_size: Sequence[int] = (2, 3, 4),
        activation: Sequence[str] = ("relu", "silu", "gelu", "sigmoid"),
        normalisation: Sequence[str] = ("none", "batch", "group"),
        head: Sequence[str] = HEADS,
        dropout: Sequence[float] = (0.0, 0.1, 0.25, 0.5),
        flip: Sequence[bool] = (False, True),
        shift: Sequence[int] = (0, 1, 2, 4),
        cutout: Sequence[bool] = (False, True),
        optimizer: Sequence[str] = ("adamw", "momentum"),
        lr: tuple[float, float] = (1e-3, 5e-2),
        sgd_lr: tuple[float, float] = (1e-2, 1.0),
        batch_size: Sequence[int] = (32, 64, 128, 256, 512, 1024),
        weight_decay: Sequence[float] = (0.0, 0.01, 0.05, 0.1, 0.3),
        label_smoothing: Sequence[float] = (0.0, 0.05, 0.1),
    ) -> None:
        self.stages = stages
        self.blocks = blocks
        self.stem = stem
        self.channels = channels
        self.growth = growth
        self.kernel_size = kernel_size
        self.block = block
        self.pooling = pooling
        self.pool_size = pool_size
        self.activation = activation
        self.normalisation = normalisation
        self.head = head
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

    @property
    def choices(self) -> Mapping[str, Choice]:
        low, high = self._bounds("stages")
        pooled = ("stages", tuple(range(max(2, int(low)), int(high) + 1)))
        choices: dict[str, Choice] = {
            "stages": self._integers("stages", 3),
            "blocks": self._ordered("blocks", 2),
            "stem": self._categorical("stem", (False, True), True, when=pooled),
            "channels": self._ordered("channels", 32),
            "growth": self._ordered("growth", 2.0, when=pooled),
            "kernel_size": self._ordered("kernel_size", 3),
            "block": self._categorical("block", IMAGE_BLOCKS, "plain"),
            "pooling": self._categorical("pooling", POOLINGS, "max", when=pooled),
            "pool_size": self._ordered("pool_size", 2, when=pooled),
            "activation": self._categorical("activation", IMAGE_ACTIVATIONS, "relu"),
            "normalisation": self._categorical(
                "normalisation", IMAGE_NORMALISATIONS, "batch"
            ),
            "head": self._categorical("head", HEADS, "average"),
            "dropout": self._ordered("dropout", 0.0),
            "flip": self._categorical("flip", (False, True), False),
            "shift": self._ordered("shift", 2),
            "cutout": self._categorical("cutout", (False, True), False),
            **training_choices(
                self, lr=1e-2, sgd_lr=0.3, batch_size=64, weight_decay=0.05
            ),
        }
        return drop_unreachable(choices)

    def for_task(self, task: TaskSpec) -> ImageSpace:
        shape = image_of(self, task).shape
        changes = training_for_task(self, task)
        low, high = self._bounds("stages")
        sizes = self._values("pool_size")
        fitting = [n for n in range(int(low), int(high) + 1) if _fits(shape, n, sizes)]
        if not fitting:
            allowed = f"stages that leave a pixel of images of {shape[1]} x {shape[2]}"
            reject(type(self).__name__, "stages", self.stages, allowed)
        changes["stages"] = (fitting[0], fitting[-1])
        n_stages = max(2, fitting[0])  # smallest network with pooling
        changes["pool_size"] = [
            s for s in sizes if _fits(shape, n_stages, [s])
        ] or sizes
        return clone(self).set_params(**changes)

    def is_buildable(self, architecture: Architecture, task: TaskSpec) -> bool:
        a = architecture
        is_single = (a["block"], a["blocks"], a.get("stem")) == ("plain", 1, False)
        if is_single and True in self._values("stem"):
            return False  # the space holds the same network with a stem
        shape = image_of(self, task).shape
        if not _fits(shape, a["stages"], [a.get("pool_size", 1)]):
            return False
        n_weights = _n_weights(a)
        if n_weights <= MAX_WEIGHTS:
            return True
        default = self.default_architecture()
        if default is None:
            return False
        largest = {"stem": False, "pooling": "stride", "head": "dense"}
        listed = {n: v for n, v in largest.items() if v in self._values(n)}
        return n_weights <= _n_weights({**default, **listed})

    def portfolio(self, task: TaskSpec | None) -> list[Architecture]:
        return self._fill_known(self.known_architectures, task)

    def build(self, architecture: Architecture, task: TaskSpec) -> nn.Module:
        a: Mapping[str, Any] = architecture
        return ConvNet(
            image_of(self, task),
            task.n_outputs,
            blocks=blocks_of(a),
            channels=channels_of(a),
            **{name: a[name] for name in ARGUMENTS if name in a},
        )

    def describe(self, architecture: Architecture) -> str:
        a: Mapping[str, Any] = architecture
        kind = _BLOCK_NAMES[a["block"]] + "s" * (a["blocks"] > 1)
        stages = f"{a['stages']} stage" + "s" * (a["stages"] > 1)
        stem = ", the first of one convolution" if a.get("stem") else ""
        channels = "-".join(map(str, channels_of(a)))
        words = [
            f"{stages} of {a['blocks']} {kind}{stem}, {channels} channels",
            f"kernel {a['kernel_size']}",
        ]
        if a["stages"] > 1:
            words.append(f"{_POOLING_NAMES[a['pooling']]} by {a['pool_size']}")
        words.append(TITLES[a["activation"]])
        if a["normalisation"] != "none":
            words.append(f"{a['normalisation']} normalisation")
        words.append(f"{a['head']} head")
        if a["dropout"]:
            words.append(f"dropout {a['dropout']:g}")
        changes = ["flipped"] if a["flip"] else []
        changes += [f"shifted by {a['shift']}"] if a["shift"] else []
        changes += ["cut out"] if a["cutout"] else []
        words += ["images " + " and ".join(changes)] if changes else []
        return ", ".join(words + describe_training(a))


def image_of(space: Space, task: TaskSpec) -> ImageSpec:
    """Return the images of a task.

    Raises
    ------
    InvalidParameterError
        If its rows are not images.
    """
    if task.image is None:
        raise InvalidParameterError(
            f"{type(space).__name__} reads images: use a TableSpace for tables."
        )
    return task.image


def blocks_of(architecture: Mapping[str, Any]) -> list[int]:
    """Return the number of blocks of each stage."""
    blocks = [architecture["blocks"]] * architecture["stages"]
    if architecture.get("stem"):
        # Networks of other blocks begin with a separate convolution.
        blocks[0] = int(architecture["block"] == "plain")
    return blocks


def channels_of(architecture: Mapping[str, Any]) -> list[int]:
    """Return the number of channels of each stage."""
    first, growth = architecture["channels"], architecture.get("growth", 1.0)
    return [max(1, round(first * growth**n)) for n in range(architecture["stages"])]


def _fits(
    shape: tuple[int, int, int], n_stages: int, pool_sizes: Sequence[int]
) -> bool:
    """Return True if maps keep a pixel with one of the pool sizes."""
    return any(all(map_size(shape, n_stages, size)) for size in pool_sizes)


def _n_weights(architecture: Mapping[str, Any]) -> float:
    """Estimate the number of weights of a network, without building it."""
    a = architecture
    block_weights = _BLOCK_WEIGHTS[a["block"]]
    size = a["kernel_size"] ** 2
    channels = channels_of(a)
    stages = zip(blocks_of(a), channels, strict=True)
    n_weights = sum(blocks * block_weights(n, size) for blocks, n in stages)
    if a.get("pooling") == "stride":
        n_weights += sum((n * a["pool_size"]) ** 2 for n in channels[:-1])
    if a["head"] == "dense":
        n_weights += channels[-1] * MAX_DENSE_SIZE**2 * DENSE_WIDTH
    return n_weights


# (channels, pixels of a filter) -> number of weights of a block
_BLOCK_WEIGHTS = {
    "plain": lambda n, size: size * n**2,
    "residual": lambda n, size: 2 * size * n**2,
    "separable": lambda n, size: size * n + n**2,
    "inverted": lambda n, size: 4 * size * n + 8 * n**2,
}
_BLOCK_NAMES = {
    "plain": "convolution",
    "residual": "residual block",
    "separable": "separable convolution",
    "inverted": "inverted bottleneck",
}
_POOLING_NAMES = {
    "max": "max pooling",
    "average": "average pooling",
    "stride": "strided convolutions",
}
