"""Outcomes of generated tables, images, parameters, scorers and settings.

    python examples/benchmarks/hostile.py --cases 10000

The cases are those of `tests/hostile`; each is generated from its number, and
``--one table 17`` runs one again. A line is a block of 100 cases. A case that takes too
long ends its process, and is counted as such.
"""

import faulthandler
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from _lines import Lines, machine, parse_arguments

CASES = Path(__file__).parents[2] / "tests" / "hostile"
KINDS = (  # the most common inputs twice
    *("table", "table", "image", "image", "parameter"),
    *("dtype", "date", "class", "scorer", "settings"),
)
BLOCK = 100
MAX_SECONDS = 300  # of one case
N_PROCESSES = 2


def main():
    if sys.argv[1:2] == ["--one"]:
        sys.exit(again(sys.argv[2], int(sys.argv[3])))
    if sys.argv[1:2] == ["--block"]:
        run_cases(sys.argv[2], *map(int, sys.argv[3:5]), Path(sys.argv[5]))
        return
    arguments = parse_arguments(__doc__, cases={"type": int, "default": 10_000})
    lines = Lines(arguments.results / "hostile.jsonl")
    done = {(line["kind"], line["first"]) for line in lines.rows}
    blocks = [
        (KINDS[number % len(KINDS)], number * BLOCK)
        for number in range(arguments.cases // BLOCK)
    ]
    with ThreadPoolExecutor(N_PROCESSES) as pool:
        for line in pool.map(measure, [b for b in blocks if b not in done]):
            lines.add({**line, "machine": machine()})


def measure(block):
    """Return the counts of outcomes of one block; a killed process is an outcome."""
    kind, first = block
    started, outcomes = time.perf_counter(), {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "outcomes.jsonl")
        while len(outcomes) < BLOCK:
            start = first + len(outcomes)
            command = [sys.executable, __file__, "--block", kind, str(start)]
            subprocess.run(
                [*command, str(first + BLOCK), file], cwd=folder, stderr=subprocess.PIPE
            )
            outcomes = dict(map(json.loads, file.read_text().splitlines()))
            if len(outcomes) < BLOCK:
                seed = first + len(outcomes)
                taken = json.loads(Path(folder, "case.json").read_text())
                is_late = time.time() - taken["started"] >= MAX_SECONDS
                outcomes[seed] = "too long" if is_late else "process ended"
                file.write_text(
                    "".join(json.dumps(pair) + "\n" for pair in outcomes.items())
                )
    faults = {s: o for s, o in outcomes.items() if o.startswith(UNDOCUMENTED)}
    counts = Counter("fault" if s in faults else o for s, o in outcomes.items())
    seconds = round(time.perf_counter() - started)
    block = {"kind": kind, "first": first, "seconds": seconds}
    return {**block, "counts": dict(sorted(counts.items())), "faults": faults}


UNDOCUMENTED = ("fault", "too long", "process ended")


def run_cases(kind, start, stop, file):
    """Run cases, and write the outcome of each."""
    make, outcome = parts(kind)
    with file.open("a") as output:
        for seed in range(start, stop):
            begun = json.dumps({"seed": seed, "started": time.time()})
            Path("case.json").write_text(begun)
            faulthandler.dump_traceback_later(MAX_SECONDS, exit=True)
            try:
                came = outcome(make(seed))
            except Exception as error:
                came = f"fault: {type(error).__name__}: {error}"
            faulthandler.cancel_dump_traceback_later()
            output.write(json.dumps([seed, came]) + "\n")
            output.flush()


def again(kind, seed):
    """Run one case again, and print it with its outcome."""
    make, outcome = parts(kind)
    case = make(seed)
    print(case, outcome(case), sep="\n")


def parts(kind):
    sys.path[:0] = [str(CASES), str(CASES.parent / "helpers")]
    from hostile_cases import outcome
    from hostile_classes import class_case, class_outcome
    from hostile_dates import date_case
    from hostile_dtypes import dtype_case
    from hostile_images import image_case
    from hostile_parameters import parameter_case
    from hostile_scorers import scorer_case
    from hostile_settings import settings_case
    from hostile_tables import table_case

    makers = {
        "class": class_case,
        "date": date_case,
        "dtype": dtype_case,
        "image": image_case,
        "parameter": parameter_case,
        "scorer": scorer_case,
        "settings": settings_case,
        "table": table_case,
    }
    return makers[kind], class_outcome if kind == "class" else outcome


if __name__ == "__main__":
    main()
