"""What fits and predictions leave in memory.

    python examples/benchmarks/leaks.py --fits 50 --predictions 2000

A line is a kind of fit, measured in a process of its own: tensors that are alive,
objects that the collector knows, and memory of the process, after a fifth of the calls
and at the end. The collector does not run in between, so that a cycle counts as a leak.
"""

import gc
import json
import subprocess
import sys
import time
import warnings
from pathlib import Path

from _lines import Lines, parse_arguments

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "helpers"))

WARM_UP = 5  # a fifth of the calls


def main():
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(sys.argv[2], sys.argv[3], int(sys.argv[4]))))
        return
    from leftovers import KINDS

    arguments = parse_arguments(
        __doc__,
        fits={"type": int, "default": 50},
        predictions={"type": int, "default": 2_000},
    )
    lines = Lines(arguments.results / "leaks.jsonl")
    for calls in ("fits", "predictions"):
        for kind in (*KINDS, "values"):
            key = {"kind": kind, "calls": calls, "n": getattr(arguments, calls)}
            lines.measure(key, lambda key=key: apart(**key))


def apart(kind, calls, n):
    """Measure in a process of its own."""
    command = [sys.executable, __file__, "--one", kind, calls, str(n)]
    output = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(output.stdout)


def measure(kind, calls, n):
    import leftovers

    warnings.simplefilter("ignore")
    make = leftovers.fit_values if kind == "values" else lambda: leftovers.fit(kind)
    model, X = make()
    call = make if calls == "fits" else lambda: model.predict(X)
    gc.collect()
    gc.disable()
    marks, started = [], time.process_time()
    for i in range(1, n + 1):
        call()
        if i in (n // WARM_UP, n):
            objects, mb = len(gc.get_objects()), leftovers.resident_mb()
            marks.append((leftovers.count_tensors(), objects, round(mb, 1)))
    seconds = (time.process_time() - started) / n
    tensors, objects, mb = map(list, zip(*marks, strict=True))
    found = {"tensors": tensors, "objects": objects, "mb": mb}
    return {**found, "seconds": round(seconds, 4)}


if __name__ == "__main__":
    main()
