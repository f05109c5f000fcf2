"""Train groups of networks up to a rung; any error becomes a fault of their trials."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sknas._checkpoint import keys
from sknas._history import Cause, Fault, Origin
from sknas._parallel.run import count_useful_workers, run_tasks
from sknas._problem import Problem, RunContext
from sknas._training.isolation import fault_of, isolated, run_with_memory_retry
from sknas.exceptions import CheckpointError
from sknas.spaces import Space
from sknas.trainers._group import NetworkGroup
from sknas.trainers._memory_free import bytes_free, too_large
from sknas.trainers._memory_need import bytes_needed

# Trains a group in place, up to a rung or the deadline: (group, rung, space, problem,
# context). Workers call it, so it is a function of a module.
Train = Callable[[NetworkGroup, int, Space, Problem, RunContext], None]


def advance_all(
    groups: list[NetworkGroup],
    rung: int,
    *,
    train: Train,
    estimate: Callable[[NetworkGroup, int], float],
    space: Space,
    problem: Problem,
    context: RunContext,
) -> list[NetworkGroup]:
    """Train all groups up to a rung, or to their ends, the longest work first.

    If there is a deadline, the default network is trained before all others, so that
    there is a result early. Groups in the store are not trained again.

    Parameters
    ----------
    groups : list of NetworkGroup
        Groups at the rung before.
    rung : int
        Number of the rung.
    train : callable
        Trains one group.
    estimate : callable
        (group, steps) -> seconds in one process.
    space : Space
        Builds the networks.
    problem : Problem
        The folds and the score.
    context : RunContext
        The device, the workers, the deadline and the store.
    """

    def target(group: NetworkGroup) -> int:
        return min(rung, len(group.schedule.rungs) - 1)

    def seconds(group: NetworkGroup, rung: int) -> float:
        return estimate(group, group.schedule.rungs[rung] - group.step)

    def order(group: NetworkGroup) -> tuple[bool, float]:
        origins = [trial.proposal.origin for trial in group.trials]
        is_first = context.deadline is not None and Origin.DEFAULT in origins
        return not is_first, -seconds(group, target(group))

    by_key = {
        keys.group(target(group), (t.proposal.number for t in group.trials)): group
        for group in sorted(groups, key=order)
    }
    done = {key: context.store.get(key) for key in by_key}
    left = {key: group for key, group in by_key.items() if done[key] is None}
    tasks = [(train, group, space, target(group)) for group in left.values()]
    # Workers that start now are used up to the last rung.
    total = sum(seconds(group, -1) for group in groups)
    done |= _advance_left(left, tasks, problem, context, total)
    return [part for parts in done.values() for part in parts]


def _advance_left(
    left: dict[str, NetworkGroup],
    tasks: list[tuple[Any, ...]],
    problem: Problem,
    context: RunContext,
    seconds: float,
) -> dict[str, list[NetworkGroup]]:
    """Return the outcomes of groups by their keys; each is stored when it is ready."""
    done: dict[str, list[NetworkGroup]] = {}
    fault = Fault(Cause.INTERRUPTED)
    try:
        results = run_tasks(advance, tasks, problem, context, seconds)
        for key, parts in zip(left, results, strict=False):
            if isinstance(parts, Fault):
                done[key] = [left[key].finish_rung(parts)]
                continue
            done[key] = parts
            trials = [trial for part in parts for trial in part.trials]
            if not any(trial.fault and trial.fault.is_pause for trial in trials):
                context.store.put(key, parts)
            if any(trial.is_interrupted for trial in trials):
                break
    except KeyboardInterrupt:
        pass
    except CheckpointError:
        raise
    except Exception as error:  # workers could not be started
        fault = fault_of(error)
    return {key: [group.finish_rung(fault)] for key, group in left.items()} | done


def advance(
    problem: Problem,
    context: RunContext,
    train: Train,
    group: NetworkGroup,
    space: Space,
    rung: int,
) -> list[NetworkGroup]:
    """Train a group up to a rung; the group itself is not changed.

    If memory is short or runs out, one half of the trials is trained after the other,
    as two groups; a single trial is trained again in micro-batches.
    """
    if context.seconds_left <= 0:
        return [group.finish_rung(Fault(Cause.OUT_OF_TIME))]
    started = time.monotonic()
    needed, free = _memory(group, space, problem, context)
    seconds = time.monotonic() - started
    if context.seconds_left <= seconds:  # what is slow to build is built once more
        fault = Fault(Cause.OUT_OF_TIME)
        return [group.finish_rung(fault, seconds)]
    is_short, is_single = needed > free, len(group.trials) == 1
    if is_short and is_single:
        return [group.finish_rung(too_large(needed, free))]

    def in_full() -> list[NetworkGroup]:
        return [_train_copy(problem, context, train, group, space, rung)]

    def in_parts() -> list[NetworkGroup]:
        return [
            done
            for part in group.split()
            for done in advance(problem, context, train, part, space, rung)
        ]

    attempts = [in_full, in_parts]
    if is_single and group.n_micro_batches > 1:
        attempts = [in_full]
    try:
        return run_with_memory_retry(attempts[is_short:], context.device)
    except Exception as error:
        return [group.finish_rung(fault_of(error), time.monotonic() - started)]


def _train_copy(
    problem: Problem,
    context: RunContext,
    train: Train,
    group: NetworkGroup,
    space: Space,
    rung: int,
) -> NetworkGroup:
    """Return the group after its training; errors are raised."""
    started = time.monotonic()
    done = replace(group, trials=[replace(trial) for trial in group.trials])
    try:
        with isolated(problem.seed, context.device):
            train(done, rung, space, problem, context)
    except KeyboardInterrupt:
        # No seconds: without a score of a rung before, the trial counts as not started.
        return done.finish_rung(Fault(Cause.INTERRUPTED))
    is_late = done.step < done.schedule.rungs[rung]
    fault = Fault(Cause.OUT_OF_TIME) if is_late else None
    return done.finish_rung(fault, time.monotonic() - started)


def _memory(
    group: NetworkGroup, space: Space, problem: Problem, context: RunContext
) -> tuple[float, float]:
    """Return the bytes that a group needs, and those that are free for it.

    Several trials leave memory for other workers. A single one may use all of it, and
    needs no more once it has started.
    """
    n = len(group.trials)
    if n == 1 and (group.step or group.n_micro_batches > 1):
        return 0.0, math.inf
    architecture, is_batched = group.architectures[0], group.is_stacked
    needed = bytes_needed(
        space,
        architecture,
        problem,
        n,
        is_batched=is_batched,
        deadline=context.deadline,
    )
    free = bytes_free(context.device)
    n_workers = count_useful_workers(context, n_tasks=context.n_jobs) if n > 1 else 1
    return needed, free / n_workers
