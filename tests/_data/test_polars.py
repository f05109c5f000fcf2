"""polars frames, which the estimators convert to columns."""

import datetime

import numpy as np
import pandas as pd
import polars as pl
import pytest

from sknas import NASClassifier

VALUES = {
    "number": [1.5, None, 3.0, 4.0],
    "integer": [1, None, 3, 4],
    "flag": [True, False, True, None],
    "word": ["a", None, "b", "b"],
    "day": [datetime.date(2020, 1, 2), None, datetime.date(2021, 3, 4), None],
}


@pytest.fixture(scope="module")
def classifier():
    return NASClassifier(
        max_trials=1, max_epochs=1, ensemble_size=1, n_jobs=1, random_state=0
    )


def frames(rows=slice(None)):
    """Return the same table of 32 rows for polars and pandas."""
    columns = {name: (values * 8)[rows] for name, values in VALUES.items()}
    one = pl.DataFrame(columns).with_columns(
        pl.col("word").cast(pl.Categorical).alias("category")
    )
    other = pd.DataFrame(columns)
    return one, other.assign(category=other["word"].astype("category"))


def test_polars_and_pandas_frames_predict_alike(classifier):
    y = np.tile([0, 1], 16)
    one, other = frames()
    expected = classifier.fit(other, y).predict_proba(other)
    np.testing.assert_array_equal(classifier.predict_proba(one), expected)
    np.testing.assert_array_equal(classifier.fit(one, y).predict_proba(one), expected)
    # A column of booleans without gaps has another dtype than one with gaps.
    some = [0, 2]
    plain = one[some].with_columns(pl.col("flag").cast(pl.Boolean))
    # Sums of a few rows may be rounded differently from those of many.
    np.testing.assert_allclose(
        classifier.predict_proba(plain), expected[some], rtol=1e-9
    )


def test_infinity_in_polars_is_refused_by_name(classifier):
    X = frames()[0].with_columns(number=pl.lit(float("inf")))
    with pytest.raises(ValueError, match="Column 'number' of X holds infinity"):
        classifier.fit(X, np.tile([0, 1], 16))
