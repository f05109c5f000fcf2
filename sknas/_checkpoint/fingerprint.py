"""Fingerprint of a search: everything that its trials depend on, as text.

Values of a parameter are described by their content, so that the text is the same in
another process. Functions and classes of the user are described by their bytecode and
by what they use; those of libraries by name, as the versions are entries, too.
"""

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

DATA = ("X", "y", "sample_weight", "groups")  # entries, each a digest of sorted rows
ROWS = "rows"  # digest of all the data together, in the order of the rows
PREVIOUS = "previous_search"  # digest of the search that a warm start adds to
# Parameters on which trials do not depend; "cv" is described by its splits.
IGNORED_PARAMETERS = ("checkpoint", "cv", "n_jobs", "verbose", "warm_start")
PACKAGES = ("sknas", "torch", "scikit-learn", "numpy", "skorch")
PYTHON = f"Python {sys.version_info.major}.{sys.version_info.minor}"
# Modules of these packages, and all in these folders, are described by name.
LIBRARIES = {
    *("joblib", "numpy", "pandas", "scipy", "sklearn", "sknas", "skorch", "torch"),
    *sys.stdlib_module_names,
}
INSTALL_FOLDERS = ("site-packages", "dist-packages")
LOAD_GLOBAL = ("LOAD_GLOBAL", "LOAD_NAME")  # the latter in the body of a class


def fingerprint(
    estimator: BaseEstimator, data: Data, classes: Any, device: str
) -> dict[str, str]:
    """Return everything that the trials of a search depend on, as text.

    Parameters
    ----------
    estimator : estimator
        Estimator whose parameters count.
    data : Data
        The training rows.
    classes : ndarray, list of ndarray or None
        The labels of a classifier: a scorer may ask for one by name.
    device : str
        Where networks are trained.
    """
    parameters = estimator.get_params(deep=False)
    n, columns = len(data), data.x.keys
    groups = [] if data.groups is None else [data.groups]
    splits = [indices for split in data.splits or [] for indices in split]
    return {
        "X": _digest([np.sort(hash_rows(columns, n))]),
        "y": _digest([np.sort(hash_rows([data.y], n))]),
        "classes": _describe(classes),
        "sample_weight": _digest([np.sort(data.weight)]),
        "groups": _digest([np.sort(group) for group in groups]),
        ROWS: _digest([*columns, data.y, data.weight, data.loss_weight, *groups]),
        "cv": _digest(splits) if splits else _describe(parameters["cv"]),
        **{
            name: _describe_parameter(type(estimator).__name__, name, value)
            for name, value in parameters.items()
            if name not in IGNORED_PARAMETERS
        },
        "device": device.partition(":")[0],
        "versions": ", ".join([PYTHON, *(f"{p} {version(p)}" for p in PACKAGES)]),
    }


def differences(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Return the names of the entries in which two fingerprints differ."""
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    # Rows always differ if their columns do.
    is_explained = any(name in DATA for name in names)
    return [name for name in names if not (is_explained and name == ROWS)]


def _digest(arrays: list[np.ndarray]) -> str:
    """Return a digest of the values, types and shapes of arrays."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(f"{array.dtype.str}{array.shape}".encode())
        # In blocks, so that many images are not copied at once.
        for start in range(0, len(array), 4_096):
            block = np.ascontiguousarray(array[start : start + 4_096])
            total.update(block.data.cast("B") if block.size else b"")
    return total.hexdigest()[:16]


def _describe_parameter(caller_name: str, name: str, value: Any) -> str:
    try:
        return _describe(value)
    except Exception as error:  # pickling runs code of the user
        allowed = "an object that can be pickled, with a 'checkpoint' or 'warm_start'"
        reject(caller_name, name, value, allowed, str(error))


def _describe(value: Any) -> str:
    """Return a value as text that is the same in another process."""
    found: list[Any] = []
    text = _to_text(value, found)
    # Functions and classes that are found on the way are appended and visited once.
    contents = [
        f"{name} {_to_text_or_type(item, found)}"
        for code in found
        for name, item in _contents(code)
    ]
    digest = hashlib.sha256(repr(contents).encode()).hexdigest()[:16]
    return f"{text} {digest}" if found else text


def _to_text(value: Any, found: list[Any]) -> str:
    """Return a value as text, with references to the functions and classes found."""
    if isinstance(value, str | int | float | None):
        return repr(value)
    if isinstance(value, BaseEstimator):
        state = value.get_params(deep=False)
        names = [n for n in vars(value) if n.endswith("_") and not n.startswith("_")]
        state |= {name: vars(value)[name] for name in names}  # fitted attributes
        return f"{_to_text(type(value), found)} {_to_text(state, found)}"
    if isinstance(value, ModuleType):  # numpy.random as a random state
        return value.__name__
    if isinstance(value, np.random.RandomState):
        return f"RandomState {joblib.hash(value)}"
    if isinstance(value, torch.Tensor):  # its pickle holds addresses
        return _to_text(value.detach().cpu().numpy(), found)
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:  # its bytes are addresses
            return f"array {_to_text(value.tolist(), found)}"
        return f"array {_digest([np.atleast_1d(value)])}"
    if isinstance(value, Mapping):
        items = value.items()
        pairs = (f"{_to_text(k, found)}: {_to_text(v, found)}" for k, v in items)
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, set | frozenset):  # in no order
        value = sorted(value, key=lambda item: _to_text(item, list(found)))
    if isinstance(value, list | tuple):
        return f"[{', '.join(_to_text(item, found) for item in value)}]"
    return _code_to_text(value, found)


def _code_to_text(value: Any, found: list[Any]) -> str:
    """Return code, or an object of any class, as text."""
    if isinstance(value, partial):
        return f"partial {_to_text([value.func, value.args, value.keywords], found)}"
    if isinstance(value, CodeType):
        bytecode = (value.co_code.hex(), value.co_exceptiontable.hex())
        names = (value.co_names, value.co_varnames, value.co_consts)
        return _to_text([*bytecode, *names], found)
    if isinstance(value, FunctionType | type):
        return _reference(value, found)
    if isinstance(value, MethodType):
        function, instance = value.__func__, value.__self__
        return f"{_to_text(function, found)} of {_to_text(instance, found)}"
    if isinstance(value, BuiltinFunctionType):  # bound to an object or a module
        return f"{_full_name(value)} {_to_text(value.__self__, found)}"
    if isinstance(value, np.ufunc):
        return _full_name(value)
    kind = _to_text(type(value), found)
    if _is_user_code(type(value)) or (callable(value) and hasattr(value, "__dict__")):
        name = getattr(value, "__qualname__", "")
        return f"{kind} {name} {_to_text(value.__getstate__(), found)}"
    # Such as a splitter of scikit-learn, whose attributes are its settings.
    return f"{kind} {joblib.hash(value)}"


def _to_text_or_type(value: Any, found: list[Any]) -> str:
    """Return a value as text, or its type if that fails."""
    try:
        return _to_text(value, found)
    except Exception:  # such as a lock; pickling runs code of the user
        return _to_text(type(value), found)


def _full_name(value: Any) -> str:
    name = getattr(value, "__qualname__", getattr(value, "__name__", ""))
    return f"{getattr(value, '__module__', '')}.{name}"


def _reference(value: FunctionType | type, found: list[Any]) -> str:
    """Return the name of a function or class, and its index in those found.

    Classes of libraries are their names alone; functions come with their defaults and
    closures.
    """
    is_user_code = _is_user_code(value)
    if isinstance(value, type) and not is_user_code:
        return _full_name(value)
    # Without the module: a script has another name if it is imported.
    name = value.__qualname__ if is_user_code else _full_name(value)
    if value in found:
        return f"{name} {found.index(value)}"
    found.append(value)
    reference = f"{name} {len(found) - 1}"
    if isinstance(value, type):
        return reference
    cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
    closure = {key: cell.cell_contents for key, cell in cells if cell != CellType()}
    state = [value.__defaults__, value.__kwdefaults__, closure]
    return f"{reference} {_to_text(state, found)}"


def _is_user_code(value: FunctionType | type) -> bool:
    """Return True if a function or class belongs to no library."""
    module = value.__module__
    if isinstance(value, FunctionType):  # functools.wraps copies `__module__`
        module = value.__globals__.get("__name__") or ""
    path = getattr(sys.modules.get(module), "__file__", None) or ""
    is_installed = not set(INSTALL_FOLDERS).isdisjoint(Path(path).parts)
    is_library = is_installed or module.partition(".")[0] in LIBRARIES
    return module == "__main__" or not is_library


def _contents(value: FunctionType | type) -> list[tuple[str, Any]]:
    """Return the code and globals of a function, or bases and members of a class."""
    if isinstance(value, FunctionType):
        code, namespace = value.__code__, value.__globals__
        names = _global_names(code) & namespace.keys() if _is_user_code(value) else ()
        return [("", code), *((name, namespace[name]) for name in sorted(names))]
    contents: list[tuple[str, Any]] = [("", value.__bases__)]
    for name, member in sorted(vars(value).items()):
        member = member.func if isinstance(member, cached_property) else member
        member = getattr(member, "fget", None) or getattr(member, "__func__", member)
        if isinstance(member, FunctionType) or not name.startswith("__"):
            contents.append((name, member))
    return contents


def _global_names(code: CodeType) -> set[str]:
    """Return the globals that code and the code inside it read but do not set."""
    instructions = list(dis.get_instructions(code))
    names = {i.argval for i in instructions if i.opname in LOAD_GLOBAL}
    names -= {i.argval for i in instructions if i.opname == "STORE_GLOBAL"}
    nested = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    names.update(*map(_global_names, nested))
    # Without __name__ or __file__: it does not matter where code stands.
    return {name for name in names if not name.startswith("__")}
