"""Cases with images: dtypes, layouts, sizes, constant and invalid images."""

import hostile_containers
import numpy as np
import pandas as pd
from hostile_cases import TINY, Case
from hostile_targets import CLASSES_FINE, VALUES_FINE

from sknas import NASClassifier, NASRegressor

SIDES = (1, 2, 3, 4, 5, 7, 8, 12, 16, 28, 40)
COUNTS = (1, 2, 3, 6, 6, 10, 10, 20, 20, 30)


def image_case(seed):
    """Return a case with images, most of them valid."""
    rng = np.random.default_rng(seed)
    n, is_classifier = int(rng.choice(COUNTS)), rng.random() < 0.5
    height, width = (int(side) for side in rng.choice(SIDES, 2))
    channels = int(rng.integers(1, 6))
    case = Case(seed, None, None, None, may_fail=n < 4)
    notes, options = case.notes, dict(TINY)
    layout = str(rng.choice(list(LAYOUTS)))
    notes += [f"{n} images of {channels} x {height} x {width}", layout]
    shape, axis = LAYOUTS[layout](channels, height, width)
    options["channel_axis"] = axis if rng.random() < 0.8 else "auto"
    case.may_fail |= (
        options["channel_axis"] != axis
    )  # any axis may be the channel axis, or none
    fine = [kind for kind in PIXELS if kind not in MAY_FAIL]
    kind = str(rng.choice(fine if rng.random() < 0.85 else list(MAY_FAIL)))
    notes.append(kind)
    pixels = PIXELS[kind](rng, (n + 4, *shape))
    is_flat = rng.random() < 0.2
    if is_flat:
        options["image_shape"] = shape
        pixels = pixels.reshape(len(pixels), -1)
    case.may_fail |= kind in MAY_FAIL
    wrap, may_fail = _container(rng, is_flat, notes)
    case.may_fail |= may_fail
    case.X, tail = wrap(pixels[:n]), pixels[n:]
    # One outlier pixel may change the detected scale.
    case.new = [(case.X, False), (wrap(tail), kind == "one pixel apart")]
    name = str(rng.choice(list(CHANGES)))
    notes.append(f"predict: {name}")
    case.new.append((CHANGES[name](rng, tail), True))
    kinds = CLASSES_FINE if is_classifier else VALUES_FINE
    name = str(rng.choice(list(kinds)))
    case.y = kinds[name](rng, n)
    options |= _settings(rng, is_flat)
    case.may_fail |= options["search_space"] == "cell" or options["cv"] == 2
    notes += [f"y: {name}", str(options)]
    case.estimator = (NASClassifier if is_classifier else NASRegressor)(**options)
    return case


def _settings(rng, is_flat):
    space = str(rng.choice(["auto", "image", "cell"], p=[0.5, 0.45, 0.05]))
    return {
        "search_space": space,
        "cv": [2, "auto"][rng.integers(2)],
        "max_trials": int(rng.integers(1, 3)),
        "ensemble_size": [None, 1][rng.integers(2)],
    }


LAYOUTS = {
    "grey": lambda c, h, w: ((h, w), "auto"),
    "channels first": lambda c, h, w: ((c, h, w), 1),
    "channels last": lambda c, h, w: ((h, w, c), -1),
    "channels last, 3": lambda c, h, w: ((h, w, c), 3),
}


def _whole(dtype, low, high):
    return lambda rng, shape: rng.integers(low, high, shape).astype(dtype)


def _floats(dtype, scale=1.0):
    return lambda rng, shape: (rng.normal(size=shape) * scale).astype(dtype)


def _with(value):
    def make(rng, shape):
        pixels = rng.random(shape)
        pixels[(0,) * len(shape)] = value
        return pixels

    return make


PIXELS = {
    "8 bits": _whole(np.uint8, 0, 256),
    "int8": _whole(np.int8, -128, 128),
    "16 bits": _whole(np.uint16, 0, 65_536),
    "int64 of 8 bits": _whole(np.int64, 0, 256),
    "int64": _whole(np.int64, -(2**40), 2**40),
    "booleans": lambda rng, shape: rng.random(shape) < 0.5,
    "shares": lambda rng, shape: rng.random(shape),
    "shares, float32": lambda rng, shape: rng.random(shape, dtype=np.float32),
    "float16": _floats(np.float16),
    "standardised": _floats(np.float64),
    "longdouble": _floats(np.longdouble),
    "huge": _floats(np.float64, 1e28),
    "too huge": _floats(np.float64, 1e200),
    "tiny": _floats(np.float64, 1e-30),
    "denormal": _floats(np.float64, 5e-320),
    "denormal float32": _floats(np.float32, 1e-42),
    "constant": lambda rng, shape: np.full(shape, float(rng.choice([0, 1, 7, 1e20]))),
    "constant 8 bits": lambda rng, shape: np.full(shape, 255, dtype=np.uint8),
    "one pixel apart": _with(1e6),
    "far from zero": lambda rng, shape: 1e12 + rng.random(shape),
    "NaN": _with(np.nan),
    "infinite": _with(np.inf),
    "complex": lambda rng, shape: rng.random(shape) + 1j,
    "objects": lambda rng, shape: rng.random(shape).astype(object),
    "words": lambda rng, shape: np.full(shape, "a"),
    "dates": lambda rng, shape: np.zeros(shape, "datetime64[s]"),
}
MAY_FAIL = (
    *("too huge", "NaN", "infinite", "complex", "objects", "words", "dates"),
    "longdouble",
)


def _container(rng, is_flat, notes):
    """Return a container of images, and whether it may be refused."""
    known = {**CONTAINERS, **(FLAT if is_flat else {})}
    name = str(rng.choice(list(known)))
    notes.append(name)
    return known[name], name == "lists"  # an empty list, or booleans


def _read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


CONTAINERS = {
    "array": lambda array: array.copy(),
    "Fortran": np.asfortranarray,
    "read-only": _read_only,
    "backwards": lambda array: array[..., ::-1].copy()[..., ::-1],
    "strided": lambda array: np.repeat(array, 2, axis=-1)[..., ::2],
    "big-endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
    "lists": np.ndarray.tolist,
    "list of arrays": list,
    **hostile_containers.CONTAINERS,
}
FLAT = {"frame": lambda array: pd.DataFrame(array)}


def _noisy(rng, X):
    """Return pixels that pass both ends of the range by up to a quarter of it."""
    if X.dtype.kind not in "biuf" or not np.isfinite(X).all():
        return X
    X = X.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        return X + np.ptp(X) * rng.uniform(-0.25, 0.25, X.shape)


CHANGES = {
    "the same": lambda rng, X: X,
    "one image": lambda rng, X: X[:1],
    "none": lambda rng, X: X[:0],
    "an image without its axis": lambda rng, X: X[0],
    "flat": lambda rng, X: X.reshape(len(X), -1),
    "transposed": lambda rng, X: X.T,
    "another axis": lambda rng, X: X[:, None],
    "a column less": lambda rng, X: X[..., :-1],
    "shares": lambda rng, X: rng.random(X.shape),
    "8 bits": lambda rng, X: rng.integers(0, 256, X.shape, dtype=np.uint8),
    "negative": lambda rng, X: -np.ones(X.shape),
    "constant": lambda rng, X: np.zeros(X.shape),
    "huge": lambda rng, X: np.full(X.shape, 1e29),
    "too huge": lambda rng, X: np.full(X.shape, 1e300),
    "NaN": lambda rng, X: np.full(X.shape, np.nan),
    "infinite": lambda rng, X: np.full(X.shape, np.inf),
    "booleans": lambda rng, X: rng.random(X.shape) < 0.5,
    "objects": lambda rng, X: X.astype(object),
    "words": lambda rng, X: np.full(X.shape, "a"),
    "nothing": lambda rng, X: None,
    "text": lambda rng, X: "abc",
    "a number": lambda rng, X: 3,
    "ragged": lambda rng, X: [[1], [1, 2]],
    "noise": lambda rng, X: _noisy(rng, X),
    **{
        name: lambda rng, X, make=make: make(X)
        for name, make in hostile_containers.REFUSED.items()
    },
}
