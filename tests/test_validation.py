"""Checks of parameters and their messages."""

import re

import numpy as np
import pytest

from sknas._validation import (
    check_integer,
    check_positive,
    check_word,
    did_you_mean,
    reject,
)
from sknas.exceptions import InvalidParameterError, SearchFailedError, SearchWarning


def refused(message):
    return pytest.raises(InvalidParameterError, match=f"^{re.escape(message)}$")


def test_errors_derive_from_the_types_scikit_learn_raises():
    assert issubclass(InvalidParameterError, ValueError)
    assert issubclass(InvalidParameterError, TypeError)
    assert issubclass(SearchFailedError, RuntimeError)
    assert issubclass(SearchWarning, UserWarning)


@pytest.mark.parametrize(
    ("advice", "end"), [("", "."), ("try 'b'", "; try 'b'."), ("'b'?", "; 'b'?")]
)
def test_a_message_ends_in_advice(advice, end):
    with refused(f"The 'x' parameter of Thing must be 'b', got 'a'{end}"):
        reject("Thing", "x", "a", "'b'", advice)


@pytest.mark.parametrize(
    ("word", "expected"), [("bayesan", "did you mean 'bayesian'?"), ("q", ""), (3, "")]
)
def test_message_suggests_the_nearest_word(word, expected):
    assert did_you_mean(word, ["random", "bayesian"]) == expected


def test_unknown_word_is_refused():
    assert check_word("Thing", "x", "b", {"a": 1, "b": 2}) == "b"
    with refused(
        "The 'x' parameter of Thing must be one of 'apple', 'pear', got 'aple'; did "
        "you mean 'apple'?"
    ):
        check_word("Thing", "x", "aple", ["apple", "pear"])
    with refused("The 'x' parameter of Thing must be one of 'apple', got None."):
        check_word("Thing", "x", None, ["apple"])


@pytest.mark.parametrize("value", [1, 7, np.int64(3)])
def test_valid_integers(value):
    checked = check_integer("Thing", "x", value, 1)
    assert checked == value and type(checked) is int


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "3", np.nan])
def test_invalid_integers_are_refused(value):
    with refused(f"The 'x' parameter of Thing must be an int >= 1, got {value!r}."):
        check_integer("Thing", "x", value, 1)


@pytest.mark.parametrize("value", [1e-9, 3, np.float32(0.5), np.int8(2)])
def test_valid_positive_numbers(value):
    checked = check_positive("Thing", "x", value)
    assert checked == value and type(checked) is float


@pytest.mark.parametrize("value", [0, -1.5, np.inf, np.nan, True, "3"])
def test_invalid_positive_numbers_are_refused(value):
    with refused(
        f"The 'x' parameter of Thing must be a finite number > 0, got {value!r}."
    ):
        check_positive("Thing", "x", value)


def test_none_is_allowed_only_if_optional():
    assert check_integer("Thing", "x", None, 1, optional=True) is None
    assert check_positive("Thing", "x", None, optional=True) is None
    with refused("The 'x' parameter of Thing must be an int >= 1, got None."):
        check_integer("Thing", "x", None, 1)
    with refused(
        "The 'x' parameter of Thing must be a finite number > 0 or None, got 0."
    ):
        check_positive("Thing", "x", 0, optional=True)
    with refused("The 'x' parameter of Thing must be an int >= 1 or None, got 0."):
        check_integer("Thing", "x", 0, 1, optional=True)
