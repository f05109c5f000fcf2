"""Categories, and in which dtypes and texts they are recognised."""

import decimal
import enum
import fractions

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sknas._data.vocabulary import PRUNED, UNSEEN, Vocabulary, read_number

FLAG_DTYPES = (
    *("bool", "boolean", "bool[pyarrow]", "int8", "UInt8", "Int64", "float32"),
    *("Float64", "int64[pyarrow]", "double[pyarrow]", "category", object),
    *(str, "string", "string[pyarrow]"),
)
INTEGER_DTYPES = FLAG_DTYPES[3:]
FLOAT_DTYPES = ("float32", "float64", "Float32", "Float64", "double[pyarrow]", object)


class Color(str, enum.Enum):  # noqa: UP042 - people have such classes
    RED = "red"


def column(values, dtype=object):
    return pd.Series(values, dtype=dtype)


def codes(learnt, values):
    return Vocabulary().fit(column(learnt)).encode(column(values)).tolist()


def assert_read_alike(values, dtypes):
    columns = [column(values).astype(dtype) for dtype in dtypes]
    for learnt in columns:
        vocabulary = Vocabulary().fit(learnt)
        found = [vocabulary.encode(served).tolist() for served in columns]
        assert found == len(found) * [found[0]]
        assert len(vocabulary) == len(set(values)) == len(set(found[0]))


def test_flags_are_the_same_in_every_dtype():
    assert_read_alike([True, False, False, True], FLAG_DTYPES)


@settings(max_examples=20)
@given(st.sets(st.integers(-100, 100), min_size=2, max_size=5))
def test_integers_are_the_same_in_every_dtype(values):
    dtypes = [d for d in INTEGER_DTYPES if min(values) >= 0 or d != "UInt8"]
    assert_read_alike([*values], dtypes)


@given(st.sets(st.integers(-(10**4), 10**4), min_size=2, max_size=5))
def test_fractions_are_the_same_in_every_dtype(values):
    """Single precision rounds them, and so does what is made of it."""
    numbers = [value / 100 for value in values]
    assert_read_alike(numbers, FLOAT_DTYPES)
    rounded = np.float32(numbers).astype(np.float64)
    expected = codes(numbers, numbers)
    for learnt, served in ((numbers, rounded), (rounded, numbers)):
        assert codes(learnt, served) == expected
    assert codes(numbers, [str(number) for number in numbers]) == expected


@given(st.floats(allow_nan=False, width=32), st.floats(allow_nan=False, width=32))
def test_different_numbers_stay_different(one, other):
    is_same = one == other
    assert (codes([one, "x"], [other]) == codes([one, "x"], [one])) == is_same


@pytest.mark.parametrize("values", [[1 / 3, 2 / 3, np.pi], [0.1, -2.5, 1e-3]])
def test_rounded_numbers_are_the_same(values):
    short = {
        "float32": np.float32(values),
        "float16": np.float16(values),
        "half arrow": pd.Series(np.float16(values), dtype="halffloat[pyarrow]"),
        "doubles": np.float32(values).astype(float),
        "text": [str(value) for value in np.float32(values)],
        "words": [str(value) for value in values],
        "exact": values,
    }
    for learnt in short.values():
        vocabulary = Vocabulary().fit(pd.Series(learnt))
        expected = vocabulary.encode(pd.Series(learnt)).tolist()
        for name, served in short.items():
            is_text = all(isinstance(rows[0], str) for rows in (served, learnt))
            if not is_text:  # two texts are the same only if all characters are
                assert vocabulary.encode(pd.Series(served)).tolist() == expected, name


@given(st.text(max_size=4), st.text(max_size=4))
def test_different_texts_stay_different(one, other):
    learnt = [one, "other word"]
    assert (codes(learnt, [one]) == codes(learnt, [other])) == (one == other)
    assert len(set(codes([one, other], [one, other]))) == len({one, other})


@given(st.integers() | st.floats() | st.booleans())
def test_the_text_of_a_number_is_read_as_that_number(number):
    found = read_number(str(number))
    assert found is None if number != number else found == number


@pytest.mark.parametrize(
    "text", ["01", "1.00", " 1", "1_0", "1e3", "+1", "true", "TRUE", "nan", "٣", "1,5"]
)
def test_texts_that_str_does_not_make_are_words(text):
    assert read_number(text) is None
    assert codes([1, 10, 1000, "x"], [text]) == [UNSEEN]


@pytest.mark.parametrize(
    ("learnt", "served", "expected"),
    [
        ([3.0, 4.5], ["3.0", "3", "4.5"], [0, 0, 1]),
        (["3.0", "4.5"], [3.0, 3, 4.5], [0, 0, 1]),
        (["1", "01"], [1, "1", "01", True], [1, 1, 0, 1]),
        (["1", "1.0"], ["1", "1.0", 1.0, 1], [0, 1, 1, 1]),
        (["1", "True", "0"], [True], [2]),
        (["1", "True", "0"], [1], [1]),
        (["1"], ["1.0"], [UNSEEN]),  # two words, though both may be the number 1
        ([1, "1.0", "True"], [True], [0]),
        (["True", "no"], [True, 1, "True"], [0, 0, 0]),
        ([b"red"], ["red", b"red"], [0, 0]),
        ([decimal.Decimal("1.5"), 2], [1.5, fractions.Fraction(3, 2), "2"], [0, 0, 1]),
        ([2**60 + 1, 2**60], [str(2**60 + 1), 2**60], [1, 0]),
        ([0.5], [0.5000001], [UNSEEN]),
        ([0.1, 0.1 + 1e-12], [0.1, np.float32(0.1)], [0, UNSEEN]),  # both are near
        (["nan", "0.1"], ["0.3", 0.3], [UNSEEN, UNSEEN]),
        ([Color.RED, "blue"], ["red", Color.RED], [1, 1]),
        ([10**400, 1.5], [np.float32(1.5), 10**400], [0, 1]),
        ([float("inf"), 1], ["inf", 1], [1, 0]),
    ],
    ids=str,
)
def test_which_values_are_the_same(learnt, served, expected):
    assert codes(learnt, served) == expected


def test_cells_that_cannot_be_hashed_are_read_by_their_text():
    class Tag:
        __hash__ = None

        def __str__(self):
            return "tag"

    assert codes([Tag(), "x"], [Tag(), "tag"]) == [0, 0]


def test_pruned_categories_were_seen():
    words = [f"w{i}" for i in range(9)]
    vocabulary = Vocabulary().fit(column([*words, 7]))
    vocabulary.prune(np.arange(10) >= 8)
    served = column(["w8", "w0", "new", 7, "7", None])
    assert vocabulary.encode(served).tolist() == [1, PRUNED, UNSEEN, PRUNED, PRUNED, 2]


def test_values_of_a_column_without_categories_do_not_matter():
    vocabulary = Vocabulary().fit(column(["a", "b"]))
    vocabulary.prune(np.zeros(2, dtype=bool))
    assert vocabulary.encode(column(["a", "c"])).tolist() == [PRUNED, PRUNED]


@pytest.mark.parametrize(
    ("learnt", "served", "message"),
    [
        ([True, False], ["yes", "no"], "holds text such as 'yes', but flags in fit"),
        (["red", "blue"], [1, 2], "holds numbers such as 1, but text in fit"),
    ],
)
def test_values_of_another_kind_are_refused(learnt, served, message):
    for rows in (served, [learnt[0], served[0]]):  # no row depends on others
        with pytest.raises(ValueError, match=message):
            codes(learnt, rows)
    assert codes(learnt, [None]) == [2]
