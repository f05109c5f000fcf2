"""Many networks side by side: each is what it would be alone."""

import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from cohorts import assert_same, make_problem, proposals, rebuilt, space_of, train

import sknas._parallel.run as workers
import sknas.trainers._loop as unit_module
import sknas.trainers._population as population
import sknas.trainers._schedule as plan_module
from sknas import NASClassifier, NASRegressor
from sknas.exceptions import InvalidParameterError
from sknas.spaces import DictSpace, TableSpace
from sknas.trainers import PopulationTrainer
from sknas.trainers._schedule import Schedule
from sknas.trainers._skorch_net import evaluate

# Members of several shapes and kinds, all trained as one cohort.
FAMILIES = {
    "training choices": [
        {"ntk_lr": 0.02},
        {"ntk_lr": 0.05, "weight_decay": 0.0},
        {"ntk_lr": 0.01, "weight_decay": 0.3, "scale_speed": 6.0},
    ],
    "units and dropout": [
        {"dropout": 0.5},
        {"dropout": 0.0, "activation": "relu"},
        {"dropout": 0.1, "activation": "gelu"},
        {"dropout": 0.5, "activation": "relu"},
    ],
    "parametric units": [
        {"activation": "parametric-mish"},
        {"activation": "parametric-selu"},
        {"activation": "mish"},
    ],
    "embeddings": [
        {"numeric_embedding": "projected", "embedding_size": 8},
        {"numeric_embedding": "projected", "embedding_size": 8, "dropout": 0.0},
        {"numeric_embedding": "periodic", "embedding_size": 4},
        {"numeric_embedding": "none", "embedding_size": 0},
    ],
    "blocks": [
        {"block": "resnet", "normalisation": "batch"},
        {"block": "resnet", "normalisation": "batch", "ntk_lr": 0.02},
        {"block": "skip", "normalisation": "layer", "depth": 3},
        {"depth": 0},
        {"depth": 1, "numeric_scale": "normal"},
    ],
    "packing": [
        {"packing": 4},
        {"packing": 4, "dropout": 0.35, "numeric_embedding": "periodic"},
        {"packing": 4, "ntk_lr": 0.01, "numeric_embedding": "periodic"},
        {"packing": 4, "depth": 0},
    ],
    "optimizers": [
        {"optimizer": "rmsprop", "ntk_lr": 0.01},
        {"optimizer": "momentum", "sgd_lr": 0.05},
        {"optimizer": "momentum", "sgd_lr": 0.3, "weight_decay": 0.0},
        {"optimizer": "sgd", "sgd_lr": 0.2},
        {"optimizer": "sgd", "sgd_lr": 0.5},
    ],
    "recipes": [
        {"recipe": "normal"},
        {"recipe": "fitted"},
        {"recipe": "uniform", "lr": 1e-2},
        {"recipe": "constant", "lr": 3e-3},
        {"recipe": "constant", "lr": 1e-3, "dropout": 0.5},
    ],
    "label smoothing": [
        {"label_smoothing": 0.1},
        {"label_smoothing": 0.0},
        {"label_smoothing": 0.05, "dropout": 0.5},
    ],
    "batch sizes": [
        {"batch_size": 32},
        {"batch_size": 64},
        {"batch_size": 64, "dropout": 0.0},
        {"batch_size": 128},
    ],
}
RATES = [0.01, 0.02, 0.03, 0.05, 0.08, 0.1]
KINDS = ["binary", "multiclass", "multilabel", "regression"]
CASES = [("multiclass", family) for family in FAMILIES]
CASES += [("regression", f) for f in ("embeddings", "packing", "blocks", "recipes")]
CASES += [("multilabel", f) for f in ("packing", "units and dropout", "batch sizes")]
CASES += [("binary", f) for f in ("optimizers", "training choices")]


@pytest.fixture
def two_rungs(monkeypatch):
    """Rungs at a third and at the end, however short a training is."""
    monkeypatch.setattr(plan_module, "n_cycles", lambda n_steps: 2)


@pytest.fixture(params=CASES, ids=lambda case: "-".join(case))
def cohort(request):
    kind, family = request.param
    n = 280 if family == "batch sizes" else 120
    choices = FAMILIES[family]
    if kind in ("multilabel", "regression"):
        choices = [
            {k: v for k, v in c.items() if k != "label_smoothing"} for c in choices
        ]
    problem = make_problem(kind, n, n_steps=12)
    return problem, proposals(problem, choices)


def test_a_member_is_what_it_would_be_alone(cohort, monkeypatch):
    problem, asked = cohort
    together = train(asked, problem)
    alone = [train([proposal], problem)[0] for proposal in asked]
    backwards = train(asked[::-1], problem)[::-1]
    monkeypatch.setattr(population, "UNIT_CELLS", 2 * 32 * 256 * 2)
    in_pairs = train(asked[:-1], problem)
    for trial in together:
        assert trial.status == "ok" and np.isfinite(trial.predictions).all()
    for place, trial in enumerate(together):
        assert_same(trial, alone[place])
        assert_same(trial, backwards[place])
    for trial, other in zip(together, in_pairs, strict=False):
        assert_same(trial, other)


def test_members_of_different_seeds_differ():
    problem = make_problem()
    (one,) = proposals(problem, [{}])
    other = train([replace(one, seed=99)], problem)[0]
    assert not np.allclose(train([one], problem)[0].predictions, other.predictions)


@pytest.mark.parametrize("kind", KINDS)
def test_networks_learn(kind):
    problem = make_problem(kind, 240, 2, n_steps=150, cardinalities=())
    choices = [{}, {"packing": 4}, {"block": "resnet", "normalisation": "layer"}]
    trials = train(proposals(problem, choices), problem)
    least = 0.75 if kind in ("binary", "regression") else 0.55
    assert min(trial.score for trial in trials) > least


@pytest.mark.parametrize("kind", KINDS)
def test_the_networks_of_a_trial_give_its_predictions(kind):
    problem = make_problem(kind, n_folds=3)
    choices = [{"embedding_size": 8}, {"packing": 4}, {"normalisation": "batch"}]
    for trial in train(proposals(problem, choices), problem):
        nets = rebuilt(trial, problem)
        assert len(nets) == len(trial.networks) == 3
        n_params = sum(p.numel() for p in nets[0].module_.parameters())
        assert trial.n_params == n_params
        for fold, net in zip(problem.folds, nets, strict=True):
            assert not net.module_.training
            output = evaluate(net.module_, torch.tensor(fold.valid.x))
            expected = trial.predictions[fold.valid_rows]
            np.testing.assert_allclose(fold.restore(output), expected, atol=1e-5)


def test_folds_start_and_train_apart():
    problem = make_problem(n_folds=2)
    twins = replace(problem, folds=(problem.folds[0], problem.folds[0]))
    (trial,) = train(proposals(twins, [{}]), twins)
    first, second = (state["layers.0.linear.weight"] for state in trial.networks)
    assert not torch.allclose(first, second)


def test_trials_are_reported_as_they_end(two_rungs):
    told = []
    problem = make_problem(n_steps=30, report=told.append)
    trials = train(proposals(problem, [{"ntk_lr": r} for r in RATES]), problem)
    assert sorted(t.proposal.number for t in told) == list(range(len(trials)))
    assert [t.proposal.rung for t in told] == sorted(t.proposal.rung for t in told)
    by_number = {trial.proposal.number: trial for trial in told}
    for trial in trials:
        assert by_number[trial.proposal.number] == trial


@pytest.mark.parametrize("n_folds", [1, 3])
def test_the_fields_of_a_trial(n_folds):
    problem = make_problem(n_folds=max(n_folds, 2), n_steps=120)
    problem = replace(problem, folds=problem.folds[:n_folds])
    for trial in train(proposals(problem, [{}, {"depth": 1}]), problem):
        assert len(trial.fold_scores) == len(trial.fold_seconds) == n_folds
        assert trial.score == pytest.approx(np.mean(trial.fold_scores))
        assert trial.seconds == pytest.approx(sum(trial.fold_seconds)) and trial.seconds
        rows = np.concatenate([fold.valid_rows for fold in problem.folds])
        known = ~np.isnan(trial.predictions).any(axis=1)
        assert sorted(np.flatnonzero(known)) == sorted(rows)
        assert trial.n_epochs == round(trial.stop * 120)  # one batch an epoch
        assert trial.rung_scores[-1] >= trial.rung_scores[0] - 0.1


# --------------------------------------------------------------------- faults of one


def test_a_diverging_member_does_not_touch_the_others(two_rungs):
    problem = make_problem("regression", n_steps=30)
    steady = {"optimizer": "adamw", "recipe": "uniform"}
    choices = [{**steady, "lr": 1e-2}, {**steady, "lr": 1.0}, {**steady, "lr": 3e-3}]
    space = TableSpace(lr=(1e-4, 1.0)).for_task(problem.task)
    asked = proposals(problem, choices, space)
    sound = train([asked[0], asked[2]], problem, space)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unit_module._Training, "_step", poisoned(member=1, step=5))
        trials = train(asked, problem, space)
    assert trials[1].status == "failed" and trials[1].score is None
    assert trials[1].reason == "the loss became infinite or NaN"
    assert trials[1].predictions is None and trials[1].rung_scores == ()
    assert_same(trials[0], sound[0])
    assert_same(trials[2], sound[1])


def poisoned(member, step):
    """Steps after one of which the parameters of a member are NaN."""
    plain = unit_module._Training._step

    def poison(self, number):
        plain(self, number)
        numbers = [m.proposal.number for m in self.unit.members]
        if number == step and member in numbers:
            place, n_folds = numbers.index(member), len(self.features)
            with torch.no_grad():
                for parameter in self.net.parameters():
                    parameter[place * n_folds : (place + 1) * n_folds] = torch.nan

    return poison


@pytest.mark.parametrize("family", [{"packing": 4}, {"normalisation": "batch"}, {}])
def test_targets_no_network_can_follow_fail_and_only_there(family):
    """Learning rates at which a network really diverges, in real company."""
    problem = make_problem("regression", n_steps=40)
    space = TableSpace(lr=(1e-4, 1.0), sgd_lr=(1e-3, 10.0), dropout=(0.0,))
    choices = [
        {**family, "optimizer": "sgd", "sgd_lr": rate} for rate in (0.01, 10.0, 0.05)
    ]
    asked = proposals(problem, choices, space)
    together = train(asked, problem, space)
    for place in (0, 2):
        assert_same(together[place], train([asked[place]], problem, space)[0])
    assert together[1].status in ("ok", "failed")


def test_a_member_that_diverges_late_keeps_the_rung_it_reached(two_rungs):
    problem = make_problem(n_steps=30)  # rungs at 10 and 30
    asked = proposals(problem, [{"ntk_lr": rate} for rate in RATES[:3]])
    sound = train(asked, problem, halving=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unit_module._Training, "_step", poisoned(member=1, step=15))
        trials = train(asked, problem, halving=False)
    assert_same(trials[0], sound[0])
    assert_same(trials[2], sound[2])
    late = trials[1]
    assert late.status == "ok" and late.proposal.rung == 0
    assert late.rung_scores == pytest.approx(sound[1].rung_scores[:1])
    assert late.stop == 10 / 30 and np.isfinite(late.predictions).all()


def test_a_scorer_that_never_has_a_score_fails_the_trial():
    problem = make_problem(n_steps=5)

    def undefined(predictions, rows, weight=None):
        return float("nan")

    undefined.reason = "only one class is present."
    for score in (undefined, lambda p, rows, weight=None: float("nan")):
        trials = train(proposals(problem, [{}, {}]), replace(problem, score=score))
        why = getattr(score, "reason", "the scorer returned NaN").rstrip(".")
        assert {t.status for t in trials} == {"failed"}
        assert {t.reason for t in trials} == {f"no score: {why}"}


def test_an_error_of_one_shape_is_told_and_leaves_the_others():
    class Narrow(TableSpace):
        def net(self, alike, layout, task):
            if alike[0]["width"] == 64 and not torch.empty(0).is_meta:
                raise KeyError("no such layer")
            return super().net(alike, layout, task)

    problem = make_problem()
    asked = proposals(problem, [{}, {"width": 64}, {"width": 128}])
    trials = train(asked, problem, Narrow().for_task(problem.task))
    assert [t.status for t in trials] == ["ok", "failed", "ok"]
    assert trials[1].reason == "KeyError: 'no such layer'"
    assert_same(trials[0], train(asked[:1], problem)[0])


@pytest.mark.parametrize("space", [DictSpace({"x": (0, 1)}), None])
def test_other_spaces_are_refused_in_one_sentence(space):
    with pytest.raises(InvalidParameterError) as caught:
        PopulationTrainer().setup(space)
    text = str(caught.value)
    assert text.startswith(
        "The 'search_space' parameter of PopulationTrainer must be a TableSpace that "
        "builds its own networks for trainer='population', or take trainer='skorch', "
        "got "
    )
    assert text.count("\n") == 0 and text.endswith(".")


# ----------------------------------------------------------------------------- memory


def starving(where, room, error, after=0):
    """A method that runs out of memory where a unit has too many members."""
    plain = getattr(unit_module._Training, where)

    def starve(self, *args):
        if not room(self.unit) and self.unit.step >= after:
            raise error
        return plain(self, *args)

    return starve


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory."),
    RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
]


@pytest.mark.parametrize(
    ("where", "after"), [("_load", 0), ("_step", 4), ("_look", 0), ("_step", 20)]
)
@pytest.mark.parametrize("optimizer", ["adamw", "momentum"])
def test_units_without_room_are_halved(where, after, optimizer, monkeypatch, two_rungs):
    rate = "ntk_lr" if optimizer == "adamw" else "sgd_lr"
    choices = [{"optimizer": optimizer, rate: r, "dropout": 0.1} for r in RATES[:5]]
    problem = make_problem(n=60, n_steps=30)
    asked = proposals(problem, choices)
    expected = train(asked, problem, halving=False)
    starve = starving(where, lambda unit: len(unit.members) <= 2, ERRORS[0], after)
    monkeypatch.setattr(unit_module._Training, where, starve)
    trials = train(asked, problem, halving=False)
    for trial, other in zip(trials, expected, strict=True):
        assert_same(trial, other)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_what_short_memory_looks_like(error, monkeypatch):
    problem = make_problem(n=60, n_steps=5)
    asked = proposals(problem, [{}, {"ntk_lr": 0.1}])
    starve = starving("_step", lambda unit: len(unit.members) == 1, error)
    monkeypatch.setattr(unit_module._Training, "_step", starve)
    assert [t.status for t in train(asked, problem)] == ["ok", "ok"]
    starve = starving("_step", lambda unit: False, error)
    monkeypatch.setattr(unit_module._Training, "_step", starve)
    assert {t.reason for t in train(asked, problem)} == {"out of memory"}


def test_memory_that_is_short_after_a_rung_loses_nothing(monkeypatch, two_rungs):
    problem = make_problem(n=60, n_steps=30)  # rungs at 10 and 30
    asked = proposals(problem, [{"ntk_lr": r} for r in RATES[:4]])
    expected = train(asked, problem, halving=False)
    starve = starving("_look", lambda u: len(u.members) < 4 or u.step < 26, ERRORS[0])
    monkeypatch.setattr(unit_module._Training, "_look", starve)
    trials = train(asked, problem, halving=False)
    for trial, other in zip(trials, expected, strict=True):
        assert_same(trial, other)


@pytest.mark.parametrize("where", ["_load", "_step", "_look"])
def test_a_member_without_room_fails_alone(where, monkeypatch):
    problem = make_problem(n_steps=20)
    asked = proposals(problem, [{"ntk_lr": r} for r in RATES[:4]])
    expected = train(asked, problem)
    numbers = [1]
    starve = starving(
        where,
        lambda unit: not any(m.proposal.number in numbers for m in unit.members),
        ERRORS[0],
    )
    monkeypatch.setattr(unit_module._Training, where, starve)
    trials = train(asked, problem)
    assert (trials[1].status, trials[1].reason) == ("failed", "out of memory")
    for place in (0, 2, 3):
        assert_same(trials[place], expected[place])


# ------------------------------------------------------------------------ time, Ctrl-C


class TimeBudget:
    """A clock that the steps of a training move."""

    def __init__(self, monkeypatch, per_step=1.0):
        self.now = 0.0
        plain = unit_module._Training._step

        def step(training, number):
            plain(training, number)
            self.now += per_step

        monkeypatch.setattr(unit_module._Training, "_step", step)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.mark.parametrize("n_units", [1, 2])
def test_the_deadline_keeps_what_an_earlier_rung_gave(n_units, monkeypatch, two_rungs):
    problem = make_problem(n_steps=30)  # rungs at 10 and 30
    depths = [2, 2, 2] if n_units == 1 else [2, 1, 2]
    choices = [{"ntk_lr": r, "depth": d} for r, d in zip(RATES, depths, strict=False)]
    asked = proposals(problem, choices)
    whole = train(asked, problem)
    TimeBudget(monkeypatch)
    cut = replace(problem, deadline=10.0 * n_units + 5)
    trials = train(asked, cut)
    for trial, other in zip(trials, whole, strict=True):
        assert trial.status == "ok" and trial.proposal.rung == 0
        assert trial.rung_scores == pytest.approx(other.rung_scores[:1], abs=1e-4)
        assert trial.stop == 10 / 30
        assert trial.fold_scores and trial.networks is not None


def test_the_deadline_before_the_first_rung_stops_the_trial(monkeypatch, two_rungs):
    problem = make_problem(n_steps=30)
    asked = proposals(problem, [{}, {"depth": 1}])
    TimeBudget(monkeypatch)
    trials = train(asked, replace(problem, deadline=15.0))
    assert sorted(t.status for t in trials) == ["ok", "stopped"]
    (late,) = (t for t in trials if t.status == "stopped")
    assert late.reason == "out of time" and late.score is None
    assert late.seconds > 0 and late.rung_scores == () and late.networks is None
    none = train(asked, replace(problem, deadline=5.0))
    assert [(t.status, t.reason) for t in none] == [("stopped", "out of time")] * 2
    never = train(asked, replace(problem, deadline=-1.0))
    assert [(t.status, t.seconds) for t in never] == [("stopped", 0)] * 2


def interrupting(at, member=None):
    plain, n_calls = unit_module._Training._step, []

    def step(self, number):
        n_calls.append(number)
        numbers = [m.proposal.number for m in self.unit.members]
        if number == at and (member is None or member in numbers):
            raise KeyboardInterrupt
        plain(self, number)

    return step, n_calls


@pytest.mark.parametrize("depths", [(2, 2, 2), (2, 1, 3)])
def test_ctrl_c_keeps_what_an_earlier_rung_gave(depths, monkeypatch, two_rungs):
    problem = make_problem(n_steps=30)
    choices = [{"ntk_lr": 0.02 + 0.01 * d, "depth": d} for d in depths]
    choices = [
        {**c, "weight_decay": w} for c, w in zip(choices, (0.0, 0.05, 0.1), strict=True)
    ]
    asked = proposals(problem, choices)
    whole = train(asked, problem)
    step, calls = interrupting(at=15)
    monkeypatch.setattr(unit_module._Training, "_step", step)
    trials = train(asked, problem)
    assert [t.status for t in trials] == ["ok"] * 3
    assert calls[-1] == 15  # and nothing after it
    for trial, other in zip(trials, whole, strict=True):
        assert trial.rung_scores[0] == pytest.approx(other.rung_scores[0], abs=1e-4)
    assert {t.proposal.rung for t in trials} == {0}


def test_ctrl_c_before_the_first_rung_ends_all(monkeypatch, two_rungs):
    problem = make_problem(n_steps=30)
    asked = proposals(problem, [{}, {"depth": 1}, {"depth": 3}])
    step, calls = interrupting(at=5)
    monkeypatch.setattr(unit_module._Training, "_step", step)
    trials = train(asked, problem)
    assert [(t.status, t.reason) for t in trials] == [("stopped", "interrupted")] * 3
    assert calls == list(range(6))


def test_ctrl_c_keeps_units_that_are_done(monkeypatch):
    problem = make_problem(n_steps=20)
    asked = proposals(problem, [{}, {"depth": 1}, {"depth": 4}])
    step, _ = interrupting(at=5, member=1)
    monkeypatch.setattr(unit_module._Training, "_step", step)
    trials = train(asked, problem)
    assert [t.status for t in trials] == ["ok", "stopped", "ok"]  # the shortest is last
    assert trials[1].reason == "interrupted"


# --------------------------------------------------------------------- halving, resume


@pytest.mark.parametrize("n_cells", [None, 1, 3 * 32 * 256 * 2])
def test_weaker_trials_are_dropped_and_the_others_are_what_they_were(
    n_cells, monkeypatch, two_rungs
):
    if n_cells is not None:
        monkeypatch.setattr(population, "UNIT_CELLS", n_cells)
    problem = make_problem(n=60, n_steps=30)  # rungs at 10 and 30
    choices = [{"ntk_lr": 0.006, "dropout": 0.5, "width": 64}]  # the default
    choices += [{"ntk_lr": r} for r in (0.01, 0.02, 0.03, 0.05, 0.1, 0.2)]
    choices += [{"depth": 0}, {"depth": 1, "ntk_lr": 0.1}, {"depth": 3}]
    asked = proposals(problem, choices)
    halved = train(asked, problem)
    whole = train(asked, problem, halving=False)
    dropped = [t for t in halved if t.proposal.rung == 0]
    left = [t for t in halved if t.proposal.rung == 1]
    assert len(left) in (5, 6) and len(left) + len(dropped) == 10
    assert halved[0].proposal.rung == 1  # the default is always in the comparison
    assert all(len(t.rung_scores) == 2 for t in [*left, *whole])
    assert all(len(t.rung_scores) == 1 for t in dropped)
    assert all(t.status == "ok" and t.networks is not None for t in dropped)
    for trial in left:
        assert_same(trial, whole[trial.proposal.number])
    for trial in dropped:
        first = whole[trial.proposal.number].rung_scores[0]
        assert trial.score == pytest.approx(first, abs=1e-4)
        assert trial.rung_scores[-1] == trial.score and trial.stop == 10 / 30
    best_left = sorted(t.rung_scores[0] - 0.1 * t.loss for t in left)[-3:]
    assert min(best_left) >= max(t.score - 0.1 * t.loss for t in dropped) - 0.1


def test_a_cohort_of_three_is_not_halved(two_rungs):
    problem = make_problem(n_steps=30)
    trials = train(proposals(problem, [{"ntk_lr": r} for r in RATES[:3]]), problem)
    assert [t.proposal.rung for t in trials] == [1, 1, 1]


@pytest.mark.parametrize("n_cells", [None, 1])
def test_small_units_are_joined_after_halving(n_cells, monkeypatch, two_rungs):
    """Units shrink; what is left of two of the same kind goes on as one."""
    problem = make_problem(n=60, n_steps=30)
    n_most = 4 if n_cells is None else 1
    monkeypatch.setattr(population, "UNIT_CELLS", n_cells or 4 * 32 * 256 * 2)
    sizes = []
    plain = unit_module.advance

    def noting(unit, space, problem, schedule, rung):
        sizes.append((rung, len(unit.members)))
        return plain(unit, space, problem, schedule, rung)

    monkeypatch.setattr(population, "advance", noting)
    asked = proposals(problem, [{"ntk_lr": r} for r in (*RATES, 0.006, 0.15)])
    train([replace(proposal, origin="known") for proposal in asked], problem)
    assert [n for rung, n in sizes if rung == 0] == [n_most] * (8 // n_most)
    assert [n for rung, n in sizes if rung == 1] == [n_most] * (4 // n_most)


# ------------------------------------------------------------------------------- folds


def layouts(kind="binary", n_steps=12):
    """Three folds that differ in levels, columns, size and weight.

    Few steps: rounding differs between processors, and batch normalisation makes it
    grow with each of them.
    """
    n = 120
    rng = np.random.default_rng(0)
    splits = [
        (np.arange(0, 90), np.arange(90, 120)),
        (np.arange(40, 120), np.arange(0, 10)),
        (np.arange(0, 50), np.arange(50, 90)),
    ]
    weight = rng.integers(1, 5, n).astype(float)
    problem = make_problem(kind, n, splits=splits, weight=weight, n_steps=n_steps)
    first, second, third = problem.folds

    def cut(rows, columns):
        return replace(rows, x=rows.x[:, columns])

    # The second fold knows fewer levels, the third has no two-valued column.
    few = replace(second.task, cardinalities=(2, 12))
    x, valid = second.train.x.copy(), second.valid.x.copy()
    for table in (x, valid):
        table[:, 5] = np.where(table[:, 5] > 2, 0, table[:, 5])
        table[:, 6] = np.where(table[:, 6] > 12, 0, table[:, 6])
    second = replace(
        second,
        task=few,
        train=replace(second.train, x=x),
        valid=replace(second.valid, x=valid),
    )
    left = [0, 1, 2, 3, 5, 6]
    third = replace(
        third,
        task=replace(third.task, n_binary=0),
        train=cut(third.train, left),
        valid=cut(third.valid, left),
    )
    return replace(problem, folds=(first, second, third))


@pytest.mark.parametrize("kind", ["binary", "regression"])
@pytest.mark.parametrize(
    "family", [{"embedding_size": 8}, {"packing": 4}, {"normalisation": "batch"}]
)
def test_folds_of_different_layout_size_and_weight(kind, family):
    problem = layouts(kind)
    choices = [family, {**family, "ntk_lr": 0.02}, {**family, "depth": 1}]
    asked = proposals(problem, choices)
    together = train(asked, problem)
    for place, trial in enumerate(together):
        assert trial.status == "ok"
        assert_same(trial, train([asked[place]], problem)[0])
        nets = rebuilt(trial, problem)
        for fold, net, score in zip(
            problem.folds, nets, trial.fold_scores, strict=True
        ):
            output = evaluate(net.module_, torch.tensor(fold.valid.x))
            predicted = fold.restore(output)
            told = (fold.valid_rows, fold.valid.weight)
            assert score == pytest.approx(problem.score(predicted, *told), abs=1e-4)


def test_a_fold_is_trained_with_its_own_weights():
    """Rows of one class that weigh nothing are not learnt."""
    problem = make_problem(n=80, n_steps=60, cardinalities=())
    fold = problem.folds[0]
    weight = np.where(fold.train.y == 0, 1e-6, 1.0)
    heavy = replace(fold, train=replace(fold.train, weight=weight))
    problem = replace(problem, folds=(heavy, problem.folds[1]))
    (trial,) = train(proposals(problem, [{}]), problem)
    first, second = (trial.predictions[f.valid_rows] for f in problem.folds)
    assert (first.argmax(1) == 1).all() and 0.1 < (second.argmax(1) == 1).mean() < 0.9


@pytest.mark.parametrize(
    "splits",
    [
        [(range(60), range(60, 90))],
        [(range(60), range(60, 100)), (range(40, 100), range(0, 30))],
        [(range(0, 60), range(60, 90)), (range(30, 60), range(50, 80))],
    ],
    ids=["one", "uneven", "overlapping"],
)
def test_folds_of_the_users_own(splits):
    told = [tuple(map(np.asarray, split)) for split in splits]
    problem = make_problem(n=120, splits=told, n_steps=20)
    (trial,) = train(proposals(problem, [{}]), problem)
    seen = np.zeros(120, dtype=bool)
    for _, valid in told:
        seen[valid] = True
    np.testing.assert_array_equal(~np.isnan(trial.predictions).any(axis=1), seen)
    assert len(trial.networks) == len(splits)
    nets = rebuilt(trial, problem)
    total, count = np.zeros((120, 2)), np.zeros((120, 1))
    for fold, net in zip(problem.folds, nets, strict=True):
        output = evaluate(net.module_, torch.tensor(fold.valid.x))
        total[fold.valid_rows] += fold.restore(output)
        count[fold.valid_rows] += 1
    np.testing.assert_allclose(
        trial.predictions[seen], (total / np.maximum(count, 1))[seen], atol=1e-5
    )


@pytest.mark.parametrize("cls", [NASClassifier, NASRegressor])
@pytest.mark.parametrize("n", [40, 300])
def test_weights_are_repetitions(cls, n):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 3))
    y = X[:, 0] + X[:, 1] ** 2 if cls is NASRegressor else (X[:, 0] > 0).astype(int)
    weight = rng.integers(1, 4, n)
    repeated = np.repeat(np.arange(n), weight)
    options = {"max_trials": 2, "max_epochs": 3, "n_jobs": 1, "random_state": 0}
    one = cls(**options).fit(X, y, sample_weight=weight)
    assert isinstance(one._find_trainer(), PopulationTrainer)
    other = cls(**options).fit(X[repeated], y[repeated])
    assert one.best_score_ == other.best_score_
    assert one.best_architecture_ == other.best_architecture_
    answer = "predict" if cls is NASRegressor else "predict_proba"
    np.testing.assert_array_equal(getattr(one, answer)(X), getattr(other, answer)(X))


# ----------------------------------------------------------------------------- workers


def test_workers_change_nothing(monkeypatch, two_rungs):
    problem = make_problem(n=60, n_steps=30)
    choices = [{"ntk_lr": r} for r in RATES] + [{"depth": 1}, {"packing": 4}]
    asked = proposals(problem, choices)
    alone = train(asked, problem)
    monkeypatch.setattr(workers, "WORTH_WORKERS", 0.0)
    monkeypatch.setattr(workers, "ROOM_FOR_WORKERS", 0.0)
    two = train(asked, replace(problem, n_jobs=2))
    for one, other in zip(alone, two, strict=True):
        assert one.proposal == other.proposal
        assert one.rung_scores == other.rung_scores
        np.testing.assert_array_equal(one.predictions, other.predictions)
        for mine, yours in zip(one.networks, other.networks, strict=True):
            assert all(torch.equal(mine[name], yours[name]) for name in mine)


def test_torch_is_left_as_found():
    torch.manual_seed(5)
    state = torch.get_rng_state(), torch.get_num_threads()
    problem = make_problem(n_steps=5)
    with torch.inference_mode():
        trials = train(proposals(problem, [{"dropout": 0.5}]), problem)
    assert trials[0].status == "ok"
    assert torch.equal(state[0], torch.get_rng_state())
    assert state[1] == torch.get_num_threads()


def test_a_worker_that_dies_fails_its_trials_alone(monkeypatch):
    """What was there before stays, and the search tells why."""
    from sknas.trainers import _successive_halving as _cohort

    whole = _cohort.run_tasks
    calls = []

    def run_tasks(*told):
        calls.append(told)
        if len(calls) > 1:
            raise OSError("the worker was killed")
        return whole(*told)

    monkeypatch.setattr(_cohort, "run_tasks", run_tasks)
    X = np.random.default_rng(0).standard_normal((300, 3))
    model = NASClassifier(max_trials=3, random_state=0, n_jobs=1)
    model.fit(X, X[:, 0] > 0)
    assert len(calls) == 2 and model.n_trials_ == 3
    assert model.cv_results_["rung"].tolist() == [0, 0, 0]
    assert model.score(X, X[:, 0] > 0) > 0.8


def test_a_space_with_a_build_of_its_own_is_not_batched():
    class Own(TableSpace):
        def build(self, architectures, task):
            return super().build(architectures, task)

    with pytest.raises(InvalidParameterError, match="builds its own networks"):
        PopulationTrainer().setup(Own())


def test_a_failed_training_is_not_kept_alive_by_its_error(monkeypatch):
    """The halves would else start beside all that filled the memory."""
    import gc
    import weakref

    from sknas.trainers import _loop as _unit

    alive, seen = [], []
    whole = _unit._Training

    class Training(whole):
        def run(self, rung):
            gc.collect()
            seen.append(sum(ref() is not None for ref in alive))
            alive.append(weakref.ref(self))
            if len(self.unit.members) > 1:
                raise MemoryError
            super().run(rung)

    monkeypatch.setattr(_unit, "_Training", Training)
    X = np.random.default_rng(0).standard_normal((120, 3))
    space = TableSpace(depth=(1, 1), width=(16,), activation=("relu",))
    NASClassifier(space, "random", max_trials=4, max_epochs=3, random_state=0).fit(
        X, X[:, 0] > 0
    )
    assert len(seen) > 2 and max(seen) == 0


def test_a_large_group_is_dealt_into_units_of_the_same_size(monkeypatch):
    problem = make_problem()
    monkeypatch.setattr(population, "UNIT_NETWORKS", 4 * len(problem.folds))
    trainer = PopulationTrainer()
    trainer.setup(space_of(problem))
    asked = proposals(problem, [{"ntk_lr": 0.01 * (j + 1)} for j in range(9)])
    schedules = {p.number: Schedule.of(p.architecture, problem) for p in asked}
    units = trainer._units(asked, problem, schedules)
    assert [len(unit.members) for unit in units] == [3, 3, 3]


def test_training_does_not_import_the_compiler():
    """It takes a second or two, in each worker."""
    code = (
        "import sys\n"
        "from sklearn.datasets import load_iris\n"
        "from sknas import NASClassifier\n"
        "X, y = load_iris(return_X_y=True)\n"
        "NASClassifier(max_trials=1, max_epochs=1, n_jobs=1).fit(X, y).predict(X)\n"
        "sys.exit('torch._dynamo' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
