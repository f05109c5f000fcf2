"""Containers of rows: tensors, images of PIL and foreign arrays become those of numpy.

Readers know numpy arrays, frames, series and lists. Any other container is turned into
one of these, or refused with what to give instead.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence, Set
from numbers import Number
from textwrap import shorten
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from sknas._data.columns import MAX_ERROR_CHARS
from sknas._validation import short_repr
from sknas.exceptions import InvalidParameterError

# Modes of PIL whose pixels are grey or RGB; others hold indices or other colours.
MODES = ("1", "L", "I", "I;16", "I;16L", "I;16B", "F", "LA", "RGB", "RGBA")
TEXT = (str, bytes, bytearray, os.PathLike)
PANDAS = (pd.DataFrame, pd.Series, pd.Index, pd.api.extensions.ExtensionArray)
ITEMS = "give its rows, X, y = zip(*(dataset[i] for i in range(len(dataset))))"
ARRAY = ("__array__", "__array_interface__", "__dlpack__")
FRAME = ("__array__", "__dataframe__", "__arrow_c_stream__", "lazy")


def set_data_tags(tags: Any) -> Any:
    """Return the tags of an estimator with the kinds of X and y that are read."""
    tags.input_tags.allow_nan = True
    tags.input_tags.categorical = True
    tags.input_tags.three_d_array = True
    tags.input_tags.string = True
    tags.target_tags.multi_output = True
    return tags


def read_container(name: str, given: Any) -> Any:
    """Return a container of rows as a numpy array, a list or, unchanged, a frame.

    Parameters
    ----------
    name : str
        "X", "y", "sample_weight" or "groups", for messages.
    given : object
        As the user gave it.

    Raises
    ------
    InvalidParameterError
        If it is no container of rows; the message says what to give instead.
    ValueError
        If its values can't be read.
    """
    if given is None and name == "X":
        raise InvalidParameterError(
            "X is None: give an array, a frame or a list of rows."
        )
    if given is None or isinstance(given, Number):
        return given
    if isinstance(given, np.ndarray | pd.Series) and given.dtype == object:
        cells = given.tolist() if given.ndim == 1 else []
        if cells and _is_array(type(cells[0])):
            return _read_list(name, cells)
    if isinstance(given, pd.DataFrame):
        _refuse_pictures(given)
        return _read_frame(given)
    if isinstance(given, PANDAS):
        return given
    if isinstance(given, np.ndarray | torch.Tensor):
        return _read_value(name, given)
    advice = _advice(name, given)
    if advice:
        _refuse(name, given, advice)
    if isinstance(given, list | tuple):
        return _read_list(name, given)
    is_list = isinstance(given, Sequence) and not isinstance(given, memoryview)
    return _read_list(name, list(given)) if is_list else _read_value(name, given)


def _is_array(kind: type) -> bool:
    """Return True if objects of a type are arrays; scalars of numpy are not."""
    if issubclass(kind, np.generic | pd.Series | pd.DataFrame):
        return False
    return any(hasattr(kind, attribute) for attribute in ARRAY)


def _is_picture(value: Any) -> bool:
    """Return True for an image of PIL, which is not imported for that."""
    return hasattr(type(value), "__array_interface__") and hasattr(value, "getbands")


def _refuse(name: str, given: Any, advice: str) -> NoReturn:
    kind = type(given).__name__
    text = f" ({short_repr(given)})" if isinstance(given, TEXT) else ""
    raise InvalidParameterError(
        f"{name} can't be read, it is of type {kind}{text}: {advice}."
    )


def _advice(name: str, given: Any) -> str:
    """Return what to give instead of an object, "" if it is a container."""
    if hasattr(given, "toarray"):  # sparse X is refused where it is read
        return "" if name == "X" else f"give {name}.toarray()"
    known = (
        (TensorDataset, "give its tensors, X, y = dataset.tensors"),
        (Dataset, ITEMS),
        (DataLoader, "give all batches as one, X, y = map(torch.cat, zip(*loader))"),
        (Set, "it has no order, give a list"),
    )
    for kind, advice in known:
        if isinstance(given, kind):
            return advice
    if _is_picture(given):
        return "give a list of images, [image]"
    if isinstance(given, TEXT) or hasattr(given, "read"):
        reads = "read the file first, for example with pandas.read_csv"
        return reads if name == "X" else "give a list or an array, one value per row"
    if isinstance(given, Mapping):
        frame = f"give a frame, pandas.DataFrame({name})"
        return frame if name == "X" else f"give its values, list({name}.values())"
    if hasattr(given, "__next__"):
        return f"give list({name})"
    if hasattr(given, "to_pandas") and not any(hasattr(given, a) for a in FRAME):
        return f"give a frame, {name}.to_pandas()"
    is_known = any(hasattr(given, a) for a in (*ARRAY, *FRAME, "to_numpy"))
    if is_known or isinstance(given, Sequence):
        return ""
    try:
        memoryview(given)
    except TypeError:
        return "give an array, a frame or a list of rows"
    return ""


def _refuse_pictures(frame: pd.DataFrame) -> None:
    """Raise an error for a column of images, which are no cells of a table."""
    objects = [i for i, dtype in enumerate(frame.dtypes) if dtype == np.dtype(object)]
    for index in objects if len(frame) else []:
        if _is_picture(frame.iat[0, index]):
            name = frame.columns[index]
            raise InvalidParameterError(
                f"Column {name!r} of X holds images: give them alone, as a list, "
                f"X[{name!r}].tolist()."
            )


def _read_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame with the number in each cell that is an array of no dimensions."""
    read: dict[int, pd.Series] = {}
    for index, dtype in enumerate(frame.dtypes):
        if dtype == np.dtype(object):
            column = frame.iloc[:, index]
            if any(map(_is_array, set(map(type, column)))):
                cells = pd.Series(map(_read_scalar, column), column.index, object)
                read[index] = cells
    if not read:
        return frame
    columns = [read.get(i, frame.iloc[:, i]) for i in range(frame.shape[1])]
    return pd.concat(columns, axis=1).set_axis(frame.columns, axis=1)


def _read_scalar(cell: Any) -> Any:
    """Return the number in an array of no dimensions, anything else as it is."""
    is_scalar = _is_array(type(cell)) and not _is_picture(cell) and not np.ndim(cell)
    return _read_cell("X", cell) if is_scalar else cell


def _read_list(name: str, rows: Sequence[Any]) -> Any:
    """Return a list of rows, with images and tensors as arrays."""
    if not len(rows):
        return rows
    if any(map(_is_picture, rows)):
        return _read_pictures(name, rows)
    if name == "X":
        _refuse_rows(rows)
    return _read_value(name, rows)


def _refuse_rows(rows: Sequence[Any]) -> None:
    """Raise an error for a list of files, dicts or pairs of rows and targets."""
    kinds, first = set(map(type, rows)), rows[0]
    if all(issubclass(kind, TEXT) for kind in kinds):
        raise InvalidParameterError(
            f"X is a list of text or files, such as {short_repr(first)}: read images "
            "from files first, and give rows of a table as lists of cells."
        )
    if all(issubclass(kind, Mapping) for kind in kinds):
        raise InvalidParameterError(
            "X is a list of dicts: give a frame, pandas.DataFrame(X)."
        )
    if isinstance(first, list | tuple) and len(first) == 2:
        is_row = [_is_array(type(part)) and _dimensions(part) > 0 for part in first]
        if is_row == [True, False]:
            raise InvalidParameterError(
                "X is a list of pairs (row, target): give X, y = zip(*X)."
            )


def _dimensions(array: Any) -> int:
    return 2 if _is_picture(array) else int(np.ndim(array))


def _read_pictures(name: str, images: Sequence[Any]) -> np.ndarray:
    """Return images of PIL as one array (N, height, width) or with channels last."""
    others = [type(image).__name__ for image in images if not _is_picture(image)]
    if others:
        raise InvalidParameterError(
            f"{name} holds images and {others[0]} objects: give images."
        )
    modes = list(dict.fromkeys(image.mode for image in images))
    if len(modes) > 1 or modes[0] not in MODES:
        raise ValueError(
            f"{name} holds images of mode {' and '.join(map(repr, modes[:2]))}: "
            "convert all to one of grey or RGB pixels, with image.convert('RGB')."
        )
    sizes = list(dict.fromkeys(image.size for image in images))
    if len(sizes) > 1:
        raise ValueError(
            f"{name} must hold images of one size, got (width, height) {sizes[0]} and "
            f"{sizes[1]}: bring all to one, with image.resize({sizes[0]})."
        )
    return np.stack([_read_foreign(name, image) for image in images])


def _read_value(name: str, value: Any) -> Any:
    """Return arrays of any library, in lists of any depth, as those of numpy."""
    if isinstance(value, list | tuple):
        kinds = set(map(type, value))
        if not any(issubclass(kind, list | tuple) or _is_array(kind) for kind in kinds):
            return value
        cells = [_read_cell(name, cell) for cell in value]
        is_same = all(a is b for a, b in zip(cells, value, strict=True))
        return value if is_same else cells
    if isinstance(value, torch.Tensor):
        return _read_tensor(name, value)
    if isinstance(value, np.ndarray):
        return _read_array(name, value)
    if hasattr(value, "to_numpy") or hasattr(value, "to_pandas"):
        return value  # frames and columns of other libraries
    is_array = any(hasattr(value, attribute) for attribute in ARRAY)
    return _read_foreign(name, value) if is_array else value


def _read_cell(name: str, value: Any) -> Any:
    """Return an array in a list, or the number in an array of no dimensions."""
    if isinstance(value, np.generic):
        return value
    read = _read_value(name, value)
    return read.item() if isinstance(read, np.ndarray) and not read.ndim else read


def _read_foreign(name: str, value: Any) -> np.ndarray:
    """Return an array of another library."""
    try:
        if hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
            array: Any = np.asarray(value)
        else:
            array = torch.from_dlpack(value)
    except Exception as error:  # of any library
        _refuse_values(name, value, error)
    is_tensor = isinstance(array, torch.Tensor)
    return _read_tensor(name, array) if is_tensor else _read_array(name, array)


def _refuse_values(name: str, value: Any, error: Exception) -> NoReturn:
    text = shorten(f"{type(error).__name__}: {error}", MAX_ERROR_CHARS)
    raise ValueError(
        f"{name} holds an object of {type(value).__name__} that can't be read "
        f"({text.rstrip('.')}): give an array of numpy."
    ) from error


def _read_array(name: str, array: np.ndarray) -> np.ndarray:
    """Return an array without a mask, and of a dtype that readers know."""
    if array.dtype.names is not None:
        raise InvalidParameterError(
            f"{name} is a structured array: give its fields as columns, "
            f"pandas.DataFrame({name})."
        )
    if isinstance(array, np.ma.MaskedArray):
        array = _fill_masked(array)
    if array.dtype.kind == "c":
        raise ValueError(
            "Complex data not supported: give the real and the imaginary part of "
            f"{name}, which is of dtype {array.dtype}, as two columns."
        )
    if array.dtype.kind == "O" and array.ndim > 1:
        kinds = set(map(type, array.flat))
        if any(map(_is_array, kinds)):
            cells = np.empty(array.size, dtype=object)
            cells[:] = [_read_scalar(cell) for cell in array.flat]
            array = cells.reshape(array.shape)
    if array.dtype.kind != "V":
        return array
    try:
        return array.astype(np.float32)  # bfloat16 of another library
    except (TypeError, ValueError):
        raise InvalidParameterError(
            f"{name} holds values of dtype {array.dtype}, which can't be read: give "
            "numbers."
        ) from None


def _fill_masked(array: np.ma.MaskedArray) -> np.ndarray:
    """Return an array whose masked values are missing: NaN, NaT or None."""
    values, mask = np.array(array.data), np.ma.getmaskarray(array)
    if not mask.any():
        return values
    kind = values.dtype.kind
    if kind not in "fcmM":
        values = values.astype(np.float64 if kind in "iu" else object)
    values[mask] = {"O": None, "m": "NaT", "M": "NaT"}.get(values.dtype.kind, np.nan)
    return values


def _read_tensor(name: str, tensor: torch.Tensor) -> np.ndarray:
    """Return the values of a tensor of torch, whatever its device and dtype."""
    if tensor.is_nested:
        problem, advice = "is nested", f"give {name}.to_padded_tensor(float('nan'))"
    elif tensor.is_meta:
        problem, advice = "is on the device 'meta', without values", "give its values"
    elif tensor.layout != torch.strided:
        problem, advice = f"has the layout {tensor.layout}", f"give {name}.to_dense()"
    elif torch.masked.is_masked_tensor(tensor):
        problem, advice = "is masked", f"give {name}.to_tensor(float('nan'))"
    else:
        return _read_array(name, _read_strided(name, tensor))
    raise InvalidParameterError(f"{name} holds a tensor that {problem}: {advice}.")


def _read_strided(name: str, tensor: torch.Tensor) -> np.ndarray:
    try:
        tensor = tensor.detach()
        if tensor.is_quantized:
            tensor = tensor.dequantize()
        tensor = tensor.cpu().resolve_conj().resolve_neg()
        if tensor.is_floating_point() and tensor.itemsize < 4:
            is_half = tensor.dtype == torch.float16
            tensor = tensor if is_half else tensor.float()  # exact
        elif tensor.dtype == torch.complex32:
            tensor = tensor.to(torch.complex64)
        return tensor.numpy()
    except (RuntimeError, TypeError, ValueError) as error:
        _refuse_values(name, tensor, error)
