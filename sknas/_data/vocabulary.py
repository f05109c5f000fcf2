"""The categories of a column, which are recognised in any dtype."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from numbers import Integral, Number
from typing import Any

import numpy as np
import pandas as pd

from sknas._data.time_values import date_text, is_date
from sknas._validation import as_float

UNSEEN = -1  # code of a value that was not in the training rows
PRUNED = -2  # code of a value that was, but too rarely to count

NUMBER_STARTS = {*"-0123456789TFi"}  # of numbers, flags and infinity as text

Key = int | float | str  # a category: numbers and flags as numbers, others as text


class Vocabulary:
    """The categories that a column has in the training rows.

    Numbers and flags are the same category if they are equal, such as 1, 1.0 and True;
    if no category is equal, then in single precision. Texts are the same if all
    characters are. A text and a number are the same if the text is what `str` makes of
    the number or of a flag: "1", "1.0" and "True" are 1, "01" is not. Among texts, "1"
    and "1.0" are two categories, unless the column also holds the number.

    Attributes
    ----------
    codes_ : dict of (int, float or str) to int
        Code of each category, in the order of their texts.
    is_half_ : bool
        True if numbers have half precision.
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
        words = {key for key in keys if isinstance(key, str)}
        if numbers:  # the text of a number is the same category
            words = {word for word in words if read_number(word) not in numbers}
        self.codes_ = {key: i for i, key in enumerate(sorted(words | numbers, key=str))}
        self.has_numbers_ = not keys or any(map(_is_number, keys))
        self.is_half_ = _is_half(column)
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
            If a value is a text where `fit` saw flags alone, a number where it saw
            text alone that is no number, or if all are dates and `fit` saw none.
        """
        values, indices = _factorize(column)
        if values and not self.has_dates_ and all(map(is_date, values)):
            raise ValueError(f"holds dates such as {values[0]}, but none in fit")
        keys = [_key(value) for value in values]
        self._check_kind(keys)
        codes = np.array([self.codes_.get(k, UNSEEN) for k in keys] + [len(self)])
        others = np.flatnonzero(codes == UNSEEN)
        if len(others):
            forms = [_forms(values[i], keys[i]) for i in others]
            codes[others] = self._find_others(forms, self.is_half_ or _is_half(column))
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

    def has_words_like(self, pattern: re.Pattern[str]) -> bool:
        """Return True if a pattern matches most categories as a whole."""
        words = [key for key in self.codes_ if isinstance(key, str)]
        n_found = sum(pattern.fullmatch(word) is not None for word in words)
        return 2 * n_found > len(self) and not self.has_dates_

    def _find_others(self, forms: Sequence[list[Key]], is_half: bool) -> np.ndarray:
        """Return codes of values that may be a category in one of several forms."""
        codes = np.where(self._is_pruned(forms), PRUNED, UNSEEN)
        dtypes = (np.float32, np.float16) if is_half else (np.float32,)
        rounded = [(dtype, self._rounded(dtype)) for dtype in dtypes]
        for i, keys in enumerate(forms):
            found = [self.codes_[key] for key in keys if key in self.codes_]
            for dtype, known in rounded:
                floats = [key for key in keys if isinstance(key, float)]
                found += [known[r] for r in _round(floats, dtype) if r in known]
            codes[i] = next(iter(found), codes[i])
        return codes

    def _rounded(self, dtype: type) -> dict[float, int]:
        """Return the codes of rounded numbers, without numbers that become equal.

        A value may have been rounded on its way: 0.1 is 0.10000000149 in single
        precision.
        """
        numbers = [read_number(k) if isinstance(k, str) else k for k in self.codes_]
        codes = [code for code, number in enumerate(numbers) if number is not None]
        rounded = _round([numbers[code] for code in codes], dtype)
        n_times = Counter(rounded)
        pairs = zip(rounded, codes, strict=True)
        return {number: code for number, code in pairs if n_times[number] == 1}

    def _is_pruned(self, forms: Sequence[list[Key]]) -> np.ndarray:
        """Return a mask (len(forms),) of the values that were pruned."""
        if self._pruned is None:
            return np.ones(len(forms), dtype=bool)
        if not len(self._pruned):
            return np.zeros(len(forms), dtype=bool)
        indices = np.repeat(np.arange(len(forms)), [len(keys) for keys in forms])
        hashes = _hashes([key for keys in forms for key in keys])
        known = indices[np.isin(hashes, self._pruned)]
        return np.isin(np.arange(len(forms)), known)

    def _check_kind(self, keys: Sequence[Key]) -> None:
        """Refuse values that can't be a category, whatever it is."""
        if not self.has_words_:
            for key in keys:
                if not _is_number(key):
                    raise ValueError(f"holds text such as {key!r}, but flags in fit")
        if not self.has_numbers_:
            for key in keys:
                if not isinstance(key, str):
                    raise ValueError(f"holds numbers such as {key}, but text in fit")


def read_number(text: str) -> int | float | None:
    """Return the number or flag of which `str` makes this text, None if there is none.

    A flag is returned as a number, and a whole number as an integer.
    """
    if text[:1] not in NUMBER_STARTS:  # most words are quickly known for words
        return None
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
    if isinstance(value, str):
        return str.__str__(value)  # an enumeration of strings prints its name
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


def _forms(value: Any, key: Key) -> list[Key]:
    """Return the categories that a value may be, the likeliest first."""
    if isinstance(key, str):
        number = read_number(key)
        return [key] if number is None else [key, number]
    forms = [key, str(value), str(key)]
    if isinstance(key, int):
        if abs(key) < 2**53:  # larger ones may not be exact as floats
            forms.append(str(float(key)))
        if key in (0, 1):
            forms.append(str(bool(key)))
    return forms


def _is_half(column: pd.Series | np.ndarray) -> bool:
    return str(column.dtype) in ("float16", "halffloat[pyarrow]")


def _round(numbers: Sequence[Any], dtype: type) -> list[float]:
    with np.errstate(over="ignore"):
        return np.array([*map(as_float, numbers)]).astype(dtype).tolist()


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
