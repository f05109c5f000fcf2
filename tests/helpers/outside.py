"""A custom space, strategy and trainer that use public names only."""

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from sknas.nets import MixedChoice, MixedOperation, Supernet
from sknas.spaces import Categorical, Real, Space, UnseenSampler
from sknas.strategies import Proposal, Strategy, Trial
from sknas.trainers import Trainer, to_inference_net

WIDTHS = {"narrow": 4, "wide": 16}
ACTIVATIONS = {False: nn.Identity(), "relu": nn.ReLU(), "tanh": nn.Tanh()}


class Columns(nn.Module):
    """Encoded rows (N, F) as features (N, D), each kind of column padded with zeros."""

    def __init__(self, task, layout):
        super().__init__()
        self.sizes = (task.n_numeric, task.n_binary, len(task.cardinalities))
        self.layout = layout
        levels = torch.tensor(task.cardinalities, dtype=torch.float32)
        self.register_buffer("levels", levels.clamp(min=1), persistent=False)

    def forward(self, x):
        numeric, binary, codes = x.split(self.sizes, dim=-1)
        parts = zip((numeric, binary, codes / self.levels), self.layout, strict=True)
        padded = [functional.pad(part, (0, n - part.shape[-1])) for part, n in parts]
        return torch.cat(padded, dim=-1)


class BatchedLayer(nn.Module):
    """K linear layers: (K, N, F) -> (K, N, H)."""

    def __init__(self, k, n_inputs, n_outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(k, n_inputs, n_outputs))
        self.bias = nn.Parameter(torch.zeros(k, 1, n_outputs))

    def forward(self, x):
        return torch.baddbmm(self.bias, x, self.weight) / x.shape[-1] ** 0.5


class BatchedMLP(nn.Module):
    """K networks of one hidden layer: (N, D) or (G, N, D) -> (K, N, C)."""

    def __init__(self, n_inputs, width, activations, n_outputs):
        super().__init__()
        self.k = len(activations)
        self.activations = [ACTIVATIONS[name] for name in activations]
        self.hidden = BatchedLayer(self.k, n_inputs, width)
        self.output = BatchedLayer(self.k, width, n_outputs)

    def forward(self, features):
        x = features[None] if features.ndim == 2 else features
        h = self.hidden(x[torch.arange(self.k, device=x.device) % len(x)])
        activated = zip(self.activations, h, strict=True)
        return self.output(
            torch.stack([activation(each) for activation, each in activated])
        )


class OutsideSupernet(Supernet):
    """The narrow network with a mixture of all activations."""

    def __init__(self, columns, n_inputs, n_outputs):
        names = tuple(ACTIVATIONS)
        choice = MixedChoice(names, parameter_free=(0,), skip_op=0)
        super().__init__({"activation": choice})
        self.columns = columns
        self.hidden = nn.Linear(n_inputs, WIDTHS["narrow"])
        self.mixed = MixedOperation(list(ACTIVATIONS.values()), skips=(0,))
        self.output = nn.Linear(WIDTHS["narrow"], n_outputs)

    def forward(self, x, weights):
        h = self.mixed(self.hidden(self.columns(x)), weights["activation"])
        return self.output(h)[None]

    def architecture(self, chosen, shares):
        return {"width": "narrow", "activation": self.option("activation", chosen)}


class OutsideSpace(Space):
    """Networks of one hidden layer, with every capability.

    Its choices have the names of `TableSpace`, but other values.
    """

    can_build_batches = has_graph = has_supernet = measures_memory = True
    costs = (*Space.costs, "n_units")
    cost_free = ("lr",)

    def __init__(self, widths=("narrow", "wide")):
        self.widths = widths

    @property
    def choices(self):
        return {
            "width": Categorical(list(self.widths), default=self.widths[0]),
            "activation": Categorical(list(ACTIVATIONS), default="relu"),
            "lr": Real(3e-3, 0.1, log=True, default=0.03),
        }

    def portfolio(self, task):
        default = self.default_architecture()
        return [default, self.fill({"activation": "tanh"})]

    def batch_key(self, architecture):
        return architecture["width"]

    def layout(self, architecture, tasks):
        return (
            max(task.n_numeric for task in tasks),
            max(task.n_binary for task in tasks),
            max(len(task.cardinalities) for task in tasks),
        )

    def features(self, architecture, task, layout):
        return Columns(task, layout)

    def build_batch(self, architectures, task, layout=None):
        layout = layout or self.layout(architectures[0], [task])
        width = WIDTHS[architectures[0]["width"]]
        activations = [architecture["activation"] for architecture in architectures]
        return BatchedMLP(sum(layout), width, activations, task.n_outputs)

    def build(self, architecture, task):
        layout = self.layout(architecture, [task])
        features = self.features(architecture, task, layout)
        return nn.Sequential(features, self.build_batch([architecture], task, layout))

    def supernet(self, task, partial_channels=1):
        layout = self.layout(None, [task])
        return OutsideSupernet(Columns(task, layout), sum(layout), task.n_outputs)

    def graph(self, architecture):
        labels = ["input", architecture["width"], str(architecture["activation"])]
        return labels, [(0, 1), (1, 2)]

    def n_units(self, architecture, task):
        return WIDTHS[architecture["width"]]


class OutsideStrategy(Strategy):
    """Proposes neighbours of the best architecture, after random ones."""

    needs_initial_design = False
    time_share = 0.1
    results = ("device_", "ranking_")

    def __init__(self, n_random=4):
        self.n_random = n_random

    def attach(self, context):
        super().attach(context)
        self.device_ = context.device

    def setup(self, space, problem, rng):
        self.space_, self.rng_ = space, rng
        self.sampler_ = UnseenSampler(space, problem.feasible, rng)
        self.trials_ = []

    def observe(self, trials):
        self.sampler_.mark(trial.architecture for trial in trials)
        self.trials_ += trials

    def propose(self, n):
        near = []
        if len(self.trials_) >= self.n_random and self.rank(self.trials_):
            best = self.rank(self.trials_)[0].architecture
            near = self.space_.neighbours(best, 2 * n, self.rng_)
        chosen = self.sampler_.unseen(near, n)
        self.sampler_.mark(chosen)
        chosen += self.sampler_.draw(n - len(chosen))
        self.sampler_.mark(chosen)
        return [Proposal(architecture) for architecture in chosen]

    def rank(self, trials):
        ranked = super().rank(trials)
        self.ranking_ = [trial.proposal.number for trial in ranked]
        return ranked


@dataclass
class TrainedFold:
    """The trained network of a fold, as a checkpoint stores it."""

    state: dict
    output: np.ndarray
    n_epochs: int
    seconds: float
    score_seconds: float


class OutsideTrainer(Trainer):
    """Trains the networks of the folds one after the other, with Adam."""

    n_proposals = 3
    truncates_trainings = True
    keeps_networks = True
    records = (TrainedFold,)

    def __init__(self, batch_size=32):
        self.batch_size = batch_size

    def setup(self, space, problem, context):
        self.space_, self.problem_, self.context_ = space, problem, context

    def train(self, proposals):
        trials = []
        for proposal in proposals:
            is_interrupted = trials and trials[-1].cause == "interrupted"
            stopped = self._stopped(proposal, "interrupted")
            trials.append(stopped if is_interrupted else self._trial(proposal))
            self.context_.report(trials[-1])
        return trials

    def to_networks(self, trial):
        networks = []
        for fold, state in zip(self.problem_.folds, trial.networks, strict=True):
            net = to_inference_net(self.space_, trial.architecture, fold.task)
            net.module_.load_state_dict(state)
            networks.append(net)
        return tuple(networks)

    def _trial(self, proposal):
        try:
            indices = range(len(self.problem_.folds))
            return self._scored(proposal, [self._fold(proposal, j) for j in indices])
        except KeyboardInterrupt:
            return self._stopped(proposal, "interrupted")
        except TimeoutError:
            return self._stopped(proposal, "out of time")
        except MemoryError:
            options = {"cause": "out of memory", "reason": "out of memory"}
        except Exception as error:
            options = {"reason": f"{type(error).__name__}: {error}"}
        return Trial(proposal, status="failed", **options)

    def _stopped(self, proposal, cause):
        return Trial(proposal, status="stopped", cause=cause, reason=cause)

    def _fold(self, proposal, index):
        """Return the trained fold, from the store if possible."""
        key = f"cohort:{self.problem_.seed}:{proposal.number}:{index}"
        trained = self.context_.store.get(key)
        if trained is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(proposal.seed + index)
                trained = self._trained(proposal, self.problem_.folds[index])
            self.context_.store.put(key, trained)
        return trained

    def _trained(self, proposal, fold):
        problem, started = self.problem_, time.monotonic()
        net = self.space_.build(proposal.architecture, fold.task)
        x, y = torch.tensor(fold.train.x), torch.tensor(fold.train.y)
        weight = torch.tensor(fold.train.weight / fold.train.weight.mean()).float()
        n_batches = -(-len(x) // self.batch_size)
        n_steps = min(problem.n_steps, (problem.max_epochs or np.inf) * n_batches)
        lr = proposal.architecture.get("lr", 0.01)
        optimizer = torch.optim.Adam(net.parameters(), lr=lr)
        for step in range(n_steps):
            if self.context_.seconds_left <= 0:
                raise TimeoutError
            if step % n_batches == 0:
                batches = torch.randperm(len(x)).tensor_split(n_batches)
            rows = batches[step % n_batches]
            optimizer.zero_grad()
            loss = row_losses(fold.task.kind, net(x[rows])[0], y[rows])
            (loss * weight[rows].repeat(len(loss) // len(rows))).mean().backward()
            optimizer.step()
        seconds = time.monotonic() - started
        with torch.no_grad():
            output = net.eval()(torch.tensor(fold.valid.x))[0].numpy()
        if not np.isfinite(output).all():
            raise FloatingPointError("the loss diverged")
        n_epochs = -(-n_steps // n_batches)
        score_seconds = time.monotonic() - started - seconds
        state = net.state_dict()
        return TrainedFold(state, output, n_epochs, seconds, score_seconds)

    def _scored(self, proposal, trained):
        problem = self.problem_
        predictions = np.full((problem.n_rows, problem.task.n_outputs), np.nan)
        scores, losses = [], []
        for fold, each in zip(problem.folds, trained, strict=True):
            predicted, rows = fold.restore(each.output), fold.valid_rows
            predictions[rows] = predicted
            scores.append(problem.scorer.score(predicted, rows, fold.valid.weight))
            losses.append(problem.loss(predicted, rows, fold.valid.weight))
        return Trial(
            proposal,
            score=float(np.mean([score.value for score in scores])),
            loss=float(np.mean(losses)),
            fold_scores=tuple(score.value for score in scores),
            fold_seconds=tuple(each.seconds for each in trained),
            score_seconds=tuple(each.score_seconds for each in trained),
            n_epochs=trained[0].n_epochs,
            n_params=self.space_.n_params(proposal.architecture, problem.task),
            seconds=sum(each.seconds + each.score_seconds for each in trained),
            predictions=predictions,
            networks=tuple(each.state for each in trained),
        )


def row_losses(kind, output, y):
    """Return row losses of outputs (M * N, C), M copies of the rows, for N targets."""
    y = y.repeat(len(output) // len(y), *[1] * (y.ndim - 1))
    if kind == "regression":
        return (output - y).square().mean(dim=1)
    if kind == "multilabel":
        loss = functional.binary_cross_entropy_with_logits
        return loss(output, y, reduction="none").mean(dim=1)
    return functional.cross_entropy(output, y, reduction="none")
