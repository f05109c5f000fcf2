"""Searches that are killed at random moments, again and again, until they are done.

    python examples/benchmarks/kills.py --kills 200

Each search runs in a process of its own, with a checkpoint, for about 10 s. It gets
SIGKILL at a moment drawn from its first 10 s, is begun again, killed again, and so on
until a sitting comes to its end. Then its predictions are compared with those of a
search that was never killed, and its journal with what it should hold: no trial, no
rung of a unit and no network of all rows twice. One line a search; two run at a time.
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import count, islice
from pathlib import Path
from threading import Lock

from _lines import Lines, machine, parse_arguments

SEEDS = 4  # different searches, each killed at many moments
MOMENTS = 10.0  # seconds of a sitting in which it is killed
# What their keys begin with. Networks of a trial are written again where the kill came
# between them and their trial; that trains nothing.
TRAINED = ("cohort:", "trial:", "refit:")
SEARCH = """
import hashlib, sys
from sklearn.datasets import load_digits
from sknas import NASClassifier

X, y = load_digits(return_X_y=True)
folder = None if sys.argv[2] == "none" else sys.argv[2]
model = NASClassifier(
    max_trials=16,
    max_epochs=40,
    cv=2,
    n_jobs=1,
    random_state=int(sys.argv[1]),
    checkpoint=folder,
)
print("begun", flush=True)
model.fit(X[:300, 20:30], y[:300])
predicted = model.predict_proba(X[:, 20:30])
print(hashlib.sha256(predicted.tobytes()).hexdigest(), flush=True)
"""
_lock = Lock()


def main():
    arguments = parse_arguments(__doc__, kills={"type": int, "default": 200})
    lines = Lines(arguments.results / "kills.jsonl")
    with ThreadPoolExecutor(2) as pool:
        while (n_kills := sum(row["kills"] for row in lines.rows)) < arguments.kills:
            print(f"{n_kills} kills so far", flush=True)
            numbers = count_from(lines.rows)
            for row in pool.map(search, islice(numbers, 2)):
                lines.add(row | {"machine": machine()})


def count_from(rows):
    """The numbers of searches that have no line yet."""
    there = {row["number"] for row in rows}
    return (number for number in count() if number not in there)


def begun(seed, folder):
    """A sitting, and the time when its search began."""
    command = [sys.executable, "-W", "ignore", "-c", SEARCH, str(seed), str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begun\n"
    return process, time.monotonic()


@cache
def unbroken(seed):
    """What a search that was never killed predicts, and its seconds."""
    process, started = begun(seed, "none")
    digest = process.communicate()[0]
    return digest, time.monotonic() - started


def search(number):
    """One search, killed until it is done."""
    rng, seed = random.Random(number), number % SEEDS
    with _lock:
        digest, seconds = unbroken(seed)
    n_kills, found, n_trials, n_lost = 0, "", 0, 0
    with tempfile.TemporaryDirectory() as folder:
        while not found:
            process, started = begun(seed, folder)
            end = started + rng.uniform(0, MOMENTS)
            while process.poll() is None and time.monotonic() < end:
                time.sleep(0.01)
            if process.poll() is None:
                process.kill()
                n_kills += 1
            else:
                found = process.stdout.read()
            process.stdout.close()
            process.wait()
            before, n_trials = n_trials, len(trials(folder))
            n_lost += max(before - n_trials, 0)
        counts = Counter(keys(folder))
    return {
        "number": number,
        "seed": seed,
        "kills": n_kills,
        "equal": found == digest,
        "trials_lost": n_lost,
        "done_twice": sum(
            n > 1 for key, n in counts.items() if key.startswith(TRAINED)
        ),
        "unbroken_s": round(seconds, 1),
    }


def keys(folder):
    """All that the journal of the one search in a folder holds, torn lines left out."""
    paths = list(Path(folder).glob("*/journal.jsonl"))
    texts = [text for path in paths for text in path.read_text().splitlines()]
    found = []
    for text in texts:
        content = text.partition(" ")[2]
        if content.endswith("}"):
            try:
                found.append(json.loads(content)["key"])
            except json.JSONDecodeError:
                continue
    return found


def trials(folder):
    return {key for key in keys(folder) if key.startswith("trial:")}


if __name__ == "__main__":
    main()
