"""Seconds that `import sknas` takes after `import torch, sklearn`, in a fresh process.

    python examples/benchmarks/import_time.py

One process after another, after one that compiles the modules and fills the disk cache.
"""

import json
import os
import subprocess
import sys

import numpy as np
from _lines import Lines, parse_arguments

REPEATS = 10
CODE = """
import json, sys, time
started = time.perf_counter()
import torch, sklearn
n_modules, ready = len(sys.modules), time.perf_counter()
import sknas
seconds = (time.perf_counter() - ready, ready - started)
print(json.dumps([*seconds, len(sys.modules) - n_modules]))
"""


def main():
    lines = Lines(parse_arguments(__doc__).results / "import_time.jsonl")
    lines.measure({"module": "sknas", "after": "torch, sklearn"}, measure)


def measure():
    """Return the seconds of `import sknas` and of the imports before it."""
    one_import()
    rows = np.array([one_import() for _ in range(REPEATS)])
    median = np.median(rows, axis=0)
    return {
        "median_s": round(float(median[0]), 3),
        "min_s": round(float(rows[:, 0].min()), 3),
        "before_s": round(float(median[1]), 2),
        "n_modules": int(median[2]),
    }


def one_import():
    """Import in a fresh process; return both times and the number of new modules."""
    # Bytecode is written, as an installer would do.
    environment = {
        k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"
    }
    command = [sys.executable, "-c", CODE]
    output = subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment
    )
    return json.loads(output.stdout)


if __name__ == "__main__":
    main()
