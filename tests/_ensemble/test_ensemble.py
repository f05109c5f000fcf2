"""Ensembles: predictions, selection of members and refit."""

import pickle
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from fits import prepare_fit, problem_of
from sklearn.datasets import make_classification, make_regression
from sklearn.model_selection import ShuffleSplit

import sknas._ensemble.refit as ensemble_module
from sknas import NASClassifier, NASRegressor
from sknas._data.table_reader import TableReader
from sknas._ensemble.calibration import apply_temperature
from sknas._ensemble.predictor import Member
from sknas._ensemble.refit import build_from_folds, refit, refit_seconds
from sknas._ensemble.selection import Selection, _draw_greedily, _value, choose_members
from sknas._history import History, Proposal, Trial
from sknas._problem import RunContext
from sknas.exceptions import SearchFailedError, SearchWarning
from sknas.spaces import TableSpace
from sknas.trainers import PopulationTrainer, SkorchTrainer, Trainer
from sknas.trainers._snapshot import evaluate

KINDS = ["binary", "multilabel", "regression"]


def make_data(kind, n=120):
    if kind == "regression":
        return make_regression(n, 6, noise=5.0, random_state=0)
    X, y = make_classification(n, 6, random_state=0)
    return (X, np.stack([y, X[:, 0] > 0], axis=1)) if kind == "multilabel" else (X, y)


def make_problem(kind="binary", n=120, **params):
    """Return a space, a problem and the table of its rows."""
    X, y = make_data(kind, n)
    cls = NASRegressor if kind == "regression" else NASClassifier
    model = cls(random_state=0, n_jobs=1, **params)
    parts, problem = problem_of(model, X, y)
    _, data = prepare_fit(model, X, y)
    return parts.space, replace(problem, n_steps=25), data.rows.x


SPACE, PROBLEM, TABLE = make_problem()


def proposal_of(number, space=SPACE, **choices):
    architecture = space.fill({"width": 32, **choices})
    return Proposal(architecture, number=number, seed=number)


def trained(space, problem, *choices):
    """Return the history of a few trained networks."""
    trainer = PopulationTrainer(halving=False)
    trainer.setup(space, problem, RunContext())
    asked = [proposal_of(n, space, **some) for n, some in enumerate(choices)]
    return History(tuple(trainer.train(asked)))


CHOICES = ({"ntk_lr": 0.1}, {"depth": 1}, {"packing": 4, "ntk_lr": 0.05})


@pytest.fixture(scope="module", params=KINDS)
def bagged(request):
    """An ensemble of the networks of the folds, its selection, problem and table."""
    space, problem, table = make_problem(request.param)
    history = trained(space, problem, *CHOICES)
    trials = tuple(history.trials)
    is_sure = request.param != "regression"
    chosen = Selection(
        trials,
        (0.5, 0.3, 0.2),
        (2.0, 0.7, 1.0) if is_sure else (1.0,) * 3,
        1.3 if is_sure else 1.0,
    )
    trainer = PopulationTrainer()
    context = RunContext()
    trainer.setup(space, problem, context)
    return build_from_folds(chosen, trainer, problem, context), chosen, problem, table


# ---------------------------------------------------------------------------- predict


def mean_prediction(ensemble, problem, table, dtype=torch.float64):
    """Return the weighted mean over members and folds, one network at a time."""
    total = 0.0
    for member in ensemble.members:
        for fold, net in zip(problem.folds, member.networks, strict=True):
            module = pickle.loads(pickle.dumps(net.module_)).to(dtype)
            rows = torch.from_numpy(fold.encoder.transform(table)).to(dtype)
            answer = fold.restore(evaluate(module, rows))
            answer = apply_temperature(answer, member.temperature, ensemble.kind)
            total = total + member.weight * answer / len(problem.folds)
    return apply_temperature(total, ensemble.temperature, ensemble.kind)


def test_prediction_is_the_weighted_mean_over_members_and_folds(bagged):
    ensemble, chosen, problem, table = bagged
    assert len(ensemble) == 3 and chosen.has_networks
    assert [len(member.networks) for member in ensemble.members] == [3, 3, 3]
    assert [member.weight for member in ensemble.members] == [0.5, 0.3, 0.2]
    found = ensemble.predict(table)
    assert found.dtype == np.float64
    np.testing.assert_allclose(
        found, mean_prediction(ensemble, problem, table), rtol=1e-9
    )


def test_predictions_have_the_precision_of_the_table(bagged):
    ensemble, _, problem, table = bagged
    small = replace(table, numeric=table.numeric.astype(np.float32))
    found = ensemble.predict(small)
    assert found.dtype == np.float32
    expected = mean_prediction(ensemble, problem, small, torch.float32)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    scale = np.abs(found).max()
    np.testing.assert_allclose(found, ensemble.predict(table), atol=1e-3 * scale)


def test_predictions_of_rows_do_not_depend_on_other_rows(bagged):
    ensemble, _, _, table = bagged
    whole = ensemble.predict(table)
    for rows in ([5], [7, 3, 3]):
        part = ensemble.predict(table.take(np.array(rows)))
        np.testing.assert_allclose(part, whole[rows], rtol=1e-9)


def test_ensemble_consists_of_the_networks_of_the_search(bagged):
    """Validation rows have the same predictions as in the search."""
    ensemble, chosen, problem, _ = bagged
    for member, trial in zip(ensemble.members, chosen.trials, strict=True):
        assert member.architecture == trial.architecture
        assert member.network is member.networks[0]
        for index in member.encoding_indices:
            fold = problem.folds[index]
            module = member.networks[index].module_
            answer = fold.restore(evaluate(module, torch.tensor(fold.valid.x)))
            expected = trial.predictions[fold.valid_rows]
            np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-5)


def test_an_ensemble_is_pickled_without_its_copies(bagged):
    ensemble, _, _, table = bagged
    expected = ensemble.predict(table)  # makes copies in double precision
    assert ensemble._copies
    content = pickle.dumps(ensemble)
    loaded = pickle.loads(content)
    assert loaded._copies == {}
    np.testing.assert_array_equal(loaded.predict(table), expected)
    assert len(pickle.dumps(loaded)) <= 1.01 * len(content)


def test_networks_trained_on_a_gpu_predict_without_one(bagged):
    ensemble, _, _, table = bagged
    moved = replace(ensemble, device="cuda:3")
    if not torch.cuda.is_available():
        assert moved.predict_device == "cpu"
        np.testing.assert_array_equal(moved.predict(table), ensemble.predict(table))
    assert ensemble.predict_device == "cpu"
    assert next(ensemble.members[0].network.module_.parameters()).device.type == "cpu"


# ----------------------------------------------------------------------------- choose


def made_history(*accuracies, n=120, confidence=0.8):
    """Trials whose predictions are right on a random share of the rows."""
    rng = np.random.default_rng(0)
    y = PROBLEM.scorer.y
    trials = []
    for number, accuracy in enumerate(accuracies):
        right = rng.random(n) < accuracy
        rest = (1 - confidence) / 2
        shares = np.eye(2)[np.where(right, y, 1 - y)] * confidence + rest
        trials.append(
            Trial(
                proposal_of(number),
                score=float(right.mean()),
                predictions=shares.astype(np.float32),
            )
        )
    return History(tuple(trials))


def test_ensemble_is_small_and_better_than_its_best_member():
    history = made_history(0.7, 0.72, 0.71, 0.69, 0.7, 0.7, 0.3)
    for size in (1, 2, 3, 5):
        chosen = choose_members(history, PROBLEM, size)
        assert len(chosen.trials) <= size
        assert len(chosen.weights) == len(chosen.temperatures) == len(chosen.trials)
        assert np.isclose(sum(chosen.weights), 1)
        assert list(chosen.weights) == sorted(chosen.weights, reverse=True)
    mean = sum(
        weight * apply_temperature(trial.predictions, temperature, "binary")
        for trial, weight, temperature in zip(
            chosen.trials, chosen.weights, chosen.temperatures, strict=True
        )
    )
    score = PROBLEM.scorer.score(mean, np.arange(120)).value
    assert score > history.best.score + 0.02
    assert 6 not in [trial.proposal.number for trial in chosen.trials]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("size", [1, 2, 8])
def test_greedy_selection_is_never_worse_than_the_best_trial(seed, size):
    rng = np.random.default_rng(seed)
    rows = np.arange(120)
    n_trials = int(rng.integers(1, 9))
    shares = rng.dirichlet((0.5, 0.5), (n_trials, 120))
    counts = _draw_greedily(shares, rows, PROBLEM, size, np.inf)
    assert counts[0] >= 1 and 1 <= np.count_nonzero(counts) <= size
    value = _value(shares, rows, PROBLEM, np.inf)
    mean = np.tensordot(counts / counts.sum(), shares, axes=1)
    of_mean, of_best = value(np.stack([mean, shares[0]]))
    assert of_mean >= of_best - 1e-12


def test_a_scorer_that_fails_in_the_selection_is_reported():
    def score(estimator, X, y):
        if len(y) == 120:
            raise RuntimeError("too many rows")
        return estimator.score(X, y)

    _, problem, _ = make_problem(scoring=score)
    history = made_history(0.7, 0.72, 0.71)
    with pytest.warns(SearchWarning, match="RuntimeError: too many rows") as caught:
        chosen = choose_members(history, problem, 3)
    assert len(caught) == 1 and "selected by their loss alone" in str(caught[0].message)
    assert np.isclose(sum(chosen.weights), 1)


def test_ensemble_of_one_is_the_best_trial():
    history = made_history(0.7, 0.95, 0.71)
    chosen = choose_members(history, PROBLEM, 1)
    assert chosen.trials == (history.best,) and chosen.weights == (1.0,)


def test_members_and_mean_are_calibrated():
    """Trials that are right in 7 of 10 rows become less confident."""
    history = made_history(0.7, 0.72, 0.71, confidence=0.998)
    chosen = choose_members(history, PROBLEM, 3)
    assert all(temperature > 2 for temperature in chosen.temperatures)
    rows = np.arange(120)
    for trial, temperature in zip(chosen.trials, chosen.temperatures, strict=True):
        after = apply_temperature(trial.predictions, temperature, "binary")
        assert PROBLEM.loss(after, rows) < PROBLEM.loss(trial.predictions, rows)
    assert 0.25 <= chosen.temperature <= 4.0


def test_regressors_are_not_calibrated():
    space, problem, _ = make_problem("regression")
    history = trained(space, problem, *CHOICES)
    chosen = choose_members(history, problem, 3)
    assert set(chosen.temperatures) == {1.0} and chosen.temperature == 1.0


def test_selection_without_predictions_is_the_best_trial():
    history = made_history(0.7, 0.8).without_predictions()
    chosen = choose_members(history, PROBLEM, 5)
    assert chosen.trials == (history.best,) and chosen.weights == (1.0,)
    assert not chosen.has_networks


def test_rows_without_prediction_are_ignored():
    history = made_history(0.7, 0.72, 0.71)
    for trial in history:
        trial.predictions[:60] = np.nan
    chosen = choose_members(history, PROBLEM, 3)
    assert np.isclose(sum(chosen.weights), 1)
    for trial in history:
        trial.predictions[:60] = 1 - np.eye(2)[PROBLEM.scorer.y[:60]]
    other = choose_members(history, PROBLEM, 3)
    assert other.temperatures != chosen.temperatures


def test_short_time_ends_the_selection():
    history = made_history(*[0.7] * 30)
    started = time.monotonic()
    assert len(choose_members(history, PROBLEM, 8, seconds_left=1e-3).trials) >= 1
    assert time.monotonic() - started < 5


# ------------------------------------------------------------------------------ refit


class FailingSpace(TableSpace):
    """A space with some architectures that can't be built."""

    def build_batch(self, architectures, task, layout=None):
        if architectures[0]["width"] == 64:
            raise MemoryError
        if architectures[0]["width"] == 256:
            raise KeyError("no such layer")
        return super().build_batch(architectures, task, layout)


def trial_of(width, number, seconds=0.01):
    proposal = proposal_of(number, width=width)
    return Trial(proposal, score=0.5, stop=1.0, fold_seconds=(seconds,))


def chosen_of(*trials, weights=None, **options):
    weights = (1 / len(trials),) * len(trials) if weights is None else weights
    temperatures = options.pop("temperatures", (1.0,) * len(trials))
    return Selection(trials, tuple(weights), temperatures, **options)


LONG = replace(PROBLEM, n_steps=100)


def test_refit_trains_all_members_on_all_rows():
    chosen = chosen_of(
        trial_of(128, 0),
        trial_of(32, 1),
        weights=(0.75, 0.25),
        temperatures=(2.0, 1.5),
        temperature=0.9,
    )
    made = refit(chosen, [], SPACE, LONG, RunContext())
    members = made.ensemble.members
    assert [member.weight for member in members] == [0.75, 0.25]
    assert [member.temperature for member in members] == [2.0, 1.5]
    assert made.ensemble.temperature == 0.9
    assert all(len(m.networks) == 1 and m.encoding_indices == (0,) for m in members)
    assert len(made.ensemble.encodings) == 1
    predictions = made.ensemble.predict(TABLE)
    assert (predictions.argmax(axis=1) == PROBLEM.full.train.y).mean() > 0.9
    assert made.failures == () and not made.is_interrupted


def test_refit_drops_members_that_fail_or_exceed_the_time():
    context = RunContext(deadline=time.monotonic() + 8)
    chosen = chosen_of(
        trial_of(256, 0),
        trial_of(128, 1),
        trial_of(128, 2, 100),
        weights=(0.5, 0.3, 0.2),
    )
    made = refit(chosen, [], FailingSpace(), PROBLEM, context)
    (member,) = made.ensemble.members
    assert member.weight == 1.0 and member.architecture["width"] == 128
    assert made.failures == ("KeyError: 'no such layer'",)


def test_refit_continues_in_micro_batches_if_memory_runs_out(monkeypatch):
    plain, sizes = ensemble_module.train_network, []

    def starving(training, rows):
        sizes.append(training.n_micro_batches)
        if training.n_micro_batches == 1 and training.architecture["width"] == 32:
            raise MemoryError
        return plain(training, rows)

    chosen = chosen_of(trial_of(128, 0), trial_of(32, 1))
    expected = refit(chosen, [], SPACE, LONG, RunContext()).ensemble.predict(TABLE)
    monkeypatch.setattr(ensemble_module, "train_network", starving)
    with pytest.warns(
        SearchWarning, match="1 of 2 networks were trained on all rows in"
    ):
        made = refit(chosen, [], SPACE, LONG, RunContext())
    assert sizes == [1, 1, 2] and made.failures == ()
    np.testing.assert_allclose(made.ensemble.predict(TABLE), expected, atol=1e-4)
    # A trial that was scored in micro-batches is refitted in micro-batches.
    sizes.clear()
    marked = replace(trial_of(32, 1), n_micro_batches=2)
    with pytest.warns(SearchWarning, match="1 of 1 networks"):
        refit(chosen_of(marked), [], SPACE, LONG, RunContext())
    assert sizes == [2]


def test_refit_tries_fallbacks():
    fallbacks = [trial_of(256, 1), trial_of(128, 2)]
    chosen = chosen_of(trial_of(64, 0))
    made = refit(chosen, fallbacks, FailingSpace(), PROBLEM, RunContext())
    assert made.ensemble.members[0].architecture["width"] == 128
    with pytest.raises(SearchFailedError, match="on all rows: out of memory; KeyError"):
        refit(chosen, fallbacks[:1], FailingSpace(), PROBLEM, RunContext())


def test_seconds_of_a_refit_are_estimated_from_the_folds():
    trial = replace(trial_of(32, 0), stop=0.5, fold_seconds=(1.0, 3.0))
    assert refit_seconds(trial) == 1.0
    assert refit_seconds(replace(trial, fold_seconds=())) == 0.0


# ------------------------------------------------------------------------- estimators

QUICK = {"max_trials": 2, "max_epochs": 3, "random_state": 0, "n_jobs": 1}


@pytest.mark.parametrize("size", [None, 3])
def test_networks_of_the_folds_predict(size):
    X, y = make_data("binary")
    model = NASClassifier(ensemble_size=size, **QUICK).fit(X, y)
    assert len(model.ensemble_.encodings) == 3
    for member in model.ensemble_.members:
        assert len(member.networks) == 3 and member.encoding_indices == (0, 1, 2)
    assert model.network_ is model.ensemble_.members[0].networks[0]
    loaded = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    assert all(t.networks is None and t.predictions is None for t in model.history_)


@pytest.mark.parametrize("cls", [NASClassifier, NASRegressor])
def test_ensemble_of_one_has_one_network_trained_on_all_rows(cls):
    X, y = make_data("regression" if cls is NASRegressor else "binary")
    model = cls(ensemble_size=1, **QUICK).fit(X, y)
    (member,) = model.ensemble_.members
    assert len(member.networks) == 1 and member.weight == 1.0
    assert len(model.ensemble_.encodings) == 1
    assert member.architecture == model.best_architecture_


@pytest.mark.parametrize(("share", "n_networks"), [(0.3, 1), (0.5, 1), (0.7, 2)])
def test_members_are_refitted_if_folds_train_on_few_rows(share, n_networks):
    X, y = make_data("binary")
    cv = ShuffleSplit(2, train_size=share, random_state=0)
    model = NASClassifier(cv=cv, **QUICK).fit(X, y)
    for member in model.ensemble_.members:
        assert len(member.networks) == n_networks
    assert np.isfinite(model.predict_proba(X)).all()


class TrainerWithoutNetworks(Trainer):
    """Returns the scores of another trainer without its networks."""

    def setup(self, space, problem, context):
        self.trainer_ = SkorchTrainer()
        self.trainer_.setup(space, problem, context)

    def train(self, proposals):
        trials = self.trainer_.train(proposals)
        return [replace(trial, networks=None) for trial in trials]


@pytest.mark.parametrize(
    ("trainer", "n"), [("skorch", 3), (TrainerWithoutNetworks(), 1)]
)
def test_members_are_refitted_if_the_trainer_keeps_no_networks(trainer, n):
    X, y = make_data("binary")
    model = NASClassifier(trainer=trainer, **QUICK).fit(X, y)
    assert {len(member.networks) for member in model.ensemble_.members} == {n}
    assert model.score(X, y) > 0.7


def test_temperature_of_the_mean_does_not_change_the_predicted_classes():
    """Temperatures of members may change the classes, but not that of the mean."""
    X, y = make_data("binary")
    model = NASClassifier(ensemble_size=2, **QUICK).fit(X, y)
    table = TableReader("NASClassifier").fit(X).read(X)
    plain = replace(model.ensemble_, temperature=1.0)
    np.testing.assert_array_equal(
        plain.predict(table).argmax(axis=1),
        model.ensemble_.predict(table).argmax(axis=1),
    )


def test_network_of_a_member_is_its_first_network():
    nets = (object(), object())
    assert Member(proposal_of(0).architecture, nets, (0, 1), 1.0).network is nets[0]
