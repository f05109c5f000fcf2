"""Training of one network: schedule, seeds, weights, errors, isolation."""

import pickle
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from sknas._problem import Rows, TaskSpec
from sknas._training.isolation import DivergedError, isolated
from sknas._training.schedules import coslog
from sknas.spaces import TableSpace
from sknas.trainers import Training, train_network
from sknas.trainers._snapshot import evaluate


def make_rows(kind="binary", n=300, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 4)).astype(np.float32)
    signal = x[:, 0] + x[:, 1] * x[:, 2]
    y = {
        "binary": (signal > 0).astype(np.int64),
        "multiclass": np.digitize(signal, [-0.5, 0.5]),
        "multilabel": np.stack([signal > 0, x[:, 3] > 0], axis=1).astype(np.float32),
        "regression": (signal[:, None] / signal.std()).astype(np.float32),
    }[kind]
    return Rows(x, y, np.ones(n))


def make_task(kind, rows):
    edges = np.quantile(rows.x, np.linspace(0, 1, 49), axis=0).T.astype(np.float32)
    outputs = {"binary": 2, "multiclass": 3, "multilabel": 2, "regression": 1}[kind]
    return TaskSpec(kind, outputs, len(rows), rows.x.shape[1], edges=edges.copy())


def make_training(kind="binary", rows=None, n_steps=200, **choices):
    rows = make_rows(kind) if rows is None else rows
    task = make_task(kind, rows)
    space = TableSpace().for_task(task)
    changes = {
        name: choices.pop(name)
        for name in ("max_epochs", "seed", "deadline", "stop", "is_final")
        if name in choices
    }
    architecture = dict(space.fill({"batch_size": 64, **choices}))
    settings = {"max_epochs": None, "seed": 0} | changes
    return Training(space, architecture, task, n_steps, **settings)


KINDS = ["binary", "multiclass", "multilabel", "regression"]


@pytest.mark.parametrize("kind", KINDS)
def test_training_learns_each_kind_of_target(kind):
    rows = make_rows(kind)
    trained = train_network(make_training(kind, rows, n_steps=400), rows, rows.x)
    output = trained.snapshots[-1].output
    if kind in ("binary", "multiclass"):
        assert (output.argmax(axis=1) == rows.y).mean() > 0.95
    elif kind == "multilabel":
        assert ((output > 0) == rows.y).mean() > 0.95
    else:
        assert np.mean((output - rows.y) ** 2) < 0.1


@pytest.mark.parametrize("optimizer", ["adamw", "rmsprop", "momentum", "sgd"])
def test_every_optimizer_learns(optimizer):
    rows = make_rows()
    training = make_training(rows=rows, n_steps=400, optimizer=optimizer)
    output = train_network(training, rows, rows.x).snapshots[-1].output
    assert (output.argmax(axis=1) == rows.y).mean() > 0.85


def weights(trained):
    return [p.detach().numpy() for p in trained.net.module_.parameters()]


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_everything_random_depends_on_the_seed(dropout):
    rows = make_rows()
    runs = [
        weights(train_network(make_training(seed=seed, dropout=dropout), rows))
        for seed in (1, 1, 2)
    ]
    assert all(np.array_equal(a, b) for a, b in zip(runs[0], runs[1], strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(*runs[1:], strict=True))


def test_state_of_torch_is_unchanged():
    torch.manual_seed(5)
    before = torch.get_rng_state(), torch.get_num_threads(), torch.is_grad_enabled()
    train_network(make_training(), make_rows())
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (torch.get_num_threads(), torch.is_grad_enabled())
    with pytest.raises(KeyError), isolated(0, "cpu"):
        raise KeyError
    assert before[1] == torch.get_num_threads()


def test_snapshots_are_taken_at_zero_learning_rate():
    rows = make_rows()
    trained = train_network(make_training(n_steps=400, batch_size=64), rows, rows.x)
    shares = [snapshot.share for snapshot in trained.snapshots]
    assert shares[-1] == 1.0 and len(shares) == 3
    for share in shares[:-1]:
        assert coslog(share, 3) < 0.01


def test_a_stopped_training_is_the_beginning_of_a_longer_one():
    rows = make_rows()
    whole = train_network(make_training(n_steps=400), rows, rows.x)
    first = whole.snapshots[0]
    part = train_network(make_training(n_steps=400, stop=first.share), rows)
    output = evaluate(part.net.module_, torch.tensor(rows.x))
    np.testing.assert_allclose(output, first.output, rtol=1e-5, atol=1e-6)
    assert 0 < len(part.net.history) < len(whole.net.history)


@pytest.mark.parametrize("optimizer", ["adamw", "rmsprop", "momentum", "sgd"])
def test_a_resumed_training_equals_an_uninterrupted_one(optimizer):
    rows = make_rows()  # five batches per epoch, so that it stops within an epoch
    options = {"optimizer": optimizer, "dropout": 0.5, "n_steps": 301}
    whole = train_network(make_training(rows=rows, **options), rows, rows.x)
    state, snapshots = None, []
    for share in (0.05, *(snapshot.share for snapshot in whole.snapshots)):
        torch.manual_seed(int(100 * share))  # must have no effect
        training = make_training(rows=rows, stop=share, **options)
        part = train_network(training, rows, rows.x, state)
        state = pickle.loads(pickle.dumps(part.state))
        snapshots += part.snapshots
    assert len(snapshots) == len(whole.snapshots) == 2
    for one, other in zip(snapshots, whole.snapshots, strict=True):
        np.testing.assert_array_equal(one.output, other.output)
        assert one.share == other.share


def test_a_snapshot_restores_the_network():
    rows = make_rows()
    trained = train_network(make_training(n_steps=400), rows, rows.x)
    module = trained.net.module_
    for snapshot in trained.snapshots:
        module.load_state_dict(snapshot.state)
        output = evaluate(module, torch.tensor(rows.x))
        np.testing.assert_array_equal(output, snapshot.output)
    assert not np.array_equal(trained.snapshots[0].output, trained.snapshots[1].output)


def test_half_precision_is_used_only_in_training():
    rows = make_rows()
    outputs = [
        train_network(replace(make_training(), precision=precision), rows, rows.x)
        .snapshots[-1]
        .output
        for precision in (None, torch.bfloat16)
    ]
    assert outputs[1].dtype == np.float32
    assert 0 < np.abs(outputs[0] - outputs[1]).mean() < 0.5
    assert (outputs[1].argmax(axis=1) == rows.y).mean() > 0.9


def test_max_epochs_bounds_the_training():
    rows = make_rows()
    trained = train_network(make_training(max_epochs=2), rows, rows.x)
    assert trained.snapshots[-1].share == 1.0
    assert len(trained.net.history) == 2


def test_integer_weights_equal_repeated_rows():
    rows = make_rows(n=100)  # one batch
    weight = np.tile([1.0, 3.0], 50)
    weighted = Rows(rows.x, rows.y, weight)
    twice = np.repeat(np.arange(100), weight.astype(int))
    repeated = Rows(rows.x[twice], rows.y[twice], np.ones(len(twice)))
    # Data-dependent initialisation reads random rows, which differ.
    training = make_training(
        rows=rows, dropout=0.0, batch_size=256, n_steps=100, recipe="uniform"
    )
    outputs = [
        train_network(training, r, rows.x).snapshots[-1].output
        for r in (weighted, repeated)
    ]
    np.testing.assert_allclose(*outputs, rtol=1e-2, atol=1e-3)


def test_an_infinite_loss_raises_an_error():
    rows = make_rows("regression")
    huge = Rows(rows.x, rows.y * np.float32(1e30), rows.weight)
    with pytest.raises(DivergedError, match="the loss became infinite or NaN"):
        train_network(make_training("regression", huge), huge)


def test_a_final_training_ends_at_learning_rate_zero():
    rows = make_rows(n=2000)
    outputs = {}
    for is_final in (False, True):
        started = time.monotonic()
        training = make_training(
            rows=rows, n_steps=100_000, deadline=started + 0.6, is_final=is_final
        )
        trained = train_network(training, rows)
        assert trained.is_truncated
        assert time.monotonic() - started < 1.5
        outputs[is_final] = evaluate(trained.net.module_, torch.tensor(rows.x))
    accuracy = (outputs[True].argmax(axis=1) == rows.y).mean()
    assert accuracy > 0.8


def test_a_pickled_net_is_small_and_restores_its_predictions():
    rows = make_rows()
    trained = train_network(make_training(), rows)
    content = pickle.dumps(trained.net)
    n_bytes = sum(w.nbytes for w in weights(trained))
    assert len(content) < 1.2 * n_bytes + 50_000
    loaded = pickle.loads(content)
    x = torch.tensor(rows.x)
    np.testing.assert_array_equal(
        evaluate(loaded.module_, x), evaluate(trained.net.module_, x)
    )


@pytest.mark.parametrize(
    ("shape", "max_rows"),
    [((3_000, 4), 1_024), ((3_000, 1, 8, 8), 1_024), ((70, 3, 128, 128), 10)],
)
def test_a_bounded_number_of_rows_is_evaluated_at_a_time(shape, max_rows):
    sizes = []

    class Sums(torch.nn.Module):
        def forward(self, x):
            sizes.append(len(x))
            return x.flatten(1).sum(dim=1, keepdim=True)[None]

    x = torch.ones(shape)
    output = evaluate(Sums(), x)
    assert max(sizes) == max_rows and sum(sizes) == len(x)
    np.testing.assert_array_equal(output, np.full((len(x), 1), x[0].numel()))
