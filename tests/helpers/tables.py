"""Small tabular benchmarks: spaces with the true loss of every architecture."""

from itertools import pairwise, product

import numpy as np

from sknas.spaces import Categorical, DictSpace

OPERATIONS = ("none", "skip", "conv1", "conv3")


class ChainSpace(DictSpace):
    """Four operations in a chain."""

    has_graph = True

    def __init__(self, given=None):
        super().__init__(given or {f"op{j}": list(OPERATIONS) for j in range(4)})

    def graph(self, architecture):
        labels = list(architecture.values())
        return labels, list(pairwise(range(len(labels))))


def chain_loss(architecture):
    """Each operation has a loss, and two equal neighbours add to it."""
    values = list(architecture.values())
    losses = {"none": 1.0, "skip": 0.4, "conv1": 0.2, "conv3": 0.0}
    loss = sum(losses[value] for value in values)
    pairs = sum(a == b for a, b in pairwise(values))
    return loss + 0.3 * pairs


MIXED = DictSpace(
    {
        "kind": ["relu", "tanh", "silu"],
        "depth": Categorical([1, 2, 3, 4], ordered=True),
        "width": Categorical([8, 16, 32, 64, 128], ordered=True),
        "rate": Categorical([1e-4, 1e-3, 1e-2, 1e-1], ordered=True),
        "unused": Categorical([0, 1, 2], ordered=True),
    }
)


def mixed_loss(architecture):
    """The rate matters most, the kind a little, and one choice not at all."""
    rate = abs(np.log10(architecture["rate"]) + 2.3)
    width = abs(np.log2(architecture["width"]) - 6)
    depth = abs(architecture["depth"] - 2) * (1 + (architecture["kind"] == "tanh"))
    return rate + 0.3 * width + 0.2 * depth + 0.3 * (architecture["kind"] == "relu")


TABLES = {"chain": (ChainSpace(), chain_loss), "mixed": (MIXED, mixed_loss)}


def all_of(space):
    """Return every architecture of a finite space."""
    names = list(space.choices)
    values = [choice.values() for choice in space.choices.values()]
    return [space.fill(dict(zip(names, v, strict=True))) for v in product(*values)]
