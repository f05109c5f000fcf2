"""
A table: a search by gradient
=============================

Search by gradient works on tables, too: one relaxed network holds all widths, depths,
activations, normalisations and ways for numbers to enter at once, and weighs them while
it trains. What weighs most is trained by itself, beside the default network.
"""

# %%
# The search
# ----------
# The diagnosis of breast tumours, from thirty numbers. The default network is trained
# first; then the strategy is asked, trains its relaxed network and proposes what weighs
# most, and what differs from that where it was least sure.
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
# What was decided, and when
# --------------------------
# ``derived_`` lists what was derived, the best first. ``trajectory_`` tells what the
# options of each decision counted in the course of the search: at first all the same.
# The option that counts most in the end is drawn in colour.
told = search.strategy_
first = told.derived_[0]
fig, axes = plt.subplots(2, 3, figsize=(10, 5.5), sharex=True, layout="constrained")
for ax, (name, shares) in zip(axes.flat, told.trajectory_.items(), strict=True):
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
# So short a search leaves much open. ``entropy_`` says how much: 1 where all options of
# a decision count the same, 0 where one of them has all the weight.
print(f"entropy {told.entropy_[0]:.2f} at first, {told.entropy_[-1]:.2f} at the end")

# %%
# What came of it
# ---------------
# What the relaxed network does not decide, such as the learning rate, keeps its default
# until neighbours of the best trial are tried. Whether the search paid is for the
# scores to say: the default network and a linear model are always beside it.
print(search.best_architecture_)
print({name: round(score, 3) for name, score in search.baseline_scores_.items()})
