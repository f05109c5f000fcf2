"""sknas and its peers on open tables: errors and seconds.

    python examples/benchmarks/tables.py --data DIR --budget 60

DIR holds the tables as Parquet files, the target last. Each fit runs in a process of
its own, in the environment of its model, which is created when it is first needed. A
fit that fails, or takes more than twice the budget plus two minutes, leaves a line with
the error. `load` is the load of the machine when the fit began: 2 cores are full at 2.

`--measured FILE` imports lines that were measured elsewhere; the report shows them
where no line was measured here.
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
SEEDS = {"sknas": (0, 1, 2)}  # other models have one by default


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
                arguments_of_run = {**key, "data": path}
                lines.measure(key, lambda a=arguments_of_run: run("_peers.py", **a))


def take_over(source, target):
    """Import lines measured elsewhere, with a budget of 60 s."""
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    rows = [{**row, "budget": 60.0, "measured_elsewhere": True} for row in rows]
    target.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
