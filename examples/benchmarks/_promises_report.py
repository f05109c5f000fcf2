"""What is promised and kept, and the measurements behind it."""

from functools import partial

import _markdown as md
import numpy as np
import pandas as pd


def promises():
    """Return one row per promise: its aim, what was measured, and if it is kept."""
    cells = {}
    for promise, (aim, name, judge) in JUDGES.items():
        lines = md.read(name)
        result, is_kept = judge(lines) if len(lines) else (md.NOT_MEASURED, None)
        kept = md.MISSING if is_kept is None else "yes" if is_kept else "**no**"
        cells[promise] = {"aim": aim, "measured": result, "kept": kept}
    return md.markdown(pd.DataFrame(cells).T.rename_axis("promise"))


def time_bound(lines):
    over, limit = lines["over_s"], lines["max_time"]
    text = f"{over.max():+.2f} s at worst, {len(lines)} fits of {limit.min()} to "
    is_kept = (over <= np.minimum(2, limit / 10)).all()
    return text + f"{limit.max()} s", is_kept


def slow_scorer(lines):
    late = lines["over_s"] - lines["call_s"]
    is_kept = (late <= 2 + lines["max_time"] / 10).all()
    calls, limit = lines["call_s"], lines["max_time"]
    text = f"{late.max():+.2f} s at worst and a call, {len(lines)} fits of "
    text += f"{limit.min()} to {limit.max()} s, calls of up to {calls.max():.0f} s"
    return text, is_kept


def kills(lines):
    lines = lines[lines["kills"] > 0]
    lost, twice = lines["trials_lost"].sum(), lines["done_twice"].sum()
    equal, n_kills = lines["equal"].sum(), lines["kills"].sum()
    text = f"{equal} of {len(lines)} searches, {n_kills} kills; {lost} trials lost"
    return text, equal == len(lines) and not lost and not twice


def hostile(lines):
    cells = outcomes(lines)
    n_faults = cells["faults"].sum()
    return f"{n_faults} faults in {cells['cases'].sum():,} cases", n_faults == 0


def overhead(lines):
    share, seconds = lines["overhead_share"].max(), lines["overhead_s_per_trial"].max()
    return f"{share:.1%}, {seconds:.2f} s", share < 0.1 and seconds < 0.3


def network_speed(lines):
    ratio = lines[lines["model"] == "network"]["ratio"].max()
    return f"{ratio:.1f} times", ratio <= 3


def ensemble_speed(lines):
    own = lines[lines["model"] == "ensemble"].nlargest(1, "sknas_ms").iloc[0]
    times = own["sknas_ms"] / own["hgb_ms"]
    networks = f"{own['networks']} networks, {own['sknas_ms']:.0f} ms"
    return f"{networks}: {times:.0f} times", None


def import_time(lines):
    last = lines.iloc[-1]
    before = f"{last['before_s']:.1f} s of torch and scikit-learn"
    return f"{last['median_s']:.2f} s, after {before}", last["median_s"] <= 0.4


def memory(lines):
    ratio = lines["ratio"]
    is_kept = ratio.between(0.7, 2)
    text = f"{ratio.min():.2f} to {ratio.max():.2f} times; {is_kept.sum()} of "
    return f"{text}{len(lines)} within", is_kept.all()


def two(lines):
    ratio = relative_seconds(lines)["1 process"]
    return f"{ratio:.3f} of the time", bool(ratio <= 0.56)


def checkpoint(lines):
    cost = 1 / relative_seconds(lines)["2, checkpoint"] - 1
    return f"{cost:+.1%}", bool(cost < 0.01)


def side_by_side(lines):
    ratios = lines.groupby("case")["ratio"].min()
    small, large = ratios["64 x 2, batch 64"], ratios.drop("64 x 2, batch 64").min()
    return f"{small:.1f} and {large:.1f} times", small >= 6 and large >= 1.5


def relative_seconds(lines):
    """Return the seconds of two processes relative to each way, mean over seeds."""
    seconds = lines.pivot_table("fit_s", "way", "seed", sort=False)
    return (seconds.loc["2 processes"] / seconds).mean(axis=1)


# By promise: its aim, the name of its results, and a function that judges them.
JUDGES = {
    "`fit` keeps to `max_time`": (
        "at most 2 s, and a tenth, late",
        "time_bound",
        time_bound,
    ),
    "`fit` keeps to `max_time` with a slow scorer": (
        "2 s, a tenth and one call late",
        "slow_scorer",
        slow_scorer,
    ),
    "A killed search resumes, and predicts the same": ("always", "kills", kills),
    "Odd input gives a result, or a clear error": ("no fault", "hostile", hostile),
    "Time of a search outside of training": (
        "under 10%, and 0.3 s a trial",
        "search_overhead",
        overhead,
    ),
    "One network predicts, beside `MLPClassifier` of the same layers": (
        "at most 3 times its time",
        "predict_speed",
        network_speed,
    ),
    "The default ensemble predicts, beside `HistGradientBoostingClassifier`": (
        md.MISSING,
        "predict_speed",
        ensemble_speed,
    ),
    "`import sknas`": ("at most 0.4 s", "import_time", import_time),
    "Memory of a training is estimated before it starts": (
        "0.7 to 2 times its peak",
        "memory_estimate",
        memory,
    ),
    "A second process saves time": ("at most 0.56 of the time", "parallel", two),
    "A checkpoint costs no time": ("under 1%", "parallel", checkpoint),
    "Networks are trained faster side by side than one by one": (
        "6 times for 2 layers of 64, 1.5 of 128",
        "population_speed",
        side_by_side,
    ),
}


def by_time(lines):
    """Return the largest and the median excess for each time limit and data set."""
    over = lines.groupby(["max_time", "data"], sort=False)["over_s"]
    cells = over.agg(fits="count", largest="max", median="median").round(2)
    return cells.reset_index("data").rename_axis("max_time, s")


def by_call(lines):
    """Return the largest excess and the trials for each limit, data set and scorer."""
    groups = lines.groupby(["max_time", "data", "call_s"], sort=False)
    cells = groups["over_s"].agg(fits="count", largest="max").round(2)
    cells["trials"] = groups["trials"].median().round(1)
    cells["without a score"] = groups["best_score"].agg(lambda s: s.isna().sum())
    names = {"call_s": "a call, s"}
    cells = cells.reset_index(["data", "call_s"]).rename(columns=names)
    return cells.rename_axis("max_time, s")


def by_search(lines):
    """Return the totals of searches by the number of kills."""
    groups = lines.groupby(lines["kills"].rename("kills of a search"))
    cells = groups[["equal", "trials_lost", "done_twice"]].sum()
    cells.insert(0, "searches", groups.size())
    return cells.rename(columns=lambda name: name.replace("_", " "))


def outcomes(lines):
    """Return the counts of outcomes for each kind of input."""
    counts = pd.DataFrame(list(lines["counts"])).fillna(0).astype(int)
    counts = counts.groupby(lines["kind"]).sum()
    cells = pd.DataFrame({"cases": counts.sum(axis=1), "correct": counts["correct"]})
    cells["refused in predict"] = counts["refused in predict"]
    cells["documented error of fit"] = counts.filter(like="Error").sum(axis=1)
    cells["faults"] = lines["faults"].map(len).groupby(lines["kind"]).sum()
    return cells


def by_way(lines):
    """Return the seconds of each way to search, and the share of writing."""
    groups = lines.groupby("way", sort=False)
    cells = groups["fit_s"].agg(md.mean_text, form="{:.1f}").to_frame("fit, s")
    cells["2 processes / this"] = relative_seconds(lines).round(3)
    shares = lines["writing_s"] / lines["fit_s"]
    cells["writing"] = shares.groupby(lines["way"]).mean().map("{:.1%}".format)
    return cells


def profiles(lines):
    """Return the speed of each case, and the shares of its time."""
    shares = pd.DataFrame(list(lines["time_shares"]), index=lines["case"])
    shares["other"] += shares.pop("random")
    speed = lines.set_index("case")[["gflops", "share_of_peak"]]
    speed.columns = ["GFLOPS", "share of the peak"]
    return speed.join(shares.map("{:.0%}".format))


def speeds(lines):
    """Return steps and architectures per second, means over the seeds."""
    cells = lines.groupby("case", sort=False).mean(numeric_only=True)
    cells = cells.drop(columns="seed").round(2)
    return cells.set_axis(
        [
            "population, steps/s",
            "skorch, steps/s",
            "ratio",
            "architectures/min",
            "with halving",
        ],
        axis=1,
    )


def with_size(*names):
    """Return a function that selects columns, rows x columns as one of them."""

    def make(lines):
        size = lines["rows"].map("{:,} x ".format) + lines["columns"].map("{:,}".format)
        return md.select(*names)(lines.assign(size=size))

    return make


def leaks(lines):
    """Return what stays between a fifth of the calls and the last one."""
    cells = lines.assign(ms=(1_000 * lines["seconds"]).map("{:.1f}".format))
    for name in ("tensors", "objects", "mb"):
        early, late = np.array(lines[name].tolist()).T
        cells[f"more {name}"] = np.round(late - early, 1)
    shown = ["calls", "n", "more tensors", "more objects", "more mb", "ms"]
    return cells.set_index("kind")[shown].rename(columns={"more mb": "more MB"})


MAKERS = {
    "time_bound": by_time,
    "slow_scorer": by_call,
    "kills": by_search,
    "hostile": outcomes,
    "search_overhead": md.select(
        "rows",
        "fit_s",
        "training_s",
        "trials",
        "overhead_share",
        "overhead_s_per_trial",
    ),
    "predict_speed": md.select(
        "model", "dtype", "networks", "sknas_ms", "mlp_ms", "hgb_ms", "ratio"
    ),
    "import_time": md.select("module", "median_s", "min_s", "before_s", "n_modules"),
    "parallel": by_way,
    "population_speed": speeds,
    "population_profile": profiles,
    "memory_estimate": with_size(
        "trainer", "size", "members", "choices", "peak_mb", "estimate_mb", "ratio"
    ),
    "leaks": leaks,
    "memory": with_size("data", "size", "folds", "x_mb", "peak_mb", "peak_over_x"),
    "growth": with_size("data", "size", "folds", "fit_s", "trial_s", "x_mb", "peak_mb"),
}
PARTS = {name: partial(md.table_of, name, make) for name, make in MAKERS.items()}
PARTS["promises"] = promises
