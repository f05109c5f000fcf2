"""Results as JSON lines: one a measurement, finished ones are not done again."""

import argparse
import json
import os
import platform
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def parse_arguments(description, **extra):
    """Common arguments of the scripts: --data and --results."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--results", type=Path, default=RESULTS)
    for name, options in extra.items():
        parser.add_argument(f"--{name}", **options)
    return parser.parse_args()


def machine():
    """What the numbers were measured on."""
    with open("/proc/cpuinfo") as file:
        names = [line.split(":")[1].strip() for line in file if "model name" in line]
    cores = len(os.sched_getaffinity(0))
    return f"{names[0]}, {cores} cores, Python {platform.python_version()}"


class Lines:
    """A file of results.

    Parameters
    ----------
    path : Path
        Where the lines are.
    """

    def __init__(self, path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text() if path.exists() else ""
        self.rows = [json.loads(line) for line in text.splitlines() if line]

    def measure(self, key, function):
        """The row of `key`: read, or measured now and written."""
        for row in self.rows:
            if all(row.get(name) == value for name, value in key.items()):
                return row
        return self.add({**key, **function(), "machine": machine()})

    def add(self, row):
        """Write a row."""
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self.rows.append(row)
        print(row, flush=True)
        return row
