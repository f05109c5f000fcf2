"""The skorch trainer against a plain torch loop: same network, batches and steps.

    python examples/benchmarks/training_loop.py

Both run in turn, in one thread; the result is the median ratio.
"""

import time

import numpy as np
import torch
from _lines import Lines, parse_arguments
from torch.nn import functional

from sknas._problem import Rows, TaskSpec
from sknas._training.batches import Batches
from sknas.spaces import TableSpace
from sknas.trainers import Training, train_network

CASES = (
    # rows, columns, width, depth, batch, numeric embedding
    (1_000, 20, 64, 2, 64, "none"),
    (1_000, 20, 128, 2, 64, "piecewise"),
    (10_000, 20, 128, 2, 256, "piecewise"),
)
STEPS = 600
REPEATS = 7


def main():
    arguments = parse_arguments(__doc__)
    lines = Lines(arguments.results / "training_loop.jsonl")
    for case in CASES:
        names = ("rows", "columns", "width", "depth", "batch", "embedding")
        key = dict(zip(names, case, strict=True))
        lines.measure(key, lambda case=case: measure(*case))


def measure(n_rows, n_columns, width, depth, batch_size, embedding):
    """Return the milliseconds per step of both, and the median of their ratios."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n_rows, n_columns)).astype(np.float32)
    rows = Rows(x, (x[:, 0] > 0).astype(np.int64), np.ones(n_rows))
    edges = np.quantile(x, np.linspace(0, 1, 49), axis=0).T.astype(np.float32)
    task = TaskSpec("binary", 2, n_rows, n_columns, edges=edges.copy())
    space = TableSpace(batch_size=(batch_size,)).for_task(task)
    architecture = space.fill(
        {"width": width, "depth": depth, "numeric_embedding": embedding}
    )
    times = {"skorch": [], "plain": []}
    for _ in range(REPEATS):
        times["skorch"].append(skorch_step(space, architecture, task, rows))
        times["plain"].append(plain_step(space, architecture, task, rows))
    ratios = np.array(times["skorch"]) / np.array(times["plain"])
    return {
        "skorch_ms": round(float(np.median(times["skorch"])), 3),
        "plain_ms": round(float(np.median(times["plain"])), 3),
        "ratio": round(float(np.median(ratios)), 3),
        "ratios": [round(float(ratio), 2) for ratio in ratios],
    }


def skorch_step(space, architecture, task, rows):
    training = Training(space, architecture, task, STEPS, None, seed=0)
    started = time.perf_counter()
    trained = train_network(training, rows)
    seconds = time.perf_counter() - started
    per_epoch = -(-len(rows) // architecture["batch_size"])
    return 1e3 * seconds / (len(trained.net.history) * per_epoch)


def plain_step(space, architecture, task, rows):
    torch.manual_seed(0)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    net = space.build(architecture, task)
    net.train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)
    x, y = torch.tensor(rows.x), torch.tensor(rows.y)
    n_batches = -(-len(rows) // architecture["batch_size"])
    batches = Batches((x, y), n_batches, seed=0)
    n_epochs = max(1, round(STEPS / n_batches))
    started = time.perf_counter()
    for _ in range(n_epochs):
        for x_batch, y_batch in batches:
            optimizer.zero_grad()
            loss = functional.cross_entropy(net(x_batch)[0], y_batch)
            loss.backward()
            optimizer.step()
    seconds = time.perf_counter() - started
    torch.set_num_threads(n_threads)
    return 1e3 * seconds / (n_epochs * n_batches)


if __name__ == "__main__":
    main()
