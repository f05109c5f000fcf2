"""Results of tables.py and images.py: sknas beside other models."""

import _markdown as md
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from _image_models import SETS as IMAGE_SETS
from tables import SETS

NAMES = {
    "hgb": "HistGradientBoosting",
    "catboost": "CatBoost",
    "lightgbm": "LightGBM",
    "realmlp": "RealMLP",
    "autogluon": "AutoGluon",
    "bayes_search": "BayesSearchCV",
    "mlp": "MLPClassifier",
    "resnet": "ResNet",
    "autokeras": "AutoKeras",
    "sknas": "sknas",
    "sknas_gradient": "sknas, by gradient",
}
# Other models have no time limit, so their results hold for each budget.
LIMITED = ("autogluon", "bayes_search", "sknas", "sknas_portfolio")
SHORT, LONG = 60.0, 300.0  # budgets
ELSEWHERE = " \\*"
TICKS = (0.8, 1, 1.25, 1.5, 2, 2.5)
VALUES = ["rows", "error", "logloss", "acc", "auc", "rmse", "r2", "fit_s", "predict_s"]
OWN = ["load", "best_score", "optimism", "n_trials", "members"]
KEY = ["model", "data", "seed"]


def read_tables():
    """Return the lines of all models on tables."""
    lines = md.read("tables", "tables_elsewhere")
    return lines.assign(measured_elsewhere=lines["measured_elsewhere"].eq(True))


def average(lines, budget):
    """Return means over the seeds, one row per table and model."""
    is_limited = lines["model"].isin(LIMITED)
    lines = lines[lines["budget"].eq(budget) | ~is_limited]
    lines = lines[lines["data"].isin(lines["data"][lines["model"].eq("sknas")])]
    # Prefer lines that were measured here, and with this budget.
    lines = lines.assign(other=lines["budget"].ne(budget))
    lines = lines.sort_values(["measured_elsewhere", "other"]).drop_duplicates(KEY)
    groups = lines.groupby(["data", "model"])
    means = groups[VALUES + OWN].mean()
    means["error_se"] = groups["error"].sem()
    means["seeds"] = groups["error"].count()
    means["measured_elsewhere"] = groups["measured_elsewhere"].all()
    models = [*NAMES, "sknas_portfolio"]
    order = pd.MultiIndex.from_product([SETS, models], names=["data", "model"])
    return means.reindex(order[order.isin(means.index)])


def wide(means, column):
    """Return one row per table and one column per model; NaN if not measured."""
    cells = means[column].unstack()
    cells = cells.reindex([name for name in SETS if name in cells.index])
    return cells[[name for name in NAMES if name in cells]]


def relative(means, column="error"):
    """Return the values of the models divided by those of sknas."""
    values = wide(means, column)
    return values.div(values["sknas"], axis=0)


def compare():
    """Return one row per model: errors relative to sknas, and seconds."""
    lines = read_tables()
    means = average(lines, SHORT)
    error, logloss = relative(means), relative(means, "logloss")
    later = relative(average(lines, LONG))
    wins = (error > 1).sum().map(str) + " of " + error.count().map(str)
    cells = pd.DataFrame(
        {
            f"error, {SHORT:g} s": md.text(md.geometric_mean(error), "{:.2f}"),
            "sknas is better on": wins.mask(wins.index == "sknas"),
            f"log-loss, {SHORT:g} s": md.text(md.geometric_mean(logloss), "{:.2f}"),
            f"error, {LONG:g} s": md.text(md.geometric_mean(later), "{:.2f}"),
            "fit, s": md.text(wide(means, "fit_s").median(), "{:.1f}"),
            "predict, s": md.text(wide(means, "predict_s").median(), "{:.2f}"),
        },
        index=error.columns,
    )
    cells = cells.fillna(md.MISSING).rename(index=NAMES).rename_axis("model")
    return md.table(cells, lines)


def draw():
    """Draw the errors relative to sknas: one row per model, one dot per table."""
    means = average(read_tables(), SHORT)
    seconds = wide(means, "fit_s").median()
    ratios = relative(means).drop(columns="sknas")
    ratios = ratios[md.geometric_mean(ratios).sort_values().index]
    fig, ax = plt.subplots(figsize=(8, 3.8), layout="constrained")
    ax.axvline(1, color="#555555", lw=1.2)
    side = {"transform": ax.get_yaxis_transform(), "va": "center"}
    for row, name in enumerate(ratios):
        values = ratios[name].dropna()
        heights = row + np.linspace(-0.2, 0.2, len(values))
        colors = np.where(values > 1, "C0", "C3")
        ax.scatter(values, heights, color=colors, alpha=0.6, s=28, lw=0)
        ax.plot(md.geometric_mean(values), row, "D", color="black", ms=8)
        wins = f"{(values > 1).sum()} of {len(values)}"
        ax.text(1.02, row, f"{wins}; fit {seconds[name]:.1f} s", **side)
    ax.set_yticks(range(ratios.shape[1]), [NAMES[name] for name in ratios])
    ax.invert_yaxis()
    ax.text(1.02, -0.7, "sknas is better on", **side)
    ax.set_title(f"sknas with {SHORT:g} s for each table", loc="left")
    ax.set_xscale("log")
    ax.set_xticks(TICKS, map(str, TICKS))
    ax.set_xticks([], minor=True)
    ax.set_xlabel("error / error of sknas (blue, right of 1: sknas is better)")
    md.finish(fig, "peers.png")
    return "![Errors of other models relative to sknas](_static/peers.png)"


def errors(budget):
    """Return the errors of each model at one budget; write a CSV file."""
    lines = read_tables()
    means = average(lines, budget)
    file = f"tables_{budget:g}.csv"
    means.to_csv(md.FILES / file, float_format="%.5g")
    values, deviations = wide(means, "error"), wide(means, "error_se")
    cells = values.map("{:.4f}".format)
    cells = cells.mask(values.eq(values.min(axis=1), axis=0), "**" + cells + "**")
    cells += deviations.map(" ± {:.4f}".format).where(deviations.notna(), "")
    cells += np.where(wide(means, "measured_elsewhere").eq(True), ELSEWHERE, "")
    for column, name in (("fit_s", "fit, s"), ("load", "load")):
        medians = md.text(wide(means, column).median(), "{:.1f}")
        cells.loc[f"*median {name}*"] = medians
    cells = cells.rename(columns=NAMES).rename_axis("table")
    return f"{md.table(cells, lines)}\n\n[All scores, seconds and loads]({file})"


def compare_images():
    """Return the accuracy of each model on each set of images, and its seconds."""
    lines = md.read("images")
    cells, seconds = {}, {}
    for data in IMAGE_SETS:
        groups = lines[lines["data"] == data].groupby("model")
        accuracy, machine = groups["acc"].agg(md.mean_text), groups["machine"].last()
        best = groups["acc"].mean().idxmax()
        accuracy[best] = f"**{accuracy[best]}**"
        accuracy += np.where(machine == machine["sknas"], "", ELSEWHERE)
        cells[f"{data}, {groups['budget'].max().max():g} s"] = accuracy
        seconds[data] = groups["fit_s"].mean().map("{:.0f}".format)
    cells = pd.DataFrame(cells)
    cells["fit, s"] = pd.DataFrame(seconds).agg(" / ".join, axis=1)
    return md.table(in_order(cells), lines)


def image_details():
    """Return the results of each model on each set of images."""
    lines = md.read("images")
    groups = lines.groupby(["data", "model"], sort=False)
    cells = {
        "training images": groups["images"].max().map("{:,}".format),
        "seeds": groups.size(),
        "accuracy": groups["acc"].agg(md.mean_text),
        "fit, s": groups["fit_s"].mean().map("{:.0f}".format),
        "predict, s": groups["predict_s"].mean().map("{:.1f}".format),
        "trials": md.text(groups["n_trials"].mean(), "{:.0f}"),
    }
    cells = pd.DataFrame(cells)
    parts = [
        f"{data}:\n\n{md.markdown(in_order(cells.loc[data]))}" for data in IMAGE_SETS
    ]
    return "\n\n".join(parts)


def in_order(cells):
    """Return the rows of models in order, with their full names."""
    order = [name for name in NAMES if name in cells.index]
    return cells.loc[order].rename(index=NAMES).rename_axis("model")


PARTS = {
    "peers_figure": draw,
    "peers": compare,
    "image_peers": compare_images,
    "tables_60": lambda: errors(SHORT),
    "tables_300": lambda: errors(LONG),
    "images": image_details,
}
