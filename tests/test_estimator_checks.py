"""scikit-learn's own checks, without an exception: the library's public promise."""

import pytest
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

from sknas import NASClassifier, NASRegressor
from sknas.spaces import TableSpace
from sknas.strategies import STRATEGIES as KNOWN
from sknas.strategies import BayesianStrategy
from sknas.strategies.bayesian.strategy import SURROGATES, WORDS

# Tables of the checks have classes of one or two rows, of which fit warns rightly.
pytestmark = pytest.mark.filterwarnings("ignore:.*classes have fewer than")

# Each surrogate and each acquisition is there once. One trial comes before them, as
# the space is too small to hold known architectures beside the default one.
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
    recipe=("uniform",),  # the one that has this learning rate
    lr=(0.01, 0.02),
)
EPOCHS = {NASClassifier: 8, NASRegressor: 15}  # enough for the scores the checks want
QUICK = [
    kind(SPACE, strategy, max_trials=2, max_epochs=max_epochs, ensemble_size=1)
    for kind, max_epochs in EPOCHS.items()
    for strategy in STRATEGIES
]


@parametrize_with_checks([NASClassifier(), NASRegressor()])
def test_checks_at_default_parameters(estimator, check):
    check(estimator)


@parametrize_with_checks(QUICK)
def test_checks_of_every_strategy(estimator, check):
    check(estimator)


def test_every_strategy_is_checked():
    bayesian = [s for s in STRATEGIES if isinstance(s, BayesianStrategy)]
    # Tables have no graphs.
    assert {s.surrogate for s in bayesian} == set(SURROGATES) - {"wl"}
    assert {s.acquisition for s in bayesian} == set(WORDS)
    assert {type(s) for s in STRATEGIES} == set(KNOWN.values())


@pytest.mark.parametrize("estimator", [NASClassifier(), NASRegressor()])
def test_no_tag_hides_a_check(estimator):
    tags = get_tags(estimator)
    assert not (tags.non_deterministic or tags.no_validation)
    kind_tags = tags.classifier_tags or tags.regressor_tags
    assert not kind_tags.poor_score
