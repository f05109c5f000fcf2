"""Units of members: parted, joined, and trained on."""

import pickle
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from cohorts import make_problem, proposals, space_of

import sknas.trainers._loop as unit_module
import sknas.trainers._schedule as plan_module
from sknas._training.batches import mixed_seed
from sknas.trainers._group import Batched, TrialState
from sknas.trainers._loop import advance
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
    """Rungs at a third and at the end, however short a training is."""
    monkeypatch.setattr(plan_module, "n_cycles", lambda n_steps: 2)


def make_unit(problem, choices):
    return Batched([TrialState(p) for p in proposals(problem, choices)])


def go(unit, problem, rung):
    """A unit further, which stays one."""
    schedule = Schedule.of(unit.architectures[0], problem)
    (done,) = advance(unit, space_of(problem), problem, schedule, rung)
    return done


def assert_alike(one, other):
    """Two units are at the same point."""
    assert one.step == other.step and len(one.members) == len(other.members)
    is_batch = one.architectures[0]["normalisation"] == "batch"
    for name, tensor in one.state.items():
        # A bias before a batch normalisation, and so its mean, is noise.
        if not (is_batch and name.endswith(("bias", "mean"))):
            torch.testing.assert_close(tensor, other.state[name], rtol=1e-3, atol=1e-4)
    for mine, yours in zip(one.moments, other.moments, strict=True):
        assert sorted(mine) == sorted(yours)
        assert all(mine[n].shape == yours[n].shape for n in mine)
        if "step" in mine:
            assert mine["step"] == yours["step"]
    for mine, yours in zip(one.members, other.members, strict=True):
        assert mine.proposal == yours.proposal and mine.reason == yours.reason
        np.testing.assert_allclose(mine.rung_scores, yours.rung_scores, atol=1e-4)
        assert mine.best.step == yours.best.step
        np.testing.assert_allclose(
            mine.best.predictions, yours.best.predictions, atol=1e-4
        )


@pytest.mark.parametrize("family", CHOICES)
def test_parts_that_go_on_are_what_the_whole_is(family):
    problem = make_problem(n=60, n_steps=24)
    whole = go(make_unit(problem, CHOICES[family]), problem, 0)
    assert whole.step == 8
    n = len(whole.members)
    unbroken = go(whole, problem, 1)
    assert unbroken.step == 24
    for places in ([0], [n - 1], [0, 2], [2, 1], list(range(n))):
        part = go(whole.kept(places), problem, 1)
        assert_alike(part, unbroken.kept(places))
    joined = whole.kept([1]).joined(whole.kept([0, 2]))
    assert [m.proposal.number for m in joined.members] == [1, 0, 2]
    assert_alike(go(joined, problem, 1), unbroken.kept([1, 0, 2]))
    assert_alike(go(whole, problem, 1), unbroken)  # and nothing has changed it


@pytest.mark.parametrize("family", ["adamw", "momentum", "batch normalisation"])
def test_a_pause_changes_nothing(family):
    problem = make_problem(n=60, n_steps=24)
    unit = make_unit(problem, CHOICES[family])
    at_once = go(unit, problem, 1)
    parted = go(pickle.loads(pickle.dumps(go(unit, problem, 0))), problem, 1)
    assert len(at_once.members[0].rung_scores) == 1  # it went through one rung only
    assert len(parted.members[0].rung_scores) == 2
    for name, tensor in at_once.state.items():
        torch.testing.assert_close(tensor, parted.state[name], rtol=1e-5, atol=1e-6)
    for one, other in zip(at_once.members, parted.members, strict=True):
        assert one.best.step == other.best.step
        assert one.best.score == pytest.approx(other.best.score)


def test_a_unit_is_left_as_it_was(monkeypatch):
    problem = make_problem(n=60, n_steps=24)
    unit = go(make_unit(problem, CHOICES["adamw"]), problem, 0)
    before = pickle.dumps(unit)
    go(unit, problem, 1)
    assert pickle.dumps(unit) == before
    monkeypatch.setattr(unit_module._Training, "_look", lambda self, unit: 1 / 0)
    failed = go(unit, problem, 1)
    assert pickle.dumps(unit) == before
    assert {m.reason for m in failed.members} == {"ZeroDivisionError: division by zero"}


def test_parts_without_a_state_are_members_alone():
    problem = make_problem(n=60)
    unit = make_unit(problem, CHOICES["adamw"])
    part = unit.kept([2, 0])
    assert [m.proposal.number for m in part.members] == [2, 0]
    assert part.state == {} and part.step == 0 and part.moments == []
    assert [a["ntk_lr"] for a in part.architectures] == [0.05, 0.01]


def test_networks_are_ordered_by_member_then_by_fold():
    problem = make_problem(n=60, n_folds=3, n_steps=6)
    unit = go(make_unit(problem, CHOICES["sgd"]), problem, 1)
    name = "head.weight"
    assert len(unit.state[name]) == 9
    kept = unit.kept([1]).state[name]
    torch.testing.assert_close(kept, unit.state[name][3:6])
    if unit.members[1].best.step == unit.step:
        for state, tensor in zip(unit.members[1].best.networks, kept, strict=True):
            torch.testing.assert_close(state[name][0], tensor)


def test_the_best_of_the_looks_is_kept():
    problem = make_problem(n=100, n_steps=60)
    looked = []
    plain = unit_module._Training._look

    def look(self, unit):
        plain(self, unit)
        looked.append((unit.step, [m.value for m in unit.members]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unit_module._Training, "_look", look)
        unit = make_unit(problem, CHOICES["adamw"])
        schedule = Schedule.of(unit.architectures[0], problem)
        done = go(unit, problem, 1)
    assert tuple(step for step, _ in looked) == schedule.snapshots == (20, 51, 56, 60)
    for place, member in enumerate(done.members):
        values = [found[place] for _, found in looked]
        assert values == sorted(values)  # of the best so far
        assert member.value == values[-1] == member.best.value
        assert member.best.step in schedule.snapshots
        assert member.best.share == member.best.step / 60
        assert member.best.score == pytest.approx(np.mean(member.best.fold_scores))


def test_a_member_before_its_first_look_ranks_last():
    problem = make_problem(n=60)
    assert make_unit(problem, CHOICES["sgd"]).members[0].value == -np.inf


def test_time_that_is_over_stops_a_unit_untouched():
    problem = make_problem(n=60, deadline=time.monotonic() - 1)
    unit = make_unit(problem, CHOICES["sgd"])
    late = go(unit, problem, 0)
    assert late.is_cut and late.step == 0 and late.state == {}
    assert {m.reason for m in late.members} == {"out of time"}
    assert {m.reason for m in unit.members} == {""}
    assert {m.seconds for m in late.members} == {0.0}


def test_a_cut_unit_keeps_its_looks_and_its_seconds():
    problem = make_problem(n=60, n_steps=100_000)
    unit = make_unit(problem, CHOICES["sgd"])
    cut = go(unit, replace(problem, deadline=time.monotonic() + 0.3), 0)
    assert cut.is_cut and 0 < cut.step < 100_000
    for member in cut.members:
        assert member.reason == "out of time" and member.rung_scores == ()
        assert 0 < member.seconds < 1


def test_seconds_are_shared_and_summed():
    problem = make_problem(n=60, n_steps=24)
    first = go(make_unit(problem, CHOICES["sgd"]), problem, 0)
    second = go(first, problem, 1)
    assert len({m.seconds for m in first.members}) == 1
    assert second.members[0].seconds > first.members[0].seconds > 0


def test_a_late_look_that_is_worse_changes_nothing(monkeypatch):
    """Members keep the network of their best look, not the last one."""
    problem = make_problem(n=60, n_steps=24)
    unit = go(make_unit(problem, CHOICES["sgd"]), problem, 0)
    worse = replace(problem, score=lambda predictions, rows, weight=None: -1.0)
    done = go(unit, worse, 1)
    for before, after in zip(unit.members, done.members, strict=True):
        assert after.best is before.best
        assert after.rung_scores == (before.best.score,) * 2


def test_seeds_of_several_numbers():
    assert mixed_seed(1, 2) == mixed_seed(1, 2)
    seeds = {mixed_seed(a, b) for a in range(20) for b in range(20)}
    assert len(seeds) == 400 and all(0 <= seed < 2**32 for seed in seeds)
