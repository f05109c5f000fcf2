"""
Search over a function
======================

`sknas.search` maximises any Python function over named choices, with the strategies of
the estimators. Use it if one call takes seconds or minutes: a simulation, a training of
your own, a measurement.
"""

# %%
# A function and its choices
# --------------------------
# Branin's function has three equal maxima. The objective receives an architecture, a
# mapping to plain Python values, and returns a score; greater is better.
import matplotlib.pyplot as plt
import numpy as np

import sknas
from sknas.spaces import Categorical, Integer


def branin(architecture):
    x, y = architecture["x"], architecture["y"]
    bowl = (y - 5.1 / (4 * np.pi**2) * x**2 + 5 / np.pi * x - 6) ** 2
    return -(bowl + 10 * (1 - 1 / (8 * np.pi)) * np.cos(x) + 10)


space = {"x": (-5.0, 10.0), "y": (0.0, 15.0)}
histories = {
    strategy: sknas.search(
        branin, space, strategy=strategy, max_trials=40, random_state=1
    )
    for strategy in ("random", "bayesian")
}
for strategy, history in histories.items():
    print(
        f"{strategy:<9} {history.best.score:.3f} at {dict(history.best.architecture)}"
    )

# %%
# Where it searched
# -----------------
# Random search covers the space evenly. Bayesian search starts in the same way, then
# concentrates where it expects the best scores. The maxima are at -0.398.
grid = np.meshgrid(np.linspace(-5, 10, 100), np.linspace(0, 15, 100))
height = branin({"x": grid[0], "y": grid[1]})
fig, axes = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
for ax, (strategy, history) in zip(axes, histories.items(), strict=True):
    ax.contourf(*grid, -np.log(-height), levels=20, cmap="Greys", alpha=0.6)
    frame = history.to_frame()
    dots = ax.scatter(frame["param_x"], frame["param_y"], c=frame["number"], s=25)
    ax.set(title=strategy, xlabel="x")
axes[0].set_ylabel("y")
fig.colorbar(dots, label="trial")
plt.show()


# %%
# Strings, conditions and failures
# --------------------------------
# Values may be strings, and choices may depend on each other. An exception or NaN makes
# a failed trial, from which the strategy learns, too.
def volume(architecture):
    """Return the volume of a box or ball within the limits of a parcel service."""
    size = architecture["size"]
    if architecture["shape"] == "ball":
        return 4 / 3 * np.pi * (size / 2) ** 3
    if size + 2 * architecture["height"] > 90:
        raise ValueError("too long")
    return size**2 * architecture["height"]


history = sknas.search(
    volume,
    {
        "shape": ["box", "ball"],
        "size": (1, 40),
        "height": Integer(1, 60, when=("shape", ["box"])),
        "paper": Categorical(["thin", "thick"]),
    },
    max_trials=40,
    random_state=0,
)
print(f"{history.best.score:.0f} with {dict(history.best.architecture)}")
history.to_frame().groupby(["param_shape", "status"])["score"].describe().round(0)

# %%
# A history is plain data, and can be saved as JSON.
text = history.to_json()
print(text[:160])
