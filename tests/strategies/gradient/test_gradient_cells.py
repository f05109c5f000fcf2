"""Gradient search over cells: steps, stages and results."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from sknas._problem import Fold, ImageSpec, NullStore, Problem, Rows, TaskSpec
from sknas.nets import _cell
from sknas.spaces import CellSpace
from sknas.strategies import GradientStrategy
from sknas.strategies.gradient import supernet_trainer
from sknas.strategies.gradient.alphas import Alphas
from sknas.strategies.gradient.presets import PRESETS
from sknas.strategies.gradient.progress import TimeBudget
from sknas.strategies.gradient.relaxations import RELAXATIONS
from sknas.strategies.gradient.split import BilevelSplit
from sknas.strategies.gradient.supernet_trainer import SupernetTrainer

OPERATIONS = ("none", "skip", "avg_pool_3", "conv_3", "dil_conv_3")
UNDECIDED = ("gdas", "beta-darts")  # presets that need more steps to decide
REACH = {"conv_3": 1, "dil_conv_3": 4}  # pixel distance only this operation combines


class PlantedCells(CellSpace):
    """Cells whose operations combine pixels at different distances."""

    operations = OPERATIONS


def pixelwise(n_inputs, n_outputs, stride=1):
    """Return a layer with a 1 x 1 kernel."""
    conv = nn.Conv2d(n_inputs, n_outputs, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(n_outputs))


@pytest.fixture
def one_edge(monkeypatch):
    """Reduce networks to cells of one edge; all other layers have 1 x 1 kernels."""
    monkeypatch.setattr(_cell, "make_stem", pixelwise)
    monkeypatch.setattr(_cell, "ResidualReduce", pixelwise)
    monkeypatch.setitem(_cell.NODES, "nas-bench-201", range(1, 2))


def textures(n, reach=1, side=10):
    """Return noise in which pixels at a distance are correlated, and its classes.

    Pixels are correlated vertically in one class and horizontally in the other. Single
    pixels and means of neighbours contain no information.
    """
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(n, 1, side, side)), rng.integers(0, 2, n)
    is_down = y[:, None, None, None] == 1
    x = x + np.where(is_down, np.roll(x, reach, 2), np.roll(x, reach, 3))
    return (x / math.sqrt(2)).astype(np.float32), y


def problem_of(x, y, n_steps):
    n, shape = len(x), x.shape[1:]
    image = ImageSpec(shape, np.zeros(1, np.float32), np.ones(1, np.float32))
    task = TaskSpec("multiclass", int(y.max()) + 1, n, image=image)
    rows = Rows(x, y, np.ones(n))
    none = Rows(x[:1], y[:1], np.ones(1))
    fold = Fold(task, rows, none, np.arange(1), np.asarray)
    return Problem(task=task, folds=(fold,), n_rows=n, n_steps=n_steps)


# ------------------------------------------------------------------------- the stages


@pytest.mark.parametrize("partial", [1, 4])
def test_stages_prune_operations_but_not_inputs(partial):
    x, y = textures(4)
    operations = ("none", "skip", "sep_conv_3", "sep_conv_5", "max_pool_3")
    space = CellSpace("darts", operations, cells=(1,), channels=(4,))
    net = space.supernet(problem_of(x, y, 1).task, partial)
    alphas = Alphas(net.choices, RELAXATIONS["softmax"], "cpu")
    alphas.prune(0.5)
    for name, choice in net.choices.items():
        is_input = name.endswith("inputs")
        assert len(alphas.active[name]) == (len(choice.options) if is_input else 3)
    n_inputs = sum(name.endswith("inputs") for name in net.choices)
    assert n_inputs == (8 if partial > 1 else 0)


# -------------------------------------------------------------------------- the steps


@pytest.mark.parametrize("preset", ["darts", "darts-2nd"])
def test_only_weight_steps_update_running_statistics(monkeypatch, preset):
    """Steps of the alphas and Hessian eigenvalues do not update them."""
    x, y = textures(48)
    problem = problem_of(x, y, 6)
    space = PlantedCells(cells=(1,), channels=(4,))
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    trainer = SupernetTrainer(
        space.supernet(problem.task),
        PRESETS[preset],
        BilevelSplit(problem.folds[0].train, problem.task, "cpu", rng, True),
        TimeBudget(6, math.inf),
        NullStore(),
        is_adaptive=False,
        arch_lr=None,
    )
    norms = [m for m in trainer.net.modules() if isinstance(m, nn.BatchNorm2d)]
    tracked = [norm for norm in norms if norm.running_mean is not None]
    seen, usual = [], trainer._move_weights

    def statistics():
        return [t.clone() for n in tracked for t in (n.running_mean, n.running_var)]

    def move(*args):
        seen.append(statistics())
        is_finite = usual(*args)
        seen.append(statistics())
        return is_finite

    monkeypatch.setattr(supernet_trainer, "STEPS_PER_EIGENVALUE", 2)
    monkeypatch.setattr(trainer, "_move_weights", move)
    assert trainer.run() and len(trainer.records.eigenvalues) == 3
    seen.append(statistics())
    for before, after in zip(seen[1::2], seen[2::2], strict=True):
        assert all(map(torch.equal, before, after))
    for before, after in zip(seen[:-1:2], seen[1::2], strict=True):
        assert not any(map(torch.equal, before, after))


@pytest.mark.parametrize("partial", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_perturbation_keeps_two_inputs_per_darts_node(partial):
    problem = problem_of(*textures(64), n_steps=8)
    operations = ("none", "skip", "sep_conv_3", "max_pool_3")
    space = CellSpace("darts", operations, cells=(1,), channels=(4,))
    strategy = GradientStrategy("darts-pt", partial_channels=partial)
    strategy.setup(space.for_task(problem.task), problem, np.random.default_rng(0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        (proposal,) = strategy.propose(1)
    values = dict(proposal.architecture)
    inputs = [v for name, v in values.items() if name.endswith("inputs")]
    assert len(inputs) == 8 and all(len(set(v.split(","))) == 2 for v in inputs)
    chosen = [v for v in values.values() if v in operations]
    assert "none" not in chosen and len(set(chosen)) > 1


# ------------------------------------------------------------------------------ results


@pytest.mark.parametrize(
    "preset, planted",
    [
        ("drnas", "conv_3"),
        ("darts", "dil_conv_3"),
        *(
            pytest.param(preset, "conv_3", marks=pytest.mark.slow)
            for preset in PRESETS
            if preset != "drnas"
        ),
    ],
)
def test_the_planted_operation_is_found(one_edge, preset, planted):
    problem = problem_of(*textures(800, REACH[planted]), n_steps=60)
    space = PlantedCells(cells=(1,), channels=(8,)).for_task(problem.task)
    strategy = GradientStrategy(preset, batch_size=64)
    strategy.setup(space, problem, np.random.default_rng(1))
    (proposal,) = strategy.propose(1)
    assert proposal.architecture["edge_0_1"] == planted
    assert preset in UNDECIDED or not strategy.is_undecided_
