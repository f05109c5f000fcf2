"""The categories of a column, which are recognised in any dtype."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from numbers import Integral, Number
from typing import Any

import numpy as np
import pandas as pd

from sknas._data.time_values import date_text, is_date

UNSEEN = -1  # code of a value that was not in the training rows
PRUNED = -2  # code of a value that was, but too rarely to count

Key = int | float | str  # a category: numbers and flags as numbers, others as text


class Vocabulary:
    """The categories that a column has in the training rows.

    Numbers and flags are the same category if they are equal, such as 1, 1.0 and True;
    texts are if all characters are equal. A text and a number are the same category if
    the text is what `str` makes of the number or of a flag: "1", "1.0" and "True" are
    1, "01" is not. Texts among each other stay different, such as "1" and "1.0".

    Attributes
    ----------
    codes_ : dict of (int, float or str) to int
        Code of each category, in the order of their texts.
    has_numbers_ : bool
        True if some category is a number, a flag or the text of one.
    has_words_ : bool
        False if all values are flags.
    has_dates_ : bool
        True if some value is a date, a duration or a time of day.
    """

    def fit(self, column: pd.Series | np.ndarray) -> Vocabulary:
        """Learn the categories; their order does not depend on that of the rows."""
        values, _ = _factorize(column)
        keys = {_key(value) for value in values}
        numbers = {key for key in keys if not isinstance(key, str)}
        # A text that is a number of the same column is the same category.
        words = {key for key in keys - numbers if read_number(str(key)) not in numbers}
        self.codes_ = {key: i for i, key in enumerate(sorted(words | numbers, key=str))}
        self.has_numbers_ = not keys or any(_is_number(key) for key in keys)
        is_flag = [isinstance(value, bool | np.bool_) for value in values]
        self.has_words_ = not keys or not all(is_flag)
        self.has_dates_ = not keys or any(map(is_date, values))
        self._pruned: np.ndarray | None = np.empty(0, dtype=np.uint64)
        return self

    def __len__(self) -> int:
        return len(self.codes_)

    def encode(self, column: pd.Series | np.ndarray) -> np.ndarray:
        """Return codes (N,), -1 where unseen, -2 where pruned, len(self) where missing.

        Raises
        ------
        ValueError
            If the column holds text where `fit` saw flags alone, numbers where it saw
            text alone that is no number, or dates where it saw none: no value can be
            recognised then.
        """
        values, indices = _factorize(column)
        if values and not self.has_dates_ and all(map(is_date, values)):
            raise ValueError(f"holds dates such as {values[0]}, but none in fit")
        keys = [_key(value) for value in values]
        self._check_kind(keys)
        codes = np.array([*map(self._find, keys), len(self)], dtype=np.int64)
        unknown = np.flatnonzero(codes == UNSEEN)
        if len(unknown):
            left = [keys[i] for i in unknown]
            pruned = np.where(self._is_pruned(left), PRUNED, UNSEEN)
            rounded = self._find_rounded(left)
            codes[unknown] = np.where(rounded == UNSEEN, pruned, rounded)
        return codes[indices]  # the index of a missing value is -1

    def prune(self, is_kept: np.ndarray) -> None:
        """Drop categories, and number the others anew.

        Parameters
        ----------
        is_kept : ndarray of bool of shape (len(self),)
            The categories to keep.
        """
        keys = np.array([*self.codes_, None], dtype=object)[:-1]
        kept, dropped = keys[is_kept], keys[~is_kept]
        # Eight bytes each, to tell later which values were never seen. Where no
        # category is kept, values don't matter.
        self._pruned = np.sort(_hashes(dropped)) if len(kept) else None
        self.codes_ = {key: code for code, key in enumerate(kept)}

    def _find(self, key: Key) -> int:
        found = (self.codes_[form] for form in _forms(key) if form in self.codes_)
        return next(found, UNSEEN)

    def _find_rounded(self, keys: Sequence[Key]) -> np.ndarray:
        """Return the codes (len(keys),) of numbers rounded to a shorter dtype.

        In single precision 0.1 is 0.10000000149: its text is the same, not its value.
        Either side may have been rounded.
        """
        numbers = [read_number(key) if isinstance(key, str) else key for key in keys]
        codes = np.full(len(keys), UNSEEN)
        for dtype in (np.float32, np.float16):
            widened = {_widened(key, dtype): code for key, code in self.codes_.items()}
            for i, number in enumerate(numbers):
                if isinstance(number, float) and codes[i] == UNSEEN:
                    codes[i] = widened.get(number, self._find(_widened(number, dtype)))
        return codes

    def _is_pruned(self, keys: Sequence[Key]) -> np.ndarray:
        """Return a mask (len(keys),) of the keys that were pruned."""
        if self._pruned is None:
            return np.ones(len(keys), dtype=bool)
        if not len(self._pruned):
            return np.zeros(len(keys), dtype=bool)
        forms = [_forms(key) for key in keys]
        indices = np.repeat(np.arange(len(keys)), [len(f) for f in forms])
        known = np.isin(_hashes([form for f in forms for form in f]), self._pruned)
        is_pruned: np.ndarray = np.zeros(len(keys), dtype=bool)
        is_pruned[indices[known]] = True
        return is_pruned

    def _check_kind(self, keys: Sequence[Key]) -> None:
        """Refuse values of which none can be a category, whatever it is."""
        if not self.has_words_ and keys and not any(_is_number(key) for key in keys):
            raise ValueError(f"holds text such as {keys[0]!r}, but flags in fit")
        is_text = any(isinstance(key, str) for key in keys)
        if not self.has_numbers_ and keys and not is_text:
            raise ValueError(f"holds numbers such as {keys[0]!r}, but text in fit")


def read_number(text: str) -> int | float | None:
    """Return the number or flag of which `str` makes this text, None if there is none.

    A flag is returned as a number, and a whole number as an integer.
    """
    if text in ("True", "False"):
        return int(text == "True")
    for type_ in (int, float):
        try:
            number = type_(text)
        except ValueError:
            continue
        if str(number) == text and number == number:
            return _plain(number)
    return None


def _is_number(key: Key) -> bool:
    """Return True for numbers, and for texts that `str` makes of numbers."""
    return not isinstance(key, str) or read_number(key) is not None


def _key(value: Any) -> Key:
    if is_date(value):
        return date_text(value)
    if isinstance(value, bool | np.bool_ | Integral):
        return int(value)
    if isinstance(value, Decimal) and value == value.to_integral_value():
        return int(value)  # a float may not be exact
    if isinstance(value, Number) and not isinstance(value, complex):
        return _plain(float(value))  # type: ignore[arg-type]
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value)


def _plain(number: int | float) -> int | float:
    """Return a whole number as an integer, whose text is the same for 1 and 1.0."""
    is_whole = isinstance(number, float) and number.is_integer()
    return int(number) if is_whole else number


def _forms(key: Key) -> list[Key]:
    """Return the categories that a value may be, the likeliest first."""
    if isinstance(key, str):
        number = read_number(key)
        return [key] if number is None else [key, number]
    texts = [str(key)]
    if isinstance(key, int):
        if abs(key) < 2**53:  # larger ones may not be exact as floats
            texts.append(str(float(key)))
        if key in (0, 1):
            texts.append(str(bool(key)))
    return [key, *texts]


def _widened(key: Key, dtype: type) -> float:
    """Return the double with the text of a rounded number, NaN for all others."""
    if not isinstance(key, float) or not np.isfinite(key):
        return math.nan
    with np.errstate(over="ignore"):
        rounded = dtype(key)
    return float(str(rounded)) if float(rounded) == key else math.nan


def _hashes(keys: Sequence[Key]) -> np.ndarray:
    texts = np.array([ascii(str(key)) for key in keys], dtype=object)
    return pd.util.hash_array(texts, categorize=False)


def _factorize(column: pd.Series | np.ndarray) -> tuple[list[Any], np.ndarray]:
    """Return the different values, and the index of each cell, -1 if missing."""
    # As objects: pandas can't turn every numpy string array into its own strings.
    is_plain = isinstance(column, np.ndarray) and column.dtype.kind in "OUS"
    series = pd.Series(column, dtype=object if is_plain else None)
    if isinstance(series.dtype, np.dtype) and not series.dtype.isnative:
        series = series.astype(series.dtype.newbyteorder("="))  # pandas can't read it
    with np.errstate(over="ignore"):  # too large for doubles: infinity
        try:
            indices, uniques = pd.factorize(series)
        except TypeError:  # cells can't be hashed
            indices, uniques = pd.factorize(series.map(str, na_action="ignore"))
    return list(uniques), indices
