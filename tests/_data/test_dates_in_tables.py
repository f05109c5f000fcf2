"""Columns of dates in tables that an estimator reads."""

import datetime
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal

from sknas import NASClassifier, NASRegressor
from sknas._data.table_reader import TableReader
from sknas.exceptions import SearchWarning

N_ROWS = 40
rng = np.random.default_rng(0)
SECONDS = rng.integers(1_500_000_000, 1_700_000_000, N_ROWS) * 1.0 + 0.25
CELLS = [datetime.datetime.fromtimestamp(s, datetime.UTC) for s in SECONDS]
CELLS = [cell.replace(tzinfo=None) for cell in CELLS]
CELLS[3] = None
SPANS = [cell and cell - datetime.datetime(2019, 5, 5) for cell in CELLS]
UTC = [cell and cell.replace(tzinfo=datetime.UTC) for cell in CELLS]
X = pd.DataFrame(
    {
        "number": rng.normal(size=N_ROWS),
        "when": np.array(CELLS, dtype="M8[us]"),
        "word": rng.choice(["a", "b"], N_ROWS),
        "zoned": pd.Series(np.array(CELLS, "M8[us]")).dt.tz_localize("UTC"),
        "took": np.array(SPANS, dtype="m8[us]"),
        "time": pd.Series([cell and cell.time() for cell in CELLS], dtype=object),
        "day": np.array(CELLS, dtype="M8[s]").astype("M8[D]").astype("M8[s]"),
    }
)
X["zoned"] = X["zoned"].dt.tz_convert("Asia/Tokyo")
Y = np.arange(N_ROWS) % 2


def of_dtypes(dates, spans, zone):
    dtypes = {"when": dates, "day": dates, "took": spans}
    dtypes["zoned"] = pd.DatetimeTZDtype("ns", zone)
    return X.astype(dtypes)


def of_objects():
    frame = X.astype(object).assign(time=X["time"])
    frame["day"] = pd.Series([c and c.date() for c in CELLS], dtype=object)
    return frame.assign(zoned=pd.Series(UTC, dtype=object))


def of_arrow():
    types = {
        "when": pa.timestamp("us"),
        "zoned": pa.timestamp("us", "Europe/Berlin"),
        "took": pa.duration("us"),
        "time": pa.time64("us"),
        "day": pa.date32(),
    }
    return X.astype({name: pd.ArrowDtype(kind) for name, kind in types.items()})


def of_polars():
    frame = pl.DataFrame({"number": X["number"].to_numpy(), "when": CELLS})
    days = [cell and cell.date() for cell in CELLS]
    return frame.with_columns(
        word=pl.Series(X["word"].tolist()),
        zoned=pl.col("when")
        .dt.replace_time_zone("UTC")
        .dt.convert_time_zone("Asia/Tokyo"),
        took=pl.Series(SPANS),
        time=pl.col("when").dt.time(),
        day=pl.Series(days),
    )


CONTAINERS = {
    "pandas": X,
    "nanoseconds": of_dtypes("M8[ns]", "m8[ns]", "Europe/Berlin"),
    "objects": of_objects(),
    "arrow": of_arrow(),
    "polars": of_polars(),
    "another index": X.set_index(pd.DatetimeIndex(X["when"])),
}


@pytest.fixture(scope="module")
def fitted():
    return classifier().fit(X, Y)


def classifier(**options):
    options = {"max_trials": 1, "max_epochs": 1, "cv": 2, "n_jobs": 1, **options}
    return NASClassifier(**options, random_state=0)


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_gives_the_same_answers(fitted, container):
    expected = fitted.predict_proba(X)
    assert_array_equal(fitted.predict_proba(CONTAINERS[container]), expected)


@pytest.mark.parametrize("container", ["nanoseconds", "objects", "polars"])
def test_a_fit_of_every_container_gives_the_same_networks(fitted, container):
    zone = None if container == "polars" else "Asia/Tokyo"
    rows = CONTAINERS[container]
    if zone:  # the clock of fit is the one of the zone
        rows = rows.assign(zoned=X["zoned"])
    expected = fitted.predict_proba(X)
    assert_array_equal(classifier().fit(rows, Y).predict_proba(X), expected)


def test_dates_are_learnt():
    weekend = (X["when"].dt.day_of_week >= 5).to_numpy(int)
    sure = classifier(max_epochs=100, cv="auto").fit(X[["when"]], weekend)
    assert sure.score(X[["when"]], weekend) > 0.9


def test_an_array_of_dates_is_read():
    days = np.array(CELLS, dtype="M8[s]")
    days = np.stack([days, days[::-1]], axis=1)
    regressor = NASRegressor(max_trials=1, max_epochs=1, cv=2, random_state=0)
    predicted = regressor.fit(days, SECONDS).predict(days)
    as_frame = pd.DataFrame(days, columns=["x0", "x1"])
    assert np.isfinite(predicted).all()
    assert_array_equal(regressor.predict(as_frame.to_numpy()), predicted)
    assert_array_equal(regressor.predict(days.tolist()), predicted)


def test_a_pickled_estimator_keeps_dates(fitted):
    copy = pickle.loads(pickle.dumps(fitted))
    assert_array_equal(copy.predict_proba(X), fitted.predict_proba(X))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"when": "2020-01-01"},
            "Column 'when' of X must hold dates as it did in fit, got",
        ),
        (
            {"when": 1.5},
            "Column 'when' of X must hold dates as it did in fit, got float64",
        ),
        (
            {"when": X["zoned"]},
            "Column 'when' of X has the time zone 'Asia/Tokyo', but ",
        ),
        (
            {"zoned": X["when"]},
            "Column 'zoned' of X has no time zone, but had 'Asia/To",
        ),
        (
            {"took": X["when"]},
            "Column 'took' of X must hold durations as it did in fit",
        ),
        ({"number": X["when"]}, "Column 'number' of X holds dates"),
        ({"number": X["took"]}, "Column 'number' of X holds durations"),
        ({"word": X["when"]}, "Column 'word' of X holds dates"),
        ({"number": np.inf}, "Column 'number' of X holds infinity"),
    ],
)
def test_another_kind_than_in_fit_is_refused_by_name(fitted, change, message):
    with pytest.raises(ValueError, match=message):
        fitted.predict(X.assign(**change))


def test_infinity_after_a_date_is_refused_by_name():
    rows = X[["when"]].assign(last=np.inf)
    with pytest.raises(ValueError, match="Column 'last' of X holds infinity"):
        TableReader("NASClassifier").fit(rows).read(rows)


@pytest.mark.parametrize("gap", [None, np.nan, pd.NaT, pd.NA], ids=str)
def test_a_row_without_dates_is_predicted(fitted, gap):
    row = X.iloc[[3]].astype(object)
    row[["when", "zoned", "took", "time", "day"]] = gap
    assert_array_equal(fitted.predict_proba(row), fitted.predict_proba(X.iloc[[3]]))


@pytest.mark.parametrize("categorical", [None, ["number"], [True, False]], ids=str)
def test_dates_that_are_no_categories_are_decomposed(categorical):
    rows = X[["number", "when"]]
    table = TableReader("NASClassifier", categorical).fit(rows).read(rows)
    assert table.numeric.shape[1] + table.codes.shape[1] == 11


@pytest.mark.parametrize("name", ["when", "zoned", "took", "time", "day"])
@pytest.mark.parametrize("container", CONTAINERS)
def test_dates_named_as_categories_are_the_same_in_every_container(container, name):
    rows = X[[name, "number"]].iloc[:8]
    other = CONTAINERS[container][[name, "number"]][:8]
    reader = TableReader("NASClassifier", [name]).fit(rows)
    table = reader.read(reader.check(NASClassifier(), other, reset=True))
    assert table.codes[:, 0].tolist() == reader.read(rows).codes[:, 0].tolist()
    assert len(set(table.codes[:, 0].tolist())) == 8


def test_a_category_of_dates_takes_the_dates_themselves():
    rows = X[["when"]].astype("category")
    reader = TableReader("NASClassifier").fit(rows)
    codes = reader.read(rows).codes
    assert codes.shape == (N_ROWS, 1)
    assert_array_equal(reader.read(X[["when"]]).codes, codes)
    assert_array_equal(reader.read(of_objects()[["when"]]).codes, codes)


def test_a_category_with_some_dates_takes_dates_alone():
    mixed = pd.DataFrame({"a": pd.Series(["none", *CELLS[:2]], dtype=object)})
    reader = TableReader("NASClassifier").fit(mixed)
    codes = reader.read(mixed).codes
    assert_array_equal(reader.read(mixed[1:]).codes, codes[1:])


def test_strings_of_dates_are_words():
    rows = X.assign(when=X["when"].astype(str))[["when"]]
    with pytest.warns(SearchWarning, match="Text that looks like dates"):
        table = TableReader("NASClassifier").fit(rows).read(rows)
    assert (table.numeric.shape[1], table.codes.shape[1]) == (0, 1)


@pytest.mark.parametrize(
    "text",
    ["2020-02-29", "2020/2/9 12:30", "1.12.2020", "12/31/2020", "2020-02-29T12Z"],
)
def test_dates_as_text_are_warned_of(text):
    X = pd.DataFrame({"when": [text, "n/a", text + " "], "word": ["a", text, "b"]})
    X["version"] = ["1.2.3", "10.2.3", "127.0.0.1"]
    with pytest.warns(
        SearchWarning, match="like dates is read as words in 'when': con"
    ):
        TableReader("NASClassifier").fit(X)
    TableReader("NASClassifier", ["when"]).fit(X)  # as the user says
    days = X.assign(when=pd.to_datetime("2020-02-29"), word="a")
    TableReader("NASClassifier").fit(days.astype({"when": "category"}))
