"""Trains many networks for tables at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sknas._history import Proposal, Trial
from sknas._problem import Problem
from sknas._training.isolation import isolated
from sknas._training.optimizer import find_recipe
from sknas._validation import reject
from sknas.nets import TableModule
from sknas.spaces import Space, TableSpace
from sknas.trainers._group import Batched, BestSnapshot, TrialState
from sknas.trainers._loop import advance
from sknas.trainers._schedule import Schedule
from sknas.trainers._skorch_net import TensorNet, to_inference_net
from sknas.trainers._successive_halving import CohortTrainer, Schedules

# What is trained at once, at most: more of it is no faster, and harder to share out.
UNIT_NETWORKS = 40
UNIT_CELLS = 5 * 2**16  # networks x rows of a batch x units of a layer
FASTER = {"cpu": 1, "cuda": 64}  # how many times these on a device
FLOPS = 2.5e10  # a second, of a slow core, to tell long work from short


class PopulationTrainer(CohortTrainer):
    """Trains the networks of all proposals and folds side by side.

    Architectures that differ in training choices alone are one batched network; each
    member is trained as it would be alone. At points of the schedule where all
    learning rates are zero the weaker trials are dropped, the others go on; a trial
    that was dropped keeps its score and the rung it reached. The number of epochs is
    chosen jointly over the folds, by the score on their validation rows.

    On a CPU the units of work are spread over worker processes of one thread.

    Parameters
    ----------
    halving : bool, default=True
        Whether weaker trials are dropped on the way.

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
    records = (Batched, BestSnapshot, TrialState)

    def setup(self, space: Space) -> None:
        if not can_be_batched(space):
            allowed = (
                "a TableSpace that builds its own networks for trainer='population', "
                "or take trainer='skorch'"
            )
            reject("PopulationTrainer", "search_space", space, allowed)
        super().setup(space)

    @property
    def _advance(self) -> Callable[..., list[Any]]:
        return advance

    def _key(self, proposal: Proposal, schedule: Schedule) -> tuple[Any, ...]:
        """What members of a unit share."""
        architecture = proposal.architecture
        recipe = find_recipe(architecture)
        return (
            self.space_.shape(architecture),
            architecture["optimizer"],
            (recipe.is_annealed, recipe.beta2, recipe.is_clipped),
            schedule,
        )

    def _units(
        self, proposals: Sequence[Proposal], problem: Problem, schedules: Schedules
    ) -> list[Any]:
        """Proposals that can be trained as one network, in units of a bounded size."""
        groups: dict[tuple[Any, ...], list[TrialState]] = {}
        for proposal in proposals:
            key = self._key(proposal, schedules[proposal.number])
            groups.setdefault(key, []).append(TrialState(proposal))
        units = []
        for members in groups.values():
            # Neighbours with the same units and dropout are computed together.
            members.sort(key=lambda m: _order(m.proposal))
            size = self._unit_size(members[0].proposal, problem)
            n_units = -(-len(members) // size)
            parts = np.array_split(np.arange(len(members)), n_units)
            units += [Batched([members[j] for j in part]) for part in parts]
        return units

    def _unit_size(self, proposal: Proposal, problem: Problem) -> int:
        """Members of a unit; a function of the table and the shape."""
        architecture = proposal.architecture
        n_networks = architecture["packing"] * len(problem.folds)
        cells = n_networks * architecture["batch_size"] * architecture.get("width", 1)
        size = min(UNIT_NETWORKS / n_networks, UNIT_CELLS / cells)
        return max(1, int(size * FASTER[problem.device.partition(":")[0]]))

    def _seconds(
        self, unit: Any, schedule: Schedule, n_steps: int, problem: Problem
    ) -> float:
        architecture = unit.members[0].proposal.architecture
        assert problem.task is not None
        try:
            n_params = self.space_.n_params(architecture, problem.task)
        except Exception:  # of a space the user wrote: it fails again where it trains
            n_params = 0
        n_networks = len(unit.members) * len(problem.folds)
        rows = architecture["batch_size"] * architecture["packing"]
        return n_steps * (1.5e-3 + 6 * rows * n_params * n_networks / FLOPS)

    def _regrouped(
        self, units: list[Any], problem: Problem, schedules: Schedules
    ) -> list[Any]:
        """Small units of the same kind as one."""
        kinds: dict[tuple[Any, ...], Batched] = {}
        full = []
        for unit in units:
            first = unit.members[0].proposal
            key = (
                *self._key(first, schedules[first.number]),
                unit.step,
                unit.is_halved,
            )
            if key in kinds:
                other = kinds.pop(key)
                most = self._unit_size(first, problem)
                if len(other.members) + len(unit.members) <= most:
                    unit = other.joined(unit)
                else:
                    full.append(other)
            kinds[key] = unit
        return full + list(kinds.values())

    def rebuilt(self, trial: Trial, problem: Problem) -> tuple[TensorNet, ...]:
        assert trial.networks is not None
        space, architecture = self.space_, trial.architecture
        tasks = [fold.task for fold in problem.folds]
        layout = space.layout(architecture, tasks)
        nets = []
        with isolated(0, "cpu"):
            for task, state in zip(tasks, trial.networks, strict=True):
                net = space.net([architecture], layout, task)
                net.load_state_dict(state)
                module = TableModule(space.features(architecture, task, layout), net)
                nets.append(to_inference_net(module, architecture, task))
        return tuple(nets)


def can_be_batched(space: Space) -> bool:
    """Whether networks of a space can be trained side by side."""
    return isinstance(space, TableSpace) and type(space).build is TableSpace.build


def _order(proposal: Proposal) -> tuple[Any, ...]:
    architecture = proposal.architecture
    units = architecture.get("activation", ""), architecture.get("dropout", 0.0)
    return (*units, proposal.number)
