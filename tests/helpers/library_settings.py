"""Settings of libraries that a caller may have changed, and what they are now."""

import gc
import locale
import random
import sys
import warnings
from contextlib import contextmanager

import joblib
import numpy as np
import pandas as pd
import sklearn
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

ITEMS = torch.backends


@contextmanager
def setting(set_value, value, before):
    """Set a value, and the one before at the end."""
    set_value(value)
    try:
        yield
    finally:
        set_value(before)


def attribute(part, name, value):
    before = getattr(part, name)
    return setting(lambda v: setattr(part, name, v), value, before)


class FunctionMode(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


class DispatchMode(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


@contextmanager
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@contextmanager
def pandas_option(name, value):
    """Set an option, which other versions of pandas may not have or may deprecate."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            context = pd.option_context(name, value)
            context.__enter__()
        except (KeyError, ValueError):
            yield
            return
    try:
        yield
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            context.__exit__(None, None, None)


def fail(*arguments):
    raise FloatingPointError(arguments)


@contextmanager
def disagreeing_precisions():
    """Set the precision of products in both ways that torch has."""
    torch.set_float32_matmul_precision("medium")
    with attribute(ITEMS.cuda.matmul, "fp32_precision", "ieee"):
        yield
    torch.set_float32_matmul_precision("highest")


def product_precision():
    """Return the precision of products; torch refuses if two ways disagree."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError as error:
        return str(error)


def sklearn_config(**options):
    return lambda: sklearn.config_context(**options)


def allow_tf32(value):
    ITEMS.cuda.matmul.allow_tf32 = value


# Contexts by name. Each changes what an unguarded call of a library does.
EFFECTIVE = {
    "pandas output": sklearn_config(transform_output="pandas"),
    "polars output": sklearn_config(transform_output="polars"),
    "metadata routing": sklearn_config(enable_metadata_routing=True),
    "assume finite": sklearn_config(assume_finite=True),
    "working memory": sklearn_config(working_memory=1),
    "no parameter validation": sklearn_config(skip_parameter_validation=True),
    "display": sklearn_config(display="text", print_changed_only=False),
    "numpy raises": lambda: np.errstate(all="raise"),
    "numpy calls": lambda: np.errstate(all="call", call=fail),
    "numpy prints": lambda: np.printoptions(precision=1, threshold=2, legacy="1.13"),
    "device meta": lambda: setting(torch.set_default_device, "meta", None),
    "device cpu": lambda: setting(torch.set_default_device, "cpu", None),
    "within device meta": lambda: torch.device("meta"),
    "double": lambda: setting(torch.set_default_dtype, torch.float64, torch.float32),
    "half": lambda: setting(torch.set_default_dtype, torch.bfloat16, torch.float32),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast, no cache": lambda: torch.autocast(
        "cpu", torch.bfloat16, cache_enabled=False
    ),
    "no gradients": torch.no_grad,
    "inference": torch.inference_mode,
    "medium precision": lambda: setting(
        torch.set_float32_matmul_precision, "medium", "highest"
    ),
    "bf16 products": lambda: attribute(ITEMS.mkldnn.matmul, "fp32_precision", "bf16"),
    # Not read before: torch refuses that if it was set in a newer way, too.
    "tf32 on GPUs": lambda: setting(allow_tf32, True, False),
    "disagreeing precisions": disagreeing_precisions,
    "tf32 everywhere": lambda: attribute(ITEMS, "fp32_precision", "tf32"),
    # torch.use_deterministic_algorithms does the same, and imports the compiler.
    "deterministic": lambda: setting(
        torch.set_deterministic_debug_mode, "error", "default"
    ),
    "warn of nondeterminism": lambda: setting(
        torch.set_deterministic_debug_mode, "warn", "default"
    ),
    "no denormals": lambda: setting(torch.set_flush_denormal, True, False),
    "anomalies": lambda: torch.autograd.set_detect_anomaly(True),
    "two threads": lambda: setting(torch.set_num_threads, 2, torch.get_num_threads()),
    "no oneDNN": lambda: attribute(ITEMS.mkldnn, "enabled", False),
    "no opt_einsum": lambda: attribute(ITEMS.opt_einsum, "enabled", False),
    "cuDNN benchmark": lambda: attribute(ITEMS.cudnn, "benchmark", True),
    "warnings": warnings_are_errors,
}
# These are believed to change nothing.
HARMLESS = {
    "function mode": FunctionMode,
    "dispatch mode": DispatchMode,
    "copy on write": lambda: pandas_option("mode.copy_on_write", True),
    "warn of copies": lambda: pandas_option("mode.copy_on_write", "warn"),
    "infer strings": lambda: pandas_option("future.infer_string", True),
    "infinity is missing": lambda: pandas_option("mode.use_inf_as_na", True),
    "chained assignment": lambda: pandas_option("mode.chained_assignment", "raise"),
    "strings of Arrow": lambda: pandas_option("mode.string_storage", "pyarrow"),
    "strings of Python": lambda: pandas_option("mode.string_storage", "python"),
    "no bottleneck": lambda: pandas_option("compute.use_bottleneck", False),
    "parameters replaced": lambda: setting(
        torch.__future__.set_overwrite_module_params_on_conversion, True, False
    ),
    "parameters swapped": lambda: setting(
        torch.__future__.set_swap_module_params_on_conversion, True, False
    ),
    "all warnings of torch": lambda: setting(torch.set_warn_always, True, False),
    "short buffers": lambda: setting(np.setbufsize, 16, np.getbufsize()),
    "short integers": lambda: setting(sys.set_int_max_str_digits, 640, 4300),
    "short frames": lambda: pandas_option("display.max_rows", 1),
    "joblib threads": lambda: joblib.parallel_config(backend="threading", n_jobs=2),
    "joblib processes": lambda: joblib.parallel_config(backend="multiprocessing"),
    "seeds": lambda: setting(lambda seed: (random.seed(seed), seed_numpy(seed)), 7, 8),
    "switches": lambda: setting(sys.setswitchinterval, 1e-4, sys.getswitchinterval()),
    "recursion": lambda: setting(
        sys.setrecursionlimit, 10_000, sys.getrecursionlimit()
    ),
    "no collector": lambda: setting(
        lambda is_on: gc.enable() if is_on else gc.disable(), False, gc.isenabled()
    ),
    "locale": lambda: setting(
        lambda name: locale.setlocale(locale.LC_ALL, name),
        "C",
        locale.setlocale(locale.LC_ALL),
    ),
}
SETTINGS = EFFECTIVE | HARMLESS


def seed_numpy(seed):
    np.random.seed(seed)  # noqa: NPY002


def state():
    """Return the settings of all libraries."""
    precisions = [
        ITEMS.mkldnn.matmul,
        ITEMS.mkldnn.conv,
        ITEMS.cuda.matmul,
        ITEMS.cudnn.conv,
    ]
    return {
        "sklearn": sklearn.get_config(),
        "numpy errors": (np.geterr(), np.geterrcall()),
        "numpy prints": np.get_printoptions(),
        "device": torch.empty(0).device,
        "dtype": torch.get_default_dtype(),
        "autocast": (
            torch.is_autocast_enabled("cpu"),
            torch.get_autocast_dtype("cpu"),
            torch.is_autocast_cache_enabled(),
            torch.autocast_increment_nesting(),
            torch.autocast_decrement_nesting(),
        ),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "precisions": [part.fp32_precision for part in precisions],
        "products": product_precision(),
        "deterministic": torch.get_deterministic_debug_mode(),
        "anomalies": (
            torch.is_anomaly_enabled(),
            torch.is_anomaly_check_nan_enabled(),
        ),
        "flags": (
            ITEMS.mkldnn.enabled,
            ITEMS.opt_einsum.enabled,
            ITEMS.cudnn.enabled,
            ITEMS.cudnn.benchmark,
            ITEMS.cudnn.deterministic,
        ),
        "denormals": sys.float_info.min / 2,
        "threads": torch.get_num_threads(),
        "random": (random.getstate(), str(np.random.get_state())),  # noqa: NPY002
        "torch random": torch.get_rng_state().tolist(),
        "filters": list(warnings.filters),
        "collector": gc.isenabled(),
        "recursion": sys.getrecursionlimit(),
    }
