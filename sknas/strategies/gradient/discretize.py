"""From a relaxed network to architectures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from sknas._history import Architecture
from sknas._problem import TaskSpec
from sknas.nets import MixedChoice, MixtureWeights, Supernet
from sknas.spaces import Space
from sknas.strategies.gradient.supernet_trainer import SupernetTrainer
from sknas.strategies.gradient.time_budget import TimeBudget

DISCRETISATIONS = ("argmax", "perturbation", "retrain")
MAX_PASSING = 2  # passing options of a group, such as the skips of a cell
N_RETRAINED = 3
TUNING_RATE = 0.1  # beside the rate of the search
TUNING_SHARE = 0.5  # of the time of a decision
FIT_SHARE = 0.9  # of the time of an architecture that is trained again

Selection = Mapping[str, int]
Shares = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class DiscreteArchitecture:
    """What a relaxed network decides.

    Parameters
    ----------
    chosen : mapping of str to int
        The place of the option of each decision.
    shares : mapping of str to ndarray of shape (n_options,)
        How much each option counts.
    """

    chosen: Selection
    shares: Shares


def argmax_architecture(
    decisions: Mapping[str, MixedChoice], shares: Shares
) -> DiscreteArchitecture:
    """The option that counts most of each decision, but for no connection."""
    chosen = {
        name: int(np.argmax(_allowed(decision, shares[name])))
        for name, decision in decisions.items()
    }
    return DiscreteArchitecture(chosen, shares)


def _allowed(decision: MixedChoice, shares: np.ndarray) -> np.ndarray:
    """Shares, without that of no connection."""
    shares = shares.astype(float)
    if decision.absent is not None and len(shares) > 1:
        shares[decision.absent] = -np.inf
    return shares


def limit_skips(net: Supernet, derived: DiscreteArchitecture) -> DiscreteArchitecture:
    """At most two passing options a group; the weakest give way to the next best.

    References
    ----------
    Chen, Xie, Wu, Tian: Progressive Differentiable Architecture Search: Bridging the
    Depth Gap between Search and Evaluation. arXiv:1904.12760.
    """
    chosen, shares = dict(derived.chosen), derived.shares
    while over := _over(net, chosen, shares):
        name = min(over, key=lambda name: shares[name][chosen[name]])
        left = _allowed(net.decisions[name], shares[name])
        left[list(net.decisions[name].passing)] = -np.inf
        chosen[name] = int(np.argmax(left))
    return DiscreteArchitecture(chosen, shares)


def _over(net: Supernet, chosen: Selection, shares: Shares) -> list[str]:
    """Decisions with a passing option in groups that have too many of them."""
    groups: dict[str, list[str]] = {}
    for name in net.used(chosen, shares):
        decision = net.decisions[name]
        if chosen[name] in decision.passing and _has_others(decision):
            groups.setdefault(decision.group, []).append(name)
    return [n for names in groups.values() if len(names) > MAX_PASSING for n in names]


def _has_others(decision: MixedChoice) -> bool:
    """Whether there are options with weights of their own."""
    places = set(range(len(decision.options))) - {decision.absent}
    return bool(places - set(decision.passing))


def one_op_changes(
    net: Supernet, derived: DiscreteArchitecture
) -> list[DiscreteArchitecture]:
    """All changes of one decision, the least certain ones first."""
    changes = []
    for name, decision in net.decisions.items():
        shares = _allowed(decision, derived.shares[name])
        place = derived.chosen[name]
        for other, share in enumerate(shares):
            if other != place and np.isfinite(share):
                change = replace(derived, chosen={**derived.chosen, name: other})
                changes.append((shares[place] - share, change))
    changes.sort(key=lambda change: change[0])
    return [change for _, change in changes]


def perturbation_scores(
    training: SupernetTrainer, clock: TimeBudget
) -> DiscreteArchitecture:
    """The options whose removal hurts the relaxed network most.

    Decisions are made one after another, in random order, and the weights are tuned
    in between. What is left when the time is over is decided by its shares.

    References
    ----------
    Wang, Cheng, Chen, Tang, Hsieh: Rethinking Architecture Selection in Differentiable
    NAS. arXiv:2108.04392.
    """
    decisions, lr = training.net.decisions, TUNING_RATE * training.settings.lr
    with torch.no_grad():
        weights = training.logits.expected(training.logits.flat)
    first = argmax_architecture(decisions, training.logits.shares())
    chosen, shares = dict(first.chosen), dict(first.shares)
    # The inputs of nodes are not removed: they are ranked by the edges that they feed.
    names = [name for name, decision in decisions.items() if decision.is_staged]
    n_tuning = max(1, clock.n_steps // len(names))
    order = training.snapshots.once(lambda: torch.randperm(len(names)).tolist())
    for number, place in enumerate(order):
        name = names[place]
        harm = _harm(training, weights, name, training.logits.kept[name], clock)
        if harm is None:
            return DiscreteArchitecture(chosen, first.shares)  # of one kind
        chosen[name] = int(np.argmax(_allowed(decisions[name], harm)))
        shares[name] = _above_least(harm)
        weights[name] = _only(weights[name], chosen[name])
        seconds = clock.seconds_left / (len(names) - number)  # for each that is left
        tuning = TimeBudget(n_tuning, TUNING_SHARE * seconds)
        training.snapshots.once(partial(training.tune, weights, tuning, lr))
    hurts: dict[str, float] = {}
    for name in names:  # where only some edges are kept, those whose loss hurts
        harm = _harm(training, weights, name, [chosen[name]], clock)
        if harm is None:
            return DiscreteArchitecture(chosen, shares)  # of one kind
        hurts[name] = max(harm[chosen[name]], 0.0)
    for name, hurt in hurts.items():
        shares[name][chosen[name]] = hurt
    return DiscreteArchitecture(chosen, shares)


def _above_least(harm: np.ndarray) -> np.ndarray:
    """By how much more each option's removal hurts than that of the least of them."""
    least = harm[np.isfinite(harm)].min(initial=np.inf)
    return np.where(np.isfinite(harm), harm - least, 0.0)


def _harm(
    training: SupernetTrainer,
    weights: dict[str, MixtureWeights],
    name: str,
    places: Sequence[int],
    clock: TimeBudget,
) -> np.ndarray | None:
    """By how much the loss grows without some options.

    Options that are not asked about have -inf. None if time is over, or the loss is not
    finite even with all options.
    """

    def measured(weights: dict[str, MixtureWeights]) -> float | None:
        answer = training.answer(weights)
        loss = partial(training.halves.measured, answer, clock)
        found: float | None = training.snapshots.once(loss)
        return found

    training.net.eval()
    usual = measured(weights)
    if usual is None or not np.isfinite(usual):
        return None
    harm = np.full(len(weights[name].values), -np.inf)
    for place in places:
        loss = measured({**weights, name: _without(weights[name], place)})
        if loss is None:
            return None
        harm[place] = np.nan_to_num(loss, nan=np.inf) - usual
    return harm


def _without(weights: MixtureWeights, place: int) -> MixtureWeights:
    """The weights with one of them zero, the others as they are."""
    values = weights.values.clone()
    values[place] = 0.0
    return replace(weights, values=values)


def _only(weights: MixtureWeights, place: int) -> MixtureWeights:
    """All weight on one option."""
    values = torch.zeros_like(weights.values)
    values[place] = 1.0
    return MixtureWeights(values, computed=(place,))


def retrained(
    architectures: Sequence[Architecture],
    space: Space,
    task: TaskSpec,
    training: SupernetTrainer,
    clock: TimeBudget,
) -> list[Architecture]:
    """Architectures by their loss after a short training, if there is time for it.

    Each gets the same steps on the rows of the weights; losses are those of the rows of
    the logits.
    """
    n_steps = max(1, clock.n_steps // max(len(architectures), 1))

    def loss(architecture: Architecture, n_left: int) -> float | None:
        if clock.seconds_left <= 0:
            return None
        net = space.build([architecture], task).to(training.halves.x.device)
        training.fit(net, TimeBudget(n_steps, FIT_SHARE * clock.seconds_left / n_left))
        return training.halves.measured(net.eval(), clock)

    losses = []
    for number, architecture in enumerate(architectures):
        n_left = len(architectures) - number
        found = training.snapshots.once(partial(loss, architecture, n_left))
        if found is None:
            return list(architectures)
        losses.append(found)
    order = np.argsort(np.nan_to_num(losses, nan=np.inf), kind="stable")
    return [architectures[place] for place in order]
