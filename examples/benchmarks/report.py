"""Write docs/benchmarks.md from the results that stand in this folder.

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
`examples/benchmarks/results/`, one JSON line a measurement. A script skips what is
measured already; to measure again, delete its file. The machines are shared and noisy:
trust ratios taken in one go more than seconds.
"""

NOTE = """These figures are from before networks were trained side by side, and wait to
be measured again.
"""

SECTIONS = (
    (
        "search_overhead",
        "Cost around the training",
        "--data DIR",
        "A search of 60 s for 10,000 rows of adult, in one process. What is not "
        "spent inside the training of a network is overhead: reading, encoding, "
        "proposing, scoring, choosing members, baselines. Aim: a share under 0.10, "
        "and under 0.3 s a trial.",
    ),
    (
        "training_loop",
        "The reference trainer against a plain loop",
        "",
        "The same network, batches and steps through skorch and in a plain torch "
        "loop, in turn, one thread. `ratio` is the median of the pairs. Aim: at "
        "most 1.6.",
    ),
    (
        "predict_speed",
        "Predicting",
        "",
        "One network and scikit-learn's `MLPClassifier` with the same hidden layers "
        "predict 10,000 rows of 20 numbers, in turn. Aim: a ratio of at most 3 for "
        "the same layers, that is, without piecewise-linear codes. With them the "
        "first layer is up to 25 times as wide, and that is what the larger ratios "
        "say. In single precision small layers miss the aim: reading and scaling "
        "the table costs as much as MLPClassifier takes in all.",
    ),
    (
        "estimator_checks",
        "How long scikit-learn's checks take",
        "",
        "`check_estimator` at default parameters. Aim: under 240 s for both "
        "together. What is skipped, scikit-learn skips by itself: there is no "
        "decision function, and the array API is switched off.",
    ),
    (
        "time_bound",
        "Keeping to the time",
        "",
        "How much longer than `max_time` a `fit` took, in seconds: the most of all "
        "runs, and the middle one. Aim: at most a tenth and 2 s. Tables are generated, "
        "of 20 columns; images are the digits of scikit-learn, 24 x 24 pixels.",
    ),
    (
        "kills",
        "Searches that are killed",
        "",
        "Searches with a checkpoint that get SIGKILL at random moments, and are begun "
        "again until they are done. `equal` counts those that predict what an unbroken "
        "search predicts, bit for bit; `lost` trials that were written down and not "
        "found again; `twice` rungs of units that were trained twice.",
    ),
    (
        "hostile",
        "Generated inputs",
        "--cases 10000",
        "Odd tables, images and parameters through `fit` and `predict` at a tiny "
        "budget, by outcome: what is correct, which documented error `fit` raised, "
        "refused in `predict` after a right `fit`. A `fault` is an error from inside a "
        "library, one that is no sentence, a hang, or a NaN. Cases that once were "
        "faults are gone through again after the repair.",
    ),
    (
        "parallel",
        "Workers, clusters and checkpoints",
        "",
        "Seconds of one search of 6 trials of 10,000 rows, workers at hand, "
        "mean over seeds; `ratio` is the mean over the seeds of the seconds of 2 "
        "processes divided by those, `store` the share of the time in which a "
        "checkpoint is written. Workers go on meanwhile, so what it costs is the ratio "
        "of the last row, not that share. Aims: 0.56 or less for 1 process, and a cost "
        "under 1 %. The first is missed by a little: both processes wait for the "
        "slower unit at each of four rungs.",
    ),
    (
        "search_pays",
        "What a search gains",
        "",
        "Held-out accuracy (R2 for diabetes), mean over seeds: the default network "
        "alone, the best network of a search with nothing set, and its ensemble. "
        "`optimism` is `best_score_` minus the held-out score of the search.",
    ),
    (
        "population_speed",
        "Networks trained side by side",
        "",
        "Steps that all networks together make a second, in the population trainer and "
        "one by one through skorch: the same networks and batches, both on all cores; "
        "the last case in half precision, which the skorch trainer does not know. "
        "Aims: a ratio of 6 at 64 x 2, and of 1.5 at 128 x 2.",
    ),
    (
        "population_profile",
        "What limits it",
        "",
        "Products a second of one process beside what one core does with a square "
        "matrix of 2,048, and where the time of a step goes.",
    ),
    (
        "portfolio_held_out",
        "The portfolio on tables that it never saw",
        "--data DIR",
        "The lowest validation error of the first architectures of a portfolio that "
        "was learnt on the other tables, beside the lowest of all twenty that were "
        "tried: 1 is as good as can be. The twenty themselves were put together by "
        "people who had seen these tables, so even this is on the bright side.",
    ),
    (
        "growth",
        "Time and memory against the size of a table",
        "--data DIR",
        "Four trials in one process; `trial_s` is the mean time of one with all its "
        "folds, `peak_mb` what the process grew by, `x_mb` the size of X.",
    ),
    (
        "memory",
        "Peak memory",
        "",
        "One training of one epoch in one process, after a small fit that brings in "
        "all libraries: what the process grew by beside the size of X, tables of "
        "floats in double precision and images of 8 bits. What does not grow with X is "
        "that of batches and of rows that are answered at once.",
    ),
    (
        "memory_estimate",
        "What a training is estimated to need",
        "",
        "A few steps of members of one shape on the folds that an estimator would "
        "make; what needs more than is free is refused. Aim: a ratio between 0.7 and "
        "2 wherever it is much.",
    ),
    (
        "strategies",
        "Strategies on published tables",
        "--data DIR",
        "How good the recommended architecture is after few trainings, on 13 tables of "
        "networks that others have trained: NAS-Bench-Macro, the eight of HPOBench and "
        "the four of HPOLib. An evaluation is one training with one seed; regret is "
        "counted in the mean of all seeds, 0 for the best network, 1 for the middle "
        "one. A Bayesian strategy recommends the lowest mean of its surrogate, the "
        "others what scored best, as users would take it; the row with `best score` "
        "shows the difference. `scored again` is `sknas.search(noisy=True)`, the last "
        "5 evaluations of which score leaders again. SMAC is told that scores have no "
        "noise, or it would spend evaluations on repeats.",
    ),
    (
        "fidelity",
        "What halving saves",
        "--data DIR",
        "Searches of digits, phoneme and segment without a portfolio: random "
        "architectures trained to their end; the same, halved; halved, and proposed by "
        "a model that starts after 3 trials or after 27, the default. Scores are "
        "those of validation, the best of many. Epochs are those of all folds.",
    ),
    (
        "presets",
        "Search by gradient",
        "--data DIR",
        "Each preset derives one architecture of a small cell space, or of tables, "
        "which is trained alone and judged on rows that neither saw. `random` trains "
        "architectures drawn from the same space for as long as the middle one of the "
        "presets took in all, and takes the one that validates best; `mean_accuracy` "
        "is that of all it trained. `skips` is their share of the edges, `entropy` how "
        "undecided the logits were in the end, from 0 to 1. Digits (449 to test on), "
        "3,000 images of Fashion-MNIST halved to 14 x 14 (3,000), phoneme (1,351) and "
        "segment (578); one thread. An accuracy is known to about .005, .006, .009 and "
        ".005.",
    ),
    (
        "presets_step",
        "A step of search by gradient",
        "--data DIR",
        "Seconds of a step on batches of 64 images of 28 x 28, on one thread, and what "
        "the process grew by; a step moves the weights and the logits once. `one "
        "network` is the default one of the same space.",
    ),
    (
        "images",
        "sknas and its peers on images",
        "--data DIR",
        "Images that none of them saw. sknas searches the image space, sknas_gradient "
        "the cell space; resnet is one fixed network, trained on all images to the end "
        "of the time; autokeras has its own blocks, but no pretrained weights. These "
        "four have the same time. hgb (boosted trees) and mlp (one hidden layer, both "
        "of scikit-learn) read flat pixels, at their defaults and without a limit. "
        "With 6 trials a search of the image space got no further than the "
        "architectures it starts with.",
    ),
    (
        "tables",
        "sknas and its peers",
        "--data DIR",
        "Tables of 891 to 12,500 rows, a fifth of them held out; the split is the same "
        "for each model. Error is 1 - accuracy, or RMSE in standard deviations of the "
        "target. sknas, sknas_portfolio (the architectures a search starts with, and "
        "no search), autogluon (best_quality) and bayes_search (scikit-optimize and "
        "skorch wired by hand) have the same time; the others have their defaults and "
        "no limit. In 60 s a search of these tables hardly gets beyond the "
        "architectures it starts with, so sknas and sknas_portfolio are the same there "
        "but for luck; what searching adds shows with 300 s. sknas is a mean "
        "over seeds, each other model has one. What \\* "
        "marks was measured elsewhere, on 2 cores too. One table decides little: of "
        "2,500 rows an accuracy is known to about 0.007, of 200 rows to 0.03. "
        "`load` is how busy the machine was when a fit began; its cores are full at 2, "
        "and above that a model with a limit of time gets less done in it.",
    ),
)

# What is more than one table.
WRITERS = {
    "tables": write_tables,
    "strategies": write_strategies,
    "fidelity": write_fidelity,
    "images": write_images,
}
# Where a script has another name than its results.
SCRIPTS = {
    "population_profile": "population_speed",
    "portfolio_held_out": "portfolio",
    "presets_step": "presets",
    "memory_estimate": "memory",
}
# Measured when one network was trained after the other, and not again since.
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
    """Rows as a Markdown table, and the machine below it."""
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
    """How far over its time the longest fit was, for each time and data."""
    over = frame.groupby(["max_time", "data"], sort=False)["over_s"]
    told = over.agg(runs="count", most_over="max", middle_over="median")
    return told.round(2).reset_index()


def by_kills(frame):
    """All kills together."""
    told = {
        "searches": len(frame),
        "kills": frame["kills"].sum(),
        "equal": frame["equal"].sum(),
        "lost": frame["trials_lost"].sum(),
        "twice": frame["done_twice"].sum(),
        "unbroken_s": frame["unbroken_s"].mean().round(1),
    }
    return pd.DataFrame([told])


def by_way(frame):
    """Seconds of each way to search, and what they are to those of two processes."""
    seconds = frame.pivot_table("fit_s", "way", "seed", sort=False)
    ratio = seconds.loc["2 processes"] / seconds
    told = {
        "fit_s": seconds.mean(axis=1).round(1),
        "ratio": ratio.mean(axis=1).round(3),
    }
    if "journal_s" in frame:
        shares = (frame["journal_s"] / frame["fit_s"]).groupby(frame["way"]).mean()
        told["journal"] = shares.map("{:.2%}".format)
    return pd.DataFrame({**told, "seeds": seconds.count(axis=1)}).reset_index()


def by_outcome(frame):
    """How many cases of each kind came to which end."""
    told = frame.groupby("kind")["counts"].agg(
        lambda counts: pd.DataFrame(list(counts)).sum().to_dict()
    )
    counts = pd.DataFrame(list(told), index=told.index).fillna(0).astype(int)
    counts.insert(0, "cases", counts.sum(axis=1))
    return counts.sort_index(axis=1, key=lambda names: names != "cases").reset_index()


def by_table(frame):
    """Means over the seeds, a row a table."""
    scores = frame.pivot_table("score", "table", "model", sort=False).round(4)
    searched = frame[frame["model"] == "search"]
    optimism = (searched["best_score"] - searched["score"]).groupby(searched["table"])
    scores["optimism"] = optimism.mean().round(4)
    scores["fit_s"] = searched.groupby("table")["fit_s"].mean().round(1)
    scores["seeds"] = searched.groupby("table")["seed"].nunique()
    return scores.reset_index()


def by_preset(frame):
    """Means over the seeds, a row a set and preset, with standard errors."""
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
