"""
A space of your own
===================

A space says what can be built. To search networks of your own, name their choices and
build one of them. The base class derives everything else that a search needs.
"""

# %%
# The space
# ---------
# A wide and deep network: a linear model and a hidden layer side by side. A network
# maps encoded rows (N, F) to outputs (1, N, C); ``TableInput`` turns the rows into
# features, categories included.
import matplotlib.pyplot as plt
import pandas as pd
from sklearn.datasets import load_diabetes
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import train_test_split
from torch import nn

from sknas import NASRegressor
from sknas.nets import Linear, TableInput
from sknas.spaces import Categorical, Integer, Real, Space


class WideAndDeepNet(nn.Module):
    def __init__(self, width, dropout, task):
        super().__init__()
        self.inputs = TableInput(1, task)
        n_features, n_outputs = self.inputs.n_features, task.n_outputs
        self.wide = Linear(1, n_features, n_outputs)
        hidden, output = Linear(1, n_features, width), Linear(1, width, n_outputs)
        self.deep = nn.Sequential(hidden, nn.ReLU(), nn.Dropout(dropout), output)

    def forward(self, x):
        features = self.inputs(x)  # (1, N, n_features)
        return self.wide(features) + self.deep(features)  # (1, N, C)


class WideAndDeep(Space):
    @property
    def choices(self):
        return {
            "width": Integer(8, 128, log=True, default=32),
            "dropout": Categorical([0.0, 0.2, 0.5], ordered=True, default=0.2),
            "lr": Real(1e-3, 3e-2, log=True, default=3e-3),
            "weight_decay": Categorical([0.0, 0.03, 0.3], ordered=True, default=0.03),
        }

    def build(self, architecture, task):
        return WideAndDeepNet(architecture["width"], architecture["dropout"], task)


# %%
# The trainer reads ``lr`` and ``weight_decay``, and also ``optimizer``, ``batch_size``
# and ``label_smoothing``, which have default values if a space leaves them out. Check
# the space before a search:
space = WideAndDeep()
print(space.default_architecture())
print("an architecture as numbers:", space.encode([space.default_architecture()]))

# %%
# The search
# ----------
X, y = load_diabetes(return_X_y=True, as_frame=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
own = NASRegressor(search_space=space, max_trials=6, random_state=0)
own.fit(X_train, y_train)
table = NASRegressor(max_trials=4, random_state=0).fit(X_train, y_train)
linear = RidgeCV().fit(X_train, y_train)
for name, model in {"own space": own, "table space": table, "linear": linear}.items():
    print(f"{name:<12} held-out R2 {model.score(X_test, y_test):.3f}")

# %%
# What was found
# --------------
print(space.describe(own.best_architecture_))
results = pd.DataFrame(own.cv_results_)
fig, ax = plt.subplots(layout="constrained")
dots = ax.scatter(
    results["param_lr"].astype(float),
    results["mean_test_score"],
    c=results["param_width"].astype(int),
    s=60,
)
ax.set(xscale="log", xlabel="learning rate", ylabel="validation R2")
fig.colorbar(dots, label="width")
plt.show()
