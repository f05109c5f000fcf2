"""Results of tables.py: a section of docs/benchmarks.md, CSV files and figures."""

import json

import matplotlib

matplotlib.use("Agg")  # draw to files, without a window

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from _markdown import markdown
from _peers import MODELS
from tables import SETS

# Other models have no time limit, so their results hold for each budget.
LIMITED = ("autogluon", "bayes_search", "sknas", "sknas_portfolio")
FILES = ("tables.jsonl", "tables_elsewhere.jsonl")
KEY = ["model", "data", "seed"]
COLUMNS = [
    "rows",
    "budget",
    "seeds",
    "failed",
    "error",
    "error_se",
    "logloss",
    "acc",
    "auc",
    "rmse",
    "r2",
    "fit_s",
    "predict_s",
    "load",
    "best_score",
    "optimism",
    "n_trials",
    "members",
    "measured_elsewhere",
]
SHOWN = (60.0, 300.0)  # budgets with tables of their own
MISSING = "-"
ELSEWHERE = " \\*"
TICKS = (0.25, 0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 3, 4)


def write_section(results, docs):
    """Return the section as Markdown; write the files it links to into `docs`."""
    lines = read(results)
    if lines.empty:
        return "Not measured yet.\n"
    budgets = lines["budget"][lines["model"].isin(LIMITED)].unique()
    shown = sorted(set(budgets) & set(SHOWN))
    parts = [write_budget(lines, budget, docs) for budget in shown]
    parts.append(write_anytime(lines, docs))
    machines = ", ".join(sorted(lines["machine"].dropna().unique()))
    return "\n".join([*parts, f"Machine: {machines}.\n"])


def read(results):
    """Return all lines, with all columns."""
    paths = [results / name for name in FILES if (results / name).exists()]
    texts = [line for path in paths for line in path.read_text().splitlines()]
    rows = [json.loads(line) for line in texts]
    lines = pd.DataFrame(rows).reindex(columns=[*KEY, *COLUMNS, "machine"])
    lines["measured_elsewhere"] = lines["measured_elsewhere"].eq(True)
    return lines


def write_budget(lines, budget, docs):
    """Return the tables of one budget; write its CSV file and its figure."""
    means = average(lines, budget)
    name = f"tables_{budget:g}"
    (docs / "benchmarks").mkdir(exist_ok=True)
    means.to_csv(docs / "benchmarks" / f"{name}.csv", float_format="%.5g")
    parts = [
        f"### With {budget:g} s\n",
        "The error of each model, with its standard error over the seeds:\n",
        markdown(error_cells(means)),
    ]
    ratios = {what: compare(means, what) for what in ("error", "logloss")}
    if ratios["error"].notna().any(axis=None):
        draw(ratios["error"], means, budget, docs / "_static" / f"{name}.png")
        parts += [
            "The error of sknas divided by that of each other model; below 1 sknas is "
            "better:\n",
            markdown(ratio_cells(ratios, means)),
            "![The error of sknas divided by that of each other model, for each table]"
            f"(_static/{name}.png)\n",
            "Validation scores of sknas, and how optimistic they are:\n",
            markdown(optimism_cells(means)),
        ]
    else:
        parts.append("sknas is not measured yet.\n")
    parts.append(f"[All numbers](benchmarks/{name}.csv)\n")
    return "\n".join(parts)


def write_anytime(lines, docs):
    """Return the error of sknas against its budget; draw it."""
    lines = lines[~lines["measured_elsewhere"]]
    own = lines[lines["model"].eq("sknas")]
    errors = own.pivot_table("error", "data", "budget")
    errors = errors[errors.notna().sum(axis=1) > 2].dropna(axis=1, how="all")
    if errors.empty:
        return ""
    cells = errors.apply(lambda values: text(values, "{:.4f}"))
    cells.columns = [f"{budget:g} s" for budget in cells]
    others = lines[~lines["model"].isin(LIMITED)]
    limits = others.pivot_table("error", "data", "model")
    fig, axes = plt.subplots(1, len(errors), figsize=(11, 3.2), layout="constrained")
    for ax, (table, row) in zip(np.atleast_1d(axes), errors.iterrows(), strict=True):
        row = row.dropna()
        ax.plot(row.index, row, "o-", color="C0", label="sknas")
        for index, model in enumerate(limits.columns):
            level = limits.get(model, {}).get(table)
            ax.axhline(level, color=f"C{index + 1}", ls="--", lw=1, label=model)
        ax.set_xscale("log")
        ax.set_xticks(row.index, [f"{budget:g}" for budget in row.index])
        ax.set_xticks([], minor=True)
        ax.set_title(table, loc="left", fontsize=10)
        ax.set_xlabel("max_time, s")
        ax.spines[["top", "right"]].set_visible(False)
    np.atleast_1d(axes)[0].set_ylabel("test error")
    handles, labels = np.atleast_1d(axes)[0].get_legend_handles_labels()
    fig.legend(handles, labels, frameon=False, loc="outside lower center", ncols=6)
    fig.savefig(docs / "_static" / "anytime.png", dpi=110)
    plt.close(fig)
    return (
        "### Effect of the time limit\n\nThe error of sknas for `--budget` 5 to 300; "
        "dashed lines in the figure are models without a limit:\n\n"
        + markdown(cells)
        + "\n![The error of sknas against its time](_static/anytime.png)\n"
    )


def average(lines, budget):
    """Return means over the seeds, one row per table and model."""
    is_limited = lines["model"].isin(LIMITED)
    lines = lines[lines["budget"].eq(budget) | ~is_limited]
    lines = lines[lines["data"].isin(lines["data"][lines["model"].isin(LIMITED)])]
    # Prefer lines that were measured here, and with this budget.
    lines = lines.assign(other=lines["budget"].ne(budget))
    lines = lines.sort_values(["measured_elsewhere", "other"]).drop_duplicates(KEY)
    groups = lines.groupby(["data", "model"])
    means = groups.mean(numeric_only=True)
    means["error_se"] = groups["error"].sem()
    means["seeds"] = groups["error"].count()
    means["failed"] = groups.size() - means["seeds"]
    means["measured_elsewhere"] = groups["measured_elsewhere"].all()
    order = pd.MultiIndex.from_product([SETS, MODELS], names=["data", "model"])
    return means.reindex(order[order.isin(means.index)])[COLUMNS]


def wide(means, column):
    """Return one row per table and one column per model; NaN if not measured."""
    return means[column].unstack().reindex(index=tables(means), columns=list(MODELS))


def tables(means):
    """Return the tables that have results, in order."""
    found = set(means.index.get_level_values("data"))
    return [name for name in SETS if name in found]


def compare(means, column):
    """Return the values of sknas divided by those of each other model."""
    values = wide(means, column).astype(float)
    return values.drop(columns="sknas").rdiv(values["sknas"], axis=0)


def error_cells(means):
    cells = pd.DataFrame(MISSING, tables(means), list(MODELS))
    for (data, model), row in means.iterrows():
        cell = f"{row['error']:.4f}" if row["seeds"] else "failed"
        if row["seeds"] > 1:
            cell += f" ± {row['error_se']:.4f}"
        if row["seeds"] and row["failed"]:
            cell += f", {row['failed']} failed"
        cells.loc[data, model] = cell + ELSEWHERE * row["measured_elsewhere"]
    for name, column in (("seconds of fit", "fit_s"), ("load", "load")):
        cells.loc[f"*median {name}*"] = text(wide(means, column).median(), "{:.1f}")
    return cells


def ratio_cells(ratios, means):
    known = ratios["error"].notna()
    elsewhere = wide(means, "measured_elsewhere")[known.columns].eq(True)
    cells = ratios["error"].apply(text)
    cells += np.where(known & elsewhere, ELSEWHERE, "")
    for name, what in (("error", "error"), ("log-loss", "logloss")):
        ratio = ratios[what]
        wins = (ratio < 1).sum().map(str) + " of " + ratio.count().map(str)
        cells.loc[f"*geometric mean, {name}*"] = text(geometric_mean(ratio))
        cells.loc[f"*sknas better, {name}*"] = wins
    return cells


def geometric_mean(ratios):
    return np.exp(np.log(ratios).mean())


def optimism_cells(means):
    found = means.xs("sknas", level="model")
    columns = ["seeds", "best_score", "optimism", "n_trials", "members", "fit_s"]
    forms = ["{:.0f}", "{:.4f}", "{:+.4f}", "{:.1f}", "{:.1f}", "{:.1f}"]
    cells = [
        text(found[column], form) for column, form in zip(columns, forms, strict=True)
    ]
    return pd.concat(cells, axis=1)


def text(values, form="{:.3f}"):
    return values.map(form.format, na_action="ignore").astype(object).fillna(MISSING)


def draw(ratios, means, budget, path):
    """Draw ratios of errors: one row per table, one colour per model."""
    elsewhere = wide(means, "measured_elsewhere").eq(True)
    shown = [table for table in ratios.index if ratios.loc[table].notna().any()]
    models = [model for model in ratios if ratios[model].notna().any()]
    rows = np.arange(len(shown))
    fig, ax = plt.subplots(figsize=(8, 5.4), layout="constrained")
    ax.axvline(1, color="#555555", lw=1.2)
    for index, model in enumerate(models):
        height = rows + 0.09 * (index - (len(models) - 1) / 2)
        ratio, away = ratios.loc[shown, model], elsewhere.loc[shown, model]
        color = f"C{index}"
        ax.plot(ratio[~away], height[~away], "o", color=color, label=model)
        ax.plot(ratio[away], height[away], "o", color=color, mfc="none")
        ax.plot(geometric_mean(ratio), len(shown), "D", color=color, ms=8)
    if elsewhere.loc[shown, models].any(axis=None):
        ax.plot([], [], "o", color="#555555", mfc="none", label="measured elsewhere")
    ax.set_yticks([*rows, len(shown)], [*shown, "geometric mean"])
    ax.invert_yaxis()
    ax.grid(axis="y", color="#eeeeee")
    ax.set_axisbelow(True)
    ax.set_xscale("log")
    ax.set_xlabel("error of sknas / error of the other model (left of 1: sknas better)")
    ticks = [tick for tick in TICKS if ax.get_xlim()[0] <= tick <= ax.get_xlim()[1]]
    ax.set_xticks(ticks, map(str, ticks), minor=False)
    ax.set_xticks([], minor=True)
    ax.set_title(f"sknas and its peers, {budget:g} s for each table", loc="left")
    ax.spines[["top", "right"]].set_visible(False)
    fig.legend(frameon=False, loc="outside lower center", ncols=5)
    fig.savefig(path, dpi=110)
    plt.close(fig)
