"""
Cells: a search by gradient
===========================

A cell is a small graph, each edge of which has an operation. Search by gradient trains
one network that holds all operations of all edges at once, and weighs them while it
trains. The cell is then read off the weights.
"""

# %%
# The space and the strategy
# --------------------------
# A cell of NAS-Bench-201: four nodes, six edges, five operations. Three cells of eight
# channels are enough for digits. ``GradientStrategy`` takes a published method by its
# name; what is given beside the name takes the place of the method's own.
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
# A published cell is trained first. Then the strategy is asked: it trains its
# relaxed network, and proposes the cell that weighs most and those that differ from it
# where it was least sure. All of them are trained alike, and compared on rows that none
# of them has seen.
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
# ``strategy_`` is the strategy that searched, and ``trajectory_`` what it tells: for
# each edge, what its operations counted in the course of the search. At first all count
# the same.
told = search.strategy_
names = space.operations
colours = dict(zip(names, ["0.7", "C2", "C0", "C3", "C1"], strict=True))
fig, axes = plt.subplots(
    2, 3, figsize=(9, 5), sharex=True, sharey=True, layout="constrained"
)
for ax, (edge, shares) in zip(axes.flat, told.trajectory_.items(), strict=True):
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
# and counts nothing from there on. In the first part of each stage only the layers are
# trained, not the weights.
#
# ``entropy_`` says how undecided the weights are: 1 where all operations count the
# same, 0 where one of them has all the weight. So short a search does not come to an
# end; the order of the operations is what counts.
print(f"entropy {told.entropy_[0]:.2f} at first, {told.entropy_[-1]:.2f} at the end")

# %%
# The found cell
# --------------
# What was derived first. Node 0 is the input of a cell, node 3 its output; each node is
# the sum of what its edges bring. "none" is no edge.
PLACES = {0: (0.0, 0.5), 1: (1.0, 1.1), 2: (2.0, -0.1), 3: (3.0, 0.5)}
BENDS = {(0, 3): -0.75, (0, 2): 0.15, (1, 3): -0.15}


def draw_cell(ax, architecture):
    """Nodes as discs, and operations along the arrows between them."""
    for _, start, end, name in space.edges(architecture):
        if name == "none":
            continue
        bend = BENDS.get((start, end), 0.0)
        arrow = FancyArrowPatch(
            PLACES[start],
            PLACES[end],
            connectionstyle=f"arc3,rad={bend}",
            arrowstyle="-|>",
            mutation_scale=15,
            shrinkA=15,
            shrinkB=15,
            lw=2,
            color=colours[name],
        )
        ax.add_patch(arrow)
        (x0, y0), (x1, y1) = PLACES[start], PLACES[end]
        x = (x0 + x1) / 2 + bend * (y1 - y0) / 2
        y = (y0 + y1) / 2 - bend * (x1 - x0) / 2
        box = {"fc": "white", "ec": "none", "pad": 1.5}
        ax.text(x, y, name, color=colours[name], ha="center", va="center", bbox=box)
    for node, (x, y) in PLACES.items():
        ax.plot(x, y, "o", ms=28, mfc="white", mec="k", zorder=3)
        ax.text(x, y, node, ha="center", va="center", zorder=4)
    ax.set(xlim=(-0.4, 3.4), ylim=(-0.6, 1.9), aspect="equal")
    ax.axis("off")


fig, ax = plt.subplots(figsize=(8, 4.6), layout="constrained")
draw_cell(ax, told.derived_[0])
plt.show()
print(space.describe(told.derived_[0]).split(", shift")[0])

# %%
# What is known of a search by gradient should be known here, too: weights of a network
# that is shared by all cells are no scores of cells trained by themselves. That is why
# the search trains what was derived beside the default cell, and lets a score decide.
best = search.history_.best
print(f"the best trial is a {best.proposal.origin} cell:")
print(search.search_space_.describe(search.best_architecture_).split(", shift")[0])
