"""Fixtures that several test files use, and the time limit of quick tests."""

import os
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from sknas._problem import TaskSpec

MARKERS = ("slow", "process", "cluster", "docs", "packaging")
MAX_CPU_SECONDS = 5.0  # of a test without these markers
# The exceptions, by the start of their names, with the CPU seconds they may take.
EXPENSIVE = {
    "tests/_parallel/test_clusters.py::test_two_processes_give_the_result_of_one": 30,
    "tests/test_docs.py::test_code_of_page_prints_the_output_shown[README]": 40,
    "tests/test_estimator_checks.py::test_checks_at_default_parameters": 20,
}
STARTED = pytest.StashKey[float]()
RECORDED = []  # warnings that were no errors, which the summary shows


def cpu_seconds():
    """Return the CPU time of this process and of its children that have ended."""
    return sum(os.times()[:4])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    item.stash[STARTED] = cpu_seconds()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Fail a test without a marker that takes too long."""
    result = yield
    seconds = cpu_seconds() - item.stash[STARTED]
    item.user_properties.append(("cpu_seconds", seconds))
    limits = [s for name, s in EXPENSIVE.items() if item.nodeid.startswith(name)]
    is_marked = any(map(item.get_closest_marker, MARKERS))
    # Coverage makes tests slower.
    is_quick = not is_marked and not item.config.getoption("cov_source", None)
    if is_quick and seconds > max([MAX_CPU_SECONDS, *limits]):
        pytest.fail(f"takes {seconds:.1f} s of CPU time: speed it up or mark it slow")
    return result


def pytest_warning_recorded(warning_message, nodeid):
    """Fail for a warning of a library inside sknas, where it raises no error."""
    RECORDED.append(f"{nodeid}: {warning_message.message}")


def pytest_sessionfinish(session):
    if RECORDED and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config):
    """With --durations, print the CPU time of the tests in each folder."""
    if config.option.durations is None:
        return
    totals = Counter()
    for report in terminalreporter.getreports("passed"):
        folder = report.nodeid.partition("::")[0].rpartition("/")[0]
        # Doctests of the package have no time: they are not below this folder.
        totals[folder] += dict(report.user_properties).get("cpu_seconds", 0)
    terminalreporter.section("CPU seconds by folder")
    for folder, seconds in totals.most_common():
        terminalreporter.write_line(f"{seconds:7.1f} {folder}")
    terminalreporter.write_line(f"{totals.total():7.1f} in all")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def numeric_table(rng):
    """Return X (60, 5) of float64 without gaps, and two classes that depend on X."""
    X = rng.normal(size=(60, 5))
    return X, (X[:, 0] + 0.3 * rng.normal(size=60) > 0).astype(int)


@pytest.fixture
def mixed_frame(rng):
    """Return a frame of 48 rows with a column of each kind, most of them with gaps."""
    n = 48

    def with_gaps(values):
        return [None if row % 7 == 3 else value for row, value in enumerate(values)]

    words = rng.choice(["red", "green", "blue", "grey"], n)
    levels = pd.CategoricalDtype(["low", "middle", "high"], ordered=True)
    return pd.DataFrame(
        {
            "number": rng.normal(size=n),
            "gaps": pd.array(with_gaps(rng.normal(size=n)), dtype="Float64"),
            "integer": pd.array(with_gaps(rng.integers(0, 9, n)), dtype="Int64"),
            "flag": rng.random(n) < 0.5,
            "flag_gaps": pd.array(with_gaps(rng.random(n) < 0.5), dtype="boolean"),
            "word": with_gaps(words),
            "level": pd.Series(rng.choice(levels.categories, n), dtype=levels),
            "many": [f"id{number}" for number in rng.integers(0, 12, n)],
            "constant": np.ones(n),
            "nothing": [None] * n,
        }
    )


@pytest.fixture
def task(rng):
    """A task with 3 classes, 3 numbers, 2 flags, and categories of 4 and 20 levels."""
    edges = np.sort(rng.normal(size=(3, 49)), axis=1).astype(np.float32)
    return TaskSpec(
        kind="multiclass",
        n_outputs=3,
        n_rows=1_000,
        n_numeric=3,
        n_binary=2,
        cardinalities=(4, 20),
        edges=edges,
    )


@pytest.fixture
def encoded_rows(task, rng):
    """Return rows (10, F) of `task`, with unknown categories in the first row."""
    codes = [rng.integers(0, c + 1, 10) for c in task.cardinalities]
    x = np.column_stack(
        [
            rng.normal(size=(10, task.n_numeric)),
            rng.choice([-1.0, 0.0, 1.0], (10, task.n_binary)),
            *codes,
        ]
    ).astype(np.float32)
    x[0, task.n_numeric + task.n_binary :] = 0
    return x
