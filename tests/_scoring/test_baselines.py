"""Where baselines are fitted, and what they say about a scorer.

Their scores are tested with the trainers.
"""

from dataclasses import replace

import joblib
import numpy as np
import pytest
from cohorts import make_problem
from joblib.parallel import get_active_backend
from scorers import FunctionScorer
from sklearn.linear_model import LogisticRegression

from sknas._scoring import baselines


def test_baselines_are_fitted_in_this_process(monkeypatch):
    backends = []

    class Recorded(LogisticRegression):
        def fit(self, X, y, sample_weight=None):
            backend, n_jobs = get_active_backend()
            backends.append((type(backend).__name__, backend.effective_n_jobs(n_jobs)))
            return super().fit(X, y, sample_weight)

    monkeypatch.setattr(baselines, "LogisticRegression", Recorded)
    with joblib.parallel_config(backend="loky", n_jobs=2):
        scores = baselines.baseline_scores(make_problem("binary")).scores
    assert set(backends) == {("SequentialBackend", 1)}
    assert scores["linear"].value > scores["dummy"].value


KINDS = ["binary", "multiclass", "multilabel", "regression"]


def baselines_of(kind, function, n_folds=3):
    """Return the baselines of a scorer (predictions, fold number) -> float."""
    problem = make_problem(kind, n_folds=n_folds)
    numbers = {fold.valid_rows[0]: j for j, fold in enumerate(problem.folds)}

    def score(predictions, rows, weight=None):
        is_pooled = len(rows) > len(problem.folds[0].valid_rows)
        return function(predictions, None if is_pooled else numbers[rows[0]])

    scorer = FunctionScorer(score, "no score.")
    return baselines.baseline_scores(replace(problem, scorer=scorer))


def spread(predictions):
    return float(np.ptp(predictions, axis=0).min())


@pytest.mark.parametrize("kind", KINDS)
def test_folds_without_a_score_are_those_in_which_no_model_has_one(kind):
    found = baselines_of(kind, lambda p, fold: np.nan if fold == 1 else spread(p))
    assert (found.unscored_folds, found.reason) == ((1,), "no score")
    assert not found.is_refused and found.scores["dummy"].value == 0
    assert found.scores["linear"].value > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("has_linear", [True, False])
def test_models_that_are_not_constant_tell_if_a_fold_has_a_score(
    kind, has_linear, monkeypatch
):
    monkeypatch.setattr(baselines, "_has_time", lambda *_: has_linear)
    found = baselines_of(kind, lambda p, fold: spread(p) or np.nan)
    assert found.unscored_folds == () and not found.is_refused
    assert np.isnan(found.scores["dummy"].value)
    assert (found.scores["linear"].value > 0) == has_linear


def test_a_scorer_is_refused_if_no_model_has_a_score_of_all_rows_either():
    found = baselines_of("binary", lambda p, fold: 1.0 if fold is None else np.inf)
    assert found.unscored_folds == (0, 1, 2) and not found.is_refused
    assert [score.value for score in found.scores.values()] == [1, 1]
    found = baselines_of("binary", lambda p, fold: np.nan)
    assert (found.is_refused, found.must, found.reason) == (True, "fit y", "no score")


def test_a_scorer_that_fails_now_and_then_has_a_score_in_all_folds():
    calls = []

    def every_third(predictions, fold):
        calls.append(fold)
        return np.nan if len(calls) % 3 == 1 else 1.0

    found = baselines_of("binary", every_third)  # fold 0 of both models fails
    assert found.unscored_folds == () and calls == [0, 1, 2, 0, 1, 2, 0, 0]
    assert all(np.isnan(score.value) for score in found.scores.values())
