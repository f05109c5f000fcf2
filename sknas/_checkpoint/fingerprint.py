"""What the trials of a search depend on, as text."""

from __future__ import annotations

import dis
import hashlib
import sys
from collections.abc import Mapping
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
    MethodType,
    ModuleType,
)
from typing import Any

import joblib
import numpy as np
import torch
from sklearn.base import BaseEstimator

from sknas._data.deduplicate import hash_rows
from sknas._data.prepare import Data
from sknas._validation import reject

DATA, JOINT = ("X", "y", "sample_weight", "groups"), "rows"


# Parameters on which the trials of a search do not depend, and those told otherwise.
APART = ("checkpoint", "cv", "n_jobs", "verbose", "warm_start")


LIBRARIES = {  # what is in them is told by name, and so is all in INSTALLED
    *("joblib", "numpy", "pandas", "scipy", "sklearn", "sknas", "skorch", "torch"),
    *sys.stdlib_module_names,
}


INSTALLED = ("site-packages", "dist-packages")


PYTHON = f"Python {sys.version_info.major}.{sys.version_info.minor}"


PACKAGES = ("sknas", "torch", "scikit-learn", "numpy", "skorch")


LOOKUPS = ("LOAD_GLOBAL", "LOAD_NAME")  # the latter in the body of a class


def describe_search(
    estimator: BaseEstimator, data: Data, classes: Any, device: str
) -> dict[str, str]:
    """All that the trials of an estimator's search depend on, as text.

    Parameters
    ----------
    estimator : estimator
        Its parameters.
    data : Data
        What `fit` read.
    classes : ndarray, list of ndarray or None
        The labels of a classifier: a scorer may ask for one by its name.
    device : str
        Where networks are trained.
    """
    parameters = estimator.get_params(deep=False)
    words = {
        name: _told(type(estimator).__name__, name, value)
        for name, value in parameters.items()
        if name not in APART
    }
    n, keys = len(data), data.x.keys
    groups = [] if data.groups is None else [data.groups]
    splits = [part for split in data.splits or [] for part in split]
    return {
        "X": _digest([np.sort(hash_rows(keys, n))]),
        "y": _digest([np.sort(hash_rows([data.y], n))]),
        "classes": _text(classes),
        "sample_weight": _digest([np.sort(data.weight)]),
        "groups": _digest([np.sort(group) for group in groups]),
        JOINT: _digest([*keys, data.y, data.weight, data.loss_weight, *groups]),
        "cv": _digest(splits) if splits else _text(parameters["cv"]),
        **words,
        "device": device.partition(":")[0],
        "versions": ", ".join([PYTHON, *(f"{p} {version(p)}" for p in PACKAGES)]),
    }


def differences(parts: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Names of what differs between two searches."""
    names = [name for name in {**parts, **other} if parts.get(name) != other.get(name)]
    # Rows differ together with what stands in them.
    is_told = any(name in DATA for name in names)
    return [name for name in names if not (is_told and name == JOINT)]


def _digest(arrays: list[np.ndarray]) -> str:
    """A digest of the values, types and shapes of arrays."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(f"{array.dtype.str}{array.shape}".encode())
        # A block at a time: many images are not copied for nothing.
        for start in range(0, len(array), 4_096):
            block = np.ascontiguousarray(array[start : start + 4_096])
            total.update(block.data.cast("B") if block.size else b"")
    return total.hexdigest()[:16]


def _told(caller_name: str, name: str, value: Any) -> str:
    """A parameter as text, or an error where it can't be told from others."""
    try:
        return _text(value)
    except Exception as error:  # how it is pickled is others' code
        allowed = "an object that can be pickled, with a 'checkpoint' or 'warm_start'"
        reject(caller_name, name, value, allowed, str(error))


def _text(value: Any) -> str:
    """A value as text that is the same in another process.

    The functions and classes in it, and those that they use, are told in a digest.
    """
    met: list[Any] = []
    words = _words(value, met)
    # Code that is told adds to what is met: none is told twice, though it uses itself.
    parts = [f"{name} {_part(p, met)}" for code in met for name, p in _parts(code)]
    digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
    return f"{words} {digest}" if met else words


def _words(value: Any, met: list[Any]) -> str:
    """A value as text; functions and classes by their places in those that are met."""
    if isinstance(value, str | int | float | None):
        return repr(value)
    if isinstance(value, BaseEstimator):
        told = value.get_params(deep=False)
        held = vars(value).items()  # what it has learnt, if it has
        told |= {k: v for k, v in held if k.endswith("_") and not k.startswith("_")}
        return f"{_words(type(value), met)} {_words(told, met)}"
    if isinstance(value, ModuleType):  # numpy.random, its global state
        return value.__name__
    if isinstance(value, np.random.RandomState):
        return f"RandomState {joblib.hash(value)}"
    if isinstance(value, torch.Tensor):  # its pickle tells of places in memory
        return _words(value.detach().cpu().numpy(), met)
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:  # its bytes are places in memory
            return f"array {_words(value.tolist(), met)}"
        return f"array {_digest([np.atleast_1d(value)])}"
    if isinstance(value, Mapping):
        items = (f"{_words(k, met)}: {_words(v, met)}" for k, v in value.items())
        return f"{{{', '.join(items)}}}"
    if isinstance(value, set | frozenset):  # their order is chance
        value = sorted(value, key=lambda part: _words(part, list(met)))
    if isinstance(value, list | tuple):
        return f"[{', '.join(_words(part, met) for part in value)}]"
    if isinstance(value, partial):
        return f"partial {_words([value.func, value.args, value.keywords], met)}"
    if isinstance(value, CodeType):
        steps = (value.co_code.hex(), value.co_exceptiontable.hex())
        named = (value.co_names, value.co_varnames, value.co_consts)
        return _words([*steps, *named], met)
    if isinstance(value, FunctionType | type):
        return _reference(value, met)
    if isinstance(value, MethodType):
        return f"{_words(value.__func__, met)} of {_words(value.__self__, met)}"
    if isinstance(value, BuiltinFunctionType):  # a method of what it is bound to
        return f"{_name(value)} {_words(value.__self__, met)}"
    if isinstance(value, np.ufunc):
        return _name(value)
    if _is_own(type(value)) or (callable(value) and hasattr(value, "__dict__")):
        kind = f"{_words(type(value), met)} {getattr(value, '__qualname__', '')}"
        return f"{kind} {_words(value.__getstate__(), met)}"
    # Such as a splitter of scikit-learn, whose settings its attributes tell.
    return f"{_words(type(value), met)} {joblib.hash(value)}"


def _name(value: Any) -> str:
    name = getattr(value, "__qualname__", getattr(value, "__name__", ""))
    return f"{getattr(value, '__module__', '')}.{name}"


def _reference(value: FunctionType | type, met: list[Any]) -> str:
    """A class of a library by name; other code by its place, and what it holds."""
    is_own = _is_own(value)
    if isinstance(value, type) and not is_own:
        return _name(value)
    # A script is a module of another name where it is imported.
    name = value.__qualname__ if is_own else _name(value)
    if value in met:
        return f"{name} {met.index(value)}"
    met.append(value)
    reference = f"{name} {len(met) - 1}"
    if isinstance(value, type):
        return reference
    cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
    held = {key: cell.cell_contents for key, cell in cells if cell != CellType()}
    return (
        f"{reference} {_words([value.__defaults__, value.__kwdefaults__, held], met)}"
    )


def _is_own(value: FunctionType | type) -> bool:
    """Whether the user wrote it: it stands in no installed library."""
    module = value.__module__
    if isinstance(value, FunctionType):  # a decorated one takes the name of another
        module = value.__globals__.get("__name__") or ""
    path = getattr(sys.modules.get(module), "__file__", None) or ""
    is_installed = not set(INSTALLED).isdisjoint(Path(path).parts)
    is_library = is_installed or module.partition(".")[0] in LIBRARIES
    return module == "__main__" or not is_library


def _part(value: Any, met: list[Any]) -> str:
    """What code uses, by its type alone where it can't be told."""
    try:
        return _words(value, met)
    except Exception:  # such as a lock; how it is pickled is others' code
        return _words(type(value), met)


def _parts(value: FunctionType | type) -> list[tuple[str, Any]]:
    """What a function does and the globals that it uses, or what is in a class."""
    if isinstance(value, FunctionType):
        code, around = value.__code__, value.__globals__
        used = _names_used(code) & around.keys() if _is_own(value) else ()
        return [("", code), *((name, around[name]) for name in sorted(used))]
    found: list[tuple[str, Any]] = [("", value.__bases__)]
    for name, part in sorted(vars(value).items()):
        part = part.func if isinstance(part, cached_property) else part
        part = getattr(part, "fget", None) or getattr(part, "__func__", part)
        if isinstance(part, FunctionType) or not name.startswith("__"):
            found.append((name, part))
    return found


def _names_used(code: CodeType) -> set[str]:
    """The globals that code looks up, and code in it, but for those that it sets."""
    steps = list(dis.get_instructions(code))
    names = {step.argval for step in steps if step.opname in LOOKUPS}
    names -= {step.argval for step in steps if step.opname == "STORE_GLOBAL"}
    inside = [part for part in code.co_consts if isinstance(part, CodeType)]
    names.update(*map(_names_used, inside))
    # Such as __name__ and __file__: where code stands is not what it does.
    return {name for name in names if not name.startswith("__")}
