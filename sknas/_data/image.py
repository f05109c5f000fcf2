"""Images of any layout as one array (N, channels, height, width).

As with tables, an `ImageReader` learns the layout once and turns any container into
`RawImages`; an `ImageEncoder` learns statistics from the training rows of one fold.
Encoding does not change the images: 8 bits stay 8 bits, and the network standardises
the pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_array, validate_data

from sknas._data.reader import Encoder, RawRows, Reader, dense_rows
from sknas._problem import ImageSpec, TaskSpec
from sknas._validation import is_word, reject

CHUNK_PIXELS = 2**18  # pixels converted to floats at once
MAX_PIXEL = 1e30  # squares of larger pixels overflow in single precision
CHANNELS = (1, 3, 4)  # grey, RGB, RGBA
MAX_STANDARDISED = 10.0  # pixels of standardised images rarely exceed it
DEPTHS = ((0, 255), (0, 65_535), (-128, 127), (-32_768, 32_767))  # of whole numbers
MAX_OVERSHOOT = 0.252  # of the range of fit, beyond either end: a quarter, rounded up
MIN_PIXELS = 1_000  # of which the range is known
MAX_TAIL_SHARE = 0.05  # share of the pixels of a scaled image that may be outliers
SHAPES = "(height, width), (height, width, channels) or (channels, height, width)"
AXES = "'auto', 1 (channels first), or 3 or -1 (channels last)"


@dataclass(frozen=True, eq=False)
class RawImages(RawRows):
    """Rows that are images.

    Parameters
    ----------
    pixels : ndarray of shape (N, channels, height, width)
        uint8, float32 or float64, contiguous.
    """

    pixels: np.ndarray

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, rows: np.ndarray) -> RawImages:
        """Return the given rows."""
        return RawImages(self.pixels[rows])

    @property
    def keys(self) -> list[np.ndarray]:
        return [_hash_images(self.pixels)]

    def encoder(self, weight: np.ndarray) -> ImageEncoder:
        return ImageEncoder().fit(self, weight)


@dataclass(eq=False)
class ImageReader(Reader):
    """Reads arrays, lists and frames as `RawImages`.

    Parameters
    ----------
    caller_name : str
        Name of the estimator, for messages.
    image_shape : tuple of int or None, default=None
        Shape of one image if X holds flat rows: (height, width), (height, width,
        channels) or (channels, height, width); the last axis varies fastest.
    channel_axis : "auto" or int, default="auto"
        Axis of the channels if X has 4 dimensions or `image_shape` 3 numbers, as an
        axis of an array of 4 dimensions: 1, 3 or -1. "auto" takes the only axis that
        can hold channels: of length 1, 3 or 4, or of length 2 if the other axis is
        longer than 4.

    Attributes
    ----------
    layout_ : tuple of int
        Shape of one image of X.
    axis_ : int or None
        Axis of X that holds channels, None for grey images without that axis.
    range_ : _PixelRange
        Range of the pixels that `fit` saw.
    """

    caller_name: str
    image_shape: Any = None
    channel_axis: Any = "auto"

    min_chunk_rows = 16  # feature maps of large images need much memory

    def check(self, estimator: Any, X: Any, *, reset: bool) -> np.ndarray:
        X = dense_rows(self.caller_name, X)
        array = _array(X)
        if reset:
            self._find_layout(array.shape)
        elif array.ndim != 2 and not self._is_layout(array.shape[1:]):
            raise ValueError(
                f"X must hold images of the shape {self.layout_} that fit saw, or flat "
                f"rows of them, got an array of shape {array.shape}."
            )
        with np.errstate(invalid="ignore"):  # infinities of both signs
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
            self.range_.check_same_scale(array)
        return array

    def fit(self, X: Any) -> ImageReader:
        """Learn the layout and the range of pixels.

        Raises
        ------
        InvalidParameterError
            If `image_shape` or `channel_axis` does not fit X.
        ValueError
            If X does not hold numbers, or the axis of its channels is ambiguous.
        """
        array = _array(X)
        self.layout_, self.axis_ = self._find_layout(array.shape)
        height, width = (
            n for axis, n in enumerate(self.layout_, 1) if axis != self.axis_
        )
        self.image_size = height, width
        self.range_ = _PixelRange.of(array)
        return self

    def read(self, X: Any) -> RawImages:
        """Read images, or flat rows, with the learnt layout."""
        array = _array(X)
        pixels = _compact(array).reshape(len(array), *self.layout_)
        if self.axis_ is None:
            pixels = pixels[:, None]
        else:
            pixels = np.moveaxis(pixels, self.axis_, 1)
        pixels = np.ascontiguousarray(pixels)
        # torch rejects negative strides, which an axis of length 1 may still have.
        return RawImages(pixels if min(pixels.strides) >= 0 else pixels.copy())

    def count_unseen(self, rows: Any) -> np.ndarray:
        """Return no counts: images have no categories."""
        return np.zeros((2, 0))

    def warn_unseen(self, counts: np.ndarray, n_rows: int) -> None:
        """Do nothing: images have no categories."""

    def prune_vocabulary(self, encoders: Sequence[Any]) -> None:
        """Do nothing: images have no categories."""

    def _is_layout(self, shape: tuple[int, ...]) -> bool:
        """Return True if images of a shape hold their pixels in the order of `fit`."""
        size = self.image_size or ()
        grey = (size, (1, *size), (*size, 1))
        return shape == self.layout_ or (self.layout_ in grey and shape in grey)

    def _find_layout(
        self, shape: tuple[int, ...]
    ) -> tuple[tuple[int, ...], int | None]:
        """Return the shape of an image of X, and the axis of X that holds channels."""
        given = _check_image_shape(self.caller_name, self.image_shape)
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
                reject(self.caller_name, "channel_axis", axis, "'auto' for grey images")
            return layout, None
        return layout, _find_axis(layout) if is_auto else (1 if axis == 1 else 3)


def _check_image_shape(caller_name: str, given: Any) -> tuple[int, ...] | None:
    """Return `image_shape` as a tuple of int."""
    if given is None:
        return None
    is_shape = isinstance(given, tuple | list) and len(given) in (2, 3)
    if not is_shape or not all(isinstance(n, Integral) and int(n) > 0 for n in given):
        reject(caller_name, "image_shape", given, f"None or ints > 0, {SHAPES}")
    return tuple(map(int, given))


def _find_axis(layout: tuple[int, ...]) -> int:
    """Return the axis of X that holds channels, if only one can."""
    first, _, last = layout
    found = [
        axis
        for axis, n, other in ((1, first, last), (3, last, first))
        if n in CHANNELS or (n == 2 and other > max(CHANNELS))
    ]
    if len(found) == 1:
        return found[0]
    raise ValueError(
        f"{'Either' if found else 'No'} axis of images of shape {layout} may hold the "
        "channels: give channel_axis=1 for channels first or channel_axis=-1 for "
        "channels last."
    )


def _array(X: Any) -> np.ndarray:
    """Return X as an array of numbers, without a copy if it is one."""
    try:
        array = np.asarray(X)
    except ValueError as error:
        raise ValueError(
            "X must hold images of one shape, got a list of images of different "
            "shapes: resize or crop them."
        ) from error
    kind = array.dtype.kind
    if kind not in "biuf":
        problem = "Complex data not supported" if kind == "c" else "X can't be read"
        raise ValueError(
            f"{problem}: images must hold numbers, got an array of dtype {array.dtype}."
        )
    if array.ndim < 2:
        raise ValueError(
            f"Expected an array of images, got {array.ndim}D array instead: give one "
            "image as X[None]."
        )
    return array


def _flat(array: np.ndarray) -> np.ndarray:
    """Return images as rows (N, F)."""
    return array.reshape(len(array), math.prod(array.shape[1:]))


def _compact(array: np.ndarray) -> np.ndarray:
    """Return the same numbers as uint8, float32 or float64."""
    if array.dtype.kind == "b":
        return array.view(np.uint8)
    if array.dtype.kind in "iu":
        is_small = array.size and array.min() >= 0 and array.max() <= 255
        return array.astype(np.uint8 if is_small else np.float32, copy=False)
    is_small = array.dtype.itemsize <= 4
    return array.astype(np.float32 if is_small else np.float64, copy=False)


def _chunks(array: np.ndarray) -> Iterator[slice]:
    """Yield slices of rows, with a bounded number of pixels each."""
    n_rows = max(1, CHUNK_PIXELS // max(1, math.prod(array.shape[1:])))
    for start in range(0, len(array), n_rows):
        yield slice(start, start + n_rows)


def _hash_images(pixels: np.ndarray) -> np.ndarray:
    """Return a 64-bit hash of each image, the same in any precision, (N,)."""
    digests: list[bytes] = []
    for rows in _chunks(pixels):
        part = _flat(pixels[rows])
        if part.dtype != np.uint8:
            part = part.astype(np.float64) + 0.0  # + 0.0 turns -0.0 into 0.0
            with np.errstate(invalid="ignore"):
                whole = part.astype(np.uint8)
            is_whole = (whole == part).all(axis=1)
            pairs = zip(whole, is_whole, part, strict=True)
            images = [w if a else p for w, a, p in pairs]
        else:
            images = list(part)
        digests += [blake2b(image, digest_size=8).digest() for image in images]
    return np.frombuffer(b"".join(digests), dtype="<u8")


def _ends(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the smallest and the largest pixel of each image, both (N,)."""
    axes = tuple(range(1, array.ndim))
    lows, highs = array.min(axis=axes), array.max(axis=axes)
    if max(-float(lows.min()), float(highs.max())) > MAX_PIXEL:
        raise ValueError(
            f"X holds numbers beyond {MAX_PIXEL:g}, whose squares are infinite: "
            "divide it by a large number."
        )
    return lows.astype(np.float64), highs.astype(np.float64)


def _are_whole(array: np.ndarray) -> np.ndarray:
    """Return True for the images whose pixels are whole numbers, (N,)."""
    if array.dtype.kind != "f":
        return np.ones(len(array), dtype=bool)
    parts = [_flat(array[rows]) for rows in _chunks(array)]
    return np.concatenate([(part == np.rint(part)).all(axis=1) for part in parts])


@dataclass(frozen=True)
class _PixelRange:
    """Range of the pixels of `fit`, from which its scale is inferred.

    Parameters
    ----------
    low, high : float
        Smallest and largest pixel.
    is_whole : bool
        True if all are whole numbers.
    is_float : bool
        True if they are stored as floats or booleans.
    has_unit_image : bool
        True if they are, and the pixels of some image are between 0 and 1.
    n_pixels : int
        Number of pixels.
    """

    low: float
    high: float
    is_whole: bool
    is_float: bool
    has_unit_image: bool
    n_pixels: int

    @classmethod
    def of(cls, array: np.ndarray) -> _PixelRange:
        """Return the range of all pixels of an array of images."""
        lows, highs = _ends(array)
        is_float = array.dtype.kind in "bf"
        in_unit = (lows >= 0) & (highs <= 1) & (highs > 0)
        return cls(
            float(lows.min()),
            float(highs.max()),
            bool(_are_whole(array).all()),
            is_float,
            is_float and bool(in_unit.any()),
            array.size,
        )

    @property
    def is_unit(self) -> bool:
        """True if all pixels are between 0 and 1."""
        return self.low >= 0 and self.high <= 1

    @property
    def is_raw(self) -> bool:
        """True for pixels as cameras store them, neither shares nor standardised."""
        is_large = self.is_whole or self.high > MAX_STANDARDISED
        return is_large and self.low >= 0 and not self.is_unit

    def check_same_scale(self, array: np.ndarray) -> None:
        """Check that each image is on the scale of `fit`, whatever the others are.

        Raises
        ------
        ValueError
            If the scale of one differs, such as 0 to 1 instead of 0 to 255.
        """
        lows, highs = _ends(array)
        is_whole = _are_whole(array)
        is_float = array.dtype.kind in "bf"
        is_wrong = self._are_beyond(array, lows, highs, is_whole)
        is_wrong |= self._are_scaled(lows, highs, is_whole, is_float)
        if not is_float and not self.is_whole and self.low < 0:
            is_wrong[:] = True  # integers are no standardised pixels
        if is_wrong.any():
            raise ValueError(
                f"X is in the range {lows.min():g} to {highs.max():g}, fit saw "
                f"{self.low:g} to {self.high:g}: bring X to the scale of fit."
            )

    def _are_beyond(
        self,
        array: np.ndarray,
        lows: np.ndarray,
        highs: np.ndarray,
        is_whole: np.ndarray,
    ) -> np.ndarray:
        """Return True for images that pass the range of `fit` by too much, (N,)."""
        limits = np.array([self._limits(False), self._limits(True)])
        lowest, highest = limits[is_whole.astype(int)].T
        is_beyond = (lows < lowest) | (highs > highest)
        if self.is_raw:
            return is_beyond
        # A scaler that was fitted to each pixel turns rare ones into outliers.
        for index in np.flatnonzero(is_beyond & ~is_whole):
            image = array[index]
            is_outlier = (image < lowest[index]) | (image > highest[index])
            is_beyond[index] = is_outlier.mean() > MAX_TAIL_SHARE
        return is_beyond

    def _limits(self, is_whole: bool) -> tuple[float, float]:
        """Return the lowest and the highest pixel that an image may have."""
        low, high = self.low, self.high
        if self.is_unit:
            low, high = 0.0, 1.0
            if is_whole:
                return low, high
        elif self.is_whole and (is_whole or not self.is_float):
            # Dark images are followed by light ones.
            wider = [pair for pair in DEPTHS if pair[0] <= low and high <= pair[1]]
            low, high = wider[0] if wider else (low, high)
        elif self.is_raw and self.n_pixels < MIN_PIXELS:
            low = 0.0  # few pixels tell less of the scale than that black is 0
        is_known = self.is_raw or self.is_unit or self.n_pixels >= MIN_PIXELS
        margin = (MAX_OVERSHOOT if is_known else 1.0) * (high - low)
        return low - margin, high + margin

    def _are_scaled(
        self, lows: np.ndarray, highs: np.ndarray, is_whole: np.ndarray, is_float: bool
    ) -> np.ndarray:
        """Return True for images that look like shares or standardised ones, (N,)."""
        is_share = (lows >= 0) & (highs <= 1) & (highs > 0)
        # Integers up to 1 are dark images, and so are shares if fit had such an image.
        is_share &= is_float & ~(self.has_unit_image & (is_whole >= self.is_whole))
        if not self.is_raw:
            return is_share & (self.high > MAX_STANDARDISED)
        return is_share | (lows < 0) & (highs <= min(MAX_STANDARDISED, self.high / 2))


class ImageEncoder(Encoder):
    """Learns the mean and deviation of each channel; the network applies them.

    Attributes
    ----------
    shape_ : (int, int, int)
        Channels, height and width.
    mean_, deviation_ : ndarray of shape (channels,), float32
        Weighted statistics of the training images.
    """

    def fit(self, images: RawImages, weight: np.ndarray) -> ImageEncoder:
        """Learn from images, each counting `weight` times."""
        pixels = images.pixels
        _, channels, height, width = pixels.shape
        self.shape_ = (channels, height, width)
        n_pixels = weight.sum() * height * width  # per channel
        mean, variance = np.zeros(channels), np.zeros(channels)
        for rows in _chunks(pixels):
            sums = pixels[rows].sum(axis=(2, 3), dtype=np.float64)  # (n, channels)
            mean += weight[rows] @ sums
        mean /= n_pixels
        for rows in _chunks(pixels):
            squares = (pixels[rows] - mean[:, None, None]) ** 2
            variance += weight[rows] @ squares.sum(axis=(2, 3))
        self.mean_ = mean.astype(np.float32)
        deviation = np.sqrt(variance / n_pixels).astype(np.float32)
        # Rounding may give a constant channel a tiny deviation.
        varies = pixels.max(axis=(0, 2, 3)) > pixels.min(axis=(0, 2, 3))
        self.deviation_ = np.where(varies & (deviation > 0), deviation, np.float32(1))
        return self

    def transform(self, images: RawImages) -> np.ndarray:
        """Return the images unchanged, (N, channels, height, width)."""
        return images.pixels

    def spec(self, **options: Any) -> TaskSpec:
        image = ImageSpec(self.shape_, self.mean_, self.deviation_)
        return TaskSpec(**options, image=image)
