"""Gradient search: formulas, guards, discretisation and results."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from planted import OPTIONS, PLANTED, PlantedNet, PlantedSpace, planted_problem
from sklearn.base import clone
from torch.distributions import Dirichlet

import sknas
from sknas._history import Proposal, Trial
from sknas._problem import NullStore, Problem, Rows, RunContext, TaskSpec
from sknas.exceptions import SearchWarning
from sknas.nets import MixedChoice, MixtureWeights
from sknas.spaces import Space
from sknas.strategies import STRATEGIES, GradientStrategy
from sknas.strategies.gradient.alphas import Alphas
from sknas.strategies.gradient.discretize import (
    DISCRETISATIONS,
    DiscreteArchitecture,
    argmax_architecture,
    limit_skips,
    one_op_changes,
    perturbation_architecture,
)
from sknas.strategies.gradient.optimizers import (
    arch_optimizer,
    clip_gradient,
    default_arch_lr,
    power_step,
    unrolled_gradient,
    weight_optimizer,
)
from sknas.strategies.gradient.presets import PRESETS, Preset
from sknas.strategies.gradient.progress import SearchProgress, TimeBudget
from sknas.strategies.gradient.regularizers import (
    REGULARISERS,
    auxiliary_skip,
    beta_decay,
    skip_dropout,
    smooth,
    zero_one,
)
from sknas.strategies.gradient.relaxations import RELAXATIONS
from sknas.strategies.gradient.split import BilevelSplit, stratified_split
from sknas.strategies.gradient.supernet_trainer import SupernetTrainer

FAST = {"lr": 0.02}  # learning rate of the weights, for trainings of few steps


def set_up(strategy, problem=None, seed=0, space=None, **run):
    """Return a strategy after its setup."""
    strategy = clone(strategy)
    strategy.attach(RunContext(**run))
    problem = planted_problem() if problem is None else problem
    space = PlantedSpace() if space is None else space
    strategy.setup(space, problem, np.random.default_rng(seed))
    return strategy


def functions(architecture):
    return {name: architecture[name] for name in PLANTED}


# ---------------------------------------------------------------------- the gradients


@pytest.mark.parametrize("lr", [0.1, 1.0])
def test_second_order_is_exact_on_a_quadratic(lr):
    """Training loss (w - a)^2 / 2, loss of the alphas (w - 1)^2 / 2."""
    a = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    w = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    found = unrolled_gradient(
        lambda: (w - 1).square().sum() / 2,
        lambda: (w - a).square().sum() / 2,
        a,
        [w],
        lr,
    )
    ahead = 2.0 - lr * (2.0 - 0.3)
    assert abs(found.item() - lr * (ahead - 1)) < 1e-6
    assert w.item() == 2.0


def test_second_order_equals_autograd_with_momentum_and_decay():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    a = torch.randn(3, generator=generator, dtype=torch.float64).requires_grad_()
    w = torch.randn(4, generator=generator, dtype=torch.float64).requires_grad_()
    velocity = torch.randn(4, generator=generator, dtype=torch.float64)

    def arch_loss(w):
        return (w**2).sum() / 2 + (a**2).sum()

    def weight_loss(w):
        return (w - matrix @ a).square().sum() / 2

    found = unrolled_gradient(
        lambda: arch_loss(w), lambda: weight_loss(w), a, [w], 0.2, [velocity], 0.01
    )
    (slope,) = torch.autograd.grad(weight_loss(w), w, create_graph=True)
    ahead = w - 0.2 * (0.9 * velocity + slope + 0.01 * w)
    (expected,) = torch.autograd.grad(arch_loss(ahead), a)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_both_sides_of_a_finite_difference_have_the_same_noise():
    """Independent noise would swamp the second derivative."""
    a = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    w = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)

    def noisy():
        return ((w - a) ** 2).sum() / 2 + 100 * (torch.rand(1).double() * a).sum()

    torch.manual_seed(0)
    found = unrolled_gradient(lambda: (w - 1).square().sum() / 2, noisy, a, [w], 0.1)
    assert abs(found.item() - 0.1 * (2.0 - 0.1 * 1.7 - 1)) < 1e-6


def test_sharpness_is_the_largest_eigenvalue():
    hessian = torch.diag(torch.tensor([-1.0, 5.0, 3.0]))
    direction = torch.ones(3)
    for _ in range(25):
        value, direction = power_step(lambda at: hessian @ at, torch.ones(3), direction)
    assert value == pytest.approx(5.0, abs=1e-3)
    torch.testing.assert_close(
        direction.abs(), torch.tensor([0.0, 1.0, 0.0]), atol=0.01, rtol=0
    )
    flat, _ = power_step(torch.zeros_like, torch.ones(3), torch.ones(3))
    assert flat == 0.0


# --------------------------------------------------------------------- the optimisers

GRADIENTS = ([1.0, -2.0], [0.5, 0.0])
START = [0.2, -0.4]
LR, DECAY = 0.1, 0.01


def by_formula(kind):
    """Return the alphas after two steps of an optimiser, computed with numpy."""
    a = np.array(START)
    m, v = np.zeros(2), np.zeros(2)
    for t, gradient in enumerate(GRADIENTS, start=1):
        g = np.array(gradient) + DECAY * a
        if kind == "sgd":
            a = a - LR * g
        elif kind == "momentum":
            m = 0.9 * m + g
            a = a - LR * m
        elif kind == "rmsprop":
            v = 0.9 * v + 0.1 * g**2
            a = a - LR * g / (np.sqrt(v) + 1e-8)
        else:
            m, v = 0.5 * m + 0.5 * g, 0.999 * v + 0.001 * g**2
            scale = np.sqrt(v / (1 - 0.999**t)) + 1e-8
            a = a - LR * m / (1 - 0.5**t) / scale
    return a


@pytest.mark.parametrize("kind", ["adam", "sgd", "momentum", "rmsprop"])
def test_architecture_optimisers_equal_their_formula(kind):
    alphas = torch.tensor(START, dtype=torch.float64, requires_grad=True)
    optimizer = arch_optimizer(kind, alphas)
    for gradient in GRADIENTS:
        optimizer.step([torch.tensor(gradient, dtype=torch.float64)], LR, DECAY)
    np.testing.assert_allclose(alphas.detach().numpy(), by_formula(kind), rtol=1e-12)


def test_weights_are_updated_by_sgd_with_momentum():
    w, unused = torch.ones(2, requires_grad=True), torch.ones(1, requires_grad=True)
    optimizer = weight_optimizer([w, unused], is_adaptive=False)
    x, m = np.ones(2), np.zeros(2)
    for gradient in ([0.1, -0.2], [0.3, 0.0]):
        optimizer.step([torch.tensor(gradient), None], 0.5, 0.01)
        m = 0.9 * m + np.array(gradient) + 0.01 * x
        x = x - 0.5 * m
    np.testing.assert_allclose(w.detach().numpy(), x, rtol=1e-6)
    np.testing.assert_allclose(optimizer.velocities[0].numpy(), m, rtol=1e-6)
    assert unused.item() == 1.0


def test_weights_are_updated_by_adamw_for_tables():
    w = torch.ones(2, requires_grad=True)
    optimizer = weight_optimizer([w], is_adaptive=True)
    optimizer.step([torch.tensor([0.3, -0.02])], 0.1, 0.5)
    expected = np.ones(2) * (1 - 0.1 * 0.5) - 0.1 * np.array([1.0, -1.0])
    np.testing.assert_allclose(w.detach().numpy(), expected, rtol=1e-4)
    assert optimizer.velocities == []


def test_large_gradients_are_clipped():
    parts = clip_gradient([torch.tensor([30.0]), torch.tensor([40.0, 0.0])], 5.0)
    assert torch.cat(parts).tolist() == pytest.approx([3.0, 4.0, 0.0])
    short = clip_gradient([torch.tensor([0.3])], 5.0)
    assert short[0].item() == pytest.approx(0.3) and clip_gradient([], 5.0) == []


def test_learning_rate_of_alphas_is_larger_in_short_searches():
    assert default_arch_lr("adam", 3e-4, 300) == pytest.approx(0.01)
    assert default_arch_lr("adam", 3e-4, 3) == 0.05
    assert default_arch_lr("adam", 3e-4, 20_000) == 3e-4
    assert default_arch_lr("sgd", 3e-4, 300) == pytest.approx(1.0)


# -------------------------------------------------------------------- the relaxations


@pytest.mark.parametrize("name", ["softmax", "gumbel", "gumbel-st", "dirichlet"])
def test_mixture_weights_lie_on_the_simplex(name):
    torch.manual_seed(0)
    alphas = torch.tensor([0.5, -1.0, 3.0, 0.0])
    for temperature in (10.0, 1.0, 0.1):
        values = RELAXATIONS[name].sample(alphas, temperature).values
        assert (values >= -1e-6).all() and values.sum() == pytest.approx(1, abs=1e-5)
    mean = RELAXATIONS[name].mean(alphas)
    assert (mean > 0).all() and mean.sum() == pytest.approx(1, abs=1e-6)
    assert mean.argmax() == 2


def test_a_straight_through_gradient_reaches_alphas_that_were_not_sampled():
    torch.manual_seed(0)
    alphas = torch.zeros(4, requires_grad=True)
    weights = RELAXATIONS["gumbel-st"].sample(alphas, 1.0)
    (index,) = weights.computed
    assert weights.values.detach().round().tolist() == [
        float(j == index) for j in range(4)
    ]
    (gradient,) = torch.autograd.grad(weights.values[index], alphas)
    assert (gradient != 0).all()


def test_dirichlet_samples_have_the_right_mean_and_a_gradient():
    torch.manual_seed(0)
    alphas = torch.tensor([1.0, 0.0, -1.0], requires_grad=True)
    relaxation = RELAXATIONS["dirichlet"]
    drawn = [relaxation.sample(alphas, 1.0).values for _ in range(600)]
    expected = relaxation.mean(alphas)
    conc = torch.tensor([2.0, 1.0, np.exp(-1.0)])
    torch.testing.assert_close(expected.detach(), Dirichlet(conc).mean.float())
    torch.testing.assert_close(
        torch.stack(drawn).mean(dim=0), expected, atol=0.03, rtol=0
    )
    (gradient,) = torch.autograd.grad(drawn[0][0], alphas)
    assert torch.isfinite(gradient).all() and (gradient != 0).any()


def test_gumbel_samples_options_with_softmax_probabilities():
    torch.manual_seed(0)
    alphas = torch.tensor([1.0, 0.0])
    drawn = [RELAXATIONS["gumbel-st"].sample(alphas, 1.0).computed for _ in range(800)]
    share = np.mean([computed == (0,) for computed in drawn])
    assert share == pytest.approx(torch.softmax(alphas, 0)[0].item(), abs=0.04)


def test_sigmoid_weights_are_independent():
    alphas = torch.tensor([0.0, 100.0, -100.0])
    values = RELAXATIONS["sigmoid"].sample(alphas, 1.0).values
    assert values.tolist() == pytest.approx([0.5, 1.0, 0.0])


def make_alphas(relaxation="softmax", n_features=3):
    net = PlantedNet(n_features)
    torch.manual_seed(0)
    return Alphas(net.choices, RELAXATIONS[relaxation], "cpu")


@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_pruned_options_have_no_weight(relaxation):
    alphas = make_alphas(relaxation)
    with torch.no_grad():
        alphas.vector.copy_(torch.arange(12.0) % 4)
    alphas.prune(0.5)
    assert alphas.active == {f"f{j}": [2, 3] for j in range(3)}
    for weights in (
        *alphas.sample(alphas.vector, 1.0).values(),
        *alphas.mean(alphas.vector).values(),
    ):
        assert weights.values[:2].tolist() == [0.0, 0.0]
        assert set(weights.indices) <= {2, 3}
    assert alphas.shares()["f0"][2:].min() > 0


def test_at_least_two_options_stay_active():
    alphas = make_alphas()
    alphas.prune(0.01)
    assert {len(active) for active in alphas.active.values()} == {2}


def test_entropy_is_1_if_uniform_and_0_if_one_hot():
    alphas = make_alphas()
    assert alphas.entropy() > 0.999
    with torch.no_grad():
        alphas.vector.copy_(100.0 * (torch.arange(12) % 4 == 1))
    assert alphas.entropy() == pytest.approx(0, abs=1e-6)


# ------------------------------------------------------------------- the regularisers

CHOICE = MixedChoice(OPTIONS, parameter_free=(1,), skip_op=1, none_op=0)


def at(fraction=0.5, stage=0, n_stages=1, stage_fraction=0.5, arch_lr=0.01):
    return SearchProgress(fraction, stage, n_stages, stage_fraction, arch_lr)


def test_beta_decay_reduces_large_alphas():
    alphas = torch.tensor([2.0, 0.0, 0.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(beta_decay([alphas], at(0.5)), alphas)
    shares = torch.softmax(alphas.detach(), 0)
    # A shift of all alphas would dominate the gradient of Adam.
    torch.testing.assert_close(gradient, 2.5 * (shares - 1 / 3))
    assert gradient.sum().item() == pytest.approx(0, abs=1e-6)
    slow = beta_decay([alphas], at(1.0, arch_lr=3e-4))
    deviations = alphas - alphas.mean()
    assert slow.item() == pytest.approx(50 * deviations.logsumexp(0).item())
    assert beta_decay([alphas], at(0.0)).item() == 0


def test_zero_one_drives_weights_to_0_or_1():
    alphas = torch.tensor([0.3, -0.2], requires_grad=True)
    (gradient,) = torch.autograd.grad(zero_one([alphas], at()), alphas)
    assert gradient[0] < 0 < gradient[1]
    sure = zero_one([torch.tensor([50.0, -50.0])], at())
    assert sure.item() == pytest.approx(-10 * 0.25 * 2 / 224)
    alike = zero_one([torch.full((8,), 0.3)] * 28, at())
    assert alike.item() == pytest.approx(
        -10 * (torch.sigmoid(alphas[0]) - 0.5).item() ** 2
    )


def test_smoothing_adds_increasing_noise_to_computed_options():
    torch.manual_seed(0)
    weights = MixtureWeights(torch.full((1_000,), 0.5))
    for progress, size in ((0.0, 0.03), (1.0, 0.3)):
        values = smooth(weights, CHOICE, at(progress)).values
        assert 0.95 * size < (values - 0.5).abs().max() <= size
    one = MixtureWeights(torch.tensor([0.0, 1.0, 0.0]), computed=(1,))
    values = smooth(one, CHOICE, at(1.0)).values
    assert values[[0, 2]].tolist() == [0.0, 0.0] and 0.7 <= values[1] <= 1.0


def test_skip_dropout_decreases_within_a_stage():
    weights = MixtureWeights(torch.full((4,), 0.25))
    first = skip_dropout(weights, CHOICE, at(0.4, 1, 3, 0.0)).dropout
    last = skip_dropout(weights, CHOICE, at(0.6, 1, 3, 1.0)).dropout
    assert first == 0.4 and last == pytest.approx(0.4 * np.exp(-3))
    assert skip_dropout(weights, CHOICE, at(0.1, 0, 3, 0.0)).dropout == 0.0
    assert skip_dropout(weights, CHOICE, at(0.0, 0, 1, 0.0)).dropout == 0.4


def test_weight_of_the_auxiliary_skip_decays():
    weights = MixtureWeights(torch.tensor([0.0, 0.0, 1.0, 0.0]), computed=(2,))
    early = auxiliary_skip(weights, CHOICE, at(0.25))
    assert early.values.tolist() == [0.0, 0.75, 1.0, 0.0] and early.indices == (1, 2)
    late = auxiliary_skip(weights, CHOICE, at(1.0))
    assert late.values.tolist() == weights.values.tolist()
    none = auxiliary_skip(weights, replace(CHOICE, skip_op=None), at(0.0))
    assert none is weights


@pytest.mark.parametrize("regulariser", REGULARISERS)
@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_every_relaxation_works_with_every_regulariser(relaxation, regulariser):
    strategy = set_up(
        GradientStrategy("darts", relaxation=relaxation, regulariser=regulariser),
        planted_problem(n_steps=3),
    )
    assert len(strategy.propose(3)) == 3
    for shares in strategy.trajectory_.values():
        assert np.isfinite(shares).all()


# --------------------------------------------------------------------------- the rows


def test_both_parts_have_the_same_class_frequencies(rng):
    y = rng.choice(3, 1_000, p=[0.7, 0.27, 0.03])
    first, rest = stratified_split(y, 0.7, rng)
    assert sorted([*first, *rest]) == list(range(1_000))
    for label in range(3):
        share = np.mean(y[first] == label) / np.mean(y == label)
        assert share == pytest.approx(1, abs=0.05)
    assert len(first) == pytest.approx(700, abs=1)


@pytest.mark.parametrize("n, n_first", [(599, 599), (600, 420), (2_000, 1_000)])
def test_small_tables_are_split_unevenly_or_not_at_all(n, n_first, rng):
    rows = Rows(rng.normal(size=(n, 2)).astype("f4"), np.zeros(n, int), np.ones(n))
    task = TaskSpec("binary", 2, n, n_numeric=2)
    split = BilevelSplit(rows, task, "cpu", rng, False)
    assert len(split.weight_rows) == pytest.approx(n_first, abs=1)
    shared = set(split.weight_rows.tolist()) & set(split.arch_rows.tolist())
    assert len(shared) == (n if n_first == n else 0)
    both = BilevelSplit(rows, task, "cpu", rng, True)
    assert len(both.weight_rows) == len(both.arch_rows) == n


def test_groups_are_not_divided(rng):
    """Groups are large and small, and each has one class."""
    sizes = rng.permutation(np.repeat([1, 3, 10, 40], [60, 30, 20, 10]))
    groups = np.repeat(np.arange(len(sizes)), sizes)
    y = rng.choice(2, len(sizes), p=[0.7, 0.3])[groups]
    order = rng.permutation(len(y))  # rows of a group are not adjacent
    y, groups = y[order], groups[order]
    first, rest = stratified_split(y, 0.5, rng, groups)
    assert sorted([*first, *rest]) == list(range(len(y)))
    assert not set(groups[first]) & set(groups[rest])
    assert len(first) / len(y) == pytest.approx(0.5, abs=0.1)
    assert y[first].mean() == pytest.approx(y.mean(), abs=0.1)


@pytest.mark.parametrize(
    "sizes, is_split",
    [([60] * 20, True), ([1200], False), ([300] * 4, True), ([1100, 50, 50], False)],
)
def test_rows_are_shared_if_groups_would_leave_few_to_one_part(sizes, is_split):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    y = np.zeros((1200, 1), "f4")
    rows = Rows(y, y, np.ones(1200), groups)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        split = BilevelSplit(rows, TaskSpec("regression", 1, 1200), "cpu", rng, False)
        first, rest = (
            set(groups[part]) for part in (split.weight_rows, split.arch_rows)
        )
        assert first.isdisjoint(rest) == is_split
        assert first | rest == set(groups)


def test_an_epoch_contains_each_row_once(rng):
    rows = Rows(np.zeros((100, 1), "f4"), np.zeros((100, 1), "f4"), np.ones(100))
    split = BilevelSplit(rows, TaskSpec("regression", 1, 100), "cpu", rng, True)
    batches = split.batches(split.weight_rows, 32)
    epoch = [rows for (rows,) in batches]
    assert sorted(torch.cat(epoch).tolist()) == list(range(100))
    assert [len(batch) for batch in epoch] == [25] * 4
    assert torch.cat(epoch).tolist() != list(range(100))


def test_validation_rows_are_never_used():
    """Validation rows are NaN in the planted problem: using them gives NaN shares."""
    strategy = set_up(GradientStrategy("darts"), planted_problem(n_steps=20))
    strategy.propose(1)
    assert all(np.isfinite(s).all() for s in strategy.trajectory_.values())


# --------------------------------------------------------------------- discretisation


def test_the_none_operation_is_never_chosen():
    net = PlantedNet(2)
    shares = {
        "f0": np.array([0.9, 0.0, 0.1, 0.0]),
        "f1": np.array([0.2, 0.5, 0.2, 0.1]),
    }
    derived = argmax_architecture(net.choices, shares)
    assert derived.chosen == {"f0": 2, "f1": 1}
    changes = one_op_changes(net, derived)
    assert all(0 not in change.chosen.values() for change in changes)


def test_least_certain_choices_are_changed_first():
    net = PlantedNet(2)
    shares = {
        "f0": np.array([0.0, 0.9, 0.06, 0.04]),
        "f1": np.array([0.0, 0.4, 0.35, 0.25]),
    }
    changes = one_op_changes(net, argmax_architecture(net.choices, shares))
    chosen = [(c.chosen["f0"], c.chosen["f1"]) for c in changes]
    assert chosen == [(1, 2), (1, 3), (2, 1), (3, 1)]


def test_the_two_skips_with_the_largest_shares_are_kept():
    net = PlantedNet(4)
    shares = {f"f{j}": np.array([0.0, 0.5 + 0.1 * j, 0.2, 0.1]) for j in range(4)}
    derived = limit_skips(net, argmax_architecture(net.choices, shares))
    assert derived.chosen == {"f0": 2, "f1": 2, "f2": 1, "f3": 1}


def test_choices_without_other_options_keep_their_skip():
    net = PlantedNet(1)
    only = MixedChoice(("none", "skip"), parameter_free=(1,), none_op=0)
    net.choices = {f"f{j}": only for j in range(4)}
    shares = {name: np.array([0.1, 0.9]) for name in net.choices}
    derived = argmax_architecture(net.choices, shares)
    assert limit_skips(net, derived).chosen == derived.chosen


def derived_functions(strategy, n_steps):
    """Return the architectures derived for four kinked functions."""
    problem = planted_problem(planted=("abs",) * 4, shift=1.5, n_steps=n_steps)
    strategy = set_up(strategy, problem)
    strategy.propose(1)
    return [functions(architecture) for architecture in strategy.derived_]


def test_plain_darts_derives_skips_only_but_never_with_guards():
    """Skips reduce the loss from the first step, the planted operations only later."""
    slow = FAST | {"lr": 1e-3}
    plain = derived_functions(GradientStrategy("darts", guards=False, **slow), 60)
    assert set(plain[0].values()) == {"skip"}
    for preset in PRESETS:
        for found in derived_functions(GradientStrategy(preset, **slow), 20):
            assert list(found.values()).count("skip") <= 2


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_finds_the_planted_architecture(preset):
    strategy = set_up(GradientStrategy(preset, **FAST), planted_problem(n_steps=110))
    assert functions(strategy.propose(1)[0].architecture) == PLANTED


@pytest.mark.parametrize("discretisation", ["argmax", "perturbation", "retrain"])
def test_every_discretisation_finds_the_planted_architecture(discretisation):
    strategy = GradientStrategy("darts", discretisation=discretisation, **FAST)
    strategy = set_up(strategy, planted_problem(n_steps=110))
    assert functions(strategy.propose(1)[0].architecture) == PLANTED


def test_perturbation_needs_no_alphas():
    """With uniform weights, the increase of the loss alone decides."""
    torch.manual_seed(1)
    problem = planted_problem()
    rng = np.random.default_rng(0)
    split = BilevelSplit(problem.folds[0].train, problem.task, "cpu", rng, False)
    trainer = SupernetTrainer(
        PlantedNet(4),
        replace(PRESETS["darts"], warmup=0.99, lr=0.02),
        split,
        TimeBudget(60, np.inf),
        NullStore(),
        is_adaptive=True,
        arch_lr=None,
    )
    trainer.run()
    assert trainer.records.entropies[-1] > 0.99
    derived = perturbation_architecture(trainer, TimeBudget(60, np.inf))
    chosen = trainer.net.architecture(derived.chosen, derived.shares)
    assert chosen == PLANTED
    assert (
        perturbation_architecture(trainer, TimeBudget(60, 0.0)).chosen.keys()
        == PLANTED.keys()
    )


def test_retraining_corrects_a_wrong_share(monkeypatch):
    """The shares are wrong about one function; a short training corrects them."""
    wrong = {"f0": 2, "f1": 3, "f2": 3, "f3": 2}  # f2 is a skip, and not a sine
    shares = {name: np.full(4, 0.2) for name in wrong}
    for name, index in wrong.items():
        shares[name][index] = 0.9
    shares["f2"][1] = 0.89
    monkeypatch.setattr(
        "sknas.strategies.gradient.strategy.argmax_architecture",
        lambda d, s: DiscreteArchitecture(wrong, shares),
    )
    problem = planted_problem(n_steps=60)
    plain = GradientStrategy("darts", guards=False, **FAST)
    first = set_up(plain, problem).propose(1)[0].architecture
    assert first["f2"] == "sin"
    again = clone(plain).set_params(discretisation="retrain")
    found = set_up(again, problem).propose(1)[0].architecture
    assert functions(found) == PLANTED


# ------------------------------------------------------------------------- the search


def test_one_operation_per_edge_is_computed_with_straight_through_weights():
    calls = []
    net = PlantedNet(3, calls)
    alphas = Alphas(net.choices, RELAXATIONS["gumbel-st"], "cpu")
    torch.manual_seed(0)
    output = net(torch.randn(5, 3), alphas.sample(alphas.vector, 1.0))
    assert len(calls) == 3
    (gradient,) = torch.autograd.grad(output.square().sum(), alphas.vector)
    assert (gradient != 0).all()  # also of alphas that were not sampled
    calls.clear()
    net(torch.randn(5, 3), alphas.mean(alphas.vector))
    assert len(calls) == 3 * len(OPTIONS)


def test_derived_architecture_is_proposed_first_then_its_neighbours():
    problem = planted_problem(n_steps=110)
    strategy = set_up(GradientStrategy("darts", guards=False, **FAST), problem)
    proposals = [p.architecture for p in strategy.propose(9)]
    assert functions(proposals[0]) == PLANTED
    assert all(a["batch_size"] == 32 for a in proposals)  # the default
    n_changes = [sum(a[n] != PLANTED[n] for n in PLANTED) for a in proposals]
    assert n_changes == [0] + [1] * 8  # one change each
    trials = [Trial(Proposal(a), score=float(-j)) for j, a in enumerate(proposals)]
    strategy.observe(trials)
    near = [p.architecture for p in strategy.propose(20)]
    assert not {a.key for a in near} & {a.key for a in proposals}
    changes = [sum(a[n] != proposals[0][n] for n in a) for a in near]
    assert max(changes) <= 2 and len(near) == 20


def test_infeasible_and_known_architectures_are_not_proposed():
    problem = planted_problem(n_steps=110, feasible=lambda a: a["f1"] != "sin")
    strategy = set_up(GradientStrategy("darts", **FAST), problem)
    space = PlantedSpace()
    known = space.fill({**PLANTED, "f1": "abs"})
    strategy.observe([Trial(Proposal(known), score=0.0)])
    proposed = [p.architecture for p in strategy.propose(40)]
    assert all(a["f1"] != "sin" for a in proposed)
    assert known.key not in {a.key for a in proposed} and len(proposed) == 40


def test_the_supernet_is_trained_once():
    strategy = set_up(GradientStrategy("darts"), planted_problem(n_steps=10))
    strategy.propose(1)
    derived = strategy.derived_
    strategy.propose(5)
    assert strategy.derived_ is derived


@pytest.mark.parametrize("preset", ["gdas", "drnas", "darts-pt"])
def test_same_seed_same_architectures(preset):
    def found(seed):
        problem = planted_problem(n_steps=30)
        strategy = set_up(GradientStrategy(preset), problem, seed)
        keys = [p.architecture.key for p in strategy.propose(6)]
        return keys, strategy.trajectory_["f0"]

    first, again, other = found(0), found(0), found(1)
    assert first[0] == again[0]
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[1], other[1])


def test_state_of_torch_is_unchanged():
    torch.manual_seed(5)
    before = torch.get_rng_state(), torch.get_num_threads(), torch.is_grad_enabled()
    set_up(GradientStrategy("gdas"), planted_problem(n_steps=5)).propose(2)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (torch.get_num_threads(), torch.is_grad_enabled())


@pytest.mark.parametrize("preset", ["darts-2nd", "darts-pt", "p-darts"])
def test_the_deadline_is_met(preset):
    """A search that would take minutes uses a third of the remaining time."""
    now = time.monotonic()
    problem = planted_problem(n_steps=1_000_000)
    strategy = set_up(GradientStrategy(preset), problem, deadline=now + 3)
    strategy.propose(2)
    assert 0.5 < time.monotonic() - now < 1.8
    assert len(strategy.entropy_) > 5
    set_up(strategy, problem, deadline=now - 1).propose(1)  # the deadline has passed


def test_a_time_budget_ends_at_its_deadline():
    budget = TimeBudget(10_000, 0.2)
    assert budget.expected_steps == 10_000 and budget.progress < 0.5
    time.sleep(0.12)
    budget.step = 60
    assert 0.5 < budget.progress < 1 and 60 < budget.expected_steps < 120
    time.sleep(0.1)
    assert budget.progress == 1 and budget.seconds_left < 0
    unbounded = TimeBudget(4, np.inf, step=1)
    assert unbounded.progress == 0.25 and unbounded.expected_steps == 4


def test_search_records_shares_entropy_and_sharpness():
    strategy = set_up(GradientStrategy("darts", **FAST), planted_problem(n_steps=200))
    strategy.propose(1)
    assert set(strategy.trajectory_) == set(PLANTED)
    for shares in strategy.trajectory_.values():
        assert shares.shape == (len(strategy.entropy_), len(OPTIONS))
        np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-5)
    assert len(strategy.entropy_) == 101
    assert strategy.entropy_[0] > 0.99 > strategy.entropy_[-1] > 0
    assert strategy.sharpness_.shape == (2,) and (strategy.sharpness_ > 0).all()
    assert strategy.trajectory_["f0"][-1].argmax() == OPTIONS.index("abs")


def test_options_are_pruned_in_stages():
    strategy = set_up(GradientStrategy("p-darts", **FAST), planted_problem(n_steps=90))
    strategy.propose(1)
    n_left = [(shares > 0).sum() for shares in strategy.trajectory_["f0"]]
    assert n_left[0] == 4 and n_left[50] == 3 and n_left[-1] == 2


def test_alphas_are_frozen_while_the_weights_warm_up():
    problem = planted_problem(n_steps=100)
    strategy = set_up(GradientStrategy("darts", warmup=0.4), problem)
    strategy.propose(1)
    shares = strategy.trajectory_["f0"]
    assert (shares[:40] == shares[0]).all() and (shares[60] != shares[0]).all()


def test_alphas_are_frozen_once_they_have_converged():
    problem = planted_problem(n_steps=100)
    for guards in (True, False):
        strategy = set_up(GradientStrategy("darts", guards=guards, **FAST), problem)
        strategy.propose(1)
        shares = strategy.trajectory_["f0"]
        assert (shares[70] == shares[-1]).all() == guards


def test_alphas_do_not_converge_while_a_stage_warms_up():
    problem = planted_problem(n_steps=200)
    strategy = set_up(GradientStrategy("drnas", **FAST), problem)
    strategy.propose(1)
    shares = strategy.trajectory_["f0"]
    assert (shares[55] == shares[68]).all()  # 0.4 of the second stage
    assert (shares[68] != shares[75]).any()


def test_undecided_alphas_are_followed_by_random_architectures():
    problem = planted_problem(n_steps=2)
    strategy = set_up(GradientStrategy("darts", arch_lr=1e-6), problem)
    first, *others = [p.architecture for p in strategy.propose(9)]
    n_changes = [sum(a[n] != first[n] for n in PLANTED) for a in others]
    assert strategy.entropy_[-1] > 0.99 and len(strategy.derived_) == 1
    assert max(n_changes) > 2
    plain = set_up(strategy.set_params(guards=False), problem)
    assert len(plain.propose(9)) == 9 and len(plain.derived_) == 9


def test_close_alphas_that_have_converged_are_decided():
    problem = planted_problem(n_steps=200)
    strategy = set_up(GradientStrategy("darts", arch_lr=3e-3), problem)
    first, *others = [p.architecture for p in strategy.propose(6)]
    n_changes = [sum(a[n] != first[n] for n in PLANTED) for a in others]
    assert 0.95 < strategy.entropy_[-1] < 0.999 and set(n_changes) == {1}


def test_neighbours_of_trials_are_proposed_even_if_alphas_are_undecided():
    strategy = set_up(
        GradientStrategy("darts", arch_lr=1e-6), planted_problem(n_steps=2)
    )
    trials = [
        Trial(replace(p, number=j), score=float(j == 5))
        for j, p in enumerate(strategy.propose(9))
    ]
    strategy.observe(trials)
    best = trials[5].architecture
    near = [p.architecture for p in strategy.propose(4)]
    assert all(sum(a[n] != best[n] for n in best) <= 2 for a in near)


def test_training_ends_at_a_non_finite_loss():
    problem = planted_problem(n_steps=500)
    fold = problem.folds[0]
    x = np.full_like(fold.train.x, np.nan)
    folds = (replace(fold, train=replace(fold.train, x=x)),)
    for discretisation in DISCRETISATIONS:
        strategy = GradientStrategy("darts", discretisation=discretisation)
        strategy = set_up(strategy, replace(problem, folds=folds))
        with pytest.warns(
            SearchWarning, match="After 0 of 500 steps the loss"
        ) as warned:
            assert len(strategy.propose(2)) == 2
        assert len(strategy.entropy_) == len(warned) == 1


def test_n_epochs_bounds_the_number_of_steps():
    strategy = GradientStrategy("darts", n_epochs=2, batch_size=56)
    strategy = set_up(strategy, planted_problem(n_steps=10_000))
    strategy.propose(1)
    assert len(strategy.entropy_) == 21  # 2 epochs of 560 rows


# --------------------------------------------------------------------- the parameters


def test_arguments_override_the_preset():
    strategy = GradientStrategy(
        "drnas", relaxation="sigmoid", warmup=0.0, batch_size=8, arch_lr=0.5, order=2
    )
    settings = set_up(strategy).settings_
    assert settings.relaxation == "sigmoid" and settings.warmup == 0.0
    assert settings.batch_size == 8 and settings.arch_lr == 0.5 and settings.order == 2
    assert settings.partial_channels == PRESETS["drnas"].partial_channels
    given = strategy.get_params()
    assert given["order"] == 2 and given["lr"] is None and given["preset"] == "drnas"


def test_tables_and_images_have_different_learning_rates():
    assert set_up(GradientStrategy("drnas")).settings_.lr == 1e-3
    assert set_up(GradientStrategy("drnas", lr=0.3)).settings_.lr == 0.3
    assert PRESETS["drnas"].lr == 0.1


def test_tables_and_images_have_different_presets():
    assert set_up(GradientStrategy()).settings_.relaxation == "gumbel"
    assert set_up(GradientStrategy("darts")).settings_.relaxation == "softmax"


def test_presets_differ():
    assert len(set(PRESETS.values())) == len(PRESETS) == 11
    assert PRESETS["darts"] == Preset()


def test_arch_lr_is_the_learning_rate_of_the_alphas():
    found = {}
    for arch_lr in (None, 1e-5):
        strategy = set_up(
            GradientStrategy("darts", arch_lr=arch_lr), planted_problem(n_steps=30)
        )
        strategy.propose(1)
        shares = strategy.trajectory_["f0"]
        found[arch_lr] = np.abs(shares[-1] - shares[0]).max()
    assert found[1e-5] < 1e-3 < 0.05 < found[None]


@pytest.mark.parametrize(
    "params, message",
    [
        (
            {"preset": "dart"},
            "'preset' .* 'darts', .* got 'dart'; did you mean",
        ),
        ({"relaxation": "hard"}, "'relaxation' .* 'softmax', 'gumbel', .* got 'hard'"),
        ({"regulariser": "l2"}, "'regulariser' .* 'none', 'beta', .* got 'l2'"),
        ({"discretisation": "max"}, "'discretisation' .* 'argmax', .* got 'max'"),
        ({"arch_optimizer": "adamw"}, "'arch_optimizer' .* 'adam', .* got 'adamw'"),
        ({"order": 3}, "'order' .* must be 1, 2 or None, got 3"),
        ({"partial_channels": 0}, "'partial_channels' .* int >= 1 or None, got 0"),
        ({"batch_size": 1.5}, "'batch_size' .* int >= 1 or None, got 1.5"),
        ({"n_epochs": 0}, "'n_epochs' .* int >= 1 or None, got 0"),
        ({"arch_lr": 0.0}, "'arch_lr' .* finite number > 0 or None, got 0.0"),
        ({"lr": "fast"}, "'lr' .* finite number > 0 or None, got 'fast'"),
        ({"dropout": 1.0}, "'dropout' .* from 0 to below 1 or None, got 1.0"),
        ({"warmup": True}, "'warmup' .* from 0 to below 1 or None, got True"),
        ({"weight_decay": -1}, "'weight_decay' .* from 0 to below 1 or None, got -1"),
    ],
)
def test_wrong_parameters_raise_an_error(params, message):
    with pytest.raises(ValueError, match=message):
        set_up(GradientStrategy(**params))


def test_a_space_without_a_supernet_raises_an_error():
    class PlainSpace(PlantedSpace):
        supernet = Space.supernet

    message = r"PlainSpace has no supernet .* use another strategy"
    with pytest.raises(ValueError, match=message):
        set_up(GradientStrategy(), space=PlainSpace())


def test_searching_a_function_raises_an_error():
    with pytest.raises(ValueError, match=r"'strategy' .* needs no network when"):
        sknas.search(
            lambda a: 0.0, {"x": (0, 9)}, strategy=GradientStrategy(), max_trials=2
        )
    with pytest.raises(ValueError, match="needs no network"):
        set_up(GradientStrategy(), Problem())


def test_gradient_strategy_is_registered():
    assert STRATEGIES["gradient"] is GradientStrategy
