"""Whatever comes in: a result that holds, or one sentence that says what is wrong."""

import pytest
from hostile_cases import outcome
from hostile_images import image_case
from hostile_parameters import parameter_case
from hostile_tables import table_case
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

MAKERS = {"table": table_case, "image": image_case, "parameter": parameter_case}


@pytest.mark.parametrize("kind", MAKERS)
@settings(
    max_examples=12,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(seed=st.integers(0, 100_000))
def test_it_is_a_result_or_one_sentence(kind, seed):
    assert outcome(MAKERS[kind](seed))
