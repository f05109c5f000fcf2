"""Scripts that run in their own process group."""

import json
import os
import re
import signal
import subprocess
import sys
import time

WAIT = 120  # maximum seconds for a whole script, on a busy machine
WORKER_ENDED = re.compile(
    r"Process LokyProcess-\d+:\nTraceback \(most recent call last\):\n"
    r"(  File .*(multiprocessing/process|loky/process_executor)\.py.*\n    .*\n)+"
    r"KeyboardInterrupt\n"
)
TINY = {"max_trials": 3, "max_epochs": 3, "cv": 2}

# The beginning of each script: the fits of tests/test_where_called.py, as text.
HEAD = f"""
import json, multiprocessing, os
from sklearn.datasets import load_iris
from sknas import NASClassifier
from sknas.strategies import RandomStrategy
from sknas._parallel import run

run.WORTH_WORKERS = run.ROOM_FOR_WORKERS = 0
X, CLASSES = load_iris(return_X_y=True)

def fit(n_jobs, seed=0):
    model = NASClassifier(n_jobs=n_jobs, random_state=seed, **{TINY!r})
    model.fit(X, CLASSES)
    scores = [list(trial.fold_scores) for trial in model.history_]
    n_workers = len(multiprocessing.active_children())
    return model.predict_proba(X).tolist(), scores, n_workers
"""


class Script:
    """A script in its own process group, with all processes it starts."""

    def __init__(self, folder, arguments, stdin=""):
        self.output, self.errors = folder / "output", folder / "errors"
        (folder / "input").write_text(stdin)
        # Background jobs of a shell ignore Ctrl-C, and so would the script.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        # Use files: a leftover worker would keep a pipe open.
        with (
            (folder / "input").open() as given,
            self.output.open("w") as output,
            self.errors.open("w") as errors,
        ):
            self.process = subprocess.Popen(
                [sys.executable, *arguments],
                stdin=given,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )
        signal.signal(signal.SIGINT, before)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.is_alive():
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def is_alive(self):
        """True if any process of the group is alive."""
        self.process.poll()
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def wait_for(self, is_met, seconds):
        """True if a condition becomes true in time."""
        until = time.monotonic() + seconds
        while not is_met():
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return True

    def lines(self):
        return self.output.read_text().splitlines()

    def end(self, seconds=WAIT):
        """Return the printed lines; assert no errors and no leftover processes."""
        has_ended = self.wait_for(lambda: self.process.poll() is not None, seconds)
        errors = self.errors.read_text()
        assert has_ended, f"still running after {seconds} s\n{errors}"
        # A loky worker prints this if Ctrl-C reaches it between two tasks.
        assert WORKER_ENDED.sub("", errors) == ""
        assert self.process.returncode == 0
        assert self.wait_for(lambda: not self.is_alive(), 10), "a worker is left"
        return [json.loads(line) for line in self.lines()]


def write(folder, code):
    path = folder / "script.py"
    path.write_text(code)
    return path
