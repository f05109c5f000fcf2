"""Estimators whose networks of all folds are trained as one."""

import pickle
import time

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import make_classification, make_regression
from sklearn.exceptions import NotFittedError
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    log_loss,
    mean_absolute_error,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sknas import NASClassifier, NASRegressor
from sknas._ensemble.refit import train_network
from sknas._ensemble.selection import choose_members
from sknas.exceptions import UnseenValuesWarning
from sknas.nets import Linear, TableInput
from sknas.spaces import Categorical, Space, TableSpace
from sknas.trainers import PopulationTrainer, SkorchTrainer, TensorNet

KINDS = [NASClassifier, NASRegressor]
# With three folds, each trains on enough rows that its networks need no refit.
TINY = {"max_trials": 2, "max_epochs": 3, "cv": 3, "n_jobs": 1, "random_state": 0}
N = 150
X, CLASSES = make_classification(N, 5, n_informative=3, random_state=0)
VALUES = make_regression(N, 5, random_state=0)[1] + 7.0
LABELS = np.column_stack([CLASSES, X[:, 0] > 0]).astype(int)


class Widths(Space):
    """A custom space: one hidden layer."""

    @property
    def choices(self):
        return {"width": Categorical((2, 4, 8), default=4)}

    def build(self, architecture, task):
        width = architecture["width"]
        inputs = TableInput(1, task)
        first = Linear(1, inputs.n_features, width)
        return nn.Sequential(inputs, first, nn.ReLU(), Linear(1, width, task.n_outputs))


def tiny(kind=NASClassifier, **parameters):
    return kind(**{**TINY, **parameters})


def target(kind):
    return CLASSES if kind is NASClassifier else VALUES


def answers(estimator, table=X):
    return getattr(estimator, "predict_proba", estimator.predict)(table)


def same_answers(one, other, table=X):
    np.testing.assert_array_equal(answers(one, table), answers(other, table))


# Choice of the trainer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, PopulationTrainer),
        ({"search_space": "table"}, PopulationTrainer),
        ({"search_space": TableSpace(depth=(0, 1))}, PopulationTrainer),
        ({"trainer": "skorch"}, SkorchTrainer),
        ({"search_space": Widths()}, SkorchTrainer),
    ],
    ids=["default", "table", "table space", "asked for", "own space"],
)
def test_trainer_depends_on_the_space_and_the_parameter(
    kind, parameters, expected, monkeypatch
):
    trained = []
    for cls in (PopulationTrainer, SkorchTrainer):

        def spy(self, *arguments, train=cls.train):
            trained.append(type(self))
            return train(self, *arguments)

        monkeypatch.setattr(cls, "train", spy)
    estimator = tiny(kind, **parameters).fit(X, target(kind))
    assert set(trained) == {expected}
    assert isinstance(estimator.network_, TensorNet)
    assert estimator.network_ is estimator.ensemble_.members[0].networks[0]
    assert answers(estimator).shape[0] == N


# Networks that predict


@pytest.fixture
def refitted(monkeypatch):
    """Numbers of rows of the trainings on all rows."""
    sizes = []

    def train(training, rows):
        sizes.append(float(rows.weight.sum()))
        return train_network(training, rows)

    monkeypatch.setattr("sknas._ensemble.refit.train_network", train)
    return sizes


@pytest.mark.parametrize("kind", KINDS)
def test_an_ensemble_of_one_is_trained_once_on_all_rows(kind, refitted):
    estimator = tiny(kind, ensemble_size=1, max_trials=3).fit(X, target(kind))
    (member,) = estimator.ensemble_.members
    assert len(member.networks) == len(estimator.ensemble_.encodings) == 1
    assert member.architecture == estimator.best_architecture_
    assert refitted == [N]


@pytest.mark.parametrize("size", [2, 3, None])
@pytest.mark.parametrize("kind", KINDS)
def test_ensemble_consists_of_the_networks_of_the_folds(kind, size, refitted):
    estimator = tiny(kind, ensemble_size=size, max_trials=4).fit(X, target(kind))
    ensemble = estimator.ensemble_
    assert 1 <= len(ensemble) == len(ensemble.members) <= (size or 4)
    assert [len(member.networks) for member in ensemble.members] == [3] * len(ensemble)
    assert sum(member.weight for member in ensemble.members) == pytest.approx(1)
    architectures = [member.architecture for member in ensemble.members]
    assert len(set(architectures)) == len(ensemble)
    assert refitted == []


def test_members_are_refitted_if_folds_train_on_few_rows(refitted):
    estimator = tiny(cv=2, ensemble_size=2).fit(X, CLASSES)
    assert refitted == [N] * len(refitted) and refitted
    assert {len(member.networks) for member in estimator.ensemble_.members} == {1}


@pytest.mark.parametrize("size", [1, None])
def test_predictions_stay_within_the_training_targets(size):
    regressor = tiny(NASRegressor, ensemble_size=size, max_epochs=20).fit(X, VALUES)
    predicted = regressor.predict(np.vstack([X, 100 * X, -100 * X]))
    least, most = VALUES.min(), VALUES.max()
    assert least - 1e-9 <= predicted.min() < predicted.max() <= most + 1e-9


# Scores


def own_accuracy(estimator, X, y):
    return accuracy_score(y, estimator.predict(X))


def own_error(estimator, X, y):
    return -mean_absolute_error(y, estimator.predict(X))


SCORERS = {
    "accuracy": lambda y, p: accuracy_score(y, p.argmax(1)),
    "balanced_accuracy": lambda y, p: balanced_accuracy_score(y, p.argmax(1)),
    "f1": lambda y, p: f1_score(y, p.argmax(1)),
    own_accuracy: lambda y, p: accuracy_score(y, p.argmax(1)),
    "roc_auc": lambda y, p: roc_auc_score(y, p[:, 1]),
    "neg_log_loss": lambda y, p: -log_loss(y, p),
    "neg_brier_score": lambda y, p: -brier_score_loss(y, p[:, 1]),
    "average_precision": lambda y, p: average_precision_score(y, p[:, 1]),
    "r2": lambda y, p: r2_score(y, p[:, 0]),
    "neg_root_mean_squared_error": lambda y, p: -root_mean_squared_error(y, p[:, 0]),
    "neg_mean_absolute_error": lambda y, p: -mean_absolute_error(y, p[:, 0]),
    own_error: lambda y, p: -mean_absolute_error(y, p[:, 0]),
}
OF_VALUES = [*SCORERS][8:]
OF_PROBABILITIES = [*SCORERS][4:8]


@pytest.mark.parametrize("scoring", SCORERS)
def test_best_score_is_the_score_of_validation_rows(scoring, monkeypatch):
    seen = []

    def choose(history, problem, size, seconds_left):
        seen.append((history, problem))
        return choose_members(history, problem, size, seconds_left)

    monkeypatch.setattr("sknas._ensemble.build.choose_members", choose)
    kind = NASRegressor if scoring in OF_VALUES else NASClassifier
    estimator = tiny(kind, scoring=scoring, max_trials=3).fit(X, target(kind))
    ((history, problem),) = seen
    y, scores = problem.scorer.y, []
    np.testing.assert_array_equal(np.sort(y), np.sort(target(kind)))
    for fold in problem.folds:
        rows = fold.valid_rows
        predicted = history.best.predictions[rows].astype(np.float64)
        if kind is NASClassifier:
            predicted /= predicted.sum(axis=1, keepdims=True)
        scores.append(SCORERS[scoring](y[rows], predicted))
    assert sum(len(fold.valid_rows) for fold in problem.folds) == N
    assert estimator.best_score_ == pytest.approx(np.mean(scores), rel=1e-4)
    best = np.argmin(estimator.cv_results_["rank_test_score"])
    own = [estimator.cv_results_[f"split{fold}_test_score"][best] for fold in range(3)]
    np.testing.assert_allclose(own, scores, rtol=1e-4)
    assert estimator.best_score_ == estimator.cv_results_["mean_test_score"].max()
    assert np.isfinite(answers(estimator)).all()


@pytest.mark.parametrize("scoring", [None, "f1", own_accuracy, *OF_PROBABILITIES])
def test_labels_are_smoothed_for_scores_that_read_only_labels(scoring):
    space = TableSpace(label_smoothing=(0.05, 0.1))
    estimator = tiny(search_space=space, scoring=scoring).fit(X, CLASSES)
    shares = [a.get("label_smoothing", 0.0) for a in estimator.cv_results_["params"]]
    are_smoothed = scoring not in OF_PROBABILITIES
    assert [share > 0 for share in shares] == [are_smoothed] * 2


# Tables, targets and weights


def mixed_table():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "real": X[:, 0],
            "flag": X[:, 1] > 0,
            "level": pd.Categorical(rng.choice(["low", "high"], N)),
            "word": rng.choice([f"word {i}" for i in range(20)], N).astype(object),
            "truth": pd.array(rng.random(N) > 0.5, dtype="boolean"),
        }
    )
    for index, name in enumerate(("real", "level", "word", "truth")):
        frame.loc[index::9, name] = pd.NA if name == "truth" else np.nan
    return frame


@pytest.mark.parametrize(
    ("kind", "y"),
    [
        (NASClassifier, CLASSES),
        (NASClassifier, np.array(["no", "yes"])[CLASSES]),
        (NASClassifier, LABELS),
        (NASRegressor, VALUES),
        (NASRegressor, np.column_stack([VALUES, -VALUES])),
    ],
    ids=["classes", "words", "labels", "values", "several values"],
)
def test_frames_and_targets_of_all_kinds(kind, y):
    frame = mixed_table()
    estimator = tiny(kind).fit(frame, y)
    assert {len(member.networks) for member in estimator.ensemble_.members} == {3}
    with pytest.warns(UnseenValuesWarning, match="values of X in 'word' did not"):
        predicted = estimator.predict(frame.assign(word="never seen", level=np.nan))
    assert predicted.shape == y.shape
    assert np.isfinite(answers(estimator, frame)).all()
    if y.dtype.kind == "U":
        assert set(predicted) <= {"no", "yes"}
    np.testing.assert_allclose(
        answers(estimator, frame[::-1])[::-1], answers(estimator, frame), rtol=1e-6
    )


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_repetitions_in_an_ensemble_of_folds(kind):
    weight = np.arange(N) % 3
    y = target(kind)
    repeated = np.random.default_rng(0).permutation(np.arange(N).repeat(weight))
    weighted = tiny(kind).fit(X, y, sample_weight=weight)
    same_answers(weighted, tiny(kind).fit(X[repeated], y[repeated]))


def test_heavier_class_is_predicted_more_often():
    noise = np.random.default_rng(0).normal(size=(N, 2))
    y = np.arange(N) % 2
    shares = [
        tiny(max_epochs=20, class_weight=weight).fit(noise, y).predict(noise).mean()
        for weight in ({0: 9.0}, "balanced", {1: 9.0})
    ]
    assert shares[0] < 0.1 < shares[1] < 0.9 < shares[2]


def test_groups_are_kept_together_and_change_the_folds():
    groups = np.arange(N) // 5
    grouped = tiny(cv=3).fit(X, CLASSES, groups=groups)
    plain = tiny(cv=3).fit(X, CLASSES)
    assert np.isfinite(grouped.best_score_)
    assert not np.array_equal(answers(grouped), answers(plain))
    one_by_one = tiny(cv=3).fit(X, CLASSES, groups=np.arange(N))
    assert one_by_one.predict(X).shape == (N,)


# Conventions of scikit-learn


@pytest.mark.parametrize("kind", KINDS)
def test_copies_and_files_predict_alike(kind):
    estimator = tiny(kind, max_trials=3).fit(X, target(kind))
    loaded = pickle.loads(pickle.dumps(estimator))
    same_answers(loaded, estimator)
    same_answers(pickle.loads(pickle.dumps(loaded)), estimator)
    copy = clone(estimator)
    assert copy.get_params() == estimator.get_params()
    with pytest.raises(NotFittedError):
        copy.predict(X)
    same_answers(copy.fit(X, target(kind)), estimator)


def test_estimators_work_inside_other_estimators():
    classifier = tiny(max_epochs=20)
    scores = cross_val_score(classifier, X, CLASSES, cv=2, error_score="raise")
    assert (scores > 0.6).all()
    pipeline = make_pipeline(StandardScaler(), classifier)
    name = "nasclassifier__ensemble_size"
    search = GridSearchCV(pipeline, {name: [1, 2]}, cv=2, error_score="raise")
    search.fit(X, CLASSES)
    assert (search.cv_results_["mean_test_score"] > 0.6).all()
    assert search.predict_proba(X).shape == (N, 2)


# Time and seeds


@pytest.mark.parametrize("kind", KINDS)
def test_short_max_time_holds_and_gives_a_model(kind):
    # Small networks, so that even a busy machine trains a cohort in time.
    space = TableSpace(depth=(0, 1), width=(32,), packing=(1,))
    started = time.monotonic()
    # y depends on X: otherwise no network beats the dummy.
    y = CLASSES if kind is NASClassifier else X @ np.arange(5.0)
    estimator = kind(space, max_time=3, random_state=0, n_jobs=1).fit(X, y)
    assert time.monotonic() - started < 3 * 1.1 + 2
    assert estimator.stop_reason_ in ("max_time", "strategy_done")
    assert np.isfinite(estimator.best_score_)
    dummy = estimator.baseline_scores_["dummy"]
    assert estimator.score(X, y) > dummy + 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_bits(kind):
    y, parameters = target(kind), {"max_trials": 4, "max_epochs": 10}
    first, second, other = (
        tiny(kind, **{**parameters, "random_state": seed}).fit(X, y)
        for seed in (0, 0, 1)
    )
    same_answers(first, second)
    assert first.best_score_ == second.best_score_
    assert not np.array_equal(answers(first), answers(other))


@pytest.mark.process
def test_workers_give_the_same_bits(monkeypatch):
    monkeypatch.setattr("sknas._parallel.run.WORTH_WORKERS", 0)
    monkeypatch.setattr("sknas._parallel.run.ROOM_FOR_WORKERS", 0)
    space = TableSpace(depth=(0, 2), width=(32, 64))
    parameters = {"max_trials": 4, "search_space": space}
    for kind in KINDS:
        alone, together = (
            tiny(kind, n_jobs=n_jobs, **parameters).fit(X, target(kind))
            for n_jobs in (1, 2)
        )
        same_answers(alone, together)
        assert alone.best_score_ == together.best_score_


# Rungs


def test_weaker_trials_are_dropped_and_listed_with_their_rung():
    table, y = make_classification(600, 5, n_informative=3, flip_y=0.2, random_state=0)
    estimator = tiny(max_trials=8, max_epochs=20, cv=2).fit(table, y)
    results = pd.DataFrame(estimator.cv_results_)
    assert len(results) == estimator.n_trials_ == 8
    assert (results["status"] == "ok").all()
    rung, scores = results["rung"], results["mean_test_score"]
    assert set(rung) == {0, 1}
    assert 4 <= (rung == 1).sum() <= 5  # half of them, and the default architecture
    assert rung[results["origin"] == "default"].item() == 1
    assert np.isfinite(scores).all()
    ranks = results["rank_test_score"]
    assert ranks[rung == 1].max() < ranks[rung == 0].min()
    assert estimator.best_score_ == scores[rung == 1].max()
    assert results["n_epochs"].between(1, 20).all()
    assert results["n_epochs"][rung == 0].max() <= 8  # a third of the schedule
    for trial in estimator.history_:
        assert len(trial.rung_scores) == trial.proposal.rung + 1


def test_top_k_are_reevaluated_if_the_ensemble_has_one_member():
    model = NASClassifier(
        strategy="random", max_trials=14, max_epochs=4, ensemble_size=1, random_state=0
    ).fit(X, CLASSES)
    origins = list(model.cv_results_["origin"])
    assert origins.count("re-score") == 2 and len(origins) == 16 == model.n_trials_
    again = [t for t in model.history_ if t.proposal.origin == "re-score"]
    keys = {t.architecture.key for t in again}
    assert model.best_architecture_.key in keys and len(keys) == 2
    scores = [
        t.score
        for t in model.history_
        if t.architecture.key == model.best_architecture_.key
        and t.proposal.rung == again[0].proposal.rung
    ]
    assert len(scores) == 2 and model.best_score_ == pytest.approx(np.mean(scores))
    first = {t.proposal.seed for t in model.history_}
    assert len(first) == 16  # fresh seeds


def test_latency_may_be_bounded():
    model = NASClassifier(
        strategy="random",
        max_trials=4,
        max_epochs=2,
        constraints={"latency": 1.0, "n_params": 20_000},
        random_state=0,
    ).fit(X, CLASSES)
    assert model.n_trials_ == 4 and max(model.cv_results_["n_params"]) <= 20_000
