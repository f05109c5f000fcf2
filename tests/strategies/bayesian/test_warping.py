"""Output warping: from scores to losses on a normal scale."""

import numpy as np
import pytest

from sknas.strategies.bayesian.warping import warp_losses


def test_better_scores_are_smaller_losses(rng):
    scores = rng.normal(size=40)
    losses = warp_losses(scores)
    assert (np.argsort(losses) == np.argsort(-scores)).all()
    assert abs(losses.mean()) < 0.3 and 0.7 < losses.std() < 1.5


@pytest.mark.parametrize("huge", [-1e6, -1.7e308])
def test_outlier_does_not_flatten_other_losses(huge, rng):
    scores = rng.normal(size=20).tolist()
    apart = np.ptp(warp_losses(scores)[:19])
    losses = warp_losses([*scores[:19], huge])
    assert np.isfinite(losses).all() and np.argmax(losses) == 19
    assert np.ptp(losses[:19]) > 0.6 * apart


def test_failed_trials_get_the_worst_loss():
    losses = warp_losses([1.0, None, 0.0, 2.0, None])
    assert losses[1] == losses[4] == losses[2] == losses.max()
    assert np.isfinite(warp_losses([None, None])).all()
