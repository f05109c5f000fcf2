"""Results as JSON lines: one line per measurement, measured once."""

import argparse
import json
import os
import platform
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def parse_arguments(description, **extra):
    """Parse --results and the arguments given."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--results", type=Path, default=RESULTS)
    for name, options in extra.items():
        parser.add_argument(f"--{name}", **options)
    return parser.parse_args()


def machine():
    """Return a description of the machine."""
    with open("/proc/cpuinfo") as file:
        names = [line.split(":")[1].strip() for line in file if "model name" in line]
    cores = len(os.sched_getaffinity(0))
    return f"{names[0]}, {cores} cores, Python {platform.python_version()}"


class Lines:
    """A file of results.

    Parameters
    ----------
    path : Path
        The file.
    """

    def __init__(self, path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text() if path.exists() else ""
        self.rows = [json.loads(line) for line in text.splitlines() if line]

    def measure(self, key, function):
        """Return the row of `key`, measuring and writing it if it is missing."""
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
