"""Results of fidelity.py: a section of docs/benchmarks.md, and a figure."""

import json

import matplotlib

matplotlib.use("Agg")  # draw to files, without a window

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from _markdown import markdown


def write_section(results, docs):
    """Return the section as Markdown; write the figure into `docs`."""
    path = results / "fidelity.jsonl"
    if not path.exists():
        return "Not measured yet.\n"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    lines = pd.DataFrame(rows)
    draw(lines, docs / "_static" / "fidelity.png")
    machines = ", ".join(sorted(lines["machine"].unique()))
    parts = [
        "`best at` is the best score after the number of epochs in brackets, the "
        "smallest total of any arm on that table. Means over the seeds.\n",
        markdown(summary(lines)),
        "![Best score against epochs](_static/fidelity.png)\n",
        f"Machine: {machines}.\n",
    ]
    return "\n".join(parts)


def summary(lines):
    """Return one row per table and arm."""
    cells = {}
    for data, own in lines.groupby("data", sort=False):
        least = min(curve[-1][0] for curve in own["curve"])
        for arm, each in own.groupby("arm", sort=False):
            curves = list(each["curve"])
            cells[f"{data}, {arm}"] = {
                "seeds": str(len(curves)),
                "epochs": f"{np.mean([curve[-1][0] for curve in curves]):.0f}",
                "best score": f"{np.mean([curve[-1][1] for curve in curves]):.4f}",
                "best at": f"{np.mean([at(curve, least) for curve in curves]):.4f} "
                f"({least})",
            }
    return pd.DataFrame.from_dict(cells, orient="index")


def at(curve, epochs):
    """Return the best score after a number of epochs."""
    known = [score for spent, score in curve if spent <= epochs]
    return known[-1] if known else np.nan


def draw(lines, path):
    """Draw the best score so far against epochs, one panel per table."""
    tables = list(dict.fromkeys(lines["data"]))
    fig, axes = plt.subplots(1, len(tables), figsize=(11, 3.4), layout="constrained")
    for ax, data in zip(np.atleast_1d(axes), tables, strict=True):
        own = lines[lines["data"] == data]
        grid = np.linspace(0, max(c[-1][0] for c in own["curve"]), 200)
        for arm, each in own.groupby("arm", sort=False):
            curves = [[at(curve, x) for x in grid] for curve in each["curve"]]
            mean = np.mean(curves, axis=0)  # NaN until all have a score
            ax.plot(grid, mean, drawstyle="steps-post", label=arm)
        ax.set_title(data, loc="left", fontsize=10)
        ax.set_xlabel("epochs of all trainings")
        ax.spines[["top", "right"]].set_visible(False)
    np.atleast_1d(axes)[0].set_ylabel("best validation score")
    handles, labels = np.atleast_1d(axes)[0].get_legend_handles_labels()
    fig.legend(handles, labels, frameon=False, loc="outside lower center", ncols=4)
    fig.savefig(path, dpi=110)
    plt.close(fig)
