"""Architectures of one shape, trained together on all folds of a problem."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from sknas._history import DIVERGED, INTERRUPTED, OUT_OF_MEMORY, OUT_OF_TIME
from sknas._parallel.run import count_useful_workers
from sknas._problem import Problem
from sknas._scoring.folds import NetworkScores, score_networks
from sknas._training.batches import mixed_seed
from sknas._training.isolation import failure_reason, free_memory, isolated, set_seed
from sknas._training.loss import WeightedLoss
from sknas._training.optimizer import Optimizer, find_recipe
from sknas.nets import Dropout, initialize_weights
from sknas.nets._microbatch import micro_batches
from sknas.spaces import TableSpace
from sknas.trainers._batches import CHUNK, FoldBatches
from sknas.trainers._group import Batched, BestSnapshot, stopped
from sknas.trainers._memory_free import bytes_free, too_large
from sknas.trainers._memory_need import bytes_needed
from sknas.trainers._schedule import Schedule


def advance(
    unit: Batched, space: TableSpace, problem: Problem, schedule: Schedule, rung: int
) -> list[Batched]:
    """Train a unit up to a rung; whatever goes wrong becomes a reason.

    The unit itself stays what it was. Where memory is short, or runs out, half of the
    members are trained after the other half, as two units; one that is alone is trained
    again with each batch in two halves.
    """
    if problem.seconds_left <= 0:
        return [stopped(unit, OUT_OF_TIME)]
    needed, free = _memory(unit, space, problem)
    if needed > free and len(unit.members) > 1:
        return _in_two(unit, space, problem, schedule, rung)
    if needed > free:
        return [stopped(unit, too_large(needed, free))]
    started = time.monotonic()
    done = replace(unit, members=[replace(member) for member in unit.members])
    reason = ""
    try:
        with isolated(problem.seed, problem.device):
            _Training(done, space, problem, schedule).run(rung)
    except KeyboardInterrupt:
        return [stopped(done, INTERRUPTED)]
    except Exception as error:
        reason = failure_reason(error)
    # Outside of the handler: the error holds on to all that filled the memory.
    if reason == OUT_OF_MEMORY:
        free_memory(problem.device)
        if len(unit.members) > 1:
            return _in_two(unit, space, problem, schedule, rung)
        if not unit.is_halved:
            halved = [replace(member, is_halved=True) for member in unit.members]
            return advance(
                replace(unit, members=halved), space, problem, schedule, rung
            )
    if reason:
        return [stopped(unit, reason)]
    share = (time.monotonic() - started) / len(unit.members)
    for member in done.members:
        member.seconds += share
    return [done]


def _in_two(
    unit: Batched, space: TableSpace, problem: Problem, schedule: Schedule, rung: int
) -> list[Batched]:
    """Advance half of the members after the other half."""
    half = len(unit.members) // 2
    return [
        done
        for places in (range(half), range(half, len(unit.members)))
        for done in advance(unit.kept(places), space, problem, schedule, rung)
    ]


def _memory(unit: Batched, space: TableSpace, problem: Problem) -> tuple[float, float]:
    """Bytes that a unit needs, and those that are free for it.

    Several members leave room for other workers. One that is alone has all that there
    is, and no need where it was begun before.
    """
    n = len(unit.members)
    if n == 1 and (unit.step or unit.is_halved):
        return 0.0, math.inf
    needed = bytes_needed(space, unit.architectures[0], problem, n, is_batched=True)
    free = bytes_free(problem.device)
    return needed, free / count_useful_workers(
        problem, n_tasks=problem.n_jobs
    ) if n > 1 else free


class _Training:
    """A unit on the device, with all that its steps need."""

    def __init__(
        self, unit: Batched, space: TableSpace, problem: Problem, schedule: Schedule
    ) -> None:
        self.unit, self.problem, self.schedule = unit, problem, schedule
        self.device = problem.device
        self.n_parts = 1 + unit.is_halved  # of a batch
        first = unit.architectures[0]
        tasks = [fold.task for fold in problem.folds]
        layout = space.layout(first, tasks)
        self.features = [
            space.features(first, task, layout).to(self.device) for task in tasks
        ]
        n_folds = len(tasks)
        networks = [a for a in unit.architectures for _ in range(n_folds)]
        self.net = space.net(networks, layout, tasks[0]).to(self.device)
        self.batches = FoldBatches(problem, self.features, self.net, schedule)
        self._load(space, layout, networks)
        self.optimizer = Optimizer(self.net, networks)
        if unit.moments:
            self.optimizer.load_moments(unit.moments)
        smoothing = [float(a.get("label_smoothing", 0.0)) for a in networks]
        self.loss = WeightedLoss(tasks[0].kind, smoothing).to(self.device)
        self.dropouts = [m for m in self.net.modules() if isinstance(m, Dropout)]
        self.generator = torch.Generator(self.device)
        for dropout in self.dropouts:
            dropout.generator = self.generator

    def _load(self, space: TableSpace, layout: Any, networks: list[Any]) -> None:
        """Go on from the state of the unit, or draw first weights."""
        if not self.unit.state:
            n_folds, task = len(self.features), self.problem.folds[0].task
            states = []
            for k, architecture in enumerate(networks):
                # A network starts the same whatever is trained beside it.
                seed = self.unit.members[k // n_folds].proposal.seed
                set_seed(mixed_seed(seed, k % n_folds), self.device)
                net = space.net([architecture], layout, task).to(self.device)
                rows = self.batches.features_of(k % n_folds)
                initialize_weights(net, find_recipe(architecture).start, rows)
                states.append(net.state_dict())
            self.unit.state = {
                name: torch.cat([state[name] for state in states]) for name in states[0]
            }
        self.net.load_state_dict(self.unit.state)

    def run(self, rung: int) -> None:
        """Train up to a rung, looking at the networks on the way."""
        unit, schedule = self.unit, self.schedule
        self.net.train()
        is_cut = False
        while unit.step < schedule.rungs[rung] and not is_cut:
            self._step(unit.step)
            unit.step += 1
            if unit.step in schedule.snapshots:
                self._look(unit)
            is_cut = self.problem.seconds_left <= 0
        unit.is_cut = unit.step < schedule.rungs[rung]
        for member in unit.members:
            if unit.is_cut:
                member.reason = member.reason or OUT_OF_TIME
            elif member.best is not None and not member.reason:
                member.rung_scores += (member.best.score,)
                member.rung_losses += (member.best.loss,)
        # On the CPU: it may go on on another device, or be joined with others.
        state = self.net.state_dict()
        unit.state = {name: t.detach().cpu() for name, t in state.items()}
        unit.moments = [
            {name: t.cpu() for name, t in moments.items()}
            for moments in self.optimizer.moments()
        ]

    def _step(self, number: int) -> None:
        features, y, weight = self.batches.at(number)
        progress = (number + 0.5) / self.schedule.n_steps  # neither end is at rate 0
        self.optimizer.prepare(progress, self.schedule.cycles)
        # What is dropped depends on the step alone, not on steps before.
        self.generator.manual_seed(mixed_seed(self.problem.seed, number))
        for dropout in self.dropouts:
            dropout.strength = self.optimizer.fade
        self.net.precision = self.batches.precision
        self.optimizer.zero_grad()
        n_rows = weight.shape[1]
        for part in micro_batches(self.net, n_rows, self.n_parts):
            loss = self.loss(self.net(features[:, part]), y[:, part], weight[:, part])
            (loss * ((part.stop - part.start) / n_rows)).backward()
        self.optimizer.step()

    @torch.no_grad()
    def _look(self, unit: Batched) -> None:
        """Score all networks, and keep each member where it was best."""
        self.net.eval()
        self.net.precision = None
        outputs = self._answers()  # G times (A, N, C)
        scores = score_networks(self.problem, outputs)
        for place, member in enumerate(unit.members):
            if not scores.finite[place]:
                member.reason = DIVERGED
                continue
            value = scores.value(place)
            if np.isfinite(value) and value >= member.value:
                member.best = self._best(unit, place, scores, value)
        self.net.train()

    def _answers(self) -> list[np.ndarray]:
        """Answers (A, N, C) of the networks of each fold to its validation rows."""
        lengths = [len(fold.valid) for fold in self.problem.folds]
        parts = []
        size = CHUNK // self.n_parts
        for start in range(0, max(lengths), size):
            rows = self.batches.valid_features(start, start + size)  # (G, N, D)
            parts.append(self.net(rows).float().cpu())
        answers = torch.cat(parts, dim=1).numpy()  # (K, N, C)
        n_folds = len(lengths)
        return [answers[g::n_folds, :length] for g, length in enumerate(lengths)]

    def _best(
        self, unit: Batched, place: int, scores: NetworkScores, value: float
    ) -> BestSnapshot:
        n_folds = len(self.features)
        networks = range(place * n_folds, (place + 1) * n_folds)
        state = self.net.state_dict()
        n_params = sum(p.numel() for p in self.net.parameters())
        return BestSnapshot(
            value=value,
            share=unit.step / self.schedule.n_steps,
            step=unit.step,
            score=float(scores.mean[place]),
            loss=float(scores.loss[place]),
            fold_scores=tuple(scores.scores[place].tolist()),
            predictions=scores.predictions(place),
            networks=tuple(
                {name: t[k : k + 1].cpu().clone() for name, t in state.items()}
                for k in networks
            ),
            n_params=n_params // (len(unit.members) * n_folds),
        )
