"""
Quick start
===========

`fit` searches networks for a table, and the best of them predict as an ensemble. The
rest is the usual interface of scikit-learn.
"""

# %%
# The table
# ---------
# 569 tumours, 30 numbers each, two classes. A quarter of the rows is held out: the best
# score of a search is the best of many, so it is optimistic. Only rows that the search
# has not seen give an honest score.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sknas import NASClassifier

X, y = load_breast_cancer(return_X_y=True, as_frame=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)

# %%
# The search
# ----------
# ``max_trials`` bounds the number of architectures, ``max_time`` the seconds of the
# whole fit. With neither, the number of rows decides. ``cv=3`` makes it quick.
search = NASClassifier(max_trials=5, cv=3, scoring="neg_log_loss", random_state=0)
search.fit(X_train, y_train)
space = search.search_space_
print(space.describe(search.best_architecture_))

# %%
# The result is a small ensemble. Each of its architectures has one network per fold,
# trained on the other folds.
for member in search.ensemble_.members:
    n_networks = len(member.networks)
    print(f"{member.weight:.2f} {n_networks} x {space.describe(member.architecture)}")

# %%
# Held-out scores
# ---------------
# Compare it with a linear model, which is hard to beat on this table. One row of 143 is
# 0.007 of accuracy, so small differences mean nothing.
linear = make_pipeline(StandardScaler(), LogisticRegression()).fit(X_train, y_train)
for name, model in {"search": search, "linear": linear}.items():
    loss = log_loss(y_test, model.predict_proba(X_test))
    print(f"{name}: accuracy {model.score(X_test, y_test):.3f}, log loss {loss:.3f}")

# %%
# Trials and baselines
# --------------------
# ``history_`` holds the trials in the order of their proposals, and
# ``baseline_scores_`` the scores of the default network, a linear and a dummy model on
# the same folds.
scores = [trial.score for trial in search.history_]
fig, ax = plt.subplots(layout="constrained")
ax.plot(scores, "o", color="C0", alpha=0.5, label="a trial")
ax.step(
    range(len(scores)), np.fmax.accumulate(scores), where="post", label="best so far"
)
for name, style in (("default", "--"), ("linear", ":")):
    ax.axhline(search.baseline_scores_[name], color="0.4", ls=style, label=name)
ax.set(xlabel="trial", ylabel="validation score (negative log loss)")
ax.legend()
plt.show()
