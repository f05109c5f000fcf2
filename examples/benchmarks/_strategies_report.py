"""Results of strategies.py and presets.py: strategies beside each other."""

from functools import partial

import _markdown as md
import matplotlib.pyplot as plt
from _nas_tables import NAMES as TABLES
from _optimisers import NAMES

COUNTS = (20, 40, 80)
REGRETS = [f"regret_{count}" for count in COUNTS]
DRAWN = 10  # seeds that a strategy needs to be drawn
DEFAULT = "bayesian"
OWN = ["random", "local", "evolution", "reinforce", DEFAULT]
OTHERS = {
    "optuna tpe": "Optuna, TPE",
    "optuna gp": "Optuna, GP",
    "skopt gp": "scikit-optimize, GP",
    "skopt forest": "scikit-optimize, forest",
    "smac": "SMAC",
}


def read_single():
    """Return the lines of strategies that were asked for one proposal at a time."""
    lines = md.read("strategies")
    lines = lines[lines["batch"] == 1]
    counts = lines.groupby("strategy")["table"].nunique()
    names = [name for name in NAMES if counts.get(name, 0) == len(TABLES)]
    return lines[lines["strategy"].isin(names)]


def whole(lines):
    """Return the regret at 80 of seeds that ran on all tables."""
    groups = lines.groupby(["strategy", "batch", "seed"])["regret_80"]
    cells = groups.agg(["mean", "size"])
    return cells.loc[cells["size"] == len(TABLES), "mean"]


def regrets(lines):
    """Return one row per strategy."""
    means = lines.groupby(["strategy", "table"])[REGRETS].mean()
    last = means["regret_80"].unstack("strategy")
    seeds = whole(lines).droplevel("batch").unstack("strategy")
    behind = seeds.drop(columns=DEFAULT).sub(seeds[DEFAULT], axis=0)
    cells = means.groupby("strategy").mean().map("{:.3f}".format)
    cells.columns = [f"after {count}" for count in COUNTS]
    cells["behind"] = behind.agg(partial(md.mean_text, form="{:.3f}"))
    cells["worse"] = last.gt(last["random"], axis=0).sum()
    cells["seeds"] = seeds.count()
    seconds = lines.groupby("strategy")["seconds"].median() / COUNTS[-1]
    cells["ms per proposal"] = (1e3 * seconds).map("{:.1f}".format)
    cells = cells.loc[[name for name in NAMES if name in cells.index]]
    return cells.fillna(md.MISSING).rename(OTHERS)


def compare():
    """Return our strategies and those of others, without variants."""
    lines = read_single()
    cells = regrets(lines).loc[[*OWN, *OTHERS.values()]]
    return md.table(cells.drop(columns="worse"), lines)


def compare_all():
    """Return all strategies and their variants; draw those with enough seeds."""
    lines = read_single()
    draw(lines)
    figure = "![Regret against trainings](../_static/strategies.png)"
    cells = regrets(lines).drop(columns="ms per proposal")
    return f"{md.table(cells, lines)}\n\n{figure}"


def on_each_table():
    """Return the regret at 80 on each table; write all regrets to a CSV file."""
    lines = read_single()
    means = lines.groupby(["strategy", "table"])[REGRETS].mean()
    means.to_csv(md.FILES / "strategies.csv", float_format="%.5g")
    cells = (
        means["regret_80"].unstack("strategy").loc[list(TABLES), [*OWN, "optuna tpe"]]
    )
    cells = cells.rename(columns=OTHERS)
    link = "[All strategies, after 20, 40 and 80](strategies.csv)"
    return f"{md.table(cells.map('{:.4f}'.format), lines)}\n\n{link}"


def by_batch(lines):
    """Return the regret at 80 by batch size, on the seeds that all have."""
    names = lines.loc[lines["batch"] > 1, "strategy"].unique()
    cells = whole(lines[lines["strategy"].isin(names)]).unstack("seed").dropna(axis=1)
    return cells.agg(md.mean_text, axis=1).unstack("batch").fillna(md.MISSING)


def presets(lines):
    """Return the accuracy of each method on each set, and the seconds of a search."""
    groups = lines.groupby(["preset", "data"], sort=False)
    cells = groups["accuracy"].agg(md.mean_text).unstack()
    cells = cells.loc[lines["preset"].unique(), lines["data"].unique()]
    seconds = groups["search_s"].mean().unstack()["digits"]
    cells["search of digits, s"] = md.text(seconds, "{:.0f}")
    return cells.rename_axis("method")


def draw(lines):
    """Draw mean regret against trainings, for strategies with enough seeds."""
    n_seeds = lines.groupby("strategy")["seed"].nunique()
    means = lines.groupby(["strategy", "table"])[REGRETS].mean()
    means = means.groupby("strategy").mean().loc[[*OWN, *OTHERS]]
    fig, ax = plt.subplots(figsize=(8, 4.2), layout="constrained")
    for name, row in means[n_seeds[means.index] >= DRAWN].iterrows():
        style, label = "o-" if name in OWN else "s--", OTHERS.get(name, name)
        ax.plot(COUNTS, row, style, label=label, ms=4)
    ax.set_ylim(0)
    ax.set_xticks(COUNTS, map(str, COUNTS))
    ax.set_xlabel("trainings")
    ax.set_ylabel("regret: 0 best, 1 median")
    md.finish(fig, "strategies.png", loc="outside right")


AFTER = ("strategy", "after_50", "after_100", "after_200")
PARTS = {
    "strategies": compare,
    "all_strategies": compare_all,
    "regret_by_table": on_each_table,
    "batches": partial(md.table_of, "strategies", by_batch),
    "proposal_seconds": partial(md.table_of, "strategies_overhead", md.select(*AFTER)),
    "presets": partial(md.table_of, "presets", presets),
    "presets_step": partial(
        md.table_of, "presets_step", md.select("preset", "step_s", "peak_mb")
    ),
}
