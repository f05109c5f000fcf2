"""Search by gradient: its formulas, its guards, and what it finds."""

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
from sknas._problem import NullStore, Problem, Rows, TaskSpec
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
    perturbation_scores,
)
from sknas.strategies.gradient.optimizers import (
    ArchOptimizer,
    WeightOptimizer,
    clipped,
    power_step,
    unrolled_gradient,
    usual_arch_lr,
)
from sknas.strategies.gradient.presets import PRESETS, Preset
from sknas.strategies.gradient.regularizers import (
    REGULARISERS,
    SearchProgress,
    auxiliary_skip,
    beta_decay,
    skip_dropout,
    smoothed,
    zero_one,
)
from sknas.strategies.gradient.relaxations import RELAXATIONS
from sknas.strategies.gradient.resume import Snapshots
from sknas.strategies.gradient.split import BilevelSplit, deal
from sknas.strategies.gradient.supernet_trainer import SupernetTrainer
from sknas.strategies.gradient.time_budget import TimeBudget

FAST = {"lr": 0.02}  # of weights, on a task that is learnt in a few steps


def begun(strategy, problem=None, seed=0, space=None):
    """A strategy after its setup."""
    strategy = clone(strategy)
    problem = planted_problem() if problem is None else problem
    space = PlantedSpace() if space is None else space
    strategy.setup(space, problem, np.random.default_rng(seed))
    return strategy


def functions(architecture):
    return {name: architecture[name] for name in PLANTED}


# ---------------------------------------------------------------------- the gradients


@pytest.mark.parametrize("lr", [0.1, 1.0])
def test_second_order_is_exact_on_a_quadratic(lr):
    """Training loss (w - a)^2 / 2, loss of the logits (w - 1)^2 / 2."""
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


def test_second_order_is_that_of_autograd_with_momentum_and_decay():
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


def test_the_same_chance_on_both_sides_of_a_difference():
    """Noise that differed would drown the second derivative."""
    a = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    w = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)

    def noisy():
        return ((w - a) ** 2).sum() / 2 + 100 * (torch.rand(1).double() * a).sum()

    torch.manual_seed(0)
    found = unrolled_gradient(lambda: (w - 1).square().sum() / 2, noisy, a, [w], 0.1)
    assert abs(found.item() - 0.1 * (2.0 - 0.1 * 1.7 - 1)) < 1e-6


def test_sharpness_is_the_largest_eigenvalue():
    hessian = torch.diag(torch.tensor([-1.0, 5.0, 3.0]))
    towards = torch.ones(3)
    for _ in range(25):
        value, towards = power_step(lambda at: hessian @ at, torch.ones(3), towards)
    assert value == pytest.approx(5.0, abs=1e-3)
    torch.testing.assert_close(
        towards.abs(), torch.tensor([0.0, 1.0, 0.0]), atol=0.01, rtol=0
    )
    flat, _ = power_step(torch.zeros_like, torch.ones(3), torch.ones(3))
    assert flat == 0.0


# --------------------------------------------------------------------- the optimisers

GRADIENTS = ([1.0, -2.0], [0.5, 0.0])
START = [0.2, -0.4]
LR, DECAY = 0.1, 0.01


def by_formula(kind):
    """Two steps of an architecture optimiser, by plain numbers."""
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
def test_an_architecture_optimiser_moves_by_its_formula(kind):
    logits = torch.tensor(START, dtype=torch.float64, requires_grad=True)
    optimizer = ArchOptimizer(kind, logits)
    for gradient in GRADIENTS:
        optimizer.step(torch.tensor(gradient, dtype=torch.float64), LR, DECAY)
    np.testing.assert_allclose(logits.detach().numpy(), by_formula(kind), rtol=1e-12)


def test_weights_are_moved_by_sgd_with_momentum():
    w, unused = torch.ones(2, requires_grad=True), torch.ones(1, requires_grad=True)
    optimizer = WeightOptimizer([w, unused], is_adaptive=False)
    x, m = np.ones(2), np.zeros(2)
    for gradient in ([0.1, -0.2], [0.3, 0.0]):
        optimizer.step([torch.tensor(gradient), None], 0.5, 0.01)
        m = 0.9 * m + np.array(gradient) + 0.01 * x
        x = x - 0.5 * m
    np.testing.assert_allclose(w.detach().numpy(), x, rtol=1e-6)
    np.testing.assert_allclose(optimizer.velocities[0].numpy(), m, rtol=1e-6)
    assert unused.item() == 1.0


def test_weights_are_moved_by_adamw_for_tables():
    w = torch.ones(2, requires_grad=True)
    optimizer = WeightOptimizer([w], is_adaptive=True)
    optimizer.step([torch.tensor([0.3, -0.02])], 0.1, 0.5)
    expected = np.ones(2) * (1 - 0.1 * 0.5) - 0.1 * np.array([1.0, -1.0])
    np.testing.assert_allclose(w.detach().numpy(), expected, rtol=1e-4)
    assert optimizer.velocities == []


def test_a_long_gradient_is_clipped():
    parts = clipped([torch.tensor([30.0]), torch.tensor([40.0, 0.0])])
    assert torch.cat(parts).tolist() == pytest.approx([3.0, 4.0, 0.0])
    short = clipped([torch.tensor([0.3])])
    assert short[0].item() == pytest.approx(0.3) and clipped([]) == []


def test_logits_are_faster_in_short_searches():
    assert usual_arch_lr("adam", 3e-4, 300) == pytest.approx(0.01)
    assert usual_arch_lr("adam", 3e-4, 3) == 0.05
    assert usual_arch_lr("adam", 3e-4, 20_000) == 3e-4
    assert usual_arch_lr("sgd", 3e-4, 300) == pytest.approx(1.0)


# -------------------------------------------------------------------- the relaxations


@pytest.mark.parametrize("name", ["softmax", "gumbel", "gumbel-st", "dirichlet"])
def test_weights_lie_on_the_simplex(name):
    torch.manual_seed(0)
    logits = torch.tensor([0.5, -1.0, 3.0, 0.0])
    for temperature in (10.0, 1.0, 0.1):
        values = RELAXATIONS[name].draw(logits, temperature).values
        assert (values >= -1e-6).all() and values.sum() == pytest.approx(1, abs=1e-5)
    mean = RELAXATIONS[name].mean(logits)
    assert (mean > 0).all() and mean.sum() == pytest.approx(1, abs=1e-6)
    assert mean.argmax() == 2


def test_a_straight_through_gradient_reaches_logits_that_were_not_drawn():
    torch.manual_seed(0)
    logits = torch.zeros(4, requires_grad=True)
    weights = RELAXATIONS["gumbel-st"].draw(logits, 1.0)
    (place,) = weights.computed
    assert weights.values.detach().round().tolist() == [
        float(j == place) for j in range(4)
    ]
    (gradient,) = torch.autograd.grad(weights.values[place], logits)
    assert (gradient != 0).all()


def test_draws_of_a_dirichlet_have_its_mean_and_a_gradient():
    torch.manual_seed(0)
    logits = torch.tensor([1.0, 0.0, -1.0], requires_grad=True)
    relaxation = RELAXATIONS["dirichlet"]
    drawn = [relaxation.draw(logits, 1.0).values for _ in range(600)]
    expected = relaxation.mean(logits)
    conc = torch.tensor([2.0, 1.0, np.exp(-1.0)])
    torch.testing.assert_close(expected.detach(), Dirichlet(conc).mean.float())
    torch.testing.assert_close(
        torch.stack(drawn).mean(dim=0), expected, atol=0.03, rtol=0
    )
    (gradient,) = torch.autograd.grad(drawn[0][0], logits)
    assert torch.isfinite(gradient).all() and (gradient != 0).any()


def test_gumbel_draws_options_by_their_softmax():
    torch.manual_seed(0)
    logits = torch.tensor([1.0, 0.0])
    drawn = [RELAXATIONS["gumbel-st"].draw(logits, 1.0).computed for _ in range(800)]
    share = np.mean([place == (0,) for place in drawn])
    assert share == pytest.approx(torch.softmax(logits, 0)[0].item(), abs=0.04)


def test_sigmoids_weigh_each_option_by_itself():
    logits = torch.tensor([0.0, 100.0, -100.0])
    values = RELAXATIONS["sigmoid"].draw(logits, 1.0).values
    assert values.tolist() == pytest.approx([0.5, 1.0, 0.0])


def make_logits(relaxation="softmax", n_features=3):
    net = PlantedNet(n_features)
    torch.manual_seed(0)
    return Alphas(net.decisions, RELAXATIONS[relaxation], "cpu")


@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_options_that_were_dropped_have_no_weight(relaxation):
    logits = make_logits(relaxation)
    with torch.no_grad():
        logits.flat.copy_(torch.arange(12.0) % 4)
    logits.keep(0.5)
    assert logits.kept == {f"f{j}": [2, 3] for j in range(3)}
    for weights in (
        *logits.drawn(logits.flat, 1.0).values(),
        *logits.expected(logits.flat).values(),
    ):
        assert weights.values[:2].tolist() == [0.0, 0.0]
        assert set(weights.places) <= {2, 3}
    assert logits.shares()["f0"][2:].min() > 0


def test_at_least_two_options_are_kept():
    logits = make_logits()
    logits.keep(0.01)
    assert {len(kept) for kept in logits.kept.values()} == {2}


def test_entropy_is_from_even_to_sure():
    logits = make_logits()
    assert logits.entropy() > 0.999
    with torch.no_grad():
        logits.flat.copy_(100.0 * (torch.arange(12) % 4 == 1))
    assert logits.entropy() == pytest.approx(0, abs=1e-6)


# ------------------------------------------------------------------- the regularisers

DECISION = MixedChoice(OPTIONS, passing=(1,), identity=1, absent=0)


def moment(progress=0.5, stage=0, n_stages=1, stage_progress=0.5, arch_lr=0.01):
    return SearchProgress(progress, stage, n_stages, stage_progress, arch_lr)


def test_beta_decay_pulls_large_logits_down():
    logits = torch.tensor([2.0, 0.0, 0.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(beta_decay([logits], moment(0.5)), logits)
    shares = torch.softmax(logits.detach(), 0)
    # What moves all of them alike would hide the rest from Adam.
    torch.testing.assert_close(gradient, 2.5 * (shares - 1 / 3))
    assert gradient.sum().item() == pytest.approx(0, abs=1e-6)
    slow = beta_decay([logits], moment(1.0, arch_lr=3e-4))
    apart = logits - logits.mean()
    assert slow.item() == pytest.approx(50 * apart.logsumexp(0).item())
    assert beta_decay([logits], moment(0.0)).item() == 0


def test_zero_one_drives_weights_apart():
    logits = torch.tensor([0.3, -0.2], requires_grad=True)
    (gradient,) = torch.autograd.grad(zero_one([logits], moment()), logits)
    assert gradient[0] < 0 < gradient[1]
    sure = zero_one([torch.tensor([50.0, -50.0])], moment())
    assert sure.item() == pytest.approx(-10 * 0.25 * 2 / 224)
    alike = zero_one([torch.full((8,), 0.3)] * 28, moment())
    assert alike.item() == pytest.approx(
        -10 * (torch.sigmoid(logits[0]) - 0.5).item() ** 2
    )


def test_smoothing_adds_more_and_more_noise_to_what_is_computed():
    torch.manual_seed(0)
    weights = MixtureWeights(torch.full((1_000,), 0.5))
    for progress, size in ((0.0, 0.03), (1.0, 0.3)):
        values = smoothed(weights, DECISION, moment(progress)).values
        assert 0.95 * size < (values - 0.5).abs().max() <= size
    one = MixtureWeights(torch.tensor([0.0, 1.0, 0.0]), computed=(1,))
    values = smoothed(one, DECISION, moment(1.0)).values
    assert values[[0, 2]].tolist() == [0.0, 0.0] and 0.7 <= values[1] <= 1.0


def test_skips_are_dropped_less_and_less_within_a_stage():
    weights = MixtureWeights(torch.full((4,), 0.25))
    first = skip_dropout(weights, DECISION, moment(0.4, 1, 3, 0.0)).dropout
    last = skip_dropout(weights, DECISION, moment(0.6, 1, 3, 1.0)).dropout
    assert first == 0.4 and last == pytest.approx(0.4 * np.exp(-3))
    assert skip_dropout(weights, DECISION, moment(0.1, 0, 3, 0.0)).dropout == 0.0
    assert skip_dropout(weights, DECISION, moment(0.0, 0, 1, 0.0)).dropout == 0.4


def test_an_auxiliary_skip_fades():
    weights = MixtureWeights(torch.tensor([0.0, 0.0, 1.0, 0.0]), computed=(2,))
    early = auxiliary_skip(weights, DECISION, moment(0.25))
    assert early.values.tolist() == [0.0, 0.75, 1.0, 0.0] and early.places == (1, 2)
    late = auxiliary_skip(weights, DECISION, moment(1.0))
    assert late.values.tolist() == weights.values.tolist()
    none = auxiliary_skip(weights, replace(DECISION, identity=None), moment(0.0))
    assert none is weights


@pytest.mark.parametrize("regulariser", REGULARISERS)
@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_every_relaxation_goes_with_every_regulariser(relaxation, regulariser):
    strategy = begun(
        GradientStrategy("darts", relaxation=relaxation, regulariser=regulariser),
        planted_problem(n_steps=3),
    )
    assert len(strategy.propose(3)) == 3
    for shares in strategy.trajectory_.values():
        assert np.isfinite(shares).all()


# --------------------------------------------------------------------------- the rows


def test_halves_have_the_same_mixture_of_classes(rng):
    y = rng.choice(3, 1_000, p=[0.7, 0.27, 0.03])
    first, rest = deal(y, 0.7, rng)
    assert sorted([*first, *rest]) == list(range(1_000))
    for label in range(3):
        share = np.mean(y[first] == label) / np.mean(y == label)
        assert share == pytest.approx(1, abs=0.05)
    assert len(first) == pytest.approx(700, abs=1)


@pytest.mark.parametrize("n, n_first", [(599, 599), (600, 420), (2_000, 1_000)])
def test_small_tables_are_dealt_unevenly_or_not_at_all(n, n_first, rng):
    rows = Rows(rng.normal(size=(n, 2)).astype("f4"), np.zeros(n, int), np.ones(n))
    task = TaskSpec("binary", 2, n, n_numeric=2)
    halves = BilevelSplit(rows, task, "cpu", rng, False)
    assert len(halves.weight_rows) == pytest.approx(n_first, abs=1)
    shared = set(halves.weight_rows.tolist()) & set(halves.arch_rows.tolist())
    assert len(shared) == (n if n_first == n else 0)
    both = BilevelSplit(rows, task, "cpu", rng, True)
    assert len(both.weight_rows) == len(both.arch_rows) == n


def test_groups_are_dealt_out_whole(rng):
    """Large and small ones, each of one class."""
    sizes = rng.permutation(np.repeat([1, 3, 10, 40], [60, 30, 20, 10]))
    groups = np.repeat(np.arange(len(sizes)), sizes)
    y = rng.choice(2, len(sizes), p=[0.7, 0.3])[groups]
    order = rng.permutation(len(y))  # rows of a group need not stand together
    y, groups = y[order], groups[order]
    first, rest = deal(y, 0.5, rng, groups)
    assert sorted([*first, *rest]) == list(range(len(y)))
    assert not set(groups[first]) & set(groups[rest])
    assert len(first) / len(y) == pytest.approx(0.5, abs=0.1)
    assert y[first].mean() == pytest.approx(y.mean(), abs=0.1)


@pytest.mark.parametrize(
    "sizes, is_parted",
    [([60] * 20, True), ([1200], False), ([300] * 4, True), ([1100, 50, 50], False)],
)
def test_all_rows_are_for_both_where_groups_leave_few_to_one(sizes, is_parted):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    y = np.zeros((1200, 1), "f4")
    rows = Rows(y, y, np.ones(1200), groups)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        halves = BilevelSplit(rows, TaskSpec("regression", 1, 1200), "cpu", rng, False)
        first, rest = (
            set(groups[part]) for part in (halves.weight_rows, halves.arch_rows)
        )
        assert first.isdisjoint(rest) == is_parted
        assert first | rest == set(groups)


def test_an_epoch_has_each_row_once(rng):
    rows = Rows(np.zeros((100, 1), "f4"), np.zeros((100, 1), "f4"), np.ones(100))
    halves = BilevelSplit(rows, TaskSpec("regression", 1, 100), "cpu", rng, True)
    batches = halves.batches(halves.weight_rows, 32)
    epoch = [rows for (rows,) in batches]
    assert sorted(torch.cat(epoch).tolist()) == list(range(100))
    assert [len(batch) for batch in epoch] == [25] * 4
    assert torch.cat(epoch).tolist() != list(range(100))


def test_rows_that_validate_are_never_seen():
    """They are NaN in the planted problem, so that a look would show."""
    strategy = begun(GradientStrategy("darts"), planted_problem(n_steps=20))
    strategy.propose(1)
    assert all(np.isfinite(s).all() for s in strategy.trajectory_.values())


# ----------------------------------------------------------------- what is derived


def test_no_connection_is_never_chosen():
    net = PlantedNet(2)
    shares = {
        "f0": np.array([0.9, 0.0, 0.1, 0.0]),
        "f1": np.array([0.2, 0.5, 0.2, 0.1]),
    }
    derived = argmax_architecture(net.decisions, shares)
    assert derived.chosen == {"f0": 2, "f1": 1}
    flips = one_op_changes(net, derived)
    assert all(0 not in flip.chosen.values() for flip in flips)


def test_changes_of_what_is_least_certain_come_first():
    net = PlantedNet(2)
    shares = {
        "f0": np.array([0.0, 0.9, 0.06, 0.04]),
        "f1": np.array([0.0, 0.4, 0.35, 0.25]),
    }
    flips = one_op_changes(net, argmax_architecture(net.decisions, shares))
    chosen = [(f.chosen["f0"], f.chosen["f1"]) for f in flips]
    assert chosen == [(1, 2), (1, 3), (2, 1), (3, 1)]


def test_at_most_two_skips_stay_and_those_are_the_strongest():
    net = PlantedNet(4)
    shares = {f"f{j}": np.array([0.0, 0.5 + 0.1 * j, 0.2, 0.1]) for j in range(4)}
    derived = limit_skips(net, argmax_architecture(net.decisions, shares))
    assert derived.chosen == {"f0": 2, "f1": 2, "f2": 1, "f3": 1}


def test_a_cap_leaves_decisions_without_other_options_alone():
    net = PlantedNet(1)
    only = MixedChoice(("none", "skip"), passing=(1,), absent=0)
    net.decisions = {f"f{j}": only for j in range(4)}
    shares = {name: np.array([0.1, 0.9]) for name in net.decisions}
    derived = argmax_architecture(net.decisions, shares)
    assert limit_skips(net, derived).chosen == derived.chosen


def derived_functions(strategy, n_steps):
    """Of a task of four bends, which pay less than lines while their place is wrong."""
    bends = planted_problem(planted=("abs",) * 4, shift=1.5, n_steps=n_steps)
    strategy = begun(strategy, bends)
    strategy.propose(1)
    return [functions(architecture) for architecture in strategy.derived_]


def test_all_skips_are_returned_by_plain_darts_and_never_with_guards():
    """Skips are useful from the first step, the bends that are right only later."""
    slow = FAST | {"lr": 1e-3}
    plain = derived_functions(GradientStrategy("darts", guards=False, **slow), 60)
    assert set(plain[0].values()) == {"skip"}
    for preset in PRESETS:
        for found in derived_functions(GradientStrategy(preset, **slow), 20):
            assert list(found.values()).count("skip") <= 2


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_finds_what_is_planted(preset):
    strategy = begun(GradientStrategy(preset, **FAST), planted_problem(n_steps=110))
    assert functions(strategy.propose(1)[0].architecture) == PLANTED


@pytest.mark.parametrize("discretisation", ["argmax", "perturbation", "retrain"])
def test_every_discretisation_finds_what_is_planted(discretisation):
    strategy = GradientStrategy("darts", discretisation=discretisation, **FAST)
    strategy = begun(strategy, planted_problem(n_steps=110))
    assert functions(strategy.propose(1)[0].architecture) == PLANTED


def test_perturbation_finds_it_without_any_logits():
    """Options at even weights: what hurts when it goes is told by the loss alone."""
    torch.manual_seed(1)
    problem = planted_problem()
    rng = np.random.default_rng(0)
    halves = BilevelSplit(problem.folds[0].train, problem.task, "cpu", rng, False)
    training = SupernetTrainer(
        PlantedNet(4),
        replace(PRESETS["darts"], warmup=0.99, lr=0.02),
        halves,
        TimeBudget(60, np.inf),
        Snapshots(NullStore(), "cpu", 64),
        is_adaptive=True,
        arch_lr=None,
    )
    training.run()
    assert training.entropies[-1] > 0.99
    derived = perturbation_scores(training, TimeBudget(60, np.inf))
    chosen = training.net.architecture(derived.chosen, derived.shares)
    assert chosen == PLANTED
    assert (
        perturbation_scores(training, TimeBudget(60, 0.0)).chosen.keys()
        == PLANTED.keys()
    )


def test_retraining_chooses_among_the_first(monkeypatch):
    """The relaxed network is wrong about one function; a short training tells."""
    wrong = {"f0": 2, "f1": 3, "f2": 3, "f3": 2}  # f2 is a skip, and not a sine
    shares = {name: np.full(4, 0.2) for name in wrong}
    for name, place in wrong.items():
        shares[name][place] = 0.9
    shares["f2"][1] = 0.89
    monkeypatch.setattr(
        "sknas.strategies.gradient.strategy.strongest",
        lambda d, s: DiscreteArchitecture(wrong, shares),
    )
    problem = planted_problem(n_steps=60)
    plain = GradientStrategy("darts", guards=False, **FAST)
    first = begun(plain, problem).propose(1)[0].architecture
    assert first["f2"] == "sin"
    again = clone(plain).set_params(discretisation="retrain")
    found = begun(again, problem).propose(1)[0].architecture
    assert functions(found) == PLANTED


# ------------------------------------------------------------------------- the search


def test_one_operation_an_edge_is_computed_with_straight_through_weights():
    calls = []
    net = PlantedNet(3, calls)
    logits = Alphas(net.decisions, RELAXATIONS["gumbel-st"], "cpu")
    torch.manual_seed(0)
    answer = net(torch.randn(5, 3), logits.drawn(logits.flat, 1.0))
    assert len(calls) == 3
    (gradient,) = torch.autograd.grad(answer.square().sum(), logits.flat)
    assert (gradient != 0).all()  # of logits that were not drawn, too
    calls.clear()
    net(torch.randn(5, 3), logits.expected(logits.flat))
    assert len(calls) == 3 * len(OPTIONS)


def test_proposals_are_the_best_then_changes_of_it_then_others():
    problem = planted_problem(n_steps=110)
    strategy = begun(GradientStrategy("darts", guards=False, **FAST), problem)
    proposals = [p.architecture for p in strategy.propose(9)]
    assert functions(proposals[0]) == PLANTED
    assert all(a["batch_size"] == 32 for a in proposals)  # the default
    apart = [sum(a[n] != PLANTED[n] for n in PLANTED) for a in proposals]
    assert apart == [0] + [1] * 8  # 4 decisions of 3 options each
    trials = [Trial(Proposal(a), score=float(-j)) for j, a in enumerate(proposals)]
    strategy.observe(trials)
    near = [p.architecture for p in strategy.propose(20)]
    assert not {a.key for a in near} & {a.key for a in proposals}
    changes = [sum(a[n] != proposals[0][n] for n in a) for a in near]
    assert max(changes) <= 2 and len(near) == 20


def test_infeasible_and_known_architectures_are_not_proposed():
    problem = planted_problem(n_steps=110, feasible=lambda a: a["f1"] != "sin")
    strategy = begun(GradientStrategy("darts", **FAST), problem)
    space = PlantedSpace()
    known = space.fill({**PLANTED, "f1": "abs"})
    strategy.observe([Trial(Proposal(known), score=0.0)])
    proposed = [p.architecture for p in strategy.propose(40)]
    assert all(a["f1"] != "sin" for a in proposed)
    assert known.key not in {a.key for a in proposed} and len(proposed) == 40


def test_the_relaxed_network_is_trained_once():
    strategy = begun(GradientStrategy("darts"), planted_problem(n_steps=10))
    strategy.propose(1)
    derived = strategy.derived_
    strategy.propose(5)
    assert strategy.derived_ is derived


@pytest.mark.parametrize("preset", ["gdas", "drnas", "darts-pt"])
def test_same_seed_same_architectures(preset):
    def found(seed):
        problem = planted_problem(n_steps=30)
        strategy = begun(GradientStrategy(preset), problem, seed)
        keys = [p.architecture.key for p in strategy.propose(6)]
        return keys, strategy.trajectory_["f0"]

    first, again, other = found(0), found(0), found(1)
    assert first[0] == again[0]
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[1], other[1])


def test_torch_is_left_as_found():
    torch.manual_seed(5)
    before = torch.get_rng_state(), torch.get_num_threads(), torch.is_grad_enabled()
    begun(GradientStrategy("gdas"), planted_problem(n_steps=5)).propose(2)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (torch.get_num_threads(), torch.is_grad_enabled())


@pytest.mark.parametrize("preset", ["darts-2nd", "darts-pt", "p-darts"])
def test_time_is_kept(preset):
    """A third of the time that is left, of a search that would take minutes."""
    now = time.monotonic()
    problem = planted_problem(n_steps=1_000_000, deadline=now + 3)
    strategy = begun(GradientStrategy(preset), problem)
    strategy.propose(2)
    assert 0.5 < time.monotonic() - now < 1.8
    assert len(strategy.entropy_) > 5
    begun(strategy, replace(problem, deadline=now - 1)).propose(1)  # none at all


def test_a_schedule_ends_with_its_time():
    clock = TimeBudget(10_000, 0.2)
    assert clock.expected == 10_000 and clock.progress < 0.5
    time.sleep(0.12)
    clock.step = 60
    assert 0.5 < clock.progress < 1 and 60 < clock.expected < 120
    time.sleep(0.1)
    assert clock.progress == 1 and clock.seconds_left < 0
    unbounded = TimeBudget(4, np.inf, step=1)
    assert unbounded.progress == 0.25 and unbounded.expected == 4


def test_what_happened_is_told():
    strategy = begun(GradientStrategy("darts", **FAST), planted_problem(n_steps=200))
    strategy.propose(1)
    assert set(strategy.trajectory_) == set(PLANTED)
    for shares in strategy.trajectory_.values():
        assert shares.shape == (len(strategy.entropy_), len(OPTIONS))
        np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-5)
    assert len(strategy.entropy_) == 101
    assert strategy.entropy_[0] > 0.99 > strategy.entropy_[-1] > 0
    assert strategy.sharpness_.shape == (2,) and (strategy.sharpness_ > 0).all()
    assert strategy.trajectory_["f0"][-1].argmax() == OPTIONS.index("abs")


def test_options_are_dropped_in_stages():
    strategy = begun(GradientStrategy("p-darts", **FAST), planted_problem(n_steps=90))
    strategy.propose(1)
    n_left = [(shares > 0).sum() for shares in strategy.trajectory_["f0"]]
    assert n_left[0] == 4 and n_left[50] == 3 and n_left[-1] == 2


def test_logits_are_left_alone_while_the_weights_warm_up():
    problem = planted_problem(n_steps=100)
    strategy = begun(GradientStrategy("darts", warmup=0.4), problem)
    strategy.propose(1)
    shares = strategy.trajectory_["f0"]
    assert (shares[:40] == shares[0]).all() and (shares[60] != shares[0]).all()


def test_logits_are_left_alone_once_they_have_settled():
    problem = planted_problem(n_steps=100)
    for guards in (True, False):
        strategy = begun(GradientStrategy("darts", guards=guards, **FAST), problem)
        strategy.propose(1)
        shares = strategy.trajectory_["f0"]
        assert (shares[70] == shares[-1]).all() == guards


def test_logits_that_wait_for_a_stage_to_warm_up_have_not_settled():
    problem = planted_problem(n_steps=200)
    strategy = begun(GradientStrategy("drnas", **FAST), problem)
    strategy.propose(1)
    shares = strategy.trajectory_["f0"]
    assert (shares[55] == shares[68]).all()  # 0.4 of the second stage
    assert (shares[68] != shares[75]).any()


def test_random_architectures_follow_where_nothing_was_told():
    problem = planted_problem(n_steps=2)
    strategy = begun(GradientStrategy("darts", arch_lr=1e-6), problem)
    first, *others = [p.architecture for p in strategy.propose(9)]
    apart = [sum(a[n] != first[n] for n in PLANTED) for a in others]
    assert strategy.entropy_[-1] > 0.99 and len(strategy.derived_) == 1
    assert max(apart) > 2
    plain = begun(strategy.set_params(guards=False), problem)
    assert len(plain.propose(9)) == 9 and len(plain.derived_) == 9


def test_close_weights_whose_meaning_stays_the_same_have_told_something():
    problem = planted_problem(n_steps=200)
    strategy = begun(GradientStrategy("darts", arch_lr=3e-3), problem)
    first, *others = [p.architecture for p in strategy.propose(6)]
    apart = [sum(a[n] != first[n] for n in PLANTED) for a in others]
    assert 0.95 < strategy.entropy_[-1] < 0.999 and set(apart) == {1}


def test_after_a_trial_neighbours_follow_even_where_nothing_was_told():
    strategy = begun(
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


def test_a_loss_that_is_not_finite_ends_the_training():
    problem = planted_problem(n_steps=500)
    fold = problem.folds[0]
    x = np.full_like(fold.train.x, np.nan)
    folds = (replace(fold, train=replace(fold.train, x=x)),)
    for discretisation in DISCRETISATIONS:
        strategy = GradientStrategy("darts", discretisation=discretisation)
        strategy = begun(strategy, replace(problem, folds=folds))
        with pytest.warns(SearchWarning, match="After 0 of 500 steps the loss") as told:
            assert len(strategy.propose(2)) == 2
        assert len(strategy.entropy_) == len(told) == 1


def test_epochs_bound_the_steps():
    strategy = GradientStrategy("darts", n_epochs=2, batch_size=56)
    strategy = begun(strategy, planted_problem(n_steps=10_000))
    strategy.propose(1)
    assert len(strategy.entropy_) == 21  # 2 epochs of 560 rows


# --------------------------------------------------------------------- the parameters


def test_a_given_argument_wins_over_the_preset():
    strategy = GradientStrategy(
        "drnas", relaxation="sigmoid", warmup=0.0, batch_size=8, arch_lr=0.5, order=2
    )
    settings = begun(strategy).settings_
    assert settings.relaxation == "sigmoid" and settings.warmup == 0.0
    assert settings.batch_size == 8 and settings.arch_lr == 0.5 and settings.order == 2
    assert settings.partial_channels == PRESETS["drnas"].partial_channels
    given = strategy.get_params()
    assert given["order"] == 2 and given["lr"] is None and given["preset"] == "drnas"


def test_tables_and_images_have_rates_of_their_own():
    assert begun(GradientStrategy("drnas")).settings_.lr == 1e-3
    assert begun(GradientStrategy("drnas", lr=0.3)).settings_.lr == 0.3
    assert PRESETS["drnas"].lr == 0.1


def test_tables_and_images_have_presets_of_their_own():
    assert begun(GradientStrategy()).settings_.relaxation == "gumbel"
    assert begun(GradientStrategy("darts")).settings_.relaxation == "softmax"


def test_presets_differ():
    assert len(set(PRESETS.values())) == len(PRESETS) == 11
    assert PRESETS["darts"] == Preset()


def test_a_given_rate_of_the_logits_is_kept():
    found = {}
    for arch_lr in (None, 1e-5):
        strategy = begun(
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
def test_wrong_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        begun(GradientStrategy(**params))


def test_a_space_without_a_relaxed_network_is_refused():
    class PlainSpace(PlantedSpace):
        supernet = Space.supernet

    message = r"PlainSpace has no relaxed network .* take another strategy"
    with pytest.raises(ValueError, match=message):
        begun(GradientStrategy(), space=PlainSpace())


def test_a_function_has_no_gradient():
    with pytest.raises(ValueError, match=r"'strategy' .* needs no network, where"):
        sknas.search(
            lambda a: 0.0, {"x": (0, 9)}, strategy=GradientStrategy(), max_trials=2
        )
    with pytest.raises(ValueError, match="needs no network"):
        begun(GradientStrategy(), Problem())


def test_it_has_a_word():
    assert STRATEGIES["gradient"] is GradientStrategy
