"""How much memory a training needs, and how much is free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from sknas._history import Architecture
from sknas._problem import Problem
from sknas._training.isolation import isolated
from sknas.spaces import Space
from sknas.trainers._batches import CHUNK, MAX_STORED, N_STARTING
from sknas.trainers._schedule import Schedule
from sknas.trainers._skorch_net import rows_at_once

FLOAT = 4  # bytes
# Of the weights of a network: its own, those of its gradient, step and two moments, its
# best ones, and state and moments that it goes on from.
N_COPIES = 9
BACKWARD = 1.2  # of what is kept for the gradient, with what the allocator wastes
LAYER = 3  # tensors of a layer that are there at once, beside those kept
BASE = 2**25  # what any training takes
ROW = 48  # of a row: its target, weight, and places in the orders of two epochs
ANSWER = 40  # of each number of an answer: as it came, as a probability, their sum
MAX_BUILT = 2**24  # weights of the largest network that is built to be measured


def bytes_needed(
    space: Space,
    architecture: Architecture,
    problem: Problem,
    n_members: int = 1,
    *,
    is_batched: bool = False,
) -> float:
    """About how many bytes a training takes at its peak, beside the problem itself.

    Parameters
    ----------
    space : Space
        Builds the networks. Of one that the user wrote only the weights are counted.
    architecture : Architecture
        What is trained on each fold.
    problem : Problem
        Its folds.
    n_members : int, default=1
        Architectures of the same shape that are trained side by side.
    is_batched : bool, default=False
        Whether the networks of all folds are trained side by side, too.
    """
    try:
        return _bytes_needed(space, architecture, problem, n_members, is_batched)
    except Exception:  # of a space the user wrote: it fails again where it trains
        return 0.0


def _bytes_needed(
    space: Space,
    architecture: Architecture,
    problem: Problem,
    n_members: int,
    is_batched: bool,
) -> float:
    n_networks = n_members * len(problem.folds)
    at_once = n_networks if is_batched else 1
    tasks = [fold.task for fold in problem.folds]
    n_params = max(space.n_params(architecture, task) for task in tasks)
    cost = _cost(space, architecture, problem, n_params, is_batched)
    n_trained, n_answered = _rows_at_once(architecture, problem, is_batched)
    trained = (BACKWARD * cost.kept + LAYER * cost.largest) * n_trained + cost.fixed
    answered = LAYER * cost.largest * n_answered
    weights = N_COPIES * FLOAT * n_params * n_networks
    answers = ANSWER * problem.n_rows * tasks[0].n_outputs * n_members
    rows = _bytes_of_rows(space, architecture, problem, is_batched)
    return BASE + weights + answers + rows + at_once * max(trained, answered)


def _rows_at_once(
    architecture: Architecture, problem: Problem, is_batched: bool
) -> tuple[int, int]:
    """Rows of a fold that are in a batch, and that are answered at once."""
    folds = problem.folds
    n_rows = max(len(fold.train) for fold in folds)
    n_trained = -(-n_rows // Schedule.of(architecture, problem).n_parts)
    shape = folds[0].task.row_shape
    if is_batched:
        most = CHUNK
    else:  # before a table is answered, first weights are fitted to some rows
        most = N_STARTING if len(shape) == 1 else rows_at_once(shape)
    return n_trained, min(most, max(n_rows, *(len(fold.valid) for fold in folds)))


def _bytes_of_rows(
    space: Space, architecture: Architecture, problem: Problem, is_batched: bool
) -> float:
    """Bytes of the rows as a trainer holds them: of one fold, or of all at once."""
    folds = problem.folds
    if not is_batched:
        return max(
            fold.train.x.nbytes + fold.valid.x.nbytes + ROW * len(fold.train)
            for fold in folds
        )
    n_rows = sum(len(fold.train) for fold in folds)
    n_features = _n_features(space, architecture, problem)
    is_stored = n_rows * n_features <= MAX_STORED
    held = FLOAT * n_rows * (n_features if is_stored else folds[0].task.n_columns)
    n_made = min(CHUNK, max(len(fold.valid) for fold in folds))
    return held + ROW * n_rows + LAYER * FLOAT * n_features * n_made * len(folds)


def _n_features(space: Any, architecture: Architecture, problem: Problem) -> int:
    """Features of a row of a table."""
    layout = space.layout(architecture, [fold.task for fold in problem.folds])
    return layout.n_fixed + len(layout.many)


@dataclass(frozen=True)
class _Cost:
    """Bytes that one network in training takes, beside its weights.

    Parameters
    ----------
    kept : float, default=0.0
        Of a row, kept for the gradient.
    largest : float, default=0.0
        The largest tensor among them.
    fixed : float, default=0.0
        Kept for the gradient, however many rows there are.
    """

    kept: float = 0.0
    largest: float = 0.0
    fixed: float = 0.0


def _cost(
    space: Any,
    architecture: Architecture,
    problem: Problem,
    n_params: int,
    is_batched: bool,
) -> _Cost:
    """What a network takes, measured on two rows and on three."""
    # A class that the user wrote may do anything when it builds a network.
    is_own = type(space).__module__.startswith("sknas.")
    if not is_own or n_params > MAX_BUILT:
        return _Cost()
    task = problem.folds[0].task
    with isolated(0, "cpu"):
        if is_batched:  # all members read the same features
            layout = space.layout(architecture, [task])
            net = space.net([architecture], layout, task)
            shape: Any = (layout.n_fixed + len(layout.many),)
        else:
            net, shape = space.build([architecture], task), task.row_shape
        two, three = (_kept(net, torch.zeros(n, *shape)) for n in (2, 3))
    of_a_row = [after - before for before, after in zip(two, three, strict=True)]
    kept = sum(of_a_row)
    return _Cost(kept, max(of_a_row), sum(two) - 2 * kept)


def _kept(net: nn.Module, x: Tensor) -> list[int]:
    """Bytes of each tensor that a network keeps for its gradient, beside x."""
    tensors = [x, *net.parameters()]
    own = {tensor.untyped_storage().data_ptr() for tensor in tensors}
    kept: dict[int, Tensor] = {}  # held, so that no two have the same address

    def keep(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in own:
            kept[place] = tensor
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        answer = net(x)
    return [tensor.untyped_storage().nbytes() for tensor in [answer, *kept.values()]]
