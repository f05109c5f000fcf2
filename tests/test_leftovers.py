"""Fits and predictions leave no tensors behind, and memory does not grow with them."""

import gc
import sys
import weakref

import numpy as np
import pytest
import torch
from leftovers import KINDS, LABELS, TABLE, TINY, count_tensors, fit, resident_mb

from sknas import NASClassifier
from sknas.exceptions import SearchFailedError
from sknas.spaces import TableSpace

N_FITS, N_PREDICTIONS = 50, 2_000
GROWTH_MB = 8  # what the allocator may do with freed blocks


@pytest.fixture
def no_collector():
    """Cycles stay: their memory would be freed only when the collector runs."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("kind", KINDS)
def test_fits_leave_no_tensors_behind(kind):
    counts = []
    for _ in range(2):
        model, X = fit(kind)
        model.predict_proba(X)
        del model
        counts.append(count_tensors())
    assert counts[1] == counts[0]


@pytest.mark.usefixtures("no_collector")
def test_a_fitted_estimator_keeps_no_rows():
    X = TABLE.copy()
    rows = weakref.ref(X)
    model = NASClassifier(**TINY).fit(X, LABELS[len(X)])
    del X
    assert rows() is None
    assert model.classes_.tolist() == [0, 1]


class FailingNet(torch.nn.Module):
    """Fails in its second step of training."""

    def __init__(self, n_columns):
        super().__init__()
        self.layer = torch.nn.Linear(n_columns, 2)
        self.n_steps = 0

    def forward(self, x):
        self.n_steps += self.training
        if self.n_steps > 1:
            raise RuntimeError("too many steps")
        return self.layer(x)[None]


class FailingSpace(TableSpace):
    def build(self, architecture, task):
        return FailingNet(task.n_columns)


@pytest.mark.usefixtures("no_collector")
def test_failed_trials_leave_no_tensors_behind():
    counts = []
    for _ in range(2):
        model = NASClassifier(FailingSpace(), **{**TINY, "max_epochs": 9})
        with pytest.raises(SearchFailedError, match="too many steps"):
            model.fit(TABLE, LABELS[len(TABLE)])
        counts.append(count_tensors())
    assert counts[1] == counts[0]


@pytest.mark.usefixtures("no_collector")
def test_a_warm_start_frees_what_it_replaces():
    model = NASClassifier(warm_start=True, **{**TINY, "max_trials": 1})
    kept = []
    for _ in range(3):
        model.fit(TABLE, LABELS[len(TABLE)])
        kept.append(weakref.ref(model.ensemble_))
    assert [ref() is None for ref in kept] == [True, True, False]
    n_tensors = count_tensors()
    del model
    assert count_tensors() < n_tensors and kept[2]() is None


@pytest.mark.usefixtures("no_collector")
def test_a_warm_start_leaves_no_tensors_behind():
    counts = []
    for _ in range(2):
        model = NASClassifier(warm_start=True, **{**TINY, "max_trials": 1})
        for _ in range(2):
            model.fit(TABLE, LABELS[len(TABLE)])
        del model
        counts.append(count_tensors())
    assert counts[1] == counts[0]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", KINDS)
def test_memory_does_not_grow_with_fits(kind):
    n_tensors, sizes = [], []
    for n in range(1, N_FITS + 1):
        fit(kind)
        if n % 10 == 0:
            gc.collect()
            n_tensors.append(count_tensors())
            sizes.append(resident_mb())
    assert len(set(n_tensors)) == 1
    assert sizes[-1] - sizes[0] < GROWTH_MB


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["table", "images"])
def test_memory_does_not_grow_with_predictions(kind, dtype):
    model, X = fit(kind)
    X = X[:3] if kind == "images" else X[:3].astype(dtype)
    sizes = []
    for _ in range(N_PREDICTIONS):
        model.predict_proba(X)
        model.predict(X)
        sizes.append(resident_mb())
    gc.collect()
    n_tensors = count_tensors()
    model.predict_proba(X)
    assert count_tensors() == n_tensors
    assert sizes[-1] - sizes[N_PREDICTIONS // 5] < GROWTH_MB
