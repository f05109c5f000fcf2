"""sknas and its peers on open tables: errors, seconds, and what each model gives.

    python examples/benchmarks/tables.py --data DIR --budget 60

DIR holds the tables as Parquet files, the target last. Each fit runs in a process of
its own, in an environment that is made for its model when it is first needed. A fit
that fails, or takes more than twice the budget and two minutes, leaves a line that says
why. `load` is how busy the machine was when the fit began: 2 cores are full at 2.

`--measured FILE` takes over lines that were measured elsewhere; the report shows them
where there is no line measured here.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from _lines import Lines, parse_arguments
from _peers import MODELS

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
HERE = Path(__file__).parent
ENVIRONMENTS = HERE / ".environments"
# What is not listed runs in the environment of this script. Why torch is pinned stands
# in constraints.txt.
COMMON = ["pandas==3.1.1", "pyarrow==26.0.1", "scikit-learn==1.9.1"]
TORCH = "torch==2.13.0"
REQUIREMENTS = {
    "catboost": [*COMMON, "catboost==1.2.10"],
    "lightgbm": [*COMMON, "lightgbm==4.7.0"],
    "realmlp": [*COMMON, TORCH, "pytabkit==1.7.3"],
    "autogluon": [TORCH, "scikit-learn==1.9.1", "autogluon.tabular[all]==1.6.3"],
}
# There is no build of torchvision that goes with that torch, and no table needs it.
UNWANTED = {"autogluon": "torchvision"}


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
                lines.measure(key, lambda key=key: run(**key, folder=arguments.data))


def take_over(source, target):
    """Lines measured elsewhere, with a budget of 60 s."""
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    rows = [{**row, "budget": 60.0, "measured_elsewhere": True} for row in rows]
    target.write_text("".join(json.dumps(row) + "\n" for row in rows))


def run(model, data, seed, budget, folder):
    """One fit in a process of its own."""
    measured = {"load": round(os.getloadavg()[0], 2)}
    try:
        return measured | in_process(
            python_of(model),
            (model, (folder / f"{data}.parquet").resolve(), seed, budget),
            seconds=2 * budget + 120,
        )
    except (RuntimeError, TimeoutError, subprocess.CalledProcessError) as error:
        return {**measured, "error_text": str(error)}


def in_process(python, options, seconds):
    """What _peers.py measured; whatever else it writes goes with its folder."""
    with tempfile.TemporaryDirectory() as folder:
        line, log = Path(folder, "line.json"), Path(folder, "log.txt")
        command = [python, HERE / "_peers.py", *map(str, options), line]
        with log.open("w") as output:
            process = subprocess.Popen(
                command,
                cwd=folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # its workers end with it
            )
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                raise TimeoutError(f"more than {seconds:g} s") from None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if not line.exists():
            said = log.read_text(errors="replace").strip()
            raise RuntimeError(said[-500:] or f"exit status {process.returncode}")
        return json.loads(line.read_text())


def python_of(model):
    """The Python of a model's environment, which is made if it is missing."""
    if model not in REQUIREMENTS:
        return sys.executable
    folder = ENVIRONMENTS / model
    python, stamp = folder / "bin" / "python", folder / ".stamp"
    wanted = "\n".join(REQUIREMENTS[model])
    if not (stamp.exists() and stamp.read_text() == wanted):
        print(f"Making {folder} ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", *REQUIREMENTS[model]], check=True)
        if model in UNWANTED:
            subprocess.run([*pip, "uninstall", "--yes", UNWANTED[model]], check=True)
        stamp.write_text(wanted)
    return python


if __name__ == "__main__":
    main()
