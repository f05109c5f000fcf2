"""Reading and encoding of tables."""

import decimal
import re

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import sknas._data.table_encoder as encoder_module
from sknas._data.table_encoder import RawTable, TableEncoder, weighted_quantiles
from sknas._data.table_reader import TableReader
from sknas.exceptions import InvalidParameterError

ORDERED = pd.CategoricalDtype(["z", "c", "a", "b"], ordered=True)
WORDS = [object, "str", "string", "string[pyarrow]", "category", ORDERED]
FLAGS = ["bool", "boolean", "bool[pyarrow]", object]
INTEGERS = ["int64", "Int64", "int64[pyarrow]", "float64", object, "category"]
NUMBERS = ["Int8", "UInt8", "Int64", "Float32", "Float64", "float64", object]
ARROW_NUMBERS = ["int64[pyarrow]", "uint8[pyarrow]", "double[pyarrow]"]


def frame(values, dtype=None):
    return pd.DataFrame({"a": pd.Series(values, dtype=dtype)})


def read(fitted, rows=None, categorical="from_dtype"):
    """Read rows with a reader that was fitted to other rows, or to the same."""
    reader = TableReader("NASClassifier", categorical).fit(fitted)
    return reader.read(fitted if rows is None else rows)


def codes(*args, **kwargs):
    return read(*args, **kwargs).codes[:, 0].tolist()


def table_of(numeric=None, words=None):
    """Return a table of numeric columns and columns of codes, given as lists."""
    n_rows = len((numeric or words)[0])
    return RawTable(
        np.array(numeric or np.zeros((0, n_rows)), dtype=float).T,
        np.array(words or np.zeros((0, n_rows)), dtype=np.int64).T,
    )


def fitted(table, weight=None):
    return TableEncoder().fit(table, np.ones(len(table)) if weight is None else weight)


def encode(column, rows=None):
    """Encode one numeric column."""
    encoder = fitted(table_of([column]))
    return encoder.transform(table_of([column if rows is None else rows]))


def random_table(rng, n_rows=80):
    """Return a table with each kind of column, gaps and rare levels."""
    numeric = rng.normal(size=(n_rows, 6))
    numeric[:, 1] = rng.integers(0, 2, n_rows)
    numeric[:, 2] = 7
    numeric[:, 3] = np.nan
    numeric[rng.random(n_rows) < 0.2, 4] = np.nan
    numeric[:, 5] = rng.choice([0, 0, 0, 1, 5], n_rows)
    sizes = (1, 2, 5, 12, 300)
    return RawTable(numeric, np.stack([rng.integers(0, s, n_rows) for s in sizes], 1))


# ---------------------------------------------------------------- reading columns


@pytest.mark.parametrize("dtype", NUMBERS + ARROW_NUMBERS)
def test_numbers_of_any_dtype_are_read_alike(dtype):
    table = read(frame([3, None, 1], dtype))
    assert_array_equal(table.numeric, [[3], [np.nan], [1]])
    assert table.codes.shape == (3, 0)


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        (["float32"], np.float32),
        (["Float32", "float[pyarrow]", "float16"], np.float32),
        (["float32", "float64"], np.float64),
        (["float32", "int8"], np.float64),
        (["Int32"], np.float64),
    ],
)
def test_single_precision_is_kept_if_all_numbers_have_it(dtypes, expected):
    X = pd.DataFrame(
        {f"c{i}": pd.Series([1, 2, 3], dtype=d) for i, d in enumerate(dtypes)}
    )
    table = read(X)
    assert table.numeric.dtype == expected
    assert fitted(table).transform(table).dtype == expected


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint8, bool])
def test_arrays_are_read_like_frames(dtype):
    X = np.array([[0, 1], [1, 0], [1, 1]], dtype=dtype)
    one, other = read(X), read(pd.DataFrame(X, columns=["a", "b"]))
    assert_array_equal(one.numeric, other.numeric)
    assert_array_equal(one.codes, other.codes)
    assert one.numeric.dtype == other.numeric.dtype


@pytest.mark.parametrize("at_fit", WORDS, ids=str)
@pytest.mark.parametrize("later", WORDS, ids=str)
def test_strings_of_any_dtype_are_read_alike(at_fit, later):
    learnt = frame(["b", "a", None, "c"], at_fit)
    # z is unknown, even if a dtype lists it: no row of fit contains it.
    assert codes(learnt, frame(["c", "z", None, "a", "b"], later)) == [2, -1, 3, 0, 1]


@pytest.mark.parametrize("at_fit", FLAGS, ids=str)
@pytest.mark.parametrize("later", FLAGS, ids=str)
def test_booleans_of_any_dtype_are_read_alike(at_fit, later):
    learnt = frame([True, False, True], at_fit)
    assert codes(learnt, frame([False, True], later)) == [0, 1]


@pytest.mark.parametrize("at_fit", INTEGERS, ids=str)
@pytest.mark.parametrize("later", INTEGERS, ids=str)
def test_categories_of_numbers_are_read_alike(at_fit, later):
    learnt = frame([3, 1, 2], at_fit)
    assert codes(learnt, frame([2, 1, 3], later), categorical=["a"]) == [1, 0, 2]


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, pd.NaT])
def test_every_missing_value_is_missing(missing):
    X = frame(["x", missing, "y"], object)
    assert codes(X) == [0, 2, 1]
    # A boolean column with a gap has dtype object.
    flags = frame([True, False], bool)
    assert codes(flags, frame([True, missing], object)) == [1, 2]


def test_mixed_objects_are_categories_by_their_text():
    X = frame([1, "1", 2.5, "red", None], object)
    assert codes(X) == [0, 0, 1, 2, 3]
    assert codes(X, frame(["2.5", 1, "green"], object)) == [1, 0, -1]


@pytest.mark.parametrize("number", [7, 1234567, 0.123456789, -(2**40)])
def test_numbers_have_the_code_of_equal_objects(number):
    assert codes(frame([number, "x"], object), frame([number])) == [0]


def test_codes_of_mixed_objects_do_not_depend_on_other_rows_and_order():
    X = frame([1, True, 0, False, "x", 1.0, "True"], object)
    for learnt in (X, X[::-1]):
        alone = [codes(learnt, X[row : row + 1])[0] for row in range(len(X))]
        assert alone == codes(learnt, X) == codes(X)


def test_strings_in_a_numeric_category_are_unknown_unless_they_are_numbers():
    learnt = frame([1, 2, 3])
    assert codes(learnt, frame(["2", "red", None]), categorical=[0]) == [1, -1, 3]


@pytest.mark.parametrize("dtype", ["string", "str", "string[pyarrow]", "category"])
def test_string_column_without_values_is_a_category(dtype):
    if pd.Series([None], dtype=dtype).dtype == object:
        pytest.skip("this pandas has no dtype for str")
    learnt = frame([None, None], dtype)
    assert codes(learnt, frame(["x", None], object)) == [-1, 0]


def test_an_object_column_without_a_value_is_numeric():
    table = read(frame([None, None], object))
    assert np.isnan(table.numeric).all() and table.codes.shape == (2, 0)


def test_columns_of_object_arrays_are_inferred_one_by_one():
    X = np.array([[1, "a", decimal.Decimal("0.5")], [None, 2, 3]], dtype=object)
    table = read(X)
    assert_array_equal(table.numeric, [[1, 0.5], [np.nan, 3]])
    assert table.codes.tolist() == [[1], [0]]


def test_string_arrays_are_categories():
    table = read(np.array([["b", "1"], ["a", "2"]]))
    assert table.codes.tolist() == [[1, 0], [0, 1]]


def test_columns_may_share_a_name():
    X = pd.DataFrame([[1, "x"], [2, "y"]], columns=["a", "a"])
    table = read(X)
    assert table.numeric.tolist() == [[1], [2]]
    assert table.codes.tolist() == [[0], [1]]


def test_reading_does_not_change_the_frame(mixed_frame):
    before = mixed_frame.copy(deep=True)
    read(mixed_frame)
    pd.testing.assert_frame_equal(mixed_frame, before)


def test_rows_are_read_independently(mixed_frame):
    reader = TableReader("NASClassifier").fit(mixed_frame)
    whole = reader.read(mixed_frame)
    for row in range(0, len(mixed_frame), 5):
        single = reader.read(mixed_frame.iloc[[row]])
        assert_array_equal(single.numeric, whole.numeric[[row]])
        assert_array_equal(single.codes, whole.codes[[row]])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("from_dtype", ["c", "d"]),
        (None, []),
        ([], []),
        ([True, False, True, False], ["a", "c"]),
        (np.array([True, False, True, False]), ["a", "c"]),
        (["b", "a"], ["a", "b"]),
        (np.array([3, 0]), ["a", "d"]),
        ((0, "b", 0), ["a", "b"]),
    ],
    ids=str,
)
def test_categorical_features_select_the_categories(given, expected):
    X = pd.DataFrame({"a": [1, 2], "b": [0.5, 1], "c": [True, False], "d": [3, 4]})
    X["d"] = X["d"].astype("category")
    reader = TableReader("NASClassifier", given).fit(X)
    assert [column.name for column in reader.categories_.values()] == expected


@pytest.mark.parametrize("given", ["all", [True], ["b"], [2], [-1], [1.5], 3])
def test_invalid_categorical_features(given):
    named = given[0] if given in (["b"], [2], [-1], [1.5]) else given
    message = (
        "The 'categorical_features' parameter of NASClassifier must be 'from_dtype', "
        "None, a mask of one bool per column, or indices or names of columns of X, got "
        f"{named!r}."
    )
    X = pd.DataFrame({"a": [1, 2], "c": [3, 4]})
    with pytest.raises(InvalidParameterError, match=re.escape(message)):
        TableReader("NASClassifier", given).fit(X)


# ------------------------------------------------------------------- bad columns


@pytest.mark.parametrize("later", [False, True], ids=["fit", "predict"])
@pytest.mark.parametrize("dtype", ["float32", "Float64", "double[pyarrow]", object])
def test_infinity_is_refused_by_name(dtype, later):
    bad = pd.DataFrame({"fine": [1.0, 2.0], "bad": pd.Series([np.inf, 1], dtype=dtype)})
    good = bad.assign(bad=1.0)
    message = (
        "Column 'bad' of X holds infinity, numbers must be finite or NaN: replace it "
        "by NaN or by a large number."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        read(good if later else bad, bad)


def test_infinity_in_an_array_is_rejected_by_column_index():
    with pytest.raises(ValueError, match="Column 'x1' of X holds infinity"):
        read(np.array([[1, 2], [3, -np.inf]]))


@pytest.mark.parametrize("categorical", ["from_dtype", None, [0]], ids=str)
@pytest.mark.parametrize("kind", ["frame", "array"])
def test_complex_numbers_are_refused(kind, categorical):
    X = np.array([[1j], [2]])
    with pytest.raises(ValueError, match="Complex data not supported: column"):
        read(frame(X[:, 0]) if kind == "frame" else X, categorical=categorical)


def test_complex_numbers_in_a_numeric_column_are_refused():
    with pytest.raises(ValueError, match="Complex data not supported: column 'a'"):
        read(frame([1.0, 2.0]), frame([1j, 2]))


@pytest.mark.parametrize("dtype", [object, "string", "category"])
def test_strings_in_a_numeric_column_are_refused_by_name(dtype):
    message = (
        "Column 'a' of X is read as numbers, it must hold nothing else in fit and in "
        "predict, or be named in 'categorical_features': could not convert string to "
        "float: 'red'"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        read(frame([1.0, 2.0]), frame(["red", None], dtype))


@pytest.mark.parametrize("dtype", [object, "string", "category"])
def test_numbers_and_flags_as_text_are_read_in_a_numeric_column(dtype):
    rows = frame(["1.5", "True", None, "-3"], dtype)
    assert_array_equal(
        read(frame([1.0, 2.0]), rows).numeric[:, 0], [1.5, 1, np.nan, -3]
    )


def test_integer_beyond_floats_is_refused_by_name():
    with pytest.raises(ValueError, match="Column 'a' of X"):
        read(frame([10**400, 2], object))


# --------------------------------------------------------------- encoding numbers


def test_numbers_are_scaled_by_median_and_quartiles_and_clipped_smoothly(rng):
    column = np.exp(2 * rng.normal(size=101))
    low, middle, high = np.quantile(column, [0.25, 0.5, 0.75], method="inverted_cdf")
    z = (column - middle) / (high - low)
    assert_allclose(encode(column)[:, 0], z / np.sqrt(1 + (z / 3) ** 2))
    assert encode(column, [middle, 1e300, -1e300]).ravel() == pytest.approx([0, 3, -3])


def test_columns_of_mostly_equal_numbers_are_not_constant():
    x = encode([0.0] * 20 + [1.0, 2.0, -4.0])[:, 0]
    assert len(np.unique(x)) == 4 and np.abs(x).max() < 3


@pytest.mark.parametrize(
    "column",
    [
        [-1e300, 1e300, 0.0, 1.0, 5e299],
        [1e-300, 2e-300, 3e-300, 9e-300, 0.0],
        [-1.7e308, 1.7e308, 0.0, 1e308, -1e308],
        [-1.7e308, 1.7e308],
        [0.0, 5e-324],
        [-5e-324, 5e-324, *[0.0] * 9],
        [1e15, 1e15 + 1, 1e15 + 2],
        [1e-300, 1.0, 1e300],
    ],
    ids=str,
)
def test_huge_and_tiny_numbers_keep_their_order(column):
    x = encode(column)[:, 0]
    order = np.argsort(column)
    assert np.isfinite(x).all() and (np.abs(x) <= 3).all()
    assert (np.diff(x[order]) >= 0).all() and np.ptp(x) > 0.5
    far = encode(column, [1e308, -1e308, 0.0, np.nan])
    assert np.isfinite(far).all() and (np.abs(far) <= 3).all()


def test_numbers_near_the_limits_of_single_precision_are_encoded():
    column = np.array([[3e38], [-3e38], [1e-38], [0]], dtype=np.float32)
    table = RawTable(column, np.zeros((4, 0), dtype=np.int64))
    x = fitted(table).transform(table)
    assert x.dtype == np.float32 and np.isfinite(x).all() and np.ptp(x) > 0.5


@pytest.mark.parametrize(
    ("columns", "layout", "expected"),
    [
        # constant or missing everywhere: a column of zeros, as networks need a column
        ([[5, 5, 5, 5]], (0, 1, ()), [[0], [0], [0], [0]]),
        ([[np.nan] * 4], (0, 1, ()), [[0], [0], [0], [0]]),
        # a constant with gaps: marks the gaps
        ([[5, np.nan, 5, 5]], (0, 1, ()), [[-1], [1], [-1], [-1]]),
        # two values: -1 and 1, with missing values at 0
        ([[3, 9, 9, 3]], (0, 1, ()), [[-1], [1], [1], [-1]]),
        ([[3, 9, np.nan, 3]], (0, 2, ()), [[-1, -1], [1, -1], [0, 1], [-1, -1]]),
    ],
)
def test_encoding_of_columns_of_few_values(columns, layout, expected):
    table = table_of(columns)
    encoder = fitted(table)
    assert (encoder.n_numeric, encoder.n_binary, encoder.cardinalities_) == layout
    assert_array_equal(encoder.transform(table), expected)


def test_missing_number_is_zero_and_marked_in_a_second_column():
    x = encode([1.0, 2.0, np.nan, 4.0, 9.0])
    assert x.shape == (5, 2)
    assert x[2, 0] == 0
    assert_array_equal(x[:, 1], [-1, -1, 1, -1, -1])


def test_gaps_in_a_column_without_gaps_in_fit_are_zero():
    assert encode([1.0, 2.0, 3.0], [np.nan]).tolist() == [[0]]
    assert encode([1.0, 2.0], [np.nan]).tolist() == [[0]]


def test_values_beyond_two_fitted_values_are_clipped():
    assert encode([1.0, 2.0], [-50.0, 1.5, 50.0]).ravel().tolist() == [-1, 0, 1]


def test_edges_are_quantiles_of_the_scaled_columns(rng):
    table = table_of([rng.normal(size=99), rng.exponential(size=99)])
    encoder = fitted(table)
    scaled = encoder.transform(table)
    levels = np.linspace(0, 1, 49)
    expected = np.quantile(scaled, levels, axis=0, method="inverted_cdf").T
    assert_allclose(encoder.edges_, expected, rtol=1e-6)


# ------------------------------------------------------------ encoding categories


def test_codes_of_levels_start_at_one_and_unseen_levels_are_zero():
    learnt = [
        0,
        1,
        2,
        3,
        0,
        1,
        2,
        3,
    ]  # 3 is the code of missing values, which is also a level
    encoder = fitted(table_of(words=[learnt]))
    assert (encoder.n_numeric, encoder.n_binary) == (0, 0)
    assert encoder.cardinalities_ == (4,)
    rows = table_of(words=[[3, 0, 1, 2, -1, 9]])
    assert encoder.transform(rows).ravel().tolist() == [4, 1, 2, 3, 0, 0]


def test_missing_value_in_a_column_without_gaps_is_unseen():
    X = frame(["a", "b", "c"] * 2)
    reader = TableReader("NASClassifier").fit(X)
    x = fitted(reader.read(X)).transform(reader.read(frame(["c", None, "z"])))
    assert x.ravel().tolist() == [3, 0, 0]


def test_rare_levels_share_the_code_of_unseen_ones():
    encoder = fitted(table_of(words=[[0, 0, 1, 2, 2, 3, 4, 4]]))
    assert encoder.cardinalities_ == (3,)
    rows = table_of(words=[[0, 1, 2, 3, 4]])
    assert encoder.transform(rows).ravel().tolist() == [1, 0, 2, 0, 3]


@pytest.mark.parametrize(
    ("learnt", "rows", "expected"),
    [
        (
            [0, 0, 1, 1],
            [0, 1, -1, 7],
            [-1, 1, 0, 0],
        ),  # two levels, with unknown levels at 0
        (
            [0, 0, 1, 2],
            [0, 1, 2, -1, 7],
            [1, -1, -1, -1, -1],
        ),  # one level, and all others
    ],
)
def test_binary_categories_are_minus_and_plus_one(learnt, rows, expected):
    encoder = fitted(table_of(words=[learnt]))
    assert (encoder.n_binary, encoder.cardinalities_) == (1, ())
    assert encoder.transform(table_of(words=[rows])).ravel().tolist() == expected


@pytest.mark.parametrize("learnt", [[0] * 4, [1] * 4, [0, 1, 2, 3]], ids=str)
def test_category_with_one_level_is_dropped(learnt):
    table = table_of(words=[learnt])
    encoder = fitted(table)
    assert (encoder.n_numeric, encoder.n_binary, encoder.cardinalities_) == (0, 1, ())
    assert_array_equal(encoder.transform(table), np.zeros((4, 1)))


def test_most_frequent_of_many_levels_are_kept():
    counts = np.repeat([2, 5], [200, 300])  # the first 200 levels are rarer
    learnt = np.repeat(np.arange(500), counts).tolist()
    encoder = fitted(table_of(words=[learnt]))
    assert encoder.cardinalities_ == (255,)
    x = encoder.transform(table_of(words=[list(range(500))])).ravel()
    assert_array_equal(np.sort(x[x > 0]), np.arange(1, 256))
    assert not x[:200].any()


# ---------------------------------------------------------- tables as a whole


@pytest.mark.parametrize("seed", range(4))
def test_a_weight_is_a_repetition(seed):
    rng = np.random.default_rng(seed)
    table = random_table(rng)
    weight = rng.integers(1, 5, len(table))
    repeated = np.repeat(np.arange(len(table)), weight)
    one = fitted(table, weight.astype(float))
    other = fitted(table.take(repeated))
    assert_array_equal(one.transform(table), other.transform(table))
    assert_array_equal(one.edges_, other.edges_)
    assert one.cardinalities_ == other.cardinalities_


def test_the_order_of_rows_does_not_matter(rng):
    table = random_table(rng)
    weight = rng.uniform(0.5, 3, len(table))
    order = rng.permutation(len(table))
    one, other = fitted(table, weight), fitted(table.take(order), weight[order])
    assert_array_equal(one.transform(table), other.transform(table))
    assert_array_equal(one.edges_, other.edges_)


def test_words_do_not_depend_on_the_order_of_rows(mixed_frame):
    one = read(mixed_frame)
    other = read(mixed_frame.sample(frac=1, random_state=0), mixed_frame)
    assert_array_equal(one.codes, other.codes)


@pytest.mark.parametrize("seed", range(4))
def test_encoded_table_has_the_declared_layout(seed):
    rng = np.random.default_rng(seed)
    table = random_table(rng)
    part = table.take(rng.choice(len(table), 30, replace=False))
    encoder = fitted(part)
    x = encoder.transform(table)
    first, last = encoder.n_numeric, encoder.n_numeric + encoder.n_binary
    assert x.shape == (len(table), last + len(encoder.cardinalities_))
    assert encoder.edges_.shape == (first, 49)
    assert (np.diff(encoder.edges_) >= 0).all()
    assert (np.abs(x[:, :first]) <= 3).all()
    assert np.isin(x[:, first:last], [-1, 0, 1]).all()
    for j, cardinality in enumerate(encoder.cardinalities_):
        assert np.isin(x[:, last + j], np.arange(cardinality + 1)).all()
        seen = encoder.transform(part)[:, last + j]
        assert set(np.unique(seen)) >= set(range(1, cardinality + 1))


def sizes(reader):
    return [len(column.vocabulary_) for column in reader.categories_.values()]


def test_categories_that_no_encoder_distinguishes_are_pruned(mixed_frame):
    reader = TableReader("NASClassifier").fit(mixed_frame)
    table = reader.read(mixed_frame)
    parts = (np.arange(24), np.arange(12, 48))
    encoders = [fitted(table.take(rows)) for rows in parts]
    later = mixed_frame.assign(
        word=["red", "pink", None, "blue"] * 12, many="id99", level="high"
    )
    rows = pd.concat([mixed_frame, later])
    expected = [encoder.transform(reader.read(rows)) for encoder in encoders]
    n_words = sizes(reader)
    reader.prune_vocabulary(encoders)
    assert all(n <= before for n, before in zip(sizes(reader), n_words, strict=True))
    for encoder, before in zip(encoders, expected, strict=True):
        assert_array_equal(encoder.transform(reader.read(rows)), before)


def test_category_known_to_one_of_several_encoders_is_kept():
    words = frame(["a"] * 20 + ["b"] * 20 + ["c"] * 20 + ["d", "e"])
    reader = TableReader("NASClassifier").fit(words)
    table = reader.read(words)
    first, second = (fitted(table.take(np.arange(*r))) for r in ((0, 60), (20, 62)))
    alone = TableReader("NASClassifier").fit(words)
    reader.prune_vocabulary([first, second])
    kept = set(reader.categories_[0].vocabulary_.codes_)
    assert {"a", "b", "c"} <= kept and len(kept) < 5
    alone.prune_vocabulary([])
    assert sizes(alone) == [0]


def test_a_frame_of_all_kinds(mixed_frame):
    table = read(mixed_frame)
    encoder = fitted(table)
    x = encoder.transform(table)
    assert np.isfinite(x).all()
    assert encoder.n_numeric == 3  # number, gaps, integer; constant columns are dropped
    assert encoder.n_binary == 3  # flag, and the gaps of gaps and integer
    # the levels of flag_gaps, word, level and many; missing is a level
    assert encoder.cardinalities_[:3] == (3, 5, 3)


def test_a_table_of_no_rows_to_encode(mixed_frame):
    table = read(mixed_frame)
    nothing = table.take(np.arange(0))
    width = fitted(table).transform(table).shape[1]
    assert fitted(table).transform(nothing).shape == (0, width)


# -------------------------------------------------------------------- quantiles


@pytest.mark.parametrize("seed", range(5))
def test_weighted_quantiles_equal_those_of_repeated_values(seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(-5, 5, size=(60, 3)) / 7
    values[rng.random(values.shape) < 0.2] = np.nan
    weight = rng.integers(1, 6, 60)
    levels = np.linspace(0, 1, 49)
    got = weighted_quantiles(values, weight.astype(float), levels)
    repeated = np.repeat(values, weight, axis=0)
    expected = np.nanquantile(repeated, levels, axis=0, method="inverted_cdf")
    assert_array_equal(got, expected)


def test_quantiles_of_fractional_weights(rng):
    values, weight = rng.normal(size=(50, 2)), rng.uniform(0.1, 2, 50)
    levels = np.array([0, 0.1, 0.5, 0.75, 1])
    expected = np.quantile(
        values, levels, axis=0, weights=weight, method="inverted_cdf"
    )
    assert_array_equal(weighted_quantiles(values, weight, levels), expected)


def test_quantiles_without_values_are_nan():
    values = np.array([[np.nan, 1.0], [np.nan, 2.0]])
    got = weighted_quantiles(values, np.ones(2), np.array([0, 1]))
    assert_array_equal(got, [[np.nan, 1], [np.nan, 2]])


def test_chunks_are_encoded_like_the_whole_table(rng, monkeypatch):
    table = random_table(rng)
    weight = rng.integers(1, 4, len(table)).astype(float)
    whole = fitted(table, weight)
    expected = whole.transform(table)
    monkeypatch.setattr(encoder_module, "CHUNK_ROWS", 7)
    monkeypatch.setattr(encoder_module, "CHUNK_CELLS", 10)
    parted = fitted(table, weight)
    assert_array_equal(parted.edges_, whole.edges_)
    assert_array_equal(parted.transform(table), expected)
    assert parted.transform(table.take(np.arange(0))).shape == (0, expected.shape[1])
