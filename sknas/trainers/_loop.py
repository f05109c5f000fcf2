"""The training loop of K networks of one shape, stacked into one."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sknas._history import Architecture, Cause, Fault
from sknas._problem import Problem, RunContext
from sknas._scoring.folds import score_networks
from sknas._training.loss import WeightedLoss
from sknas._training.optimizer import Optimizer, find_recipe
from sknas._training.seeds import mixed_seed, set_seed
from sknas.nets import Dropout, HalfPrecisionModule, InitializedModule
from sknas.nets._microbatch import micro_batches
from sknas.spaces import Space
from sknas.trainers._batches import CHUNK, FoldBatches
from sknas.trainers._group import NetworkGroup, NetworkState, State


def train_stacked(
    group: NetworkGroup, rung: int, space: Space, problem: Problem, context: RunContext
) -> None:
    """Train a group in place, the networks of all trials and folds as one stack."""
    TrainingLoop(group, space, problem, context).run(rung)


class TrainingLoop:
    """A stack of networks on a device, with all that its steps need.

    Network k is that of trial k // n_folds on fold k % n_folds.

    Parameters
    ----------
    group : NetworkGroup
        Trials of one shape; changed in place.
    space : Space
        Builds batches of networks.
    problem : Problem
        The folds and the score.
    context : RunContext
        The device and the deadline.
    """

    def __init__(
        self, group: NetworkGroup, space: Space, problem: Problem, context: RunContext
    ) -> None:
        self.group, self.problem, self.context = group, problem, context
        self.schedule, self.device = group.schedule, context.device
        first = group.architectures[0]
        tasks = [fold.task for fold in problem.folds]
        layout = space.layout(first, tasks)
        self.features = [
            space.features(first, task, layout).to(self.device) for task in tasks
        ]
        self.n_folds = len(tasks)
        networks = [a for a in group.architectures for _ in range(self.n_folds)]
        self.net = space.build_batch(networks, tasks[0], layout).to(self.device)
        self.batches = FoldBatches(
            problem, self.device, self.features, self.net, self.schedule
        )
        self._load(space, layout, networks)
        self.optimizer = Optimizer(self.net, networks)
        for state in group.networks:
            self.optimizer.load_state_dict(state.optimizer)
        smoothing = [float(a.get("label_smoothing", 0.0)) for a in networks]
        self.loss = WeightedLoss(tasks[0].kind, smoothing).to(self.device)
        self.dropouts = [m for m in self.net.modules() if isinstance(m, Dropout)]
        self.generator = torch.Generator(self.device)
        for dropout in self.dropouts:
            dropout.set_generator(self.generator)

    def _load(self, space: Space, layout: Any, networks: list[Architecture]) -> None:
        """Load the parameters of the group, or initialise them."""
        if self.group.networks:
            self.net.load_state_dict(self.group.networks[0].parameters)
            return
        task = self.problem.folds[0].task
        states = []
        for k, architecture in enumerate(networks):
            # A network is initialised the same whatever is trained next to it.
            seed = self.group.trials[k // self.n_folds].proposal.seed
            set_seed(mixed_seed(seed, k % self.n_folds), self.device)
            net = space.build_batch([architecture], task, layout)
            net.to(self.device)
            if isinstance(net, InitializedModule):
                rows = self.batches.features_of(k % self.n_folds)
                net.initialize(find_recipe(architecture).init, rows)
            states.append(net.state_dict())
        self.net.load_state_dict(
            {name: torch.cat([state[name] for state in states]) for name in states[0]}
        )

    def run(self, rung: int) -> None:
        """Train up to a rung or the deadline, and take the snapshots that are due."""
        group = self.group
        self.net.train()
        while group.step < self.schedule.rungs[rung]:
            self._step(group.step)
            group.step += 1
            if group.step in self.schedule.snapshots:
                self._take_snapshot()
            if self.context.seconds_left <= 0:
                break
        # On the CPU: the group may go on on another device, or be joined with others.
        parameters = self.net.state_dict()
        group.networks = (
            NetworkState(
                group.step,
                {name: t.detach().cpu() for name, t in parameters.items()},
                [
                    {name: t.cpu() for name, t in state.items()}
                    for state in self.optimizer.state_dict()
                ],
            ),
        )

    def _step(self, number: int) -> None:
        features, y, weight = self.batches.at(number)  # (G, B, D), (G, B, ...), (G, B)
        # Evaluate the schedule mid-step, so neither end has a zero learning rate.
        progress = (number + 0.5) / self.schedule.n_steps
        self.optimizer.prepare(progress, self.schedule.cycles)
        # Dropout depends on the number of the step, not on the steps before it.
        self.generator.manual_seed(mixed_seed(self.problem.seed, number))
        for dropout in self.dropouts:
            dropout.set_strength(self.optimizer.regularisation_multiplier)
        self._set_precision(self.batches.precision)
        self.optimizer.zero_grad()
        n_rows = weight.shape[1]
        for part in micro_batches(self.net, n_rows, self.group.n_micro_batches):
            loss = self.loss(self.net(features[:, part]), y[:, part], weight[:, part])
            (loss * ((part.stop - part.start) / n_rows)).backward()
        self.optimizer.step()

    def _set_precision(self, precision: torch.dtype | None) -> None:
        if isinstance(self.net, HalfPrecisionModule):
            self.net.set_precision(precision)

    @torch.no_grad()
    def _take_snapshot(self) -> None:
        """Score all networks, and keep those of each trial that are its best so far."""
        started = time.monotonic()
        self.net.eval()
        self._set_precision(None)
        scores = score_networks(self.problem, self._evaluate(), self.context.deadline)
        share = self.group.step / self.schedule.n_steps
        n_networks = len(self.group.trials) * self.n_folds
        n_params = sum(p.numel() for p in self.net.parameters()) // n_networks
        for index, trial in enumerate(self.group.trials):
            if not scores.finite[index]:
                trial.fault = Fault(Cause.DIVERGED)
                continue
            trial.update_best(
                scores, index, share, n_params, partial(self._networks, index)
            )
        self.net.train()
        seconds = (time.monotonic() - started) / len(self.group.trials)
        for trial in self.group.trials:
            trial.score_seconds += seconds

    def _evaluate(self) -> list[np.ndarray]:
        """Return the outputs (A, N_i, C) of the networks of each fold, A trials."""
        lengths = [len(fold.valid) for fold in self.problem.folds]
        parts = []
        size = CHUNK // self.group.n_micro_batches
        for start in range(0, max(lengths), size):
            rows = self.batches.valid_features(start, start + size)  # (G, N, D)
            parts.append(self.net(rows).float().cpu())
        outputs = torch.cat(parts, dim=1).numpy()  # (K, N, C)
        return [outputs[g :: self.n_folds, :n] for g, n in enumerate(lengths)]

    def _networks(self, index: int) -> tuple[State, ...]:
        """Return the parameters and buffers of the networks of a trial."""
        state: dict[str, Tensor] = self.net.state_dict()
        return tuple(
            {name: t[k : k + 1].cpu().clone() for name, t in state.items()}
            for k in range(index * self.n_folds, (index + 1) * self.n_folds)
        )
