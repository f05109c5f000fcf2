"""A tiny supernet, and a task whose best architecture is known."""

import numpy as np
import torch
from torch import nn

from sknas._problem import Fold, Problem, Rows, TaskSpec
from sknas.nets import MixedChoice, MixedOperation, Supernet
from sknas.spaces import Categorical, Integer, Space

FUNCTIONS = {
    "none": torch.zeros_like,
    "skip": lambda x: x,
    "abs": lambda x: x.abs() - 0.8,
    "sin": lambda x: torch.sin(3 * x),
}
OPTIONS = tuple(FUNCTIONS)
PLANTED = {"f0": "abs", "f1": "sin", "f2": "skip", "f3": "abs"}
BEST = tuple(PLANTED.values())


class Shifted(nn.Module):
    """A function of its shifted input; "skip" and "none" have no learnt shift.

    A learnt factor would replace the weight of the mixture.
    """

    def __init__(self, name, calls=None):
        super().__init__()
        self.name = name
        self.calls = calls
        if name in ("abs", "sin"):
            self.shift = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        if self.calls is not None:
            self.calls.append(self.name)
        return FUNCTIONS[self.name](x + self.shift if hasattr(self, "shift") else x)


class PlantedNet(Supernet):
    """The sum of a mixture of functions of each feature."""

    def __init__(self, n_features, calls=None):
        choice = MixedChoice(
            OPTIONS, parameter_free=(1,), skip_op=1, none_op=0, cell="all"
        )
        super().__init__({f"f{j}": choice for j in range(n_features)})
        self.mixed = nn.ModuleList(
            MixedOperation([Shifted(name, calls) for name in OPTIONS], (1,))
            for _ in range(n_features)
        )
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, x, weights):
        parts = [
            mixed(x[:, [j]], weights[f"f{j}"]) for j, mixed in enumerate(self.mixed)
        ]
        return (sum(parts) + self.bias)[None]  # (1, N, 1)

    def architecture(self, chosen, shares):
        return {name: self.option(name, chosen) for name in self.choices}


class Fixed(nn.Module):
    """The functions of an architecture."""

    def __init__(self, names):
        super().__init__()
        self.parts = nn.ModuleList(Shifted(name) for name in names)
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        parts = [part(x[:, [j]]) for j, part in enumerate(self.parts)]
        return (sum(parts) + self.bias)[None]


class PlantedSpace(Space):
    """A function for each feature, and one choice that the supernet doesn't have."""

    has_supernet = True

    def __init__(self, n_features=4):
        self.n_features = n_features

    @property
    def choices(self):
        names = [f"f{j}" for j in range(self.n_features)]
        functions = {name: Categorical(OPTIONS, default="sin") for name in names}
        return {**functions, "batch_size": Integer(16, 64, default=32)}

    def build(self, architecture, task):
        return Fixed([architecture[f"f{j}"] for j in range(self.n_features)])

    def supernet(self, task, partial_channels=1):
        return PlantedNet(self.n_features)


def answers(x, planted, shift=0.0):
    """Return the sum of the planted functions of shifted features, (N,)."""
    columns = torch.as_tensor(x) + shift
    return sum(FUNCTIONS[f](columns[:, j]) for j, f in enumerate(planted)).numpy()


def planted_problem(n=800, planted=BEST, n_steps=300, shift=0.0, **changes):
    """Return a regression task of one fold; features of validation rows are NaN."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n + 100, len(planted))).astype(np.float32)
    y = answers(x, planted, shift)[:, None] + 0.1 * rng.standard_normal((n + 100, 1))
    y = y.astype(np.float32)
    task = TaskSpec("regression", 1, n, n_numeric=len(planted))
    train, valid = slice(None, n), slice(n, None)
    weight = np.ones(n + 100)
    fold = Fold(
        task,
        Rows(x[train], y[train], weight[train]),
        Rows(np.full_like(x[valid], np.nan), y[valid], weight[valid]),
        np.arange(n, n + 100),
        np.asarray,
    )
    settings = {"task": task, "folds": (fold,), "n_rows": n, "n_steps": n_steps}
    return Problem(**settings | changes)
