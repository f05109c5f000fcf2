"""
Cells: a search by gradient
===========================

A cell is a small graph with an operation on each edge. Search by gradient trains one
network, the supernet, that holds all operations of all edges, and learns a weight for
each of them. The operations with the largest weights form the cell.
"""

# %%
# The space and the strategy
# --------------------------
# A cell of NAS-Bench-201: four nodes, six edges, five operations. Three cells of eight
# channels are enough for digits. ``GradientStrategy`` takes a published method by name;
# further parameters override those of the method.
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.patches import FancyArrowPatch
from sklearn.datasets import load_digits
from sklearn.model_selection import ShuffleSplit, train_test_split

from sknas import NASClassifier
from sknas.spaces import CellSpace
from sknas.strategies import GradientStrategy

digits = load_digits()
X_train, X_test, y_train, y_test = train_test_split(
    digits.images.astype("uint8"), digits.target, stratify=digits.target, random_state=0
)
space = CellSpace(cells=(3,), channels=(8,), flip=(False,), batch_size=(32,))
strategy = GradientStrategy("drnas", n_epochs=10)

# %%
# The search
# ----------
# A published cell is trained first. Then the strategy trains its supernet, and proposes
# the cell with the largest weights, and cells that differ from it in the least certain
# edge. All of them are trained in the same way, and compared on held-out rows.
search = NASClassifier(
    space,
    strategy,
    max_trials=4,
    max_epochs=5,
    cv=ShuffleSplit(1, test_size=0.25, random_state=0),
    random_state=0,
)
search.fit(X_train, y_train)
print(f"held-out accuracy {search.score(X_test, y_test):.3f}")
pd.DataFrame(search.cv_results_)[["origin", "mean_test_score", "n_params"]].round(3)

# %%
# How the weights moved
# ---------------------
# ``strategy_`` is the strategy of the search. Its ``trajectory_`` holds the weights of
# the operations of each edge over the course of the search. At first all weights are
# equal.
strategy = search.strategy_
names = space.operations
colours = dict(zip(names, ["0.7", "C2", "C0", "C3", "C1"], strict=True))
fig, axes = plt.subplots(
    2, 3, figsize=(9, 5), sharex=True, sharey=True, layout="constrained"
)
for ax, (edge, shares) in zip(axes.flat, strategy.trajectory_.items(), strict=True):
    progress = np.linspace(0, 1, len(shares))
    for name, share in zip(names, shares.T, strict=True):
        ax.plot(progress, share, color=colours[name], label=name)
    _, start, end = edge.split("_")
    ax.set_title(f"from node {start} to node {end}")
for ax in axes[1]:
    ax.set_xlabel("share of the search")
for ax in axes[:, 0]:
    ax.set_ylabel("weight")
fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
plt.show()

# %%
# "drnas" searches in two stages: half-way the weaker half of the operations is dropped,
# and their weights are zero from there on. In the first part of each stage only the
# layers are trained, not the weights of the operations.
#
# ``entropy_`` is the mean entropy of the weights: 1 if all operations have the same
# weight, 0 if one of them has all of it. So short a search does not converge; the order
# of the operations is what counts.
entropy = strategy.entropy_
print(f"entropy {entropy[0]:.2f} at first, {entropy[-1]:.2f} at the end")

# %%
# The found cell
# --------------
# The first derived cell. Node 0 is the input of a cell, node 3 its output; each node is
# the sum of its incoming edges. "none" is no edge.
POSITIONS = {0: (0.0, 0.5), 1: (1.0, 1.1), 2: (2.0, -0.1), 3: (3.0, 0.5)}
BENDS = {(0, 3): -0.75, (0, 2): 0.15, (1, 3): -0.15}


def draw_cell(ax, architecture):
    """Draw nodes as discs, and operations along the arrows between them."""
    for _, start, end, name in space.edges(architecture):
        if name == "none":
            continue
        bend = BENDS.get((start, end), 0.0)
        arrow = FancyArrowPatch(
            POSITIONS[start],
            POSITIONS[end],
            connectionstyle=f"arc3,rad={bend}",
            arrowstyle="-|>",
            mutation_scale=15,
            shrinkA=15,
            shrinkB=15,
            lw=2,
            color=colours[name],
        )
        ax.add_patch(arrow)
        (x0, y0), (x1, y1) = POSITIONS[start], POSITIONS[end]
        x = (x0 + x1) / 2 + bend * (y1 - y0) / 2
        y = (y0 + y1) / 2 - bend * (x1 - x0) / 2
        box = {"fc": "white", "ec": "none", "pad": 1.5}
        ax.text(x, y, name, color=colours[name], ha="center", va="center", bbox=box)
    for node, (x, y) in POSITIONS.items():
        ax.plot(x, y, "o", ms=28, mfc="white", mec="k", zorder=3)
        ax.text(x, y, node, ha="center", va="center", zorder=4)
    ax.set(xlim=(-0.4, 3.4), ylim=(-0.6, 1.9), aspect="equal")
    ax.axis("off")


fig, ax = plt.subplots(figsize=(8, 4.6), layout="constrained")
draw_cell(ax, strategy.derived_[0])
plt.show()
print(space.describe(strategy.derived_[0]).split(", shift")[0])

# %%
# The weights of a supernet, which all cells share, are not the scores of cells that are
# trained alone. That is why the search trains the derived cells and the default cell,
# and lets the scores decide.
best = search.history_.best
print(f"the best trial is a {best.proposal.origin} cell:")
print(search.search_space_.describe(search.best_architecture_).split(", shift")[0])
