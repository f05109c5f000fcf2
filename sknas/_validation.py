"""Checks of parameters, and their error messages.

A message is one sentence in the form of scikit-learn's own: which parameter of which
estimator, what is allowed, what was given, and what to do instead if there is advice.
"""

from __future__ import annotations

import contextlib
import difflib
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NoReturn

from sknas.exceptions import InvalidParameterError, SearchWarning

MAX_REPR_CHARS = 200  # length of a value in a message
# What replaces arguments of `fit` of other libraries, by a part of their names.
FIT_WORDS = {
    "metric": "trials are scored by the parameter 'scoring' of {}",
    "val": "give all rows as X and y, rows to validate on are chosen by 'cv' of {}",
    "epoch": "give max_epochs to {}",
    "time": "give max_time to {}",
    "categorical": "give categorical_features to {}",
    "cat_": "give categorical_features to {}",
    "": "leave it out, options of a search are parameters of {}",
}


def reject(
    caller_name: str, name: str, value: Any, allowed: str, advice: str = ""
) -> NoReturn:
    """Raise the error for a wrong value of a parameter.

    Parameters
    ----------
    caller_name : str
        Name of the estimator or function.
    name : str
        Name of the parameter.
    value : object
        Its value.
    allowed : str
        Completes "The parameter must be ...".
    advice : str, default=""
        What to do instead.

    Raises
    ------
    InvalidParameterError
        Always.
    """
    got = short_repr(value)
    text = f"The {name!r} parameter of {caller_name} must be {allowed}, got {got}"
    text += f"; {advice}" if advice else ""
    raise InvalidParameterError(text if text.endswith("?") else f"{text}.")


def reject_keyword(
    caller_name: str, keyword: str, parameters: Iterable[str]
) -> NoReturn:
    """Raise the error for an argument that `fit` does not have.

    Parameters
    ----------
    caller_name : str
        Name of the estimator.
    keyword : str
        The argument, for example of the `fit` of another library.
    parameters : iterable of str
        Parameters of the estimator.

    Raises
    ------
    InvalidParameterError
        Always.
    """
    near = difflib.get_close_matches(keyword, ("sample_weight", "groups"), n=1)
    if keyword in parameters:
        advice = f"give it to {caller_name}({keyword}=...)"
    elif near:
        advice = f"did you mean {near[0]!r}?"
    else:
        words = (part for part in FIT_WORDS if part in keyword.lower())
        advice = FIT_WORDS[next(words, "")].format(caller_name)
    text = f"{caller_name}.fit takes X, y, sample_weight and groups, got {keyword!r}"
    raise InvalidParameterError(f"{text}: {advice}" + "." * (not near))


def short_repr(value: Any) -> str:
    """Return the repr of a value on one line, shortened if it is long."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a user's `__repr__` may fail
        text = f"an object of {type(value).__name__}"
    return text if len(text) <= MAX_REPR_CHARS else f"{text[:MAX_REPR_CHARS]} ..."


def did_you_mean(value: Any, known: Iterable[str]) -> str:
    """Return "did you mean ...?" with the nearest known word, "" if none is near."""
    near = difflib.get_close_matches(str(value), list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else ""


def is_word(value: Any, word: str) -> bool:
    """Return True if a value of any type, arrays included, equals `word`."""
    return isinstance(value, str) and value == word


def check_word(caller_name: str, name: str, value: Any, known: Iterable[str]) -> str:
    """Return `value` if it is one of the `known` words."""
    known = list(known)
    if not isinstance(value, str) or value not in known:
        allowed = "one of " + ", ".join(map(repr, known))
        reject(caller_name, name, value, allowed, did_you_mean(value, known))
    return value


def check_integer(
    caller_name: str,
    name: str,
    value: Any,
    low: int,
    high: int | None = None,
    *,
    optional: bool = False,
) -> int | None:
    """Return `value` as an int from `low` to `high`, or None if that is allowed."""
    if value is None and optional:
        return None
    is_integer = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_integer or value < low or (high is not None and value > high):
        allowed = f"an int >= {low}" + ("" if high is None else f" and <= {high}")
        reject(caller_name, name, value, allowed + " or None" * optional)
    return int(value)


def check_positive(
    caller_name: str, name: str, value: Any, *, optional: bool = False
) -> float | None:
    """Return `value` as a finite float > 0, or None if that is allowed."""
    if value is None and optional:
        return None
    if isinstance(value, bool) or not 0 < as_float(value) < float("inf"):
        reject(caller_name, name, value, "a finite number > 0" + " or None" * optional)
    return float(value)


def as_float(value: Any) -> float:
    """Return a real number as a float: inf if too large, NaN if it is not a number."""
    try:
        return float(value) if isinstance(value, Real) else float("nan")
    except OverflowError:
        return float("inf")


def warn_user(message: str, category: type[UserWarning] = SearchWarning) -> None:
    """Issue a warning at the line that called sknas."""
    # Context managers of sknas are called from contextlib.
    package = (str(Path(__file__).parent), contextlib.__file__)
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(package):
        level, frame = level + 1, frame.f_back
    try:
        # A closed stream of errors can't show it, and must not end a search.
        with contextlib.suppress(AttributeError, OSError, ValueError):
            warnings.warn(message, category, stacklevel=level)
    except category as error:  # the caller's filters make it one
        if (late := _late.get()) is None:
            raise
        late.append(error)


_late: ContextVar[list[UserWarning] | None] = ContextVar("late", default=None)


@contextlib.contextmanager
def errors_after() -> Iterator[None]:
    """Raise warnings that are errors for the caller at the end, to lose no work."""
    late: list[UserWarning] = []
    token = _late.set(late)
    try:
        yield
    finally:
        _late.reset(token)
    if late:
        raise late[0]
