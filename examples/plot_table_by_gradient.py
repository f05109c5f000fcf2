"""
A table: a search by gradient
=============================

Search by gradient works on tables, too: one supernet holds all widths, depths,
activations, normalisations and numeric embeddings, and learns a weight for each option.
The architecture with the largest weights is then trained alone, like the default one.
"""

# %%
# The search
# ----------
# Diagnose breast tumours from thirty numbers. The default network is trained first.
# Then the strategy trains its supernet, and proposes the architecture with the largest
# weights, and those that differ from it in the least certain choice.
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from sknas import NASClassifier
from sknas.spaces import TableSpace

X, y = load_breast_cancer(return_X_y=True, as_frame=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
space = TableSpace(depth=(0, 3), width=(32, 64, 128))
search = NASClassifier(
    space, "gradient", max_trials=6, max_epochs=40, cv=3, random_state=0
)
search.fit(X_train, y_train)
print(f"held-out accuracy {search.score(X_test, y_test):.3f}")
results = pd.DataFrame(search.cv_results_)
results[["origin", "mean_test_score", "rank_test_score", "n_params"]].round(3)

# %%
# How the weights moved
# ---------------------
# ``derived_`` lists the derived architectures, the best first. ``trajectory_`` holds
# the weights of the options of each mixed choice over the course of the search: at
# first all are equal. The option with the largest weight in the end is drawn in colour.
strategy = search.strategy_
first = strategy.derived_[0]
fig, axes = plt.subplots(2, 3, figsize=(10, 5.5), sharex=True, layout="constrained")
for ax, (name, shares) in zip(axes.flat, strategy.trajectory_.items(), strict=True):
    progress = np.linspace(0, 1, len(shares))
    ax.plot(progress, shares, color="0.75")
    ax.plot(progress, shares[:, shares[-1].argmax()], color="C0", lw=2)
    ax.set_title(f"{name}: {first[name]}", loc="left", fontsize=10)
for ax in axes[1]:
    ax.set_xlabel("share of the search")
for ax in axes[:, 0]:
    ax.set_ylabel("weight")
plt.show()

# %%
# So short a search leaves much undecided. ``entropy_`` says how much: 1 if all options
# of a choice have the same weight, 0 if one of them has all of it.
entropy = strategy.entropy_
print(f"entropy {entropy[0]:.2f} at first, {entropy[-1]:.2f} at the end")

# %%
# What was found
# --------------
# Choices that the supernet does not mix, such as the learning rate, keep their defaults
# until neighbours of the best trial are tried. Compare the scores with those of the
# default network and a linear model to see whether the search paid off.
print(search.best_architecture_)
print({name: round(score, 3) for name, score in search.baseline_scores_.items()})
