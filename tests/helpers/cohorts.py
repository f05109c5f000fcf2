"""Small problems, contexts and cohorts that the tests of trainers share."""

from dataclasses import replace

import numpy as np

from sknas._data.target import sigmoid, softmax
from sknas._history import Proposal
from sknas._problem import Fold, Problem, Rows, RunContext, TaskSpec
from sknas._scoring.metrics import find_metric
from sknas._scoring.scorer import RowLoss, RowScorer, find_scorer
from sknas.spaces import TableSpace
from sknas.trainers import PopulationTrainer

SCORING = {"regression": "r2"}
OUTPUTS = {"binary": 2, "multiclass": 3, "multilabel": 2, "regression": 1}


def as_they_are(output):
    return output


def make_rows(kind, n, seed=0, cardinalities=(3, 20)):
    """Return x (4 numbers, a binary column, categories) and y that depends on them."""
    rng = np.random.default_rng(seed)
    numbers = rng.standard_normal((n, 4))
    flag = rng.choice([-1.0, 1.0], n)
    codes = [rng.integers(0, c + 1, n) for c in cardinalities]
    x = np.column_stack([numbers, flag, *codes]).astype(np.float32)
    signal = numbers[:, 0] + numbers[:, 1] * flag + 0.2 * rng.standard_normal(n)
    if codes:
        signal = signal + np.cos(codes[-1])
    return x, {
        "binary": (signal > 0).astype(np.int64),
        "multiclass": np.digitize(signal, [-0.5, 0.5]),
        "multilabel": np.stack([signal > 0, x[:, 3] > 0], axis=1).astype(np.float32),
        "regression": (signal[:, None] / signal.std()).astype(np.float32),
    }[kind]


def make_problem(
    kind="binary",
    n=120,
    n_folds=2,
    n_steps=24,
    *,
    cardinalities=(3, 20),
    weight=None,
    splits=None,
    **changes,
):
    """Return a problem of some folds; `changes` are fields of `Problem`."""
    x, y = make_rows(kind, n, cardinalities=cardinalities)
    weight = np.ones(n) if weight is None else weight
    edges = np.quantile(x[:, :4], np.linspace(0, 1, 49), axis=0).T
    task = TaskSpec(
        kind,
        OUTPUTS[kind],
        round(weight.sum()),
        4,
        1,
        cardinalities,
        edges=edges.astype(np.float32),
    )
    if splits is None:
        parts = [np.arange(n) % n_folds == fold for fold in range(n_folds)]
        splits = [(np.flatnonzero(~part), np.flatnonzero(part)) for part in parts]
    restore = {"regression": as_they_are, "multilabel": sigmoid}.get(kind, softmax)
    folds = [
        Fold(
            task,
            Rows(x[train], y[train], weight[train]),
            Rows(x[valid], y[valid], weight[valid]),
            np.asarray(valid),
            restore,
        )
        for train, valid in splits
    ]
    settings = {
        "task": task,
        "folds": tuple(folds),
        "n_rows": n,
        "scorer": make_scorer(kind, y, weight),
        "loss": RowLoss(y, weight, kind),
        "n_steps": n_steps,
        "seed": 3,
    }
    return Problem(**settings | changes)


def make_scorer(kind, y, weight):
    classes = {
        "regression": None,
        "multilabel": [np.array([0, 1])] * 2,
    }.get(kind, np.arange(OUTPUTS[kind]))
    scorer = find_scorer("N", SCORING.get(kind), kind != "regression")
    plain = y[:, 0] if kind == "regression" else y
    plain = plain.astype(int) if kind == "multilabel" else plain
    codes = y.astype(np.float64) if kind == "multilabel" else y
    metric = find_metric(scorer, kind, classes)
    return RowScorer(scorer, None, plain, weight, classes, metric, codes)


def space_of(problem):
    return TableSpace().for_task(problem.task)


def proposals(problem, choices, space=None):
    """Return a proposal for each dict of choices, the first one the default."""
    space = space_of(problem) if space is None else space
    return [
        Proposal(
            space.fill({"width": 32, "n_bins": 8, **some}),
            origin="proposed" if number else "default",
            number=number,
            seed=number + 10,
        )
        for number, some in enumerate(choices)
    ]


def make_context(**changes):
    """Return a context on the CPU in this process, without a deadline."""
    return RunContext(**changes)


def make_trainer(problem, space=None, trainer=None, **changes):
    """Return a trainer that is set up; `changes` are options of its context."""
    trainer = PopulationTrainer() if trainer is None else trainer
    space = space_of(problem) if space is None else space
    trainer.setup(space, problem, make_context(**changes))
    return trainer


def train(asked, problem, space=None, halving=True, **changes):
    """Train some proposals and return their trials."""
    trainer = PopulationTrainer(halving=halving)
    return make_trainer(problem, space, trainer, **changes).train(asked)


def to_networks(trial, problem):
    """Return the networks of the folds of a trial."""
    return make_trainer(problem).to_networks(trial)


def assert_same(one, other, atol=1e-4):
    """Assert that two trials of the same proposal are equal up to rounding."""
    assert one.status == other.status and one.reason == other.reason
    assert replace(one.proposal, rung=0) == replace(other.proposal, rung=0)
    assert (one.stop, one.n_epochs, one.n_params) == (
        other.stop,
        other.n_epochs,
        other.n_params,
    )
    assert np.isclose(one.score, other.score, atol=atol)
    assert np.isclose(one.loss, other.loss, atol=atol)
    np.testing.assert_allclose(one.fold_scores, other.fold_scores, atol=atol)
    np.testing.assert_allclose(one.rung_scores, other.rung_scores, atol=atol)
    np.testing.assert_allclose(one.predictions, other.predictions, atol=atol)
    assert len(one.networks) == len(other.networks)
    for mine, yours in zip(one.networks, other.networks, strict=True):
        assert list(mine) == list(yours)
        for name, tensor in mine.items():
            # A bias before a batch normalisation is noise, and so is the running mean.
            if (
                name.endswith(("bias", "mean"))
                and one.architecture.get("normalisation") == "batch"
            ):
                continue
            np.testing.assert_allclose(tensor, yours[name], atol=atol, err_msg=name)
