"""Frames of pandas, polars and Arrow with all kinds of columns."""

import decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from sknas import NASClassifier
from sknas._data.frames import plain_frame, plain_series
from sknas._data.table_reader import TableReader
from sknas.exceptions import UnseenValuesWarning

WORDS = ["a", None, "b", "a"]
INTEGERS = [2**53 + 1, None, 3, 4]
RUNS = pa.RunEndEncodedArray.from_arrays([1, 2, 3, 4], WORDS)
SAME_WORDS = {
    "pandas": pd.Series(WORDS),
    "category": pd.Series(WORDS, dtype="category"),
    "arrow": pa.array(WORDS),
    "arrow dictionary": pa.array(WORDS).dictionary_encode(),
    "arrow view": pa.array(WORDS, pa.string_view()),
    "arrow large": pa.array(WORDS, pa.large_string()),
    "arrow runs": RUNS,
    "arrow bytes": pa.array([w and w.encode() for w in WORDS]),
    "arrow bytes view": pa.array([w and w.encode() for w in WORDS], pa.binary_view()),
    "polars": pl.Series(WORDS),
    "polars category": pl.Series(WORDS, dtype=pl.Categorical),
    "polars enum": pl.Series(WORDS, dtype=pl.Enum(["b", "a"])),
    "polars bytes": pl.Series([w and w.encode() for w in WORDS]),
}
SAME_INTEGERS = {
    "pandas": pd.Series(INTEGERS, dtype="Int64"),
    "object": pd.Series(INTEGERS, dtype=object),
    "category": pd.Series(INTEGERS, dtype="Int64").astype("category"),
    "arrow": pa.array(INTEGERS),
    "arrow dictionary": pa.array(INTEGERS).dictionary_encode(),
    "arrow decimal": pa.array(
        [n if n is None else decimal.Decimal(n) for n in INTEGERS],
        pa.decimal128(20, 0),
    ),
    "polars": pl.Series(INTEGERS),
    "polars 128": pl.Series(INTEGERS, dtype=pl.Int128),
}
NESTED = {
    "object lists": pd.Series([[1.0, 2.0]] * 4),
    "object arrays": pd.Series([np.ones(2)] * 4),
    "arrow list": pa.array([[1.0, 2.0]] * 4),
    "arrow fixed": pa.array([[1.0, 2.0]] * 4, pa.list_(pa.float64(), 2)),
    "arrow struct": pa.array([{"u": 1}] * 4),
    "arrow map": pa.array([[("u", 1)]] * 4, pa.map_(pa.string(), pa.int64())),
    "polars list": pl.Series([[1, 2]] * 4),
    "polars array": pl.Series([[1, 2]] * 4, dtype=pl.Array(pl.Int64, 2)),
    "polars struct": pl.Series([{"u": 1}] * 4),
}


def frame(values):
    """Return a frame of the library that the values come from, with one column."""
    if isinstance(values, pl.Series):
        return pl.DataFrame({"a": values})
    if isinstance(values, pd.Series):
        return pd.DataFrame({"a": values})
    return pa.table({"a": values})


def arrow_frame(values):
    dtype = pd.ArrowDtype(values.type)
    return pd.DataFrame({"a": pd.Series(pd.array(values, dtype=dtype))})


def columns(table):
    """Return all frames of a table of columns."""
    found = {name: frame(values) for name, values in table.items()}
    arrow = {
        name: values for name, values in table.items() if isinstance(values, pa.Array)
    }
    return found | {f"pandas {name}": arrow_frame(v) for name, v in arrow.items()}


@pytest.mark.parametrize(
    "table", [SAME_WORDS, SAME_INTEGERS], ids=["words", "integers"]
)
def test_columns_of_every_library_are_read_alike(table):
    frames = {name: plain_frame(X) for name, X in columns(table).items()}
    expected = [0, 2, 1, 0] if table is SAME_WORDS else [2, 3, 0, 1]
    for learnt in frames.values():
        reader = TableReader("NASClassifier", ["a"]).fit(learnt)
        for name, X in frames.items():
            assert reader.read(X).codes[:, 0].tolist() == expected, name


def test_dictionaries_are_categories():
    for values in (SAME_WORDS["arrow dictionary"], SAME_INTEGERS["arrow dictionary"]):
        for X in (frame(values), arrow_frame(values)):
            reader = TableReader("NASClassifier").fit(plain_frame(X))
            assert list(reader.categories_) == [0]


@pytest.mark.parametrize("later", [False, True], ids=["fit", "predict"])
@pytest.mark.parametrize("kind", NESTED)
def test_nested_columns_are_refused_with_what_to_do(kind, later):
    for X in columns({kind: NESTED[kind]}).values():
        bad = plain_frame(X)
        good = bad.assign(a=[1.0, 2.0, 3.0, 4.0])
        reader = TableReader("NASClassifier")
        with pytest.raises(
            ValueError, match=r"Column 'a' of X holds .* in a column of"
        ):
            reader.fit(good if later else bad).read(bad)
        words = bad.assign(a=["x", "y", "x", "y"])
        with pytest.raises(
            ValueError, match=r"Column 'a' of X holds .* in a column of"
        ):
            reader.fit(words).read(bad)


@pytest.mark.parametrize("kind", SAME_WORDS)
def test_targets_of_every_library_are_read_alike(kind):
    values = SAME_WORDS[kind]
    given = [values]
    if isinstance(values, pa.Array):
        given += [pa.chunked_array([values]), arrow_frame(values)["a"]]
    for y in given:
        found = [v.decode() if isinstance(v, bytes) else v for v in plain_series(y)]
        assert pd.Series(found, dtype=object).fillna("").tolist() == ["a", "", "b", "a"]


def test_a_frame_is_not_changed_and_not_copied():
    X = pd.DataFrame({"a": [1, 2]})
    assert plain_frame(X) is X
    other = arrow_frame(SAME_WORDS["arrow dictionary"])
    before = other.dtypes.tolist()
    plain_frame(other)
    assert other.dtypes.tolist() == before
    assert plain_frame(np.ones((2, 2))) is None


@pytest.mark.parametrize(
    "nothing", [[None, None], pd.Series([pd.NaT, pd.NaT]), [np.nan, np.nan]], ids=str
)
@pytest.mark.parametrize(
    "later",
    [["a", "b"], [1, 2], pd.to_datetime(["2020", "2021"], utc=True), [[1], [2]]],
    ids=str,
)
def test_a_column_without_a_value_in_fit_says_nothing_later(nothing, later):
    X = pd.DataFrame({"a": nothing, "b": [1.0, 2.0]})
    reader = TableReader("NASClassifier").fit(X)
    table = reader.read(pd.DataFrame({"a": later, "b": [1.0, 2.0]}))
    np.testing.assert_array_equal(table.numeric, [[np.nan, 1], [np.nan, 2]])


def test_tuples_in_categories_are_refused():
    X = pd.DataFrame({"a": pd.Series([(1, 2), (3, 4)]).astype("category")})
    with pytest.raises(ValueError, match="Column 'a' of X holds tuple objects"):
        TableReader("NASClassifier").fit(X)


def test_sparse_columns_are_read():
    values = pd.Series([0.0, 1.0, 2.0, 0.0])
    X = pd.DataFrame({"a": values.astype(pd.SparseDtype("float64", 0))})
    table = TableReader("NASClassifier").fit(plain_frame(X)).read(plain_frame(X))
    assert table.numeric[:, 0].tolist() == values.tolist()


# ----------------------------------------------------------- the same in a classifier


@pytest.fixture(scope="module")
def flags():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"flag": rng.random(60) < 0.5, "z": rng.normal(size=60)})
    X["town"] = rng.choice(["Jena", "Gera", "Suhl"], 60)
    y = X["flag"].astype(int)
    model = NASClassifier(max_trials=1, max_epochs=5, n_jobs=1, random_state=0)
    return model.fit(X, y), X


def test_a_flag_is_the_same_in_every_dtype(flags):
    model, X = flags
    expected = model.predict_proba(X)
    dtypes = (int, float, object, "Int8", "bool[pyarrow]", "category", str)
    tables = [X.astype({"flag": dtype}) for dtype in dtypes]
    tables += [X.astype(str), X.astype(object), pl.DataFrame(X.to_dict("list"))]
    tables.append(pa.Table.from_pandas(X))
    for table in tables:
        np.testing.assert_array_equal(model.predict_proba(table), expected)
    # Without names, as explainers call it.
    for rows in (X.to_numpy(), X.to_numpy().tolist()):
        with pytest.warns(UserWarning, match="feature names"):
            np.testing.assert_array_equal(model.predict_proba(rows), expected)


def test_unseen_values_are_warned_about_once(flags):
    model, X = flags
    model._reader.has_warned_ = False
    new = X.assign(town=np.where(np.arange(60) < 31, "Bonn", X["town"]))
    model.predict(new[:19])  # too few rows
    model.predict(new[25:])  # too few unseen values
    gaps = new.assign(town=new["town"].where(np.arange(60) % 2 == 0))
    model.predict(gaps[29:])  # one of the values that are there
    with pytest.warns(UnseenValuesWarning, match="values of X in 'town' did not occur"):
        model.predict(new)
    model.predict(new)
    model._reader.has_warned_ = False
    with pytest.warns(UnseenValuesWarning, match="values of X in 'town' did not occur"):
        model.predict(gaps)  # half of the rows, but of the values more
    with pytest.raises(ValueError, match="Column 'flag' of X holds text such as 'yes'"):
        model.predict(X.assign(flag="yes"))
