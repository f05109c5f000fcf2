"""Surrogates: accuracy of means and calibration of standard deviations."""

import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.stats import spearmanr
from tables import TABLES, ChainSpace, all_of

from sknas.strategies.bayesian import surrogates
from sknas.strategies.bayesian.gaussian_process import (
    JITTER,
    ExponentialHammingGP,
    WeisfeilerLehmanGP,
)
from sknas.strategies.bayesian.strategy import LIBRARY_SURROGATES, SURROGATES

PAIRS = [(name, "mixed") for name in SURROGATES if name != "wl"]
PAIRS += [(name, "chain") for name in SURROGATES]
PROCESSES = ["hamming", "wl"]


def split(surrogate, table, n=60, seed=0, noise=0.0):
    """Fit a surrogate to `n` points; return it with codes and losses of the others."""
    space, loss = TABLES[table]
    rng = np.random.default_rng(seed)
    architectures = all_of(space)
    order = rng.permutation(len(architectures))
    losses = np.array([loss(a) for a in architectures])[order]
    losses = (losses - losses.mean()) / losses.std()
    model = SURROGATES[surrogate](seed)
    codes = model.encode(space, [architectures[j] for j in order])
    model.fit(codes[:n], losses[:n] + noise * rng.standard_normal(n))
    return model, codes[n:], losses[n:]


@pytest.mark.parametrize(("surrogate", "table"), PAIRS)
def test_mean_correlates_with_the_loss(surrogate, table):
    model, codes, losses = split(surrogate, table)
    mean, std = model.predict(codes)
    assert mean.shape == std.shape == losses.shape
    assert spearmanr(mean, losses)[0] > 0.7


@pytest.mark.parametrize("noise", [0.0, pytest.param(0.5, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("surrogate", "table"), PAIRS)
def test_std_is_about_as_large_as_the_error(surrogate, table, noise):
    """Most held-out points lie within two standard deviations, but not by far."""
    inside, shares = [], []
    for seed in range(3):
        model, codes, losses = split(surrogate, table, seed=seed, noise=noise)
        mean, std = model.predict(codes)
        assert (std > 0).all()
        inside.append(np.mean(np.abs(losses - mean) < 2 * std))
        shares.append(np.sqrt(np.mean((losses - mean) ** 2) / np.mean(std**2)))
    assert 0.75 < np.mean(inside) <= 1.0
    assert 0.4 < np.mean(shares) < 1.6


# Excludes boosted quantiles, which hardly differ between fitted and other points.
@pytest.mark.parametrize(("surrogate", "table"), [p for p in PAIRS if p[0] != "gbrt"])
def test_std_is_smaller_at_fitted_points(surrogate, table):
    space, _ = TABLES[table]
    model, codes, _ = split(surrogate, table)
    rng = np.random.default_rng(0)
    architectures = all_of(space)
    order = rng.permutation(len(architectures))
    seen = model.encode(space, [architectures[j] for j in order[:60]])
    assert model.predict(seen)[1].mean() < 0.9 * model.predict(codes)[1].mean()


@pytest.mark.parametrize(("surrogate", "table"), PAIRS)
def test_draws_have_the_predicted_mean_and_std(surrogate, table):
    model, codes, _ = split(surrogate, table)
    codes = codes[:20]
    mean, std = model.predict(codes)
    rng = np.random.default_rng(0)
    drawn = model.draw(codes, rng, 3_000)
    np.testing.assert_allclose(drawn.mean(axis=0), mean, atol=0.1 * std.max() + 0.01)
    np.testing.assert_allclose(drawn.std(axis=0), std, rtol=0.1, atol=2e-3)


@pytest.mark.parametrize("surrogate", PROCESSES)
def test_many_points_are_drawn_in_parts(surrogate, monkeypatch):
    """The memory of a joint draw grows with the square of the number of points."""
    model, codes, _ = split(surrogate, "chain")
    monkeypatch.setattr("sknas.strategies.bayesian.gaussian_process.MAX_JOINT", 7)
    mean, std = model.predict(codes[:20])
    drawn = model.draw(codes[:20], np.random.default_rng(0), 3_000)
    np.testing.assert_allclose(drawn.mean(axis=0), mean, atol=0.1 * std.max() + 0.01)
    np.testing.assert_allclose(drawn.std(axis=0), std, rtol=0.1, atol=2e-3)


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_the_same_seed_gives_the_same_model(surrogate):
    first, codes, _ = split(surrogate, "chain")
    second, _, _ = split(surrogate, "chain")
    for one, other in zip(first.predict(codes), second.predict(codes), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("surrogate", PROCESSES)
def test_posterior_equals_the_textbook_formula(surrogate):
    """The reference uses the inverse of the kernel matrix."""
    model, codes, _ = split(surrogate, "chain", n=30)
    K = model.kernel(model.X_, model.X_, model.theta_)
    inverse = np.linalg.inv(K + (model.noise_ + JITTER) * np.eye(30))
    k = model.kernel(codes, model.X_, model.theta_)
    mean, std = model.predict(codes)
    np.testing.assert_allclose(mean, k @ inverse @ model.y_, atol=1e-6)
    variance = model.variance_ * (1 - np.einsum("ij,jk,ik->i", k, inverse, k))
    np.testing.assert_allclose(std**2, variance, atol=1e-6)


@pytest.mark.parametrize("surrogate", PROCESSES)
def test_draws_correlate_as_the_kernel_does(surrogate):
    model, codes, _ = split(surrogate, "chain", n=10)
    rng = np.random.default_rng(0)
    drawn = model.draw(codes[:40], rng, 2_000)
    together = np.corrcoef(drawn.T)
    near = model.kernel(codes[:40], codes[:40], model.theta_)
    above = np.triu_indices(40, 1)
    assert spearmanr(together[above], near[above])[0] > 0.5


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_fantasise_adds_an_observation_to_a_copy(surrogate):
    model, codes, _ = split(surrogate, "chain", n=20)
    before = model.predict(codes)
    other = model.fantasise(codes[3], -1.5)
    for one, same in zip(before, model.predict(codes), strict=True):
        np.testing.assert_array_equal(one, same)
    if surrogate not in PROCESSES:
        assert other is None
        return
    mean, std = other.predict(codes)
    assert abs(mean[3] + 1.5) < abs(before[0][3] + 1.5)
    assert std[3] < before[1][3] and (std <= before[1] + 1e-9).all()
    assert (other.theta_ is model.theta_) and other.variance_ == model.variance_


def test_hamming_kernel_counts_choices_that_differ():
    """One category counts as much as the whole range of an ordered choice."""
    model = ExponentialHammingGP()
    space, _ = TABLES["mixed"]
    base = {"kind": "relu", "depth": 1, "width": 8, "rate": 1e-4, "unused": 0}
    changes = [{}, {"kind": "silu"}, {"depth": 4}, {"depth": 2}, {"kind": "tanh"}]
    codes = model.encode(space, [space.fill({**base, **c}) for c in changes])
    near = model.kernel(codes[:1], codes, np.ones(codes.shape[1]))[0]
    np.testing.assert_allclose(-np.log(near), [0, 1, 1, 1 / 3, 1], atol=1e-12)


def test_hamming_weights_find_the_relevant_choices():
    model, _, _ = split("hamming", "mixed")
    columns = ["relu", "tanh", "silu", "depth", "width", "rate", "unused"]
    weights = dict(zip(columns, model.theta_, strict=True))
    assert weights["rate"] > 5 * weights["unused"]
    assert weights["width"] > 2 * weights["unused"]


def test_gradient_of_the_likelihood_equals_finite_differences():
    model, _, _ = split("hamming", "mixed", n=20)
    loss = model._loss_function(np.arange(model.X_.shape[1]), np.zeros(8))
    rng = np.random.default_rng(0)
    for _ in range(5):
        logs = rng.normal(-1.0, 0.5, 8)
        error = check_grad(lambda v: loss(v)[0], lambda v: loss(v)[1], logs)
        assert error < 1e-3 * np.abs(loss(logs)[1]).max()


def test_constant_losses_and_one_column_give_finite_predictions():
    n = ExponentialHammingGP.MIN_OBSERVATIONS + 5
    X = np.linspace(0, 1, n)[:, None]
    model = ExponentialHammingGP()
    model.fit(X, np.zeros(n))
    mean, std = model.predict(X)
    assert np.isfinite(mean).all() and np.isfinite(std).all()


def test_weisfeiler_lehman_labels_equal_those_by_hand():
    """The chains a-b-a and b-a-a are relabelled by hand in two rounds."""
    space = ChainSpace({"x": ["a", "b"], "y": ["a", "b"], "z": ["a", "b"]})
    chains = [
        space.fill(dict(zip("xyz", word, strict=True))) for word in ("aba", "baa")
    ]
    model = WeisfeilerLehmanGP()
    codes = model.encode(space, chains)
    n = model.N_FEATURES
    first, second, third = (codes[:, j * n : (j + 1) * n] for j in range(3))
    assert (first[0] == first[1]).all()  # two a and one b
    # a(), b(a), a(b) against b(), a(b), a(a): one in common
    assert first.sum(axis=1).tolist() == second.sum(axis=1).tolist() == [3, 3]
    assert np.minimum(second[0], second[1]).sum() == 1
    assert np.minimum(third[0], third[1]).sum() == 0
    near = [model.kernel(codes, codes, rounds)[0, 1] for rounds in range(3)]
    np.testing.assert_allclose(near, [1, 6 / 8, 6 / 11])


def test_surrogates_of_libraries_are_listed_without_their_import():
    assert set(LIBRARY_SURROGATES) == set(surrogates.SURROGATES)
