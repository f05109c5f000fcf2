"""Memory: needed and free bytes, and retries in micro-batches."""

import math
import sys
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch
from cohorts import assert_same, make_problem, make_trainer, proposals
from torch import nn

import sknas.trainers._advance as advance_module
import sknas.trainers._loop as loop_module
import sknas.trainers._memory_free as memory_free
import sknas.trainers._memory_need as memory_need
import sknas.trainers._schedule as schedule_module
from sknas import NASClassifier
from sknas._checkpoint.store import FileStore
from sknas._data.target import softmax
from sknas._history import Cause, Fault, Proposal
from sknas._problem import Fold, ImageSpec, Rows, TaskSpec
from sknas.nets import ConvNet, Linear, TableInput, TableNet
from sknas.spaces import CellSpace, ImageSpace, Integer, Space, TableSpace
from sknas.trainers import TRAINERS
from sknas.trainers._group import IN_MICRO_BATCHES, NetworkGroup, TrialState
from sknas.trainers._memory_free import bytes_free, too_large
from sknas.trainers._memory_need import bytes_needed

GB = 1e9
SHAPE = (2, 12, 10)
SPACE = TableSpace()


def make_images(n=60, n_steps=12, shape=SHAPE):
    """Return a problem of small images with two folds."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
    y = (x[:, 0, 0, 0] > 127).astype(np.int64)
    image = ImageSpec(shape, np.full(shape[0], 128, "f4"), np.full(shape[0], 74, "f4"))
    task = TaskSpec("binary", 2, n, image=image)
    problem, weight = make_problem("binary", n), np.ones(n)
    folds = []
    for fold in range(2):
        valid = np.arange(n) % 2 == fold
        parts = [Rows(x[rows], y[rows], weight[rows]) for rows in (~valid, valid)]
        folds.append(Fold(task, *parts, np.flatnonzero(valid), softmax))
    return replace(problem, task=task, folds=tuple(folds), n_steps=n_steps)


def train(name, proposed, problem, space=SPACE, **changes):
    trainer = TRAINERS[name](halving=False)
    return make_trainer(problem, space, trainer, **changes).train(proposed)


def ask(problem, choices):
    return proposals(problem, choices, SPACE)


@pytest.fixture
def two_rungs(monkeypatch):
    monkeypatch.setattr(schedule_module, "n_cycles", lambda n_steps: 2)
    monkeypatch.setattr("sknas.trainers._skorch_net.n_cycles", lambda n_steps: 2)
    monkeypatch.setattr("sknas.trainers._train_network.n_cycles", lambda n_steps: 2)


# ------------------------------------------------------------------------- free memory


def test_free_memory_is_positive_and_finite():
    free = bytes_free("cpu")
    assert free > 1e6
    assert math.isfinite(free) or sys.platform != "linux"


def test_available_memory_is_read_from_meminfo(tmp_path):
    path = tmp_path / "meminfo"
    path.write_text("MemTotal:  100 kB\nMemAvailable:     50 kB\nBuffers: 1 kB\n")
    assert memory_free._available(path) == 50 * 1024
    path.write_text("MemTotal:  100 kB\n")
    assert memory_free._available(path) == math.inf
    assert memory_free._available(tmp_path / "none") == math.inf


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def left(path, root):
    return min(memory_free._left_in_groups(path, root), default=math.inf)


def test_limits_of_version_2_control_groups_are_read(tmp_path):
    path, root = tmp_path / "cgroup", tmp_path / "fs"
    path.write_text("0::/outer/inner\n")
    assert left(path, root) == math.inf
    write(root / "outer/inner", memory__max="max\n", memory__current="5\n")
    assert left(path, root) == math.inf
    stat = "anon 3\ninactive_file 30\n"
    write(
        root / "outer", memory__max="100\n", memory__current="80\n", memory__stat=stat
    )
    assert left(path, root) == 50  # inactive files can be reclaimed
    write(root, memory__max="60\n", memory__current="50\n", memory__stat="anon 3\n")
    assert left(path, root) == 10
    write(root.parent, memory__max="1\n", memory__current="1\n", memory__stat="")
    assert left(path, root) == 10  # the group above the root is ignored


def test_limits_of_version_1_control_groups_are_read(tmp_path):
    path, root = tmp_path / "cgroup", tmp_path / "fs"
    path.write_text("5:cpu:/\n4:memory:/here\n0::/\n")
    files = {"memory__limit_in_bytes": "100\n", "memory__usage_in_bytes": "70\n"}
    stat = "total_inactive_file 5\n"
    write(root / "memory", memory__stat=stat, **files)  # limit of a container
    assert left(path, root) == 35
    files["memory__limit_in_bytes"] = "90\n"
    write(root / "memory/here", memory__stat=stat, **files)
    assert left(path, root) == 25
    assert left(tmp_path / "none", root) == math.inf


def test_free_memory_is_never_negative(monkeypatch):
    monkeypatch.setattr(memory_free, "_left_in_groups", lambda: iter([-5.0]))
    assert bytes_free("cpu") == 0


@pytest.mark.parametrize(("device", "index"), [("cuda", None), ("cuda:1", 1)])
def test_memory_cached_by_torch_on_a_gpu_counts_as_free(device, index, monkeypatch):
    sizes = {"mem_get_info": (5, 9), "memory_reserved": 4, "memory_allocated": 1}
    for name, size in sizes.items():
        monkeypatch.setattr(torch.cuda, name, {index: size}.__getitem__)
    assert bytes_free(device) == 5 + 4 - 1


def test_the_fault_names_both_sizes():
    reason = "needs about 31 GB of memory, 20 GB are free"
    assert too_large(31.2 * GB, 20 * GB) == Fault(Cause.OUT_OF_MEMORY, reason)
    reason = "needs about 1.5 GB of memory, 90 MB are free"
    assert too_large(1.52 * GB, 0.09 * GB) == Fault(Cause.OUT_OF_MEMORY, reason)


# ----------------------------------------------------------------------- needed memory


def needed(problem, n_trials=1, trainer="population", **choices):
    (proposed,) = ask(problem, [choices])
    is_batched = TRAINERS[trainer].is_batched
    return bytes_needed(
        SPACE, proposed.architecture, problem, n_trials, is_batched=is_batched
    )


@pytest.mark.parametrize("trainer", TRAINERS)
def test_needed_memory_grows_with_each_dimension(trainer, monkeypatch):
    monkeypatch.setattr(memory_need, "BASE", 0)
    problem = make_problem(n=2_000, n_folds=2)
    baseline = needed(problem, trainer=trainer)
    assert needed(problem, trainer=trainer) == baseline
    assert needed(problem, trainer=trainer, width=256) > 2 * baseline
    assert needed(problem, trainer=trainer, packing=32) > 2 * baseline
    assert needed(problem, trainer=trainer, depth=4) > baseline
    assert needed(make_problem(n=2_000, n_folds=4), trainer=trainer) > baseline
    if trainer == "population":
        assert needed(problem, trainer=trainer, batch_size=1024) > baseline
        several = [needed(problem, n) for n in (1, 2, 3)]
        assert np.allclose(np.diff(several), several[1] - several[0])
        assert several[1] < 2 * several[0]  # they share the rows


SPACES = [(TableSpace, None), (ImageSpace, SHAPE), (CellSpace, SHAPE)]


@pytest.mark.parametrize(
    ("kind", "shape"), SPACES, ids=lambda x: getattr(x, "__name__", "")
)
def test_saved_tensors_grow_linearly_with_the_rows(kind, shape):
    problem = make_problem() if shape is None else make_images()
    space = kind().for_task(problem.task)
    for architecture in space.portfolio(problem.task)[:6]:
        cost = memory_need._cost(space, architecture, problem, 0, False)
        net = space.build(architecture, problem.task)
        x = torch.zeros(40, *problem.task.row_shape)
        saved = sum(memory_need._saved_bytes(net, x))
        assert saved == pytest.approx(40 * cost.saved + cost.fixed, rel=0.02)
        assert 0 < cost.largest < cost.saved


def test_saved_tensors_are_counted_once():
    linear = nn.Linear(3, 5)
    net = nn.Sequential(linear, nn.ReLU(), nn.Flatten())
    # x and the parameters are not counted; ReLU saves its output.
    assert memory_need._saved_bytes(net, torch.zeros(4, 3))[-1:] == [4 * 5 * 4]
    assert sum(memory_need._saved_bytes(nn.Identity(), torch.zeros(4, 3))) == 48


class Widths(Space):
    """A user-defined space that counts the networks built in real memory."""

    n_built = 0

    @property
    def choices(self):
        return {"width": Integer(4, 10_000, log=True, default=16)}

    def build(self, architecture, task):
        if not torch.empty(0).is_meta:
            type(self).n_built += 1
        inputs = TableInput(1, task)
        hidden = Linear(1, inputs.n_features, architecture["width"])
        output = Linear(1, architecture["width"], task.n_outputs)
        return nn.Sequential(inputs, hidden, nn.ReLU(), output)


def test_only_the_parameters_of_a_user_space_are_counted():
    problem, space = make_problem(), Widths()
    sizes = []
    for width in (16, 10_000):
        architecture = space.fill({"width": width})
        sizes.append(bytes_needed(space, architecture, problem))
    n_params = space.n_params(architecture, problem.task)
    assert sizes[1] - sizes[0] > 4 * 4 * n_params
    assert Widths.n_built == 0


def test_an_architecture_that_cannot_be_built_is_not_rejected_for_its_memory():
    class Broken(Widths):
        def build(self, architecture, task):
            raise KeyError("no such layer")

    space = Broken()
    architecture = space.default_architecture()
    assert bytes_needed(space, architecture, make_problem()) == 0
    (trial,) = train("skorch", [Proposal(architecture)], make_problem(), space)
    assert trial.reason == "KeyError: 'no such layer'"


def test_huge_networks_are_not_built_for_the_estimate(monkeypatch):
    monkeypatch.setattr(memory_need, "MAX_BUILT", 10)
    assert memory_need._cost(TableSpace(), None, None, 11, True) == memory_need._Cost()


def test_an_estimate_leaves_the_state_of_torch_unchanged():
    state, n_threads = torch.get_rng_state(), torch.get_num_threads()
    needed(make_problem())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == n_threads


# ------------------------------------------------------------------------ short memory


def short_of(monkeypatch, n_bytes):
    monkeypatch.setattr(advance_module, "bytes_free", lambda device: n_bytes)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_only_trials_that_need_too_much_memory_are_rejected(trainer, monkeypatch):
    problem = make_problem(n_steps=6)
    proposed = ask(problem, [{}, {"width": 512, "depth": 4}, {"ntk_lr": 0.1}])
    expected = train(trainer, proposed, problem)
    sizes = [
        needed(problem, trainer=trainer, **c) for c in ({}, {"width": 512, "depth": 4})
    ]
    short_of(monkeypatch, sum(sizes) / 2)
    trials = train(trainer, proposed, problem)
    assert trials[1].status == "failed" and trials[1].score is None
    assert trials[1].cause == Cause.OUT_OF_MEMORY
    assert trials[1].reason == str(too_large(sizes[1], sum(sizes) / 2))
    for index in (0, 2):
        assert_same(trials[index], expected[index])


def test_groups_that_need_too_much_memory_are_split(monkeypatch):
    problem = make_problem(n_steps=6)
    proposed = ask(problem, [{"ntk_lr": 0.01 * j} for j in range(1, 6)])
    expected = train("population", proposed, problem)
    sizes, original = [], loop_module.TrainingLoop

    def recording(group, *arguments):
        sizes.append(len(group.trials))
        return original(group, *arguments)

    monkeypatch.setattr(loop_module, "TrainingLoop", recording)
    short_of(monkeypatch, needed(problem, 2))
    trials = train("population", proposed, problem)
    assert sizes == [2, 1, 2]
    for trial, other in zip(trials, expected, strict=True):
        assert_same(trial, other)
    # Workers share the free memory.
    sizes.clear()
    train("population", proposed, problem, n_jobs=2)
    assert sizes == [1] * 5


def test_the_memory_of_a_trial_is_checked_once(monkeypatch, two_rungs):
    """At later rungs, its own memory is in use and no longer free."""
    problem = make_problem(n_steps=12)
    proposed = ask(problem, [{}])
    for trainer in TRAINERS:
        free = iter([math.inf])
        monkeypatch.setattr(advance_module, "bytes_free", lambda _, f=free: next(f))
        (trial,) = train(trainer, proposed, problem)
        assert trial.status == "ok" and trial.proposal.rung == 1


# ---------------------------------------------------------------------- micro-batches


def limit_memory(monkeypatch, net, max_rows, error=None, is_affected=None):
    """Let networks run out of memory in training on more than `max_rows` rows."""
    original, seen = net.forward, []
    error = torch.OutOfMemoryError("CUDA out of memory.") if error is None else error

    def forward(self, x):
        n_rows = len(x) if x.ndim == 4 else x.shape[-2]
        if self.training and torch.is_grad_enabled():
            seen.append(n_rows)
            is_chosen = is_affected is None or is_affected(self, len(seen))
            if n_rows > max_rows and is_chosen:
                raise error
        return original(self, x)

    monkeypatch.setattr(net, "forward", forward)
    return seen


FAMILIES = {
    "plain": {"dropout": 0.25},
    "packing": {"packing": 4, "dropout": 0.25, "normalisation": "layer"},
    "clipped": {"optimizer": "momentum", "sgd_lr": 0.1, "dropout": 0.1},
    "resnet": {"block": "resnet", "recipe": "uniform", "lr": 0.01, "dropout": 0.1},
}
SLOWER = ("packing", "clipped")


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize(
    "family",
    ["plain", "resnet", *(pytest.param(f, marks=pytest.mark.slow) for f in SLOWER)],
)
def test_micro_batches_train_like_the_batch(family, trainer, monkeypatch, two_rungs):
    problem = make_problem("multiclass", n=90, n_steps=24)
    proposed = ask(problem, [{"batch_size": 32, **FAMILIES[family]}])
    (expected,) = train(trainer, proposed, problem)
    seen = limit_memory(monkeypatch, TableNet, 16)
    (trial,) = train(trainer, proposed, problem)
    assert (trial.status, trial.n_micro_batches) == ("ok", 2)
    assert_same(replace(trial, reason=""), expected)
    assert trial.reason == IN_MICRO_BATCHES
    assert len(trial.rung_scores) == 2
    assert sum(n > 16 for n in seen) == 1  # later rungs stay in micro-batches


@pytest.mark.parametrize("trainer", TRAINERS)
def test_batch_normalisation_is_trained_in_micro_batches(trainer, monkeypatch):
    problem = make_problem(n=90, n_steps=24)
    proposed = ask(problem, [{"batch_size": 32, "normalisation": "batch"}])
    limit_memory(monkeypatch, TableNet, 16)
    (trial,) = train(trainer, proposed, problem)
    assert (trial.status, trial.n_micro_batches) == ("ok", 2) and trial.score > 0.6


IMAGES = {
    "augmented": {"flip": True, "shift": 1, "cutout": True},
    "dense": {"head": "dense", "dropout": 0.25, "normalisation": "group"},
}


@pytest.mark.parametrize("kind", IMAGES)
def test_micro_batches_of_images_train_like_the_batch(kind, monkeypatch, two_rungs):
    problem = make_images()
    space = ImageSpace(batch_size=(16,), channels=(4,), normalisation=("none", "group"))
    choices = {"stages": 2, "normalisation": "none", **IMAGES[kind]}
    proposed = [Proposal(space.fill(choices), seed=1)]
    (expected,) = train("skorch", proposed, problem, space)
    seen = limit_memory(monkeypatch, ConvNet, 8)
    (trial,) = train("skorch", proposed, problem, space)
    assert (trial.status, trial.n_micro_batches) == ("ok", 2)
    assert_same(replace(trial, reason=""), expected)
    assert trial.reason == IN_MICRO_BATCHES
    assert sum(n > 8 for n in seen) == 1


ERRORS = [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_retry_starts_from_the_last_rung(trainer, error, monkeypatch, two_rungs):
    problem = make_problem(n=90, n_steps=24)  # rungs at 8 and 24
    proposed = ask(problem, [{"batch_size": 32, "dropout": 0.1}])
    (expected,) = train(trainer, proposed, problem)
    n_folds = len(problem.folds) if trainer == "skorch" else 1
    late = 10 * n_folds  # after the first rung
    limit_memory(monkeypatch, TableNet, 16, error, lambda net, step: step > late)
    (trial,) = train(trainer, proposed, problem)
    assert (trial.status, trial.n_micro_batches) == ("ok", 2)
    assert_same(replace(trial, reason=""), expected)
    assert trial.reason == IN_MICRO_BATCHES


@pytest.mark.parametrize("trainer", TRAINERS)
def test_only_trials_that_do_not_fit_in_micro_batches_fail(trainer, monkeypatch):
    problem = make_problem(n=90, n_steps=12)
    proposed = ask(problem, [{"batch_size": 32, "width": w} for w in (32, 64, 128)])
    expected = train(trainer, proposed, problem)

    def is_wide(net, step):
        return net.layers[0].linear.weight.shape[2] == 64

    limit_memory(monkeypatch, TableNet, 8, is_affected=is_wide)
    trials = train(trainer, proposed, problem)
    assert [t.status for t in trials] == ["ok", "failed", "ok"]
    assert trials[1].reason == "out of memory" and trials[1].networks is None
    for index in (0, 2):
        assert_same(trials[index], expected[index])


def test_validation_rows_are_split_after_a_memory_error(monkeypatch):
    problem = make_images()
    space = ImageSpace(batch_size=(16,), channels=(4,))
    proposed = [Proposal(space.fill({"stages": 2}), seed=1)]
    original = ConvNet.forward

    def forward(self, x):
        if len(x) > 20 and not self.training:
            raise MemoryError
        return original(self, x)

    monkeypatch.setattr(ConvNet, "forward", forward)
    monkeypatch.setattr("sknas.trainers._snapshot.MAX_PIXELS", 240 * 30)
    (trial,) = train("skorch", proposed, problem, space)
    assert (trial.status, trial.n_micro_batches) == ("ok", 2)


def test_groups_in_micro_batches_are_not_joined_with_others():
    problem = make_problem(n=90)
    trainer = make_trainer(problem, SPACE)
    proposed = ask(problem, [{"ntk_lr": 0.01 * j} for j in range(1, 4)])
    schedule = schedule_module.Schedule.of(proposed[0].architecture, problem)
    groups = [
        NetworkGroup([TrialState(p, schedule, n_micro_batches=1 + (p.number == 1))])
        for p in proposed
    ]
    joined = trainer._regroup(groups)
    numbers = [[t.proposal.number for t in group.trials] for group in joined]
    assert sorted(numbers) == [[0, 2], [1]]


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_checkpoint_keeps_the_micro_batches(trainer, tmp_path):
    problem = make_problem()
    (proposed,) = ask(problem, [{}])
    schedule = schedule_module.Schedule.of(proposed.architecture, problem)
    records = {cls.__name__: cls for cls in TRAINERS[trainer].records}
    group = NetworkGroup([TrialState(proposed, schedule, n_micro_batches=2)])
    with closing(FileStore(tmp_path, records)) as store:
        store.put("group", [group])
        (found,) = store.get("group")
    assert found.trials[0].n_micro_batches == 2
    assert found.schedule == schedule and hash(found.schedule) == hash(schedule)


def test_micro_batches_are_reported_in_cv_results(monkeypatch):
    X = np.random.default_rng(0).standard_normal((120, 3))
    seen = limit_memory(monkeypatch, TableNet, 45)
    model = NASClassifier(max_trials=2, max_epochs=3, random_state=0, n_jobs=1)
    model.fit(X, X[:, 0] > 0)
    assert model.cv_results_["status"].tolist() == ["ok", "ok"]
    assert IN_MICRO_BATCHES in set(model.cv_results_["reason"]) and max(seen) > 45
    assert "micro-batches" in model.history_.to_frame()["reason"].max()
