"""Gradient search on tables: results, and the estimators end to end."""

import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sknas import NASClassifier, NASRegressor
from sknas._problem import Fold, Problem, Rows, TaskSpec
from sknas.spaces import TableSpace
from sknas.strategies import GradientStrategy
from sknas.strategies.gradient.supernet_trainer import SupernetTrainer

N = 120
X = np.random.default_rng(0).normal(size=(N, 4))
y = (X[:, 0] + X[:, 1] > 0).astype(int)
# Networks of a few units. The portfolio has only the default architecture.
SPACE = TableSpace(
    depth=(0, 2),
    width=(4, 8),
    activation=("relu", "tanh"),
    n_bins=(8,),
    optimizer=("adamw",),
    recipe=("uniform",),
)
QUICK = {
    "search_space": SPACE,
    "strategy": "gradient",
    "max_trials": 4,
    "max_epochs": 3,
    "cv": 2,
    "n_jobs": 1,
    "random_state": 0,
}


def quick(kind=NASClassifier, **parameters):
    return kind(**{**QUICK, **parameters})


# ------------------------------------------------------------------------------ results


def problem_of(function, n=1_000, n_steps=200, **changes):
    """Return a regression problem: the sum of a function of both features."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (n, 2)).astype(np.float32)
    y = function(x).sum(axis=1, keepdims=True).astype(np.float32)
    y = (y - y.mean()) / y.std()
    edges = np.quantile(x, np.linspace(0, 1, 49), axis=0).T.astype(np.float32)
    task = TaskSpec("regression", 1, n, n_numeric=2, edges=edges)
    rows = Rows(x, y, np.ones(n))
    fold = Fold(task, rows, Rows(x[:1], y[:1], np.ones(1)), np.arange(1), np.asarray)
    values = {"task": task, "folds": (fold,), "n_rows": n, "n_steps": n_steps}
    return Problem(**values | changes)


def found(strategy, space, problem):
    """Return the first proposal of a strategy."""
    strategy = clone(strategy)
    strategy.setup(space.for_task(problem.task), problem, np.random.default_rng(0))
    return strategy.propose(1)[0].architecture


PLAIN = {"activation": ("relu",), "normalisation": ("none",), "block": ("plain",)}


def test_an_embedding_is_found_if_plain_numbers_do_not_suffice():
    space = TableSpace(
        depth=(0, 0), numeric_embedding=("none", "piecewise"), n_bins=(16,)
    )
    problem = problem_of(np.abs)
    assert found(GradientStrategy(), space, problem)["numeric_embedding"] == "piecewise"


def test_depth_is_found_if_a_linear_network_does_not_suffice():
    space = TableSpace(depth=(0, 1), width=(32,), numeric_embedding=("none",), **PLAIN)
    problem = problem_of(np.abs)
    assert found(GradientStrategy(), space, problem)["depth"] == 1


def test_a_width_is_found_if_few_units_do_not_suffice():
    space = TableSpace(
        depth=(1, 1), width=(1, 64), numeric_embedding=("none",), **PLAIN
    )
    problem = problem_of(lambda x: np.sin(3 * x))
    assert found(GradientStrategy(), space, problem)["width"] == 64


def test_an_activation_is_found():
    """The target is a ReLU or a tanh of each feature."""
    space = TableSpace(
        depth=(1, 1),
        width=(2,),
        activation=("relu", "tanh"),
        normalisation=("none",),
        block=("plain",),
        numeric_embedding=("none",),
    )
    relu_problem = problem_of(lambda x: np.maximum(x, 0))
    tanh_problem = problem_of(lambda x: np.tanh(3 * x))
    strategy = GradientStrategy(lr=0.02)
    assert found(strategy, space, relu_problem)["activation"] == "relu"
    assert found(strategy, space, tanh_problem)["activation"] == "tanh"


def test_same_seed_same_architectures():
    space, problem = SPACE, problem_of(np.abs, n=200, n_steps=20)
    first, again = (found(GradientStrategy(), space, problem) for _ in range(2))
    assert first == again


def test_batch_size_depends_on_the_number_of_rows():
    problem = problem_of(np.abs, n=300, n_steps=1)
    for n_rows, size in ((100, 256), (1_000, 64), (5_000, 128)):
        task = replace(problem.task, n_rows=n_rows)
        strategy = GradientStrategy("pc-darts")
        strategy.setup(SPACE, replace(problem, task=task), np.random.default_rng(0))
        assert strategy.settings_.batch_size == size
        assert strategy.settings_.lr == 1e-3


def test_max_epochs_of_the_estimator_bounds_the_steps():
    problem = problem_of(np.abs, n=320, n_steps=500, max_epochs=2)
    strategy = GradientStrategy()
    strategy.setup(SPACE, problem, np.random.default_rng(0))
    strategy.propose(1)
    assert len(strategy.entropy_) <= 11  # 2 epochs of 5 batches


def test_a_space_without_a_supernet_raises_an_error_before_training():
    class Own(TableSpace):
        def build(self, architecture, task):
            raise AssertionError("is never built")

    with pytest.raises(ValueError, match="Own has no supernet"):
        quick(search_space=Own()).fit(X, y)


# ---------------------------------------------------------------------- the estimators


def is_derived(estimator):
    """Return True if all trials but the default were proposed by the strategy."""
    origins = [trial.proposal.origin for trial in estimator.history_]
    return origins[0] == "default" and origins.count("proposed") == len(origins) - 1


@pytest.mark.parametrize("kind", [NASClassifier, NASRegressor])
def test_proposals_are_trained_and_ensembled(kind):
    values = X[:, 0] + X[:, 1] ** 2
    target = y if kind is NASClassifier else values
    estimator = quick(kind, max_trials=6, max_epochs=10).fit(X, target)
    assert is_derived(estimator) and estimator.n_trials_ == 6
    assert estimator.score(X, target) > 0.3
    assert len(estimator.ensemble_.members) >= 1
    architectures = {trial.architecture.key for trial in estimator.history_}
    assert len(architectures) == 6


@pytest.mark.parametrize("max_trials", [1, 2, 3])
def test_max_trials_is_met(max_trials, monkeypatch):
    trained = []
    original = SupernetTrainer.run
    monkeypatch.setattr(
        SupernetTrainer, "run", lambda b: trained.append(b) or original(b)
    )
    estimator = quick(max_trials=max_trials).fit(X, y)
    assert estimator.n_trials_ == max_trials
    # The first trial is the default architecture.
    assert len(trained) == (max_trials > 1)


def test_same_random_state_same_predictions_whatever_n_jobs():
    predictions = [
        quick(n_jobs=n_jobs, random_state=3).fit(X, y).predict_proba(X)
        for n_jobs in (1, 1, 2)
    ]
    np.testing.assert_array_equal(predictions[0], predictions[1])
    np.testing.assert_array_equal(predictions[0], predictions[2])


def test_max_time_is_met():
    """A supernet that would train for hours leaves time for its proposals."""
    started = time.monotonic()
    estimator = quick(
        strategy=GradientStrategy(n_epochs=1_000_000), max_trials=None, max_time=3.0
    )
    estimator.fit(X, y)
    assert time.monotonic() - started < 3.5
    assert is_derived(estimator) and estimator.n_trials_ > 1


def test_ctrl_c_in_the_training_of_the_supernet_keeps_the_trials(monkeypatch):
    def interrupt(trainer):
        raise KeyboardInterrupt

    monkeypatch.setattr(SupernetTrainer, "run", interrupt)
    estimator = quick().fit(X, y)
    assert estimator.stop_reason_ == "interrupted" and estimator.n_trials_ == 1
    assert estimator.predict(X).shape == (N,)


def test_several_labels_and_targets_are_accepted():
    labels = np.column_stack([y, X[:, 2] > 0]).astype(int)
    estimator = quick().fit(X, labels)
    assert estimator.predict(X).shape == (N, 2) and is_derived(estimator)
    values = np.column_stack([X[:, 0], X[:, 1] ** 2])
    estimator = quick(NASRegressor).fit(X, values)
    assert estimator.predict(X).shape == (N, 2) and is_derived(estimator)


def test_sample_weights_and_groups_are_accepted():
    rng = np.random.default_rng(1)
    groups = rng.integers(0, 12, N)
    weight = rng.uniform(0.1, 2.0, N)
    weighted = quick().fit(X, y, sample_weight=weight, groups=groups)
    plain = quick().fit(X, y)
    assert is_derived(weighted)
    assert not np.array_equal(weighted.predict_proba(X), plain.predict_proba(X))


@pytest.mark.parametrize(
    "parameters",
    [
        {"class_weight": {0: 30.0}},
        {"scoring": "balanced_accuracy", "ensemble_size": 2},
        {"constraints": {"n_params": 430}},
    ],
    ids=lambda parameters: next(iter(parameters)),
)
def test_parameters_of_the_estimator_are_respected(parameters):
    estimator = quick(**parameters).fit(X, y)
    assert is_derived(estimator)
    if "scoring" in parameters:
        assert (estimator.cv_results_["mean_test_score"] <= 1.0).all()
        assert len(estimator.ensemble_) <= 2
    if "class_weight" in parameters:
        usual = quick().fit(X, y).predict(X)
        assert (estimator.predict(X) == 0).mean() > (usual == 0).mean()
    if "constraints" in parameters:
        assert (estimator.cv_results_["n_params"] <= 430).all()


def test_estimator_works_in_pipelines_and_grid_searches():
    model = make_pipeline(StandardScaler(), quick(max_trials=2, max_epochs=1))
    grid = GridSearchCV(model, {"nasclassifier__max_epochs": [1, 2]}, cv=2)
    assert grid.fit(X, y).best_estimator_[-1].strategy_.derived_
    assert len(cross_val_score(model, X, y, cv=2)) == 2


def test_groups_are_not_divided_by_the_bilevel_split(monkeypatch):
    """The first column of the table is the group."""
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 60, 1_300)
    table = np.column_stack([groups, rng.normal(size=(1_300, 2))])
    trained, original = [], SupernetTrainer.run
    monkeypatch.setattr(
        SupernetTrainer, "run", lambda b: trained.append(b) or original(b)
    )
    parameters = {"max_trials": 2, "max_epochs": 1}
    quick(strategy=GradientStrategy("darts"), **parameters).fit(
        table, table[:, 1] > 0, groups=groups
    )
    (split,) = (trainer.split for trainer in trained)
    first, rest = (
        set(split.x[rows, 0].tolist()) for rows in (split.weight_rows, split.arch_rows)
    )
    assert len(first) + len(rest) == 30 and not first & rest  # 2 folds


def test_sample_weights_reach_the_supernet():
    """Rows of weight zero are ignored: only they are non-linear here."""
    problem = problem_of(
        lambda x: np.where(x[:, :1] > 0, 5 * np.abs(x), x), n=500, n_steps=100
    )
    fold = problem.folds[0]
    rows = fold.train
    space = TableSpace(depth=(0, 1), width=(32,), numeric_embedding=("none",), **PLAIN)
    shares = []
    for weight in (np.ones(len(rows)), (rows.x[:, 0] <= 0).astype(float)):
        train = replace(rows, weight=weight)
        weighted = replace(problem, folds=(replace(fold, train=train),))
        strategy = GradientStrategy("darts")
        strategy.setup(space, weighted, np.random.default_rng(0))
        strategy.propose(1)
        shares.append(strategy.trajectory_["depth"][-1, 0])
    assert shares[1] > shares[0]


def test_frames_with_categories_and_missing_values_are_accepted(mixed_frame):
    rng = np.random.default_rng(0)
    estimator = quick().fit(mixed_frame, rng.integers(0, 3, len(mixed_frame)))
    assert is_derived(estimator)
    assert estimator.predict_proba(mixed_frame).shape == (len(mixed_frame), 3)


@pytest.mark.parametrize(
    "table",
    [
        np.random.default_rng(0).normal(size=(20, 3)),
        np.random.default_rng(0).normal(size=(60, 1)),
        np.ones((40, 2)),
        np.column_stack([np.ones(40), np.arange(40) % 2, np.full(40, np.nan)]),
        pd.DataFrame({"word": list("abcd") * 10}),
    ],
    ids=["20 rows", "one column", "constant", "flags and gaps", "words"],
)
@pytest.mark.parametrize("kind", [NASClassifier, NASRegressor])
def test_tiny_and_constant_tables_are_accepted(table, kind):
    target = np.arange(len(table)) % 2
    estimator = quick(kind).fit(table, target)
    assert is_derived(estimator) and len(estimator.predict(table)) == len(table)


def test_default_space_is_searched():
    estimator = quick(search_space="table", max_trials=4).fit(X, y)
    origins = [trial.proposal.origin for trial in estimator.history_]
    assert origins == ["default", *["proposed"] * 3]
