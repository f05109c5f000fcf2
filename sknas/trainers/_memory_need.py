"""Estimate how much memory a training needs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from sknas._history import Architecture
from sknas._problem import Problem, TaskSpec
from sknas._training.isolation import isolated
from sknas.spaces import Space
from sknas.trainers._batches import CHUNK, MAX_STORED, N_STARTING
from sknas.trainers._schedule import Schedule
from sknas.trainers._snapshot import max_rows

FLOAT = 4  # bytes of a number
# Copies of the parameters: themselves, gradient, step, two moments of the optimiser,
# the best snapshot, and the state (parameters and two moments) that is resumed.
N_COPIES = 9
BACKWARD = 1.2  # factor on saved tensors, for what the allocator wastes
LAYER = 3  # tensors of a layer in memory at once, in addition to saved ones
BASE = 2**25  # bytes of any training
ROW = 48  # bytes of a row: target, weight, and indices in the orders of two epochs
OUTPUT = 40  # bytes of an output number: as logit, as probability, and in sums
MAX_BUILT = 2**24  # parameters of the largest network that is built to be measured


def bytes_needed(
    space: Space,
    architecture: Architecture,
    problem: Problem,
    n_trials: int = 1,
    *,
    is_batched: bool = False,
    deadline: float | None = None,
) -> float:
    """Estimate the bytes of a training at its peak, without the problem itself.

    Parameters
    ----------
    space : Space
        Builds the networks. Unless it has `measures_memory`, only their parameters are
        counted.
    architecture : Architecture
        Trained on each fold.
    problem : Problem
        Its folds.
    n_trials : int, default=1
        Architectures of the same shape that are trained side by side.
    is_batched : bool, default=False
        True if the networks of all folds are trained side by side, too.
    deadline : float or None, default=None
        Time on the monotonic clock after which no further network is built, nor if one
        would be late.
    """
    started = time.monotonic()
    n_params = 0
    try:
        for fold in problem.folds:
            n_params = max(n_params, space.n_params(architecture, fold.task))
            now = time.monotonic()
            if deadline is not None and now + (now - started) >= deadline:
                return 0.0
        return _bytes_needed(
            space, architecture, problem, n_trials, is_batched, n_params
        )
    except Exception:  # of a user's space: it fails again when it is trained
        return 0.0


def _bytes_needed(
    space: Space,
    architecture: Architecture,
    problem: Problem,
    n_trials: int,
    is_batched: bool,
    n_params: int,
) -> float:
    n_networks = n_trials * len(problem.folds)
    at_once = n_networks if is_batched else 1
    tasks = [fold.task for fold in problem.folds]
    cost = _cost(space, architecture, problem, n_params, is_batched)
    n_trained, n_evaluated = _count_rows(architecture, problem, is_batched)
    training = (BACKWARD * cost.saved + LAYER * cost.largest) * n_trained + cost.fixed
    evaluation = LAYER * cost.largest * n_evaluated
    parameters = N_COPIES * FLOAT * n_params * n_networks
    outputs = OUTPUT * problem.n_rows * tasks[0].n_outputs * n_trials
    rows = _bytes_of_rows(space, architecture, problem, is_batched)
    return BASE + parameters + outputs + rows + at_once * max(training, evaluation)


def _count_rows(
    architecture: Architecture, problem: Problem, is_batched: bool
) -> tuple[int, int]:
    """Return the rows of a fold in a batch, and those that are evaluated at once."""
    folds = problem.folds
    n_rows = max(len(fold.train) for fold in folds)
    n_trained = -(-n_rows // Schedule.of(architecture, problem).n_distinct_batches)
    shape = folds[0].task.row_shape
    # Trained alone, table networks evaluate most rows in their initialisation.
    alone = N_STARTING if len(shape) == 1 else max_rows(shape)
    limit = CHUNK if is_batched else alone
    return n_trained, min(limit, max(n_rows, *(len(fold.valid) for fold in folds)))


def _bytes_of_rows(
    space: Space, architecture: Architecture, problem: Problem, is_batched: bool
) -> float:
    """Return the bytes of the rows on the device: of one fold, or of all at once."""
    folds = problem.folds
    if not is_batched:
        return max(
            fold.train.x.nbytes + fold.valid.x.nbytes + ROW * len(fold.train)
            for fold in folds
        )
    n_rows = sum(len(fold.train) for fold in folds)
    n_features = _n_features(space, architecture, problem)
    is_stored = n_rows * n_features <= MAX_STORED
    width = n_features if is_stored else folds[0].task.n_columns
    n_evaluated = min(CHUNK, max(len(fold.valid) for fold in folds))
    temporary = LAYER * FLOAT * n_features * n_evaluated * len(folds)
    return FLOAT * n_rows * width + ROW * n_rows + temporary


def _n_features(space: Space, architecture: Architecture, problem: Problem) -> int:
    """Return the number of features of a row."""
    tasks = [fold.task for fold in problem.folds]
    layout = space.layout(architecture, tasks)
    return _feature_shape(space, architecture, tasks[0], layout).numel()


def _feature_shape(
    space: Space, architecture: Architecture, task: TaskSpec, layout: Any
) -> torch.Size:
    """Return the shape of the features of a row, by computing those of one row."""
    with isolated(0, "cpu"):
        features = space.features(architecture, task, layout)
        return features(torch.zeros(1, *task.row_shape)).shape[1:]


@dataclass(frozen=True)
class _Cost:
    """Bytes of one network in training, without its parameters.

    Parameters
    ----------
    saved : float, default=0.0
        Tensors saved for the backward pass, per row.
    largest : float, default=0.0
        The largest of these tensors, per row.
    fixed : float, default=0.0
        Saved tensors that do not depend on the number of rows.
    """

    saved: float = 0.0
    largest: float = 0.0
    fixed: float = 0.0


def _cost(
    space: Space,
    architecture: Architecture,
    problem: Problem,
    n_params: int,
    is_batched: bool,
) -> _Cost:
    """Measure the cost of a network on two rows and on three."""
    if not space.measures_memory or n_params > MAX_BUILT:
        return _Cost()
    task = problem.folds[0].task
    with isolated(0, "cpu"):
        if is_batched:  # all trials read the same features
            layout = space.layout(architecture, [task])
            net = space.build_batch([architecture], task, layout)
            shape: Any = _feature_shape(space, architecture, task, layout)
        else:
            net, shape = space.build(architecture, task), task.row_shape
        two, three = (_saved_bytes(net, torch.zeros(n, *shape)) for n in (2, 3))
    per_row = [after - before for before, after in zip(two, three, strict=True)]
    saved = sum(per_row)
    return _Cost(saved, max(per_row), sum(two) - 2 * saved)


def _saved_bytes(net: nn.Module, x: Tensor) -> list[int]:
    """Return the bytes of the output and of each tensor saved for its gradient."""
    tensors = [x, *net.parameters()]
    known = {tensor.untyped_storage().data_ptr() for tensor in tensors}
    saved: dict[int, Tensor] = {}  # references, so that no address is used twice

    def save(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        tensor = tensor.detach()  # a tensor of the graph would keep the graph alive
        if address not in known:
            saved[address] = tensor
        return tensor

    with saved_tensors_hooks(save, lambda tensor: tensor):
        output = net(x)
    return [tensor.untyped_storage().nbytes() for tensor in [output, *saved.values()]]
