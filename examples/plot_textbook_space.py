"""
The textbook space, searched in two ways
========================================

Introductions to architecture search often use a space of four choices: 2 to 10
convolution layers, a kernel of 3 to 7 pixels, pooling by 2 to 4, and ReLU or sigmoid.
Here Bayesian optimisation searches it twice: by an estimator, which trains and
validates networks, and as a Python function.
"""

# %%
# The four choices
# ----------------
# :class:`~sknas.nets.ConvNet` builds the networks. Every third layer is followed by
# pooling, so deep networks with strong pooling would shrink their maps below a pixel.
# ``is_buildable`` excludes them, so they are never proposed.
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import ShuffleSplit, train_test_split
from torch.nn import functional

import sknas
from sknas import NASClassifier
from sknas.nets import ConvNet
from sknas.spaces import Categorical, ImageSpec, Integer, Space

CHANNELS = 8
LAYERS_A_STAGE = 3


def make_network(architecture, image, n_outputs):
    """Return the network of four choices."""
    n_layers = architecture["layers"]
    starts = range(0, n_layers, LAYERS_A_STAGE)
    blocks = [min(LAYERS_A_STAGE, n_layers - start) for start in starts]
    return ConvNet(
        image,
        n_outputs,
        blocks=blocks,
        channels=[CHANNELS] * len(blocks),
        kernel_size=architecture["kernel_size"],
        pool_size=architecture["pool_size"],
        activation=architecture["activation"],
    )


def keeps_a_pixel(architecture, side=8):
    """Return True if the last maps of a square image have at least a pixel."""
    n_poolings = math.ceil(architecture["layers"] / LAYERS_A_STAGE) - 1
    return side // architecture["pool_size"] ** n_poolings >= 1


class TextbookSpace(Space):
    reads = "image"

    @property
    def choices(self):
        return {
            "layers": Integer(2, 10, default=3),
            "kernel_size": Integer(3, 7, default=3),
            "pool_size": Integer(2, 4, default=2),
            "activation": Categorical(["relu", "sigmoid"], default="relu"),
            "lr": Categorical([0.01]),  # read by the trainer; a single value
        }

    def is_buildable(self, architecture, task):
        return keeps_a_pixel(architecture, min(task.image.shape[1:]))

    def build(self, architecture, task):
        return make_network(architecture, task.image, task.n_outputs)


space = TextbookSpace()
points = list(space.enumerate())
n_buildable = sum(map(keeps_a_pixel, points))
print(f"{len(points)} architectures, {n_buildable} of them fit digits of 8 x 8 pixels")

# %%
# By an estimator
# ---------------
# The search of ``NASClassifier`` starts with the defaults of the choices. This space
# has no choices of the batch size and the optimiser, so those have their default
# values.
digits = load_digits()
X, y = digits.images.astype("uint8"), digits.target
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
split = ShuffleSplit(1, test_size=0.25, random_state=0)
search = NASClassifier(
    space, "bayesian", max_trials=10, max_epochs=9, cv=split, random_state=0
)
search.fit(X_train, y_train)
print(search.best_architecture_)
print(f"held-out accuracy {search.score(X_test, y_test):.3f}")

# %%
# By ``sknas.search``
# -------------------
# The same choices and strategy, with a function that trains one network in a few lines
# of torch and returns its score. ``sknas.search`` has no images, so the condition on
# the maps is passed as a constraint.
(fit_rows, valid_rows), *_ = split.split(X_train)
scale = {"mean": np.array([X_train.mean()]), "deviation": np.array([X_train.std()])}
IMAGE = ImageSpec((1, 8, 8), **{n: v.astype(np.float32) for n, v in scale.items()})
pixels, labels = torch.tensor(X_train[:, None]), torch.tensor(y_train)


def accuracy(architecture, n_epochs=4):
    """Return the validation accuracy of a network after a short training."""
    torch.manual_seed(0)
    net = make_network(architecture, IMAGE, n_outputs=10)
    optimizer = torch.optim.AdamW(net.parameters(), lr=architecture["lr"])
    for _ in range(n_epochs):
        for rows in torch.tensor(fit_rows)[torch.randperm(len(fit_rows))].split(64):
            loss = functional.cross_entropy(net(pixels[rows])[0], labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        predicted = net.eval()(pixels[valid_rows])[0].argmax(dim=1)
    return float((predicted == labels[valid_rows]).float().mean())


history = sknas.search(
    accuracy,
    space,
    strategy="bayesian",
    max_trials=10,
    constraints=keeps_a_pixel,
    random_state=0,
)
print(f"{history.best.score:.3f} with {history.best.architecture}")

# %%
# Two pitfalls of this space
# --------------------------
# If a sampler of real numbers proposes 4.7 layers, someone has to round them, and the
# surrogate is given the score of 5 layers for 4.7. Here proposals hold integers and
# strings, and the surrogate learns from what was trained.
print({name: type(v).__name__ for name, v in history.best.architecture.items()})
frame = history.to_frame()
frame[["param_layers", "param_kernel_size", "param_pool_size", "score"]].head()

# %%
# The other pitfall is pooling. Ten layers with three poolings by 4 would need maps of
# an eighth of a pixel, and a program that pads or clips them trains something else than
# proposed. Here both searches exclude the dark fields. Dots are moved a little within
# their field so that they don't hide each other.
tables = {"NASClassifier": pd.DataFrame(search.cv_results_), "sknas.search": frame}
tables["NASClassifier"]["score"] = tables["NASClassifier"]["mean_test_score"]
fits = np.array(
    [
        [keeps_a_pixel({"layers": n, "pool_size": s}) for n in range(2, 11)]
        for s in (2, 3, 4)
    ]
)
rng = np.random.default_rng(0)
fig, axes = plt.subplots(
    2, 1, figsize=(7, 5.5), sharex=True, sharey=True, layout="constrained"
)
for ax, (name, table) in zip(axes, tables.items(), strict=True):
    ax.imshow(
        ~fits, extent=(1.5, 10.5, 4.5, 1.5), aspect="auto", cmap="Greys", vmax=2.5
    )
    jitter = rng.uniform(-0.3, 0.3, (2, len(table)))
    for word, marker in {"relu": "o", "sigmoid": "s"}.items():
        rows = (table["param_activation"] == word).to_numpy()
        dots = ax.scatter(
            table["param_layers"][rows].astype(int) + jitter[0, rows],
            table["param_pool_size"][rows].astype(int) + jitter[1, rows],
            c=table["score"][rows].astype(float),
            vmin=0.1,
            vmax=1,
            s=15 * table["param_kernel_size"][rows].astype(int),
            marker=marker,
            edgecolors="k",
            label=word,
        )
    ax.set(title=name, ylabel="pool size", yticks=(2, 3, 4), xticks=range(2, 11))
axes[1].set_xlabel("layers")
title = "activation (larger: wider kernel)"
handles = axes[0].get_legend_handles_labels()
fig.legend(*handles, loc="outside upper center", title=title, ncols=2)
fig.colorbar(dots, ax=axes, label="validation accuracy")
plt.show()
