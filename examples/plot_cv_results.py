"""
Reading the results of a search
===============================

``cv_results_`` has the form known from ``GridSearchCV``: a dict of columns, one row per
trial. It shows what was tried, how it scored and how long it took.
"""

# %%
# A search, and its table
# -----------------------
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split

from sknas import NASClassifier

X, y = load_wine(return_X_y=True, as_frame=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
search = NASClassifier(max_trials=24, scoring="neg_log_loss", random_state=0)
search.fit(X_train, y_train)
results = pd.DataFrame(search.cv_results_)
columns = ["rank_test_score", "mean_test_score", "std_test_score", "status", "origin"]
results.sort_values("rank_test_score")[columns].head()

# %%
# ``origin`` says who asked for a trial: first the default network, then known good
# networks, then proposals of the strategy. ``status`` is "ok", "failed" or "stopped",
# and ``reason`` says why there is no score. Trials without a score rank last.
results.groupby(["origin", "status"]).size().to_frame("trials")

# %%
# Cost
# ----
# Epochs until the best score, parameters, and seconds of all folds together. Networks
# are trained side by side; the seconds of a trial are its share.
results[["n_epochs", "n_params", "mean_fit_time", "seconds"]].describe().round(2)

# %%
# Choices
# -------
# Each choice is a column ``param_<name>``. Choices may have conditions: the learning
# rate of SGD exists only where the optimiser is SGD. Elsewhere it is masked, and NaN in
# a data frame.
results.filter(like="param_").dropna(axis=1).head()

# %%
# Rungs
# -----
# On larger tables weaker trials are dropped at a ``rung`` of the schedule, and rank
# behind those that were trained further. With 133 rows the schedule is too short for
# that.
results["rung"].value_counts().to_frame("trials")

# %%
# The noise of a score
# --------------------
# The folds of a trial differ by more than the best trials do, so it is partly chance
# which trial ranks first. That is why the best score of a search is optimistic.
folds = [f"split{fold}_test_score" for fold in range(3)]
by_rank = results[results["status"] == "ok"].sort_values("rank_test_score")
fig, ax = plt.subplots(layout="constrained")
rank = np.arange(1, len(by_rank) + 1)
ax.plot(rank, by_rank[folds], "o", color="C0", alpha=0.35)
ax.plot(rank, by_rank["mean_test_score"], "_", color="k", ms=18)
ax.plot([], [], "o", color="C0", alpha=0.35, label="a fold")
ax.plot([], [], "_", color="k", ms=18, label="mean")
ax.set(xlabel="rank", ylabel="negative log loss")
ax.legend()
plt.show()

# %%
# The score of the best trial, and the score of the whole search on held-out rows. There
# are only 45 of them, so chance may also favour the other one.
held_out = search.scorer_(search, X_test, y_test)
print(f"best_score_ {search.best_score_:.3f}, held out {held_out:.3f}")

# %%
# Simple models on the same folds:
pd.Series(search.baseline_scores_).round(3)
