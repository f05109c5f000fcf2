"""Parts of the pages of benchmarks: results, tables and figures."""

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # draw to files, without a window

import numpy as np
import pandas as pd
from _lines import RESULTS

DOCS = Path(__file__).parents[2] / "docs"
FILES = DOCS / "benchmarks"  # pages of details, and CSV files
MISSING = "-"
NOT_MEASURED = "Not measured yet."


def read(*names):
    """Return the lines of files of results, none if there are no such files."""
    paths = [RESULTS / f"{name}.jsonl" for name in names]
    texts = [path.read_text().splitlines() for path in paths if path.exists()]
    return pd.DataFrame([json.loads(line) for lines in texts for line in lines])


def table_of(name, make):
    """Return the table that a function makes of results, if there are any."""
    lines = read(name)
    return table(make(lines), lines) if len(lines) else NOT_MEASURED


def table(cells, lines):
    """Return a frame as a table, its index first, and where it was measured."""
    machines = "; ".join(sorted(set(lines["machine"].dropna())))
    source = f"Machine: {machines}."
    if "seed" in lines:
        seeds = sorted(set(lines["seed"].astype(int)))
        ends = map(str, seeds[:: len(seeds) - 1] if len(seeds) > 1 else seeds)
        source += f" Seeds: {' to '.join(ends)}."
    return f"{markdown(cells)}\n\n*{source}*"


def markdown(cells):
    rows = [[cells.index.name, *cells.columns], ["---"] * (1 + cells.shape[1])]
    rows += cells.itertuples()
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


def select(*names):
    """Return a function that selects columns, the first one as the index."""

    def make(lines):
        cells = lines[list(names)].rename(columns=heading)
        return cells.set_index(heading(names[0]))

    return make


def heading(name):
    """Return the name of a result as readers know it: fit_s is "fit, s"."""
    for unit in ("s", "ms", "mb"):
        if name.endswith(f"_{unit}"):
            name = f"{name.removesuffix(unit)}, {unit.replace('mb', 'MB')}"
    return name.replace("_,", ",").replace("_", " ")


def text(values, form):
    """Return numbers as text."""
    return values.map(form.format, na_action="ignore").astype(object).fillna(MISSING)


def mean_text(values, form="{:.4f}"):
    """Return a mean with its standard error, if there are several values."""
    values = values.dropna()
    if values.empty:
        return MISSING
    error = f" ± {form.format(values.sem())}" if len(values) > 1 else ""
    return form.format(values.mean()) + error


def geometric_mean(ratios):
    return np.exp(np.log(ratios).mean())


def finish(fig, name, **legend):
    """Write a figure, with a legend outside of its axes."""
    for ax in fig.axes:
        ax.spines[["top", "right"]].set_visible(False)
    fig.legend(*fig.axes[0].get_legend_handles_labels(), frameon=False, **legend)
    fig.savefig(DOCS / "_static" / name, dpi=110)
