"""Trains many networks for tables at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sknas._checks import reject
from sknas._history import AGAIN, INTERRUPTED, OUT_OF_TIME, Proposal, Trial
from sknas._isolation import isolated
from sknas._optim import find_recipe
from sknas._problem import Problem
from sknas.nets import TableModule
from sknas.spaces import Space, TableSpace
from sknas.trainers._base import Trainer
from sknas.trainers._halving import is_halving, survivors
from sknas.trainers._network import TensorNet, failure_reason, handed_out
from sknas.trainers._plan import Plan
from sknas.trainers._unit import Member, Unit, advance, stopped
from sknas.trainers._workers import count_useful, run_tasks

# What is trained at once, at most: more of it is no faster, and harder to share out.
UNIT_NETWORKS = 40
UNIT_CELLS = 5 * 2**16  # networks x rows of a batch x units of a layer
FASTER = {"cpu": 1, "cuda": 64}  # how many times these on a device
EVEN_SHARE = 0.85  # of the time of all workers that they are busy
LAST = 99  # a rung that stands for the end of all schedules
FLOPS = 2.5e10  # a second, of a slow core, to tell long work from short


class PopulationTrainer(Trainer):
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

    n_side = 16

    def __init__(self, halving: bool = True) -> None:
        self.halving = halving

    def setup(self, space: Space) -> None:
        if not can_be_batched(space):
            allowed = (
                "a TableSpace that builds its own networks for trainer='population', "
                "or take trainer='skorch'"
            )
            reject("PopulationTrainer", "search_space", space, allowed)
        self.space_: Any = space

    def train(self, proposals: Sequence[Proposal], problem: Problem) -> list[Trial]:
        if not proposals:
            return []
        plans = {p.number: Plan.of(p.architecture, problem) for p in proposals}
        units = self._units(proposals, problem, plans)
        n_rungs = max(len(plan.rungs) for plan in plans.values())
        done: dict[int, Member] = {}
        n_halvings = 0
        for rung in range(n_rungs):
            units = self._advance(units, problem, plans, rung)
            is_over = rung == n_rungs - 1 or _must_stop(units, problem)
            units, dropped = _without_failures(units)
            if is_over:
                dropped += [member for unit in units for member in unit.members]
                units = []
            elif self.halving and is_halving(_share(rung, plans)):
                units, weaker = _halved(units, n_halvings, problem, plans)
                dropped += weaker
                n_halvings += 1
            for member in dropped:
                done[member.proposal.number] = member
                problem.report(self._trial(member, plans, problem))
            if not units:
                break
            units = self._regrouped(units, problem, plans)
        return [self._trial(done[p.number], plans, problem) for p in proposals]

    def _key(self, proposal: Proposal, plan: Plan) -> tuple[Any, ...]:
        """What members of a unit share."""
        architecture = proposal.architecture
        recipe = find_recipe(architecture)
        return (
            self.space_.shape(architecture),
            architecture["optimizer"],
            (recipe.is_annealed, recipe.beta2, recipe.is_clipped),
            plan,
        )

    def _units(
        self, proposals: Iterable[Proposal], problem: Problem, plans: dict[int, Plan]
    ) -> list[Unit]:
        """Proposals that can be trained as one network, in units of a bounded size."""
        groups: dict[tuple[Any, ...], list[Member]] = {}
        for proposal in proposals:
            key = self._key(proposal, plans[proposal.number])
            groups.setdefault(key, []).append(Member(proposal))
        units = []
        for members in groups.values():
            # Neighbours with the same units and dropout are computed together.
            members.sort(key=lambda m: _order(m.proposal))
            size = self._unit_size(members[0].proposal, problem)
            n_units = -(-len(members) // size)
            parts = np.array_split(np.arange(len(members)), n_units)
            units += [Unit([members[j] for j in part]) for part in parts]
        return units

    def _unit_size(self, proposal: Proposal, problem: Problem) -> int:
        """Members of a unit; a function of the table and the shape."""
        architecture = proposal.architecture
        n_networks = architecture["packing"] * len(problem.folds)
        cells = n_networks * architecture["batch_size"] * architecture.get("width", 1)
        size = min(UNIT_NETWORKS / n_networks, UNIT_CELLS / cells)
        return max(1, int(size * FASTER[problem.device.partition(":")[0]]))

    def _advance(
        self,
        units: list[Unit],
        problem: Problem,
        plans: dict[int, Plan],
        rung: int,
    ) -> list[Unit]:
        """All units a rung further, the longest work first.

        Where the time is bounded the default network goes before all others, so that
        there is an answer as early as can be.
        """
        bare = problem.bare()

        def plan(unit: Unit) -> Plan:
            return plans[unit.members[0].proposal.number]

        work = {id(u): self._seconds(u, plan(u), rung, problem) for u in units}
        # Workers that start now serve the later rungs, too.
        to_the_end = sum(self._seconds(u, plan(u), LAST, problem) for u in units)

        def order(unit: Unit) -> tuple[bool, float]:
            has_default = any(m.proposal.origin == "default" for m in unit.members)
            return not (has_default and problem.deadline), -work[id(unit)]

        by_work = sorted(units, key=order)
        tasks = [
            (unit, self.space_, bare, plan(unit), min(rung, len(plan(unit).rungs) - 1))
            for unit in by_work
        ]
        done: list[Unit] = []
        n_ready, reason = 0, INTERRUPTED
        try:
            for parts in run_tasks(advance, tasks, problem, to_the_end):
                done += parts
                n_ready += 1
                if any(m.reason == INTERRUPTED for part in parts for m in part.members):
                    break
        except KeyboardInterrupt:
            pass
        except Exception as error:  # of a worker that died, or could not be told
            reason = failure_reason(error)
        return done + [stopped(unit, reason) for unit in by_work[n_ready:]]

    def _seconds(self, unit: Unit, plan: Plan, rung: int, problem: Problem) -> float:
        """About how long a unit takes up to a rung."""
        architecture = unit.members[0].proposal.architecture
        assert problem.task is not None
        try:
            n_params = self.space_.n_params(architecture, problem.task)
        except Exception:  # of a space the user wrote: it fails again where it trains
            n_params = 0
        n_networks = len(unit.members) * len(problem.folds)
        n_steps = plan.rungs[min(rung, len(plan.rungs) - 1)] - unit.step
        rows = architecture["batch_size"] * architecture["packing"]
        return n_steps * (1.5e-3 + 6 * rows * n_params * n_networks / FLOPS)

    def _regrouped(
        self, units: list[Unit], problem: Problem, plans: dict[int, Plan]
    ) -> list[Unit]:
        """Small units of the same kind as one."""
        kinds: dict[tuple[Any, ...], Unit] = {}
        full = []
        for unit in units:
            first = unit.members[0].proposal
            key = (*self._key(first, plans[first.number]), unit.step)
            if key in kinds:
                other = kinds.pop(key)
                most = self._unit_size(first, problem)
                if len(other.members) + len(unit.members) <= most:
                    unit = other.joined(unit)
                else:
                    full.append(other)
            kinds[key] = unit
        return full + list(kinds.values())

    def _trial(self, member: Member, plans: dict[int, Plan], problem: Problem) -> Trial:
        """What came of a member."""
        plan = plans[member.proposal.number]
        n_folds = len(problem.folds)
        told: dict[str, Any] = {
            "fold_seconds": (member.seconds / n_folds,) * n_folds,
            "seconds": member.seconds,
        }
        best = member.best
        if best is None or not member.rung_scores:
            is_stopped = member.reason in (OUT_OF_TIME, INTERRUPTED)
            status = "stopped" if is_stopped else "failed"
            reason = member.reason or _why_unscored(problem)
            return Trial(member.proposal, status=status, reason=reason, **told)
        rung, task = len(member.rung_scores) - 1, problem.folds[0].task
        return Trial(
            replace(member.proposal, rung=rung),
            score=best.score,
            loss=best.loss,
            fold_scores=best.fold_scores,
            stop=best.share,
            n_epochs=-(-best.step // plan.n_batches),
            n_params=self.space_.n_params(member.proposal.architecture, task),
            rung_scores=member.rung_scores,
            predictions=best.predictions,
            networks=best.networks,
            **told,
        )


def can_be_batched(space: Space) -> bool:
    """Whether networks of a space can be trained side by side."""
    return isinstance(space, TableSpace) and type(space).build is TableSpace.build


def _order(proposal: Proposal) -> tuple[Any, ...]:
    architecture = proposal.architecture
    units = architecture.get("activation", ""), architecture.get("dropout", 0.0)
    return (*units, proposal.number)


def _share(rung: int, plans: dict[int, Plan]) -> float:
    """Share of the schedule at a rung; about the same for all plans."""
    shares = [p.rungs[min(rung, len(p.rungs) - 1)] / p.n_steps for p in plans.values()]
    return min(shares)


def _why_unscored(problem: Problem) -> str:
    why = getattr(problem.score, "reason", "") or "the scorer returned NaN"
    return f"no score: {why.rstrip('.')}"


def _must_stop(units: list[Unit], problem: Problem) -> bool:
    """Whether units were cut by the clock or the user, not by a fault of their own."""
    reasons = {member.reason for unit in units for member in unit.members}
    return problem.seconds_left <= 0 or bool(reasons & {OUT_OF_TIME, INTERRUPTED})


def _halved(
    units: list[Unit], n_halvings: int, problem: Problem, plans: dict[int, Plan]
) -> tuple[list[Unit], list[Member]]:
    """Units with the better members, and the members that were dropped."""
    members = [member for unit in units for member in unit.members]
    # The default network is always in the comparison, and a second score is no race.
    is_kept = [member.proposal.origin in ("default", AGAIN) for member in members]
    needed = [
        member.seconds * (plans[member.proposal.number].n_steps / unit.step - 1)
        for unit in units
        for member in unit.members
    ]
    there_is = EVEN_SHARE * problem.seconds_left * count_useful(problem, len(members))
    values = [member.value for member in members]
    spent = sum(member.seconds for member in members)
    kept = set(survivors(values, is_kept, n_halvings, needed, there_is, spent))
    left, at = [], 0
    for unit in units:
        places = [j for j in range(len(unit.members)) if at + j in kept]
        at += len(unit.members)
        if places:
            left.append(unit.kept(places))
    return left, [member for j, member in enumerate(members) if j not in kept]


def _without_failures(units: list[Unit]) -> tuple[list[Unit], list[Member]]:
    """Units of what can go on, and the members that diverged."""
    left, failed = [], []
    for unit in units:
        sound = [j for j, member in enumerate(unit.members) if not member.reason]
        failed += [member for member in unit.members if member.reason]
        if sound:
            left.append(unit.kept(sound) if len(sound) < len(unit.members) else unit)
    return left, failed


def rebuilt(trial: Trial, space: Space, problem: Problem) -> tuple[TensorNet, ...]:
    """The network of each fold of a trial, ready to predict."""
    assert isinstance(space, TableSpace) and trial.networks is not None
    architecture = trial.architecture
    tasks = [fold.task for fold in problem.folds]
    layout = space.layout(architecture, tasks)
    nets = []
    with isolated(0, "cpu"):
        for task, state in zip(tasks, trial.networks, strict=True):
            net = space.net([architecture], layout, task)
            net.load_state_dict(state)
            module = TableModule(space.features(architecture, task, layout), net)
            nets.append(handed_out(module, architecture, task))
    return tuple(nets)
