"""Results of strategies.py: a section of docs/benchmarks.md, a CSV and a figure."""

import json

import matplotlib

matplotlib.use("Agg")  # draw to files, without a window

import matplotlib.pyplot as plt
import pandas as pd
from _markdown import markdown
from _nas_tables import NAMES as TABLES
from _optimisers import NAMES

COUNTS = (20, 40, 80)
REGRETS = [f"regret_{count}" for count in COUNTS]
MISSING = "-"
RANKED = 10  # seeds that a strategy needs to be ranked
DEFAULT = "bayesian"


def write_section(results, docs):
    """Return the section as Markdown; write the files it links to into `docs`."""
    lines = read(results / "strategies.jsonl")
    if lines.empty:
        return "Not measured yet.\n"
    single = lines[lines["batch"] == 1]
    means = single.groupby(["strategy", "table"])[REGRETS].mean()
    means.to_csv(docs / "benchmarks" / "strategies.csv", float_format="%.5g")
    draw(single, docs / "_static" / "strategies.png")
    machines = ", ".join(sorted(lines["machine"].unique()))
    parts = [
        "Means over the tables. `rank` is the average rank among strategies with "
        f"{RANKED} seeds or more, `se` the standard error of `regret_80` over the "
        "seeds, `worse` the number of tables on which random search is better at 80. "
        f"`behind` is the additional regret at 80, relative to {DEFAULT}, on the "
        "seeds that both have, with its standard error; use it to judge strategies "
        "with few seeds.\n",
        markdown(summary(single)),
        "![Regret against evaluations](_static/strategies.png)\n",
        "On each table, `regret_80`:\n",
        markdown(by_table(single)),
        "[All numbers](benchmarks/strategies.csv)\n",
    ]
    if (lines["batch"] > 1).any():
        parts += ["In batches, `regret_80`:\n", markdown(by_batch(lines))]
    timed = read(results / "strategies_overhead.jsonl")
    if not timed.empty:
        columns = [name for name in timed if name.startswith("after")]
        cells = timed.set_index("strategy")[columns]
        parts += [
            "Seconds per proposal, in batches of 8, after 50 to 200 observations:\n",
            markdown(cells.map("{:.4f}".format)),
        ]
    return "\n".join([*parts, f"Machine: {machines}.\n"])


def read(path):
    """Return all lines of a file."""
    texts = path.read_text().splitlines() if path.exists() else []
    return pd.DataFrame([json.loads(text) for text in texts])


def complete(lines):
    """Return the strategies that ran on all tables, in order."""
    counts = lines.groupby("strategy")["table"].nunique()
    return [name for name in NAMES if counts.get(name, 0) == len(TABLES)]


def summary(lines):
    """Return one row per strategy."""
    names = complete(lines)
    lines = lines[lines["strategy"].isin(names)]
    by_table = lines.groupby(["strategy", "table"])[REGRETS].mean()
    frame = by_table.groupby("strategy").mean().reindex(names)
    seeds = lines.groupby(["strategy", "seed"])["regret_80"].agg(["mean", "size"])
    whole = seeds[seeds["size"] == len(TABLES)]["mean"]
    n_seeds = whole.groupby("strategy").size()
    ranked = n_seeds.index[n_seeds >= RANKED]
    cells = frame.map("{:.4f}".format)
    cells["se"] = (
        whole.groupby("strategy").sem().map("{:.4f}".format, na_action="ignore")
    )
    for count in COUNTS[1:]:
        ranks = by_table[f"regret_{count}"].unstack("strategy")[ranked].rank(axis=1)
        cells[f"rank_{count}"] = ranks.mean().map("{:.2f}".format)
    last = by_table["regret_80"].unstack("strategy")
    worse = last.gt(last["random"], axis=0).sum()
    cells["worse"] = worse.map(str)
    cells["behind"] = behind(whole)
    cells["seeds"] = n_seeds.map(str)
    per_proposal = lines.groupby("strategy")["seconds"].median() / COUNTS[-1]
    cells["s_per_proposal"] = per_proposal.map("{:.4f}".format)
    return cells.fillna(MISSING)


def behind(regrets):
    """Return differences to the default strategy, paired by seed."""
    table = regrets.unstack("strategy")
    apart = table.sub(table[DEFAULT], axis=0)
    means = apart.mean().map("{:+.4f}".format)
    several = apart.count() > 1
    error = apart.sem().map(" \u00b1 {:.4f}".format)
    return means.where(~several, means + error).drop(DEFAULT)


def by_table(lines):
    """Return the regret at 80, one row per table."""
    means = lines.pivot_table("regret_80", "table", "strategy").reindex(list(TABLES))
    means = means.reindex(columns=[name for name in NAMES if name in means])
    return means.map("{:.4f}".format, na_action="ignore").fillna(MISSING)


def by_batch(lines):
    """Return the regret at 80 by batch size, on the seeds that all have."""
    names = lines.loc[lines["batch"] > 1, "strategy"].unique()
    lines = lines[lines["strategy"].isin(names)]
    cells = lines.groupby(["strategy", "batch", "seed"])["regret_80"].agg(
        ["mean", "size"]
    )
    whole = cells.loc[cells["size"] == len(TABLES), "mean"].unstack("seed")
    whole = whole.dropna(axis=1)
    means = whole.mean(axis=1).map("{:.4f}".format)
    error = whole.sem(axis=1).map(" \u00b1 {:.4f}".format)
    return (means + error).unstack("batch").fillna(MISSING)


def draw(lines, path):
    """Draw mean regret against evaluations, for strategies with enough seeds."""
    n_seeds = lines.groupby("strategy")["seed"].nunique()
    names = [name for name in complete(lines) if n_seeds[name] >= RANKED]
    means = lines.groupby(["strategy", "table"])[REGRETS].mean()
    means = means.groupby("strategy").mean().reindex(names)
    fig, ax = plt.subplots(figsize=(8, 4.6), layout="constrained")
    for index, (name, row) in enumerate(means.iterrows()):
        is_ours = not name.startswith(("skopt", "optuna", "smac"))
        style = "o-" if is_ours else "s--"
        ax.plot(COUNTS, row, style, color=f"C{index % 10}", label=name, ms=4)
    ax.set_yscale("log")
    ax.set_xticks(COUNTS, map(str, COUNTS))
    ax.set_xlabel("evaluations")
    ax.set_ylabel("regret: 0 best, 1 middle")
    ax.set_title("Mean over published tables", loc="left")
    ax.spines[["top", "right"]].set_visible(False)
    fig.legend(frameon=False, loc="outside right", fontsize=8)
    fig.savefig(path, dpi=110)
    plt.close(fig)
