"""Whatever is given: a result that holds, or one documented sentence."""

import pytest
from hostile_cases import FaultError, outcome
from hostile_images import image_case
from hostile_parameters import parameter_case
from hostile_tables import table_case
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

# A case is made of its seed alone, so there is nothing to shrink.
few = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=15,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
seeds = st.integers(0, 2**32 - 1)


def holds(case):
    try:
        outcome(case)
    except FaultError as fault:
        pytest.fail(f"{fault} | {case}")


@few
@given(seed=seeds)
def test_tables(seed):
    holds(table_case(seed))


@few
@given(seed=seeds)
def test_images(seed):
    holds(image_case(seed))


@few
@given(seed=seeds)
def test_parameters(seed):
    holds(parameter_case(seed))
