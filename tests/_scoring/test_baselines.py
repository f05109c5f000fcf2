"""Where baselines are fitted; their scores are tested with the trainers."""

import joblib
from cohorts import make_problem
from joblib.parallel import get_active_backend
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
