"""Images: arrays of any layout -> one array (N, channels, height, width).

As with tables, an `ImageReader` learns the layout once and turns any container into
`Images`; an `ImageEncoder` learns statistics from the training rows of one fold. The
encoded images are the ones that were read: 8 bits stay 8 bits, since the network
itself brings them to one scale.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_array, validate_data

from sknas._data.reader import Encoder, RawRows, Reader, dense_rows
from sknas._problem import ImageSpec, TaskSpec
from sknas._validation import is_word, reject

CHUNK = 2**18  # pixels that are looked at as floats at once
MAX_PIXEL = 1e30  # the square of a larger one, in single precision, may be infinite
CHANNELS = (1, 3, 4)  # grey, colours, colours and transparency
UNUSUAL = 10.0  # as a pixel of images that were standardised
SHAPES = "(height, width), (height, width, channels) or (channels, height, width)"
AXES = "'auto', 1 (channels first), or 3 or -1 (channels last)"


@dataclass(frozen=True, eq=False)
class Images(RawRows):
    """Rows as images.

    Parameters
    ----------
    pixels : ndarray of shape (N, channels, height, width)
        uint8, float32 or float64, contiguous.
    """

    pixels: np.ndarray

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, rows: np.ndarray) -> Images:
        """The given rows."""
        return Images(self.pixels[rows])

    @property
    def keys(self) -> list[np.ndarray]:
        return [_digests(self.pixels)]

    def encoder(self, weight: np.ndarray) -> ImageEncoder:
        return ImageEncoder().fit(self, weight)


@dataclass(eq=False)
class ImageReader(Reader):
    """Turns arrays, lists and frames into `Images`.

    Parameters
    ----------
    owner : str
        Name of the estimator, for messages.
    image_shape : tuple of int or None, default=None
        Shape of one image, where X holds flat rows: (height, width), (height, width,
        channels) or (channels, height, width); the last axis varies fastest.
    channel_axis : "auto" or int, default="auto"
        Axis of the channels, where X has 4 dimensions or `image_shape` 3 numbers,
        counted in X of 4 dimensions: 1, or 3 or -1. "auto" takes the one that can hold
        channels: 1, 3 or 4 of them, or 2 beside an axis of more than 4.
    """

    caller_name: str
    image_shape: Any = None
    channel_axis: Any = "auto"
    layout_: tuple[int, ...] = field(default=(), init=False)  # of one image of X
    axis_: int | None = field(default=None, init=False)  # of its channels, None if grey
    values_: _Values = field(init=False)

    least_rows = 16  # maps of large images take much memory

    def check(self, estimator: Any, X: Any, *, reset: bool) -> np.ndarray:
        X = dense_rows(self.caller_name, X)
        array = _array(X)
        if reset:
            self._find_layout(array.shape)
        elif array.ndim != 2 and array.shape[1:] != self.layout_:
            raise ValueError(
                f"X must hold images of the shape {self.layout_} that fit saw, or flat "
                f"rows of them, got an array of shape {array.shape}."
            )
        flat = check_array(
            _flat(array),
            dtype=None,
            ensure_min_samples=2 if reset else 1,
            estimator=estimator,
            input_name="X",
        )
        named = X if isinstance(X, pd.DataFrame) else flat
        validate_data(estimator, named, reset=reset, skip_check_array=True)
        if not reset:
            _Values.of(array).check_like(self.values_)
        return array

    def fit(self, X: Any) -> ImageReader:
        """Learn the layout and the range of pixels.

        Raises
        ------
        InvalidParameterError
            If `image_shape` or `channel_axis` does not fit X.
        ValueError
            If X holds no numbers, or the axis of its channels can't be told.
        """
        array = _array(X)
        self.layout_, self.axis_ = self._find_layout(array.shape)
        places = [p for p in range(len(self.layout_)) if p + 1 != self.axis_]
        height, width = (self.layout_[place] for place in places)
        self.sides = height, width
        self.values_ = _Values.of(array)
        return self

    def read(self, X: Any) -> Images:
        """Read images, or flat rows, with the layout learnt."""
        array = _array(X)
        pixels = _narrow(array).reshape(len(array), *self.layout_)
        if self.axis_ is None:
            pixels = pixels[:, None]
        else:
            pixels = np.moveaxis(pixels, self.axis_, 1)
        pixels = np.ascontiguousarray(pixels)
        # An axis of length 1 may still run backwards, which torch does not take.
        return Images(pixels if min(pixels.strides) >= 0 else pixels.copy())

    def forget(self, encoders: Sequence[Any]) -> None:
        """Nothing: a layout is all that is kept."""

    def _find_layout(
        self, shape: tuple[int, ...]
    ) -> tuple[tuple[int, ...], int | None]:
        """Shape of an image of X, and the axis of X that its channels are on."""
        given = _checked_shape(self.caller_name, self.image_shape)
        axis = self.channel_axis
        is_axis = isinstance(axis, Integral) and not isinstance(axis, bool)
        is_auto = is_word(axis, "auto")
        if not is_auto and not (is_axis and axis in (1, 3, -1)):
            reject(self.caller_name, "channel_axis", axis, AXES)
        if len(shape) == 2 and given is not None:
            if math.prod(given) != shape[1]:
                allowed = f"a shape of {shape[1]} numbers, the columns of X"
                reject(self.caller_name, "image_shape", self.image_shape, allowed)
            layout = given
        elif len(shape) in (3, 4):
            layout = shape[1:]
            if given not in (None, layout):
                allowed = f"None or {layout}, the shape of an image of X"
                reject(self.caller_name, "image_shape", self.image_shape, allowed)
        else:
            raise ValueError(
                "X must hold images as an array of 3 or 4 dimensions, or as flat rows "
                "with 'image_shape' the shape of one image, got an array of shape "
                f"{shape} and image_shape={self.image_shape!r}."
            )
        if len(layout) == 2:
            if not is_auto:
                reject(
                    self.caller_name, "channel_axis", axis, "'auto' for images in grey"
                )
            return layout, None
        return layout, _find_axis(layout) if is_auto else (1 if axis == 1 else 3)


def _checked_shape(caller_name: str, given: Any) -> tuple[int, ...] | None:
    """The shape of an image as the user gave it."""
    if given is None:
        return None
    is_shape = isinstance(given, tuple | list) and len(given) in (2, 3)
    if not is_shape or not all(isinstance(n, Integral) and int(n) > 0 for n in given):
        reject(caller_name, "image_shape", given, f"None or ints > 0, {SHAPES}")
    return tuple(map(int, given))


def _find_axis(layout: tuple[int, ...]) -> int:
    """The axis of X that holds channels, where only one can."""
    first, _, last = layout
    found = [
        axis
        for axis, n, other in ((1, first, last), (3, last, first))
        if n in CHANNELS or (n == 2 and other > max(CHANNELS))
    ]
    if len(found) == 1:
        return found[0]
    raise ValueError(
        f"The channels of images of shape {layout} may be on "
        f"{'either axis' if found else 'no axis'} by their number: give channel_axis=1 "
        "for channels first or channel_axis=-1 for channels last."
    )


def _array(X: Any) -> np.ndarray:
    """X as an array of numbers, not copied where it is one."""
    try:
        array = np.asarray(X)
    except ValueError as error:
        raise ValueError(
            "X must hold images of one shape, got a list of images of different shapes."
        ) from error
    kind = array.dtype.kind
    if kind not in "biuf":
        what = "Complex data not supported" if kind == "c" else "X can't be read"
        raise ValueError(
            f"{what}: images must hold numbers, got an array of dtype {array.dtype}."
        )
    if array.ndim < 2:
        raise ValueError(
            f"Expected an array of images, got {array.ndim}D array instead: give one "
            "image as X[None]."
        )
    return array


def _flat(array: np.ndarray) -> np.ndarray:
    """Images as rows (N, F)."""
    return array.reshape(len(array), math.prod(array.shape[1:]))


def _narrow(array: np.ndarray) -> np.ndarray:
    """The same numbers as uint8, float32 or float64."""
    if array.dtype.kind == "b":
        return array.view(np.uint8)
    if array.dtype.kind in "iu":
        is_small = array.size and array.min() >= 0 and array.max() <= 255
        return array.astype(np.uint8 if is_small else np.float32, copy=False)
    is_small = array.dtype.itemsize <= 4
    return array.astype(np.float32 if is_small else np.float64, copy=False)


def _chunks(array: np.ndarray) -> Iterator[slice]:
    """Slices of rows, of a bounded number of pixels each."""
    n_rows = max(1, CHUNK // max(1, math.prod(array.shape[1:])))
    for start in range(0, len(array), n_rows):
        yield slice(start, start + n_rows)


def _digests(pixels: np.ndarray) -> np.ndarray:
    """64 bits of each image, the same for the same numbers in any precision."""
    found: list[bytes] = []
    for rows in _chunks(pixels):
        part = _flat(pixels[rows])
        if part.dtype != np.uint8:
            part = part.astype(np.float64) + 0.0  # -0.0 is 0.0
            with np.errstate(invalid="ignore"):
                whole = part.astype(np.uint8)
            is_whole = (whole == part).all(axis=1)
            pairs = zip(whole, is_whole, part, strict=True)
            images = [w if a else p for w, a, p in pairs]
        else:
            images = list(part)
        found += [blake2b(image, digest_size=8).digest() for image in images]
    return np.frombuffer(b"".join(found), dtype="<u8")


@dataclass(frozen=True)
class _Values:
    """What the pixels of an X are like: 8 bits, shares of 1, or another scale.

    Parameters
    ----------
    low, high : float
        Their range.
    is_whole : bool
        Whether all are whole numbers.
    is_float : bool
        Whether they are stored as floats, or as True and False.
    has_dark : bool
        Whether one of several images looks by itself as if it were scaled to 1.
    """

    low: float
    high: float
    is_whole: bool
    is_float: bool
    has_dark: bool

    @classmethod
    def of(cls, array: np.ndarray) -> _Values:
        """Look at all pixels."""
        pixels = tuple(range(1, array.ndim))
        lows, highs = array.min(axis=pixels), array.max(axis=pixels)
        low, high = float(lows.min()), float(highs.max())
        if max(-low, high) > MAX_PIXEL:
            raise ValueError(
                f"X holds numbers beyond {MAX_PIXEL:g}, whose squares are infinite: "
                "divide it by a large number."
            )
        is_float = array.dtype.kind in "bf"
        is_whole = array.dtype.kind != "f" or all(
            np.array_equal(array[rows], np.rint(array[rows])) for rows in _chunks(array)
        )
        is_dark = (lows >= 0) & (highs <= 1) & (highs > 0)
        return cls(low, high, is_whole, is_float, is_float and bool(is_dark.any()))

    @property
    def is_unit(self) -> bool:
        """Whether all lie between 0 and 1."""
        return self.low >= 0 and self.high <= 1

    def check_like(self, fitted: _Values) -> None:
        """Refuse pixels on another scale than those of `fit`, whose networks would err.

        Raises
        ------
        ValueError
            If 8 bits became shares of 1, the reverse, and the like.
        """
        # Integers up to 1 are dark pictures, floats up to 1 are scaled ones.
        is_scaled = self.is_unit and self.is_float and self.high > 0
        # Some that fit saw look scaled too, as long as they are alone.
        is_scaled &= not (fitted.has_dark and self.is_whole >= fitted.is_whole)
        if fitted.is_unit:
            is_wrong = self.is_whole and self.high > 1
        elif fitted.is_whole and fitted.low >= 0:
            is_wrong = is_scaled or self.low < 0
        else:
            is_integer = self.is_whole and not self.is_float
            is_beyond = self.is_whole and self.high > 2 * fitted.high
            is_dark = is_scaled and fitted.high > UNUSUAL
            is_other = is_integer and not fitted.is_whole and fitted.low < 0
            is_wrong = is_beyond or is_dark or is_other
        if is_wrong:
            raise ValueError(
                f"X is in the range {self.low:g} to {self.high:g}, fit saw "
                f"{fitted.low:g} to {fitted.high:g}: bring X to the scale of fit."
            )


@dataclass(eq=False)
class ImageEncoder(Encoder):
    """Learns the scale of images; the network that reads them applies it."""

    shape_: tuple[int, int, int] = field(init=False)  # channels, height, width
    mean_: np.ndarray = field(init=False)  # of each channel
    deviation_: np.ndarray = field(init=False)

    def fit(self, images: Images, weight: np.ndarray) -> ImageEncoder:
        """Learn from images, each counting `weight` times."""
        pixels = images.pixels
        _, *shape = pixels.shape
        self.shape_ = (shape[0], shape[1], shape[2])
        n_pixels = weight.sum() * shape[1] * shape[2]  # of each channel
        mean, variance = np.zeros(shape[0]), np.zeros(shape[0])
        for rows in _chunks(pixels):
            sums = pixels[rows].sum(axis=(2, 3), dtype=np.float64)  # (n, channels)
            mean += weight[rows] @ sums
        mean /= n_pixels
        for rows in _chunks(pixels):
            squares = (pixels[rows] - mean[:, None, None]) ** 2
            variance += weight[rows] @ squares.sum(axis=(2, 3))
        self.mean_ = mean.astype(np.float32)
        deviation = np.sqrt(variance / n_pixels).astype(np.float32)
        # Rounding may hide that a channel is constant.
        varies = pixels.max(axis=(0, 2, 3)) > pixels.min(axis=(0, 2, 3))
        self.deviation_ = np.where(varies & (deviation > 0), deviation, np.float32(1))
        return self

    def transform(self, images: Images) -> np.ndarray:
        """The images as they are: (N, channels, height, width)."""
        return images.pixels

    def spec(self, **told: Any) -> TaskSpec:
        image = ImageSpec(self.shape_, self.mean_, self.deviation_)
        return TaskSpec(**told, image=image)
