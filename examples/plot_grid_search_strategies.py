"""
Grid search over strategies
===========================

A grid search can vary every parameter of a search, including those of its strategy and
its space: they are scikit-learn parameters with double underscores.
"""

# %%
# On a table
# ----------
# Each cell of this grid is a search, so keep grids small. ``max_epochs`` and a single
# split keep the searches short. A search of a table normally starts with a portfolio of
# good networks. To compare strategies, this one starts with the default network alone.
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_wine
from sklearn.model_selection import GridSearchCV, ShuffleSplit, train_test_split

import sknas
from sknas import NASClassifier
from sknas.spaces import Categorical, Integer, Real, TableSpace
from sknas.strategies import BayesianStrategy


class WithoutPortfolio(TableSpace):
    known_architectures = ({},)


X, y = load_wine(return_X_y=True, as_frame=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
search = NASClassifier(
    search_space=WithoutPortfolio(optimizer=("adamw",)),
    trainer="skorch",
    max_trials=9,
    max_epochs=40,
    cv=ShuffleSplit(1, test_size=0.3, random_state=0),
    random_state=0,
)
grid = GridSearchCV(
    search,
    {
        "strategy": ["random", BayesianStrategy(n_initial_points=4)],
        "search_space__depth": [(1, 1), (0, 4)],
    },
    cv=3,
    scoring="neg_log_loss",
)
grid.fit(X_train, y_train)
columns = ["param_strategy", "param_search_space__depth", "mean_test_score"]
pd.DataFrame(grid.cv_results_)[[*columns, "std_test_score"]].round(3)

# %%
# The deviation over the splits is as large as the differences: nine short trials on 89
# rows can't tell strategies apart. The winner on held-out rows:
print(grid.best_params_)
print(f"held-out accuracy {grid.best_estimator_.score(X_test, y_test):.3f}")

# %%
# On a function
# -------------
# Strategies have to be compared over many searches. ``sknas.search`` runs the same
# strategies on any Python function, here one that costs nothing. It has five choices:
# strings, numbers, and one that exists in deep networks only.
SPACE = {
    "kind": ["tanh", "relu", "silu"],
    "lr": (1e-4, 1e-1, "log"),
    "depth": Integer(1, 6),
    "residual": Categorical([False, True], when=("depth", (3, 4, 5, 6))),
    "dropout": Real(0.0, 0.6),
}


def accuracy(architecture):
    """Return an artificial accuracy, at most 0.9."""
    a = architecture
    loss = 0.02 * (np.log10(a["lr"]) + 2.5) ** 2 + 0.005 * (a["depth"] - 4) ** 2
    loss += 0.15 * (a["dropout"] - 0.2) ** 2 + 0.03 * (a["kind"] != "silu")
    return 0.9 - loss - 0.02 * (not a.get("residual", False))


# %%
# Six searches per strategy, with different seeds. Random search does not learn from its
# trials; evolution and the surrogates of Bayesian search do.
strategies = {
    "random": "random",
    "evolution": "evolution",
    "bayesian": "bayesian",
    "bayesian, extra trees": BayesianStrategy(surrogate="et"),
}
fig, ax = plt.subplots(layout="constrained")
for name, strategy in strategies.items():
    best = []
    for seed in range(6):
        history = sknas.search(
            accuracy, SPACE, strategy=strategy, max_trials=40, random_state=seed
        )
        best.append(np.maximum.accumulate([trial.score for trial in history]))
    regret = 0.9 - np.array(best)
    mean, error = regret.mean(axis=0), regret.std(axis=0, ddof=1) / np.sqrt(6)
    n_trials = np.arange(1, 41)
    (line,) = ax.plot(n_trials, mean, label=name)
    ax.fill_between(
        n_trials, mean - error, mean + error, color=line.get_color(), alpha=0.2
    )
    print(f"{name:<28} regret after 40 trials: {mean[-1]:.4f} +- {error[-1]:.4f}")
ax.set(xlabel="trials", ylabel="regret of the best so far", yscale="log")
ax.legend()
plt.show()
