"""sknas and its peers on open tables: errors, seconds, and what each model gives.

    python examples/benchmarks/tables.py --data DIR --budget 60

DIR holds the tables as Parquet files, the target last. Each fit runs in a process of
its own, in an environment that is made for its model when it is first needed. A fit
that fails, or takes more than twice the budget and two minutes, leaves a line that says
why. `load` is how busy the machine was when the fit began: 2 cores are full at 2.

`--measured FILE` takes over lines that were measured elsewhere; the report shows them
where there is no line measured here.
"""

import json
from pathlib import Path

from _lines import Lines, parse_arguments
from _peers import MODELS
from _processes import run

SETS = (
    "titanic",
    "credit_g",
    "segment",
    "phoneme",
    "adult",
    "covertype_20k",
    "electricity",
    "letter",
    "wine_quality",
    "bike_hour",
    "california_housing",
    "diamonds",
)
SEEDS = {"sknas": (0, 1, 2)}  # others have one, unless asked for


def main():
    arguments = parse_arguments(
        __doc__,
        data={"type": Path, "required": True},
        budget={"type": float, "default": 60.0},
        models={"nargs": "+", "choices": list(MODELS), "default": list(MODELS)},
        sets={"nargs": "+", "choices": SETS, "default": SETS},
        seeds={"nargs": "+", "type": int},
        measured={"type": Path},
    )
    if arguments.measured:
        take_over(arguments.measured, arguments.results / "tables_elsewhere.jsonl")
    lines = Lines(arguments.results / "tables.jsonl")
    for model in arguments.models:
        for seed in arguments.seeds or SEEDS.get(model, (0,)):
            for data in arguments.sets:
                key = {
                    "model": model,
                    "data": data,
                    "seed": seed,
                    "budget": arguments.budget,
                }
                path = (arguments.data / f"{data}.parquet").resolve()
                told = {**key, "data": path}
                lines.measure(key, lambda told=told: run("_peers.py", **told))


def take_over(source, target):
    """Lines measured elsewhere, with a budget of 60 s."""
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    rows = [{**row, "budget": 60.0, "measured_elsewhere": True} for row in rows]
    target.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
