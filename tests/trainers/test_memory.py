"""Memory: what a training needs, what is free, and what is done where it is short."""

import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from cohorts import assert_same, make_problem, proposals
from torch import nn

import sknas.trainers._loop as unit_module
import sknas.trainers._memory_free as memory_free
import sknas.trainers._memory_need as memory
import sknas.trainers._population as population
import sknas.trainers._schedule as plan_module
import sknas.trainers._skorch as skorch_module
from sknas import NASClassifier
from sknas._checkpoint.store import FileStore
from sknas._data.target import softmax
from sknas._history import IN_HALVES, Proposal
from sknas._problem import Fold, ImageSpec, Rows, TaskSpec
from sknas.nets import ConvNet, Linear, TableInput, TableNet
from sknas.spaces import CellSpace, ImageSpace, Integer, Space, TableSpace
from sknas.trainers import TRAINERS
from sknas.trainers._group import Batched, TrialState
from sknas.trainers._memory_free import bytes_free, too_large
from sknas.trainers._memory_need import bytes_needed
from sknas.trainers._skorch import Single

GB = 1e9
SHAPE = (2, 12, 10)
SPACE = TableSpace()


def make_images(n=60, n_steps=12, shape=SHAPE):
    """A problem of small images, two folds."""
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


def train(name, asked, problem, space=SPACE):
    trainer = TRAINERS[name](halving=False)
    trainer.setup(space)
    return trainer.train(asked, problem)


def ask(problem, choices):
    return proposals(problem, choices, SPACE)


@pytest.fixture
def two_rungs(monkeypatch):
    monkeypatch.setattr(plan_module, "n_cycles", lambda n_steps: 2)
    monkeypatch.setattr("sknas.trainers._skorch_net.n_cycles", lambda n_steps: 2)


# ---------------------------------------------------------------------- what is free


def test_some_memory_is_free():
    free = bytes_free("cpu")
    assert free > 1e6
    assert math.isfinite(free) or sys.platform != "linux"


def test_what_the_system_says_is_available(tmp_path):
    told = tmp_path / "meminfo"
    told.write_text("MemTotal:  100 kB\nMemAvailable:     50 kB\nBuffers: 1 kB\n")
    assert memory_free._available(told) == 50 * 1024
    told.write_text("MemTotal:  100 kB\n")
    assert memory_free._available(told) == math.inf
    assert memory_free._available(tmp_path / "none") == math.inf


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def left(told, root):
    return min(memory_free._left_in_groups(told, root), default=math.inf)


def test_limits_of_control_groups_of_version_2(tmp_path):
    told, root = tmp_path / "cgroup", tmp_path / "fs"
    told.write_text("0::/outer/inner\n")
    assert left(told, root) == math.inf
    write(root / "outer/inner", memory__max="max\n", memory__current="5\n")
    assert left(told, root) == math.inf
    stat = "anon 3\ninactive_file 30\n"
    write(
        root / "outer", memory__max="100\n", memory__current="80\n", memory__stat=stat
    )
    assert left(told, root) == 50  # the files it read can be given back
    write(root, memory__max="60\n", memory__current="50\n", memory__stat="anon 3\n")
    assert left(told, root) == 10
    write(root.parent, memory__max="1\n", memory__current="1\n", memory__stat="")
    assert left(told, root) == 10  # no group


def test_limits_of_control_groups_of_version_1(tmp_path):
    told, root = tmp_path / "cgroup", tmp_path / "fs"
    told.write_text("5:cpu:/\n4:memory:/here\n0::/\n")
    files = {"memory__limit_in_bytes": "100\n", "memory__usage_in_bytes": "70\n"}
    stat = "total_inactive_file 5\n"
    write(root / "memory", memory__stat=stat, **files)  # as a container sees its own
    assert left(told, root) == 35
    files["memory__limit_in_bytes"] = "90\n"
    write(root / "memory/here", memory__stat=stat, **files)
    assert left(told, root) == 25
    assert left(tmp_path / "none", root) == math.inf


def test_free_memory_is_never_less_than_none(monkeypatch):
    monkeypatch.setattr(memory, "_left_in_groups", lambda: iter([-5.0]))
    assert bytes_free("cpu") == 0


@pytest.mark.parametrize(("device", "place"), [("cuda", None), ("cuda:1", 1)])
def test_what_torch_holds_ready_on_a_gpu_is_free(device, place, monkeypatch):
    told = {"mem_get_info": (5, 9), "memory_reserved": 4, "memory_allocated": 1}
    for name, answer in told.items():
        answers = {place: answer}
        monkeypatch.setattr(torch.cuda, name, answers.__getitem__)
    assert bytes_free(device) == 5 + 4 - 1


def test_a_reason_says_how_much():
    told = "needs about 31 GB of memory, 20 GB are free"
    assert too_large(31.2 * GB, 20 * GB) == told
    told = "needs about 1.5 GB of memory, 90 MB are free"
    assert too_large(1.52 * GB, 0.09 * GB) == told


# -------------------------------------------------------------------- what is needed


def needed(problem, n_members=1, trainer="population", **choices):
    (asked,) = ask(problem, [choices])
    told = {"is_batched": trainer == "population"}
    return bytes_needed(SPACE, asked.architecture, problem, n_members, **told)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_more_of_anything_needs_more(trainer, monkeypatch):
    monkeypatch.setattr(memory, "BASE", 0)
    problem = make_problem(n=2_000, n_folds=2)
    plain = needed(problem, trainer=trainer)
    assert needed(problem, trainer=trainer) == plain
    assert needed(problem, trainer=trainer, width=256) > 2 * plain
    assert needed(problem, trainer=trainer, packing=32) > 2 * plain
    assert needed(problem, trainer=trainer, depth=4) > plain
    assert needed(make_problem(n=2_000, n_folds=4), trainer=trainer) > plain
    if trainer == "population":
        assert needed(problem, trainer=trainer, batch_size=1024) > plain
        several = [needed(problem, n) for n in (1, 2, 3)]
        assert np.allclose(np.diff(several), several[1] - several[0])
        assert several[1] < 2 * several[0]  # members share the rows


SPACES = [(TableSpace, None), (ImageSpace, SHAPE), (CellSpace, SHAPE)]


@pytest.mark.parametrize(
    ("kind", "shape"), SPACES, ids=lambda x: getattr(x, "__name__", "")
)
def test_three_rows_tell_of_any_number(kind, shape):
    """What is kept for the gradient grows evenly with the rows."""
    problem = make_problem() if shape is None else make_images()
    space = kind().for_task(problem.task)
    for architecture in space.portfolio(problem.task)[:6]:
        cost = memory._cost(space, architecture, problem, 0, False)
        net = space.build([architecture], problem.task)
        kept = sum(memory._kept(net, torch.zeros(40, *problem.task.row_shape)))
        assert kept == pytest.approx(40 * cost.kept + cost.fixed, rel=0.02)
        assert 0 < cost.largest < cost.kept


def test_what_is_kept_is_not_counted_twice():
    linear = nn.Linear(3, 5)
    net = nn.Sequential(linear, nn.ReLU(), nn.Flatten())
    # x and the weights are there anyway; of the rest ReLU keeps its answer.
    assert memory._kept(net, torch.zeros(4, 3))[-1:] == [4 * 5 * 4]
    assert sum(memory._kept(nn.Identity(), torch.zeros(4, 3))) == 48


class Widths(Space):
    """A user's space, which counts how often it is built with real memory."""

    n_built = 0

    @property
    def choices(self):
        return {"width": Integer(4, 10_000, log=True, default=16)}

    def build(self, architectures, task):
        if not torch.empty(0).is_meta:
            type(self).n_built += 1
        (architecture,) = architectures
        inputs = TableInput(1, task)
        hidden = Linear(1, inputs.n_features, architecture["width"])
        output = Linear(1, architecture["width"], task.n_outputs)
        return nn.Sequential(inputs, hidden, nn.ReLU(), output)


def test_a_space_of_the_user_is_measured_by_its_weights_alone():
    problem, space = make_problem(), Widths()
    sizes = []
    for width in (16, 10_000):
        architecture = space.fill({"width": width})
        sizes.append(bytes_needed(space, architecture, problem))
    n_params = space.n_params(architecture, problem.task)
    assert sizes[1] - sizes[0] > 4 * 4 * n_params
    assert Widths.n_built == 0


def test_what_can_not_be_built_is_not_refused():
    class Broken(Widths):
        def build(self, architectures, task):
            raise KeyError("no such layer")

    space = Broken()
    architecture = space.default_architecture()
    assert bytes_needed(space, architecture, make_problem()) == 0
    (trial,) = train("skorch", [Proposal(architecture)], make_problem(), space)
    assert trial.reason == "KeyError: 'no such layer'"


def test_a_huge_network_is_not_built_to_be_measured(monkeypatch):
    monkeypatch.setattr(memory, "MAX_BUILT", 10)
    assert memory._cost(TableSpace(), None, None, 11, True) == memory._Cost()


def test_to_estimate_leaves_torch_as_it_was():
    state, n_threads = torch.get_rng_state(), torch.get_num_threads()
    needed(make_problem())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == n_threads


# -------------------------------------------------------------------------- refusals


def short_of(monkeypatch, n_bytes):
    for module in (unit_module, skorch_module):
        monkeypatch.setattr(module, "bytes_free", lambda device: n_bytes)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_what_would_not_fit_is_refused_and_no_other(trainer, monkeypatch):
    problem = make_problem(n_steps=6)
    asked = ask(problem, [{}, {"width": 512, "depth": 4}, {"ntk_lr": 0.1}])
    expected = train(trainer, asked, problem)
    sizes = [
        needed(problem, trainer=trainer, **c) for c in ({}, {"width": 512, "depth": 4})
    ]
    short_of(monkeypatch, sum(sizes) / 2)
    trials = train(trainer, asked, problem)
    assert trials[1].status == "failed" and trials[1].score is None
    assert trials[1].reason == too_large(sizes[1], sum(sizes) / 2)
    for place in (0, 2):
        assert_same(trials[place], expected[place])


def test_members_that_would_not_fit_together_are_parted(monkeypatch):
    problem = make_problem(n_steps=6)
    asked = ask(problem, [{"ntk_lr": 0.01 * j} for j in range(1, 6)])
    expected = train("population", asked, problem)
    sizes, plain = [], unit_module._Training

    def noting(unit, *told):
        sizes.append(len(unit.members))
        return plain(unit, *told)

    monkeypatch.setattr(unit_module, "_Training", noting)
    short_of(monkeypatch, needed(problem, 2))
    trials = train("population", asked, problem)
    assert sizes == [2, 1, 2]
    for trial, other in zip(trials, expected, strict=True):
        assert_same(trial, other)
    # As many workers as may run share what is free.
    sizes.clear()
    train("population", asked, replace(problem, n_jobs=2))
    assert sizes == [1] * 5


def test_what_was_begun_is_not_refused_later(monkeypatch, two_rungs):
    """Its memory is in use already, and so not free."""
    problem = make_problem(n_steps=12)
    asked = ask(problem, [{}])
    for trainer, module in (("population", unit_module), ("skorch", skorch_module)):
        free = iter([math.inf])  # asked once
        monkeypatch.setattr(module, "bytes_free", lambda device, f=free: next(f))
        (trial,) = train(trainer, asked, problem)
        assert trial.status == "ok" and trial.proposal.rung == 1


# ------------------------------------------------------------------ halves of a batch


def starve(monkeypatch, net, most, error=None, is_seen=None):
    """Let networks run out of memory in training on more than `most` rows."""
    plain, seen = net.forward, []
    error = torch.OutOfMemoryError("CUDA out of memory.") if error is None else error

    def forward(self, x):
        n_rows = len(x) if x.ndim == 4 else x.shape[-2]
        if self.training and torch.is_grad_enabled():
            seen.append(n_rows)
            if n_rows > most and (is_seen is None or is_seen(self, len(seen))):
                raise error
        return plain(self, x)

    monkeypatch.setattr(net, "forward", forward)
    return seen


FAMILIES = {
    "plain": {"dropout": 0.25},
    "packing": {"packing": 4, "dropout": 0.25, "normalisation": "layer"},
    "clipped": {"optimizer": "momentum", "sgd_lr": 0.1, "dropout": 0.1},
    "resnet": {"block": "resnet", "recipe": "uniform", "lr": 0.01, "dropout": 0.1},
}


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_halves_of_a_batch_are_what_the_batch_is(
    family, trainer, monkeypatch, two_rungs
):
    problem = make_problem("multiclass", n=90, n_steps=24)
    asked = ask(problem, [{"batch_size": 32, **FAMILIES[family]}])
    (expected,) = train(trainer, asked, problem)
    seen = starve(monkeypatch, TableNet, 16)
    (trial,) = train(trainer, asked, problem)
    assert (trial.status, trial.reason) == ("ok", IN_HALVES)
    assert_same(replace(trial, reason=""), expected)
    assert len(trial.rung_scores) == 2
    assert sum(n > 16 for n in seen) == 1  # later rungs stay in halves


@pytest.mark.parametrize("trainer", TRAINERS)
def test_batch_normalisation_trains_in_halves_too(trainer, monkeypatch):
    problem = make_problem(n=90, n_steps=24)
    asked = ask(problem, [{"batch_size": 32, "normalisation": "batch"}])
    starve(monkeypatch, TableNet, 16)
    (trial,) = train(trainer, asked, problem)
    assert (trial.status, trial.reason) == ("ok", IN_HALVES) and trial.score > 0.6


IMAGES = {
    "seen anew": {"flip": True, "shift": 1, "cutout": True},
    "dense": {"head": "dense", "dropout": 0.25, "normalisation": "group"},
}


@pytest.mark.parametrize("kind", IMAGES)
def test_halves_of_images_are_what_the_batch_is(kind, monkeypatch, two_rungs):
    problem = make_images()
    space = ImageSpace(batch_size=(16,), channels=(4,), normalisation=("none", "group"))
    told = {"stages": 2, "normalisation": "none", **IMAGES[kind]}
    asked = [Proposal(space.fill(told), seed=1)]
    (expected,) = train("skorch", asked, problem, space)
    seen = starve(monkeypatch, ConvNet, 8)
    (trial,) = train("skorch", asked, problem, space)
    assert (trial.status, trial.reason) == ("ok", IN_HALVES)
    assert_same(replace(trial, reason=""), expected)
    assert sum(n > 8 for n in seen) == 1


ERRORS = [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_fault_at_any_step_starts_again_from_the_last_rung(
    trainer, error, monkeypatch, two_rungs
):
    problem = make_problem(n=90, n_steps=24)  # rungs at 8 and 24
    asked = ask(problem, [{"batch_size": 32, "dropout": 0.1}])
    (expected,) = train(trainer, asked, problem)
    n_folds = len(problem.folds) if trainer == "skorch" else 1
    late = 10 * n_folds  # after the first rung
    starve(monkeypatch, TableNet, 16, error, lambda net, step: step > late)
    (trial,) = train(trainer, asked, problem)
    assert (trial.status, trial.reason) == ("ok", IN_HALVES)
    assert_same(replace(trial, reason=""), expected)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_what_does_not_fit_in_halves_fails_and_no_other(trainer, monkeypatch):
    problem = make_problem(n=90, n_steps=12)
    asked = ask(problem, [{"batch_size": 32, "width": w} for w in (32, 64, 128)])
    expected = train(trainer, asked, problem)

    def is_wide(net, step):
        return net.layers[0].linear.weight.shape[2] == 64

    starve(monkeypatch, TableNet, 8, is_seen=is_wide)
    trials = train(trainer, asked, problem)
    assert [t.status for t in trials] == ["ok", "failed", "ok"]
    assert trials[1].reason == "out of memory" and trials[1].networks is None
    for place in (0, 2):
        assert_same(trials[place], expected[place])


def test_answers_are_made_in_halves_too(monkeypatch):
    """A network whose validation fills the memory gets through, all the same."""
    problem = make_images()
    space = ImageSpace(batch_size=(16,), channels=(4,))
    asked = [Proposal(space.fill({"stages": 2}), seed=1)]
    plain = ConvNet.forward

    def forward(self, x):
        if len(x) > 20 and not self.training:
            raise MemoryError
        return plain(self, x)

    monkeypatch.setattr(ConvNet, "forward", forward)
    monkeypatch.setattr("sknas.trainers._skorch_net.PIXELS_AT_ONCE", 240 * 30)
    (trial,) = train("skorch", asked, problem, space)
    assert (trial.status, trial.reason) == ("ok", IN_HALVES)


def test_members_in_halves_do_not_join_others():
    problem = make_problem(n=90)
    trainer = population.PopulationTrainer()
    trainer.setup(SPACE)
    asked = ask(problem, [{"ntk_lr": 0.01 * j} for j in range(1, 4)])
    schedules = {
        p.number: plan_module.Schedule.of(p.architecture, problem) for p in asked
    }
    units = [Batched([TrialState(p, is_halved=p.number == 1)]) for p in asked]
    joined = trainer._regrouped(units, problem, schedules)
    numbers = [[m.proposal.number for m in unit.members] for unit in joined]
    assert sorted(numbers) == [[0, 2], [1]]


@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_mark_outlives_a_search_that_was_broken_off(trainer, tmp_path):
    (asked,) = ask(make_problem(), [{}])
    kind = {"population": Batched, "skorch": Single}[trainer]
    records = {cls.__name__: cls for cls in TRAINERS[trainer].records}
    unit = kind([TrialState(asked, is_halved=True)])
    FileStore(tmp_path, records).put("unit", [unit])
    (found,) = FileStore(tmp_path, records).get("unit")
    assert found.members[0].is_halved


def test_the_mark_stands_in_cv_results(monkeypatch):
    X = np.random.default_rng(0).standard_normal((120, 3))
    seen = starve(monkeypatch, TableNet, 45)
    model = NASClassifier(max_trials=2, max_epochs=3, random_state=0, n_jobs=1)
    model.fit(X, X[:, 0] > 0)
    assert model.cv_results_["status"].tolist() == ["ok", "ok"]
    assert IN_HALVES in set(model.cv_results_["reason"]) and max(seen) > 45
    assert "halves" in model.history_.to_frame()["reason"].max()
