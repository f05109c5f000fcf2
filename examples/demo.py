"""Search a network for a table of digits, and compare it with other models.

The table ships with scikit-learn: 1,797 hand-written digits, each a row of 64 grey
values. Run "make demo", or choose the file of the figure:

    python examples/demo.py picture.png
"""

import sys
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # draw to a file, without a window

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sknas import NASClassifier

SECONDS = 45  # time limit of the search, the final training included


def compare(models, X_train, X_test, y_train, y_test):
    """Fit models and score them on rows that none of them has seen."""
    rows = []
    for name, model in models.items():
        if name != "NASClassifier":
            print(f"Fitting {name} ...", flush=True)
        started = time.perf_counter()
        model.fit(X_train, y_train)
        seconds = time.perf_counter() - started
        shares = model.predict_proba(X_test)
        accuracy = accuracy_score(y_test, model.classes_[shares.argmax(axis=1)])
        rows.append((name, accuracy, log_loss(y_test, shares), seconds))
    return rows


def show_scores(rows, n_test):
    """Print the scores and the standard error of the accuracy."""
    print(f"\n{'Held-out rows':<24}{'accuracy':>10}{'log loss':>10}{'seconds':>10}")
    for name, accuracy, loss, seconds in rows:
        print(f"{name:<24}{accuracy:>10.3f}{loss:>10.3f}{seconds:>10.1f}")
    (_, ours, our_loss, our_seconds), *others = rows
    error = np.sqrt(ours * (1 - ours) / n_test)
    for what, lost in (
        ("accuracy", [row[0] for row in others if row[1] > ours]),
        ("log loss", [row[0] for row in others if row[2] < our_loss]),
        ("time", [row[0] for row in others if row[3] < our_seconds]),
    ):
        print(f"Better than the search in {what}: {', '.join(lost) or 'none'}.")
    print(
        f"With {n_test} rows the standard error of an accuracy is about {error:.3f}: "
        "smaller differences mean nothing."
    )


def draw_search(search, path):
    """Draw the score of each trial, in the order in which they were trained."""
    scored = [trial for trial in search.history_ if trial.score is not None]
    seconds = np.cumsum([trial.seconds for trial in scored])
    scores = np.array([trial.score for trial in scored])
    best = np.maximum.accumulate(scores)
    lines = {
        "default network": search.baseline_scores_["default"],
        "linear model": search.baseline_scores_["linear"],
    }
    known = [value for value in lines.values() if np.isfinite(value)]
    top = best[-1]
    # Draw trials far below all others at the bottom, or they would flatten the figure.
    low = min(known, default=top) - 1.5 * max(top - min(known, default=top), 0.005)
    below = scores < low
    fig, ax = plt.subplots(figsize=(8, 4.4), layout="constrained")
    ax.step(seconds, best, where="post", color="#1f5fbf", lw=2, label="best so far")
    ax.plot(seconds[~below], scores[~below], "o", color="#8aa4c8", label="a trial")
    foot = low + 0.03 * (top - low)
    if below.any():
        label = "a trial further below"
        ax.plot(
            seconds[below], np.full(below.sum(), foot), "v", c="#c8c8c8", label=label
        )
    for (name, value), style in zip(lines.items(), ("--", ":"), strict=True):
        if np.isfinite(value):
            ax.axhline(value, color="#555555", ls=style, lw=1.2, label=name)
    ax.set_ylim(low, top + 0.12 * (top - low))
    ax.set_xlim(left=0)
    ax.set_xlabel("seconds of training, all folds of all trials so far")
    ax.set_ylabel("validation score (negative log loss)")
    ax.set_title(f"A search for the digits: {len(scored)} networks", loc="left")
    ax.spines[["top", "right"]].set_visible(False)
    fig.legend(frameon=False, loc="outside lower center", ncols=5)
    fig.savefig(path, dpi=110)
    plt.close(fig)


def main(path):
    X, y = load_digits(return_X_y=True, as_frame=True)
    X_train, X_test, y_train, y_test = train_test_split(
        X, y, test_size=0.3, stratify=y, random_state=0
    )
    print(
        f"Digits as a table: {X.shape[0]} rows of {X.shape[1]} numbers, 10 classes. "
        f"{len(X_test)} rows are held out.\nSearching for {SECONDS} s.",
        flush=True,
    )
    search = NASClassifier(
        max_time=SECONDS,
        scoring="neg_log_loss",  # smoother than accuracy
        random_state=0,
        verbose=1,
    )
    models = {
        "NASClassifier": search,
        "HistGradientBoosting": HistGradientBoostingClassifier(random_state=0),
        "MLP": make_pipeline(StandardScaler(), MLPClassifier(random_state=0)),
        "LogisticRegression": make_pipeline(
            StandardScaler(), LogisticRegression(max_iter=1000)
        ),
    }
    rows = compare(models, X_train, X_test, y_train, y_test)
    n_scored = len(search.history_.succeeded)
    print(
        f"\n{n_scored} architectures scored in {search.search_time_:.1f} s "
        f"(stopped by {search.stop_reason_}). The best one has"
    )
    print(f"    {search.search_space_.describe(search.best_architecture_)}.")
    print(
        f"Its validation score is {search.best_score_:.3f}, that of the default "
        f"network {search.baseline_scores_['default']:.3f}, and greater is better."
    )
    members = search.ensemble_.members
    n_networks = sum(len(member.networks) for member in members)
    print(f"{len(members)} of them predict together, {n_networks} networks in all.")
    show_scores(rows, len(y_test))
    draw_search(search, path)
    print(f"\nThe figure of the search is in {path.resolve()}")


if __name__ == "__main__":  # draws the figure of the README, too
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "search.png"))
