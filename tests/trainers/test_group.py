"""Groups of networks: splitting, joining and training."""

import pickle
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from cohorts import make_context, make_problem, proposals, space_of
from scorers import FunctionScorer

import sknas.trainers._schedule as schedule_module
from sknas._history import Cause, Fault
from sknas._training.seeds import mixed_seed
from sknas.trainers._advance import advance
from sknas.trainers._group import NetworkGroup, TrialState
from sknas.trainers._loop import TrainingLoop, train_stacked
from sknas.trainers._schedule import Schedule

CHOICES = {
    "adamw": [{"ntk_lr": r, "dropout": 0.25} for r in (0.01, 0.03, 0.05, 0.1)],
    "rmsprop": [{"optimizer": "rmsprop", "ntk_lr": r} for r in (0.005, 0.01, 0.03)],
    "momentum": [{"optimizer": "momentum", "sgd_lr": r} for r in (0.05, 0.1, 0.2)],
    "sgd": [{"optimizer": "sgd", "sgd_lr": r} for r in (0.05, 0.1, 0.2)],
    "batch normalisation": [
        {"normalisation": "batch", "ntk_lr": r} for r in (0.01, 0.03, 0.1)
    ],
    "packing": [{"packing": 4, "ntk_lr": r} for r in (0.01, 0.03, 0.1)],
}


@pytest.fixture(autouse=True)
def two_rungs(monkeypatch):
    """Set two rungs, at a third and at the end, for trainings of any length."""
    monkeypatch.setattr(schedule_module, "n_cycles", lambda n_steps: 2)


def make_group(problem, choices):
    proposed = proposals(problem, choices)
    schedule = Schedule.of(proposed[0].architecture, problem)
    return NetworkGroup([TrialState(proposal, schedule) for proposal in proposed])


def advance_to(group, problem, rung, **changes):
    """Advance a group to a rung without splitting it."""
    space, context = space_of(problem), make_context(**changes)
    (done,) = advance(problem, context, train_stacked, group, space, rung)
    return done


def assert_same_state(one, other):
    """Assert that two groups have the same state."""
    assert one.step == other.step and len(one.trials) == len(other.trials)
    is_batch = one.architectures[0]["normalisation"] == "batch"
    (state,), (twin,) = one.networks, other.networks
    for name, tensor in state.parameters.items():
        # Biases before batch normalisation, and its means, are noise.
        if not (is_batch and name.endswith(("bias", "mean"))):
            torch.testing.assert_close(
                tensor, twin.parameters[name], rtol=1e-3, atol=1e-4
            )
    for mine, yours in zip(state.optimizer, twin.optimizer, strict=True):
        assert sorted(mine) == sorted(yours)
        assert all(mine[n].shape == yours[n].shape for n in mine)
        if "step" in mine:
            assert mine["step"] == yours["step"]
    for mine, yours in zip(one.trials, other.trials, strict=True):
        assert mine.proposal == yours.proposal and mine.fault == yours.fault
        np.testing.assert_allclose(mine.rung_scores, yours.rung_scores, atol=1e-4)
        assert mine.best.step == yours.best.step
        np.testing.assert_allclose(
            mine.best.predictions, yours.best.predictions, atol=1e-4
        )


@pytest.mark.parametrize("family", CHOICES)
def test_training_parts_of_a_group_equals_training_the_group(family):
    problem = make_problem(n=60, n_steps=24)
    whole = advance_to(make_group(problem, CHOICES[family]), problem, 0)
    assert whole.step == 8
    n = len(whole.trials)
    unbroken = advance_to(whole, problem, 1)
    assert unbroken.step == 24
    for indices in ([0], [n - 1], [0, 2], [2, 1], list(range(n))):
        part = advance_to(whole.take(indices), problem, 1)
        assert_same_state(part, unbroken.take(indices))
    joined = whole.take([1]).join(whole.take([0, 2]))
    assert [t.proposal.number for t in joined.trials] == [1, 0, 2]
    assert_same_state(advance_to(joined, problem, 1), unbroken.take([1, 0, 2]))
    # The group itself was not changed.
    assert_same_state(advance_to(whole, problem, 1), unbroken)


@pytest.mark.parametrize("family", ["adamw", "momentum", "batch normalisation"])
def test_a_resumed_group_equals_an_uninterrupted_one(family):
    problem = make_problem(n=60, n_steps=24)
    group = make_group(problem, CHOICES[family])
    at_once = advance_to(group, problem, 1)
    resumed = advance_to(
        pickle.loads(pickle.dumps(advance_to(group, problem, 0))), problem, 1
    )
    assert len(at_once.trials[0].rung_scores) == 1  # there is only one rung
    assert len(resumed.trials[0].rung_scores) == 2
    (one,), (other,) = at_once.networks, resumed.networks
    for name, tensor in one.parameters.items():
        torch.testing.assert_close(tensor, other.parameters[name], rtol=1e-5, atol=1e-6)
    for one, other in zip(at_once.trials, resumed.trials, strict=True):
        assert one.best.step == other.best.step
        assert one.best.score == pytest.approx(other.best.score)


def test_advance_does_not_change_its_group(monkeypatch):
    problem = make_problem(n=60, n_steps=24)
    group = advance_to(make_group(problem, CHOICES["adamw"]), problem, 0)
    before = pickle.dumps(group)
    advance_to(group, problem, 1)
    assert pickle.dumps(group) == before
    monkeypatch.setattr(TrainingLoop, "_take_snapshot", lambda self: 1 / 0)
    failed = advance_to(group, problem, 1)
    fault = Fault(Cause.ERROR, "ZeroDivisionError: division by zero")
    assert pickle.dumps(group) == before
    assert {t.fault for t in failed.trials} == {fault}


def test_parts_of_a_new_group_have_no_networks():
    problem = make_problem(n=60)
    group = make_group(problem, CHOICES["adamw"])
    part = group.take([2, 0])
    assert [t.proposal.number for t in part.trials] == [2, 0]
    assert part.networks == () and part.step == 0
    assert [a["ntk_lr"] for a in part.architectures] == [0.05, 0.01]


def test_networks_are_ordered_by_trial_then_by_fold():
    problem = make_problem(n=60, n_folds=3, n_steps=6)
    group = advance_to(make_group(problem, CHOICES["sgd"]), problem, 1)
    name = "head.weight"
    weight = group.networks[0].parameters[name]
    assert len(weight) == 9
    taken = group.take([1]).networks[0].parameters[name]
    torch.testing.assert_close(taken, weight[3:6])
    if group.trials[1].best.step == group.step:
        for state, tensor in zip(group.trials[1].best.networks, taken, strict=True):
            torch.testing.assert_close(state[name][0], tensor)


def test_the_best_snapshot_is_kept():
    problem = make_problem(n=100, n_steps=60)
    taken = []
    plain = TrainingLoop._take_snapshot

    def take_snapshot(self):
        plain(self)
        taken.append((self.group.step, [t.value for t in self.group.trials]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingLoop, "_take_snapshot", take_snapshot)
        group = make_group(problem, CHOICES["adamw"])
        done = advance_to(group, problem, 1)
    steps = tuple(step for step, _ in taken)
    assert steps == done.schedule.snapshots == (20, 51, 56, 60)
    for index, trial in enumerate(done.trials):
        values = [found[index] for _, found in taken]
        assert values == sorted(values)  # the best score never decreases
        assert trial.value == values[-1] == trial.best.value
        assert trial.best.step in done.schedule.snapshots
        assert trial.best.share == trial.best.step / 60
        assert trial.best.score == pytest.approx(np.mean(trial.best.fold_scores))


def test_a_trial_before_its_first_snapshot_ranks_last():
    problem = make_problem(n=60)
    assert make_group(problem, CHOICES["sgd"]).trials[0].value == -np.inf


def test_a_group_is_not_started_after_the_deadline():
    problem = make_problem(n=60)
    group = make_group(problem, CHOICES["sgd"])
    late = advance_to(group, problem, 0, deadline=time.monotonic() - 1)
    assert late.step == 0 and late.networks == ()
    assert {t.fault for t in late.trials} == {Fault(Cause.OUT_OF_TIME)}
    assert {t.fault for t in group.trials} == {None}
    assert {t.seconds for t in late.trials} == {0.0}


def test_a_truncated_group_keeps_its_snapshots_and_its_seconds():
    problem = make_problem(n=60, n_steps=100_000)
    group = make_group(problem, CHOICES["sgd"])
    truncated = advance_to(group, problem, 0, deadline=time.monotonic() + 0.3)
    assert 0 < truncated.step < 100_000
    for trial in truncated.trials:
        assert trial.fault == Fault(Cause.OUT_OF_TIME)
        assert trial.rung_scores == ()
        assert 0 < trial.seconds < 1


def test_seconds_are_shared_by_the_trials_and_summed_over_rungs():
    problem = make_problem(n=60, n_steps=24)
    first = advance_to(make_group(problem, CHOICES["sgd"]), problem, 0)
    second = advance_to(first, problem, 1)
    assert len({t.seconds for t in first.trials}) == 1
    assert second.trials[0].seconds > first.trials[0].seconds > 0


def test_a_worse_snapshot_does_not_replace_the_best_one():
    problem = make_problem(n=60, n_steps=24)
    group = advance_to(make_group(problem, CHOICES["sgd"]), problem, 0)
    worse = replace(problem, scorer=FunctionScorer(lambda *_: -1.0))
    done = advance_to(group, worse, 1)
    for before, after in zip(group.trials, done.trials, strict=True):
        assert after.best is before.best
        assert after.rung_scores == (before.best.score,) * 2


def test_seeds_of_several_numbers():
    assert mixed_seed(1, 2) == mixed_seed(1, 2)
    seeds = {mixed_seed(a, b) for a in range(20) for b in range(20)}
    assert len(seeds) == 400 and all(0 <= seed < 2**32 for seed in seeds)
