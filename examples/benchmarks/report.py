"""Write docs/benchmarks.md from the files in results/.

python examples/benchmarks/report.py
"""

import json
import textwrap
from pathlib import Path

import pandas as pd
from _fidelity_report import write_section as write_fidelity
from _images_report import write_section as write_images
from _lines import RESULTS
from _strategies_report import write_section as write_strategies
from _tables_report import write_section as write_tables

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"

HEAD = """# Benchmarks

Each table is written by `python examples/benchmarks/report.py` from the results in
`examples/benchmarks/results/`, one JSON line per measurement. A script skips existing
measurements; to measure again, delete its file. The machines are shared and noisy:
trust ratios measured together more than seconds.
"""

NOTE = """These figures were measured before networks were trained side by side.
"""

SECTIONS = (
    (
        "search_overhead",
        "Overhead of a search",
        "--data DIR",
        "A search of 60 s for 10,000 rows of adult, in one process. Overhead is all "
        "time outside the training of networks: reading, encoding, proposing, "
        "scoring, selecting members, baselines. Aim: a share under 0.10, and under "
        "0.3 s per trial.",
    ),
    (
        "training_loop",
        "The reference trainer against a plain loop",
        "",
        "The same network, batches and steps through skorch and in a plain torch "
        "loop, in turn, in one thread. `ratio` is the median of the pairs. Aim: at "
        "most 1.6.",
    ),
    (
        "predict_speed",
        "Time to predict",
        "",
        "One network and scikit-learn's `MLPClassifier` with the same hidden layers "
        "predict 10,000 rows of 20 numbers, in turn. Aim: a ratio of at most 3 for "
        "the same layers, that is, without piecewise-linear codes. With them the "
        "first layer is up to 25 times as wide, which explains the larger ratios. In "
        "single precision small layers miss the aim: reading and scaling the table "
        "takes as long as all of MLPClassifier.",
    ),
    (
        "estimator_checks",
        "Time of scikit-learn's checks",
        "",
        "`check_estimator` at default parameters. Aim: under 240 s for both together. "
        "scikit-learn itself skips some checks: there is no decision function, and "
        "the array API is switched off.",
    ),
    (
        "time_bound",
        "Keeping to the time limit",
        "",
        "Seconds by which `fit` exceeded `max_time`: the maximum and the median of "
        "all runs. Aim: at most a tenth of the limit and 2 s. Tables are generated "
        "with 20 columns; images are the digits of scikit-learn, 24 x 24 pixels.",
    ),
    (
        "kills",
        "Killed searches",
        "",
        "Searches with a checkpoint receive SIGKILL at random times, and are started "
        "again until they finish. `equal` counts searches that predict the same as an "
        "uninterrupted one, bit for bit, `lost` trials that were on disk and not "
        "found again, and `twice` rungs that a group was trained to twice.",
    ),
    (
        "hostile",
        "Generated inputs",
        "--cases 10000",
        "Odd tables, images and parameters through `fit` and `predict` at a tiny "
        "budget, by outcome: correct, a documented error of `fit`, or refused in "
        "`predict` after a correct `fit`. A `fault` is an error from inside a "
        "library, an unclear message, a hang, or a NaN. Cases that were faults are "
        "repeated after the repair.",
    ),
    (
        "parallel",
        "Workers, clusters and checkpoints",
        "",
        "Seconds of one search of 6 trials on 10,000 rows, without the start of "
        "workers, mean over seeds. `ratio` is the time of 2 processes divided by this "
        "one, mean over seeds; `writing` is the share of the time spent on writing a "
        "checkpoint. Workers go on meanwhile, so the cost of a checkpoint is the "
        "ratio of the last row, not that share. Aims: 0.56 or less for 1 process, and "
        "a cost under 1 %. The first is narrowly missed: both processes wait for the "
        "slower group at each of four rungs.",
    ),
    (
        "search_pays",
        "Gain of a search",
        "",
        "Held-out accuracy (R2 for diabetes), mean over seeds: the default network "
        "alone, the best network of a search at default parameters, and its ensemble. "
        "`optimism` is `best_score_` minus the held-out score of the search.",
    ),
    (
        "population_speed",
        "Networks trained side by side",
        "",
        "Steps per second of all networks together, in the population trainer and one "
        "by one through skorch: the same networks and batches, both on all cores. "
        "The last case is in half precision, which the skorch trainer does not "
        "support. Aims: a ratio of 6 at 64 x 2, and of 1.5 at 128 x 2.",
    ),
    (
        "population_profile",
        "Profile of the population trainer",
        "",
        "Products per second of one process, compared with a product of square "
        "matrices of 2,048 on one core, and the share of the time of each kind of "
        "work in a step.",
    ),
    (
        "portfolio_held_out",
        "The portfolio on held-out tables",
        "--data DIR",
        "The lowest validation error of the first architectures of a portfolio that "
        "was learnt on the other tables, relative to the lowest of all twenty "
        "candidates: 1 is optimal. The candidates were chosen with knowledge of these "
        "tables, so even this is optimistic.",
    ),
    (
        "growth",
        "Time and memory by the size of a table",
        "--data DIR",
        "Four trials in one process; `trial_s` is the mean time of a trial with all "
        "its folds, `peak_mb` the growth of the process, `x_mb` the size of X.",
    ),
    (
        "memory",
        "Peak memory",
        "",
        "One training of one epoch in one process, after a small fit that imports all "
        "libraries: the growth of the process relative to the size of X, for tables "
        "of double precision and images of 8 bits. The constant part is memory for "
        "batches, and for rows that are predicted at once.",
    ),
    (
        "memory_estimate",
        "Estimated memory of a training",
        "",
        "A few steps of a group of one shape on the folds that an estimator would "
        "use. Trials that need more than is free are refused. Aim: a ratio between "
        "0.7 and 2 wherever the memory is large.",
    ),
    (
        "strategies",
        "Strategies on published tables",
        "--data DIR",
        "Regret of the recommended architecture after few trainings, on 13 published "
        "tables of trained networks: NAS-Bench-Macro, eight of HPOBench and four of "
        "HPOLib. An evaluation is one training with one seed. Regret is computed from "
        "the mean of all seeds: 0 for the best network, 1 for the median one. A "
        "Bayesian strategy recommends the lowest mean of its surrogate, other "
        "strategies the best score; the row with `best score` shows the difference. "
        "`scored again` is `sknas.search(noisy=True)`, whose last 5 evaluations "
        "repeat the top k. SMAC is set to noise-free scores, since it would spend "
        "evaluations on repeats otherwise.",
    ),
    (
        "fidelity",
        "Savings of successive halving",
        "--data DIR",
        "Searches of digits, phoneme and segment without a portfolio: full trainings "
        "of random architectures; the same with successive halving; and successive "
        "halving with a surrogate that starts after 3 trials or after 27, the "
        "default. Scores are validation scores, the best of many. Epochs are counted "
        "over all folds.",
    ),
    (
        "presets",
        "Search by gradient",
        "--data DIR",
        "Each preset derives one architecture of a small cell space, or of the table "
        "space, which is trained alone and scored on rows that neither saw. `random` "
        "trains architectures drawn from the same space for the median total time of "
        "the presets, and takes the best validation score; `mean_accuracy` is the "
        "mean of all it trained. `skips` is the share of skips among the edges, "
        "`entropy` that of the final weights of options, from 0 (decided) to 1. "
        "Digits (449 test images), 3,000 images of Fashion-MNIST scaled down to 14 x "
        "14 (3,000), phoneme (1,351) and segment (578); one thread. The standard "
        "error of one test is about .005, .006, .009 and .005.",
    ),
    (
        "presets_step",
        "A step of search by gradient",
        "--data DIR",
        "Seconds of a step on batches of 64 images of 28 x 28, in one thread, and the "
        "growth of the process. A step updates the weights and the alphas once. `one "
        "network` is the default network of the same space.",
    ),
    (
        "images",
        "sknas and its peers on images",
        "--data DIR",
        "Accuracy on held-out images. sknas searches the image space, sknas_gradient "
        "the cell space; resnet is one fixed network, trained on all images until the "
        "time ends; autokeras uses its own blocks, without pretrained weights. These "
        "four have the same time limit. hgb (boosted trees) and mlp (one hidden "
        "layer), both of scikit-learn, read flat pixels, at their defaults and "
        "without a limit. With 6 trials a search of the image space does not get "
        "beyond the portfolio.",
    ),
    (
        "tables",
        "sknas and its peers",
        "--data DIR",
        "Tables of 891 to 12,500 rows, a fifth of them held out; the split is the "
        "same for all models. Error is 1 - accuracy, or RMSE in standard deviations "
        "of the target. sknas, sknas_portfolio (the portfolio without a search), "
        "autogluon (best_quality) and bayes_search (scikit-optimize and skorch "
        "combined by hand) have the same time limit; other models run at their "
        "defaults without a limit. In 60 s a search of these tables hardly gets "
        "beyond the portfolio, so sknas and sknas_portfolio differ by noise only; the "
        "effect of searching shows at 300 s. sknas is a mean over seeds, other "
        "models have one seed. \\* marks results that were measured elsewhere, on 2 "
        "cores too. One table decides little: the standard error of an accuracy is "
        "about 0.007 on 2,500 rows, and 0.03 on 200 rows. `load` is the load of the "
        "machine when a fit began; 2 cores are full at 2, and above that a model with "
        "a time limit gets less done.",
    ),
)

# Sections of more than one table.
WRITERS = {
    "tables": write_tables,
    "strategies": write_strategies,
    "fidelity": write_fidelity,
    "images": write_images,
}
# Scripts that have another name than their results.
SCRIPTS = {
    "population_profile": "population_speed",
    "portfolio_held_out": "portfolio",
    "presets_step": "presets",
    "memory_estimate": "memory",
}
# Measured before networks were trained side by side.
OLD = (
    "search_overhead",
    "training_loop",
    "predict_speed",
    "search_pays",
    "estimator_checks",
)


def main():
    parts = [HEAD]
    for name, title, options, text in SECTIONS:
        path = RESULTS / f"{name}.jsonl"
        script = SCRIPTS.get(name, name)
        command = f"python examples/benchmarks/{script}.py {options}".strip()
        text = textwrap.fill(text, 88)
        parts.append(f"## {title}\n\n{text}\n\n```sh\n{command}\n```\n")
        if name in WRITERS:
            parts.append(WRITERS[name](RESULTS, PAGE.parent))
            continue
        if name in OLD:
            parts.append(NOTE)
        rows = [json.loads(line) for line in path.open()] if path.exists() else []
        parts.append(table(name, rows) if rows else "Not measured yet.\n")
    PAGE.write_text("\n".join(parts))


def table(name, rows):
    """Return rows as a Markdown table, followed by the machine."""
    frame = pd.DataFrame(rows)
    machines = ", ".join(sorted(set(frame.pop("machine"))))
    if name in SUMMARIES:
        frame = SUMMARIES[name](frame)
    has_data = name in ("growth", "memory", "presets", "time_bound")
    dropped = ["ratios"] if has_data else ["ratios", "data"]
    frame = frame.drop(columns=dropped, errors="ignore")
    lines = ["| " + " | ".join(frame.columns) + " |", "| --- " * frame.shape[1] + "|"]
    for row in frame.itertuples(index=False):
        lines.append("| " + " | ".join(map(str, row)) + " |")
    return "\n".join(lines) + f"\n\nMachine: {machines}.\n"


def by_time(frame):
    """Return the maximum and median excess for each time limit and data set."""
    over = frame.groupby(["max_time", "data"], sort=False)["over_s"]
    over = over.agg(runs="count", max_over="max", median_over="median")
    return over.round(2).reset_index()


def by_kills(frame):
    """Return the totals of all searches."""
    totals = {
        "searches": len(frame),
        "kills": frame["kills"].sum(),
        "equal": frame["equal"].sum(),
        "lost": frame["trials_lost"].sum(),
        "twice": frame["done_twice"].sum(),
        "unbroken_s": frame["unbroken_s"].mean().round(1),
    }
    return pd.DataFrame([totals])


def by_way(frame):
    """Return the seconds of each way to search, relative to two processes."""
    seconds = frame.pivot_table("fit_s", "way", "seed", sort=False)
    ratio = seconds.loc["2 processes"] / seconds
    columns = {
        "fit_s": seconds.mean(axis=1).round(1),
        "ratio": ratio.mean(axis=1).round(3),
    }
    if "journal_s" in frame:
        shares = (frame["journal_s"] / frame["fit_s"]).groupby(frame["way"]).mean()
        columns["writing"] = shares.map("{:.2%}".format)
    return pd.DataFrame({**columns, "seeds": seconds.count(axis=1)}).reset_index()


def by_outcome(frame):
    """Return the counts of outcomes for each kind of case."""
    counts = frame.groupby("kind")["counts"].agg(
        lambda counts: pd.DataFrame(list(counts)).sum().to_dict()
    )
    counts = pd.DataFrame(list(counts), index=counts.index).fillna(0).astype(int)
    counts.insert(0, "cases", counts.sum(axis=1))
    return counts.sort_index(axis=1, key=lambda names: names != "cases").reset_index()


def by_table(frame):
    """Return means over the seeds, one row per table."""
    scores = frame.pivot_table("score", "table", "model", sort=False).round(4)
    searched = frame[frame["model"] == "search"]
    optimism = (searched["best_score"] - searched["score"]).groupby(searched["table"])
    scores["optimism"] = optimism.mean().round(4)
    scores["fit_s"] = searched.groupby("table")["fit_s"].mean().round(1)
    scores["seeds"] = searched.groupby("table")["seed"].nunique()
    return scores.reset_index()


def by_preset(frame):
    """Return means and standard errors over the seeds by data set and preset."""
    groups = frame.groupby(["data", "preset"], sort=False)
    means = groups.mean(numeric_only=True).drop(columns="seed").round(4)
    means.insert(0, "seeds", groups.size())
    means.insert(2, "se", groups["accuracy"].sem().round(4))
    return means.astype(object).fillna("-").reset_index()


SUMMARIES = {
    "search_pays": by_table,
    "presets": by_preset,
    "time_bound": by_time,
    "kills": by_kills,
    "hostile": by_outcome,
    "parallel": by_way,
}


if __name__ == "__main__":
    main()
