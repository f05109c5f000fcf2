"""A folder in which searches are kept, and how one finds its own there."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from pickle import PicklingError
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    MethodType,
    ModuleType,
)
from typing import Any

import joblib
import numpy as np
import torch
from filelock import FileLock, Timeout
from sklearn.base import BaseEstimator

from sknas._checks import reject, warn_user
from sknas._data import Data
from sknas._journal import FOREIGN, FileJournal, Journal, NoJournal
from sknas._rows import hash_rows
from sknas.exceptions import CheckpointError
from sknas.trainers._member import Best, Member
from sknas.trainers._network import Checkpoint
from sknas.trainers._skorch import Single
from sknas.trainers._unit import Batched

HEADER, LOCK = "search.json", "lock"
RECORDS = {cls.__name__: cls for cls in (Batched, Best, Checkpoint, Member, Single)}
DATA, JOINT = ("X", "y", "sample_weight", "groups"), "rows"
# Parameters on which the trials of a search do not depend, and those told otherwise.
APART = ("checkpoint", "cv", "n_jobs", "verbose", "warm_start")
LIBRARIES = (  # their classes are told by name
    *("abc", "builtins", "collections", "functools", "joblib", "numpy", "operator"),
    *("pandas", "scipy", "sklearn", "sknas", "skorch", "torch", "typing"),
)
SETTINGS = (str, int, float, tuple, list, dict)  # attributes of a class that tell
_warned: set[tuple[str, ...]] = set()  # of what, in this process


def open_journal(
    stack: ExitStack, owner: str, folder: Any, parts: Mapping[str, str]
) -> Journal:
    """The journal of a search, in a subfolder named after what it depends on.

    Parameters
    ----------
    stack : ExitStack
        Frees the search for other processes in the end.
    owner : str
        Name of the estimator, for messages.
    folder : str, Path or None
        Where searches are kept; None keeps nothing.
    parts : mapping of str to str
        All that a search depends on, as text: the name of the subfolder is a digest.

    Raises
    ------
    CheckpointError
        If a living process uses the same search, or what it wrote is damaged.
    """
    if folder is None:
        return NoJournal()
    name = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    own = Path(folder) / name
    try:
        own.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # no name of a folder has a zero byte
        allowed = "a folder that can be made and written to"
        reject(owner, "checkpoint", str(folder), allowed, str(error))
    # The system frees the lock of a process that has ended, however it did.
    lock = FileLock(own / LOCK)
    try:
        stack.enter_context(lock.acquire(timeout=0))
    except Timeout:
        raise CheckpointError(
            f"The search in {str(own)!r} is under way in another process; wait for "
            f"its end, or give {owner} another 'checkpoint'."
        ) from None
    if not (own / HEADER).exists():
        _warn_of_others(Path(folder), own, parts)
        _write_header(own, parts)
    return FileJournal(own, RECORDS)


def _write_header(own: Path, parts: Mapping[str, str]) -> None:
    part = own / f"{HEADER}.part"
    part.write_text(json.dumps(dict(parts), indent=1), encoding="utf-8")
    os.replace(part, own / HEADER)


def _warn_of_others(folder: Path, own: Path, parts: Mapping[str, str]) -> None:
    """Say once in what the searches that are there differ from a new one."""
    paths = [path for path in sorted(folder.glob(f"*/{HEADER}")) if path.parent != own]
    headers = [_read_header(path) for path in paths]
    found = [header for header in headers if header is not None]
    if not found:
        return
    nearest = min((differences(parts, other) for other in found), key=len)
    told = (str(folder), *nearest)
    # One that goes on from another differs in that alone, as it should.
    if told in _warned or nearest == ["begun_from"]:
        return
    _warned.add(told)
    warn_user(
        f"checkpoint={str(folder)!r} holds no search of this data with these "
        f"parameters, so a new one is begun; of the {len(found)} there, the nearest "
        f"differs in {', '.join(nearest)}."
    )


def _read_header(path: Path) -> dict[str, str] | None:
    """What a search depends on; None, with a warning, where that is not told."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if {*DATA, "versions"} <= dict(told).keys():
            return dict(told)
        reason = "it does not tell of the data of a search"
    except (OSError, *FOREIGN) as error:
        reason = f"{type(error).__name__}: {error}"
    if (str(path),) not in _warned:
        _warned.add((str(path),))
        warn_user(
            f"The file {str(path)!r} of a checkpoint is passed over, since it is "
            f"damaged or sknas did not write it ({reason}); nothing is deleted."
        )
    return None


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
        "versions": f"sknas {version('sknas')}, torch {torch.__version__}",
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


def _told(owner: str, name: str, value: Any) -> str:
    """A parameter as text, or an error where it can't be told from others."""
    try:
        return _text(value)
    except (AttributeError, TypeError, PicklingError, RecursionError) as error:
        allowed = "an object that can be pickled, with a 'checkpoint' or 'warm_start'"
        reject(owner, name, value, allowed, str(error))


def _text(value: Any) -> str:
    """A parameter as text that is the same in another process."""
    if isinstance(value, BaseEstimator):
        told = value.get_params(deep=False).items()
        inside = ", ".join(f"{name}={_text(part)}" for name, part in told)
        return f"{_class(type(value))}({inside})"
    if isinstance(value, ModuleType):  # numpy.random, its global state
        return value.__name__
    if isinstance(value, np.random.RandomState):
        return f"RandomState {joblib.hash(value)}"
    if isinstance(value, np.ndarray):
        is_object = value.dtype.hasobject  # its bytes are places in memory
        return f"array {_text(value.tolist()) if is_object else _digest([value])}"
    if isinstance(value, Mapping):
        return str({str(key): _text(part) for key, part in value.items()})
    if isinstance(value, list | tuple):
        return str([_text(part) for part in value])
    if isinstance(value, partial):
        return f"partial {[_text(p) for p in (value.func, value.args, value.keywords)]}"
    if isinstance(value, FunctionType):
        held = [_code(cell.cell_contents) for cell in value.__closure__ or ()]
        usual = _text([value.__defaults__, value.__kwdefaults__])
        return f"{_name(value)} {_code(value)} {usual} {held}"
    if isinstance(value, MethodType):
        return f"{_text(value.__func__)} of {_text(value.__self__)}"
    if isinstance(value, type | BuiltinFunctionType | np.ufunc):
        return _name(value)
    is_own = _class(type(value)) != _name(type(value))
    if hasattr(value, "__dict__") and (is_own or callable(value)):
        return f"{_class(type(value))} {_text(vars(value))}"
    if isinstance(value, str | int | float | None):
        return repr(value)
    # Such as a splitter of scikit-learn, whose settings its attributes tell.
    return f"{type(value).__qualname__} {joblib.hash(value)}"


def _name(value: Any) -> str:
    name = getattr(value, "__qualname__", getattr(value, "__name__", ""))
    return f"{getattr(value, '__module__', '')}.{name}"


def _class(cls: type) -> str:
    """A class by its name, and one that the user wrote by what it does, too."""
    own = [c for c in cls.__mro__ if c.__module__.partition(".")[0] not in LIBRARIES]
    written = []
    for name, part in ((name, vars(c)[name]) for c in own for name in sorted(vars(c))):
        part = getattr(part, "fget", None) or getattr(part, "__func__", part)
        if isinstance(part, FunctionType):
            written.append(f"{name} {_code(part)}")
        elif isinstance(part, SETTINGS) and not name.startswith("_"):
            written.append(f"{name} {_text(part)}")
    return f"{_name(cls)} {written}" if written else _name(cls)


def _code(value: Any) -> str:
    """What a function does, or a constant in it; functions in it by what they do."""
    code = value.__code__ if isinstance(value, FunctionType) else value
    if not isinstance(code, CodeType):
        parts = sorted(map(repr, code)) if isinstance(code, frozenset) else code
        return _text(parts)
    constants = [_code(constant) for constant in code.co_consts]
    return str(joblib.hash((code.co_code, code.co_names, constants)))
