"""Discretisation: from a trained supernet to architectures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from sknas._history import Architecture
from sknas._problem import TaskSpec
from sknas.nets import MixedChoice, MixtureWeights, Supernet
from sknas.nets._supernet import Chosen, Shares
from sknas.spaces import Space
from sknas.strategies.gradient.progress import TimeBudget
from sknas.strategies.gradient.supernet_trainer import SupernetTrainer

DISCRETISATIONS = ("argmax", "perturbation", "retrain")
MAX_PARAMETER_FREE = 2  # maximum number of parameter-free options in a cell
N_RETRAINED = 3  # number of architectures that are compared by a short training
TUNING_LR_MULTIPLIER = 0.1  # relative to the learning rate of the search
TUNING_SHARE = 0.5  # share of a choice's time for tuning
FIT_SHARE = 0.9  # share of a retrained architecture's time for training


@dataclass(frozen=True, eq=False)
class DiscreteArchitecture:
    """One option for each choice of a supernet.

    Parameters
    ----------
    chosen : mapping of str to int
        Index of the chosen option of each choice.
    shares : mapping of str to ndarray of shape (n_options,)
        Weight of each option.
    """

    chosen: Chosen
    shares: Shares


def argmax_architecture(
    choices: Mapping[str, MixedChoice], shares: Shares
) -> DiscreteArchitecture:
    """Return the options with the largest shares, except for the none operation."""
    chosen = {
        name: int(np.argmax(_without_none(choice, shares[name])))
        for name, choice in choices.items()
    }
    return DiscreteArchitecture(chosen, shares)


def _without_none(choice: MixedChoice, shares: np.ndarray) -> np.ndarray:
    """Return the shares, with -inf for the none operation."""
    shares = shares.astype(float)
    if choice.none_op is not None and len(shares) > 1:
        shares[choice.none_op] = -np.inf
    return shares


def limit_skips(net: Supernet, derived: DiscreteArchitecture) -> DiscreteArchitecture:
    """Replace parameter-free options until each cell has at most two.

    The option with the smallest share gives way to the best one with parameters.

    References
    ----------
    Chen, Xie, Wu, Tian: Progressive Differentiable Architecture Search: Bridging the
    Depth Gap between Search and Evaluation. arXiv:1904.12760.
    """
    chosen, shares = dict(derived.chosen), derived.shares
    while excess := _excess(net, chosen, shares):
        name = min(excess, key=lambda name: shares[name][chosen[name]])
        choice = net.choices[name]
        remaining = _without_none(choice, shares[name])
        remaining[list(choice.parameter_free)] = -np.inf
        chosen[name] = int(np.argmax(remaining))
    return DiscreteArchitecture(chosen, shares)


def _excess(net: Supernet, chosen: Chosen, shares: Shares) -> list[str]:
    """Return the choices of a parameter-free option in cells with too many of them."""
    cells: dict[str, list[str]] = {}
    for name in net.used(chosen, shares):
        choice = net.choices[name]
        if chosen[name] in choice.parameter_free and _has_parameters(choice):
            cells.setdefault(choice.cell, []).append(name)
    excess = [names for names in cells.values() if len(names) > MAX_PARAMETER_FREE]
    return [name for names in excess for name in names]


def _has_parameters(choice: MixedChoice) -> bool:
    """Return True if there are options with parameters."""
    indices = set(range(len(choice.options))) - {choice.none_op}
    return bool(indices - set(choice.parameter_free))


def one_op_changes(
    net: Supernet, derived: DiscreteArchitecture
) -> list[DiscreteArchitecture]:
    """Return all changes of one choice, the least certain choices first."""
    changes = []
    for name, choice in net.choices.items():
        shares = _without_none(choice, derived.shares[name])
        index = derived.chosen[name]
        for other, share in enumerate(shares):
            if other != index and np.isfinite(share):
                change = replace(derived, chosen={**derived.chosen, name: other})
                changes.append((shares[index] - share, change))
    changes.sort(key=lambda change: change[0])
    return [change for _, change in changes]


def perturbation_architecture(
    trainer: SupernetTrainer, budget: TimeBudget
) -> DiscreteArchitecture:
    """Return the options whose removal increases the loss of the supernet most.

    Choices are made one after another, in random order, and the weights are tuned in
    between. Once the time is over, the remaining choices are made by their shares.

    References
    ----------
    Wang, Cheng, Chen, Tang, Hsieh: Rethinking Architecture Selection in Differentiable
    NAS. arXiv:2108.04392.
    """
    choices, lr = trainer.net.choices, TUNING_LR_MULTIPLIER * trainer.settings.lr
    with torch.no_grad():
        weights = trainer.alphas.mean(trainer.alphas.vector)
    first = argmax_architecture(choices, trainer.alphas.shares())
    chosen, shares = dict(first.chosen), dict(first.shares)
    # Inputs of nodes are never removed: the edges they feed rank them.
    names = [name for name, choice in choices.items() if choice.is_staged]
    n_tuning_steps = max(1, budget.n_steps // len(names))
    order = trainer.once(lambda: torch.randperm(len(names)).tolist())
    for n_made, index in enumerate(order):
        name = names[index]
        active = trainer.alphas.active[name]
        scores = perturbation_scores(trainer, weights, name, active, budget)
        if scores is None:
            # Mean weights and perturbation scores cannot be compared.
            return DiscreteArchitecture(chosen, first.shares)
        chosen[name] = int(np.argmax(_without_none(choices[name], scores)))
        shares[name] = relative_scores(scores)
        weights[name] = _one_hot(weights[name], chosen[name])
        seconds = budget.seconds_left / (len(names) - n_made)
        tuning = TimeBudget(n_tuning_steps, TUNING_SHARE * seconds)
        trainer.once(partial(trainer.tune, weights, tuning, lr))
    _score_chosen(trainer, weights, chosen, shares, names, budget)
    return DiscreteArchitecture(chosen, shares)


def _score_chosen(
    trainer: SupernetTrainer,
    weights: dict[str, MixtureWeights],
    chosen: Chosen,
    shares: Shares,
    names: Sequence[str],
    budget: TimeBudget,
) -> None:
    """Set the share of each chosen option to its perturbation score.

    A node that keeps only some of its edges keeps those with the largest. Shares stay
    as they are if time runs out, so that they remain comparable.
    """
    loss_increases: dict[str, float] = {}
    for name in names:
        scores = perturbation_scores(trainer, weights, name, [chosen[name]], budget)
        if scores is None:
            return
        loss_increases[name] = max(scores[chosen[name]], 0.0)
    for name, loss_increase in loss_increases.items():
        shares[name][chosen[name]] = loss_increase


def relative_scores(scores: np.ndarray) -> np.ndarray:
    """Return the difference of each perturbation score to the smallest one."""
    smallest = scores[np.isfinite(scores)].min(initial=np.inf)
    return np.where(np.isfinite(scores), scores - smallest, 0.0)


def perturbation_scores(
    trainer: SupernetTrainer,
    weights: dict[str, MixtureWeights],
    name: str,
    indices: Sequence[int],
    budget: TimeBudget,
) -> np.ndarray | None:
    """Return the increase of the loss if an option of a choice is removed.

    Parameters
    ----------
    trainer : SupernetTrainer
        Trainer of the supernet.
    weights : dict of str to MixtureWeights
        Weights of all options.
    name : str
        Name of the choice.
    indices : sequence of int
        Indices of the options to remove, one at a time.
    budget : TimeBudget
        Time limit of the evaluation.

    Returns
    -------
    scores : ndarray of shape (n_options,) or None
        -inf for options not in `indices`. None if time runs out, or if the loss is not
        finite even with all options.
    """

    def evaluate(weights: dict[str, MixtureWeights]) -> float | None:
        forward = trainer.forward_with(weights)
        loss = partial(trainer.split.evaluate, forward, budget)
        found: float | None = trainer.once(loss)
        return found

    trainer.net.eval()
    baseline = evaluate(weights)
    if baseline is None or not np.isfinite(baseline):
        return None
    scores = np.full(len(weights[name].values), -np.inf)
    for index in indices:
        loss = evaluate({**weights, name: _remove(weights[name], index)})
        if loss is None:
            return None
        scores[index] = np.nan_to_num(loss, nan=np.inf) - baseline
    return scores


def _remove(weights: MixtureWeights, index: int) -> MixtureWeights:
    """Return the weights, with 0 for one option."""
    values = weights.values.clone()
    values[index] = 0.0
    return replace(weights, values=values)


def _one_hot(weights: MixtureWeights, index: int) -> MixtureWeights:
    """Return weight 1 for one option, which alone is computed."""
    values = torch.zeros_like(weights.values)
    values[index] = 1.0
    return MixtureWeights(values, computed=(index,))


def rank_by_retraining(
    architectures: Sequence[Architecture],
    space: Space,
    task: TaskSpec,
    trainer: SupernetTrainer,
    budget: TimeBudget,
) -> list[Architecture]:
    """Sort architectures by their loss after a short training, if there is time for it.

    Each is trained for the same number of steps on the rows of the weights, and
    evaluated on the rows of the alphas.
    """
    n_steps = max(1, budget.n_steps // max(len(architectures), 1))

    def loss(architecture: Architecture, n_left: int) -> float | None:
        if budget.seconds_left <= 0:
            return None
        net = space.build(architecture, task).to(trainer.split.x.device)
        trainer.fit(net, TimeBudget(n_steps, FIT_SHARE * budget.seconds_left / n_left))
        return trainer.split.evaluate(net.eval(), budget)

    losses = []
    for index, architecture in enumerate(architectures):
        n_left = len(architectures) - index
        found = trainer.once(partial(loss, architecture, n_left))
        if found is None:
            return list(architectures)
        losses.append(found)
    order = np.argsort(np.nan_to_num(losses, nan=np.inf), kind="stable")
    return [architectures[index] for index in order]
