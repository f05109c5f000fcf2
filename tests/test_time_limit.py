"""Quick tests have a limit of CPU time."""

from pathlib import Path

pytest_plugins = ["pytester"]

CONFTEST = Path(__file__).with_name("conftest.py").read_text(encoding="utf-8")
TESTS = """
import time

import pytest


def spin():
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass


@pytest.fixture
def slow_fixture():
    spin()


def test_slow():
    spin()


def test_slow_fixture(slow_fixture):
    pass


@pytest.mark.slow
def test_marked():
    spin()


def test_quick():
    pass
"""


def test_a_slow_test_without_a_marker_fails(pytester):
    pytester.makeconftest(
        CONFTEST.replace("MAX_CPU_SECONDS = 5.0", "MAX_CPU_SECONDS = 0.2")
    )
    pytester.makeini("[pytest]\nmarkers = slow")
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_inprocess("-p", "no:xdist", "--durations=1")
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(["*speed it up or mark it slow*", "*in all"])
