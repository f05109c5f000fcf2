"""
Mixed columns, as they are and in a Pipeline
============================================

Real tables have numbers, strings and missing values. A search reads them as they are;
if a table needs further preparation, the search is the last step of a Pipeline.
"""

# %%
# A mixed table
# -------------
# The diabetes table of scikit-learn has numbers only. To have columns of each kind,
# turn sex and age into categories, and remove some values.
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_diabetes
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from sknas import NASRegressor

X, y = load_diabetes(return_X_y=True, as_frame=True, scaled=False)
rng = np.random.default_rng(0)
X["sex"] = X["sex"].astype("category")
X["age"] = pd.cut(X["age"], [0, 35, 50, 65, 99], labels=["-35", "-50", "-65", "66-"])
for name in ("age", "bmi"):
    X[name] = X[name].mask(rng.random(len(X)) < 0.1)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
X.head()

# %%
# As it is
# --------
# Columns of category, string and boolean dtype are read as categories; a missing value
# is a category of its own. Nothing has to be scaled, encoded or imputed.
plain = NASRegressor(max_trials=4, random_state=0).fit(X_train, y_train)

# %%
# In a Pipeline
# -------------
# The steps before the search are fitted on all training rows, as always in a Pipeline.
words = ["age", "sex"]
numbers = [name for name in X if name not in words]


def prepared():
    """Return a transformer that encodes, imputes and scales."""
    return make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), words),
        (make_pipeline(SimpleImputer(), StandardScaler()), numbers),
        sparse_threshold=0,  # searches read dense arrays
    )


piped = make_pipeline(prepared(), NASRegressor(max_trials=4, random_state=0))
piped.fit(X_train, y_train)

# %%
# Held-out scores
# ---------------
# The table is small and noisy, so a linear model does well, and another split could
# reverse the differences.
linear = make_pipeline(prepared(), RidgeCV()).fit(X_train, y_train)
trees = HistGradientBoostingRegressor(categorical_features="from_dtype", random_state=0)
trees.fit(X_train, y_train)
models = {
    "search": plain,
    "search in a Pipeline": piped,
    "linear": linear,
    "boosted trees": trees,
}
scores = {name: model.score(X_test, y_test) for name, model in models.items()}
for name, score in scores.items():
    print(f"{name:<22} held-out R2 {score:.3f}")

fig, ax = plt.subplots(figsize=(6, 2.4), layout="constrained")
ax.barh(list(scores), list(scores.values()), color="C0")
ax.invert_yaxis()
ax.set_xlabel("held-out R2")
plt.show()
