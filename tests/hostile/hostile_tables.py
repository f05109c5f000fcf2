"""Cases with tables: columns, containers, targets, weights, and rows to predict."""

import numpy as np
import pandas as pd
from hostile_cases import TINY, Case
from hostile_columns import BY_LUCK, FINE, GAPS, MAKERS, NUMBERS, ODD, WORDY
from hostile_dates import DATES, in_other_containers
from hostile_targets import (
    CLASSES_FINE,
    CLASSES_ODD,
    GROUPS_ODD,
    VALUES_FINE,
    VALUES_ODD,
    WEIGHTS_FINE,
    WEIGHTS_ODD,
)

from sknas import NASClassifier, NASRegressor

ROWS = (1, 2, 3, 4, 5, 8, 12, 20, 30, 40, 60, 100, 300)
OFTEN = np.array([1, 2, 2, 2, 2, 3, 5, 6, 6, 6, 4, 3, 0.5])
COLUMNS = (1, 2, 3, 4, 6, 10, 40, 300, 3_000)
USUAL = np.array([4, 4, 5, 5, 4, 3, 1, 0.1, 0.04])
NAMES = (
    *("", " ", "a", "é", "e\u0301", "日本", "\U0001f600", "x.y", "a\nb", "a\x00b"),
    *("x" * 3_000, "{", "%s", "__init__", "0", "nan", "None", "'", '"', "\\"),
)
PLAIN = ("int64", "float64", "float32", "NaN", "bool", "int8")


def table_case(seed):
    """Return a case with a table, most of them valid."""
    rng = np.random.default_rng(seed)
    case = Case(seed, None, None, None)
    is_classifier = rng.random() < 0.5
    n = int(rng.choice(ROWS, p=OFTEN / OFTEN.sum()))
    case.notes.append(f"{n} rows")
    frame = _frame(rng, n + 6, case)
    case.may_fail |= n < 4  # too few rows for folds, or one class
    head, tail = frame.iloc[:n], frame.iloc[n:]
    wrap, is_shown = _container(rng, frame, case)
    case.X = wrap(head)
    case.new = [(case.X, False), *_new_rows(rng, tail, wrap, is_shown, case)]
    case.y = _target(rng, n, is_classifier, case)
    case.fit = {
        "sample_weight": _drawn(rng, n, case, "weight", WEIGHTS_FINE, WEIGHTS_ODD, 0.1)
    }
    if rng.random() < 0.1:
        name, case.may_fail = str(rng.choice(list(GROUPS_ODD))), True
        case.notes.append(f"groups: {name}")
        case.fit["groups"] = GROUPS_ODD[name](rng, n)
    cls = NASClassifier if is_classifier else NASRegressor
    case.estimator = cls(search_space="table", **{**TINY, **_settings(rng, case)})
    return case


def _settings(rng, case):
    """Draw parameters that change how a table is read and scored."""
    options = {
        "cv": [2, "auto"][rng.integers(2)],
        "max_trials": int(rng.integers(1, 4)),
    }
    case.may_fail |= (
        options["cv"] == 2
    )  # the largest class may have fewer rows than folds
    if rng.random() < 0.1:
        options["trainer"] = "skorch"
    if rng.random() < 0.1:
        options["ensemble_size"] = 1
    if rng.random() < 0.1:
        options["categorical_features"] = [None, [0]][rng.integers(2)]
        case.may_fail = True  # strings are not numbers
        case.new = [(X, True) for X, _ in case.new]
    case.notes.append(str(options))
    return options


def _drawn(rng, n, case, what, fine, odd, share):
    is_odd = rng.random() < share
    name = str(rng.choice(list(odd if is_odd else fine)))
    case.may_fail |= is_odd
    case.notes.append(f"{what}: {name}")
    return {**fine, **odd}[name](rng, n)


def _target(rng, n, is_classifier, case):
    kinds = (CLASSES_FINE, CLASSES_ODD) if is_classifier else (VALUES_FINE, VALUES_ODD)
    return _drawn(rng, n, case, "y", *kinds, 0.15)


def _frame(rng, n, case):
    """Make columns of a few kinds, repeated in wide tables."""
    width = int(rng.choice(COLUMNS, p=USUAL / USUAL.sum()))
    kinds = [*FINE, *rng.choice(list(DATES), 6)]
    kinds = kinds if rng.random() < 0.8 else [*kinds, *list(ODD) * 3]
    kinds = PLAIN if rng.random() < 0.2 or width > 100 else kinds
    chosen = [str(kind) for kind in rng.choice(kinds, min(width, 8))]
    case.may_fail |= any(kind in ODD for kind in chosen)
    made = [MAKERS[kind](rng, n) for kind in chosen]
    columns = [made[position % len(made)] for position in range(width)]
    case.notes.append(f"{width} columns: {', '.join(chosen)}")
    frame = pd.concat(columns, axis=1)
    # `_replaced` finds the kind of a column in its name.
    frame.columns = [f"{p}: {chosen[p % len(chosen)]}" for p in range(width)]
    return frame


def _container(rng, frame, case):
    """Return a function that makes the container of rows, and whether dtypes remain."""
    is_numeric = all(
        isinstance(dtype, np.dtype) and dtype.kind in "fiub" for dtype in frame.dtypes
    )
    known = {**FRAMES, **(ARRAYS if is_numeric else OBJECTS)}
    name = str(rng.choice(list(known)))
    case.notes.append(name)
    case.may_fail |= name in MAY_FAIL
    return known[name](rng, frame), name in FRAMES


def _frames(change):
    return lambda rng, frame: lambda part: change(part.copy())


def _named(name):
    """Name columns by a function of their number."""

    def rename(part):
        named = part.copy()
        names = [name(position) for position in range(part.shape[1])]
        is_pair = bool(names) and isinstance(names[0], tuple)
        # dtype object: pandas can't make strings of all these names.
        index = pd.MultiIndex.from_tuples if is_pair else pd.Index
        named.columns = index(names, **({} if is_pair else {"dtype": object}))
        return named

    return _frames(rename)


def _odd_name(position):
    return (
        NAMES[position]
        if position < len(NAMES)
        else f"{NAMES[position % 10]}{position}"
    )


def _array(change, dtype=None):
    return lambda rng, frame: lambda part: change(np.array(part.to_numpy(dtype)))


def _read_only(array):
    array.flags.writeable = False
    return array


def _half(array):
    with np.errstate(over="ignore"):
        return array if array.dtype == object else array.astype(np.float16)


def _strided(array):
    return np.repeat(array, 2, axis=1)[:, ::2]


def _indexed(index):
    return lambda rng, frame: lambda part: part.set_axis(index(len(part)), axis=0)


FRAMES = {
    "frame": _frames(lambda part: part),
    "frame of one block": _frames(lambda part: part.copy(deep=True)),
    "odd names": _named(_odd_name),
    "one name for all": _named(lambda position: "a"),
    "one name twice": _named(lambda position: f"a{max(position, 1)}"),
    "numbered": _frames(lambda part: part.set_axis(range(part.shape[1]), axis=1)),
    "names of two types": _named(lambda position: position or "a"),
    "names of two levels": _named(lambda position: ("a", position)),
    "names that are missing": _named(lambda position: None),
    "names that are dates": _named(lambda position: pd.Timestamp(position)),
    "names that are numbers": _named(lambda position: position / 2),
    "names of bytes": _named(lambda position: b"%d" % position),
    "names that cannot be printed": _named(lambda position: f"\ud800{position}"),
    "one index for all": _indexed(lambda n: [0] * n),
    "index of dates": _indexed(lambda n: pd.date_range("2020", periods=n)[::-1]),
    "index of words": _indexed(lambda n: [f"r{i}" for i in range(n)]),
    "index of two levels": _indexed(
        lambda n: pd.MultiIndex.from_arrays([np.arange(n) % 2, np.arange(n)])
    ),
}
ARRAYS = {
    "array": _array(lambda array: array),
    "Fortran": _array(np.asfortranarray),
    "read-only": _array(_read_only),
    "strided": _array(_strided),
    "backwards": _array(lambda array: array[:, ::-1]),
    "big-endian": _array(lambda array: array.astype(array.dtype.newbyteorder(">"))),
    "half": _array(_half),
    "lists": _array(np.ndarray.tolist),
    "tuple of arrays": _array(tuple),
    "list of arrays": _array(list),
    "objects": _array(lambda array: array, object),
    "memory view": _array(lambda array: memoryview(np.ascontiguousarray(array))),
    "masked": _array(
        lambda array: np.ma.masked_array(array, np.zeros_like(array, bool))
    ),
    "matrix": _array(lambda array: array.view(np.matrix)),
}
OBJECTS = {
    "objects": _array(lambda array: array, object),
    "objects, Fortran": _array(np.asfortranarray, object),
    "lists of objects": _array(np.ndarray.tolist, object),
    "tuples of objects": _array(lambda array: tuple(map(tuple, array)), object),
}
# scikit-learn refuses these containers.
MAY_FAIL = (
    *("names of two types", "names that are missing", "one name for all"),
    *("one name twice", "matrix", "memory view", "half"),
)


def _new_rows(rng, tail, wrap, is_shown, case):
    """Add rows to predict, some of them unlike the rows of fit."""
    name = str(rng.choice(list(CHANGES)))
    case.notes.append(f"predict: {name}")
    changed, may_fail = CHANGES[name](rng, tail.copy())
    # Without dtypes, the kind of a column depends on the cells that fit saw.
    by_luck = any(column.split(": ", 1)[1] in BY_LUCK for column in tail.columns)
    usual = by_luck or case.may_fail
    return [(wrap(tail), usual), (wrap(changed), may_fail or usual or not is_shown)]


def _replaced(tail, values, kinds):
    """Replace the values in the first column of certain kinds, if there is one."""
    indices = [p for p, c in enumerate(tail.columns) if c.split(": ", 1)[1] in kinds]
    if not indices:
        return tail
    parts = [tail.iloc[:, p] for p in range(tail.shape[1])]
    parts[indices[0]] = pd.Series(values(len(tail)), index=tail.index)
    changed = pd.concat(parts, axis=1)
    changed.columns = tail.columns
    return changed


def _with_values(kinds, may_fail, *values):
    def change(rng, tail):
        drawn = [values[p % len(values)] for p in rng.permutation(len(tail))]
        return _replaced(tail, lambda n: drawn, kinds), may_fail

    return change


def _whole(value, dtype, may_fail):
    def change(rng, tail):
        return pd.DataFrame(value, tail.index, tail.columns, dtype=dtype), may_fail

    return change


CHANGES = {
    "the same": lambda rng, tail: (tail, False),
    "one row": lambda rng, tail: (tail.iloc[:1], False),
    "one row many times": lambda rng, tail: (tail.iloc[[0] * 300], False),
    "no row": lambda rng, tail: (tail.iloc[:0], True),
    "unseen words": _with_values(WORDY, False, "new", "\U0001f600new", ""),
    "unseen words of any kind": _with_values(MAKERS, True, "new", b"b", (1,), 2.5),
    "gaps": _with_values(WORDY, False, *GAPS[:3]),
    "gaps in numbers": _with_values(NUMBERS, False, *GAPS[:3]),
    "all missing": _whole(np.nan, float, False),
    "all None": _whole(None, object, False),
    "all NA": _whole(pd.NA, object, False),
    "huge": _with_values(NUMBERS, False, 1.7e308, -1.7e308, 5e-324, 0.0),
    "infinite": _with_values(NUMBERS, True, np.inf, 1.0),
    "words for numbers": _with_values(NUMBERS, True, "a", "1"),
    "numbers for words": _with_values(WORDY, True, 1, 2.5, 10**30),
    "booleans": _with_values(NUMBERS, True, True, False),
    "category": lambda rng, tail: (
        _replaced(tail, lambda n: pd.Categorical(["new"] * n), WORDY),
        False,
    ),
    "dates in other containers": in_other_containers,
    "dates": _with_values(MAKERS, True, pd.Timestamp("2020"), pd.Timestamp("2021")),
    "complex": _with_values(NUMBERS, True, 1j, 2.0),
    "columns in another order": lambda rng, tail: (tail.iloc[:, ::-1], True),
    "a column less": lambda rng, tail: (tail.iloc[:, 1:], True),
    "columns twice": lambda rng, tail: (pd.concat([tail, tail], axis=1), True),
}
