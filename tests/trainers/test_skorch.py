"""The reference trainer: networks are trained one by one, from rung to rung."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from cohorts import assert_same, make_problem, make_trainer, proposals
from sklearn.model_selection import TimeSeriesSplit
from torch import nn

import sknas._parallel.run as run_module
import sknas.trainers._schedule as schedule_module
import sknas.trainers._skorch as skorch_module
from sknas import NASClassifier
from sknas._history import Cause
from sknas.nets import Linear, TableInput
from sknas.spaces import Integer, Space
from sknas.trainers import SkorchTrainer
from sknas.trainers._snapshot import evaluate

RATES = [0.04, 0.01, 0.02, 0.08, 0.005, 0.1, 0.03, 0.06]


class Widths(Space):
    """A user-defined space: one hidden layer and no training choices."""

    @property
    def choices(self):
        return {"width": Integer(4, 64, log=True, default=16)}

    def build(self, architecture, task):
        inputs = TableInput(1, task)
        hidden = Linear(1, inputs.n_features, architecture["width"])
        output = Linear(1, architecture["width"], task.n_outputs)
        return nn.Sequential(inputs, hidden, nn.ReLU(), output)


@pytest.fixture(autouse=True)
def two_rungs(monkeypatch):
    """Set two rungs, at a third and at the end, for trainings of any length."""
    monkeypatch.setattr(schedule_module, "n_cycles", lambda n_steps: 2)
    monkeypatch.setattr("sknas.trainers._skorch_net.n_cycles", lambda n_steps: 2)
    monkeypatch.setattr("sknas.trainers._train_network.n_cycles", lambda n_steps: 2)


def train(proposed, problem, space=None, halving=True, **changes):
    trainer = make_trainer(problem, space, SkorchTrainer(halving=halving), **changes)
    return trainer.train(proposed), trainer


def cohort(problem, n=8):
    return proposals(problem, [{"ntk_lr": rate, "dropout": 0.5} for rate in RATES[:n]])


def test_dropping_trials_does_not_affect_the_promoted_ones():
    problem = make_problem("multiclass", n_steps=30)
    proposed = cohort(problem)
    reduced, _ = train(proposed, problem)
    whole, _ = train(proposed, problem, halving=False)
    rungs = [trial.proposal.rung for trial in reduced]
    assert rungs[0] == 1  # the default is always promoted
    assert rungs[1:].count(1) in (3, 4)
    first = [trial.rung_scores[0] for trial in whole]
    for index, (trial, other) in enumerate(zip(reduced, whole, strict=True)):
        assert trial.status == "ok" and len(other.rung_scores) == 2
        assert trial.rung_scores[0] == first[index]
        if trial.proposal.rung == 1:
            assert_same(trial, other, atol=1e-6)
        else:
            assert trial.stop < 0.5 and trial.seconds < other.seconds


@pytest.mark.parametrize("kind", ["binary", "multilabel", "regression"])
def test_networks_of_a_trial_reproduce_its_predictions(kind):
    problem = make_problem(kind, n_folds=3, n_steps=20)
    (trial,), trainer = train(cohort(problem, 1), problem)
    nets = trainer.to_networks(trial)
    assert len(nets) == len(trial.networks) == 3
    for fold, net in zip(problem.folds, nets, strict=True):
        output = evaluate(net.module_, torch.tensor(fold.valid.x))
        expected = trial.predictions[fold.valid_rows]
        np.testing.assert_allclose(fold.restore(output), expected, atol=1e-5)


def test_trials_keep_the_score_of_the_last_rung_at_the_deadline(monkeypatch):
    problem = make_problem("binary", n_steps=30)
    proposed = cohort(problem, 2)
    whole, _ = train(proposed, problem)
    original, calls = skorch_module.train_network, []

    def slow(training, *arguments):
        calls.append(training.rungs_left)
        if not training.rungs_left:
            training = replace(training, deadline=time.monotonic())
        return original(training, *arguments)

    monkeypatch.setattr(skorch_module, "train_network", slow)
    truncated, _ = train(proposed, problem)
    for trial, other in zip(truncated, whole, strict=True):
        assert trial.status == "ok" and trial.proposal.rung == 0
        assert trial.rung_scores == other.rung_scores[:1]
        assert len(trial.networks) == len(problem.folds)
    # No fold is trained after a truncated one: the trial can't be scored.
    assert calls.count(0) == 2


def test_ctrl_c_after_a_rung_ends_the_search(monkeypatch):
    """The search ends although all trials have a score."""
    original, n_second = skorch_module.train_network, []

    def interrupted(training, *arguments):
        if not training.rungs_left:
            n_second.append(training)
            if len(n_second) == 4:
                raise KeyboardInterrupt
        return original(training, *arguments)

    monkeypatch.setattr(skorch_module, "train_network", interrupted)
    problem = make_problem("binary", n_steps=30)
    trials, _ = train(cohort(problem, 4), problem)
    assert {trial.status for trial in trials} == {"ok"}
    assert Cause.INTERRUPTED in {trial.cause for trial in trials}
    n_second.clear()
    X = np.random.default_rng(0).standard_normal((60, 3))
    model = NASClassifier(
        Widths(), "random", max_trials=20, max_epochs=20, random_state=0, n_jobs=1
    ).fit(X, X[:, 0] > 0)
    assert model.stop_reason_ == "interrupted" and model.n_trials_ < 20


def test_a_rung_is_not_trained_twice(monkeypatch):
    problem = make_problem("binary", n_steps=30)
    steps = []
    original = skorch_module.train_network

    def recording(training, rows, valid, start):
        trained = original(training, rows, valid, start)
        before = 0 if start is None else start.step
        steps.append(trained.state.step - before)
        return trained

    monkeypatch.setattr(skorch_module, "train_network", recording)
    train(cohort(problem, 2), problem)
    n_steps = schedule_module.Schedule.of(
        cohort(problem, 1)[0].architecture, problem
    ).n_steps
    assert sum(steps) == 2 * len(problem.folds) * n_steps


def test_small_folds_have_as_many_snapshots_as_large_ones():
    """With bounded epochs, small folds have few steps."""
    X = np.random.default_rng(0).standard_normal((900, 3))
    y = X[:, 0] > 0
    cv = TimeSeriesSplit(5)
    model = NASClassifier(
        Widths(), "random", max_trials=2, max_epochs=3, cv=cv, random_state=0, n_jobs=1
    ).fit(X, y)
    for trial in model.history_:
        assert len(trial.rung_scores) == trial.proposal.rung + 1 == 2
        assert len(trial.fold_scores) == 5


@pytest.mark.process
def test_results_do_not_depend_on_the_number_of_workers(monkeypatch):
    problem = make_problem("binary", n_steps=200)  # a worker has two rungs, too
    proposed = cohort(problem, 4)
    alone, _ = train(proposed, problem)
    monkeypatch.setattr(run_module, "WORTH_WORKERS", 0.0)
    monkeypatch.setattr(run_module, "ROOM_FOR_WORKERS", 0.0)
    together, _ = train(proposed, problem, n_jobs=2)
    for one, other in zip(alone, together, strict=True):
        assert_same(one, other, atol=1e-6)


def test_user_defined_spaces_have_successive_halving_and_fold_networks():
    X = np.random.default_rng(0).standard_normal((300, 3))
    y = X[:, 0] > X[:, 1]
    model = NASClassifier(
        Widths(), "random", max_trials=8, max_epochs=120, random_state=0, n_jobs=1
    ).fit(X, y)
    assert set(model.cv_results_["rung"]) == {0, 1}
    assert len(model.ensemble_.encodings) == 3
    assert model.score(X, y) > 0.85
    assert (model.cv_results_["n_params"] > 0).all()


def test_parameters_of_the_trained_network_are_counted():

    class Drawn(Widths):
        def build(self, architecture, task):
            width = architecture["width"]
            net = super().build(architecture, task)
            assert float(net[1].weight.detach().std()) < width  # needs real memory
            return net

    X = np.random.default_rng(0).standard_normal((60, 3))
    model = NASClassifier(Drawn(), max_trials=1, max_epochs=2, random_state=0)
    assert model.fit(X, X[:, 0] > 0).cv_results_["n_params"][0] > 0
