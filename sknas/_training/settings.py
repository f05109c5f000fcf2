"""Settings of Python and other libraries: those of the caller have no effect inside."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self, cast

import numpy as np
import sklearn
import torch

from sknas.exceptions import SearchWarning, UnseenValuesWarning

SKLEARN = {  # some are not known to every version
    "array_api_dispatch": False,
    "assume_finite": False,
    "enable_metadata_routing": False,
    "skip_parameter_validation": False,
    "sparse_interface": "spmatrix",
    "transform_output": "default",
    "working_memory": 1024,
}
OURS = (SearchWarning, UnseenValuesWarning)
SMALLEST = sys.float_info.min  # half of it is no normal number


class DefaultSettings(AbstractContextManager):
    """Run with the default settings of libraries, and restore the caller's on exit.

    What is computed inside is the same whatever the caller has set, and the same in
    worker processes, where the caller's settings do not exist.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            enter = stack.enter_context
            enter(_shared)
            known = SKLEARN.keys() & sklearn.get_config().keys()
            enter(sklearn.config_context(**{name: SKLEARN[name] for name in known}))
            enter(np.errstate(all="warn", under="ignore"))
            enter(_no_autocast())
            enter(torch.inference_mode(False))
            enter(torch.enable_grad())
            if SMALLEST / 2 == 0 and torch.set_flush_denormal(False):
                stack.callback(torch.set_flush_denormal, True)
            if torch.empty(0).device.type != "cpu":
                enter(torch.device("cpu"))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Restore the settings of the caller for the time of a context."""
        self.__exit__()
        try:
            yield
        finally:
            self.__enter__()


@contextmanager
def _no_autocast() -> Iterator[None]:
    """Leave all contexts of `torch.autocast`.

    They cache weights in half precision until the outermost of them ends: inside of
    the caller's, a training would compute with the weights of earlier steps.
    """
    devices = [d for d in ("cpu", "cuda") if torch.is_autocast_enabled(d)]
    is_cached = torch.is_autocast_cache_enabled()
    depth = torch.autocast_increment_nesting()
    for _ in range(depth):
        torch.autocast_decrement_nesting()
    torch.clear_autocast_cache()
    torch.set_autocast_cache_enabled(True)
    for device in devices:
        torch.set_autocast_enabled(device, False)
    try:
        yield
    finally:
        for device in devices:
            torch.set_autocast_enabled(device, True)
        torch.set_autocast_cache_enabled(is_cached)
        for _ in range(depth - 1):
            torch.autocast_increment_nesting()


@dataclass(frozen=True)
class _Setting:
    """A setting of the whole process.

    Parameters
    ----------
    get : callable
        Returns the value.
    set : callable
        Sets a value.
    defaults : tuple
        The default, and other values of the same meaning.
    """

    get: Callable[[], Any]
    set: Callable[[Any], object]
    defaults: tuple[Any, ...]

    def apply(self) -> Callable[[], object] | None:
        """Set the default; return what restores the value, if that is another."""
        value = self.get()
        if value in self.defaults:
            return None
        self.set(self.defaults[0])
        return lambda: self.set(value)


def _flag(part: Any, name: str, default: bool) -> _Setting:
    """Return a flag of a backend of torch."""
    return _Setting(
        lambda: getattr(part, name),
        lambda value: setattr(part, name, value),
        (default,),
    )


def _set_precision(part: Any, value: str) -> None:
    part.fp32_precision = "none"  # that of the backend
    if part.fp32_precision != value:
        part.fp32_precision = value


def _precision(part: Any, *defaults: str) -> _Setting:
    """Return the precision of the operations of a backend of torch."""
    return _Setting(
        lambda: part.fp32_precision, lambda value: _set_precision(part, value), defaults
    )


class _ProductPrecision:
    """The precision of products of matrices, which torch keeps twice."""

    def apply(self) -> Callable[[], object] | None:
        parts = (BACKENDS.mkldnn.matmul, BACKENDS.cuda.matmul)
        values = [part.fp32_precision for part in parts]
        if all(value in ("none", "ieee") for value in values):
            return None
        common = None
        with suppress(RuntimeError):  # torch refuses if the two disagree
            common = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision("highest")
        for part in parts:
            part.fp32_precision = "ieee"

        def restore() -> None:
            if common is not None:
                torch.set_float32_matmul_precision(common)
            for part, value in zip(parts, values, strict=True):
                _set_precision(part, value)

        return restore


BACKENDS: Any = torch.backends
SHARED = (
    _Setting(torch.get_default_dtype, torch.set_default_dtype, (torch.float32,)),
    _Setting(
        torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode, (0,)
    ),
    _Setting(
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        lambda value: torch.set_anomaly_enabled(*value),
        ((False, True), (False, False)),
    ),
    _ProductPrecision(),
    _precision(BACKENDS.mkldnn.conv, "ieee", "none"),
    _precision(BACKENDS.mkldnn.rnn, "ieee", "none"),
    _precision(BACKENDS.cudnn.conv, "tf32"),
    _precision(BACKENDS.cudnn.rnn, "tf32"),
    _flag(BACKENDS.mkldnn, "enabled", True),
    _flag(BACKENDS.cudnn, "enabled", True),
    _flag(BACKENDS.cudnn, "benchmark", False),
    _flag(BACKENDS.cudnn, "deterministic", False),
)


class _SharedSettings(AbstractContextManager):
    """Settings of all threads: the first to enter changes them, the last restores them.

    Warnings of libraries are no errors inside, even if they are for the caller: a
    training must not fail because a library deprecates something.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_inside = 0
        self._stack = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._n_inside:
                with ExitStack() as stack:
                    for setting in SHARED:
                        if (restore := setting.apply()) is not None:
                            stack.callback(restore)
                    if any(action == "error" for action, *_ in warnings.filters):
                        stack.enter_context(_warnings_are_no_errors())
                    self._stack = stack.pop_all()
            self._n_inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._n_inside -= 1
            if not self._n_inside:
                self._stack.close()


_shared = _SharedSettings()


@contextmanager
def _warnings_are_no_errors() -> Iterator[None]:
    """Show warnings that the caller's filters turn into errors, except our own."""
    with warnings.catch_warnings():
        changed: list[Any] = []
        for action, message, category, *where in warnings.filters:
            if action == "error":
                ours = [cls for cls in OURS if issubclass(cls, category)]
                changed += [(action, message, cls, *where) for cls in ours]
                action = "once"
            changed.append((action, message, category, *where))
        warnings.resetwarnings()
        cast(list[Any], warnings.filters).extend(changed)
        yield
