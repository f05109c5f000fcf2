"""Batches, schedules and optimisers, shared by everything that trains."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sknas._checks import check_word

MAX_NORM = 1.0  # of the whole gradient

OPTIMIZERS = ("adamw", "rmsprop", "momentum", "sgd")


class Batches:
    """Batches of rows that lie in memory, in a new order each epoch.

    Indexing a whole tensor with a batch of row numbers costs a seventh of a
    `torch.utils.data.DataLoader` on small networks. One batch of all rows is never
    shuffled, so that nothing random depends on a row.

    Parameters
    ----------
    tensors : tuple of Tensor
        x, y, weight, ...: tensors of the same length (N, ...).
    n_batches : int
        Batches an epoch; their sizes differ by one at the most.
    generator : torch.Generator
        Draws the order of rows, on the CPU.
    """

    def __init__(
        self, tensors: tuple[Tensor, ...], n_batches: int, generator: torch.Generator
    ) -> None:
        self.tensors = tensors
        self.n_batches = min(n_batches, len(tensors[0]))
        self.generator = generator

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        if self.n_batches == 1:
            yield self.tensors
            return
        n_rows = len(self.tensors[0])
        order = torch.randperm(n_rows, generator=self.generator)
        order = order.to(self.tensors[0].device)
        for rows in torch.tensor_split(order, self.n_batches):
            yield tuple(tensor[rows] for tensor in self.tensors)


def n_parts(n_rows: int, total: float, batch_size: int) -> int:
    """Batches that `n_rows` different rows with weights of `total` are dealt into.

    As many rows a batch as `batch_size` draws of the repeated rows would hold: all of
    them if each is repeated often, `batch_size` of them if none is.
    """
    repeats = max(total / n_rows, 1.0)
    drawn = 1 - (1 - min(batch_size / total, 1.0)) ** repeats  # share of the rows
    return max(1, math.ceil(1 / drawn - 1e-9))


def n_cycles(n_steps: int) -> int:
    """Cycles of `coslog` that `n_steps` have room for: 1 to 4."""
    return int(min(max(math.log2(n_steps / 100) + 1, 1), 4))


def coslog(progress: float, cycles: int) -> float:
    """Learning rate factor of cosine cycles on a logarithmic clock.

    Parameters
    ----------
    progress : float in [0, 1]
        Share of the training that is done.
    cycles : int
        Number of cycles; each is about twice as long as the one before.

    References
    ----------
    Holzmüller, Grinsztajn, Steinwart: Better by Default: Strong Pre-Tuned MLPs and
    Boosted Trees on Tabular Data. arXiv:2407.04491, section 3.
    """
    clock = math.log2(1 + (2**cycles - 1) * progress)
    return 0.5 * (1 - math.cos(2 * math.pi * clock))


def valleys(n_steps: int, cycles: int) -> list[int]:
    """Steps after which `coslog` is at zero, where networks may be compared."""
    shares = [(2**c - 1) / (2**cycles - 1) for c in range(1, cycles + 1)]
    return sorted({max(1, round(share * n_steps)) for share in shares})


def flat_cos(progress: float) -> float:
    """1 for the first half, then half a cosine down to 0."""
    return 1.0 if progress < 0.5 else 0.5 * (1 + math.cos(math.pi * (2 * progress - 1)))


class Schedule:
    """Sets the learning rate of an optimiser, and decays weights apart from it.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Has no weight decay of its own.
    decayed : list of Tensor
        The parameters that decay.
    lr : float
        Peak learning rate.
    weight_decay : float
        Share that they lose a step, times the learning rate.
    cycles : int
        Cycles of `coslog`.

    References
    ----------
    Loshchilov, Hutter: Decoupled Weight Decay Regularization. arXiv:1711.05101.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        decayed: list[Tensor],
        lr: float,
        weight_decay: float,
        cycles: int,
    ) -> None:
        self.optimizer = optimizer
        self.decayed = decayed
        self.lr = lr
        self.weight_decay = weight_decay
        self.cycles = cycles

    @torch.no_grad()
    def prepare(self, progress: float) -> None:
        """Set the learning rate at a share of the training, and decay the weights."""
        lr = self.lr * coslog(progress, self.cycles)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        if self.weight_decay and self.decayed:
            shrink = 1 - lr * self.weight_decay * flat_cos(progress)
            torch._foreach_mul_(self.decayed, max(shrink, 0.0))


def decayed_parameters(net: nn.Module) -> list[Tensor]:
    """Matrices named ``weight``: biases, scales and embeddings do not decay."""
    return [
        parameter
        for path, parameter in net.named_parameters()
        if path.rpartition(".")[2] == "weight" and parameter.ndim >= 2
    ]


def make_optimizer(net: nn.Module, name: str) -> Optimizer:
    """An optimiser over all parameters; rate and weight decay are left to `Schedule`.

    Parameters
    ----------
    net : nn.Module
        The network to train.
    name : {"adamw", "rmsprop", "momentum", "sgd"}
        Kind of optimiser.
    """
    check_word("Architecture", "optimizer", name, OPTIMIZERS)
    parameters = list(net.parameters())
    if name == "adamw":
        # beta2 = 0.95 measured better than 0.999 on short trainings (arXiv:2407.04491)
        return torch.optim.Adam(parameters, betas=(0.9, 0.95), fused=True)
    if name == "rmsprop":
        return torch.optim.RMSprop(parameters, alpha=0.95)
    momentum = 0.9 if name == "momentum" else 0.0
    sgd = torch.optim.SGD(parameters, lr=0.0, momentum=momentum, nesterov=momentum > 0)
    # Plain gradient steps can be arbitrarily long; adaptive ones can't.
    sgd.register_step_pre_hook(_clip_gradients)
    return sgd


def _clip_gradients(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    for group in optimizer.param_groups:
        nn.utils.clip_grad_norm_(group["params"], MAX_NORM)
