"""Fingerprint of a search: everything that its trials depend on, as text.

Values of a parameter are described by what their pickle holds, so that the text is the
same in another process. Functions of the user are described by their compiled code and
the values it uses, and classes by their members; those of libraries by name, as the
versions are entries, too.
"""

from __future__ import annotations

import dis
import hashlib
import sys
from collections.abc import Callable, Mapping
from functools import cached_property
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path
from types import (
    CellType,
    CodeType,
    FunctionType,
    MappingProxyType,
    MethodType,
    ModuleType,
)
from typing import Any
from weakref import WeakKeyDictionary

import cloudpickle
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
Code = FunctionType | type
# Types that are described by their repr.
PLAIN = (bool, bytes, float, int, str, type(None), np.float64, np.int64)
# What code does and how it is called, but not where it stands.
BODY = attrgetter(
    *("co_code", "co_exceptiontable", "co_consts", "co_names"),
    *("co_argcount", "co_flags", "co_varnames"),
)


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
    found: list[Code] = []
    text = _to_text(value, found)
    # All that the value itself holds must be described, of what it uses as much as can
    # be. `found` grows while the code in it is described.
    n_own = len(found)
    contents = [
        _contents(code, found, _to_text if index < n_own else _to_text_or_type)
        for index, code in enumerate(found)
    ]
    digest = hashlib.sha256(repr(contents).encode()).hexdigest()[:16]
    return f"{text} {digest}" if found else text


def _to_text(value: Any, found: list[Code]) -> str:
    """Return a value as text, and add the user's functions and classes to `found`."""
    if type(value) in PLAIN:
        return repr(value)
    if type(value) in (list, tuple):
        return f"[{', '.join(_to_text(item, found) for item in value)}]"
    if type(value) is dict:
        items = value.items()
        pairs = (f"{_to_text(k, found)}: {_to_text(v, found)}" for k, v in items)
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, FunctionType | type):
        if _has_library_name(value):
            return f"{value.__module__}.{value.__qualname__}"
        if value not in found:
            found.append(value)
        # Without the module: a script has another name if it is imported.
        return f"{value.__qualname__} {found.index(value)}"
    return _to_text(_parts(value), found)


def _to_text_or_type(value: Any, found: list[Code]) -> str:
    """Return a value as text, or its type if that fails, as for a lock."""
    try:
        return _to_text(value, found)
    except RecursionError:
        raise
    except Exception:  # pickling runs code of the user
        return _to_text(type(value), found)


def _parts(value: Any) -> Any:
    """Return simpler values that stand for a value."""
    if isinstance(value, torch.Tensor):  # its pickle holds addresses
        value = value.detach().cpu().numpy()
    if type(value) in (np.ndarray, np.memmap):
        if value.dtype.hasobject:  # its bytes are addresses
            return ["array", value.tolist()]
        return ["array", _digest([np.atleast_1d(value)])]
    if isinstance(value, set | frozenset):  # in no order
        return sorted(value, key=_describe)
    if isinstance(value, ModuleType):  # numpy.random as a random state
        return ["module", value.__name__]
    if isinstance(value, MethodType):  # its pickle holds the name of the function
        return [value.__func__, value.__self__]
    if isinstance(value, WeakKeyDictionary):  # a cache, as in a singledispatchmethod
        return [type(value)]
    if isinstance(value, CodeType):
        return BODY(value)
    # All else is described by what its pickle holds.
    reduce = cloudpickle.Pickler.dispatch_table.get(type(value))
    reduced: Any = reduce(value) if reduce else value.__reduce_ex__(4)
    if isinstance(reduced, str):  # a name, as of `len`; a cached function has another
        name = f"{getattr(value, '__module__', '')}.{reduced}"
        return [type(value), getattr(value, "__wrapped__", name)]
    parts = [type(value), *reduced]
    parts[3:4] = [_without_caches(state, type(value)) for state in parts[3:4]]
    # Items come as iterators, and that of a deque holds the deque.
    parts[4:6] = [list(items or ()) for items in parts[4:6]]
    return parts


def _without_caches(state: Any, cls: type) -> Any:
    """Return the state of an instance without what a `cached_property` keeps in it."""
    if type(state) is not dict:
        return state
    members = {name: getattr(cls, str(name), None) for name in state}
    return {
        k: v for k, v in state.items() if not isinstance(members[k], cached_property)
    }


def _has_library_name(value: Code) -> bool:
    """Return True if the name of a function or class tells what it is."""
    modules: set[str | None] = {value.__module__}
    if isinstance(value, FunctionType):  # functools.wraps copies `__module__`
        modules.add(value.__globals__.get("__name__"))
    # A lambda, or what is made inside a function, has angle brackets in its name.
    return "<" not in value.__qualname__ and all(map(_is_library, modules))


def _is_library(module: str | None) -> bool:
    """Return True if a module is installed, or comes with Python."""
    module = module or ""
    path = getattr(sys.modules.get(module), "__file__", None) or ""
    is_installed = not set(INSTALL_FOLDERS).isdisjoint(Path(path).parts)
    is_library = is_installed or module.partition(".")[0] in LIBRARIES
    return is_library and module != "__main__"


def _contents(
    value: Code, found: list[Code], describe: Callable[[Any, list[Code]], str]
) -> str:
    """Return what a function or class of the user consists of, as text."""
    if isinstance(value, type):
        texts, used = [_to_text(value.__bases__, found)], _members(value)
    else:
        texts, used = [_to_text(value.__code__, found)], _used_globals(value)
        items = _defaults_and_closure(value).items()
        texts += [f"{_to_text(k, found)} {describe(v, found)}" for k, v in items]
    texts += [f"{name} {_to_text_or_type(used[name], found)}" for name in sorted(used)]
    return ", ".join(texts)


def _defaults_and_closure(function: FunctionType) -> Mapping[Any, Any]:
    """Return the values that a function holds."""
    registry = getattr(function, "registry", None)
    if isinstance(registry, MappingProxyType):  # singledispatch closes over a cache
        return registry
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    closure = {name: cell.cell_contents for name, cell in cells if cell != CellType()}
    defaults = dict(enumerate(function.__defaults__ or ()))
    return {**defaults, **(function.__kwdefaults__ or {}), **closure}


def _members(cls: type) -> dict[str, Any]:
    """Return the functions and values that a class defines."""
    found = {}
    for name, member in vars(cls).items():
        member = getattr(member, "fget", None) or member
        if isinstance(member, classmethod | staticmethod):
            member = member.__func__
        if isinstance(member, FunctionType) or not name.startswith("__"):
            found[name] = member
    return found


def _used_globals(function: FunctionType) -> dict[str, Any]:
    """Return the globals that a function of the user reads but does not set."""
    namespace = function.__globals__
    if _is_library(namespace.get("__name__")):
        return {}
    codes = [function.__code__]
    for code in codes:  # with the functions inside
        codes += [item for item in code.co_consts if isinstance(item, CodeType)]
    steps = [(i.opname, i.argval) for code in codes for i in dis.get_instructions(code)]
    names = {name for step, name in steps if step in ("LOAD_GLOBAL", "LOAD_NAME")}
    names -= {name for step, name in steps if step == "STORE_GLOBAL"}
    # Without __name__ or __file__: it does not matter where code stands.
    used = {name for name in names & namespace.keys() if not name.startswith("__")}
    return {name: namespace[name] for name in used}
