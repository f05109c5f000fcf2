"""Custom spaces, strategies and trainers are used through what they declare."""

import pickle

import numpy as np
import pytest
import torch
from cohorts import make_context
from fits import problem_of
from outside import OutsideSpace, OutsideStrategy, OutsideTrainer
from sklearn.base import clone
from sklearn.datasets import make_classification, make_regression

from sknas import NASClassifier, NASRegressor
from sknas._checkpoint.store import FileStore
from sknas._history import Proposal
from sknas.nets import HalfPrecisionModule, InitializedModule
from sknas.strategies import BayesianStrategy, GradientStrategy
from sknas.trainers import TRAINERS, PopulationTrainer, SkorchTrainer, _batches
from sknas.trainers._memory_need import bytes_needed

X, Y = make_classification(150, 6, class_sep=2.0, flip_y=0.0, random_state=0)
SHORT = {"max_trials": 5, "max_epochs": 8, "cv": 3, "n_jobs": 1, "random_state": 0}
ALL_TRAINERS = {**TRAINERS, "outside": OutsideTrainer}


def fitted(space="table", strategy="random", trainer="auto", **changes):
    return NASClassifier(space, strategy, trainer, **{**SHORT, **changes}).fit(X, Y)


def assert_works(model):
    """Assert that all trials have a score and the ensemble has learnt the target."""
    assert set(model.cv_results_["status"]) == {"ok"}
    assert model.score(X, Y) > 0.75
    assert np.isfinite(model.predict_proba(X)).all()
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


# ------------------------------------------------------------------------------- space


@pytest.mark.parametrize("strategy", ["random", "evolution", "local", "reinforce"])
def test_space_is_searched_by_any_strategy(strategy):
    assert_works(fitted(OutsideSpace(), strategy))


@pytest.mark.parametrize("trainer", ["auto", *ALL_TRAINERS])
def test_networks_of_a_space_are_trained_by_any_trainer(trainer):
    is_own = trainer in ALL_TRAINERS
    model = fitted(
        OutsideSpace(), trainer=ALL_TRAINERS[trainer]() if is_own else "auto"
    )
    assert_works(model)
    assert len(model.ensemble_.members[0].networks) == 3


def test_networks_of_a_batch_are_trained_as_one(monkeypatch):
    sizes = []
    build_batch = OutsideSpace.build_batch

    def counted(space, architectures, task, layout=None):
        sizes.append(len(architectures))
        return build_batch(space, architectures, task, layout)

    monkeypatch.setattr(OutsideSpace, "build_batch", counted)
    fitted(OutsideSpace(widths=("narrow",)))
    assert max(sizes) >= 3 * 3  # several architectures on each of three folds


def trials_of(trainer, architectures, space, problem):
    trainer.setup(space, problem, make_context())
    proposals = [Proposal(a, number=j, seed=j) for j, a in enumerate(architectures)]
    return trainer.train(proposals)


def test_batched_networks_learn_as_well_as_single_ones():
    space = OutsideSpace()
    given = [{"activation": name, "lr": 0.1} for name in (False, "relu", "tanh")]
    architectures = [space.fill({"width": "wide", **each}) for each in given]
    _, problem = problem_of(NASClassifier(space, max_epochs=80, cv=3, n_jobs=1), X, Y)
    batched, single = (
        trials_of(trainer, architectures, space, problem)
        for trainer in (PopulationTrainer(halving=False), SkorchTrainer(halving=False))
    )
    assert {trial.status for trial in batched + single} == {"ok"}
    assert min(trial.score for trial in batched + single) > 0.85
    alone = trials_of(PopulationTrainer(), architectures[:1], space, problem)
    np.testing.assert_allclose(alone[0].predictions, batched[0].predictions, atol=1e-5)


def test_folds_of_different_columns_have_one_layout():
    rng = np.random.default_rng(0)
    rare = np.where(np.arange(len(X)) == 0, "once", "often")  # constant in two folds
    words = rng.choice(list("abcdefghijklm"), len(X))
    mixed = np.column_stack([X.astype(object), rare, words])
    model = NASClassifier(OutsideSpace(), "random", **SHORT).fit(mixed, Y)
    assert set(model.cv_results_["status"]) == {"ok"}
    assert model.score(mixed, Y) > 0.75


def test_regression_with_a_custom_space():
    rows, y = make_regression(150, 5, noise=1.0, random_state=0)
    model = NASRegressor(OutsideSpace(), "random", **SHORT).set_params(max_epochs=60)
    assert model.fit(rows, y).score(rows, y) > 0.8


class Declared(InitializedModule, HalfPrecisionModule):
    """A custom network that declares initialisation and half precision."""

    reads_half = True

    def __init__(self, net, calls):
        super().__init__()
        self.net, self.calls = net, calls

    def initialize(self, init, rows):
        self.calls.append((init, tuple(rows.shape)))

    def set_precision(self, precision):
        self.calls.append((precision, self.training))

    def forward(self, x):
        self.calls.append(x.dtype)
        return self.net(x.float())


def test_trainers_use_the_capabilities_that_networks_declare(monkeypatch):
    calls = []

    class DeclaredSpace(OutsideSpace):
        def build_batch(self, architectures, task, layout=None):
            return Declared(super().build_batch(architectures, task, layout), calls)

    space = DeclaredSpace()
    architectures = [space.default_architecture()]
    _, problem = problem_of(NASClassifier(space, max_epochs=2, cv=3, n_jobs=1), X, Y)
    monkeypatch.setattr(_batches, "half_precision", lambda *_: torch.bfloat16)
    trials = trials_of(PopulationTrainer(), architectures, space, problem)
    assert trials[0].status == "ok"
    assert calls.count(("uniform", (100, 6))) == 3  # once on each fold
    assert {(torch.bfloat16, True), (None, False)} <= set(calls)
    assert {torch.bfloat16, torch.float32} <= set(calls)


def test_memory_of_networks_is_estimated():
    space = OutsideSpace()
    _, problem = problem_of(NASClassifier(space, n_jobs=1), X, Y)
    sizes = {}
    for width in ("narrow", "wide"):
        architecture = space.fill({"width": width})
        for is_batched in (False, True):
            sizes[width, is_batched] = bytes_needed(
                space, architecture, problem, 4, is_batched=is_batched
            )
    assert 0 < sizes["narrow", False] < sizes["wide", False]
    assert 0 < sizes["narrow", True] < sizes["wide", True]


@pytest.mark.parametrize("constraint", ["n_units", "n_params"])
def test_costs_are_bounded(constraint):
    bound = {"n_units": 4, "n_params": 4 * 7 + 5 * 2}[constraint]
    model = fitted(OutsideSpace(), constraints={constraint: bound})
    assert {t.architecture["width"] for t in model.history_} == {"narrow"}


def test_surrogates_use_the_graphs():
    strategy = BayesianStrategy("wl", n_initial_points=3)
    model = fitted(OutsideSpace(), strategy, max_trials=8)
    assert_works(model)
    assert len({t.architecture.key for t in model.history_}) == 8


def test_gradient_search_uses_the_supernet():
    model = fitted(OutsideSpace(), GradientStrategy(n_epochs=2))
    assert_works(model)
    assert set(model.strategy_.trajectory_) == {"activation"}
    assert model.strategy_.derived_[0] in [t.architecture for t in model.history_]


def test_capabilities_that_are_not_declared_are_not_used():
    class Silent(OutsideSpace):
        can_build_batches = has_graph = has_supernet = False

        def build_batch(self, architectures, task, layout=None):
            assert len(architectures) == 1
            return super().build_batch(architectures, task, layout)

    assert set(fitted(Silent()).cv_results_["status"]) == {"ok"}
    with pytest.raises(ValueError, match="no graph"):
        fitted(Silent(), BayesianStrategy("wl"))
    with pytest.raises(ValueError, match="builds batches of networks"):
        fitted(Silent(), trainer="population")


# ---------------------------------------------------------------------------- strategy


@pytest.mark.parametrize("space", ["table", OutsideSpace()], ids=["table", "outside"])
def test_custom_strategy_proposes_after_the_default(space):
    model = fitted(space, OutsideStrategy(n_random=1))
    origins = [trial.proposal.origin for trial in model.history_]
    assert origins == ["default"] + ["proposed"] * 4  # no further initial design
    assert set(vars(model.strategy_)) == {"n_random", "device_", "ranking_"}
    assert model.strategy_.device_ == "cpu"
    assert model.strategy_.ranking_ == [0]
    assert set(vars(model.strategy)) == {"n_random"}


def test_strategy_ranks_the_trials_to_reevaluate():
    model = fitted(OutsideSpace(), OutsideStrategy(), max_trials=14, ensemble_size=1)
    again = [t.architecture for t in model.history_ if t.proposal.origin == "re-score"]
    ranked = [
        model.history_[number].architecture for number in model.strategy_.ranking_
    ]
    assert len(again) >= 2 and again == ranked[: len(again)]


def test_strategy_gets_its_share_of_the_time():
    model = NASClassifier(max_time=100.0, strategy=OutsideStrategy(), n_jobs=1)
    _, planned = problem_of(model, X, Y)
    _, all_of_it = problem_of(clone(model).set_params(strategy="random"), X, Y)
    assert planned.n_steps <= all_of_it.n_steps


# ----------------------------------------------------------------------------- trainer


def test_ensemble_consists_of_the_networks_of_a_custom_trainer():
    model = fitted(trainer=OutsideTrainer())
    assert_works(model)
    best = model.ensemble_.members[0]
    trial = next(t for t in model.history_ if t.architecture == best.architecture)
    assert trial.networks is None or len(trial.networks) == len(best.networks)
    assert len(best.networks) == 3
    assert model.network_.module_ is best.networks[0].module_


def test_trials_of_a_custom_trainer_are_refitted():
    model = fitted(
        OutsideSpace(), trainer=OutsideTrainer(), ensemble_size=1, max_epochs=40
    )
    assert_works(model)
    assert len(model.ensemble_.members[0].networks) == 1


def test_regression_with_custom_components():
    rows, y = make_regression(150, 5, noise=1.0, random_state=0)
    model = NASRegressor(
        OutsideSpace(), OutsideStrategy(), OutsideTrainer(), **SHORT
    ).set_params(max_epochs=60)
    assert model.fit(rows, y).score(rows, y) > 0.8


def test_parameters_of_components_are_nested_parameters():
    model = NASClassifier(OutsideSpace(), OutsideStrategy(), OutsideTrainer())
    changes = {
        "search_space__widths": ("wide",),
        "strategy__n_random": 7,
        "trainer__batch_size": 8,
    }
    copy = clone(model).set_params(**changes)
    assert changes.items() <= copy.get_params().items()
    assert model.get_params()["trainer__batch_size"] == 32
    assert repr(pickle.loads(pickle.dumps(copy))) == repr(copy)


def test_max_time_ends_a_search_with_a_custom_trainer():
    model = fitted(trainer=OutsideTrainer(), max_time=3.0, max_trials=None)
    assert model.stop_reason_ == "max_time" and model.search_time_ < 4.5
    assert model.score(X, Y) > 0.75


class Killed(BaseException):
    """Like SIGKILL: the search doesn't catch it."""


def test_search_is_resumed_from_the_store_of_a_custom_trainer(tmp_path, monkeypatch):
    trained, kill_at = [], 8
    put = FileStore.put

    def killing(store, key, value):
        put(store, key, value)
        if key.startswith("cohort:"):
            trained.append(key)
            if len(trained) == kill_at:
                raise Killed

    monkeypatch.setattr(FileStore, "put", killing)
    parts = {"trainer": OutsideTrainer(), "checkpoint": tmp_path}
    with pytest.raises(Killed):
        fitted(**parts)
    resumed = fitted(**parts)
    assert len(trained) == len(set(trained)) == 5 * 3  # each fold was trained once
    whole = fitted(trainer=OutsideTrainer())
    np.testing.assert_array_equal(resumed.predict_proba(X), whole.predict_proba(X))
