"""Regularisers against a bias towards options that are merely easy to train."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sknas.nets import MixedChoice, MixtureWeights
from sknas.strategies.gradient.progress import SearchProgress

ZERO_ONE_STRENGTH = 10.0  # coefficient of the zero-one loss
ZERO_ONE_OPTIONS = 224  # options of a DARTS supernet: 2 cells, 14 edges, 8 operations
BETA_SLOW, BETA_FAST = 50.0, 5.0  # final beta decay of slow and of fast alphas
MAX_SLOW_LR = 1e-3  # learning rate up to which alphas are slow
NOISE = (0.03, 0.3)  # amplitude of the noise on the weights at the start and the end
SKIP_DROPOUT = (0.0, 0.4, 0.7)  # probability at the start of each stage
SKIP_DROPOUT_DECAY = 3.0  # rate of its exponential decay in a stage

Penalty = Callable[[Sequence[Tensor], SearchProgress], Tensor]
Transform = Callable[[MixtureWeights, MixedChoice, SearchProgress], MixtureWeights]


@dataclass(frozen=True)
class Regulariser:
    """Additions to the loss of the alphas and to the weights of options.

    Parameters
    ----------
    penalty : callable
        Maps the alphas of all choices to a term of their loss.
    in_all_steps, in_weight_steps : callable
        Map the weights of a choice to those that the supernet uses: in all steps, and
        in addition in the steps of the network's own weights.
    """

    penalty: Penalty = lambda alphas, progress: alphas[0].new_zeros(())
    in_all_steps: Transform = lambda weights, choice, progress: weights
    in_weight_steps: Transform = lambda weights, choice, progress: weights


def beta_decay(alphas: Sequence[Tensor], progress: SearchProgress) -> Tensor:
    """Keep alphas of a choice close together, more so towards the end."""
    beta = BETA_SLOW if progress.arch_lr <= MAX_SLOW_LR else BETA_FAST
    # A shift of all alphas of a choice changes no weight, but its gradient would
    # dominate, and Adam divides by the size of the gradient.
    centred = [v - v.mean() for v in alphas]
    strength = beta * progress.fraction
    return strength * torch.stack([v.logsumexp(dim=0) for v in centred]).mean()


def zero_one(alphas: Sequence[Tensor], progress: SearchProgress) -> Tensor:
    """Drive sigmoid weights to 0 or 1.

    The sum is divided by the published number of options, not the actual one: the mean
    of a few would decide them by chance before the loss has an influence.
    """
    total = (torch.sigmoid(torch.cat(list(alphas))) - 0.5).square().sum()
    return -ZERO_ONE_STRENGTH * total / ZERO_ONE_OPTIONS


def smooth(
    weights: MixtureWeights, choice: MixedChoice, progress: SearchProgress
) -> MixtureWeights:
    """Add noise, so that supernets with similar weights are good, too."""
    size = NOISE[0] + (NOISE[1] - NOISE[0]) * progress.fraction
    noise = torch.empty_like(weights.values).uniform_(-size, size)
    is_computed = torch.zeros_like(noise)
    is_computed[list(weights.indices)] = 1.0
    return replace(weights, values=(weights.values + noise * is_computed).clamp(0, 1))


def skip_dropout(
    weights: MixtureWeights, choice: MixedChoice, progress: SearchProgress
) -> MixtureWeights:
    """Drop outputs of skips, with a probability that falls within a stage."""
    initial = SKIP_DROPOUT[progress.stage if progress.n_stages > 1 else 1]
    decay = math.exp(-SKIP_DROPOUT_DECAY * progress.stage_fraction)
    return replace(weights, dropout=initial * decay)


def auxiliary_skip(
    weights: MixtureWeights, choice: MixedChoice, progress: SearchProgress
) -> MixtureWeights:
    """Add a skip that fades out, so that training does not need that of the mixture."""
    skip = choice.skip_op
    if skip is None:
        return weights
    auxiliary = torch.zeros_like(weights.values)
    auxiliary[skip] = 1.0 - progress.fraction
    computed = tuple(sorted({*weights.indices, skip}))
    return replace(weights, values=weights.values + auxiliary, computed=computed)


REGULARISERS = {
    "none": Regulariser(),
    "beta": Regulariser(penalty=beta_decay),
    "zero-one": Regulariser(penalty=zero_one),
    "smooth": Regulariser(in_weight_steps=smooth),
    "skip-dropout": Regulariser(in_all_steps=skip_dropout),
    "auxiliary-skip": Regulariser(in_all_steps=auxiliary_skip),
}
