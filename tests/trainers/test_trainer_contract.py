"""The contract of a trainer, tested for every trainer."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from cohorts import make_context
from fits import problem_of
from outside import OutsideTrainer
from scorers import FunctionScorer
from sklearn.base import clone
from sklearn.datasets import make_classification, make_regression
from sklearn.linear_model import LogisticRegression

import sknas._parallel.run as run_module
from sknas import NASClassifier, NASRegressor
from sknas._history import Cause, History, Proposal
from sknas._scoring.baselines import baseline_scores, default_score
from sknas.spaces import TableSpace
from sknas.trainers import TRAINERS


def make_problem(regression=False, n=120, **params):
    if regression:
        X, y = make_regression(n, 6, noise=5.0, random_state=0)
        model = NASRegressor(random_state=0, n_jobs=1, **params)
    else:
        X, y = make_classification(n, 6, random_state=0)
        model = NASClassifier(random_state=0, n_jobs=1, **params)
    parts, problem = problem_of(model, X, y)
    return parts.space, problem


SPACE, PROBLEM = make_problem()


class FailingSpace(TableSpace):
    """A table space in which some widths raise an error when built."""

    def build_batch(self, architectures, task, layout=None):
        width = architectures[0]["width"]
        if width == 32:
            raise MemoryError
        if width == 256:
            raise KeyError("no such layer")
        if width == 64 and not torch.empty(0).is_meta:  # built for training
            raise KeyboardInterrupt
        return super().build_batch(architectures, task, layout)


def proposals(*widths):
    made = [SPACE.fill({"width": width}) for width in widths]
    return [Proposal(a, number=i, seed=i) for i, a in enumerate(made)]


def train(trainer, proposals, space=SPACE, problem=PROBLEM, **changes):
    trainer = clone(trainer)
    trainer.setup(space, problem, make_context(**changes))
    return trainer.train(proposals)


@pytest.fixture(params=[*TRAINERS, "outside"])
def trainer(request):
    return {**TRAINERS, "outside": OutsideTrainer}[request.param]()


def test_train_returns_one_trial_per_proposal_in_order(trainer):
    proposed = proposals(128, 32, 64)
    trials = train(trainer, proposed)
    assert [replace(trial.proposal, rung=0) for trial in trials] == proposed
    for trial in trials:
        assert trial.status == "ok" and trial.reason == ""
        assert len(trial.fold_scores) == len(trial.fold_seconds) == 3
        assert np.isclose(trial.score, np.mean(trial.fold_scores))
        assert trial.predictions.shape == (120, 2)
        assert np.isfinite(trial.predictions).all()
        assert 0 < trial.stop <= 1 and trial.n_epochs > 0
        assert trial.seconds >= sum(trial.fold_seconds) * (1 - 1e-9)
        assert len(trial.score_seconds) == 3
        assert 0 < sum(trial.score_seconds) < trial.seconds
        assert np.isfinite(trial.loss)
        rungs = trial.rung_scores
        assert len(rungs) == trial.proposal.rung + 1 or not rungs
    assert trials[0].n_params > trials[2].n_params > trials[1].n_params > 0


def test_a_trial_does_not_depend_on_the_others(trainer):
    first, second = proposals(128, 32)
    together = train(trainer, [first, second])
    alone = train(trainer, [second])[0]
    assert together[1].score == pytest.approx(alone.score, rel=1e-6)
    np.testing.assert_allclose(together[1].predictions, alone.predictions, atol=1e-5)
    assert together[1].stop == alone.stop


def test_failed_trials_have_a_reason(trainer):
    trials = train(trainer, proposals(128, 32, 256, 128), space=FailingSpace())
    assert [trial.status for trial in trials] == ["ok", "failed", "failed", "ok"]
    assert trials[1].reason == "out of memory"
    assert trials[2].reason == "KeyError: 'no such layer'"
    assert trials[1].score is None and trials[1].predictions is None


def test_ctrl_c_keeps_finished_trials(trainer):
    trials = train(trainer, proposals(128, 64, 128), space=FailingSpace())
    # Networks of one shape are trained together, the first and the last here.
    last = "ok" if trainer.is_batched else "stopped"
    assert [trial.status for trial in trials] == ["ok", "stopped", last]
    stopped = [trial for trial in trials if trial.status == "stopped"]
    assert {trial.cause for trial in stopped} == {Cause.INTERRUPTED}
    assert all(t.score is None for t in stopped) and len(trials) == 3
    # They count as not started, so that a warm start tries them again.
    assert not any(trial.has_started for trial in stopped)
    assert all(np.isfinite(t.score) for t in trials if t not in stopped)


def test_deadline_stops_trials(trainer):
    late = time.monotonic() - 1
    (trial,) = train(trainer, proposals(128), deadline=late)
    assert (trial.status, trial.cause) == ("stopped", Cause.OUT_OF_TIME)
    assert trial.reason == "out of time"
    started = time.monotonic()
    (trial,) = train(
        trainer,
        proposals(128),
        problem=replace(PROBLEM, n_steps=10**6),
        deadline=started + 0.3,
    )
    assert trial.status == "stopped"
    assert time.monotonic() - started < 1.3


def test_validation_rows_are_not_used_in_training(trainer):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((150, 3)), rng.integers(0, 2, 150)
    model = NASClassifier(max_trials=3, trainer=trainer, random_state=0, n_jobs=1)
    # Labels are noise: only a network that saw these rows would score 1.
    assert model.fit(X, y).best_score_ < 0.7


def test_repeated_rows_do_not_inflate_scores(trainer):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 2, (600, 2))
    y = (X[:, 0] ^ X[:, 1]) ^ (rng.random(600) < 0.1)
    model = NASClassifier(max_trials=1, trainer=trainer, random_state=0, n_jobs=1)
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
    times = [model.cv_results_[f"mean_{kind}_time"] for kind in ("score", "fit")]
    assert 0 < times[0] < times[1]


@pytest.mark.process
def test_results_do_not_depend_on_the_number_of_workers(trainer, monkeypatch):
    alone = train(trainer, proposals(128, 32))
    monkeypatch.setattr(run_module, "WORTH_WORKERS", -1.0)
    two = train(trainer, proposals(128, 32), n_jobs=2)
    for one, other in zip(alone, two, strict=True):
        assert one.score == other.score
        np.testing.assert_array_equal(one.predictions, other.predictions)


def test_scorer_errors_fail_the_trial(trainer):
    def broken(*arguments):
        raise RuntimeError("my scorer")

    problem = replace(PROBLEM, scorer=FunctionScorer(broken))
    (trial,) = train(trainer, proposals(128), problem=problem)
    assert (trial.status, trial.reason) == ("failed", "RuntimeError: my scorer")


@pytest.mark.parametrize("trainer", [make() for make in TRAINERS.values()])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_trial_needs_a_score_in_each_fold_in_which_a_model_has_one(trainer, value):
    fold = PROBLEM.folds[1].valid_rows

    def score(predictions, rows, weight=None):
        return value if rows[0] == fold[0] else 0.25

    scorer = FunctionScorer(score, "nothing there.")
    problem = replace(PROBLEM, n_steps=30, scorer=scorer)
    (trial,) = train(trainer, proposals(128), problem=problem)
    why = "nothing there" if np.isnan(value) else "the scorer returned NaN"
    assert (trial.status, trial.cause) == ("failed", Cause.UNDEFINED_SCORE)
    assert trial.reason == f"no score: {why} (in 1 of 3 folds)"
    assert trial.score is None and trial.predictions is None
    np.testing.assert_array_equal(trial.fold_scores, [0.25, value, 0.25])
    same = replace(problem, unscored_folds=(1,))
    (trial,) = train(trainer, proposals(128), problem=same)
    assert (trial.status, trial.score, trial.reason) == ("ok", 0.25, "")
    np.testing.assert_array_equal(trial.fold_scores, [0.25, np.nan, 0.25])


@pytest.mark.parametrize("trainer", [make() for make in TRAINERS.values()])
def test_a_snapshot_without_a_score_is_left_out(trainer):
    calls = []

    def score(predictions, rows, weight=None):
        calls.append(rows)
        return np.nan if len(calls) == 2 else float(len(calls))

    # Two rungs, and no score at the first.
    problem = replace(PROBLEM, n_steps=240, scorer=FunctionScorer(score, "not now"))
    (trial,) = train(trainer, proposals(32), problem=problem)
    assert (trial.status, trial.cause) == ("ok", Cause.UNDEFINED_SCORE)
    assert trial.reason == "a snapshot has no score: not now (in 1 of 3 folds)"
    assert trial.score == np.mean(trial.fold_scores) == trial.rung_scores[1]
    assert np.isnan(trial.rung_scores[0]) and trial.proposal.rung == 1


# -------------------------------------------------------------------------- baselines


def test_baselines_are_scored_on_the_same_folds():
    scores = baseline_scores(PROBLEM).scores
    expected = []
    for fold in PROBLEM.folds:
        model = LogisticRegression(max_iter=200).fit(fold.train.x, fold.train.y)
        expected.append(model.score(fold.valid.x, fold.valid.y))
    assert np.isclose(scores["linear"].value, np.mean(expected))
    assert 0.4 <= scores["dummy"].value <= 0.6
    assert np.isnan(default_score(History()))


@pytest.mark.parametrize("kind", ["regression", "multi-label"])
def test_baselines_of_other_targets(kind):
    if kind == "regression":
        _, problem = make_problem(regression=True)
        scores = baseline_scores(problem).scores
        assert scores["linear"].value > 0.9 and scores["dummy"].value <= 0
        return
    rng = np.random.default_rng(0)
    X = rng.standard_normal((90, 3))
    y = np.stack([X[:, 0] > 0, X[:, 1] > 0, np.zeros(90)], axis=1).astype(int)
    model = NASClassifier(max_trials=1, max_epochs=2, n_jobs=1).fit(X, y)
    assert np.isfinite(model.baseline_scores_["dummy"])


def test_without_time_there_is_no_linear_baseline():
    scores = baseline_scores(PROBLEM, seconds_left=1e-6).scores
    assert np.isnan(scores["linear"].value)
