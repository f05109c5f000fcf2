"""scikit-learn's own checks pass without exceptions."""

import pytest
from sklearn import clone
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import (
    check_dict_unchanged,
    check_estimators_pickle,
    check_fit2d_1sample,
    check_fit_idempotent,
    check_methods_sample_order_invariance,
    check_set_params,
    parametrize_with_checks,
)

from sknas import NASClassifier, NASRegressor
from sknas.spaces import TableSpace
from sknas.strategies import STRATEGIES as KNOWN
from sknas.strategies import BayesianStrategy
from sknas.strategies.bayesian.strategy import ACQUISITION_NAMES, SURROGATES

# Some tables of the checks have classes of one or two rows: fit warns about them.
pytestmark = pytest.mark.filterwarnings("ignore:Scores say little about some classes")

# Each surrogate and each acquisition occurs once. One trial comes before them, as the
# space is too small for an initial design besides the default architecture.
PAIRS = [
    ("gp", "gp_hedge"),
    ("rf", "pi"),
    ("et", "lcb"),
    ("gbrt", "ei"),
    ("hamming", "eips"),
    ("deep-ensemble", "thompson"),
]
STRATEGIES = [
    *[kind() for kind in KNOWN.values() if kind is not BayesianStrategy],
    *[BayesianStrategy(*pair, n_initial_points=1, n_draws=50) for pair in PAIRS],
]
SPACE = TableSpace(
    depth=(1, 1),
    width=(32, 64),
    activation=("relu",),
    optimizer=("adamw",),
    recipe=("uniform",),  # the only recipe with this learning rate
    lr=(0.01, 0.02),
)
EPOCHS = {
    NASClassifier: 8,
    NASRegressor: 15,
}  # enough for the scores that the checks require
QUICK = [
    kind(SPACE, strategy, max_trials=2, max_epochs=max_epochs, ensemble_size=1)
    for kind, max_epochs in EPOCHS.items()
    for strategy in STRATEGIES
]


def strategy_id(estimator):
    return f"{type(estimator).__name__}-{estimator.strategy}"


@parametrize_with_checks([NASClassifier(), NASRegressor()])
def test_checks_at_default_parameters(estimator, check):
    check(estimator)


# The checks of what a strategy can spoil; the others look at the data.
@pytest.mark.parametrize(
    "check",
    [
        check_dict_unchanged,
        check_estimators_pickle,
        check_fit2d_1sample,
        check_fit_idempotent,
        check_methods_sample_order_invariance,
        check_set_params,
    ],
)
@pytest.mark.parametrize("estimator", QUICK, ids=strategy_id)
def test_checks_of_every_strategy(estimator, check):
    check(type(estimator).__name__, clone(estimator))


@pytest.mark.slow
@parametrize_with_checks(QUICK)
def test_all_checks_of_every_strategy(estimator, check):
    check(estimator)


def test_every_strategy_is_checked():
    bayesian = [s for s in STRATEGIES if isinstance(s, BayesianStrategy)]
    # No graph kernels: tables have no graphs.
    assert {s.surrogate for s in bayesian} == set(SURROGATES) - {"wl"}
    assert {s.acquisition for s in bayesian} == set(ACQUISITION_NAMES)
    assert {type(s) for s in STRATEGIES} == set(KNOWN.values())


@pytest.mark.parametrize("estimator", [NASClassifier(), NASRegressor()])
def test_no_tag_disables_a_check(estimator):
    tags = get_tags(estimator)
    assert not (tags.non_deterministic or tags.no_validation)
    kind_tags = tags.classifier_tags or tags.regressor_tags
    assert not kind_tags.poor_score
