"""Results that show whether a search pays: beside its default, chance, and time."""

from functools import partial

import _markdown as md
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from _peers_report import LIMITED, LONG, NAMES, SHORT, average, read_tables


def small_tables(lines):
    """Return the scores on the tables of scikit-learn."""
    kinds = ["model", "predicts"]
    scores = lines.pivot(index=["table", "seed"], columns=kinds, values="score")
    scores = scores[list(lines.groupby(kinds, sort=False).groups)]
    cells = scores.groupby("table").agg(partial(md.mean_text, form="{:.3f}"))
    cells = cells.loc[lines["table"].unique()]
    apart = scores.sub(scores["default", "network"], axis=0).agg(np.sign)
    counts = pd.concat([apart.eq(sign).sum().map(str) for sign in (1, 0, -1)], axis=1)
    cells.loc["*better / equal / worse*"] = counts.agg(" / ".join, axis=1)
    cells.columns = [f"{model}, {size}" for model, size in cells]
    return cells


def larger_searches():
    """Say what searches gain on larger tables, on images, and by gradient."""
    lines = read_tables()
    alone, timed = portfolio_errors(lines), errors_by_time(lines)
    images = md.read("images")
    n_trials = images[images["model"] == "sknas"]["n_trials"].max()
    images = 1 - images.pivot_table("acc", "data", "model")
    presets = md.read("presets").pivot_table("accuracy", "data", "preset")
    better = presets.drop(columns="random").gt(presets["random"], axis=0)
    return "\n".join(
        [
            f"- A search of {SHORT:g} s beside its portfolio alone, on "
            + factor(alone["search"] / alone["portfolio"], "tables"),
            f"- {LONG:g} s instead of {SHORT:g} s, on "
            + factor(timed[LONG] / timed[SHORT], "tables"),
            "- A search of images beside one fixed ResNet that is trained for the same "
            f"time, on {factor(images['sknas'] / images['resnet'], 'sets of images')} "
            f"It trained at most {n_trials:.0f} architectures, its portfolio alone.",
            f"- Search by gradient, {better.shape[1]} methods on {len(better)} sets of "
            f"data: more accurate than random search for the same time in "
            f"{better.sum().sum()} of {better.size} cases.",
        ]
    )


def factor(ratios, things):
    """Say by which factor errors change; two percent are noise."""
    ratio = md.geometric_mean(ratios)
    verdict = "it pays" if ratio < 0.98 else "it does not pay"
    if 0.98 <= ratio < 1.02:
        verdict = "it makes no difference"
    return (
        f"{len(ratios)} {things}: {ratio:.3f} times the error, lower on "
        f"{(ratios < 1).sum()}. **{verdict.capitalize()}.**"
    )


def portfolio_errors(lines):
    """Return the errors of a search and of its portfolio."""
    errors = average(lines, SHORT)["error"].unstack()
    cells = errors[["sknas_portfolio", "sknas"]].dropna()
    return cells.set_axis(["portfolio", "search"], axis=1).rename_axis("table")


def portfolio_alone():
    lines = read_tables()
    cells = portfolio_errors(lines)
    cells["search / portfolio"] = cells["search"] / cells["portfolio"]
    lines = lines[lines["model"].str.startswith("sknas")]
    return md.table(cells.map("{:.4f}".format), lines)


def errors_by_time(lines):
    """Return the errors of sknas, one column per budget."""
    own = lines[lines["model"].eq("sknas")]
    return own.pivot_table("error", "data", "budget").dropna().rename_axis("table")


def time_limits():
    """Return the errors of sknas for each time limit; draw them."""
    lines = read_tables()
    errors = errors_by_time(lines)
    draw(errors, lines)
    cells = errors.map("{:.4f}".format).rename(columns="{:g} s".format)
    figure = "![The error of sknas against its time](../_static/anytime.png)"
    return f"{md.table(cells, lines[lines['model'].eq('sknas')])}\n\n{figure}"


def draw(errors, lines):
    """Draw the errors of sknas against the time limit, one panel per table."""
    others = lines[~lines["model"].isin(LIMITED) & ~lines["measured_elsewhere"]]
    limits = others.pivot_table("error", "data", "model")
    fig, axes = plt.subplots(1, len(errors), figsize=(11, 3.2), layout="constrained")
    for ax, (table, row) in zip(axes, errors.iterrows(), strict=True):
        ax.plot(row.index, row, "o-", color="C0", label="sknas")
        for index, (model, level) in enumerate(limits.loc[table].items(), start=1):
            label = NAMES[model]
            ax.axhline(level, color=f"C{index}", ls="--", lw=1, label=label)
        ax.set_xscale("log")
        ax.set_xticks(row.index, [f"{budget:g}" for budget in row.index])
        ax.set_xticks([], minor=True)
        ax.set_title(table, loc="left", fontsize=10)
        ax.set_xlabel("max_time, s")
    axes[0].set_ylabel("test error")
    md.finish(fig, "anytime.png", loc="outside lower center", ncols=6)


def halving(lines):
    """Return one row per table and arm: means over the seeds."""
    cells = {}
    for data, own in lines.groupby("data", sort=False):
        least = min(curve[-1][0] for curve in own["curve"])
        for arm, each in own.groupby("arm", sort=False):
            epochs, score = np.mean([curve[-1] for curve in each["curve"]], axis=0)
            early = np.mean([score_at(curve, least) for curve in each["curve"]])
            cells[f"{data}, {arm}"] = {
                "epochs": f"{epochs:.0f}",
                "best score": f"{score:.4f}",
                "best score within": f"{early:.4f} ({least} epochs)",
            }
    return pd.DataFrame.from_dict(cells, orient="index").rename_axis("table, search")


def score_at(curve, epochs):
    """Return the best score after a number of epochs."""
    return [score for spent, score in curve if spent <= epochs][-1]


PORTFOLIOS = ("table", "first 1", "first 4", "first 8", "first 12")
PARTS = {
    "small_tables": partial(md.table_of, "search_pays", small_tables),
    "larger_searches": larger_searches,
    "time_limits": time_limits,
    "portfolio_alone": portfolio_alone,
    "portfolio": partial(md.table_of, "portfolio_held_out", md.select(*PORTFOLIOS)),
    "halving": partial(md.table_of, "fidelity", halving),
}
