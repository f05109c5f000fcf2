"""Conversion of values to plain data: dicts, lists, numbers, strings and tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sknas._history import Architecture

CLASS = "$"  # key of the name of the class that a dict stands for


def pack(value: Any) -> Any:
    """Return a value as plain data; `unpack` is the inverse."""
    if isinstance(value, Tensor):
        # A view would be written with the whole storage behind it.
        is_view = value.untyped_storage().nbytes() > value.nbytes
        return value.detach().clone() if is_view else value.detach()
    if isinstance(value, np.ndarray):
        return {CLASS: "array", "tensor": torch.from_numpy(np.ascontiguousarray(value))}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Architecture):
        return {CLASS: "Architecture", "choices": dict(value)}
    if is_dataclass(value):
        packed = {f.name: pack(getattr(value, f.name)) for f in fields(value)}
        return {CLASS: type(value).__name__, **packed}
    if isinstance(value, Mapping):
        return {str(key): pack(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return {CLASS: "tuple", "items": [pack(item) for item in value]}
    if isinstance(value, list):
        return [pack(item) for item in value]
    return value


def unpack(packed: Any, records: Mapping[str, type]) -> Any:
    """Return the value from which `pack` made plain data.

    Parameters
    ----------
    packed : object
        Result of `pack`; any other plain data may raise errors of many types.
    records : mapping of str to type
        Dataclasses by name; they convert the values of their enums themselves.
    """
    if isinstance(packed, list):
        return [unpack(item, records) for item in packed]
    if not isinstance(packed, dict):
        return packed
    name = packed.get(CLASS)
    if name is None:
        return {key: unpack(item, records) for key, item in packed.items()}
    if name == "array":
        return packed["tensor"].numpy()
    if name == "tuple":
        return tuple(unpack(item, records) for item in packed["items"])
    if name == "Architecture":
        return Architecture(packed["choices"])
    values = {key: unpack(item, records) for key, item in packed.items()}
    del values[CLASS]
    return records[name](**values)


def has_tensors(packed: Any) -> bool:
    """Return True if packed data hold a tensor, which JSON can't hold."""
    if isinstance(packed, dict):
        return any(has_tensors(item) for item in packed.values())
    if isinstance(packed, list):
        return any(has_tensors(item) for item in packed)
    return isinstance(packed, Tensor)
