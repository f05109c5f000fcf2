"""Every trainer keeps the contract of a trainer."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import make_classification, make_regression
from sklearn.linear_model import LogisticRegression

import sknas._parallel.run as workers
from sknas import NASClassifier, NASRegressor
from sknas._budget import plan_budget
from sknas._history import History, Proposal
from sknas._scoring.baselines import default_score, simple_scores
from sknas.spaces import TableSpace
from sknas.trainers import TRAINERS, PopulationTrainer


def make_problem(regression=False, n=120, **params):
    if regression:
        X, y = make_regression(n, 6, noise=5.0, random_state=0)
        model = NASRegressor(random_state=0, n_jobs=1, **params)
    else:
        X, y = make_classification(n, 6, random_state=0)
        model = NASClassifier(random_state=0, n_jobs=1, **params)
    model._check_parameters(X)
    data, seed, X = model._read_training_data(X, y, None, None)
    budget = plan_budget(n, None, None)
    return model._make_problem(data, budget, seed, X, time.monotonic())


SPACE, PROBLEM = make_problem()


class Touchy(TableSpace):
    """Some architectures of it can't be built."""

    def net(self, alike, layout, task):
        width = alike[0]["width"]
        if width == 32:
            raise MemoryError
        if width == 256:
            raise KeyError("no such layer")
        if width == 64 and not torch.empty(0).is_meta:  # while it is trained
            raise KeyboardInterrupt
        return super().net(alike, layout, task)


def proposals(*widths):
    made = [SPACE.fill({"width": width}) for width in widths]
    return [Proposal(a, number=i, seed=i) for i, a in enumerate(made)]


def train(trainer, proposals, space=SPACE, problem=PROBLEM):
    trainer = clone(trainer)
    trainer.setup(space)
    return trainer.train(proposals, problem)


@pytest.fixture(params=TRAINERS)
def trainer(request):
    return TRAINERS[request.param]()


def test_one_trial_a_proposal_in_order(trainer):
    asked = proposals(128, 32, 64)
    trials = train(trainer, asked)
    assert [replace(trial.proposal, rung=0) for trial in trials] == asked
    for trial in trials:
        assert trial.status == "ok" and trial.reason == ""
        assert len(trial.fold_scores) == len(trial.fold_seconds) == 3
        assert np.isclose(trial.score, np.mean(trial.fold_scores))
        assert trial.predictions.shape == (120, 2)
        assert np.isfinite(trial.predictions).all()
        assert 0 < trial.stop <= 1 and trial.n_epochs > 0
        assert trial.seconds >= sum(trial.fold_seconds) * (1 - 1e-9)
        assert np.isfinite(trial.loss)
        rungs = trial.rung_scores
        assert len(rungs) == trial.proposal.rung + 1 or not rungs
    assert trials[0].n_params > trials[2].n_params > trials[1].n_params > 0


def test_a_trial_does_not_depend_on_its_company(trainer):
    first, second = proposals(128, 32)
    together = train(trainer, [first, second])
    alone = train(trainer, [second])[0]
    assert together[1].score == pytest.approx(alone.score, rel=1e-6)
    np.testing.assert_allclose(together[1].predictions, alone.predictions, atol=1e-5)
    assert together[1].stop == alone.stop


def test_failures_are_trials_with_a_reason(trainer):
    trials = train(trainer, proposals(128, 32, 256, 128), space=Touchy())
    assert [trial.status for trial in trials] == ["ok", "failed", "failed", "ok"]
    assert trials[1].reason == "out of memory"
    assert trials[2].reason == "KeyError: 'no such layer'"
    assert trials[1].score is None and trials[1].predictions is None


def test_ctrl_c_keeps_what_is_done(trainer):
    trials = train(trainer, proposals(128, 64, 128), space=Touchy())
    # Networks of one shape are trained together, the first and the last here.
    last = "ok" if isinstance(trainer, PopulationTrainer) else "stopped"
    assert [trial.status for trial in trials] == ["ok", "stopped", last]
    told = [trial for trial in trials if trial.status == "stopped"]
    assert {trial.reason for trial in told} == {"interrupted"}
    assert all(t.score is None for t in told) and len(trials) == 3
    assert all(np.isfinite(t.score) for t in trials if t not in told)


def test_deadline_stops_trials(trainer):
    late = replace(PROBLEM, deadline=time.monotonic() - 1)
    (trial,) = train(trainer, proposals(128), problem=late)
    assert (trial.status, trial.reason) == ("stopped", "out of time")
    soon = replace(PROBLEM, n_steps=10**6, deadline=time.monotonic() + 0.3)
    started = time.monotonic()
    (trial,) = train(trainer, proposals(128), problem=soon)
    assert trial.status == "stopped"
    assert time.monotonic() - started < 1.3


def test_rows_that_rank_a_trial_are_not_seen_by_it(trainer):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((150, 3)), rng.integers(0, 2, 150)
    model = NASClassifier(max_trials=3, trainer=trainer, random_state=0, n_jobs=1)
    # Labels are noise, so that a network that knew a row would score 1.
    assert model.fit(X, y).best_score_ < 0.7


def test_tables_of_few_different_rows_are_ranked_by_what_can_be_learnt(trainer):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 2, (600, 2))
    y = (X[:, 0] ^ X[:, 1]) ^ (rng.random(600) < 0.1)
    model = NASClassifier(max_trials=3, trainer=trainer, random_state=0, n_jobs=1)
    model.fit(X[:400], y[:400])
    assert model.best_score_ > 0.85 > model.baseline_scores_["linear"]
    assert model.score(X[400:], y[400:]) > 0.85


def test_large_weights_do_not_make_small_batches(trainer):
    X, y = make_classification(300, 6, random_state=0)
    for weight in (1, 10_000):
        model = NASClassifier(
            max_trials=1, max_epochs=3, trainer=trainer, random_state=0, n_jobs=1
        ).fit(X, y, sample_weight=np.full(300, float(weight)))
        assert model.score(X, y) > 0.8
    assert model.cv_results_["status"].tolist() == ["ok"]


def test_workers_change_nothing(trainer, monkeypatch):
    alone = train(trainer, proposals(128, 32))
    monkeypatch.setattr(workers, "WORTH_WORKERS", -1.0)
    two = train(trainer, proposals(128, 32), problem=replace(PROBLEM, n_jobs=2))
    for one, other in zip(alone, two, strict=True):
        assert one.score == other.score
        np.testing.assert_array_equal(one.predictions, other.predictions)


def test_scorer_errors_fail_the_trial(trainer):
    def broken(predictions, rows, weight=None):
        raise RuntimeError("my scorer")

    problem = replace(PROBLEM, score=broken)
    (trial,) = train(trainer, proposals(128), problem=problem)
    assert (trial.status, trial.reason) == ("failed", "RuntimeError: my scorer")


# --- what trials are compared with


def test_baselines_are_scores_on_the_same_folds():
    scores = simple_scores(PROBLEM)
    by_hand = []
    for fold in PROBLEM.folds:
        model = LogisticRegression(max_iter=200).fit(fold.train.x, fold.train.y)
        by_hand.append(model.score(fold.valid.x, fold.valid.y))
    assert np.isclose(scores["linear"], np.mean(by_hand))
    assert 0.4 <= scores["dummy"] <= 0.6
    assert np.isnan(default_score(History()))


@pytest.mark.parametrize("kind", ["regression", "multi-label"])
def test_baselines_of_other_targets(kind):
    if kind == "regression":
        _, problem = make_problem(regression=True)
        scores = simple_scores(problem)
        assert scores["linear"] > 0.9 and scores["dummy"] <= 0
        return
    rng = np.random.default_rng(0)
    X = rng.standard_normal((90, 3))
    y = np.stack([X[:, 0] > 0, X[:, 1] > 0, np.zeros(90)], axis=1).astype(int)
    model = NASClassifier(max_trials=1, max_epochs=2, n_jobs=1).fit(X, y)
    assert np.isfinite(model.baseline_scores_["dummy"])


def test_linear_baseline_is_left_out_where_time_is_short():
    late = replace(PROBLEM, deadline=time.monotonic() + 1e-6)
    assert np.isnan(simple_scores(late)["linear"])
