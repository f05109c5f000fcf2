"""Search by gradient descent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from sknas._budget import TABLE
from sknas._checkpoint import keys
from sknas._history import Architecture, Proposal, Status, Trial
from sknas._problem import Problem
from sknas._training.isolation import isolated, run_with_memory_retry
from sknas._validation import (
    check_integer,
    check_positive,
    check_word,
    reject,
    warn_user,
)
from sknas.nets import Supernet
from sknas.spaces import Space, UnseenSampler
from sknas.strategies._base import Strategy
from sknas.strategies.gradient.discretize import (
    DISCRETISATIONS,
    N_RETRAINED,
    DiscreteArchitecture,
    argmax_architecture,
    limit_skips,
    one_op_changes,
    perturbation_architecture,
    rank_by_retraining,
)
from sknas.strategies.gradient.optimizers import ARCH_RULES
from sknas.strategies.gradient.presets import PRESETS, Preset
from sknas.strategies.gradient.progress import TimeBudget
from sknas.strategies.gradient.regularizers import REGULARISERS
from sknas.strategies.gradient.relaxations import RELAXATIONS
from sknas.strategies.gradient.split import BilevelSplit
from sknas.strategies.gradient.supernet_trainer import SupernetTrainer

IMAGE_PRESET, TABLE_PRESET = "drnas", "snas"  # default presets
TABLE_LR, TABLE_WEIGHT_DECAY = 1e-3, 1e-4  # defaults of AdamW
SEARCH_SHARE = 0.7  # share of the time for the search, if deriving needs training
# Entropy above which alphas are undecided, before and after they have converged.
MAX_ENTROPY, MAX_CONVERGED_ENTROPY = 0.95, 0.999
NEIGHBOURS_PER_PROPOSAL = 4

Check = Callable[[str, str, Any], Any]  # caller's name, parameter, value -> value


def _check_share(caller_name: str, name: str, value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value < 1:
        reject(caller_name, name, value, "a number from 0 to below 1 or None")
    return float(value)


def _check_order(caller_name: str, name: str, value: Any) -> int:
    if value not in (1, 2):
        reject(caller_name, name, value, "1, 2 or None")
    return int(value)


_at_least_one: Check = partial(check_integer, low=1, optional=True)
_positive: Check = partial(check_positive, optional=True)
# Checks of the parameters that replace a field of the preset unless they are None.
CHECKS: dict[str, Check] = {
    "relaxation": partial(check_word, known=RELAXATIONS),
    "regulariser": partial(check_word, known=REGULARISERS),
    "discretisation": partial(check_word, known=DISCRETISATIONS),
    "arch_optimizer": partial(check_word, known=ARCH_RULES),
    "partial_channels": _at_least_one,
    "batch_size": _at_least_one,
    "arch_lr": _positive,
    "lr": _positive,
    "arch_weight_decay": _check_share,
    "weight_decay": _check_share,
    "dropout": _check_share,
    "warmup": _check_share,
    "order": _check_order,
}


class GradientStrategy(Strategy):
    """Train a supernet of all architectures, and derive the best ones from it.

    Every option of the space has a weight in the supernet, a function of its alpha.
    Alphas and the weights of the layers are trained in turn by gradient descent.

    The rows are the training rows of the first fold. Half of them are for the alphas,
    30 percent below 2,000 rows. Below 600 rows, with the preset "snas", and where
    groups are so large that few rows would be left for either, both use all rows. Rows
    of a group stay together.

    The architecture of the options with the largest weights is proposed first, then
    those that differ from it in the least certain choice, then neighbours of the best
    trial. The search trains them like the proposals of any other strategy, after the
    default architecture, or together with it under a `max_time`; other known
    architectures are left out. An edge without an operation is never derived.

    The supernet is trained for as many steps as one network of a search, in at most a
    third of the remaining time. Parameters that are None take the preset's values.

    Parameters
    ----------
    preset : str or None, default=None
        A published method: "darts", "darts-2nd", "snas", "gdas", "pc-darts",
        "p-darts", "fair-darts", "smooth-darts", "drnas", "beta-darts" or "darts-pt";
        None for "drnas" for images and "snas" for tables.
    relaxation : str or None, default=None
        How alphas become weights: "softmax"; "gumbel", a softmax with Gumbel noise;
        "gumbel-st", one option at a time, sampled with that noise; "dirichlet", weights
        sampled from a Dirichlet distribution; "sigmoid", each option independently.
    regulariser : str or None, default=None
        "none"; "beta" keeps the alphas of a choice close together; "zero-one" drives
        sigmoids to 0 or 1; "smooth" adds noise to the weights; "skip-dropout" drops
        outputs of skips; "auxiliary-skip" adds a skip that fades out.
    partial_channels : int or None, default=None
        1 / `partial_channels` of the channels go through the options, more where fewer
        than four would be left; ignored for tables.
    discretisation : str or None, default=None
        "argmax" takes the options with the largest weights, "perturbation" those whose
        removal increases the loss most, and "retrain" trains three architectures to
        choose from.
    order : {1, 2} or None, default=None
        2 looks one step of the weights ahead, at four times the cost.
    arch_optimizer : {"adam", "sgd", "momentum", "rmsprop"} or None, default=None
        Update rule of the alphas.
    arch_lr : float or None, default=None
        Learning rate of the alphas; None for the published one, or a larger one in a
        short search, so that an alpha can move by about 3.
    arch_weight_decay : float or None, default=None
        Weight decay of the alphas.
    lr, weight_decay : float or None, default=None
        Learning rate and weight decay of the layers, which are trained by SGD with
        momentum for images and by AdamW for tables; None for 1e-3 and 1e-4 for tables.
    batch_size : int or None, default=None
        Rows in a batch; None for the default of networks for tables.
    dropout : float or None, default=None
        Dropout probability before the last layer.
    warmup : float or None, default=None
        Share of the search, or of each of its stages, in which only the layers are
        trained.
    n_epochs : int or None, default=None
        Epochs over the rows of the layers; None for the steps of one network.
    guards : bool, default=True
        True if at most two skips or poolings are derived in a cell, alphas are frozen
        once their architecture stays the same, and the first architecture is followed
        by random ones if alphas are undecided. False for the methods as published.

    Attributes
    ----------
    trajectory_ : dict of str to ndarray of shape (n_records, n_options)
        Weights of the options of each choice, from the start to the end.
    entropy_ : ndarray of shape (n_records,)
        Mean entropy of these weights, from 0 (one-hot) to 1 (uniform).
    sharpness_ : ndarray of shape (n_eigenvalues,)
        Largest eigenvalue of the Hessian of the alphas. Where it grows fast, the
        architecture is often worse than its supernet. Empty for "gumbel-st", which
        never computes all options at once.
    derived_ : list of Architecture or None
        Derived architectures, the best first; empty if memory ran out, and None if the
        search ended before.

    References
    ----------
    Liu, Simonyan, Yang: DARTS: Differentiable Architecture Search. arXiv:1806.09055.
    Xie, Zheng, Liu, Lin: SNAS: Stochastic Neural Architecture Search.
    arXiv:1812.09926.
    Dong, Yang: Searching for A Robust Neural Architecture in Four GPU Hours.
    arXiv:1910.04465 (GDAS).
    Xu, Xie, Zhang, Chen, Qi, Tian, Xiong: PC-DARTS: Partial Channel Connections for
    Memory-Efficient Architecture Search. arXiv:1907.05737.
    Chen, Xie, Wu, Tian: Progressive Differentiable Architecture Search: Bridging the
    Depth Gap between Search and Evaluation. arXiv:1904.12760 (P-DARTS; here the depth
    of the network stays).
    Chu, Zhou, Zhang, Li: Fair DARTS: Eliminating Unfair Advantages in Differentiable
    Architecture Search. arXiv:1911.12126.
    Chen, Hsieh: Stabilizing Differentiable Architecture Search via Perturbation-based
    Regularization. arXiv:2002.05283 (SmoothDARTS, random smoothing).
    Chen, Wang, Cheng, Tang, Hsieh: DrNAS: Dirichlet Neural Architecture Search.
    arXiv:2006.10355.
    Chu, Wang, Zhang, Lu, Wei, Yan: DARTS-: Robustly Stepping out of Performance
    Collapse Without Indicators. arXiv:2009.01027 (auxiliary skip).
    Ye, Li, Li, Chen, Fan, Ouyang: b-DARTS: Beta-Decay Regularization for Differentiable
    Architecture Search. arXiv:2203.01665.
    Wang, Cheng, Chen, Tang, Hsieh: Rethinking Architecture Selection in Differentiable
    NAS. arXiv:2108.04392 (DARTS-PT).
    Zela, Elsken, Saikia, Marrakchi, Brox, Hutter: Understanding and Robustifying
    Differentiable Architecture Search. arXiv:1909.09656 (sharpness).

    Examples
    --------
    >>> from sknas.strategies import GradientStrategy
    >>> GradientStrategy("beta-darts", arch_optimizer="momentum")
    GradientStrategy(arch_optimizer='momentum', preset='beta-darts')
    """

    needs_initial_design = False
    auto_image_space = "cell"  # the only image space with a supernet
    time_share = 1 / 3  # for the supernet
    results = ("trajectory_", "entropy_", "sharpness_", "derived_")

    def __init__(
        self,
        preset: str | None = None,
        *,
        relaxation: str | None = None,
        regulariser: str | None = None,
        partial_channels: int | None = None,
        discretisation: str | None = None,
        order: int | None = None,
        arch_optimizer: str | None = None,
        arch_lr: float | None = None,
        arch_weight_decay: float | None = None,
        lr: float | None = None,
        weight_decay: float | None = None,
        batch_size: int | None = None,
        dropout: float | None = None,
        warmup: float | None = None,
        n_epochs: int | None = None,
        guards: bool = True,
    ) -> None:
        self.preset = preset
        self.relaxation = relaxation
        self.regulariser = regulariser
        self.partial_channels = partial_channels
        self.discretisation = discretisation
        self.order = order
        self.arch_optimizer = arch_optimizer
        self.arch_lr = arch_lr
        self.arch_weight_decay = arch_weight_decay
        self.lr = lr
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.dropout = dropout
        self.warmup = warmup
        self.n_epochs = n_epochs
        self.guards = guards

    def setup(self, space: Space, problem: Problem, rng: np.random.Generator) -> None:
        if problem.task is None:
            allowed = "one that needs no network when a function is searched"
            reject("search", "strategy", self, allowed)
        with isolated(0, self.context_.device):
            space.supernet(problem.task)  # raises if the space has none
        self.settings_ = self._settings(problem)
        self.space_, self.problem_, self.rng_ = space, problem, rng
        self.sampler_ = UnseenSampler(space, problem.feasible, rng)
        self.derived_: list[Architecture] | None = None
        self.best_: Trial | None = None
        self.is_undecided_ = False

    def propose(self, n: int) -> list[Proposal]:
        if self.derived_ is None:
            self._search()
        assert self.derived_ is not None
        new = self.sampler_.unseen(self.derived_, n)
        self.sampler_.mark(new)
        n_left, near = n - len(new), []
        if n_left and (self.best_ is not None or not self.is_undecided_):
            near = self._neighbours(n_left)
        new += self.sampler_.fill_up(near, n_left)
        return [Proposal(architecture) for architecture in new]

    def observe(self, trials: Sequence[Trial]) -> None:
        self.sampler_.mark(trial.architecture for trial in trials)
        for trial in trials:
            is_scored = trial.status == Status.OK
            if is_scored and (self.best_ is None or trial.order < self.best_.order):
                self.best_ = trial

    def _neighbours(self, n: int) -> list[Architecture]:
        """Return new neighbours of the best trial, or of the first derived one."""
        if self.best_ is not None:
            centre = self.best_.architecture
        elif self.derived_:
            centre = self.derived_[0]
        else:
            return []
        near = self.space_.neighbours(centre, NEIGHBOURS_PER_PROPOSAL * n, self.rng_)
        return self.sampler_.unseen(near, n)

    def _settings(self, problem: Problem) -> Preset:
        """Return the preset with the given parameters in place of its own."""
        caller_name = type(self).__name__
        assert problem.task is not None
        is_table = problem.task.image is None
        default = TABLE_PRESET if is_table else IMAGE_PRESET
        preset = default if self.preset is None else self.preset
        check_word(caller_name, "preset", preset, PRESETS)
        changes: dict[str, Any] = {}
        if is_table:
            changes = {"lr": TABLE_LR, "weight_decay": TABLE_WEIGHT_DECAY}
            changes["batch_size"] = TABLE.batch_size(problem.task.n_rows)
        given = vars(self)
        for name, check in CHECKS.items():
            if given[name] is not None:
                changes[name] = check(caller_name, name, given[name])
        check_integer(caller_name, "n_epochs", self.n_epochs, 1, optional=True)
        return replace(PRESETS[preset], **changes)

    def _search(self) -> None:
        """Train the supernet and derive architectures, or load them from the store.

        Either way one number is drawn, so that later draws are the same.
        """
        seed, store = int(self.rng_.integers(2**31)), self.context_.store
        found = store.get(keys.SUPERNET)
        if found is None:
            found = self._fitted_attributes(seed)
            store.put(keys.SUPERNET, found)
        store.drop(keys.SUPERNET_STATE)
        for name, value in found.items():
            setattr(self, name, value)

    def _fitted_attributes(self, seed: int) -> dict[str, Any]:
        """Return the fitted attributes of a search.

        If memory runs out, train again with batches of half the size.
        """
        size = min(self.settings_.batch_size, len(self.problem_.folds[0].train))
        smaller = max(size // 2, 1)
        attempts = [
            partial(self._train_and_derive, seed, size),
            partial(self._train_and_derive, seed, smaller),
            partial(self._derive_nothing, smaller),
        ]
        return run_with_memory_retry(attempts, self.context_.device)

    def _train_and_derive(self, seed: int, batch_size: int) -> dict[str, Any]:
        state = self.context_.store.get(keys.supernet_state(batch_size))
        used = 0.0 if state is None else state["budget"]["seconds_used"]
        seconds = self.time_share * max(self.context_.seconds_left + used, 0.0)
        is_argmax = self.settings_.discretisation == "argmax"
        share = 1.0 if is_argmax else SEARCH_SHARE
        with isolated(seed, self.context_.device):
            trainer = self._make_trainer(seed, batch_size, share * seconds)
            if state is not None:
                trainer.load_state_dict(state)
            del state  # it is as large as the supernet
            self._train(trainer)
            seconds -= trainer.budget.seconds_used
            remaining = TimeBudget(trainer.budget.n_steps, seconds)
            derived, is_undecided = self._derive(trainer, remaining)
        return {
            "trajectory_": trainer.records.trajectory(trainer.net.choices),
            "entropy_": np.array(trainer.records.entropies),
            "sharpness_": np.array(trainer.records.eigenvalues),
            "derived_": derived,
            "is_undecided_": is_undecided,
        }

    def _derive_nothing(self, batch_size: int) -> dict[str, Any]:
        warn_user(
            "Memory ran out in the training of the supernet, even with batches of "
            f"{batch_size} rows: architectures are drawn at random; search a smaller "
            "space, or use another strategy."
        )
        return {
            "trajectory_": {},
            "entropy_": np.array([]),
            "sharpness_": np.array([]),
            "derived_": [],
            "is_undecided_": True,
        }

    def _make_trainer(
        self, seed: int, batch_size: int, seconds: float
    ) -> SupernetTrainer:
        settings = replace(self.settings_, batch_size=batch_size)
        fold, device = self.problem_.folds[0], self.context_.device
        net = self.space_.supernet(fold.task, settings.partial_channels).to(device)
        rng = np.random.default_rng(seed)
        split = BilevelSplit(
            fold.train, fold.task, device, rng, settings.is_single_level
        )
        n_steps = self._n_steps(split.n_batches(split.weight_rows, batch_size))
        can_converge = self.guards and settings.discretisation == "argmax"
        return SupernetTrainer(
            net,
            settings,
            split,
            TimeBudget(n_steps, seconds),
            self.context_.store,
            is_adaptive=fold.task.image is None,
            arch_lr=self.arch_lr,
            derive=partial(self._argmax_values, net) if can_converge else None,
        )

    def _n_steps(self, n_batches: int) -> int:
        """Return the number of training steps, given the batches per epoch."""
        if self.n_epochs is not None:
            return self.n_epochs * n_batches
        n_steps, max_epochs = self.problem_.n_steps, self.problem_.max_epochs
        if max_epochs is not None:
            n_steps = min(n_steps, max_epochs * n_batches)
        return max(1, n_steps)

    def _argmax_values(
        self, net: Supernet, shares: dict[str, np.ndarray]
    ) -> dict[str, Any]:
        derived = limit_skips(net, argmax_architecture(net.choices, shares))
        return net.architecture(derived.chosen, derived.shares)

    def _train(self, trainer: SupernetTrainer) -> None:
        if not trainer.once(trainer.run):
            budget = trainer.budget
            warn_user(
                f"After {budget.step} of {budget.n_steps} steps the loss of the "
                "supernet was infinite or NaN: architectures are derived from its "
                "state before; set a smaller 'lr'."
            )

    def _derive(
        self, trainer: SupernetTrainer, budget: TimeBudget
    ) -> tuple[list[Architecture], bool]:
        """Return architectures, the best first, and True if alphas are undecided."""
        net, is_undecided = trainer.net, False
        if self.settings_.discretisation == "perturbation":
            derived = perturbation_architecture(trainer, budget)
        else:
            derived = argmax_architecture(net.choices, trainer.alphas.shares())
            is_converged = trainer.records.is_converged
            threshold = MAX_CONVERGED_ENTROPY if is_converged else MAX_ENTROPY
            is_undecided = self.guards and trainer.alphas.entropy() > threshold
        first = self._guarded(net, derived)
        changes = [] if is_undecided else one_op_changes(net, first)
        variants = [first, *(self._guarded(net, change) for change in changes)]
        filled: dict[str, Architecture] = {}
        for variant in variants:
            values = net.architecture(variant.chosen, variant.shares)
            architecture = self.space_.fill(values)
            filled.setdefault(architecture.key, architecture)
        architectures = list(filled.values())
        if self.settings_.discretisation == "retrain":
            architectures = self._retrained(architectures, trainer, budget)
        return architectures, is_undecided

    def _retrained(
        self,
        architectures: list[Architecture],
        trainer: SupernetTrainer,
        budget: TimeBudget,
    ) -> list[Architecture]:
        """Return the architectures, the first feasible ones sorted by retraining."""
        feasible = filter(self.problem_.feasible, architectures)
        best = list(islice(feasible, N_RETRAINED))
        others = [a for a in architectures if a not in best]
        task = self.problem_.folds[0].task
        best = rank_by_retraining(best, self.space_, task, trainer, budget)
        return best + others

    def _guarded(
        self, net: Supernet, derived: DiscreteArchitecture
    ) -> DiscreteArchitecture:
        return limit_skips(net, derived) if self.guards else derived
