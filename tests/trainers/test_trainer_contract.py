"""Every trainer keeps the contract of a trainer."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import make_classification, make_regression
from sklearn.linear_model import LogisticRegression

import sknas.trainers._workers as workers
from sknas import NASClassifier, NASRegressor
from sknas._baselines import default_score, simple_scores
from sknas._budget import plan_budget
from sknas._ensemble import choose_members, refit
from sknas._history import History, Proposal, Trial
from sknas.exceptions import SearchFailedError
from sknas.spaces import TableSpace
from sknas.trainers import TRAINERS


def make_problem(regression=False, n=120, **params):
    if regression:
        X, y = make_regression(n, 6, noise=5.0, random_state=0)
        model = NASRegressor(random_state=0, n_jobs=1, **params)
    else:
        X, y = make_classification(n, 6, random_state=0)
        model = NASClassifier(random_state=0, n_jobs=1, **params)
    model._check_parameters()
    data, seed, X = model._read_training_data(X, y, None, None)
    budget = plan_budget(n, None, None)
    return model._make_problem(data, budget, seed, X, time.monotonic())


SPACE, PROBLEM = make_problem()


class Touchy(TableSpace):
    """Some architectures of it can't be built."""

    def build(self, architectures, task):
        width = architectures[0]["width"]
        if width == 32:
            raise MemoryError
        if width == 256:
            raise KeyError("no such layer")
        if width == 64:
            raise KeyboardInterrupt
        return super().build(architectures, task)


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
    assert [trial.proposal for trial in trials] == asked
    for trial in trials:
        assert trial.status == "ok" and trial.reason == ""
        assert len(trial.fold_scores) == len(trial.fold_seconds) == 3
        assert np.isclose(trial.score, np.mean(trial.fold_scores))
        assert trial.predictions.shape == (120, 2)
        assert np.isfinite(trial.predictions).all()
        assert 0 < trial.stop <= 1 and trial.n_epochs > 0
        assert trial.seconds >= sum(trial.fold_seconds)
    assert trials[0].n_params > trials[2].n_params > trials[1].n_params > 0


def test_a_trial_does_not_depend_on_its_company(trainer):
    first, second = proposals(128, 32)
    together = train(trainer, [first, second])
    alone = train(trainer, [second])[0]
    assert together[1].score == alone.score
    np.testing.assert_array_equal(together[1].predictions, alone.predictions)


def test_failures_are_trials_with_a_reason(trainer):
    trials = train(trainer, proposals(128, 32, 256, 128), space=Touchy())
    assert [trial.status for trial in trials] == ["ok", "failed", "failed", "ok"]
    assert trials[1].reason == "out of memory"
    assert trials[2].reason == "KeyError: 'no such layer'"
    assert trials[1].score is None and trials[1].predictions is None


def test_ctrl_c_keeps_what_is_done(trainer):
    trials = train(trainer, proposals(128, 64, 128), space=Touchy())
    assert [trial.status for trial in trials] == ["ok", "stopped", "stopped"]
    assert {trial.reason for trial in trials[1:]} == {"interrupted"}


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


# --- what is made of trials


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


def made_history(*accuracies, n=120):
    """Trials whose predictions are right on a share of rows of their own."""
    rng = np.random.default_rng(0)
    y = PROBLEM.score.y
    trials = []
    for number, accuracy in enumerate(accuracies):
        right = rng.random(n) < accuracy
        shares = np.eye(2)[np.where(right, y, 1 - y)] * 0.8 + 0.1
        trials.append(
            Trial(
                Proposal(SPACE.fill({"width": 32}), number=number),
                score=float(right.mean()),
                predictions=shares.astype(np.float32),
            )
        )
    return History(tuple(trials))


def test_ensemble_is_better_than_its_best_member_and_small():
    history = made_history(0.7, 0.72, 0.71, 0.69, 0.7, 0.7, 0.3)
    for size in (1, 2, 3, 5):
        chosen = choose_members(history, PROBLEM, size)
        assert len(chosen) <= size
        assert np.isclose(sum(weight for _, weight in chosen), 1)
        weights = [weight for _, weight in chosen]
        assert weights == sorted(weights, reverse=True)
    mean = sum(weight * trial.predictions for trial, weight in chosen)
    score = PROBLEM.score(mean, np.arange(120))
    assert score > history.best.score + 0.02
    assert 6 not in [trial.proposal.number for trial, _ in chosen]


def test_ensemble_needs_predictions():
    history = made_history(0.7, 0.8).without_predictions()
    ((trial, weight),) = choose_members(history, PROBLEM, 5)
    assert trial == history.best and weight == 1.0


def test_rows_without_prediction_do_not_weigh():
    history = made_history(0.7, 0.72, 0.71)
    for trial in history:
        trial.predictions[:60] = np.nan
    chosen = choose_members(history, PROBLEM, 3)
    assert np.isclose(sum(weight for _, weight in chosen), 1)


def trial_of(width, number, seconds=0.01):
    proposal = proposals(*[width] * (number + 1))[number]
    return Trial(proposal, score=0.5, stop=1.0, fold_seconds=(seconds,))


def test_refit_trains_all_members_on_all_rows():
    chosen = [(trial_of(128, 0), 0.75), (trial_of(32, 1), 0.25)]
    made = refit(chosen, [], SPACE, PROBLEM)
    assert [member.weight for member in made.ensemble.members] == [0.75, 0.25]
    x = PROBLEM.full.train.x
    predictions = made.ensemble.predict(made.ensemble.modules(x.dtype), x)
    assert (predictions.argmax(axis=1) == PROBLEM.full.train.y).mean() > 0.9
    assert made.failures == () and not made.is_interrupted


def test_refit_leaves_out_what_fails_and_what_has_no_time():
    problem = replace(PROBLEM, deadline=time.monotonic() + 5)
    chosen = [
        (trial_of(256, 0), 0.5),
        (trial_of(128, 1), 0.3),
        (trial_of(128, 2, 60), 0.2),
    ]
    made = refit(chosen, [], Touchy(), problem)
    (member,) = made.ensemble.members
    assert member.weight == 1.0 and member.architecture["width"] == 128
    assert made.failures == ("KeyError: 'no such layer'",)


def test_refit_falls_back_on_spare_trials():
    spare = [trial_of(256, 1), trial_of(128, 2)]
    made = refit([(trial_of(32, 0), 1.0)], spare, Touchy(), PROBLEM)
    assert made.ensemble.members[0].architecture["width"] == 128
    with pytest.raises(SearchFailedError, match="on all rows: out of memory; KeyError"):
        refit([(trial_of(32, 0), 1.0)], spare[:1], Touchy(), PROBLEM)


def test_what_a_gpu_trained_predicts_without_one():
    chosen = [(trial_of(128, 0), 1.0)]
    ensemble = refit(chosen, [], SPACE, PROBLEM).ensemble
    moved = replace(ensemble, device="cuda:3")
    x = PROBLEM.full.train.x
    expected = ensemble.predict(ensemble.modules(x.dtype), x)
    if not torch.cuda.is_available():
        assert moved.place == "cpu"
        found = moved.predict(moved.modules(x.dtype), x)
        np.testing.assert_array_equal(found, expected)
    assert ensemble.place == "cpu"
    assert next(ensemble.members[0].network.module_.parameters()).device.type == "cpu"
