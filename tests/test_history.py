"""Architectures, trials and the history of a search."""

import json
import pickle

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from sknas._history import Architecture, History, Proposal, Trial
from sknas._results import cv_results


def trial(number, score, *, loss=None, rung=0, choices=None, **kwargs):
    choices = {"width": number} if choices is None else choices
    proposal = Proposal(Architecture(choices), rung=rung, number=number, seed=number)
    status = kwargs.pop("status", "failed" if score is None else "ok")
    return Trial(proposal, status=status, score=score, loss=loss, **kwargs)


@pytest.fixture
def history():
    return History(
        (
            trial(0, 0.5, loss=1.0, fold_scores=(0.25, 0.75), fold_seconds=(1.0, 2.0)),
            trial(1, None, reason="out of memory", choices={"width": 8, "lr": 0.1}),
            trial(2, 0.75, loss=2.0, fold_scores=(0.5, 1.0), n_epochs=3, n_params=9),
            trial(3, 0.75, loss=1.5, fold_scores=(np.nan, 0.75), seconds=4.0),
            trial(4, None, status="stopped", reason="out of time"),
        ),
        stop_reason="max_time",
    )


# ---------------------------------------------------------------------- architectures


def test_an_architecture_is_a_mapping():
    architecture = Architecture({"depth": 2, "activation": "relu"})
    assert dict(architecture) == {"depth": 2, "activation": "relu"}
    assert architecture == {"activation": "relu", "depth": 2}
    assert list(architecture) == ["depth", "activation"]
    assert repr(architecture) == "Architecture(depth=2, activation='relu')"
    assert pickle.loads(pickle.dumps(architecture)) == architecture


def test_an_architecture_is_immutable():
    given = {"depth": 2}
    architecture = Architecture(given)
    given["depth"] = 3
    assert architecture["depth"] == 2
    with pytest.raises(TypeError):
        architecture["depth"] = 3


def test_key_does_not_depend_on_the_order_of_choices():
    one = Architecture({"depth": 2, "lr": 0.1})
    other = Architecture({"lr": 0.1, "depth": 2})
    assert one.key == other.key and one == other and hash(one) == hash(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, 2), (1, "1"), (True, 1), (1, 1.0), (None, "None"), (0, False)],
)
def test_different_values_and_types_have_different_keys(one, other):
    assert Architecture({"a": one}).key != Architecture({"a": other}).key


# ------------------------------------------------------------------------------ order


def test_trials_are_ordered_by_rung_score_loss_and_number():
    trials = [
        trial(5, 0.1, rung=1),
        trial(1, 0.9, loss=1.0),
        trial(2, 0.9, loss=1.0),
        trial(3, 0.9, loss=2.0),
        trial(4, 0.9),
        trial(6, 0.8, loss=0.1),
        trial(7, None),
    ]
    shuffled = History(tuple(trials[::-1]))
    assert sorted(shuffled, key=lambda t: t.order) == trials
    assert shuffled.succeeded == trials[:-1]
    assert History(tuple(trials[:0:-1])).best is trials[1]


def test_best_reevaluated_architecture_has_the_best_mean():
    def scored(name, number, score):
        return trial(number, score, choices={"name": name})

    once = [scored("lucky", 0, 1.0), scored("a", 1, 0.8), scored("b", 2, 0.9)]
    again = [scored("a", 3, 0.8), scored("b", 4, 0.5)]
    assert History(tuple(once)).best is once[0]
    assert History((*once, *again)).best.architecture["name"] == "a"


def test_reevaluated_architectures_compete_with_any_number_of_scores():
    """After a warm start, some architectures have more scores than others."""

    def scored(name, *scores, first):
        each = enumerate(scores, first)
        return [trial(j, score, choices={"name": name}) for j, score in each]

    thrice = scored("worse", 0.9, 0.4, 0.4, first=0)
    twice = scored("better", 0.8, 0.8, first=10)
    lucky = scored("lucky", 1.0, first=20)
    best = History((*thrice, *twice, *lucky)).best
    assert best.architecture["name"] == "better" and best.score == 0.8


@pytest.mark.parametrize("trials", [(), (trial(0, None),)])
def test_no_trial_is_best_if_none_succeeded(trials):
    with pytest.raises(ValueError, match="No trial succeeded"):
        _ = History(trials).best


def test_history_is_an_immutable_sequence(history):
    longer = history.extended([trial(5, 1.0)])
    assert (len(history), len(longer)) == (5, 6)
    assert longer[5].score == 1 and list(longer)[:5] == list(history)
    assert longer.stop_reason == "max_time"


# ------------------------------------------------------------------------------- JSON


def test_a_history_survives_json(history):
    arrays = {"predictions": np.ones((2, 1)), "networks": ({"w": np.ones(3)},)}
    predicted = history.extended([trial(5, 1.0, rung_scores=(0.5, 1.0), **arrays)])
    text = predicted.to_json()
    assert set(json.loads(text)["trials"][5]).isdisjoint(arrays)
    back = History.from_json(text)
    assert back[5].predictions is None and back[5].networks is None
    assert back[5].rung_scores == (0.5, 1.0) and back[0].rung_scores == ()
    for old, new in zip(predicted, back, strict=True):
        assert repr(old) == repr(new)  # NaN is not equal to itself
    assert back.stop_reason == "max_time"
    assert back.best.architecture.key == predicted.best.architecture.key


def test_a_history_without_arrays(history):
    arrays = {"predictions": np.ones((2, 1)), "networks": ({"w": np.ones(3)},)}
    predicted = history.extended([trial(5, 1.0, **arrays)])
    summary = predicted.without_predictions()[5]
    assert summary.predictions is None and summary.networks is None
    assert predicted[5].predictions is not None and predicted[5].networks is not None
    assert summary == predicted[5] and summary.without_arrays() is summary


def test_arrays_of_the_best_trials_are_kept():
    arrays = {"predictions": np.ones((2, 1)), "networks": ({"w": np.ones(3)},)}
    rungs, scores = (0, 1, 1, 0, 1), (0.9, 0.1, 0.3, 1.0, None)
    trials = [
        trial(n, score, rung=rung, **arrays)
        for n, (rung, score) in enumerate(zip(rungs, scores, strict=True))
    ]
    for keep, expected in ((0, []), (1, [2]), (3, [1, 2, 3]), (9, [0, 1, 2, 3])):
        kept = History(tuple(trials)).without_predictions(keep)
        for name in arrays:
            numbers = [t.proposal.number for t in kept if getattr(t, name) is not None]
            assert numbers == expected


# ----------------------------------------------------------------------------- tables


def test_a_frame_has_a_row_a_trial(history):
    frame = history.to_frame()
    assert frame["number"].tolist() == [0, 1, 2, 3, 4]
    assert frame["status"].tolist() == ["ok", "failed", "ok", "ok", "stopped"]
    assert frame["param_width"].tolist() == [0, 8, 2, 3, 4]
    assert frame["param_lr"].isna().tolist() == [True, False, True, True, True]
    assert frame.loc[1, "reason"] == "out of memory"
    assert len(History().to_frame()) == 0


def test_results_have_the_columns_of_a_grid_search(history):
    results = cv_results(history)
    frame = pd.DataFrame(results)
    assert len(frame) == 5
    assert frame["status"].tolist() == ["ok", "failed", "ok", "ok", "stopped"]
    assert results["params"][1] == {"width": 8, "lr": 0.1}
    assert results["param_lr"].mask.tolist() == [True, False, True, True, True]
    assert_array_equal(
        results["split0_test_score"], [0.25, np.nan, 0.5, np.nan, np.nan]
    )
    assert_array_equal(results["mean_test_score"], [0.5, np.nan, 0.75, 0.75, np.nan])
    assert_array_equal(results["std_test_score"], [0.25, np.nan, 0.25, 0, np.nan])
    assert_array_equal(results["mean_fit_time"], [1.5, *[np.nan] * 4])
    assert results["n_epochs"].tolist() == [0, 0, 3, 0, 0]
    assert results["n_params"].tolist() == [0, 0, 9, 0, 0]
    assert results["seconds"].tolist() == [0, 0, 0, 4, 0]
    assert results["origin"].tolist() == ["proposed"] * 5


def test_best_trial_has_rank_one_and_failed_trials_are_last(history):
    assert cv_results(history)["rank_test_score"].tolist() == [3, 4, 2, 1, 5]
    higher = history.extended([trial(5, 0.1, rung=1), trial(6, None, rung=2)])
    assert cv_results(higher)["rank_test_score"].tolist()[:6] == [4, 6, 3, 2, 7, 1]
    assert cv_results(higher)["rank_test_score"][6] >= 5


def test_results_of_no_trials():
    assert all(len(column) == 0 for column in cv_results(History()).values())
