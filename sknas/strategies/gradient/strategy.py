"""Search by gradient descent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from sknas._budget import default_batch_size
from sknas._history import Architecture, Proposal, Trial
from sknas._problem import Problem
from sknas._training.isolation import free_memory, is_out_of_memory, isolated
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
    perturbation_scores,
    retrained,
)
from sknas.strategies.gradient.optimizers import STEEPER
from sknas.strategies.gradient.presets import PRESETS, Preset
from sknas.strategies.gradient.regularizers import REGULARISERS
from sknas.strategies.gradient.relaxations import RELAXATIONS
from sknas.strategies.gradient.resume import SNAPSHOT, Snapshots
from sknas.strategies.gradient.split import BilevelSplit
from sknas.strategies.gradient.supernet_trainer import SupernetTrainer
from sknas.strategies.gradient.time_budget import TimeBudget

IMAGE_PRESET, TABLE_PRESET = "drnas", "snas"  # where none is given
SEARCH_SHARE = 0.7  # of that, where more is trained to derive architectures
UNDECIDED = 0.95  # entropy above which the logits have told nothing,
UNMOVED = 0.999  # and above which not even if what they mean stays the same
TABLE_LR, TABLE_WEIGHT_DECAY = 1e-3, 1e-4  # of AdamW
DRAWS = 4  # neighbours drawn for each one that is asked for
RELAXED = "relaxed"  # key of a journal: what came of the relaxed network
WORDS: dict[str, Iterable[str]] = {
    "relaxation": RELAXATIONS,
    "regulariser": REGULARISERS,
    "discretisation": DISCRETISATIONS,
    "arch_optimizer": STEEPER,
}
NUMBERS = ("arch_lr", "lr")
SHARES = ("arch_weight_decay", "weight_decay", "dropout", "warmup")


class GradientStrategy(Strategy):
    """Trains one network that holds all architectures, and derives the best from it.

    Every option of the space has a weight in that network; weights of options and
    weights of layers go down the gradient in turn, each on rows of their own: halves
    of the training rows of the first fold, 30 and 70 percent below 2,000 rows, and the
    same rows below 600. Rows of a group stay together, and where groups are so large
    that few rows would be left for either, both get all of them, as they always do by
    "snas". The architecture whose options weigh most is proposed first, then those that
    differ from it where it is least certain, then neighbours of the best trial. The
    search scores them after the default architecture, or beside it under a `max_time`,
    as those of any other strategy; other known architectures are left out. An edge
    without an operation is never derived.

    The relaxed network is trained for as many steps as one network of a search, in a
    third of the time that is left. Parameters that are None are those of the preset.

    Parameters
    ----------
    preset : str or None, default=None
        A published method: "darts", "darts-2nd", "snas", "gdas", "pc-darts",
        "p-darts", "fair-darts", "smooth-darts", "drnas", "beta-darts" or "darts-pt";
        None for "drnas" for images and "snas" for tables.
    relaxation : str or None, default=None
        How options are weighed: "softmax"; "gumbel", a softmax of noisy logits;
        "gumbel-st", one option at a time, drawn by it; "dirichlet", weights drawn from
        that distribution; "sigmoid", each option by itself.
    regulariser : str or None, default=None
        "none"; "beta" keeps options from pulling away from each other; "zero-one"
        drives sigmoids to 0 or 1; "smooth" adds noise to the weights; "skip-dropout"
        drops numbers that skips pass on; "auxiliary-skip" adds a skip that fades.
    partial_channels : int or None, default=None
        One of so many channels goes through the options, more where that would leave
        fewer than four; of no meaning for tables.
    discretisation : str or None, default=None
        "argmax" takes the options of the largest weight, "perturbation" those whose
        removal hurts most, and "retrain" trains three architectures to choose from.
    order : {1, 2} or None, default=None
        2 looks one step of the weights ahead, at four times the cost.
    arch_optimizer : {"adam", "sgd", "momentum", "rmsprop"} or None, default=None
        What moves the logits.
    arch_lr : float or None, default=None
        Its rate; None for the published one, or a faster one in a short search, so that
        a logit can move by about 3.
    arch_weight_decay : float or None, default=None
        Weight decay of the logits.
    lr, weight_decay : float or None, default=None
        Of the weights, which SGD with momentum moves for images and AdamW for tables;
        None for 1e-3 and 1e-4 for tables.
    batch_size : int or None, default=None
        Rows of a batch; None for that of networks of the table.
    dropout : float or None, default=None
        Probability with which features before the last layer are dropped.
    warmup : float or None, default=None
        Share of the search, or of each of its stages, in which the weights alone are
        trained.
    n_epochs : int or None, default=None
        Epochs of the weights' rows; None for the steps of one network.
    guards : bool, default=True
        Whether at most two skips or poolings are taken in a cell, the logits are left
        alone once their architecture stays the same, and random architectures follow
        the first where the logits have told nothing. Off, methods are as published.

    Attributes
    ----------
    trajectory_ : dict of str to ndarray of shape (n_records, n_options)
        What the options of each decision counted, from the start to the end.
    entropy_ : ndarray of shape (n_records,)
        How undecided they were, from 0 to 1.
    sharpness_ : ndarray of shape (n_snapshots,)
        Largest eigenvalue of the Hessian of the logits; where it grows fast, the
        architecture is often worse than its relaxed network. None for "gumbel-st",
        which never computes all options at once.
    derived_ : list of Architecture or None
        What was derived, the best first; empty where memory did not suffice, and None
        where the search ended before.

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
    time_share = 1 / 3  # for the relaxed network
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
            allowed = "one that needs no network, where a function is searched"
            reject("search", "strategy", self, allowed)
        with isolated(0, problem.device):
            space.supernet(problem.task)  # says so if there is none
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
        if len(new) < n and (self.best_ is not None or not self.is_undecided_):
            new += self._neighbours(n - len(new))
        others = self.sampler_.draw(n - len(new))
        self.sampler_.mark(others)
        return [Proposal(architecture) for architecture in new + others]

    def observe(self, trials: Sequence[Trial]) -> None:
        self.sampler_.mark(trial.architecture for trial in trials)
        for trial in trials:
            is_scored = trial.status == "ok"
            if is_scored and (self.best_ is None or trial.order < self.best_.order):
                self.best_ = trial

    def _neighbours(self, n: int) -> list[Architecture]:
        """New architectures near the best trial, or near what was derived."""
        if self.best_ is not None:
            here = self.best_.architecture
        elif self.derived_:
            here = self.derived_[0]
        else:
            return []
        near = self.space_.neighbours(here, DRAWS * n, self.rng_)
        new = self.sampler_.unseen(near, n)
        self.sampler_.mark(new)
        return new

    def _settings(self, problem: Problem) -> Preset:
        """The preset with what is given in its place, after a check of all of it."""
        caller_name = type(self).__name__
        assert problem.task is not None
        is_table = problem.task.image is None
        usual = TABLE_PRESET if is_table else IMAGE_PRESET
        name = usual if self.preset is None else self.preset
        settings = PRESETS[check_word(caller_name, "preset", name, PRESETS)]
        given: dict[str, Any] = {}
        if is_table:
            given = {"lr": TABLE_LR, "weight_decay": TABLE_WEIGHT_DECAY}
            given["batch_size"] = default_batch_size(problem.task.n_rows)
        for name, words in WORDS.items():
            if getattr(self, name) is not None:
                given[name] = check_word(caller_name, name, getattr(self, name), words)
        for name in ("partial_channels", "batch_size"):
            if check_integer(caller_name, name, getattr(self, name), 1, optional=True):
                given[name] = getattr(self, name)
        for name in NUMBERS:
            if check_positive(caller_name, name, getattr(self, name), optional=True):
                given[name] = getattr(self, name)
        for name in SHARES:
            if getattr(self, name) is not None:
                given[name] = self._share(name)
        if self.order is not None:
            if self.order not in (1, 2):
                reject(caller_name, "order", self.order, "1, 2 or None")
            given["order"] = self.order
        check_integer(caller_name, "n_epochs", self.n_epochs, 1, optional=True)
        return replace(settings, **given)

    def _share(self, name: str) -> float:
        value = getattr(self, name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 <= value < 1:
            reject(
                type(self).__name__, name, value, "a number from 0 to below 1 or None"
            )
        return float(value)

    def _search(self) -> None:
        """Train the relaxed network and derive architectures, or take what was found.

        One number is drawn in either case, so that those drawn later are the same.
        """
        seed, store = int(self.rng_.integers(2**31)), self.problem_.store
        found = store.get(RELAXED)
        if found is None:
            found = self._found(seed)
            store.put(RELAXED, found)
        store.drop(SNAPSHOT)
        for name, value in found.items():
            setattr(self, name, value)

    def _found(self, seed: int) -> dict[str, Any]:
        """What came of the relaxed network, by the names of attributes.

        Where memory runs out, it is trained again with batches of half the size.
        """
        size = min(self.settings_.batch_size, len(self.problem_.folds[0].train))
        for batch_size in (size, max(size // 2, 1)):
            try:
                return self._trained(seed, batch_size)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            # Outside of the handler: the error holds on to all that filled the memory.
            free_memory(self.problem_.device)
        warn_user(
            "Memory ran out in the relaxed network, even with batches of "
            f"{batch_size} rows: architectures are drawn at random; search a smaller "
            "space, or take another strategy."
        )
        none = np.array([])
        told: dict[str, Any] = {"entropy_": none, "sharpness_": none}
        return told | {"trajectory_": {}, "derived_": [], "is_undecided_": True}

    def _trained(self, seed: int, batch_size: int) -> dict[str, Any]:
        """What came of it with batches of some size."""
        problem = self.problem_
        settings = replace(self.settings_, batch_size=batch_size)
        fold, device = problem.folds[0], problem.device
        is_plain = settings.discretisation == "argmax"
        share = 1.0 if is_plain else SEARCH_SHARE
        snapshots = Snapshots(problem.store, device, batch_size)
        seconds = self.time_share * max(problem.seconds_left + snapshots.seconds, 0.0)
        rng = np.random.default_rng(seed)
        with isolated(seed, device):
            net = self.space_.supernet(fold.task, settings.partial_channels).to(device)
            halves = BilevelSplit(
                fold.train, fold.task, device, rng, settings.is_single_level
            )
            n_steps = self._n_steps(halves.n_batches(halves.weight_rows, batch_size))
            training = SupernetTrainer(
                net,
                settings,
                halves,
                TimeBudget(n_steps, share * seconds),
                snapshots,
                is_adaptive=fold.task.image is None,
                arch_lr=self.arch_lr,
                derive=self._deriver(net) if self.guards and is_plain else None,
            )
            if not snapshots.once(training.run):
                warn_user(
                    f"After {training.clock.step} of {n_steps} steps the loss of the "
                    "relaxed network was infinite or NaN: architectures are derived "
                    "from what it was before; give a smaller 'lr'."
                )
            rest = TimeBudget(n_steps, (1 - share) * seconds)
            snapshots.follow("rest", rest, "used")
            derived, is_undecided = self._derive(training, rest)
        return {
            "trajectory_": training.trajectory,
            "entropy_": np.array(training.entropies),
            "sharpness_": np.array(training.sharpnesses),
            "derived_": derived,
            "is_undecided_": is_undecided,
        }

    def _n_steps(self, n_batches: int) -> int:
        """Steps to train, given the batches of an epoch."""
        if self.n_epochs is not None:
            return self.n_epochs * n_batches
        n_steps, max_epochs = self.problem_.n_steps, self.problem_.max_epochs
        if max_epochs is not None:
            n_steps = min(n_steps, max_epochs * n_batches)
        return max(1, n_steps)

    def _deriver(self, net: Supernet) -> Any:
        """Shares -> the architecture that they mean."""

        def derive(shares: dict[str, np.ndarray]) -> dict[str, Any]:
            derived = limit_skips(net, argmax_architecture(net.decisions, shares))
            return net.architecture(derived.chosen, derived.shares)

        return derive

    def _derive(
        self, training: SupernetTrainer, clock: TimeBudget
    ) -> tuple[list[Architecture], bool]:
        """Architectures of a trained network, the best first; if it told nothing."""
        net, is_undecided = training.net, False
        if self.settings_.discretisation == "perturbation":
            derived = perturbation_scores(training, clock)
        else:
            derived = argmax_architecture(net.decisions, training.logits.shares())
            most = UNMOVED if training.is_settled else UNDECIDED
            is_undecided = self.guards and training.logits.entropy() > most
        first = self._guarded(net, derived)
        changes = [] if is_undecided else one_op_changes(net, first)
        filled: dict[str, Architecture] = {}
        for one in [first, *(self._guarded(net, change) for change in changes)]:
            values = net.architecture(one.chosen, one.shares)
            architecture = self.space_.fill(values)
            filled.setdefault(architecture.key, architecture)
        architectures = list(filled.values())
        if self.settings_.discretisation == "retrain":
            allowed = filter(self.problem_.feasible, architectures)
            best = list(islice(allowed, N_RETRAINED))
            others = [a for a in architectures if a not in best]
            task = self.problem_.folds[0].task
            best = retrained(best, self.space_, task, training, clock)
            architectures = best + others
        return architectures, is_undecided

    def _guarded(
        self, net: Supernet, derived: DiscreteArchitecture
    ) -> DiscreteArchitecture:
        return limit_skips(net, derived) if self.guards else derived
