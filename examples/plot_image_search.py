"""
Images: a search of convolutional networks
==========================================

`fit` reads images as arrays of the usual layouts. Bayesian search then looks for a
convolutional network: the number, kind and width of its layers, and how to train it.
"""

# %%
# The images
# ----------
# 1,797 digits of 8 x 8 grey pixels, 8 bits each. They need no scaling. A quarter of the
# digits is held out.
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
# The space is a part of :class:`~sknas.spaces.ImageSpace` that can be searched in
# seconds: narrow networks, and one batch size. A mirrored 3 is not a 3, so ``flip`` is
# off. Trainings are short, and a single split validates all of them.
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
# The search starts with known good networks, and continues with proposals of the
# strategy. Some of them learn little in so few epochs; the strategy observes their
# scores, and moves to better ones.
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
# The best architecture in words, then the members of the ensemble.
print(search.search_space_.describe(search.best_architecture_))
print()
for member in search.ensemble_.members:
    words = search.search_space_.describe(member.architecture).split(", trained")[0]
    print(f"{member.weight:.2f} {words}")

# %%
# Uncertain predictions
# ---------------------
# The held-out digits with the least certain predictions. The title of each is the
# prediction; wrong ones are red, with the true digit in brackets.
probabilities = search.predict_proba(X_test)
predicted = search.classes_[probabilities.argmax(axis=1)]
least_certain = np.argsort(probabilities.max(axis=1))[:24]
fig, axes = plt.subplots(3, 8, figsize=(9, 4.2), layout="constrained")
for ax, index in zip(axes.flat, least_certain, strict=True):
    is_right = predicted[index] == y_test[index]
    title = (
        f"{predicted[index]}" if is_right else f"{predicted[index]} ({y_test[index]})"
    )
    ax.imshow(X_test[index], cmap="gray_r")
    ax.set_title(title, color="k" if is_right else "C3")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_color("k" if is_right else "C3")
plt.show()
print(f"{np.sum(predicted != y_test)} of {len(y_test)} digits are misclassified")
