"""Named scorers of scikit-learn, computed for K networks at once.

A search scores many snapshots of many networks. scikit-learn scores one of them at a
time and checks its input each time: 32 networks on 1,000 rows take it 50 to 150 ms. Its
scorers are therefore reproduced here on tensors (K, N, C), which takes 0.3 to 2 ms.

A ranking must not depend on the path taken, so each metric agrees with scikit-learn to
rounding, including ties, weights and undefined cases (NaN). `find_metric` returns None
for a scorer or a target it can't reproduce; `RowScorer` then calls scikit-learn.
Scorers are recognised by private attributes, see `SCORER_ATTRIBUTES`; if a release of
scikit-learn renames them, nothing is recognised, and searches are slower but right.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import torch
from sklearn import metrics
from sklearn.utils.multiclass import type_of_target
from torch import Tensor
from torch.nn.functional import one_hot

EPS = float(np.finfo(np.float64).eps)
MAX_REPEATED = 1_000_000  # rows, at most, after weighted rows are repeated
SCORER_ATTRIBUTES = ("_score_func", "_sign", "_kwargs", "_response_method")

SINGLE_LABEL = ("binary", "multiclass")
CLASSIFICATION = (*SINGLE_LABEL, "multilabel")
REGRESSION = ("regression",)


@dataclass(frozen=True, eq=False)
class Metric:
    """A scorer of scikit-learn for K networks at once, made by `find_metric`.

    Parameters
    ----------
    score : callable
        (predictions, _Rows) -> metric (K,).
    sign : float
        1 if greater is better, else -1.
    reads_labels : bool
        True if it reads labels, not probabilities or values.
    kind : {"binary", "multiclass", "multilabel", "regression"}
        The kind of target.
    n_classes : int
        Number of classes or labels, 0 for regression.
    """

    score: Callable[[Tensor, _Rows], Tensor]
    sign: float
    reads_labels: bool
    kind: str
    n_classes: int

    @torch.no_grad()
    def __call__(self, predictions: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """Return scores (K,), NaN where undefined.

        Parameters
        ----------
        predictions : Tensor of shape (K, N, C)
            Class probabilities, one probability per label, or target values.
        y : Tensor of shape (N,) or (N, C)
            Class codes, 0/1 labels or target values.
        weight : Tensor of shape (N,)
            How often each row counts.
        """
        # As in `RowScorer`: undo rounding errors, so that whole weights stay whole.
        weight = torch.round(weight, decimals=9)
        weight = weight if len(weight) > 1 else torch.ones_like(weight)
        y = y.double() if y.is_floating_point() else y
        rows = _Rows(y, weight, self.kind, self.n_classes)
        if self.reads_labels:
            return self.sign * self.score(predictions, rows)
        values = predictions.double()
        if self.kind in SINGLE_LABEL:
            values = values / _row_sums(values)[..., None]
        is_finite = values.isfinite().flatten(1).all(1)
        return torch.where(is_finite, self.sign * self.score(values, rows), torch.nan)


def find_metric(scorer: Callable[..., float], kind: str, classes: Any) -> Metric | None:
    """Return the metric that reproduces a scorer for many networks at once.

    Parameters
    ----------
    scorer : callable
        (estimator, X, y[, sample_weight]) -> float, greater is better.
    kind : {"binary", "multiclass", "multilabel", "regression"}
        The kind of target.
    classes : ndarray, list of ndarray or None
        The classes; a list for multi-label targets, None for regression.

    Returns
    -------
    Metric or None
        None if the scorer can't be reproduced exactly for this target.
    """
    name = _scorer_name(scorer)
    if name is None or kind not in METRICS[name][1]:
        return None
    score, named = METRICS[name][0], metrics.get_scorer(name)
    if kind == "regression":
        return Metric(score, named._sign, False, kind, 0)
    if not _agrees_on_kind(kind, classes):
        return None
    labels = np.asarray(classes).tolist()
    if name == "neg_brier_score" and not _has_brier_score(kind, labels):
        return None
    if kind in SINGLE_LABEL and name in (*RATIOS, "average_precision"):
        if 1 not in labels:  # their default `pos_label`
            return None
        score = partial(score, label=labels.index(1))
    reads_labels = named._response_method == "predict"
    return Metric(score, named._sign, reads_labels, kind, len(labels))


def _scorer_name(scorer: Any) -> str | None:
    """Return the name in `METRICS` of a scorer with the same attributes, or None."""

    def identity(of: Any) -> list[Any]:
        return [type(of), *(getattr(of, name, None) for name in SCORER_ATTRIBUTES)]

    if None in identity(scorer):
        return None
    for name in METRICS.keys() & set(metrics.get_scorer_names()):
        if identity(scorer) == identity(metrics.get_scorer(name)):
            return name
    return None


def _agrees_on_kind(kind: str, classes: Any) -> bool:
    """Return True if scikit-learn infers the same kind of target from the classes."""
    try:  # three copies, because it warns of classes with few rows
        found = type_of_target(np.tile(classes, 3))
    except (TypeError, ValueError):
        return False
    return len(classes) > 1 and found.removesuffix("-indicator") == kind


def _has_brier_score(kind: str, labels: list[Any]) -> bool:
    if kind == "multiclass":  # since scikit-learn 1.7
        options = inspect.signature(metrics.brier_score_loss).parameters
        return "scale_by_half" in options
    # If all rows are of one class, scikit-learn guesses from the label whether it is
    # the positive one; for these labels it guesses right.
    return labels[0] in (0, -1) and labels[1] not in (0, -1)


@dataclass(frozen=True, eq=False)
class _Rows:
    """Targets and weights of the N rows that are scored."""

    y: Tensor
    weight: Tensor
    kind: str
    n_classes: int

    @property
    def truth(self) -> Tensor:
        """0 or 1 for each class or label, (N, C)."""
        is_single_label = self.kind in SINGLE_LABEL
        return one_hot(self.y, self.n_classes).double() if is_single_label else self.y

    @property
    def repetitions(self) -> Tensor:
        """How often each row is repeated for a metric without weights, (N,)."""
        repeats = count_repetitions(self.weight.numpy(force=True))
        return torch.from_numpy(repeats).to(self.weight)

    def sum(self, values: Tensor) -> Tensor:
        """Return weighted sums over the rows of values (K, N, ...)."""
        return torch.tensordot(values.double(), self.weight, dims=([1], [0]))

    def mean(self, values: Tensor) -> Tensor:
        """Return weighted means over the rows of values (K, N, ...)."""
        return self.sum(values) / self.weight.sum()


def count_repetitions(weight: np.ndarray) -> np.ndarray:
    """Return how often to repeat rows for a metric without weights.

    Whole weights are divided by their common divisor, and scaled down to `MAX_REPEATED`
    rows. If a weight is not whole, no row is repeated.
    """
    if np.any(weight % 1 != 0):
        return np.ones(len(weight), dtype=np.int64)
    repeats = weight.astype(np.int64)
    repeats = repeats // max(int(np.gcd.reduce(repeats)), 1)
    excess = repeats.sum() / MAX_REPEATED
    return np.maximum(repeats / excess, 1).astype(int) if excess > 1 else repeats


def _row_sums(values: Tensor) -> Tensor:
    """Return sums along the last axis, added in the order of numpy's pairwise sum.

    Probabilities divided by them have the same rounding, so the same ones are tied.
    """
    n = values.shape[-1]
    if n > 128:
        middle = n // 2 - n // 2 % 8
        return _row_sums(values[..., :middle]) + _row_sums(values[..., middle:])
    if n < 8:
        return sum(values.unbind(-1)[1:], start=values[..., 0])
    n_whole = n - n % 8
    lanes = sum(values[..., :n_whole].split(8, -1)[1:], start=values[..., :8])
    while lanes.shape[-1] > 1:  # add neighbours, then pairs of neighbours
        lanes = lanes[..., ::2] + lanes[..., 1::2]
    return sum(values[..., n_whole:].unbind(-1), start=lanes[..., 0])


def _accuracy(p: Tensor, rows: _Rows) -> Tensor:
    if rows.kind == "multilabel":
        return rows.mean(((p > 0.5) == rows.y).all(-1))
    return rows.mean(p.argmax(-1) == rows.y)


def _confusion(p: Tensor, rows: _Rows) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return four tensors (K, C), with a number for each class or label.

    The first three are the weights of the rows in which it is predicted and true,
    predicted, and true. The fourth is 1 if it is predicted or true in any row, else 0.
    """
    true = (rows.weight @ rows.truth).expand(len(p), -1)
    if rows.kind == "multilabel":
        labels = (p > 0.5).double()
        return rows.sum(labels * rows.y), rows.sum(labels), true, torch.ones_like(true)
    codes = p.argmax(-1)
    weight, zeros = rows.weight.expand(codes.shape), torch.zeros_like(true)
    present = zeros.scatter(1, codes, 1.0)
    present[:, rows.y] = 1.0
    hits = zeros.scatter_add(1, codes, weight * (codes == rows.y))
    return hits, zeros.scatter_add(1, codes, weight), true, present


def _balanced_accuracy(p: Tensor, rows: _Rows) -> Tensor:
    hits, _, true, _ = _confusion(p, rows)
    return (hits / true).nanmean(-1)


def _matthews(p: Tensor, rows: _Rows) -> Tensor:
    hits, predicted, true, _ = _confusion(p, rows)
    total = rows.weight.sum()
    both = hits.sum(-1) * total - (true * predicted).sum(-1)
    spread = (total**2 - (true**2).sum(-1)) * (total**2 - (predicted**2).sum(-1))
    # Rounding may keep the spread of constants from being exactly 0.
    is_constant = ((true > 0).sum(-1) < 2) | ((predicted > 0).sum(-1) < 2)
    return torch.where(is_constant, 0.0, both / spread.sqrt())


def _ratio(
    p: Tensor, rows: _Rows, name: str, average: str = "binary", label: int = 0
) -> Tensor:
    """Return precision, recall, F1 or Jaccard, averaged over classes or labels."""
    *counts, present = _confusion(p, rows)
    numerator, denominator = RATIOS[name](*counts)
    if average == "micro":
        return numerator.sum(-1) / denominator.sum(-1).clamp(min=EPS)
    ratio = torch.where(denominator == 0, 0.0, numerator / denominator)
    if average == "binary":
        return ratio[:, label]
    shares = counts[2] if average == "weighted" and counts[2].any() else present
    return (ratio * shares).sum(-1) / shares.sum(-1)


def _log_loss(p: Tensor, rows: _Rows) -> Tensor:
    if rows.kind == "binary":  # scikit-learn reads the second column only
        likelihood = torch.where(rows.y == 1, p[..., 1], 1 - p[..., 1])
    else:
        likelihood = p.gather(2, rows.y.expand(p.shape[:2])[..., None])[..., 0]
    return rows.mean(-likelihood.clamp(EPS, 1 - EPS).log())


def _brier(p: Tensor, rows: _Rows) -> Tensor:
    errors = ((p - rows.truth) ** 2).sum(-1)
    return rows.mean(errors) / (2 if rows.kind == "binary" else 1)


def _area(p: Tensor, truth: Tensor, weight: Tensor, precision: bool = False) -> Tensor:
    """Return the area (K,) under the ROC curve of p (K, N), or average precision."""
    ordered, order = p.sort(dim=1, descending=True)
    is_last = torch.ones_like(ordered, dtype=torch.bool)
    is_last[:, :-1] = ordered[:, 1:] != ordered[:, :-1]
    curves = []
    for part in (weight * truth, weight * (1 - truth)):
        # Tied rows are one threshold: its counts are at the last, the others repeat
        # those of the threshold before.
        total = torch.where(is_last, part[order].cumsum(1), 0.0).cummax(1).values
        steps = total.diff(dim=1, prepend=torch.zeros_like(total[:, :1]))
        curves += [total, steps]
    tp, tp_steps, fp, fp_steps = curves  # true and false positives, (K, N)
    if precision:  # 0 without positive rows
        at_threshold = (tp / (tp + fp)).nan_to_num(0.0)
        return ((tp_steps * at_threshold).sum(1) / tp[:, -1]).nan_to_num(0.0)
    area = (fp_steps * (tp - tp_steps / 2)).sum(1)
    return area / (tp[:, -1] * fp[:, -1])  # NaN without one of the classes


def _ranking(
    p: Tensor,
    rows: _Rows,
    average: str = "macro",
    label: int = 1,
    precision: bool = False,
) -> Tensor:
    """Return the average area over labels, or over classes against all others."""
    truth, weight = rows.truth, rows.weight
    if rows.kind == "binary":
        return _area(p[..., label], truth[:, label], weight, precision)
    pairs = zip(p.unbind(-1), truth.unbind(-1), strict=True)
    areas = torch.stack([_area(*pair, weight, precision) for pair in pairs], dim=1)
    if average == "macro":
        return areas.mean(1)
    support = weight @ truth
    areas = torch.where(support > 0, areas, 0.0)
    return areas @ support / support.sum().clamp(min=EPS)


def _pairwise_ranking(p: Tensor, rows: _Rows, average: str = "macro") -> Tensor:
    """Return the average area under the ROC curve over pairs of classes."""
    if rows.kind != "multiclass":
        return _ranking(p, rows, average=average)
    weight = rows.repetitions  # scikit-learn rejects weights
    areas, shares = [], []
    present = rows.y[weight > 0].unique().tolist()
    if len(present) < 2:
        return weight.new_full((len(p),), torch.nan)
    for pair in combinations(present, 2):
        part = torch.isin(rows.y, rows.y.new_tensor(pair)).nonzero()[:, 0]
        for c in pair:
            truth = (rows.y[part] == c).double()
            areas.append(_area(p[:, part, c], truth, weight[part]))
            shares.append(weight[part].sum())
    each, share = torch.stack(areas, dim=1), torch.stack(shares)
    return each.mean(1) if average == "macro" else each @ share / share.sum()


def _squared_error(p: Tensor, rows: _Rows, root: bool = False) -> Tensor:
    errors = rows.mean((rows.y - p) ** 2)
    return (errors.sqrt() if root else errors).mean(-1)


def _absolute_error(p: Tensor, rows: _Rows) -> Tensor:
    return rows.mean((rows.y - p).abs()).mean(-1)


def _relative_error(p: Tensor, rows: _Rows) -> Tensor:
    return rows.mean((rows.y - p).abs() / rows.y.abs().clamp(min=EPS)).mean(-1)


def _log_error(p: Tensor, rows: _Rows, root: bool = False) -> Tensor:
    is_rejected = (rows.y <= -1).any() | (p <= -1).flatten(1).any(1)
    logs = _Rows(rows.y.log1p(), rows.weight, rows.kind, 0)
    return torch.where(is_rejected, torch.nan, _squared_error(p.log1p(), logs, root))


def _max_error(p: Tensor, rows: _Rows) -> Tensor:
    errors = (rows.y - p).abs()[:, rows.repetitions > 0].amax(1)
    # Several targets are rejected.
    return errors[:, 0] if errors.shape[1] == 1 else errors[:, 0] * torch.nan


def _r2(p: Tensor, rows: _Rows, is_centred: bool = False) -> Tensor:
    """Return R2, or the explained variance if errors are to be centred."""
    error = rows.y - p
    error = error - rows.mean(error)[:, None] if is_centred else error
    error = rows.sum(error**2)
    # In numpy and in scikit-learn's order: rounding decides whether a constant target
    # has a variance.
    y, weight = rows.y.numpy(force=True), rows.weight.numpy(force=True)
    mean = np.average(y, axis=0, weights=None if (weight == 1).all() else weight)
    total = torch.from_numpy((weight[:, None] * (y - mean) ** 2).sum(0)).to(rows.y)
    explained = torch.where(total == 0, 0.0, 1 - error / total)
    explained = torch.where(error == 0, 1.0, explained).mean(-1)
    return explained if is_centred or len(y) > 1 else explained * torch.nan


def _median_error(p: Tensor, rows: _Rows) -> Tensor:
    errors, order = (rows.y - p).abs().transpose(1, 2).contiguous().sort(-1)
    below = rows.weight[order].cumsum(-1)
    half = 0.5 * below[..., -1:]
    low = errors.gather(-1, torch.searchsorted(below, half))
    # If exactly half of the weight is below, the median is the mean of two errors; with
    # weights, it is the lower error before scikit-learn 1.7.
    probe = metrics.median_absolute_error([0, 0], [1, 3], sample_weight=[2, 2])
    if probe == 1 and (rows.weight != 1).any():
        return low[..., 0].mean(-1)
    high = errors.gather(-1, torch.searchsorted(below, half + EPS, right=True))
    return ((low + high) / 2)[..., 0].mean(-1)


# (predicted and true, predicted, true) -> numerator, denominator
RATIOS: dict[str, Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "precision": lambda both, predicted, true: (both, predicted),
    "recall": lambda both, predicted, true: (both, true),
    "f1": lambda both, predicted, true: (2 * both, predicted + true),
    "jaccard": lambda both, predicted, true: (both, predicted + true - both),
}

# Function and kinds of targets of each scorer.
METRICS: dict[str, tuple[Callable[..., Tensor], tuple[str, ...]]] = {
    "accuracy": (_accuracy, CLASSIFICATION),
    "balanced_accuracy": (_balanced_accuracy, SINGLE_LABEL),
    "matthews_corrcoef": (_matthews, SINGLE_LABEL),
    "neg_log_loss": (_log_loss, SINGLE_LABEL),
    "neg_brier_score": (_brier, SINGLE_LABEL),
    "average_precision": (partial(_ranking, precision=True), CLASSIFICATION),
    "roc_auc": (_ranking, ("binary", "multilabel")),
    "roc_auc_ovr": (_ranking, CLASSIFICATION),
    "roc_auc_ovo": (_pairwise_ranking, CLASSIFICATION),
    "roc_auc_ovr_weighted": (partial(_ranking, average="weighted"), CLASSIFICATION),
    "roc_auc_ovo_weighted": (
        partial(_pairwise_ranking, average="weighted"),
        CLASSIFICATION,
    ),
    "r2": (_r2, REGRESSION),
    "explained_variance": (partial(_r2, is_centred=True), REGRESSION),
    "neg_max_error": (_max_error, REGRESSION),
    "neg_mean_squared_error": (_squared_error, REGRESSION),
    "neg_root_mean_squared_error": (partial(_squared_error, root=True), REGRESSION),
    "neg_mean_squared_log_error": (_log_error, REGRESSION),
    "neg_root_mean_squared_log_error": (partial(_log_error, root=True), REGRESSION),
    "neg_mean_absolute_error": (_absolute_error, REGRESSION),
    "neg_mean_absolute_percentage_error": (_relative_error, REGRESSION),
    "neg_median_absolute_error": (_median_error, REGRESSION),
}
for _name in RATIOS:
    METRICS[_name] = (partial(_ratio, name=_name), ("binary",))
    for _average in ("macro", "micro", "weighted"):
        _averaged = partial(_ratio, name=_name, average=_average)
        METRICS[f"{_name}_{_average}"] = (_averaged, CLASSIFICATION)
