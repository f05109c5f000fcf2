"""The reference trainer: one network after the other, halved like a cohort."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from cohorts import assert_same, make_problem, proposals, space_of
from sklearn.model_selection import TimeSeriesSplit
from torch import nn

import sknas._parallel.run as workers
import sknas.trainers._schedule as plan_module
import sknas.trainers._skorch as skorch_module
from sknas import NASClassifier
from sknas.nets import Linear, TableInput
from sknas.spaces import Integer, Space
from sknas.trainers import SkorchTrainer
from sknas.trainers._skorch_net import evaluate

RATES = [0.04, 0.01, 0.02, 0.08, 0.005, 0.1, 0.03, 0.06]


class Widths(Space):
    """A user's space: one hidden layer, and no training choices at all."""

    @property
    def choices(self):
        return {"width": Integer(4, 64, log=True, default=16)}

    def build(self, architectures, task):
        (architecture,) = architectures
        inputs = TableInput(1, task)
        hidden = Linear(1, inputs.n_features, architecture["width"])
        output = Linear(1, architecture["width"], task.n_outputs)
        return nn.Sequential(inputs, hidden, nn.ReLU(), output)


@pytest.fixture(autouse=True)
def two_rungs(monkeypatch):
    """Rungs at a third and at the end, however short a training is."""
    monkeypatch.setattr(plan_module, "n_cycles", lambda n_steps: 2)
    monkeypatch.setattr("sknas.trainers._skorch_net.n_cycles", lambda n_steps: 2)


def train(asked, problem, space=None, halving=True):
    trainer = SkorchTrainer(halving=halving)
    trainer.setup(space_of(problem) if space is None else space)
    return trainer.train(asked, problem), trainer


def cohort(problem, n=8):
    return proposals(problem, [{"ntk_lr": rate, "dropout": 0.5} for rate in RATES[:n]])


def test_weak_trials_are_dropped_and_the_others_go_on_as_if_alone():
    problem = make_problem("multiclass", n_steps=30)
    asked = cohort(problem)
    halved, _ = train(asked, problem)
    whole, _ = train(asked, problem, halving=False)
    rungs = [trial.proposal.rung for trial in halved]
    assert rungs[0] == 1  # the default network is always in the comparison
    assert rungs[1:].count(1) in (3, 4)
    first = [trial.rung_scores[0] for trial in whole]
    for place, (trial, other) in enumerate(zip(halved, whole, strict=True)):
        assert trial.status == "ok" and len(other.rung_scores) == 2
        assert trial.rung_scores[0] == first[place]
        if trial.proposal.rung == 1:
            assert_same(trial, other, atol=1e-6)
        else:
            assert trial.stop < 0.5 and trial.seconds < other.seconds


@pytest.mark.parametrize("kind", ["binary", "multilabel", "regression"])
def test_the_networks_of_a_trial_give_its_predictions(kind):
    problem = make_problem(kind, n_folds=3, n_steps=20)
    (trial,), trainer = train(cohort(problem, 1), problem)
    nets = trainer.rebuilt(trial, problem)
    assert len(nets) == len(trial.networks) == 3
    for fold, net in zip(problem.folds, nets, strict=True):
        output = evaluate(net.module_, torch.tensor(fold.valid.x))
        expected = trial.predictions[fold.valid_rows]
        np.testing.assert_allclose(fold.restore(output), expected, atol=1e-5)


def test_time_that_ends_leaves_the_rung_before(monkeypatch):
    problem = make_problem("binary", n_steps=30)
    asked = cohort(problem, 2)
    whole, _ = train(asked, problem)
    plain, calls = skorch_module.train_network, []

    def slow(training, *told):
        calls.append(training.rungs_left)
        if not training.rungs_left:
            training = replace(training, deadline=time.monotonic())
        return plain(training, *told)

    monkeypatch.setattr(skorch_module, "train_network", slow)
    cut, _ = train(asked, problem)
    for trial, other in zip(cut, whole, strict=True):
        assert trial.status == "ok" and trial.proposal.rung == 0
        assert trial.rung_scores == other.rung_scores[:1]
        assert len(trial.networks) == len(problem.folds)
    # The first fold that is cut ends it: the others could not be scored.
    assert calls.count(0) == 2


def test_ctrl_c_after_a_rung_ends_the_search(monkeypatch):
    """The trial has a score, and the search hears of it all the same."""
    plain, n_second = skorch_module.train_network, []

    def interrupted(training, *told):
        if not training.rungs_left:
            n_second.append(training)
            if len(n_second) == 4:
                raise KeyboardInterrupt
        return plain(training, *told)

    monkeypatch.setattr(skorch_module, "train_network", interrupted)
    problem = make_problem("binary", n_steps=30)
    trials, _ = train(cohort(problem, 4), problem)
    assert {trial.status for trial in trials} == {"ok"}
    assert "interrupted" in {trial.reason for trial in trials}
    n_second.clear()
    X = np.random.default_rng(0).standard_normal((60, 3))
    model = NASClassifier(
        Widths(), "random", max_trials=20, max_epochs=20, random_state=0, n_jobs=1
    ).fit(X, X[:, 0] > 0)
    assert model.stop_reason_ == "interrupted" and model.n_trials_ < 20


def test_a_rung_is_not_trained_twice(monkeypatch):
    problem = make_problem("binary", n_steps=30)
    steps = []
    plain = skorch_module.train_network

    def noting(training, rows, valid, start):
        trained = plain(training, rows, valid, start)
        before = 0 if start is None else start.step
        steps.append(trained.checkpoint.step - before)
        return trained

    monkeypatch.setattr(skorch_module, "train_network", noting)
    train(cohort(problem, 2), problem)
    n_steps = plan_module.Schedule.of(
        cohort(problem, 1)[0].architecture, problem
    ).n_steps
    assert sum(steps) == 2 * len(problem.folds) * n_steps


def test_folds_of_any_size_are_looked_at_at_the_same_points():
    """Bounds of epochs give small folds few steps."""
    X = np.random.default_rng(0).standard_normal((900, 3))
    y = X[:, 0] > 0
    cv = TimeSeriesSplit(5)
    model = NASClassifier(
        Widths(), "random", max_trials=2, max_epochs=3, cv=cv, random_state=0, n_jobs=1
    ).fit(X, y)
    for trial in model.history_:
        assert len(trial.rung_scores) == trial.proposal.rung + 1 == 2
        assert len(trial.fold_scores) == 5


def test_workers_give_what_one_process_gives(monkeypatch):
    problem = make_problem("binary", n_steps=200)  # two rungs in a worker, too
    asked = cohort(problem, 4)
    alone, _ = train(asked, problem)
    monkeypatch.setattr(workers, "WORTH_WORKERS", 0.0)
    monkeypatch.setattr(workers, "ROOM_FOR_WORKERS", 0.0)
    together, _ = train(asked, replace(problem, n_jobs=2))
    for one, other in zip(alone, together, strict=True):
        assert_same(one, other, atol=1e-6)


def test_a_space_of_the_user_is_halved_and_its_folds_predict():
    X = np.random.default_rng(0).standard_normal((300, 3))
    y = X[:, 0] > X[:, 1]
    model = NASClassifier(
        Widths(), "random", max_trials=8, max_epochs=120, random_state=0, n_jobs=1
    ).fit(X, y)
    assert set(model.cv_results_["rung"]) == {0, 1}
    assert len(model.ensemble_.encodings) == 3
    assert model.score(X, y) > 0.85
    assert (model.cv_results_["n_params"] > 0).all()


def test_a_build_that_counts_no_rows_without_memory_still_trains():
    """Costs are counted on the network that was trained, not on a second one."""

    class Drawn(Widths):
        def build(self, architectures, task):
            width = architectures[0]["width"]
            net = super().build(architectures, task)
            assert float(net[1].weight.detach().std()) < width  # needs real memory
            return net

    X = np.random.default_rng(0).standard_normal((60, 3))
    model = NASClassifier(Drawn(), max_trials=1, max_epochs=2, random_state=0)
    assert model.fit(X, X[:, 0] > 0).cv_results_["n_params"][0] > 0
