"""Named scorers of scikit-learn, computed for K networks at once."""

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
MAX_REPEATED = 1_000_000  # rows that `RowScorer` repeats at the most
PARTS = ("_score_func", "_sign", "_kwargs", "_response_method")  # of a scorer

SINGLE = ("binary", "multiclass")
CLASSES = (*SINGLE, "multilabel")
VALUES = ("regression",)


@dataclass(frozen=True, eq=False)
class Metric:
    """A scorer of scikit-learn for K networks at once; `find_metric` makes it."""

    score: Callable[[Tensor, _Rows], Tensor]
    sign: float  # 1 if greater is better, else -1
    reads_labels: bool  # not probabilities or values
    needs_every_class: bool  # in the rows that are scored
    kind: str
    n_classes: int  # or labels; 0 for regression

    @torch.no_grad()
    def __call__(self, predictions: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """Scores (K,) of predictions (K, N, C), NaN where undefined.

        Parameters
        ----------
        predictions : Tensor of shape (K, N, C)
            Class probabilities, one probability a label, or target values.
        y : Tensor of shape (N,) or (N, C)
            Class codes, 0/1 labels or target values.
        weight : Tensor of shape (N,)
            How often each row counts.
        """
        # As `RowScorer` does: shares of whole weights are whole again.
        weight = torch.round(weight, decimals=9)
        weight = weight if len(weight) > 1 else torch.ones_like(weight)
        y = y.double() if y.is_floating_point() else y
        rows = _Rows(y, weight, self.kind, self.n_classes)
        if self.reads_labels:
            return self.sign * self.score(predictions, rows)
        undefined = weight.new_full((len(predictions),), torch.nan)
        if self.needs_every_class and not rows.have_every_class:
            return undefined
        values = predictions.double()
        if self.kind in SINGLE:
            values = values / _row_sums(values)[..., None]
        is_finite = values.isfinite().flatten(1).all(1)
        return torch.where(is_finite, self.sign * self.score(values, rows), undefined)


def find_metric(scorer: Callable[..., float], kind: str, classes: Any) -> Metric | None:
    """What gives the scores of a scorer for many networks at once.

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
        None for a scorer that is not reproduced exactly.
    """
    name = _name(scorer)
    if name is None or kind not in METRICS[name][1]:
        return None
    score, named = METRICS[name][0], metrics.get_scorer(name)
    if kind == "regression":
        return Metric(score, named._sign, False, False, kind, 0)
    if not _are_plain(kind, classes):
        return None
    labels = np.asarray(classes).tolist()
    if name == "neg_brier_score" and not _has_brier(kind, labels):
        return None
    if kind in SINGLE and name in (*RATIOS, "average_precision"):
        if 1 not in labels:  # what these call positive
            return None
        score = partial(score, label=labels.index(1))
    is_lenient = kind == "binary" and name in ("neg_brier_score", "average_precision")
    needs_all = kind in SINGLE and not is_lenient
    reads_labels = named._response_method == "predict"
    return Metric(score, named._sign, reads_labels, needs_all, kind, len(labels))


def _name(scorer: Any) -> str | None:
    """The name of a scorer among those of `METRICS`, whose parts it shares."""
    parts = [getattr(scorer, part, None) for part in PARTS]
    for name in METRICS.keys() & set(metrics.get_scorer_names()):
        named = metrics.get_scorer(name)
        same = type(scorer) is type(named) and None not in parts
        if same and parts == [getattr(named, part, None) for part in PARTS]:
            return name
    return None


def _are_plain(kind: str, classes: Any) -> bool:
    """Whether scikit-learn reads from the classes what `kind` says."""
    try:  # it warns of few rows a class, hence the copies
        found = type_of_target(np.tile(classes, 3))
    except (TypeError, ValueError):
        return False
    return len(classes) > 1 and found.removesuffix("-indicator") == kind


def _has_brier(kind: str, labels: list[Any]) -> bool:
    if kind == "multiclass":  # since scikit-learn 1.7
        options = inspect.signature(metrics.brier_score_loss).parameters
        return "scale_by_half" in options
    # Whether rows that are all of one class are positive depends on the label, and
    # is right for these; strings are refused.
    return labels[0] in (0, -1) and labels[1] not in (0, -1)


@dataclass(frozen=True, eq=False)
class _Rows:
    """What predictions for N rows are compared with."""

    y: Tensor
    weight: Tensor
    kind: str
    n_classes: int

    @property
    def have_every_class(self) -> bool:
        return bool((torch.bincount(self.y, minlength=self.n_classes) > 0).all())

    @property
    def truth(self) -> Tensor:
        """0 or 1 for each class or label (N, C)."""
        is_single = self.kind in SINGLE
        return one_hot(self.y, self.n_classes).double() if is_single else self.y

    @property
    def repetitions(self) -> Tensor:
        """How often `RowScorer` repeats each for a metric that takes no weights."""
        if (self.weight % 1 != 0).any():
            return torch.ones_like(self.weight)
        divisor = int(np.gcd.reduce(self.weight.long().numpy(force=True)))
        repeats = self.weight / max(divisor, 1)
        excess = repeats.sum() / MAX_REPEATED
        return (repeats / excess).floor().clamp(min=1) if excess > 1 else repeats

    def sum(self, values: Tensor) -> Tensor:
        """Weighted sums over the rows of values (K, N, ...)."""
        return torch.tensordot(values.double(), self.weight, dims=([1], [0]))

    def mean(self, values: Tensor) -> Tensor:
        """Weighted means over the rows of values (K, N, ...)."""
        return self.sum(values) / self.weight.sum()


def _row_sums(shares: Tensor) -> Tensor:
    """Sums along the last axis in numpy's order: its ties are ours then."""
    n = shares.shape[-1]
    if n > 128:
        half = n // 2 - n // 2 % 8
        return _row_sums(shares[..., :half]) + _row_sums(shares[..., half:])
    if n < 8:
        return sum(shares.unbind(-1)[1:], start=shares[..., 0])
    whole = n - n % 8
    lanes = sum(shares[..., :whole].split(8, -1)[1:], start=shares[..., :8])
    while lanes.shape[-1] > 1:  # neighbours, then pairs of neighbours
        lanes = lanes[..., ::2] + lanes[..., 1::2]
    return sum(shares[..., whole:].unbind(-1), start=lanes[..., 0])


def _accuracy(p: Tensor, rows: _Rows) -> Tensor:
    if rows.kind == "multilabel":
        return rows.mean(((p > 0.5) == rows.y).all(-1))
    return rows.mean(p.argmax(-1) == rows.y)


def _count(p: Tensor, rows: _Rows) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights (K, C) of the rows that have each class or label.

    Those where it is right, predicted and true, and 1 if there is any such row.
    """
    true = (rows.weight @ rows.truth).expand(len(p), -1)
    if rows.kind == "multilabel":
        chosen = (p > 0.5).double()
        return rows.sum(chosen * rows.y), rows.sum(chosen), true, torch.ones_like(true)
    codes = p.argmax(-1)
    weight, zeros = rows.weight.expand(codes.shape), torch.zeros_like(true)
    present = zeros.scatter(1, codes, 1.0)
    present[:, rows.y] = 1.0
    hits = zeros.scatter_add(1, codes, weight * (codes == rows.y))
    return hits, zeros.scatter_add(1, codes, weight), true, present


def _balanced_accuracy(p: Tensor, rows: _Rows) -> Tensor:
    hits, _, true, _ = _count(p, rows)
    return (hits / true).nanmean(-1)


def _matthews(p: Tensor, rows: _Rows) -> Tensor:
    hits, predicted, true, _ = _count(p, rows)
    total = rows.weight.sum()
    both = hits.sum(-1) * total - (true * predicted).sum(-1)
    spread = (total**2 - (true**2).sum(-1)) * (total**2 - (predicted**2).sum(-1))
    # Rounding could hide that all rows are of one class.
    is_one = ((true > 0).sum(-1) < 2) | ((predicted > 0).sum(-1) < 2)
    return torch.where(is_one, 0.0, both / spread.sqrt())


def _ratio(
    p: Tensor, rows: _Rows, name: str, average: str = "binary", label: int = 0
) -> Tensor:
    """Precision and its like: a quotient for each class or label, averaged."""
    *counts, present = _count(p, rows)
    above, below = RATIOS[name](*counts)
    if average == "micro":
        return above.sum(-1) / below.sum(-1).clamp(min=EPS)
    quotient = torch.where(below == 0, 0.0, above / below)
    if average == "binary":
        return quotient[:, label]
    shares = counts[2] if average == "weighted" and counts[2].any() else present
    return (quotient * shares).sum(-1) / shares.sum(-1)


def _log_loss(p: Tensor, rows: _Rows) -> Tensor:
    if rows.kind == "binary":  # scikit-learn sees the second column alone
        right = torch.where(rows.y == 1, p[..., 1], 1 - p[..., 1])
    else:
        right = p.gather(2, rows.y.expand(p.shape[:2])[..., None])[..., 0]
    return rows.mean(-right.clamp(EPS, 1 - EPS).log())


def _brier(p: Tensor, rows: _Rows) -> Tensor:
    errors = ((p - rows.truth) ** 2).sum(-1)
    return rows.mean(errors) / (2 if rows.kind == "binary" else 1)


def _area(p: Tensor, truth: Tensor, weight: Tensor, precision: bool = False) -> Tensor:
    """Area (K,) under the ROC curve of p (K, N), or the average `precision`."""
    ordered, order = p.sort(dim=1, descending=True)
    is_last = torch.ones_like(ordered, dtype=torch.bool)
    is_last[:, :-1] = ordered[:, 1:] != ordered[:, :-1]
    curves = []
    for part in (weight * truth, weight * (1 - truth)):
        # Of rows that tie the last stands for all, the others repeat what was before.
        reached = torch.where(is_last, part[order].cumsum(1), 0.0).cummax(1).values
        steps = reached.diff(dim=1, prepend=torch.zeros_like(reached[:, :1]))
        curves += [reached, steps]
    hits, more_hits, falls, more_falls = curves
    if precision:  # 0 without positive rows
        right = (hits / (hits + falls)).nan_to_num(0.0)
        return ((more_hits * right).sum(1) / hits[:, -1]).nan_to_num(0.0)
    area = (more_falls * (hits - more_hits / 2)).sum(1)
    return area / (hits[:, -1] * falls[:, -1])  # NaN without one of the classes


def _ranking(
    p: Tensor,
    rows: _Rows,
    average: str = "macro",
    label: int = 1,
    precision: bool = False,
) -> Tensor:
    """An area for each label, or for each class against all others, averaged."""
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


def _ranking_of_pairs(p: Tensor, rows: _Rows, average: str = "macro") -> Tensor:
    """Area under the ROC curve of each class against each other one, averaged."""
    if rows.kind != "multiclass":
        return _ranking(p, rows, average=average)
    weight = rows.repetitions  # scikit-learn refuses weights
    areas, shares = [], []
    for pair in combinations(range(rows.n_classes), 2):
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
    is_refused = (rows.y <= -1).any() | (p <= -1).flatten(1).any(1)
    logs = _Rows(rows.y.log1p(), rows.weight, rows.kind, 0)
    return torch.where(is_refused, torch.nan, _squared_error(p.log1p(), logs, root))


def _max_error(p: Tensor, rows: _Rows) -> Tensor:
    errors = (rows.y - p).abs()[:, rows.repetitions > 0].amax(1)
    return errors[:, 0] if errors.shape[1] == 1 else errors[:, 0] * torch.nan  # refused


def _r2(p: Tensor, rows: _Rows, is_centred: bool = False) -> Tensor:
    """R2, or the explained variance if errors are to be centred."""
    error = rows.y - p
    error = error - rows.mean(error)[:, None] if is_centred else error
    error = rows.sum(error**2)
    # In scikit-learn's order: it decides whether a constant target has an error.
    y, weight = rows.y.numpy(force=True), rows.weight.numpy(force=True)
    mean = np.average(y, axis=0, weights=None if (weight == 1).all() else weight)
    of_mean = torch.from_numpy((weight[:, None] * (y - mean) ** 2).sum(0)).to(rows.y)
    explained = torch.where(of_mean == 0, 0.0, 1 - error / of_mean)
    explained = torch.where(error == 0, 1.0, explained).mean(-1)
    return explained if is_centred or len(y) > 1 else explained * torch.nan


def _median_error(p: Tensor, rows: _Rows) -> Tensor:
    errors, order = (rows.y - p).abs().transpose(1, 2).contiguous().sort(-1)
    below = rows.weight[order].cumsum(-1)
    half = 0.5 * below[..., -1:]
    low = errors.gather(-1, torch.searchsorted(below, half))
    # Where exactly half of the weight is below, the median is between two errors, but
    # with weights it is the lower one before scikit-learn 1.7.
    probe = metrics.median_absolute_error([0, 0], [1, 3], sample_weight=[2, 2])
    if probe == 1 and (rows.weight != 1).any():
        return low[..., 0].mean(-1)
    high = errors.gather(-1, torch.searchsorted(below, half + EPS, right=True))
    return ((low + high) / 2)[..., 0].mean(-1)


# (right, predicted, true) -> numerator, denominator
RATIOS: dict[str, Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "precision": lambda right, predicted, true: (right, predicted),
    "recall": lambda right, predicted, true: (right, true),
    "f1": lambda right, predicted, true: (2 * right, predicted + true),
    "jaccard": lambda right, predicted, true: (right, predicted + true - right),
}

# How each scorer is computed, and the kinds of targets that it is defined for.
METRICS: dict[str, tuple[Callable[..., Tensor], tuple[str, ...]]] = {
    "accuracy": (_accuracy, CLASSES),
    "balanced_accuracy": (_balanced_accuracy, SINGLE),
    "matthews_corrcoef": (_matthews, SINGLE),
    "neg_log_loss": (_log_loss, SINGLE),
    "neg_brier_score": (_brier, SINGLE),
    "average_precision": (partial(_ranking, precision=True), CLASSES),
    "roc_auc": (_ranking, ("binary", "multilabel")),
    "roc_auc_ovr": (_ranking, CLASSES),
    "roc_auc_ovo": (_ranking_of_pairs, CLASSES),
    "roc_auc_ovr_weighted": (partial(_ranking, average="weighted"), CLASSES),
    "roc_auc_ovo_weighted": (partial(_ranking_of_pairs, average="weighted"), CLASSES),
    "r2": (_r2, VALUES),
    "explained_variance": (partial(_r2, is_centred=True), VALUES),
    "neg_max_error": (_max_error, VALUES),
    "neg_mean_squared_error": (_squared_error, VALUES),
    "neg_root_mean_squared_error": (partial(_squared_error, root=True), VALUES),
    "neg_mean_squared_log_error": (_log_error, VALUES),
    "neg_root_mean_squared_log_error": (partial(_log_error, root=True), VALUES),
    "neg_mean_absolute_error": (_absolute_error, VALUES),
    "neg_mean_absolute_percentage_error": (_relative_error, VALUES),
    "neg_median_absolute_error": (_median_error, VALUES),
}
for _name_of in RATIOS:
    METRICS[_name_of] = (partial(_ratio, name=_name_of), ("binary",))
    for _average in ("macro", "micro", "weighted"):
        _score = partial(_ratio, name=_name_of, average=_average)
        METRICS[f"{_name_of}_{_average}"] = (_score, CLASSES)
