"""The space of convolutional networks for images."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

from sklearn.base import clone
from torch import nn

from sknas._history import Architecture
from sknas._problem import ImageSpec, TaskSpec
from sknas._training.optimizer import OPTIMIZERS
from sknas._validation import reject
from sknas.nets import (
    HEADS,
    IMAGE_ACTIVATIONS,
    IMAGE_BLOCKS,
    IMAGE_NORMALISATIONS,
    POOLINGS,
    ConvNet,
)
from sknas.nets._conv import MAX_DENSE_SIDE, N_HIDDEN, map_side
from sknas.spaces._choices import Choice
from sknas.spaces._training_choices import (
    TITLES,
    ListedSpace,
    describe_training,
    is_label_scored,
    possible,
)

MAX_WEIGHTS = 3_000_000


class ImageSpace(ListedSpace):
    """Convolutional networks for images, and how to train them.

    Each parameter lists the values a search may take; one value alone fixes the
    choice. Choices that mean nothing for the images, such as more stages than leave a
    pixel of them, are dropped before the search.

    Parameters
    ----------
    stages : (int, int), default=(1, 4)
        Least and most stages. Pooling stands between two of them.
    blocks : sequence of int, default=(1, 2, 3)
        Blocks of a stage.
    stem : sequence of bool, default=(False, True)
        Whether the first of several stages is one convolution alone: most of the time
        goes where maps are large.
    channels : sequence of int, default=(8, 16, 32, 64)
        Channels of the first stage.
    growth : sequence of float, default=(1.0, 1.5, 2.0)
        Factor on the channels from one stage to the next.
    kernel_size : sequence of int, default=(3, 5, 7)
        Side of a filter, in pixels; even ones are allowed.
    block : sequence of str
        "plain" is a convolution, "residual" two and a shortcut, "separable" a filter
        for each channel and a mixture of channels, "inverted" that in between of more
        channels, with a shortcut. All four by default.
    pooling : sequence of str, default=("max", "average", "stride")
        What makes maps smaller; "stride" is a convolution whose filters do not overlap.
    pool_size : sequence of int, default=(2, 3, 4)
        Factor by which they get smaller.
    activation : sequence of str, default=("relu", "silu", "gelu", "sigmoid")
        Of "relu", "silu", "selu", "gelu", "mish", "tanh" and "sigmoid".
    normalisation : sequence of str, default=("none", "batch", "group")
        After each convolution; "group" is that of all channels of an image together.
    head : sequence of str, default=("average", "dense")
        The mean of each channel, or a hidden layer of 128 units.
    dropout : sequence of float, default=(0.0, 0.1, 0.25, 0.5)
        Probability that an input of a layer of the head is dropped.
    flip : sequence of bool, default=(False, True)
        Whether half of the images are mirrored in training, left to right.
    shift : sequence of int, default=(0, 1, 2, 4)
        Most pixels by which images are moved in training, up to an eighth of a side.
    cutout : sequence of bool, default=(False, True)
        Whether a square of each image is blanked in training.
    optimizer : sequence of str, default=("adamw", "momentum")
        Of "adamw", "rmsprop", "momentum" and "sgd", always with decoupled weight decay.
    lr : (float, float), default=(1e-3, 5e-2)
        Range of the peak learning rate of "adamw" and "rmsprop".
    sgd_lr : (float, float), default=(1e-2, 1.0)
        Range of the peak learning rate of "momentum" and "sgd".
    batch_size : sequence of int, default=(32, 64, 128, 256, 512, 1024)
        Images of a batch; sizes far from the default of a task are left out.
    weight_decay : sequence of float, default=(0.0, 0.01, 0.05, 0.1, 0.3)
        Share that weights lose a step, times the learning rate.
    label_smoothing : sequence of float, default=(0.0, 0.05, 0.1)
        Share of a class label spread over all classes; only for scores that read
        labels.

    Notes
    -----
    Values differ in how often they are drawn: those that cost much or seldom do well
    come up less often, unless they are listed by hand.

    Networks whose maps would get smaller than a pixel are not built, nor those with
    more than about 3 million weights, unless the default network of the space has more.

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

    # Where searches start; a subclass may know better ones for its images.
    points: Sequence[Mapping[str, Any]] = (
        {},
        {"block": "residual", "stem": False, "blocks": 1, "channels": 16},
        {"block": "plain", "channels": 16},
        {"block": "plain", "blocks": 1, "channels": 32},
        {"block": "separable", "channels": 32, "lr": 2e-2},
        {
            **{"block": "plain", "stages": 2, "blocks": 1},
            **{"channels": 32, "kernel_size": 5},
            **{"head": "dense", "dropout": 0.25, "lr": 3e-3},
        },
    )

    _limits: ClassVar = {
        "stages": (1, 8),
        "blocks": (1, 16),
        "channels": (1, 2048),
        "growth": (0.25, 8.0),
        "kernel_size": (1, 15),
        "pool_size": (2, 8),
        "dropout": (0.0, 0.95),
        "shift": (0, 64),
        "lr": (1e-8, 1.0),
        "sgd_lr": (1e-8, 10.0),
        "batch_size": (1, 1_000_000),
        "weight_decay": (0.0, 10.0),
        "label_smoothing": (0.0, 0.9),
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
        adaptive = ("optimizer", ("adamw", "rmsprop"))
        steep = ("optimizer", ("momentum", "sgd"))
        choices: dict[str, Choice] = {
            "stages": self._counts("stages", 3),
            "blocks": self._sizes("blocks", 2),
            "stem": self._words("stem", (False, True), True, when=pooled),
            "channels": self._sizes("channels", 32),
            "growth": self._sizes("growth", 2.0, when=pooled),
            "kernel_size": self._sizes("kernel_size", 3),
            "block": self._words("block", IMAGE_BLOCKS, "plain"),
            "pooling": self._words("pooling", POOLINGS, "max", when=pooled),
            "pool_size": self._sizes("pool_size", 2, when=pooled),
            "activation": self._words("activation", IMAGE_ACTIVATIONS, "relu"),
            "normalisation": self._words(
                "normalisation", IMAGE_NORMALISATIONS, "batch"
            ),
            "head": self._words("head", HEADS, "average"),
            "dropout": self._sizes("dropout", 0.0),
            "flip": self._words("flip", (False, True), False),
            "shift": self._sizes("shift", 2),
            "cutout": self._words("cutout", (False, True), False),
            "optimizer": self._words("optimizer", OPTIMIZERS, "adamw"),
            "lr": self._range("lr", 1e-2, when=adaptive),
            "sgd_lr": self._range("sgd_lr", 0.3, when=steep),
            "batch_size": self._sizes("batch_size", 64),
            "weight_decay": self._sizes("weight_decay", 0.05),
            "label_smoothing": self._sizes("label_smoothing", 0.0),
        }
        return possible(choices)

    def for_task(self, task: TaskSpec) -> ImageSpace:
        shape = self._image(task).shape
        changes: dict[str, Any] = {"batch_size": self._batch_sizes(task)}
        low, high = self._bounds("stages")
        sizes = self._values("pool_size")
        fitting = [n for n in range(int(low), int(high) + 1) if _fits(shape, n, sizes)]
        if not fitting:
            allowed = f"stages that leave a pixel of images of {shape[1]} x {shape[2]}"
            reject(type(self).__name__, "stages", self.stages, allowed)
        changes["stages"] = (fitting[0], fitting[-1])
        few = max(2, fitting[0])
        changes["pool_size"] = [s for s in sizes if _fits(shape, few, [s])] or sizes
        changes["shift"] = self._shifts(task)
        if not is_label_scored(task):
            changes["label_smoothing"] = (0.0,)
        return clone(self).set_params(**changes)

    def is_buildable(self, architecture: Architecture, task: TaskSpec) -> bool:
        a = architecture
        if self._is_like_a_stem(a):
            return False
        if not _fits(self._image(task).shape, a["stages"], [a.get("pool_size", 1)]):
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

    def _is_like_a_stem(self, architecture: Architecture) -> bool:
        """Whether the same network is there with a stem."""
        a = architecture
        is_one = (a["block"], a["blocks"], a.get("stem")) == ("plain", 1, False)
        return is_one and True in self._values("stem")

    def portfolio(self, task: TaskSpec | None) -> list[Architecture]:
        return self._known(self.points, task)

    def build(self, architectures: Sequence[Architecture], task: TaskSpec) -> nn.Module:
        """Untrained network of one architecture.

        Parameters
        ----------
        architectures : sequence of Architecture, of length 1
            A point of this space.
        task : TaskSpec
            The images and the outputs wanted.

        Returns
        -------
        nn.Module
            Maps (N, channels, height, width) to (1, N, C): logits, or standardised
            targets.
        """
        (a,) = architectures
        return ConvNet(
            self._image(task),
            task.n_outputs,
            blocks=blocks_of(a),
            channels=widths(a),
            **{name: a[name] for name in _OF_A_NET if name in a},
        )

    def structure(self, architecture: Architecture) -> Hashable:
        if type(self).build is not ImageSpace.build:
            return super().structure(architecture)
        return tuple(architecture.get(name) for name in _STRUCTURE)

    def describe(self, architecture: Architecture) -> str:
        a: Mapping[str, Any] = architecture
        kind = _BLOCK_NAMES[a["block"]] + "s" * (a["blocks"] > 1)
        stages = f"{a['stages']} stage" + "s" * (a["stages"] > 1)
        after = ", the first of one convolution" if a.get("stem") else ""
        channels = "-".join(map(str, widths(a)))
        words = [
            f"{stages} of {a['blocks']} {kind}{after}, {channels} channels",
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
        seen = ["flipped"] * a["flip"] + [f"shifted by {a['shift']}"] * bool(a["shift"])
        seen += ["cut out"] * a["cutout"]
        words += ["images " + " and ".join(seen)] if seen else []
        return ", ".join(words + describe_training(a))

    def _image(self, task: TaskSpec) -> ImageSpec:
        """The images of a task, which has to have some."""
        if task.image is None:
            caller_name = type(self).__name__
            reject(caller_name, "task", task.kind, "one of images, not of a table")
        assert task.image is not None
        return task.image


def blocks_of(architecture: Mapping[str, Any]) -> list[int]:
    """Blocks of each stage of an architecture."""
    blocks = [architecture["blocks"]] * architecture["stages"]
    if architecture.get("stem"):
        blocks[0] = int(architecture["block"] == "plain")  # others have it anyway
    return blocks


def widths(architecture: Mapping[str, Any]) -> list[int]:
    """Channels of each stage of an architecture."""
    first, growth = architecture["channels"], architecture.get("growth", 1.0)
    return [max(1, round(first * growth**n)) for n in range(architecture["stages"])]


def _fits(
    shape: tuple[int, int, int], n_stages: int, pool_sizes: Sequence[int]
) -> bool:
    """Whether maps keep a pixel, by one of some sizes of pooling."""
    return any(all(map_side(shape, n_stages, size)) for size in pool_sizes)


def _n_weights(architecture: Mapping[str, Any]) -> float:
    """About the weights of a network, without building it."""
    a = architecture
    of_block = _BLOCK_WEIGHTS[a["block"]]
    size = a["kernel_size"] ** 2
    stages = zip(blocks_of(a), widths(a), strict=True)
    n_weights = sum(blocks * of_block(n, size) for blocks, n in stages)
    if a.get("pooling") == "stride":
        n_weights += sum((n * a["pool_size"]) ** 2 for n in widths(a)[:-1])
    if a["head"] == "dense":
        n_weights += widths(a)[-1] * MAX_DENSE_SIDE**2 * N_HIDDEN
    return n_weights


# Weights of a block, by its channels and the pixels of a filter.
_BLOCK_WEIGHTS = {
    "plain": lambda n, size: size * n**2,
    "residual": lambda n, size: 2 * size * n**2,
    "separable": lambda n, size: size * n + n**2,
    "inverted": lambda n, size: 4 * size * n + 8 * n**2,
}
# What a network is built by, beside its stages; the last ones hang on no cost.
_OF_A_NET = (
    *("kernel_size", "block", "pooling", "pool_size", "activation"),
    *("normalisation", "head", "dropout", "flip", "shift", "cutout"),
)
_STRUCTURE = ("stages", "blocks", "stem", "channels", "growth", *_OF_A_NET[:-4])

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
