"""Trains many networks for tables at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sknas._budget import GROUP_SECONDS
from sknas._history import Architecture, Proposal, Trial
from sknas._problem import Problem, RunContext, TaskSpec
from sknas._training.optimizer import find_recipe
from sknas._validation import reject
from sknas.nets import TableModule
from sknas.spaces import Space
from sknas.trainers._advance import advance_all
from sknas.trainers._base import Trainer
from sknas.trainers._group import RECORDS, NetworkGroup, TrialState
from sknas.trainers._inference_net import to_inference_net
from sknas.trainers._loop import train_stacked
from sknas.trainers._schedule import Schedule
from sknas.trainers._successive_halving import successive_halving

if TYPE_CHECKING:
    from sknas.trainers._skorch_net import TensorNet
else:  # for typing.get_type_hints, without skorch
    TensorNet = Any

# Larger groups are no faster, and harder to spread over workers.
MAX_NETWORKS = 40  # networks of a group
MAX_CELLS = 5 * 2**16  # networks x rows of a batch x hidden width
DEVICE_FACTOR = {"cpu": 1, "cuda": 64}  # on both
FLOPS = 2.5e10  # operations per second of a slow core


class PopulationTrainer(Trainer):
    """Trains the networks of all proposals and folds side by side.

    Architectures that differ only in training choices are one batched network, in which
    each is trained as it would be alone. At the rungs, where the learning rate is zero,
    the weaker trials are dropped, and keep their score and the rung they reached; the
    others go on. The number of epochs is chosen jointly over the folds, by the score on
    their validation rows.

    On a CPU the batched networks are spread over worker processes of one thread.

    Parameters
    ----------
    halving : bool, default=True
        True to drop weaker trials at the rungs.

    References
    ----------
    Wang, Yang, Zheng, Li, Pekhimenko: Horizontally Fused Training Array: An Effective
    Hardware Utilization Squeezer for Training Novel Deep Learning Models.
    arXiv:2102.02344.
    Jamieson, Talwalkar: Non-stochastic Best Arm Identification and Hyperparameter
    Optimization. arXiv:1502.07943.

    Examples
    --------
    >>> from sknas import NASClassifier
    >>> from sknas.trainers import PopulationTrainer
    >>> search = NASClassifier(trainer=PopulationTrainer())
    """

    n_proposals = 16
    is_batched = True
    keeps_networks = True
    records = RECORDS

    def __init__(self, halving: bool = True) -> None:
        self.halving = halving

    def setup(self, space: Space, problem: Problem, context: RunContext) -> None:
        if not space.can_build_batches:
            allowed = (
                "a space that builds batches of networks for trainer='population', "
                "or take trainer='skorch'"
            )
            reject("PopulationTrainer", "search_space", space, allowed)
        self.space_ = space
        self.problem_ = problem
        self.context_ = context

    def train(self, proposals: Sequence[Proposal]) -> list[Trial]:
        advance = partial(
            advance_all,
            train=train_stacked,
            estimate=self._estimate_seconds,
            space=self.space_,
            problem=self.problem_,
            context=self.context_,
        )
        trials = successive_halving(
            self._make_groups(proposals),
            advance,
            len(self.problem_.folds),
            self.context_,
            halving=self.halving,
            regroup=self._regroup,
        )
        return [trials[proposal.number] for proposal in proposals]

    def _make_groups(self, proposals: Sequence[Proposal]) -> list[NetworkGroup]:
        """Group proposals that can be one batched network, up to a maximal size."""
        states: dict[tuple[Any, ...], list[TrialState]] = {}
        for proposal in proposals:
            schedule = Schedule.of(proposal.architecture, self.problem_)
            state = TrialState(proposal, schedule)
            states.setdefault(self._key(state), []).append(state)
        groups = []
        for alike in states.values():
            alike.sort(key=lambda state: self._order(state.proposal))
            n_groups = -(-len(alike) // self._max_trials(alike[0].proposal))
            parts = np.array_split(np.arange(len(alike)), n_groups)
            groups += [NetworkGroup([alike[j] for j in part]) for part in parts]
        return groups

    def _key(self, state: TrialState) -> tuple[Any, ...]:
        """Return what the trials of a group have in common."""
        architecture = state.proposal.architecture
        recipe = find_recipe(architecture)
        return (
            self.space_.batch_key(architecture),
            architecture.get("optimizer", "adamw"),
            (recipe.is_scheduled, recipe.beta2, recipe.is_clipped),
            state.schedule,
        )

    def _order(self, proposal: Proposal) -> tuple[Any, ...]:
        return *self.space_.batch_order(proposal.architecture), proposal.number

    def _max_trials(self, proposal: Proposal) -> int:
        """Return the maximal size of a group: a function of the table and the shape."""
        architecture = proposal.architecture
        n_copies, width = self.space_.batch_load(architecture)
        n_networks = n_copies * len(self.problem_.folds)
        cells = n_networks * architecture.get("batch_size", 256) * width
        size = min(MAX_NETWORKS / n_networks, MAX_CELLS / cells)
        return max(1, int(size * DEVICE_FACTOR[self.context_.device.partition(":")[0]]))

    def _estimate_seconds(self, group: NetworkGroup, n_steps: int) -> float:
        """Estimate the seconds of some steps of a group, in one process."""
        architecture = group.architectures[0]
        assert self.problem_.task is not None
        try:
            n_params = self.space_.n_params(architecture, self.problem_.task)
        except Exception:  # of a user's space: it fails again when it is trained
            n_params = 0
        n_networks = len(group.trials) * len(self.problem_.folds)
        n_copies, _ = self.space_.batch_load(architecture)
        rows = n_copies * architecture.get("batch_size", 256)
        return n_steps * (GROUP_SECONDS + 6 * rows * n_params * n_networks / FLOPS)

    def _regroup(self, groups: list[NetworkGroup]) -> list[NetworkGroup]:
        """Join small groups that can be one batched network."""
        joined: dict[tuple[Any, ...], NetworkGroup] = {}
        full = []
        for group in groups:
            key = (*self._key(group.trials[0]), group.step, group.n_micro_batches)
            if key in joined:
                other = joined.pop(key)
                max_trials = self._max_trials(group.trials[0].proposal)
                if len(other.trials) + len(group.trials) <= max_trials:
                    group = other.join(group)
                else:
                    full.append(other)
            joined[key] = group
        return full + list(joined.values())

    def to_networks(self, trial: Trial) -> tuple[TensorNet, ...]:
        assert trial.networks is not None
        architecture = trial.architecture
        tasks = [fold.task for fold in self.problem_.folds]
        layout = self.space_.layout(architecture, tasks)
        nets = []
        for task, state in zip(tasks, trial.networks, strict=True):
            net = to_inference_net(
                self.space_, architecture, task, build_alone, layout=layout
            )
            net.module_.net.load_state_dict(state)
            nets.append(net)
        return tuple(nets)


def build_alone(
    space: Space, architecture: Architecture, task: TaskSpec, layout: Any
) -> TableModule:
    """Build one network of a batch, with the features that it reads."""
    net = space.build_batch([architecture], task, layout)
    return TableModule(space.features(architecture, task, layout), net)
