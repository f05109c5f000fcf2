"""
Images: a search of convolutional networks
==========================================

Images are arrays, and `fit` takes them as they come. Bayesian search then looks for a
convolutional network: how many layers, of what kind, how wide, and how to train it.
"""

# %%
# The images
# ----------
# 1,797 digits of 8 x 8 grey pixels. Numbers of 8 bits stay numbers of 8 bits; nothing
# has to be scaled. A quarter of the digits is held out.
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.model_selection import ShuffleSplit, train_test_split

from sknas import NASClassifier
from sknas.spaces import ImageSpace

digits = load_digits()
X_train, X_test, y_train, y_test = train_test_split(
    digits.images.astype("uint8"), digits.target, stratify=digits.target, random_state=0
)
print(X_train.shape, X_train.dtype)

# %%
# The search
# ----------
# The space is a part of the whole :class:`~sknas.spaces.ImageSpace`, so that this page
# is built in seconds: narrow networks, and one size of batch. A mirrored 3 is no 3, so
# ``flip`` is ruled out. Trainings are short, and one split validates all of them.
space = ImageSpace(
    stages=(1, 3), blocks=(1, 2), channels=(8, 16), flip=(False,), batch_size=(64,)
)
search = NASClassifier(
    space,
    strategy="bayesian",
    max_trials=10,
    max_epochs=8,
    cv=ShuffleSplit(1, test_size=0.25, random_state=0),
    random_state=0,
)
search.fit(X_train, y_train)
print(f"held-out accuracy {search.score(X_test, y_test):.3f}")

# %%
# What was tried
# --------------
# The search begins with networks that are known to be good, and goes on with what the
# strategy proposes. Some of that learns little in so few epochs; the strategy is told
# so, and turns to what does.
results = pd.DataFrame(search.cv_results_)
fig, ax = plt.subplots(layout="constrained")
for origin, trials in results.groupby("origin", sort=False):
    ax.plot(trials.index, trials["mean_test_score"], "o", label=origin)
best_so_far = np.fmax.accumulate(results["mean_test_score"])
ax.step(results.index, best_so_far, where="post", color="0.3", label="best so far")
ax.axhline(search.baseline_scores_["linear"], color="0.6", ls=":", label="linear")
ax.set(xlabel="trial", ylabel="validation accuracy")
fig.legend(loc="outside upper center", ncols=5)
plt.show()

# %%
# What was found
# --------------
# The best architecture in words, then the members of the ensemble that predicts.
print(search.search_space_.describe(search.best_architecture_))
print()
for member in search.ensemble_.members:
    words = search.search_space_.describe(member.architecture).split(", trained")[0]
    print(f"{member.weight:.2f} {words}")

# %%
# What it sees in images
# ----------------------
# The digits that were held out and predicted with the least certainty. Above each
# stands what it is taken for; wrong answers are red, with the truth in brackets.
probabilities = search.predict_proba(X_test)
predicted = search.classes_[probabilities.argmax(axis=1)]
least_sure = np.argsort(probabilities.max(axis=1))[:24]
fig, axes = plt.subplots(3, 8, figsize=(9, 4.2), layout="constrained")
for ax, place in zip(axes.flat, least_sure, strict=True):
    is_right = predicted[place] == y_test[place]
    title = (
        f"{predicted[place]}" if is_right else f"{predicted[place]} ({y_test[place]})"
    )
    ax.imshow(X_test[place], cmap="gray_r")
    ax.set_title(title, color="k" if is_right else "C3")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_color("k" if is_right else "C3")
plt.show()
print(f"{np.sum(predicted != y_test)} of {len(y_test)} digits are taken for others")
