"""Checks of parameters: one sentence each, with the value and what is allowed."""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NoReturn

from sknas.exceptions import InvalidParameterError, SearchWarning

MAX_SHOWN = 200  # characters of a value in a message


def reject(
    caller_name: str, name: str, value: Any, allowed: str, advice: str = ""
) -> NoReturn:
    """Raise the error every wrong parameter ends in."""
    text = (
        f"The {name!r} parameter of {caller_name} must be {allowed}, got {brief(value)}"
    )
    text += f"; {advice}" if advice else ""
    raise InvalidParameterError(text if text.endswith("?") else f"{text}.")


def brief(value: Any) -> str:
    """The repr of a value on one line, shortened where it is long."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # the user's own may fail
        text = f"an object of {type(value).__name__}"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]} ..."


def did_you_mean(value: Any, known: Iterable[str]) -> str:
    """The nearest known word as a question, or an empty string."""
    near = difflib.get_close_matches(str(value), list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else ""


def is_word(value: Any, word: str) -> bool:
    """Whether a value of any type, such as an array, is a certain word."""
    return isinstance(value, str) and value == word


def check_word(caller_name: str, name: str, value: Any, known: Iterable[str]) -> str:
    """A word out of `known`."""
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
    """An integer from `low` to `high` (None too where `optional`)."""
    if value is None and optional:
        return None
    is_integer = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_integer or value < low or (high is not None and value > high):
        upto = "" if high is None else f" and <= {high}"
        reject(
            caller_name, name, value, f"an int >= {low}{upto}" + " or None" * optional
        )
    return int(value)


def check_positive(
    caller_name: str, name: str, value: Any, *, optional: bool = False
) -> float | None:
    """A finite number above zero (None too where `optional`)."""
    if value is None and optional:
        return None
    if isinstance(value, bool) or not 0 < as_float(value) < float("inf"):
        reject(caller_name, name, value, "a finite number > 0" + " or None" * optional)
    return float(value)


def as_float(value: Any) -> float:
    """A real number as a float, infinite if it is too large, NaN if it is none."""
    try:
        return float(value) if isinstance(value, Real) else float("nan")
    except OverflowError:
        return float("inf")


def warn_user(message: str) -> None:
    """Warn of something about a search, at the line outside sknas that began it."""
    inside = str(Path(__file__).parent)
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(inside):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, SearchWarning, stacklevel=level)
