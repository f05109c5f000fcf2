"""Training many networks as groups gives the same results as training each alone."""

import gc
import subprocess
import sys
import time
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from cohorts import (
    assert_same,
    make_context,
    make_problem,
    make_trainer,
    proposals,
    to_networks,
    train,
)
from scorers import FunctionScorer

import sknas._parallel.run as run_module
import sknas.trainers._advance as advance_module
import sknas.trainers._loop as loop_module
import sknas.trainers._population as population_module
import sknas.trainers._schedule as schedule_module
from sknas import NASClassifier, NASRegressor
from sknas.exceptions import InvalidParameterError
from sknas.spaces import DictSpace, ImageSpace, TableSpace
from sknas.trainers import PopulationTrainer
from sknas.trainers._loop import TrainingLoop
from sknas.trainers._snapshot import evaluate

# Architectures of several shapes, trained as one cohort.
FAMILIES = {
    "training choices": [
        {"ntk_lr": 0.02},
        {"ntk_lr": 0.05, "weight_decay": 0.0},
        {"ntk_lr": 0.01, "weight_decay": 0.3, "scale_speed": 6.0},
    ],
    "activations": [
        {"dropout": 0.5},
        {"dropout": 0.0, "activation": "relu"},
        {"dropout": 0.1, "activation": "gelu"},
        {"dropout": 0.5, "activation": "relu"},
    ],
    "parametric activations": [
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
CASES += [("multilabel", f) for f in ("packing", "activations", "batch sizes")]
CASES += [("binary", f) for f in ("optimizers", "training choices")]


@pytest.fixture
def two_rungs(monkeypatch):
    """Set two rungs, at a third and at the end, for trainings of any length."""
    monkeypatch.setattr(schedule_module, "n_cycles", lambda n_steps: 2)


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


def test_training_in_a_group_equals_training_alone(cohort, monkeypatch):
    problem, proposed = cohort
    together = train(proposed, problem)
    alone = [train([proposal], problem)[0] for proposal in proposed]
    backwards = train(proposed[::-1], problem)[::-1]
    monkeypatch.setattr(population_module, "MAX_CELLS", 2 * 32 * 256 * 2)
    in_pairs = train(proposed[:-1], problem)
    for trial in together:
        assert trial.status == "ok" and np.isfinite(trial.predictions).all()
    for index, trial in enumerate(together):
        assert_same(trial, alone[index])
        assert_same(trial, backwards[index])
    for trial, other in zip(together, in_pairs, strict=False):
        assert_same(trial, other)


def test_networks_of_different_seeds_differ():
    problem = make_problem()
    (one,) = proposals(problem, [{}])
    other = train([replace(one, seed=99)], problem)[0]
    assert not np.allclose(train([one], problem)[0].predictions, other.predictions)


@pytest.mark.parametrize("kind", KINDS)
def test_networks_learn_each_kind_of_target(kind):
    problem = make_problem(kind, 240, 2, n_steps=150, cardinalities=())
    choices = [{}, {"packing": 4}, {"block": "resnet", "normalisation": "layer"}]
    trials = train(proposals(problem, choices), problem)
    min_score = 0.75 if kind in ("binary", "regression") else 0.55
    assert min(trial.score for trial in trials) > min_score


@pytest.mark.parametrize("kind", KINDS)
def test_networks_of_a_trial_reproduce_its_predictions(kind):
    problem = make_problem(kind, n_folds=3)
    choices = [{"embedding_size": 8}, {"packing": 4}, {"normalisation": "batch"}]
    for trial in train(proposals(problem, choices), problem):
        nets = to_networks(trial, problem)
        assert len(nets) == len(trial.networks) == 3
        n_params = sum(p.numel() for p in nets[0].module_.parameters())
        assert trial.n_params == n_params
        for fold, net in zip(problem.folds, nets, strict=True):
            assert not net.module_.training
            output = evaluate(net.module_, torch.tensor(fold.valid.x))
            expected = trial.predictions[fold.valid_rows]
            np.testing.assert_allclose(fold.restore(output), expected, atol=1e-5)


def test_folds_have_different_initial_weights():
    problem = make_problem(n_folds=2)
    twins = replace(problem, folds=(problem.folds[0], problem.folds[0]))
    (trial,) = train(proposals(twins, [{}]), twins)
    first, second = (state["layers.0.linear.weight"] for state in trial.networks)
    assert not torch.allclose(first, second)


def test_trials_are_reported_as_they_end(two_rungs):
    reported = []
    problem = make_problem(n_steps=30)
    proposed = proposals(problem, [{"ntk_lr": r} for r in RATES])
    trials = train(proposed, problem, report=reported.append)
    assert sorted(t.proposal.number for t in reported) == list(range(len(trials)))
    rungs = [trial.proposal.rung for trial in reported]
    assert rungs == sorted(rungs)
    by_number = {trial.proposal.number: trial for trial in reported}
    for trial in trials:
        assert by_number[trial.proposal.number] == trial


@pytest.mark.parametrize("n_folds", [1, 3])
def test_fields_of_a_trial_are_consistent(n_folds):
    problem = make_problem(n_folds=max(n_folds, 2), n_steps=120)
    problem = replace(problem, folds=problem.folds[:n_folds])
    for trial in train(proposals(problem, [{}, {"depth": 1}]), problem):
        assert len(trial.fold_scores) == len(trial.fold_seconds) == n_folds
        assert trial.score == pytest.approx(np.mean(trial.fold_scores))
        assert trial.seconds == pytest.approx(sum(trial.fold_seconds)) and trial.seconds
        rows = np.concatenate([fold.valid_rows for fold in problem.folds])
        known = ~np.isnan(trial.predictions).any(axis=1)
        assert sorted(np.flatnonzero(known)) == sorted(rows)
        assert trial.n_epochs == round(trial.stop * 120)  # one batch per epoch
        assert trial.rung_scores[-1] >= trial.rung_scores[0] - 0.1


# ----------------------------------------------------------------------------- faults


def test_a_diverging_network_does_not_affect_the_others(two_rungs):
    problem = make_problem("regression", n_steps=30)
    steady = {"optimizer": "adamw", "recipe": "uniform"}
    choices = [{**steady, "lr": 1e-2}, {**steady, "lr": 1.0}, {**steady, "lr": 3e-3}]
    space = TableSpace(lr=(1e-4, 1.0)).for_task(problem.task)
    proposed = proposals(problem, choices, space)
    expected = train([proposed[0], proposed[2]], problem, space)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingLoop, "_step", diverging_step(trial=1, step=5))
        trials = train(proposed, problem, space)
    assert trials[1].status == "failed" and trials[1].score is None
    assert trials[1].reason == "the loss became infinite or NaN"
    assert trials[1].predictions is None and trials[1].rung_scores == ()
    assert_same(trials[0], expected[0])
    assert_same(trials[2], expected[1])


def diverging_step(trial, step):
    """Return a step method that sets the parameters of a trial to NaN at one step."""
    original = TrainingLoop._step

    def step_and_diverge(self, number):
        original(self, number)
        numbers = [t.proposal.number for t in self.group.trials]
        if number == step and trial in numbers:
            first = numbers.index(trial) * self.n_folds
            with torch.no_grad():
                for parameter in self.net.parameters():
                    parameter[first : first + self.n_folds] = torch.nan

    return step_and_diverge


@pytest.mark.parametrize("family", [{"packing": 4}, {"normalisation": "batch"}, {}])
def test_a_large_learning_rate_does_not_affect_the_others(family):
    problem = make_problem("regression", n_steps=40)
    space = TableSpace(lr=(1e-4, 1.0), sgd_lr=(1e-3, 10.0), dropout=(0.0,))
    choices = [
        {**family, "optimizer": "sgd", "sgd_lr": rate} for rate in (0.01, 10.0, 0.05)
    ]
    proposed = proposals(problem, choices, space)
    together = train(proposed, problem, space)
    for index in (0, 2):
        assert_same(together[index], train([proposed[index]], problem, space)[0])
    assert together[1].status in ("ok", "failed")


def test_a_trial_that_diverges_late_keeps_the_rung_it_reached(two_rungs):
    problem = make_problem(n_steps=30)  # rungs at 10 and 30
    proposed = proposals(problem, [{"ntk_lr": rate} for rate in RATES[:3]])
    expected = train(proposed, problem, halving=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingLoop, "_step", diverging_step(trial=1, step=15))
        trials = train(proposed, problem, halving=False)
    assert_same(trials[0], expected[0])
    assert_same(trials[2], expected[2])
    late = trials[1]
    assert late.status == "ok" and late.proposal.rung == 0
    assert late.rung_scores == pytest.approx(expected[1].rung_scores[:1])
    assert late.stop == 10 / 30 and np.isfinite(late.predictions).all()


def test_a_trial_without_a_score_fails():
    problem = make_problem(n_steps=5)

    for reason in ("only one class is present.", ""):
        undefined = FunctionScorer(lambda *_: float("nan"), reason)
        proposed = proposals(problem, [{}, {}])
        trials = train(proposed, replace(problem, scorer=undefined))
        why = reason.rstrip(".") or "the scorer returned NaN"
        assert {t.status for t in trials} == {"failed"}
        assert {t.reason for t in trials} == {f"no score: {why}"}


def test_an_error_in_one_shape_does_not_affect_the_others():
    class Narrow(TableSpace):
        def build_batch(self, architectures, task, layout=None):
            if architectures[0]["width"] == 64 and not torch.empty(0).is_meta:
                raise KeyError("no such layer")
            return super().build_batch(architectures, task, layout)

    problem = make_problem()
    proposed = proposals(problem, [{}, {"width": 64}, {"width": 128}])
    trials = train(proposed, problem, Narrow().for_task(problem.task))
    assert [t.status for t in trials] == ["ok", "failed", "ok"]
    assert trials[1].reason == "KeyError: 'no such layer'"
    assert_same(trials[0], train(proposed[:1], problem)[0])


@pytest.mark.parametrize("space", [DictSpace({"x": (0, 1)}), ImageSpace()])
def test_spaces_without_batches_raise_an_error(space):
    with pytest.raises(InvalidParameterError) as caught:
        PopulationTrainer().setup(space, make_problem(), make_context())
    text = str(caught.value)
    assert text.startswith(
        "The 'search_space' parameter of PopulationTrainer must be a space that builds "
        "batches of networks for trainer='population', or take trainer='skorch', got "
    )
    assert text.count("\n") == 0 and text.endswith(".")


# ----------------------------------------------------------------------------- memory


def out_of_memory(where, has_room, error, after=0):
    """Return a method that runs out of memory unless `has_room(group)`."""
    original = getattr(TrainingLoop, where)

    def run_out_of_memory(self, *args):
        if not has_room(self.group) and self.group.step >= after:
            raise error
        return original(self, *args)

    return run_out_of_memory


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory."),
    RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
]


@pytest.mark.parametrize(
    ("where", "after"),
    [("_load", 0), ("_step", 4), ("_take_snapshot", 0), ("_step", 20)],
)
@pytest.mark.parametrize(
    "optimizer", ["adamw", pytest.param("momentum", marks=pytest.mark.slow)]
)
def test_groups_out_of_memory_are_split(
    where, after, optimizer, monkeypatch, two_rungs
):
    rate = "ntk_lr" if optimizer == "adamw" else "sgd_lr"
    choices = [{"optimizer": optimizer, rate: r, "dropout": 0.1} for r in RATES[:5]]
    problem = make_problem(n=60, n_steps=30)
    proposed = proposals(problem, choices)
    expected = train(proposed, problem, halving=False)
    run_out_of_memory = out_of_memory(
        where, lambda group: len(group.trials) <= 2, ERRORS[0], after
    )
    monkeypatch.setattr(TrainingLoop, where, run_out_of_memory)
    trials = train(proposed, problem, halving=False)
    for trial, other in zip(trials, expected, strict=True):
        assert_same(trial, other)


@pytest.mark.slow
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_all_memory_errors_are_recognised(error, monkeypatch):
    problem = make_problem(n=60, n_steps=5)
    proposed = proposals(problem, [{}, {"ntk_lr": 0.1}])
    run_out_of_memory = out_of_memory(
        "_step", lambda group: len(group.trials) == 1, error
    )
    monkeypatch.setattr(TrainingLoop, "_step", run_out_of_memory)
    assert [t.status for t in train(proposed, problem)] == ["ok", "ok"]
    run_out_of_memory = out_of_memory("_step", lambda group: False, error)
    monkeypatch.setattr(TrainingLoop, "_step", run_out_of_memory)
    assert {t.reason for t in train(proposed, problem)} == {"out of memory"}


def test_groups_are_split_if_memory_runs_out_after_a_rung(monkeypatch, two_rungs):
    problem = make_problem(n=60, n_steps=30)  # rungs at 10 and 30
    proposed = proposals(problem, [{"ntk_lr": r} for r in RATES[:4]])
    expected = train(proposed, problem, halving=False)
    where = "_take_snapshot"
    run_out_of_memory = out_of_memory(
        where, lambda g: len(g.trials) < 4 or g.step < 26, ERRORS[0]
    )
    monkeypatch.setattr(TrainingLoop, where, run_out_of_memory)
    trials = train(proposed, problem, halving=False)
    for trial, other in zip(trials, expected, strict=True):
        assert_same(trial, other)


@pytest.mark.parametrize("where", ["_load", "_step", "_take_snapshot"])
def test_a_trial_that_runs_out_of_memory_does_not_affect_the_others(where, monkeypatch):
    problem = make_problem(n_steps=20)
    proposed = proposals(problem, [{"ntk_lr": r} for r in RATES[:4]])
    expected = train(proposed, problem)
    numbers = [1]
    run_out_of_memory = out_of_memory(
        where,
        lambda group: not any(t.proposal.number in numbers for t in group.trials),
        ERRORS[0],
    )
    monkeypatch.setattr(TrainingLoop, where, run_out_of_memory)
    trials = train(proposed, problem)
    assert (trials[1].status, trials[1].reason) == ("failed", "out of memory")
    for index in (0, 2, 3):
        assert_same(trials[index], expected[index])


# ------------------------------------------------------------------------ time, Ctrl-C


class StepClock:
    """A clock that advances with the steps of a training."""

    def __init__(self, monkeypatch, per_step=1.0):
        self.now = 0.0
        original = TrainingLoop._step

        def step(training, number):
            original(training, number)
            self.now += per_step

        monkeypatch.setattr(TrainingLoop, "_step", step)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.mark.parametrize("n_groups", [1, 2])
def test_trials_keep_the_score_of_the_last_rung_at_the_deadline(
    n_groups, monkeypatch, two_rungs
):
    problem = make_problem(n_steps=30)  # rungs at 10 and 30
    depths = [2, 2, 2] if n_groups == 1 else [2, 1, 2]
    choices = [{"ntk_lr": r, "depth": d} for r, d in zip(RATES, depths, strict=False)]
    proposed = proposals(problem, choices)
    whole = train(proposed, problem)
    StepClock(monkeypatch)
    trials = train(proposed, problem, deadline=10.0 * n_groups + 5)
    for trial, other in zip(trials, whole, strict=True):
        assert trial.status == "ok" and trial.proposal.rung == 0
        assert trial.rung_scores == pytest.approx(other.rung_scores[:1], abs=1e-4)
        assert trial.stop == 10 / 30
        assert trial.fold_scores and trial.networks is not None


def test_a_deadline_before_the_first_rung_stops_the_trial(monkeypatch, two_rungs):
    problem = make_problem(n_steps=30)
    proposed = proposals(problem, [{}, {"depth": 1}])
    StepClock(monkeypatch)
    trials = train(proposed, problem, deadline=15.0)
    assert sorted(t.status for t in trials) == ["ok", "stopped"]
    (late,) = (t for t in trials if t.status == "stopped")
    assert late.reason == "out of time" and late.score is None
    assert late.seconds > 0 and late.rung_scores == () and late.networks is None
    none = train(proposed, problem, deadline=5.0)
    assert [(t.status, t.reason) for t in none] == [("stopped", "out of time")] * 2
    never = train(proposed, problem, deadline=-1.0)
    assert [(t.status, t.seconds) for t in never] == [("stopped", 0)] * 2


def interrupting(at, trial=None):
    original, n_calls = TrainingLoop._step, []

    def step(self, number):
        n_calls.append(number)
        numbers = [t.proposal.number for t in self.group.trials]
        if number == at and (trial is None or trial in numbers):
            raise KeyboardInterrupt
        original(self, number)

    return step, n_calls


@pytest.mark.parametrize("depths", [(2, 2, 2), (2, 1, 3)])
def test_trials_keep_the_score_of_the_last_rung_after_ctrl_c(
    depths, monkeypatch, two_rungs
):
    problem = make_problem(n_steps=30)
    choices = [{"ntk_lr": 0.02 + 0.01 * d, "depth": d} for d in depths]
    choices = [
        {**c, "weight_decay": w} for c, w in zip(choices, (0.0, 0.05, 0.1), strict=True)
    ]
    proposed = proposals(problem, choices)
    whole = train(proposed, problem)
    step, calls = interrupting(at=15)
    monkeypatch.setattr(TrainingLoop, "_step", step)
    trials = train(proposed, problem)
    assert [t.status for t in trials] == ["ok"] * 3
    assert calls[-1] == 15  # the last step
    for trial, other in zip(trials, whole, strict=True):
        assert trial.rung_scores[0] == pytest.approx(other.rung_scores[0], abs=1e-4)
    assert {t.proposal.rung for t in trials} == {0}


def test_ctrl_c_before_the_first_rung_stops_all_trials(monkeypatch, two_rungs):
    problem = make_problem(n_steps=30)
    proposed = proposals(problem, [{}, {"depth": 1}, {"depth": 3}])
    step, calls = interrupting(at=5)
    monkeypatch.setattr(TrainingLoop, "_step", step)
    trials = train(proposed, problem)
    assert [(t.status, t.reason) for t in trials] == [("stopped", "interrupted")] * 3
    assert calls == list(range(6))


def test_ctrl_c_keeps_finished_groups(monkeypatch):
    problem = make_problem(n_steps=20)
    proposed = proposals(problem, [{}, {"depth": 1}, {"depth": 4}])
    step, _ = interrupting(at=5, trial=1)
    monkeypatch.setattr(TrainingLoop, "_step", step)
    trials = train(proposed, problem)
    assert [t.status for t in trials] == ["ok", "stopped", "ok"]  # the shortest is last
    assert trials[1].reason == "interrupted"


# ------------------------------------------------------------------ successive halving


@pytest.mark.parametrize("n_cells", [None, 1, 3 * 32 * 256 * 2])
def test_dropping_trials_does_not_affect_the_promoted_ones(
    n_cells, monkeypatch, two_rungs
):
    if n_cells is not None:
        monkeypatch.setattr(population_module, "MAX_CELLS", n_cells)
    problem = make_problem(n=60, n_steps=30)  # rungs at 10 and 30
    choices = [{"ntk_lr": 0.006, "dropout": 0.5, "width": 64}]  # the default
    choices += [{"ntk_lr": r} for r in (0.01, 0.02, 0.03, 0.05, 0.1, 0.2)]
    choices += [{"depth": 0}, {"depth": 1, "ntk_lr": 0.1}, {"depth": 3}]
    proposed = proposals(problem, choices)
    reduced = train(proposed, problem)
    whole = train(proposed, problem, halving=False)
    dropped = [t for t in reduced if t.proposal.rung == 0]
    promoted = [t for t in reduced if t.proposal.rung == 1]
    assert len(promoted) in (5, 6) and len(promoted) + len(dropped) == 10
    assert reduced[0].proposal.rung == 1  # the default is always promoted
    assert all(len(t.rung_scores) == 2 for t in [*promoted, *whole])
    assert all(len(t.rung_scores) == 1 for t in dropped)
    assert all(t.status == "ok" and t.networks is not None for t in dropped)
    for trial in promoted:
        assert_same(trial, whole[trial.proposal.number])
    for trial in dropped:
        first = whole[trial.proposal.number].rung_scores[0]
        assert trial.score == pytest.approx(first, abs=1e-4)
        assert trial.rung_scores[-1] == trial.score and trial.stop == 10 / 30
    best_promoted = sorted(t.rung_scores[0] - 0.1 * t.loss for t in promoted)[-3:]
    assert min(best_promoted) >= max(t.score - 0.1 * t.loss for t in dropped) - 0.1


def test_a_cohort_of_three_is_not_reduced(two_rungs):
    problem = make_problem(n_steps=30)
    trials = train(proposals(problem, [{"ntk_lr": r} for r in RATES[:3]]), problem)
    assert [t.proposal.rung for t in trials] == [1, 1, 1]


@pytest.mark.parametrize("n_cells", [None, 1])
def test_small_groups_are_joined_after_a_rung(n_cells, monkeypatch, two_rungs):
    problem = make_problem(n=60, n_steps=30)
    n_max = 4 if n_cells is None else 1
    monkeypatch.setattr(population_module, "MAX_CELLS", n_cells or 4 * 32 * 256 * 2)
    sizes = []
    original = loop_module.train_stacked

    def recording(group, rung, *arguments):
        sizes.append((rung, len(group.trials)))
        original(group, rung, *arguments)

    monkeypatch.setattr(population_module, "train_stacked", recording)
    proposed = proposals(problem, [{"ntk_lr": r} for r in (*RATES, 0.006, 0.15)])
    train([replace(proposal, origin="known") for proposal in proposed], problem)
    assert [n for rung, n in sizes if rung == 0] == [n_max] * (8 // n_max)
    assert [n for rung, n in sizes if rung == 1] == [n_max] * (4 // n_max)


# ------------------------------------------------------------------------------- folds


def layouts(kind="binary", n_steps=12):
    """Return a problem of three folds with other levels, columns, sizes and weights.

    There are few steps, because rounding differs between processors and batch
    normalisation amplifies it at each step.
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

    def select(rows, columns):
        return replace(rows, x=rows.x[:, columns])

    # The second fold has fewer levels, the third has no binary column.
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
    columns = [0, 1, 2, 3, 5, 6]
    third = replace(
        third,
        task=replace(third.task, n_binary=0),
        train=select(third.train, columns),
        valid=select(third.valid, columns),
    )
    return replace(problem, folds=(first, second, third))


@pytest.mark.parametrize("kind", ["binary", "regression"])
@pytest.mark.parametrize(
    "family", [{"embedding_size": 8}, {"packing": 4}, {"normalisation": "batch"}]
)
def test_folds_may_differ_in_layout_size_and_weight(kind, family):
    problem = layouts(kind)
    choices = [family, {**family, "ntk_lr": 0.02}, {**family, "depth": 1}]
    proposed = proposals(problem, choices)
    together = train(proposed, problem)
    for proposal, trial in zip(proposed, together, strict=True):
        assert trial.status == "ok"
        assert_same(trial, train([proposal], problem)[0])
        nets = to_networks(trial, problem)
        for fold, net, score in zip(
            problem.folds, nets, trial.fold_scores, strict=True
        ):
            output = evaluate(net.module_, torch.tensor(fold.valid.x))
            predicted = fold.restore(output)
            rows, weight = fold.valid_rows, fold.valid.weight
            again = problem.scorer.score(predicted, rows, weight).value
            assert score == pytest.approx(again, abs=1e-4)


def test_a_fold_is_trained_with_its_own_weights():
    """A class whose rows have almost no weight is not learnt."""
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
def test_user_defined_folds_are_accepted(splits):
    splits = [tuple(map(np.asarray, split)) for split in splits]
    problem = make_problem(n=120, splits=splits, n_steps=20)
    (trial,) = train(proposals(problem, [{}]), problem)
    seen = np.zeros(120, dtype=bool)
    for _, valid in splits:
        seen[valid] = True
    np.testing.assert_array_equal(~np.isnan(trial.predictions).any(axis=1), seen)
    assert len(trial.networks) == len(splits)
    nets = to_networks(trial, problem)
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
def test_integer_weights_equal_repeated_rows(cls, n):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 3))
    y = X[:, 0] + X[:, 1] ** 2 if cls is NASRegressor else (X[:, 0] > 0).astype(int)
    weight = rng.integers(1, 4, n)
    repeated = np.repeat(np.arange(n), weight)
    options = {"max_trials": 2, "max_epochs": 3, "n_jobs": 1, "random_state": 0}
    one = cls(**options).fit(X, y, sample_weight=weight)
    other = cls(**options).fit(X[repeated], y[repeated])
    assert one.best_score_ == other.best_score_
    assert one.best_architecture_ == other.best_architecture_
    method = "predict" if cls is NASRegressor else "predict_proba"
    np.testing.assert_array_equal(getattr(one, method)(X), getattr(other, method)(X))


# ----------------------------------------------------------------------------- workers


@pytest.mark.process
def test_results_do_not_depend_on_the_number_of_workers(monkeypatch, two_rungs):
    problem = make_problem(n=60, n_steps=30)
    choices = [{"ntk_lr": r} for r in RATES] + [{"depth": 1}, {"packing": 4}]
    proposed = proposals(problem, choices)
    alone = train(proposed, problem)
    monkeypatch.setattr(run_module, "WORTH_WORKERS", 0.0)
    monkeypatch.setattr(run_module, "ROOM_FOR_WORKERS", 0.0)
    two = train(proposed, problem, n_jobs=2)
    for one, other in zip(alone, two, strict=True):
        assert one.proposal == other.proposal
        assert one.rung_scores == other.rung_scores
        np.testing.assert_array_equal(one.predictions, other.predictions)
        for state, other_state in zip(one.networks, other.networks, strict=True):
            assert all(torch.equal(state[name], other_state[name]) for name in state)


def test_state_of_torch_is_unchanged():
    torch.manual_seed(5)
    state = torch.get_rng_state(), torch.get_num_threads()
    problem = make_problem(n_steps=5)
    with torch.inference_mode():
        trials = train(proposals(problem, [{"dropout": 0.5}]), problem)
    assert trials[0].status == "ok"
    assert torch.equal(state[0], torch.get_rng_state())
    assert state[1] == torch.get_num_threads()


def test_trials_keep_the_last_rung_if_workers_cannot_be_started(monkeypatch):
    original, calls = advance_module.run_tasks, []

    def run_tasks(*arguments):
        calls.append(arguments)
        if len(calls) > 1:
            raise OSError("the worker was killed")
        return original(*arguments)

    monkeypatch.setattr(advance_module, "run_tasks", run_tasks)
    X = np.random.default_rng(0).standard_normal((300, 3))
    model = NASClassifier(max_trials=3, random_state=0, n_jobs=1)
    model.fit(X, X[:, 0] > 0)
    assert len(calls) == 2 and model.n_trials_ == 3
    assert model.cv_results_["rung"].tolist() == [0, 0, 0]
    assert model.score(X, X[:, 0] > 0) > 0.8


def test_a_space_that_overrides_build_is_not_batched():
    class Own(TableSpace):
        def build(self, architecture, task):
            return super().build(architecture, task)

    with pytest.raises(InvalidParameterError, match="builds batches of"):
        PopulationTrainer().setup(Own(), make_problem(), make_context())


def test_a_failed_training_is_not_kept_alive_by_its_error(monkeypatch):
    """Its tensors would occupy the memory that the retry needs."""
    alive, seen = [], []

    class Loop(TrainingLoop):
        def run(self, rung):
            gc.collect()
            seen.append(sum(ref() is not None for ref in alive))
            alive.append(weakref.ref(self))
            if len(self.group.trials) > 1:
                raise MemoryError
            super().run(rung)

    monkeypatch.setattr(loop_module, "TrainingLoop", Loop)
    X = np.random.default_rng(0).standard_normal((120, 3))
    space = TableSpace(depth=(1, 1), width=(16,), activation=("relu",))
    NASClassifier(space, "random", max_trials=4, max_epochs=3, random_state=0).fit(
        X, X[:, 0] > 0
    )
    assert len(seen) > 2 and max(seen) == 0


def test_many_trials_of_one_shape_are_split_into_groups_of_equal_size(monkeypatch):
    problem = make_problem()
    monkeypatch.setattr(population_module, "MAX_NETWORKS", 4 * len(problem.folds))
    trainer = make_trainer(problem)
    proposed = proposals(problem, [{"ntk_lr": 0.01 * (j + 1)} for j in range(9)])
    assert [len(group.trials) for group in trainer._make_groups(proposed)] == [3, 3, 3]


@pytest.mark.process
def test_training_does_not_import_the_compiler():
    """The import takes one or two seconds in each worker."""
    code = (
        "import sys\n"
        "from sklearn.datasets import load_iris\n"
        "from sknas import NASClassifier\n"
        "X, y = load_iris(return_X_y=True)\n"
        "NASClassifier(max_trials=1, max_epochs=1, n_jobs=1).fit(X, y).predict(X)\n"
        "sys.exit('torch._dynamo' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
