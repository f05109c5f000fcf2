"""Words and objects of the parameters become the parts of a search, once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sklearn.base import clone
from sklearn.utils import check_random_state

from sknas._validation import check_word, reject


def _copied(name: str, part: Any) -> Any:
    try:
        return clone(part)
    except TypeError as error:
        allowed = "an object whose parameters can be copied"
        reject("search", name, part, allowed, str(error))


def find_part(
    caller_name: str, name: str, given: Any, known: Mapping[str, type], kind: type
) -> Any:
    """An object of a role, from itself or from its word.

    Raises
    ------
    InvalidParameterError
        If it is neither.
    """
    if isinstance(given, kind):
        return given
    if isinstance(given, str):
        return known[check_word(caller_name, name, given, known)]()
    words = ", ".join(map(repr, known))
    reject(caller_name, name, given, f"one of {words} or a {kind.__name__} object")


def draw_seed(random_state: Any) -> int:
    """One integer that everything random of a search derives from."""
    return int(check_random_state(random_state).randint(2**31 - 1))
