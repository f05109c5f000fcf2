"""Searches that are killed at random moments, again and again, until they are done.

    python examples/benchmarks/kills.py --kills 200

Each search runs in a process of its own, with a checkpoint, for about 10 s. It receives
SIGKILL at a random time in its first 10 s and is started again, until a run finishes.
Then its predictions are compared with those of a search that was never killed. Its runs
list what they put into the checkpoint: after a kill no trial may be missing there, and
no trial, no rung of a group and no refitted network may be in the list twice. One line
per search; two run at a time.
"""

import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import cache
from itertools import count, islice
from pathlib import Path
from threading import Lock

from _lines import Lines, machine, parse_arguments

from sknas._checkpoint.store import DATABASE

SEEDS = 4  # different searches, each killed at many moments
MAX_SECONDS = 10.0  # until a run is killed
# Prefixes of keys that stand for trainings. Networks of a trial may be written twice,
# if the kill came between them and their trial.
TRAINED = ("cohort:", "trial:", "refit:")
SEARCH = """
import hashlib, sys
from sklearn.datasets import load_digits
from sknas import NASClassifier
from sknas._checkpoint.store import FileStore

put = FileStore.put

def listed_put(store, key, value):
    put(store, key, value)
    with open(sys.argv[3], "a") as file:
        file.write(key + "\\n")

FileStore.put = listed_put
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
print("started", flush=True)
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
    """Yield the numbers of searches that have no line yet."""
    there = {row["number"] for row in rows}
    return (number for number in count() if number not in there)


def start(seed, folder, puts):
    """Start a search that lists its puts in a file; return its process and the time."""
    command = [sys.executable, "-W", "ignore", "-c", SEARCH, str(seed), folder, puts]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "started\n"
    return process, time.monotonic()


@cache
def uninterrupted(seed):
    """Return a digest of the predictions of a whole search, and its seconds."""
    process, started = start(seed, "none", "none")
    digest = process.communicate()[0]
    return digest, time.monotonic() - started


def search(number):
    """Run one search, killing it until it finishes."""
    rng, seed = random.Random(number), number % SEEDS
    with _lock:
        digest, seconds = uninterrupted(seed)
    n_kills, found, lost = 0, "", set()
    with tempfile.TemporaryDirectory() as parent:
        folder, puts = f"{parent}/searches", Path(parent, "puts")
        puts.touch()
        while not found:
            process, started = start(seed, folder, puts)
            end = started + rng.uniform(0, MAX_SECONDS)
            while process.poll() is None and time.monotonic() < end:
                time.sleep(0.01)
            if process.poll() is None:
                process.kill()
                n_kills += 1
            else:
                found = process.stdout.read()
            process.stdout.close()
            process.wait()
            counts = Counter(puts.read_text().split())
            lost |= {key for key in counts if key.startswith("trial:")} - keys(folder)
    return {
        "number": number,
        "seed": seed,
        "kills": n_kills,
        "equal": found == digest,
        "trials_lost": len(lost),
        "done_twice": sum(
            n > 1 for key, n in counts.items() if key.startswith(TRAINED)
        ),
        "unbroken_s": round(seconds, 1),
    }


def keys(folder):
    """Return the keys of the only search in a folder, read from a copy.

    What a kill has left is recovered by the next run of the search.
    """
    with tempfile.TemporaryDirectory() as copy:
        for path in Path(folder).glob("*"):
            shutil.copytree(path, copy, dirs_exist_ok=True)
        with closing(sqlite3.connect(Path(copy, DATABASE))) as database:
            tables = database.execute("SELECT name FROM sqlite_master").fetchall()
            rows = database.execute("SELECT key FROM entries") if tables else []
            return {key for (key,) in rows}


if __name__ == "__main__":
    main()
