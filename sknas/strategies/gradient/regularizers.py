"""What keeps a relaxed network from choosing what is merely easy to learn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sknas.nets import MixedChoice, MixtureWeights

ZERO_ONE = 10.0  # strength of the zero-one loss
ZERO_ONE_OF = 224  # weights: two cells of DARTS, 14 edges of 8 options each
BETA = {True: 50.0, False: 5.0}  # of the beta decay at the end: slow logits, fast ones
SLOW_LR = 1e-3
NOISE = (0.03, 0.3)  # on smoothed weights, at first and at the end
SKIP_DROPOUT = (0.0, 0.4, 0.7)  # at the begin of each stage
SKIP_DECAY = 3.0  # by how many powers of e it falls in a stage


@dataclass(frozen=True)
class SearchProgress:
    """A point of a search.

    Parameters
    ----------
    progress : float
        Share of the search that is done.
    stage, n_stages : int
        Number of the stage, and of stages.
    stage_progress : float
        Share of the stage that is done.
    arch_lr : float
        Rate of the logits.
    """

    progress: float
    stage: int
    n_stages: int
    stage_progress: float
    arch_lr: float


def _no_penalty(logits: Sequence[Tensor], moment: SearchProgress) -> Tensor:
    return torch.zeros((), device=logits[0].device)


def _unchanged(
    weights: MixtureWeights, decision: MixedChoice, moment: SearchProgress
) -> MixtureWeights:
    return weights


@dataclass(frozen=True)
class Regulariser:
    """What is added to a search.

    Parameters
    ----------
    penalty : callable
        Logits of all decisions, moment -> what is added to the loss of the logits.
    mixed, trained : callable
        Weights, decision, moment -> the weights the network gets: in all steps, and in
        those of the weights alone.
    """

    penalty: Callable[[Sequence[Tensor], SearchProgress], Tensor] = _no_penalty
    mixed: Callable[[MixtureWeights, MixedChoice, SearchProgress], MixtureWeights] = (
        _unchanged
    )
    trained: Callable[[MixtureWeights, MixedChoice, SearchProgress], MixtureWeights] = (
        _unchanged
    )


def beta_decay(logits: Sequence[Tensor], moment: SearchProgress) -> Tensor:
    """Keeps one option from pulling away from the others, more and more."""
    strength = BETA[moment.arch_lr <= SLOW_LR] * moment.progress
    # What all options of a decision have in common moves none of their weights, but
    # would be most of the gradient, and Adam divides by the size of that.
    apart = [v - v.mean() for v in logits]
    return strength * torch.stack([v.logsumexp(dim=0) for v in apart]).mean()


def zero_one(logits: Sequence[Tensor], moment: SearchProgress) -> Tensor:
    """Drives weights between 0 and 1 to one of the two.

    As hard as where it was published, however many there are: a mean of a few would
    settle them by chance before the loss has told anything.
    """
    total = (torch.sigmoid(torch.cat(list(logits))) - 0.5).square().sum()
    return -ZERO_ONE * total / ZERO_ONE_OF


def smoothed(
    weights: MixtureWeights, decision: MixedChoice, moment: SearchProgress
) -> MixtureWeights:
    """Noise on the weights: networks near by must do well, too."""
    size = NOISE[0] + (NOISE[1] - NOISE[0]) * moment.progress
    noise = torch.empty_like(weights.values).uniform_(-size, size)
    is_computed = torch.zeros_like(noise)
    is_computed[list(weights.places)] = 1.0
    return replace(weights, values=(weights.values + noise * is_computed).clamp(0, 1))


def skip_dropout(
    weights: MixtureWeights, decision: MixedChoice, moment: SearchProgress
) -> MixtureWeights:
    """Drops numbers that skips pass on, less and less within a stage."""
    first = SKIP_DROPOUT[moment.stage if moment.n_stages > 1 else 1]
    return replace(
        weights, dropout=first * math.exp(-SKIP_DECAY * moment.stage_progress)
    )


def auxiliary_skip(
    weights: MixtureWeights, decision: MixedChoice, moment: SearchProgress
) -> MixtureWeights:
    """A skip beside the mixture, which fades: the mixture's own need not help."""
    place = decision.identity
    if place is None:
        return weights
    beside = torch.zeros_like(weights.values)
    beside[place] = 1.0 - moment.progress
    places = tuple(sorted({*weights.places, place}))
    return replace(weights, values=weights.values + beside, computed=places)


REGULARISERS = {
    "none": Regulariser(),
    "beta": Regulariser(penalty=beta_decay),
    "zero-one": Regulariser(penalty=zero_one),
    "smooth": Regulariser(trained=smoothed),
    "skip-dropout": Regulariser(mixed=skip_dropout),
    "auxiliary-skip": Regulariser(mixed=auxiliary_skip),
}
