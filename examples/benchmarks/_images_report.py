"""Results of images.py as a section of docs/benchmarks.md."""

import json

import pandas as pd
from _image_models import MODELS, SETS
from _markdown import markdown

MISSING = "-"


def write_section(results, docs):
    """Return the section as Markdown."""
    path = results / "images.jsonl"
    if not path.exists():
        return "Not measured yet.\n"
    lines = pd.DataFrame([json.loads(line) for line in path.read_text().splitlines()])
    machines = ", ".join(sorted(lines["machine"].unique()))
    parts = []
    for data in (name for name in SETS if name in set(lines["data"])):
        own = lines[lines["data"] == data]
        n = int(own["images"].max())
        parts.append(f"### {data}, {n:,} training images\n")
        parts.append(markdown(summary(own)))
    return "\n".join([*parts, f"Machine: {machines}.\n"])


def summary(lines):
    """Return one row per model and budget: means over the seeds."""
    cells = {}
    for (model, budget), own in lines.groupby(["model", "budget"]):
        scored = own.dropna(subset=["acc"])
        if scored.empty:
            blank = dict.fromkeys(["fit_s", "predict_s", "trials"], MISSING)
            cells[model, budget] = {"seeds": "0", "accuracy": "failed", **blank}
            continue
        deviation = scored["acc"].sem()
        error = f" \u00b1 {deviation:.4f}" if len(scored) > 1 else ""
        trials = scored.get("n_trials", pd.Series(dtype=float)).mean()
        cells[model, budget] = {
            "seeds": str(len(scored)),
            "accuracy": f"{scored['acc'].mean():.4f}" + error,
            "fit_s": f"{scored['fit_s'].mean():.0f}",
            "predict_s": f"{scored['predict_s'].mean():.1f}",
            "trials": MISSING if pd.isna(trials) else f"{trials:.1f}",
        }
    order = sorted(cells, key=lambda key: (key[1], list(MODELS).index(key[0])))
    names = [f"{model}, {budget:g} s" for model, budget in order]
    frame = pd.DataFrame([cells[key] for key in order], index=names)
    return frame.rename_axis("model, time")
