"""Search by gradient on tables: what it finds, and the estimators end to end."""

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
# A few units, and the only known network is the default one.
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


# ------------------------------------------------------------------------ what is found


def problem_of(answer, n=1_000, n_steps=200, **changes):
    """A regression of the sum of what a function answers to two features."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (n, 2)).astype(np.float32)
    y = answer(x).sum(axis=1, keepdims=True).astype(np.float32)
    y = (y - y.mean()) / y.std()
    edges = np.quantile(x, np.linspace(0, 1, 49), axis=0).T.astype(np.float32)
    task = TaskSpec("regression", 1, n, n_numeric=2, edges=edges)
    rows = Rows(x, y, np.ones(n))
    fold = Fold(task, rows, Rows(x[:1], y[:1], np.ones(1)), np.arange(1), np.asarray)
    told = {"task": task, "folds": (fold,), "n_rows": n, "n_steps": n_steps}
    return Problem(**told | changes)


def found(strategy, space, problem):
    """What a strategy proposes first."""
    strategy = clone(strategy)
    strategy.setup(space.for_task(problem.task), problem, np.random.default_rng(0))
    return strategy.propose(1)[0].architecture


PLAIN = {"activation": ("relu",), "normalisation": ("none",), "block": ("plain",)}


def test_an_embedding_is_found_where_numbers_alone_do_not_do():
    space = TableSpace(
        depth=(0, 0), numeric_embedding=("none", "piecewise"), n_bins=(16,)
    )
    bent = problem_of(np.abs)
    assert found(GradientStrategy(), space, bent)["numeric_embedding"] == "piecewise"


def test_depth_is_found_where_a_line_does_not_do():
    space = TableSpace(depth=(0, 1), width=(32,), numeric_embedding=("none",), **PLAIN)
    bent = problem_of(np.abs)
    assert found(GradientStrategy(), space, bent)["depth"] == 1


def test_a_width_is_found_where_few_units_do_not_do():
    space = TableSpace(
        depth=(1, 1), width=(1, 64), numeric_embedding=("none",), **PLAIN
    )
    waves = problem_of(lambda x: np.sin(3 * x))
    assert found(GradientStrategy(), space, waves)["width"] == 64


def test_an_activation_is_found():
    """A product of one unit: a straight line, a bend, or an S."""
    space = TableSpace(
        depth=(1, 1),
        width=(2,),
        activation=("relu", "tanh"),
        normalisation=("none",),
        block=("plain",),
        numeric_embedding=("none",),
    )
    bent = problem_of(lambda x: np.maximum(x, 0))
    flat = problem_of(lambda x: np.tanh(3 * x))
    strategy = GradientStrategy(lr=0.02)
    assert found(strategy, space, bent)["activation"] == "relu"
    assert found(strategy, space, flat)["activation"] == "tanh"


def test_same_seed_same_architectures():
    space, problem = SPACE, problem_of(np.abs, n=200, n_steps=20)
    first, again = (found(GradientStrategy(), space, problem) for _ in range(2))
    assert first == again


def test_batches_are_those_of_the_table():
    problem = problem_of(np.abs, n=300, n_steps=1)
    for n_rows, size in ((100, 256), (1_000, 64), (5_000, 128)):
        task = replace(problem.task, n_rows=n_rows)
        strategy = GradientStrategy("pc-darts")
        strategy.setup(SPACE, replace(problem, task=task), np.random.default_rng(0))
        assert strategy.settings_.batch_size == size
        assert strategy.settings_.lr == 1e-3


def test_epochs_of_the_estimator_bound_the_steps():
    problem = problem_of(np.abs, n=320, n_steps=500, max_epochs=2)
    strategy = GradientStrategy()
    strategy.setup(SPACE, problem, np.random.default_rng(0))
    strategy.propose(1)
    assert len(strategy.entropy_) <= 11  # 2 epochs of 5 batches


def test_a_space_of_other_networks_is_refused_before_anything_is_trained():
    class Own(TableSpace):
        def build(self, architectures, task):
            raise AssertionError("is never built")

    with pytest.raises(ValueError, match="Own has no relaxed network"):
        quick(search_space=Own()).fit(X, y)


# ---------------------------------------------------------------------- the estimators


def is_derived(estimator):
    """Whether the trials after the default one came of the strategy."""
    origins = [trial.proposal.origin for trial in estimator.history_]
    return origins[0] == "default" and origins.count("proposed") == len(origins) - 1


@pytest.mark.parametrize("kind", [NASClassifier, NASRegressor])
def test_it_is_trained_and_ensembled_like_all_others(kind):
    values = X[:, 0] + X[:, 1] ** 2
    target = y if kind is NASClassifier else values
    estimator = quick(kind, max_trials=6, max_epochs=10).fit(X, target)
    assert is_derived(estimator) and estimator.n_trials_ == 6
    assert estimator.score(X, target) > 0.3
    assert len(estimator.ensemble_.members) >= 1
    architectures = {trial.architecture.key for trial in estimator.history_}
    assert len(architectures) == 6


@pytest.mark.parametrize("max_trials", [1, 2, 3])
def test_few_trials_are_kept(max_trials, monkeypatch):
    trained = []
    usual = SupernetTrainer.run
    monkeypatch.setattr(SupernetTrainer, "run", lambda b: trained.append(b) or usual(b))
    estimator = quick(max_trials=max_trials).fit(X, y)
    assert estimator.n_trials_ == max_trials
    assert len(trained) == (max_trials > 1)  # not where nothing can be proposed


def test_same_random_state_same_predictions_whatever_n_jobs():
    answers = [
        quick(n_jobs=n_jobs, random_state=3).fit(X, y).predict_proba(X)
        for n_jobs in (1, 1, 2)
    ]
    np.testing.assert_array_equal(answers[0], answers[1])
    np.testing.assert_array_equal(answers[0], answers[2])


def test_time_is_kept():
    """A relaxed training that would take hours leaves time for what it finds."""
    started = time.monotonic()
    estimator = quick(
        strategy=GradientStrategy(n_epochs=1_000_000), max_trials=None, max_time=3.0
    )
    estimator.fit(X, y)
    assert time.monotonic() - started < 3.5
    assert is_derived(estimator) and estimator.n_trials_ > 1


def test_ctrl_c_in_the_relaxed_training_keeps_what_was_found(monkeypatch):
    def interrupt(training):
        raise KeyboardInterrupt

    monkeypatch.setattr(SupernetTrainer, "run", interrupt)
    estimator = quick().fit(X, y)
    assert estimator.stop_reason_ == "interrupted" and estimator.n_trials_ == 1
    assert estimator.predict(X).shape == (N,)


def test_labels_and_targets_may_be_several():
    labels = np.column_stack([y, X[:, 2] > 0]).astype(int)
    estimator = quick().fit(X, labels)
    assert estimator.predict(X).shape == (N, 2) and is_derived(estimator)
    values = np.column_stack([X[:, 0], X[:, 1] ** 2])
    estimator = quick(NASRegressor).fit(X, values)
    assert estimator.predict(X).shape == (N, 2) and is_derived(estimator)


def test_weights_and_groups():
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
def test_parameters_hold(parameters):
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


def test_a_pipeline_a_grid_and_a_cross_validation():
    model = make_pipeline(StandardScaler(), quick(max_trials=2, max_epochs=1))
    grid = GridSearchCV(model, {"nasclassifier__max_epochs": [1, 2]}, cv=2)
    assert grid.fit(X, y).best_estimator_[-1].strategy_.derived_
    assert len(cross_val_score(model, X, y, cv=2)) == 2


def test_groups_are_not_parted_between_weights_and_options(monkeypatch):
    """The first column numbers them, so that encoded rows tell their group."""
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 60, 1_300)
    table = np.column_stack([groups, rng.normal(size=(1_300, 2))])
    trained, usual = [], SupernetTrainer.run
    monkeypatch.setattr(SupernetTrainer, "run", lambda b: trained.append(b) or usual(b))
    told = {"strategy": GradientStrategy("darts"), "max_trials": 2, "max_epochs": 1}
    quick(**told).fit(table, table[:, 1] > 0, groups=groups)
    (halves,) = (training.halves for training in trained)
    first, rest = (
        set(halves.x[rows, 0].tolist())
        for rows in (halves.weight_rows, halves.arch_rows)
    )
    assert len(first) + len(rest) == 30 and not first & rest  # 2 folds


def test_weights_reach_the_relaxed_network():
    """Rows without weight may be anything: here they ask for a bend."""
    problem = problem_of(
        lambda x: np.where(x[:, :1] > 0, 5 * np.abs(x), x), n=500, n_steps=100
    )
    fold = problem.folds[0]
    rows = fold.train
    space = TableSpace(depth=(0, 1), width=(32,), numeric_embedding=("none",), **PLAIN)
    shares = []
    for weight in (np.ones(len(rows)), (rows.x[:, 0] <= 0).astype(float)):
        train = replace(rows, weight=weight)
        told = replace(problem, folds=(replace(fold, train=train),))
        strategy = GradientStrategy("darts")
        strategy.setup(space, told, np.random.default_rng(0))
        strategy.propose(1)
        shares.append(strategy.trajectory_["depth"][-1, 0])
    assert shares[1] > shares[0]


def test_frames_with_categories_and_gaps(mixed_frame):
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
def test_tables_of_little_use(table, kind):
    target = np.arange(len(table)) % 2
    estimator = quick(kind).fit(table, target)
    assert is_derived(estimator) and len(estimator.predict(table)) == len(table)


def test_the_whole_default_space():
    estimator = quick(search_space="table", max_trials=4).fit(X, y)
    origins = [trial.proposal.origin for trial in estimator.history_]
    assert origins == ["default", *["proposed"] * 3]
