"""Temperatures that calibrate probabilities."""

import numpy as np
import pytest
from scipy.special import softmax

from sknas._ensemble.calibration import TEMPERATURES, apply_temperature, fit_temperature
from sknas._scoring.scorer import RowLoss

KINDS = ["binary", "multiclass", "multilabel"]


def made(kind, n=400, confidence=1.0):
    """Return targets, and probabilities that are calibrated if `confidence` is 1."""
    rng = np.random.default_rng(0)
    if kind == "multilabel":
        logits = rng.normal(size=(n, 3))
        shares = 1 / (1 + np.exp(-logits))
        y = (rng.random((n, 3)) < shares).astype(float)
        return y, 1 / (1 + np.exp(-confidence * logits))
    logits = rng.normal(size=(n, 2 if kind == "binary" else 4))
    shares = softmax(logits, axis=1)
    y = (rng.random((n, 1)) > shares.cumsum(axis=1)).sum(axis=1)
    return y, softmax(confidence * logits, axis=1)


def loss_of(y, kind):
    loss, rows = RowLoss(y, np.ones(len(y)), kind), np.arange(len(y))
    return lambda predictions: float(loss(predictions, rows))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("confidence", [0.4, 2.0, 3.5])
def test_calibration_reaches_the_log_loss_of_true_probabilities(kind, confidence):
    y, shares = made(kind, confidence=confidence)
    loss = loss_of(y, kind)
    temperature = fit_temperature(shares, loss, kind)
    assert temperature == pytest.approx(confidence, rel=0.2)
    after = apply_temperature(shares, temperature, kind)
    assert loss(after) < loss(shares)
    assert loss(after) <= loss(made(kind)[1]) + 1e-3
    if kind == "multilabel":
        np.testing.assert_array_equal(after > 0.5, shares > 0.5)
    else:
        np.testing.assert_array_equal(after.argmax(axis=1), shares.argmax(axis=1))
        np.testing.assert_allclose(after.sum(axis=1), 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [0.5, 1.7, 4.0])
def test_a_temperature_divides_logits(kind, temperature):
    _, shares = made(kind, 20)
    found = apply_temperature(shares, temperature, kind)
    if kind == "multilabel":
        logits = np.log(shares / (1 - shares))
        expected = 1 / (1 + np.exp(-logits / temperature))
    else:
        expected = softmax(np.log(shares) / temperature, axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    # Any axes may precede the rows.
    np.testing.assert_allclose(
        apply_temperature(np.stack([shares, shares[::-1]]), temperature, kind),
        np.stack([found, found[::-1]]),
    )


@pytest.mark.parametrize("kind", [*KINDS, "regression"])
def test_a_temperature_of_one_changes_nothing(kind):
    shares = np.random.default_rng(0).random((5, 2))
    assert apply_temperature(shares, 1.0, kind) is shares


def test_regressors_are_not_calibrated():
    values = np.array([[1e300], [-3.0]])
    assert apply_temperature(values, 2.5, "regression") is values
    assert fit_temperature(values, lambda p: 1 / 0, "regression") == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_temperatures_are_bounded(kind):
    y, right = made(kind)
    low, high = TEMPERATURES
    if kind == "multilabel":
        surely_wrong, hardly = 0.999 - 0.998 * y, 0.5 + 0.01 * (y - 0.5)
    else:
        n_classes = right.shape[1]
        wrong = np.eye(n_classes)[(y + 1) % n_classes]
        surely_wrong = 0.99 * wrong + 0.01 / n_classes
        hardly = 0.01 * np.eye(n_classes)[y] + 0.99 / n_classes
    loss = loss_of(y, kind)
    assert fit_temperature(surely_wrong, loss, kind) == pytest.approx(high, rel=0.05)
    assert fit_temperature(hardly, loss, kind) == pytest.approx(low, rel=0.05)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_certain_probabilities_stay_finite(kind, dtype):
    y, _ = made(kind, 20)
    shares = np.eye(2, dtype=dtype)[np.arange(20) % 2]
    y = np.minimum(y[:, :2] if kind == "multilabel" else y, 1)
    temperature = fit_temperature(shares, loss_of(y, kind), kind)
    after = apply_temperature(shares, temperature, kind)
    assert np.isfinite(after).all() and after.min() >= 0 and after.max() <= 1
    assert apply_temperature(shares, 3.0, kind).dtype == dtype


def test_temperature_is_one_if_none_reduces_the_loss():
    shares = np.full((10, 2), 0.5)
    y = np.arange(10) % 2
    assert fit_temperature(shares, loss_of(y, "binary"), "binary") == 1.0
