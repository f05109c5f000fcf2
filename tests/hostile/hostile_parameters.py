"""Cases with parameters: wrong types and values, and unusual valid values."""

import fractions
import inspect
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from hostile_cases import TINY, Case
from sklearn.metrics import get_scorer_names, make_scorer
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    LeaveOneOut,
    LeavePOut,
    RepeatedKFold,
    ShuffleSplit,
    StratifiedKFold,
    TimeSeriesSplit,
)

from sknas import NASClassifier, NASRegressor
from sknas.spaces import SPACES, DictSpace, TableSpace
from sknas.strategies import STRATEGIES
from sknas.trainers import TRAINERS

N_ROWS = 24


class Unprintable:
    def __repr__(self):
        raise RuntimeError("no repr")


class NotComparable:
    """Like an array: its comparisons have no truth value."""

    def __eq__(self, other):
        return np.array([True, False])

    __hash__ = None


FOLDER = tempfile.TemporaryDirectory(
    prefix="sknas-hostile-"
)  # removed when the process ends

# Values for any parameter
ANYTHING = (
    *(None, True, False, 0, 1, -1, 2, 3, 0.0, 1.0, -0.5, 0.5, 1.5, 1e300, 1e-300),
    *(float("nan"), float("inf"), float("-inf"), 2**31, 2**64, -(2**63), 10**400, 1j),
    *("", " ", "a", "auto", "1", "é", "\U0001f600", "\ud800", "x" * 3_000, "nan", "\n"),
    *(b"", b"auto", (), [], {}, set(), (1,), [1], (1, 2), [0.5], ["a"], ("a", "b")),
    *({"a": 1}, {1: 2}, [[1, 2], [3, 4]], [None], object(), object, int, len, Ellipsis),
    *(np.int64(2), np.uint8(3), np.float32(0.5), np.float64("nan"), np.bool_(True)),
    *(np.str_("auto"), np.array(2), np.array([]), np.arange(3), np.array(["auto"])),
    *(np.zeros((2, 2)), np.array([True, False, True]), pd.NA, pd.NaT, pd.Series([1])),
    *(pd.DataFrame({"a": [1]}), fractions.Fraction(3, 2), fractions.Fraction(2)),
    *(range(2), range(0), slice(2), lambda *_: 1, lambda *_: None, NotImplemented),
    *(NotComparable(), np.datetime64("2020"), memoryview(b"a"), type("Odd", (), {})()),
)


def _raises(*_, **__):
    raise RuntimeError("mine")


def _scorer(value):
    return lambda estimator, X, y, sample_weight=None: value


def _half_values():
    return [(np.arange(0, N_ROWS, 2), np.arange(1, N_ROWS, 2))]


# Valid and nearly valid values of each parameter
NEAR = {
    "search_space": (
        *SPACES,
        "tables",
        *(
            TableSpace(depth=(0, 0)),
            TableSpace(width=(1,)),
            TableSpace(batch_size=(1,)),
        ),
        *(DictSpace({"a": [1]}), DictSpace({"a": (0, 5)}), TableSpace(packing=(2, 3))),
        *(TableSpace(depth=(32, 32), width=(2,)), TableSpace(dropout=(0.95,))),
    ),
    "strategy": (*STRATEGIES, *(cls() for cls in STRATEGIES.values())),
    "trainer": (*TRAINERS, *(cls() for cls in TRAINERS.values())),
    "max_trials": (1, 2, 5, np.int8(2)),
    "max_time": (1e-300, 1e-9, 0.01, 0.5, 1, np.float32(0.5), fractions.Fraction(1, 2)),
    "max_epochs": (1, 2, 10**18, np.int64(2)),
    "cv": (
        *(2, 3, N_ROWS, N_ROWS + 1, np.int64(2), 10**9, KFold(2), KFold(N_ROWS + 1)),
        *(StratifiedKFold(2), ShuffleSplit(1, random_state=0), TimeSeriesSplit(2)),
        *(
            LeaveOneOut(),
            GroupKFold(2),
            _half_values(),
            iter(_half_values()),
            _half_values() * 3,
        ),
        *(RepeatedKFold(n_splits=2, n_repeats=2), LeavePOut(N_ROWS - 1)),
        *([(np.arange(24), np.arange(24))], [([], [0])], [([0], [])], [([0], [1])]),
        *([([0, 0, 1], [2, 2, 3])], [([-1, -2], [-3])], [([0.0, 1.0], [2.0])]),
        *([(["a"], ["b"])], [([True] * 24, [True] * 24)], [([True] * 3, [False])]),
        *([([[0, 1]], [[2]])], [(0, 1)], [(slice(3), slice(3, 6))], [([0], [99])]),
        *([([0, 1], [2, 3], [4])], [([0, 1],)], [None], ["ab"], {0: 1}, "23"),
        *([(pd.Series([0, 1]), pd.Index([2, 3]))], [(range(12), range(12, 24))]),
        *([([0, 1], [2, None])], [(np.array([0, 2**40]), [1])], [([np.nan], [1])]),
    ),
    "scoring": (
        *get_scorer_names(),
        *(_raises, _scorer(float("nan")), _scorer(float("inf")), _scorer("a")),
        *(_scorer(None), _scorer(np.zeros(2)), _scorer(1), _scorer(10**400), len),
        *(_scorer(1j), _scorer({"a": 1}), _scorer(-1e308), _scorer(np.float32(1))),
        *(_scorer(pd.NA), lambda: 1, lambda estimator: 1, make_scorer(_raises)),
        make_scorer(lambda y, p: np.mean(y == p)),
        make_scorer(lambda y, p: 1.0, response_method="predict_proba"),
        make_scorer(lambda y, p: 1.0, response_method="decision_function"),
    ),
    "ensemble_size": (1, 2, 10**18, np.int64(3)),
    "categorical_features": (
        *("from_dtype", [0], [0, 0], [3], [4], [-1], ["a"], ["z"], [0, "a"], [0.0]),
        *([True, False, True, False], [True], np.array([0, 1]), {"a"}, {"a": 1}),
        *(np.array([True, False, True, False]), pd.Index(["a"]), "a", (g for g in [0])),
        *([None], [np.nan], [[0]], [pd.NA], range(4), ["a", "b", "d"], np.array("a")),
        *(np.zeros((4, 1), bool), pd.Series([True, False, False, False]), [10**400]),
    ),
    "image_shape": ((2, 2), (1, 4), (4, 1, 1), (2, 2, 1), (0, 4), (-1, -4), [4, 1]),
    "channel_axis": (1, 3, -1, 2, np.int64(1)),
    "class_weight": (
        *("balanced", {0: 1, 1: 2}, {0: 1}, {0: 0, 1: 1}, {0: 0, 1: 0}, {0: 1e300}),
        *({0: 1e-300, 1: 1e300}, {0: 5e-324, 1: 5e-324}, {0: -1}, {0: None}, {"0": 1}),
        *({0: np.inf}, {0: np.float32(2)}, {0: True}, {0: "1"}, {0: 10**400}, {2: 1}),
        *({0: fractions.Fraction(1, 3)}, {0.0: 2.0}, {False: 2.0}, {None: 1}, {0: 1j}),
        *({0: np.array([1, 2])}, {0: pd.NA}, {(1, 2): 1}, {0: 1.7e308, 1: 1.7e308}),
        *(pd.Series({0: 1.0, 1: 2.0}), {np.nan: 1}),
    ),
    "constraints": (
        *({"n_params": 1}, {"n_params": 10**9}, {"n_params": 1e-300}),
        *(
            {"latency": 100},
            {},
            {"n_params": "1"},
            {"n_params": None},
            {1: 1},
            {"a": 1},
        ),
        *(lambda a: True, lambda a: False, lambda a: None, lambda a: "a", _raises),
        *(lambda: True, lambda a: np.array([True, False]), lambda a: np.bool_(True)),
        *({"n_params": np.nan}, {"n_params": np.int64(500)}, {"n_params": 10**400}),
        *(lambda a: pd.NA, {"n_params": [1]}, {None: 1}),
    ),
    "device": ("cpu", "cpu:0", "cuda:99", "meta", "CPU", "mps", "xla"),
    "n_jobs": (1, -1, -2, -99, np.int64(1)),
    "random_state": (0, 2**32 - 1, 2**32, np.random.RandomState(0), np.random, [1, 2]),
    "checkpoint": (
        *(3, True, b"folder", ["a"], FOLDER.name, Path(FOLDER.name), "/dev/null/a"),
        *(f"{FOLDER.name}/{odd}" for odd in ("a\0b", "x" * 300, "\ud800", "é", "*")),
    ),
    "warm_start": (True, 1, "yes"),
    "verbose": (0, False),
}
PARTS = {
    "strategy": tuple(STRATEGIES.values()),
    "trainer": tuple(TRAINERS.values()),
    "search_space": (TableSpace,),
}
# Valid, but too slow for a test
TOO_LONG = {
    "max_trials": lambda value: value is None or value > 5,
    "max_time": lambda value: value > 5,
    "n_jobs": lambda value: value != 1,
    "verbose": bool,
}


def parameter_case(seed):
    """Return a case with a small table and one or two unusual parameters."""
    rng = np.random.default_rng(seed)
    is_classifier = rng.random() < 0.5
    cls = NASClassifier if is_classifier else NASRegressor
    names = list(inspect.signature(cls).parameters)
    options, notes = dict(TINY), []
    for name in rng.choice(names, 2 if rng.random() < 0.3 else 1, replace=False):
        value = _value(rng, str(name), notes)
        if not _is_too_long(str(name), value):
            options[str(name)] = value
    if rng.random() < 0.1:
        options.setdefault("checkpoint", FOLDER.name)
        notes.append("a checkpoint")
    if options["max_trials"] is None:
        options["max_time"] = 0.3
    X = pd.DataFrame(rng.normal(size=(N_ROWS, 4)), columns=list("abcd"))
    X["d"] = X["d"] > 0
    y = np.arange(N_ROWS) % 2 if is_classifier else rng.normal(size=N_ROWS)
    return Case(seed, cls(**options), X, y, {}, [(X, False)], True, notes)


def _value(rng, name, notes):
    """Return a value for a parameter, or a component with an unusual parameter."""
    kind = rng.random()
    if kind < 0.35 and name in PARTS:
        cls = PARTS[name][rng.integers(len(PARTS[name]))]
        inner = list(inspect.signature(cls).parameters)
        if inner:
            index = str(rng.choice(inner))
            value = _anything(rng)
            notes.append(f"{name}={cls.__name__}({index}={shown(value)})")
            return cls(**{index: value})
    near = NEAR[name]
    is_near = kind > 0.5 or name == "checkpoint"  # any string is a folder name
    value = near[rng.integers(len(near))] if is_near else _anything(rng)
    notes.append(f"{name}={shown(value)}")
    return value


def _anything(rng):
    return ANYTHING[rng.integers(len(ANYTHING))]


def shown(value):
    return ascii(value)[:100]


def _is_too_long(name, value):
    """True if a value is valid but makes a search long."""
    try:
        return name in TOO_LONG and bool(TOO_LONG[name](value))
    except (TypeError, ValueError):
        return False
