"""Policy gradient: convergence, gradients and constraints."""

import numpy as np
import pytest

import sknas
from sknas._history import Proposal, Trial
from sknas._problem import Problem
from sknas.spaces import Categorical, DictSpace, Integer, Real
from sknas.strategies import ReinforceStrategy
from sknas.strategies._reinforce import nearest_index

# The toy example of the TabNAS paper: two layers over 2 features, where the best
# feasible network has a bottleneck.
SIZES = [2, 3, 4]
TOY = DictSpace({"first": Categorical(SIZES), "second": Categorical(SIZES)})
LIMIT = 16


def n_weights(a):
    return 2 * a["first"] + a["first"] * a["second"]


def quality(a):
    """Return a score that rises with the widths, most with the first one."""
    return a["first"] + 0.3 * a["second"]


def set_up(strategy, space=TOY, feasible=lambda a: True, seed=0):
    strategy.setup(space, Problem(feasible=feasible), np.random.default_rng(seed))
    return strategy


@pytest.mark.parametrize("seed", range(5))
def test_policy_converges_to_the_best_feasible_architecture(seed):
    strategy = set_up(
        ReinforceStrategy(), feasible=lambda a: n_weights(a) <= LIMIT, seed=seed
    )
    allowed = [a for a in TOY.enumerate() if n_weights(a) <= LIMIT]
    best = max(allowed, key=quality)
    for _ in range(150):  # repeats are allowed, as in the paper
        (architecture,) = strategy._sample(1)
        if n_weights(architecture) <= LIMIT:
            strategy.observe(
                [Trial(Proposal(architecture), score=quality(architecture))]
            )
    top = {n: int(np.argmax(p)) for n, p in strategy.probabilities().items()}
    assert {n: SIZES[j] for n, j in top.items()} == dict(best)


def test_outlier_does_not_prevent_learning():
    space = DictSpace({"x": Categorical(list("abcd")), "y": Categorical(list("abcd"))})
    strategy = set_up(ReinforceStrategy(), space)
    rng = np.random.default_rng(0)
    for step in range(80):
        (a,) = space.sample(1, rng)
        score = -1e6 if step == 5 else float(a["x"] == "c")
        strategy.observe([Trial(Proposal(a), score=score)])
    assert strategy.probabilities()["x"][2] > 0.8


def test_gradient_is_that_of_the_log_probability():
    strategy = set_up(ReinforceStrategy())
    strategy.logits_["first"][:] = [0.3, -0.2, 1.0]
    architecture = TOY.fill({"first": 3, "second": 2})

    def log_prob():
        p = strategy.probabilities()
        return np.log(p["first"][1]) + np.log(p["second"][0])

    gradient = strategy._log_prob_gradient(architecture)
    for name in ("first", "second"):
        for index in range(3):
            before = log_prob()
            strategy.logits_[name][index] += 1e-6
            rise = (log_prob() - before) / 1e-6
            strategy.logits_[name][index] -= 1e-6
            assert gradient[name][index] == pytest.approx(rise, abs=1e-5)


def test_gradients_of_a_batch_are_those_of_the_policy_that_proposed_it():
    """All gradients of a batch are taken at the logits that proposed it."""
    space = DictSpace({"x": [1, 2, 3]})
    strategy, by_hand = ReinforceStrategy(lr=1.0), ReinforceStrategy(lr=1.0)
    for each in (strategy, by_hand):
        each.setup(space, Problem(), np.random.default_rng(0))
    trials = [
        Trial(Proposal(space.fill({"x": x}), number=j), score=float(x))
        for j, x in enumerate((1, 3, 2, 3))
    ]
    gradients = [by_hand._log_prob_gradient(trial.architecture) for trial in trials]
    for trial, gradient in zip(trials, gradients, strict=True):
        by_hand._step(gradient, trial.score, by_hand._feasible_gradient())
    strategy.observe(trials)
    np.testing.assert_allclose(strategy.logits_["x"], by_hand.logits_["x"])
    one_by_one = ReinforceStrategy(lr=1.0)
    one_by_one.setup(space, Problem(), np.random.default_rng(0))
    for trial in trials:
        one_by_one.observe([trial])
    assert not np.allclose(strategy.logits_["x"], one_by_one.logits_["x"])


def test_inactive_choices_have_no_gradient():
    space = DictSpace(
        {
            "kind": Categorical(["a", "b"]),
            "rate": Integer(1, 4, when=("kind", ["a"])),
        }
    )
    strategy = set_up(ReinforceStrategy(), space)
    gradient = strategy._log_prob_gradient(space.fill({"kind": "b"}))
    assert not gradient["rate"].any() and gradient["kind"].any()


def test_good_values_become_likely():
    strategy = set_up(ReinforceStrategy())
    for number in range(40):
        architecture = TOY.fill({"first": SIZES[number % 3], "second": 2})
        score = float(architecture["first"] == 3)
        strategy.observe([Trial(Proposal(architecture), score=score)])
    assert strategy.probabilities()["first"][1] > 0.6


def test_ranges_are_discretised():
    assert Integer(1, 5).grid(8) == [1, 2, 3, 4, 5]
    assert Real(1.0, 100.0, log=True).grid(3) == [1.0, 10.0, 100.0]
    assert len(Integer(1, 1000, log=True).grid(8)) == 8
    assert Categorical(list("abcdefghij")).grid(8) == list("abcdefghij")


def test_values_are_assigned_to_the_nearest_discrete_value():
    rates = Real(1.0, 100.0, log=True)
    assert [nearest_index(rates, [1.0, 10.0, 100.0], r) for r in (3.0, 30.0, 50.0)] == [
        0,
        1,
        2,
    ]
    assert nearest_index(Categorical(["a", "b"]), ["a", "b"], "b") == 1
    sizes = Categorical([f"{j} units" for j in range(20)], ordered=True)
    values = sizes.grid(5)
    assert [nearest_index(sizes, values, v) for v in sizes.values()][::6] == [
        0,
        1,
        2,
        4,
    ]


def test_initial_policy_is_the_prior():
    space = DictSpace({"size": Categorical([1, 2, 3], weights=[3, 1, 0])})
    strategy = set_up(ReinforceStrategy(), space)
    assert strategy.values_["size"] == [1, 2]
    np.testing.assert_allclose(strategy.probabilities()["size"], [0.75, 0.25])


def test_without_constraints_inactive_choices_do_not_change():
    space = DictSpace(
        {"kind": Categorical(["a", "b"]), "rate": Integer(1, 4, when=("kind", ["a"]))}
    )
    strategy = set_up(ReinforceStrategy(), space)
    for number in range(9):
        trial = Trial(Proposal(space.fill({"kind": "b"})), score=float(number % 2))
        strategy.observe([trial])
    assert not strategy.logits_["rate"].any() and strategy.logits_["kind"].any()


@pytest.mark.parametrize(
    ("params", "name"),
    [({"lr": 0}, "lr"), ({"n_values": 1}, "n_values"), ({"n_estimating": 0}, "n_est")],
)
def test_wrong_parameters_raise_an_error(params, name):
    with pytest.raises(ValueError, match=f"'{name}.*' parameter of ReinforceStrategy"):
        sknas.search(quality, TOY, strategy=ReinforceStrategy(**params), max_trials=2)
