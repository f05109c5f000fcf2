"""Any input gives a valid result or a documented error."""

import pytest
from hostile_cases import FaultError, outcome
from hostile_classes import class_case, class_outcome
from hostile_dates import date_case
from hostile_dtypes import dtype_case
from hostile_images import image_case
from hostile_parameters import parameter_case
from hostile_scorers import check_folds, scorer_case
from hostile_settings import settings_case
from hostile_tables import table_case
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

# A case depends on its seed only, so there is nothing to shrink.
few = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=15,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
seeds = st.integers(0, 2**32 - 1)


def check(case, outcome=outcome):
    try:
        return outcome(case)
    except FaultError as fault:
        pytest.fail(f"{fault} | {case}")


@few
@given(seed=seeds)
def test_tables_give_a_result_or_a_documented_error(seed):
    check(table_case(seed))


@few
@given(seed=seeds)
def test_images_give_a_result_or_a_documented_error(seed):
    check(image_case(seed))


@few
@given(seed=seeds)
def test_parameters_give_a_result_or_a_documented_error(seed):
    check(parameter_case(seed))


@few
@given(seed=seeds)
def test_equal_values_of_any_dtype_are_predicted_alike(seed):
    check(dtype_case(seed))


@settings(few, max_examples=8)
@given(seed=seeds)
def test_equal_dates_in_any_container_are_predicted_alike(seed):
    check(date_case(seed))


@settings(few, max_examples=6)
@given(seed=seeds)
def test_rare_classes_give_a_result_or_a_documented_error(seed):
    check(class_case(seed), class_outcome)


@few
@given(seed=seeds)
def test_scorers_compare_trials_on_the_same_folds_or_are_refused(seed):
    case = scorer_case(seed)
    check_folds(case, check(case))


@settings(few, max_examples=4)
@given(seed=seeds)
def test_settings_of_the_caller_change_nothing(seed):
    check(settings_case(seed))
