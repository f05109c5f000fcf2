"""Gain of a second process, and costs of a cluster and of a checkpoint.

    python examples/benchmarks/parallel.py

The same search of a generated table of 10,000 rows, by one process, two processes, two
of a local Dask cluster, and two with a checkpoint. They run in turn, so that the load
of the machine is similar for all. Workers are started before the clock. One line per
search.
"""

import tempfile
import time
from contextlib import ExitStack, contextmanager

import dask
import joblib
from _lines import Lines, parse_arguments
from distributed import Client, LocalCluster
from sklearn.datasets import make_classification

from sknas import NASClassifier
from sknas._checkpoint.store import FileStore

SEEDS = (0, 1, 2)
WAYS = ("1 process", "2 processes", "2 of Dask", "2, checkpoint")
# See the guide: by default, Dask's workers return memory to the system at every step.
DEFAULT_MALLOC = {"distributed.nanny.pre-spawn-environ": {"OMP_NUM_THREADS": 1}}
CLUSTER = {
    "n_workers": 2,
    "threads_per_worker": 1,
    "processes": True,
    "dashboard_address": ":0",
}


def main():
    arguments = parse_arguments(
        __doc__,
        rows={"type": int, "default": 10_000},
        trials={"type": int, "default": 6},
    )
    lines = Lines(arguments.results / "parallel.jsonl")
    for seed in SEEDS:
        for way in WAYS:
            key = {"way": way, "rows": arguments.rows, "seed": seed}
            lines.measure(key, lambda k=key: run(**k, n_trials=arguments.trials))


def run(way, rows, seed, n_trials):
    """Return the seconds of a search, without the start of its workers."""
    X, y = make_classification(rows, 20, n_informative=8, random_state=seed)
    model = NASClassifier(max_trials=n_trials, random_state=seed, n_jobs=2)
    with ExitStack() as stack:
        if way == "1 process":
            model.set_params(n_jobs=1)
        elif way == "2 of Dask":
            stack.enter_context(dask.config.set(DEFAULT_MALLOC))
            stack.enter_context(Client(stack.enter_context(LocalCluster(**CLUSTER))))
            stack.enter_context(joblib.parallel_config(backend="dask"))
        elif way == "2, checkpoint":
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            model.set_params(checkpoint=folder)
        if model.n_jobs == 2:
            warm_up = joblib.Parallel(2)(joblib.delayed(imported)(n) for n in range(8))
            assert len(warm_up) == 8
        written = stack.enter_context(timed_writes())
        started = time.perf_counter()
        model.fit(X, y)
        seconds = time.perf_counter() - started
        return {"fit_s": round(seconds, 2), "writing_s": round(sum(written), 3)}


@contextmanager
def timed_writes():
    """Collect the seconds of each write to a checkpoint."""
    written, put = [], FileStore.put

    def timed(*arguments):
        started = time.perf_counter()
        put(*arguments)
        written.append(time.perf_counter() - started)

    FileStore.put = timed
    yield written
    FileStore.put = put


def imported(number):
    """Occupy a worker until the other one has started, too."""
    import sknas.trainers  # noqa: F401

    time.sleep(0.5)
    return number


if __name__ == "__main__":
    main()
